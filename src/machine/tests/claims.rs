use super::*;

const LIFE_MS: u64 = 30 * 60_000;

/// A ready task of a kind that nobody handles, and a service that claims by itself.
fn with_puller() -> (Story, RunId) {
    let mut s = Story::new();
    let run = s.service_up("puller", service());
    s.admitted("t", "k");
    (s, run)
}

fn claimed() -> (Story, RunId, Lock) {
    let (mut s, run) = with_puller();
    let lock = s.lock("t", "puller", Some(&run), Some(identity(2)));
    s.locked(lock.clone());
    (s, run, lock)
}

fn asks_for_outcomes(s: &Story, agent: &str) -> bool {
    s.wants(&Effect::LookForOutcomes(name("t"), name(agent)))
}

fn refused(s: &Story) -> String {
    match &s.news[..] {
        [Effect::RefuseOutcome { reason, .. }] => reason.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_claim_is_registered_and_the_task_no_longer_ready() {
    let (mut s, _, lock) = claimed();
    assert!(matches!(&s.facts()[..], [Fact::Claimed { .. }]));
    assert!(s.wants(&Effect::ShowReady(name("k"))) && s.ready("k").is_empty());
    assert_eq!(s.state.watched_locks(), [name("t")]);
    assert!(!s.state.expects_lock(&name("t")));
    s.locked(lock);
    assert!(s.news.is_empty(), "seen again");
}

#[test]
fn a_claim_made_before_we_hear_that_the_record_is_durable_counts() {
    let mut s = Story::new();
    let run = s.service_up("puller", service());
    s.tell(Event::Submitted(Story::submission("t", "k")));
    let lock = s.lock("t", "puller", Some(&run), Some(identity(2)));
    assert!(s.state.expects_lock(&name("t")));
    s.locked(lock);
    assert!(s.news.is_empty());
    s.stored();
    assert!(matches!(&s.facts()[..], [Fact::Claimed { .. }]));
    assert!(s.ready("k").is_empty());
}

#[test]
fn a_lock_that_gives_no_right_is_cleared_and_the_token_stands() {
    let (mut s, run) = with_puller();
    let wrong = Lock { token: 99, ..s.lock("t", "puller", Some(&run), None) };
    s.locked(wrong.clone());
    assert!(matches!(&s.facts()[..], [Fact::Vacated { token: 99, next_token: 1, .. }]));
    assert!(s.news.iter().any(|effect| matches!(effect, Effect::RemoveLock(Some(_), _))));
    s.locked(wrong);
    assert!(s.news.is_empty(), "its removal is on the way");
    s.stored();
    assert_eq!(s.ready("k").len(), 1);
    s.tell(Event::LockSeen(name("nothing"), Err("garbage".into())));
    assert!(s.wants(&Effect::RemoveLock(None, name("nothing"))), "no such task");
}

#[test]
fn a_dead_owner_is_vacated_at_once_after_its_outcomes_were_looked_for() {
    let (mut s, run, lock) = claimed();
    s.ends(&run, Ending::Signal(9));
    assert!(asks_for_outcomes(&s, "puller"));
    let change = s.looked("t").change();
    assert!(change.token > lock.token);
    assert_eq!((change.phase, change.failures), (Phase::Ready, 0));
    assert!(s.ready("k").is_empty(), "the lock goes only once the token is durable");
    s.stored();
    assert_eq!(s.ready("k").len(), 1);
    s.tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done)));
    assert!(refused(&s).contains("too late"));
}

#[test]
fn an_owner_that_hands_in_and_exits_is_always_accepted() {
    for outcome_first in [true, false] {
        let (mut s, run, lock) = claimed();
        let seen = Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done));
        if outcome_first {
            s.tell(seen);
        } else {
            s.tell(Event::Exited(run.clone(), Ending::Code(1)));
            s.tell(Event::TreeGone(run, Vec::new(), String::new())).tell(seen);
        }
        let change = s.change();
        assert_eq!((change.phase, change.token), (Phase::Done, lock.token));
        assert_eq!(change.settled, Some((name("puller"), lock.token, lock.nonce)));
        s.looked("t");
        assert!(s.news.is_empty(), "it is decided");
        s.stored();
        assert!(s.state.tasks.is_empty());
    }
}

