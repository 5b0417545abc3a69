use super::*;
use crate::machine::event::{Accepted, Ended, Found, Next};
use crate::protocol::layout::Shelf;

fn with_handler() -> Story {
    let mut s = Story::new();
    s.offer("h", "1", handler("k"));
    s
}

/// The handler's process ends, and no outcome lies on the disk.
fn exits(s: &mut Story, run: &RunId, code: i32) -> RecordChange {
    s.ends(run, Ending::Code(code));
    assert!(s.wants(&Effect::LookForOutcomes(name("t"), name("h"))), "outcomes come first");
    s.looked("t").change()
}

fn from(at: Wall) -> Wishes {
    Wishes { not_before: Some(at), ..Wishes::default() }
}

fn found(phase: Phase) -> Found {
    Found {
        id: name("t"),
        kind: name("k"),
        nonce: "n".into(),
        token: 40,
        phase,
        at: Wall(0),
        failures: 0,
        deferrals: 0,
        deaths: 0,
        wishes: Wishes::default(),
        needs: Vec::new(),
        made: None,
        accepted: None,
        handed_in: Vec::new(),
        lock: None,
    }
}

#[test]
fn a_submission_is_admitted_with_a_token_reserved_before_and_ready_once_durable() {
    let mut s = with_handler();
    s.tell(Event::Submitted(Story::submission("t", "k")));
    let [Effect::ReserveTokens(reserved), Effect::Admit { token, fact, .. }] = &s.news[..] else {
        panic!("{:?}", s.news)
    };
    assert!(token <= reserved);
    assert!(matches!(fact, Some(Fact::Submitted { .. })));
    s.tell(Event::Submitted(Story::submission("t", "k")));
    assert!(s.news.is_empty(), "seen again before it is durable: it is all there is of the task");
    s.stored();
    assert_eq!(s.launches().len(), 1);
}

#[test]
fn what_is_known_already_is_dropped() {
    let of = |s: &Story| match &s.news[..] {
        [Effect::DropSubmission(_, Some(Fact::Duplicate { of, .. }))] => Some(of.clone()),
        [Effect::DropSubmission(_, None)] => None,
        other => panic!("{other:?}"),
    };
    let mut s = Story::new();
    s.admitted("t", "k").tell(Event::Submitted(Story::submission("t", "k")));
    assert_eq!(of(&s), None, "the same nonce: a crash came between");
    let other = Submission { nonce: "other".into(), ..Story::submission("t", "k") };
    s.tell(Event::Submitted(other));
    assert_eq!(of(&s).as_deref(), Some("open"));
    for (shelf, word) in [(Shelf::Done, "done"), (Shelf::Review, "review")] {
        let ended = |nonce: &str| Some(Ended { shelf, nonce: nonce.into(), token: 5, unique_until: None });
        s.tell(Event::Submitted(Submission { ended: ended("old"), ..Story::submission("u", "k") }));
        assert_eq!(of(&s).as_deref(), Some(word));
        s.tell(Event::Submitted(Submission { ended: ended("of-u"), ..Story::submission("u", "k") }));
        assert_eq!(of(&s), None);
    }
    s.tell(Event::Submitted(Submission { replayed: Some(3), ..Story::submission("v", "k") }));
    assert!(matches!(&s.news[..], [Effect::Admit { fact: Some(Fact::Replayed { .. }), .. }]));
}

#[test]
fn a_submission_that_the_ledger_told_of_already_keeps_its_token_and_is_not_told_again() {
    let mut s = Story::new();
    s.tell(Event::Submitted(Submission { told: Some(7), ..Story::submission("t", "k") }));
    assert!(matches!(&s.news[..], [Effect::Admit { token: 7, fact: None, .. }]), "{:?}", s.news);
}

#[test]
fn a_submission_that_could_not_be_admitted_may_be_admitted_later() {
    let mut s = Story::new();
    s.tell(Event::Submitted(Story::submission("t", "k")));
    let ticket = s.state.last_ticket;
    s.tell(Event::NotStored(ticket, "no such file".into()));
    s.tell(Event::Submitted(Story::submission("t", "k")));
    assert!(matches!(&s.news[..], [Effect::Admit { .. }]));
}