#[test]
fn locks_whose_owner_is_proved_gone_hold_nothing() {
    let dead_boot = Identity { boot: "before".into(), ..identity(3) };
    let (mut s, run) = with_puller();
    let none = name("nobody");
    for (run, owner) in [
        (Some(&run), Some(dead_boot.clone())),
        (None, Some(dead_boot)),
        (Some(&none), Some(identity(3))),
        (Some(&none), None),
    ] {
        let lock = s.lock("t", "puller", run, owner);
        s.locked(lock);
        assert!(asks_for_outcomes(&s, "puller"));
        s.looked("t").stored();
        assert_eq!(s.ready("k").len(), 1);
    }
    let strangers = s.lock("t", "other", Some(&run), Some(identity(2)));
    s.locked(strangers);
    assert!(asks_for_outcomes(&s, "other"), "no run of that agent");
}

#[test]
fn a_process_outside_any_run_is_watched_and_fenced_when_it_ends() {
    let (mut s, _) = with_puller();
    let lock = s.lock("t", "operator", None, Some(identity(77)));
    let watched = name(&lock.nonce);
    s.locked(lock);
    assert!(s.wants(&Effect::TakeOver(watched.clone(), identity(77))));
    s.tell(Event::Exited(watched, Ending::Unseen));
    assert!(asks_for_outcomes(&s, "operator"));
    assert!(!s.news.iter().any(|effect| matches!(effect, Effect::Signal(..) | Effect::KillTree(_))));
    assert_eq!(s.looked("t").change().phase, Phase::Ready);
}

#[test]
fn a_claim_cannot_pass_for_a_run() {
    let (mut s, run) = with_puller();
    let lock = Lock { nonce: run.to_string(), ..s.lock("t", "operator", None, Some(identity(77))) };
    s.locked(lock);
    assert!(!s.news.iter().any(|effect| matches!(effect, Effect::TakeOver(..))));
    s.ends(&run, Ending::Code(1));
    assert!(!asks_for_outcomes(&s, "operator"), "only age decides");
}

#[test]
fn where_death_cannot_be_proved_age_alone_decides() {
    let elsewhere = Identity { ns: NS + 1, ..identity(2) };
    for owner in [Some(elsewhere), None] {
        let (mut s, run) = with_puller();
        let by = owner.is_some().then_some(&run);
        let lock = s.lock("t", "puller", by, owner.clone());
        s.locked(lock).ends(&run, Ending::Code(1));
        assert!(!asks_for_outcomes(&s, "puller"));
        s.wait(LIFE_MS - 1);
        assert!(!asks_for_outcomes(&s, "puller"));
        s.wait(1);
        assert!(asks_for_outcomes(&s, "puller"));
        assert_eq!(s.looked("t").change().phase, Phase::Ready);
    }
}

#[test]
fn a_live_owner_is_left_alone_before_its_time_and_isolated_after() {
    let (mut s, run, _) = claimed();
    s.wait(LIFE_MS - 1).tell(Event::Renewed(name("t"))).wait(LIFE_MS - 1);
    assert_eq!(s.standing("puller"), Standing::Running);
    s.wait(1);
    assert_eq!(s.standing("puller"), Standing::Isolated);
    assert!(s.wants(&Effect::Examine(run.clone())) && s.ready("k").is_empty());
    s.tell(Event::Renewed(name("t")));
    assert_eq!(s.standing("puller"), Standing::Running, "it holds on after all");
    s.wait(LIFE_MS).wait(300_000).tell(Event::Round(true));
    assert!(s.wants(&Effect::KillTree(run.clone())));
    s.ends(&run, Ending::Signal(9));
    assert!(asks_for_outcomes(&s, "puller"));
}

#[test]
fn what_is_held_under_halt_or_a_stop_does_not_expire() {
    let stop = |on: bool| {
        Event::StoppedSeen(if on { [(name("operator"), "x".to_owned())].into() } else { [].into() })
    };
    let halt = |on: bool| Event::HaltSeen(on.then(|| "x".to_owned()));
    for switch in [&stop as &dyn Fn(bool) -> Event, &halt] {
        let (mut s, _) = with_puller();
        s.tell(switch(true));
        let lock = s.lock("t", "operator", None, Some(identity(77)));
        s.locked(lock).wait(10 * LIFE_MS);
        assert!(!asks_for_outcomes(&s, "operator"));
        s.tell(switch(false));
        assert!(asks_for_outcomes(&s, "operator"), "{:?}", s.news);
    }
}

#[test]
fn an_unreadable_lock_is_taken_away_after_ten_quiet_seconds() {
    let (mut s, run) = with_puller();
    let garbage = || Event::LockSeen(name("t"), Err("not JSON".into()));
    s.tell(garbage()).wait(9_999).tell(Event::Renewed(name("t"))).tell(garbage()).wait(9_999);
    assert!(s.news.is_empty() && s.ready("k").is_empty());
    s.wait(1);
    assert_eq!(s.change().phase, Phase::Ready);
    s.stored();
    assert_eq!(s.ready("k").len(), 1);
    s.tell(garbage());
    let whole = s.lock("t", "puller", Some(&run), Some(identity(2)));
    s.locked(whole);
    assert!(matches!(&s.facts()[..], [Fact::Claimed { .. }]), "it became readable");
}

#[test]
fn an_outcome_needs_the_token_and_the_claim() {
    let (mut s, _, lock) = claimed();
    for (wrong, why) in [
        (Lock { token: 99, ..lock.clone() }, "too late"),
        (Lock { nonce: "other".into(), ..lock.clone() }, "another claim"),
        (Lock { agent: name("thief"), ..lock.clone() }, "another claim"),
        (Lock { task: name("none"), ..lock.clone() }, "no such open task"),
    ] {
        s.tell(Event::OutcomeSeen(Story::handed_in(&wrong, Verdict::Done)));
        assert!(refused(&s).contains(why), "{why}");
    }
    let repeated = HandedIn { decided: true, ..Story::handed_in(&lock, Verdict::Done) };
    s.tell(Event::OutcomeSeen(repeated));
    assert!(matches!(&s.news[..], [Effect::DropOutcome(..)]));
    s.tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done)));
    assert_eq!(s.change().phase, Phase::Done);
    s.tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done)));
    assert!(s.news.is_empty(), "that very one is being recorded");
}

#[test]
fn an_outcome_whose_lock_a_power_cut_took_is_accepted() {
    let (mut s, _) = with_puller();
    let lock = s.lock("t", "puller", None, None);
    s.tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done)));
    assert_eq!(s.change().phase, Phase::Done);
}

#[test]
fn an_outcome_whose_lock_a_power_cut_tore_is_accepted() {
    let (mut s, _) = with_puller();
    let lock = s.lock("t", "puller", None, None);
    s.tell(Event::LockSeen(name("t"), Err("empty".into())));
    s.tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done)));
    assert_eq!(s.change().phase, Phase::Done);
    s.wait(10_000);
    assert!(s.news.is_empty(), "nothing is left to vacate");
}

#[test]
fn an_outcome_whose_lock_an_old_one_replaced_in_a_power_cut_is_accepted_once_that_is_gone() {
    let (mut s, run) = with_puller();
    let old = Lock { token: 99, ..s.lock("t", "puller", Some(&run), None) };
    let lost = s.lock("t", "puller", None, None);
    s.locked(old);
    s.tell(Event::OutcomeSeen(Story::handed_in(&lost, Verdict::Done)));
    assert!(s.news.is_empty(), "the old lock goes first");
    s.stored();
    assert_eq!(s.change().phase, Phase::Done);
}