#[test]
fn a_handler_gets_the_oldest_task_one_at_a_time() {
    let mut s = with_handler();
    for (at, id) in ["z", "y", "x"].into_iter().enumerate() {
        let at = Wall(i64::try_from(at).unwrap());
        s.tell(Event::Submitted(Submission { at, ..Story::submission(id, "k") }));
    }
    s.stored();
    for id in ["z", "y", "x"] {
        let [(_, digest, Some(grant))] = &s.launches()[..] else { panic!("{:?}", s.news) };
        assert_eq!((digest.as_str(), &grant.lock.task, &grant.lock.owner), ("1", &name(id), &None));
        let run = s.up();
        let owned = |effect: &Effect| matches!(effect, Effect::NameOwner(lock) if lock.owner.is_some());
        assert!(s.news.iter().any(owned), "its process goes into the lock");
        let next = std::mem::take(&mut s.ends(&run, Ending::Code(0)).news);
        assert_eq!(s.looked(id).change().phase, Phase::Done);
        s.news = next;
    }
}

#[test]
fn concurrency_and_the_hosts_limit_bound_what_runs_at_once() {
    for (concurrency, at_once, launched) in [(1, 4, 1), (3, 4, 3), (9, 4, 4)] {
        let mut s = Story::with(Setup { tasks_at_once: at_once, ..setup() });
        s.offer("h", "1", Manifest { concurrency, ..handler("k") });
        for id in 0..10 {
            s.tell(Event::Submitted(Story::submission(&format!("t{id}"), "k")));
        }
        s.stored();
        assert_eq!(s.launches().len(), launched);
    }
}

#[test]
fn a_survivor_counts_for_its_handlers_concurrency() {
    let mut s = Story::new();
    s.tell(Event::SurvivorFound(name("old"), name("h"), identity(9)));
    s.offer("h", "1", handler("k")).admitted("t", "k");
    assert!(s.launches().is_empty());
    s.tell(Event::TreeGone(name("old"), Vec::new(), String::new()));
    assert_eq!(s.launches().len(), 1);
}

#[test]
fn no_handler_starves_another() {
    let mut s = Story::with(Setup { tasks_at_once: 2, ..setup() });
    for n in 0..6 {
        s.tell(Event::Submitted(Story::submission(&format!("a{n}"), "a")));
    }
    for n in 0..6 {
        s.tell(Event::Submitted(Story::submission(&format!("b{n}"), "b")));
    }
    s.stored().tell(Event::HaltSeen(Some("not yet".into())));
    s.offer("a", "1", Manifest { concurrency: 9, ..handler("a") });
    s.offer("b", "1", Manifest { concurrency: 9, ..handler("b") });
    s.tell(Event::HaltSeen(None));
    for _ in 0..3 {
        let launches = s.launches();
        let kinds: Vec<&str> =
            launches.iter().map(|(.., grant)| &grant.as_ref().unwrap().lock.task.as_str()[..1]).collect();
        assert_eq!(kinds, ["a", "b"]);
        let mut news = Vec::new();
        for (run, ..) in &launches {
            news.append(&mut s.ends(run, Ending::Code(0)).news);
        }
        s.news = news;
    }
}

#[test]
fn failures_are_tried_three_times_more_and_then_dead() {
    let mut longest = [0; 3];
    for seed in 0..50 {
        let mut s = Story::with(Setup { seed, ..setup() });
        s.offer("h", "1", handler("k")).admitted("t", "k");
        let mut token = 0;
        for (n, bound) in [1_000, 4_000, 16_000].into_iter().enumerate() {
            let run = s.up();
            let change = exits(&mut s, &run, 1);
            assert!(change.token > token, "what ends readiness changes the token");
            token = change.token;
            assert_eq!((change.phase, change.failures), (Phase::Waiting, u32::try_from(n).unwrap() + 1));
            assert_eq!(change.attempt.unwrap().error, "exit 1");
            let wait = u64::try_from(change.not_before.unwrap().0 - s.now().wall.0).unwrap();
            assert!(wait <= bound);
            longest[n] = wait.max(longest[n]);
            s.stored().wait(wait);
            if let Some(Effect::Record(_, change)) =
                s.news.iter().find(|effect| matches!(effect, Effect::Record(..)))
            {
                assert_eq!(change.phase, Phase::Ready, "who claims by itself believes the record");
            }
            s.stored();
        }
        let run = s.up();
        assert_eq!(exits(&mut s, &run, 1).phase, Phase::Dead);
        s.stored();
        assert!(s.state.tasks.is_empty() && s.state.next_deadline().is_none());
    }
    assert!(longest[0] > 500 && longest[1] > 2_000 && longest[2] > 8_000, "{longest:?}");
}