#[test]
fn a_verdict_decides_what_becomes_of_the_task() {
    for (verdict, phase, failures, deferrals) in [
        (Verdict::Done, Phase::Done, 0, 0),
        (Verdict::Failed, Phase::Waiting, 1, 0),
        (Verdict::Retry, Phase::Waiting, 0, 1),
        (Verdict::Released, Phase::Ready, 0, 0),
    ] {
        let (mut s, _, lock) = claimed();
        s.tell(Event::OutcomeSeen(Story::handed_in(&lock, verdict)));
        let change = s.change();
        assert_eq!((change.phase, change.failures, change.deferrals), (phase, failures, deferrals));
        assert_eq!(change.decided, Some(lock.nonce));
    }
}

#[test]
fn a_handlers_outcome_comes_before_its_exit_code() {
    let mut s = Story::new();
    s.offer("h", "1", handler("k")).admitted("t", "k");
    let lock = s.launches()[0].2.clone().unwrap().lock;
    let run = s.up();
    s.ends(&run, Ending::Code(0)).tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Failed)));
    assert_eq!(s.change().failures, 1);
    s.looked("t");
    assert!(s.news.is_empty());
}

#[test]
fn a_handlers_lock_does_not_age() {
    let mut s = Story::new();
    s.offer("h", "1", Manifest { timeout_ms: 10 * LIFE_MS, ..handler("k") }).admitted("t", "k").up();
    s.wait(9 * LIFE_MS);
    assert_eq!(s.standing("h"), Standing::Running);
    assert!(s.news.is_empty());
}

#[test]
fn a_lock_that_was_there_first_keeps_the_task_from_a_handler() {
    let mut s = Story::new();
    s.offer("h", "1", handler("k"));
    let puller = s.service_up("puller", service());
    s.admitted("t", "k");
    let run = s.launches()[0].0.clone();
    let first = s.lock("t", "puller", Some(&puller), Some(identity(2)));
    s.locked(first.clone()).tell(Event::DispatchFailed(run, "the lock is taken".into())).wait(100_000);
    assert!(s.ready("k").is_empty() && s.launches().is_empty());
    s.tell(Event::OutcomeSeen(Story::handed_in(&first, Verdict::Done)));
    assert_eq!(s.change().phase, Phase::Done);
}

#[test]
fn a_process_outside_any_run_is_watched_no_longer_than_it_holds_the_task() {
    let (mut s, _) = with_puller();
    let lock = s.lock("t", "operator", None, Some(identity(77)));
    let watched = name(&lock.nonce);
    s.locked(lock.clone());
    assert!(s.wants(&Effect::TakeOver(watched.clone(), identity(77))));
    s.tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done)));
    assert!(s.wants(&Effect::Release(watched)), "each holds a descriptor");
}

#[test]
fn a_record_moved_back_while_its_task_is_ending_is_left_for_the_next_look() {
    let (mut s, _, lock) = claimed();
    s.tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done)));
    let back = Submission { replayed: Some(3), ..Story::submission("t", "k") };
    s.tell(Event::Submitted(back.clone()));
    assert!(s.news.is_empty(), "it may be all that is left of the task");
    s.stored().tell(Event::Submitted(back));
    assert!(
        s.news.iter().any(|effect| matches!(effect, Effect::Admit { fact: Some(Fact::Replayed { .. }), .. }))
    );
}

/// A claimed task whose owner says this of it; gives what the record is to say.
fn concluded(status: Verdict, permanent: bool, retry_after_ms: Option<u64>) -> (Story, RecordChange) {
    let (mut s, _, lock) = claimed();
    let mut seen = Story::handed_in(&lock, status);
    (seen.outcome.permanent, seen.outcome.retry_after_ms) = (permanent, retry_after_ms);
    let change = s.tell(Event::OutcomeSeen(seen)).change();
    (s, change)
}

#[test]
fn what_fails_for_good_is_dead_at_once_whatever_wait_was_asked_for() {
    for wait in [None, Some(90_000)] {
        let (_, change) = concluded(Verdict::Failed, true, wait);
        assert_eq!((change.phase, change.failures, change.not_before), (Phase::Dead, 1, None));
    }
    let (_, change) = concluded(Verdict::Failed, false, None);
    assert_eq!(change.phase, Phase::Waiting);
}

#[test]
fn an_owner_says_how_long_its_task_waits_but_no_shorter_than_without_and_no_longer_than_a_week() {
    const WEEK_MS: u64 = 7 * 86_400_000;
    for (status, asked, at_least, at_most) in [
        (Verdict::Failed, 90_000, 90_000, 90_000),
        (Verdict::Retry, 90_000, 90_000, 90_000),
        (Verdict::Retry, 1, 60_000, 60_000),
        (Verdict::Failed, 0, 0, 1_000),
        (Verdict::Failed, u64::MAX, WEEK_MS, WEEK_MS),
    ] {
        let (mut s, change) = concluded(status, false, Some(asked));
        let waits = change.not_before.unwrap().0 - s.now().wall.0;
        let waits = u64::try_from(waits).unwrap();
        assert!((at_least..=at_most).contains(&waits), "{status:?} {asked}: {waits}");
        assert_eq!(change.failures, u32::from(status == Verdict::Failed));
        s.stored();
        s.wait(waits.saturating_sub(1));
        assert!(s.ready("k").is_empty());
        assert_eq!(s.wait(1).change().phase, Phase::Ready);
    }
}

#[test]
fn a_failed_try_is_kept_with_its_reason_whoever_made_it() {
    let (_, change) = concluded(Verdict::Failed, false, None);
    assert!(change.attempt.unwrap().run.is_some());
    let (mut s, _) = with_puller();
    let lock = s.lock("t", "operator", None, Some(identity(2)));
    s.locked(lock.clone());
    let mut seen = Story::handed_in(&lock, Verdict::Failed);
    seen.outcome.error = Some("no such page".into());
    let attempt = s.tell(Event::OutcomeSeen(seen)).change().attempt.unwrap();
    assert_eq!(
        (attempt.agent.as_str(), attempt.run, attempt.error.as_str()),
        ("operator", None, "no such page")
    );
}

#[test]
fn a_task_that_was_released_is_ready_at_once_whatever_wait_was_asked_for() {
    let (_, change) = concluded(Verdict::Released, true, Some(90_000));
    assert_eq!((change.phase, change.not_before), (Phase::Ready, None));
}

#[test]
fn a_try_that_failed_keeps_what_was_printed_and_the_most_memory_though_its_handler_still_runs() {
    let mut s = Story::new();
    s.offer("h", "1", handler("k")).admitted("t", "k");
    let grant = s.launches()[0].2.clone().unwrap();
    let run = s.up();
    assert_eq!(s.state.handler_of(&name("t")), Some(&run));
    for (bytes, exact) in [(7, false), (9, true), (8, false)] {
        s.tell(Event::Memory { run: run.clone(), bytes, exact });
    }
    let said = HandedIn { words: "no such page".into(), ..Story::handed_in(&grant.lock, Verdict::Failed) };
    s.tell(Event::OutcomeSeen(said));
    let attempt = s.change().attempt.unwrap();
    assert_eq!((attempt.output.as_str(), attempt.peak_memory), ("no such page", Some(9)));
    assert_eq!(s.state.handler_of(&name("t")), None);

    let mut s = Story::new();
    s.offer("h", "1", handler("k")).admitted("t", "k");
    let run = s.up();
    s.tell(Event::Memory { run: run.clone(), bytes: 5, exact: false });
    s.fails(&run);
    assert_eq!(s.looked("t").change().attempt.unwrap().peak_memory, Some(5), "it is gone by then");
}