#[test]
fn an_exit_says_what_becomes_of_the_task() {
    for (ending, phase, failures, deferrals) in [
        (Ending::Code(0), Phase::Done, 0, 0),
        (Ending::Code(66), Phase::Done, 0, 0),
        (Ending::Code(75), Phase::Waiting, 0, 1),
        (Ending::Code(69), Phase::Waiting, 0, 1),
        (Ending::Code(64), Phase::Dead, 1, 0),
        (Ending::Code(65), Phase::Dead, 1, 0),
        (Ending::Code(78), Phase::Dead, 1, 0),
        (Ending::Code(1), Phase::Waiting, 1, 0),
        (Ending::Signal(40), Phase::Waiting, 1, 0),
        (Ending::Unseen, Phase::Ready, 0, 0),
    ] {
        let mut s = with_handler();
        let run = s.admitted("t", "k").up();
        s.ends(&run, ending).looked("t");
        let change = s.change();
        assert_eq!(
            (change.phase, change.failures, change.deferrals),
            (phase, failures, deferrals),
            "{ending}"
        );
        assert_eq!(change.output.is_some(), ending == Ending::Code(0));
        assert_eq!(change.facts.len(), 1);
    }
}

#[test]
fn later_is_a_minute_and_dead_after_a_hundred() {
    let mut s = with_handler();
    s.admitted("t", "k");
    for deferrals in 1..100 {
        let run = s.up();
        let change = exits(&mut s, &run, 75);
        assert_eq!((change.deferrals, change.failures), (deferrals, 0));
        s.stored().wait(59_999);
        assert!(s.news.is_empty());
        s.wait(1).stored();
    }
    let run = s.up();
    assert_eq!(exits(&mut s, &run, 75).phase, Phase::Dead);
}

#[test]
fn an_output_that_is_none_fails_the_task() {
    let mut s = with_handler();
    let run = s.admitted("t", "k").up();
    exits(&mut s, &run, 0);
    let ticket = s.state.last_ticket;
    s.tell(Event::NotStored(ticket, "it is a symlink".into()));
    let change = s.change();
    assert_eq!((change.phase, change.failures, change.output.is_none()), (Phase::Waiting, 1, true));
    let ticket = s.state.last_ticket;
    s.tell(Event::NotStored(ticket, "its record is gone".into()));
    assert_eq!(s.alerts(), ["lost-t"]);
    assert!(s.state.tasks.is_empty(), "it is not tried for ever");
}

#[test]
fn no_process_no_failure() {
    let mut s = with_handler();
    s.admitted("t", "k");
    let run = s.launches()[0].0.clone();
    s.tell(Event::DispatchFailed(run, "the lock is taken".into()));
    assert!(s.launches().is_empty());
    assert_eq!(s.ready("k").len(), 1);
    s.wait(2_000);
    let run = s.launches()[0].0.clone();
    s.tell(Event::SpawnFailed { run, error: "no such file".into(), busy: false }).looked("t");
    assert_eq!((s.change().phase, s.change().failures), (Phase::Ready, 0));
    assert_eq!(s.state.agents[&name("h")].failures, 1);
    s.stored().up();
    assert_eq!(s.state.agents[&name("h")].failures, 0, "it starts again");
}

#[test]
fn a_handler_without_a_task_waits_quietly_after_a_failed_start() {
    let mut s = with_handler();
    s.admitted("t", "k");
    let run = s.launches()[0].0.clone();
    s.tell(Event::DispatchFailed(run, "no".into())).tell(Event::TaskLost(name("t"), "gone".into()));
    s.wait(10_000);
    assert_eq!(s.state.next_deadline(), None);
}

#[test]
fn a_lost_record_loses_the_task_alone() {
    let mut s = with_handler();
    let run = s.admitted("t", "k").up();
    s.tell(Event::TaskLost(name("t"), "its record is gone".into()));
    assert_eq!(s.alerts(), ["lost-t"]);
    s.ends(&run, Ending::Code(0));
    assert!(!s.news.iter().any(|effect| matches!(effect, Effect::LookForOutcomes(..))));
    let run = s.admitted("t", "k").up();
    assert_eq!(exits(&mut s, &run, 0).phase, Phase::Done);
}

#[test]
fn a_late_answer_is_not_taken_for_another_tasks() {
    let mut s = Story::new();
    s.tell(Event::Submitted(Story::submission("t", "k")));
    let early = s.state.last_ticket;
    s.tell(Event::TaskLost(name("t"), "gone".into())).tell(Event::Submitted(Story::submission("t", "k")));
    s.tell(Event::Stored(early));
    assert!(s.ready("k").is_empty());
    s.stored();
    assert_eq!(s.ready("k").len(), 1);
}

#[test]
fn what_an_earlier_supervisor_admitted_goes_on() {
    let mut s = Story::new();
    s.tell(Event::TaskFound(Box::new(found(Phase::Ready))));
    assert_eq!(s.ready("k").len(), 1);
    s.tell(Event::Submitted(Story::submission("u", "k")));
    assert!(
        matches!(&s.news[..], [Effect::ReserveTokens(reserved), Effect::Admit { token: 41, .. }] if *reserved >= 41)
    );

    let mut s = Story::new();
    let at = Wall(s.now().wall.0 + 5_000);
    s.tell(Event::TaskFound(Box::new(Found { wishes: from(at), ..found(Phase::Waiting) }))).wait(4_999);
    assert!(s.news.is_empty());
    assert_eq!(s.wait(1).change().phase, Phase::Ready);

    let mut s = Story::new();
    s.tell(Event::TaskFound(Box::new(found(Phase::Waiting))));
    assert_eq!(s.change().phase, Phase::Ready, "no time was given: its record is mended at once");
}

#[test]
fn an_outcome_that_only_the_ledger_shows_is_finished_without_telling_it_again() {
    for (status, next, phase) in [
        (Verdict::Done, "done", Phase::Done),
        (Verdict::Done, "gate g, then k", Phase::Gated),
        (Verdict::Failed, "dead", Phase::Dead),
        (Verdict::Failed, "again at 2026-11-20T03:00:00.000Z", Phase::Waiting),
    ] {
        let outcome = Outcome::new(name("t"), 40, "c".into(), status, Some("e".into()));
        let accepted =
            Some(Accepted { agent: name("p"), outcome, next: Next::parse(next, &name("p"), "n1") });
        let mut s = Story::new();
        s.tell(Event::TaskFound(Box::new(Found { accepted, ..found(Phase::Ready) })));
        let change = s.change();
        assert_eq!((change.phase, change.decided.as_deref()), (phase, Some("c")));
        assert!(change.facts.is_empty());
        if let Some(made) = change.made {
            assert_eq!((made.agent, made.gate, made.then), (name("p"), name("g"), Some(name("k"))));
        }
    }
}

#[test]
fn a_ready_list_is_for_kinds_that_nobody_handles() {
    let mut s = Story::new();
    s.admitted("t", "k");
    assert_eq!(s.state.ready_list(&name("k")), [name("t")]);
    assert_eq!(s.state.summary().warnings.len(), 1);
    s.tell(Event::HaltSeen(Some("no".into()))).offer("h", "1", handler("k"));
    assert!(s.wants(&Effect::ShowReady(name("k"))));
    assert!(s.state.ready_list(&name("k")).is_empty() && s.state.summary().warnings.is_empty());
}

#[test]
fn what_was_handed_in_for_a_found_task_is_judged_before_anyone_gets_it() {
    let mut s = with_handler();
    let outcome = Outcome::new(name("t"), 40, "of-an-owner".into(), Verdict::Done, None);
    let handed_in = vec![HandedIn { agent: name("old"), outcome, decided: false, words: String::new() }];
    s.tell(Event::TaskFound(Box::new(Found { handed_in, ..found(Phase::Ready) })));
    assert_eq!(s.change().phase, Phase::Done);
    assert!(s.launches().is_empty(), "an agent that is known already did not get it");
}
