use super::*;
use crate::protocol::manifest::Restart;
use crate::protocol::request::{Ask, Request};
use crate::protocol::status::Refusal;

fn with(restart: Restart) -> Manifest {
    Manifest { restart, ..service() }
}

/// How long until the next launch, and what it launched.
fn waits(s: &mut Story) -> u64 {
    let from = s.at;
    while s.launches().is_empty() {
        let Mono(due) = s.state.next_deadline().expect("it should be started again");
        s.wait(due - s.at);
    }
    s.at - from
}

#[test]
fn a_new_service_starts_as_soon_as_it_is_whole() {
    let mut s = Story::new();
    s.offer("a", "1", service());
    assert_eq!(s.standing("a"), Standing::Starting);
    let run = s.up();
    assert_eq!(s.standing("a"), Standing::Running);
    assert_eq!(s.status("a").runs[0].run, run);
    s.offer("a", "1", service()).wait(100_000);
    assert!(s.launches().is_empty(), "it runs already");
}

#[test]
fn a_crash_is_restarted_at_once_then_ever_more_rarely() {
    let bounds = [0, 1_000, 4_000, 16_000];
    let mut longest = [0; 4];
    for seed in 0..50 {
        let mut s = Story::with(Setup { seed, ..setup() });
        let mut run = s.service_up("a", service());
        for (n, bound) in bounds.into_iter().enumerate() {
            s.fails(&run);
            assert!(s.alerts().is_empty());
            let waited = waits(&mut s);
            assert!(waited <= bound, "{waited} of {bound}");
            longest[n] = waited.max(longest[n]);
            run = s.up();
        }
        for rare in [600_000, 1_200_000, 2_400_000, 4_800_000, 9_600_000, 19_200_000, 21_600_000, 21_600_000]
        {
            s.fails(&run);
            assert_eq!(s.alerts(), ["failing-a"]);
            assert_eq!(s.standing("a"), Standing::Backoff);
            assert_eq!(waits(&mut s), rare);
            run = s.up();
        }
    }
    for (longest, bound) in longest.into_iter().zip(bounds) {
        assert!(longest >= bound / 2, "the jitter fills its bound: {longest} of {bound}");
    }
}

#[test]
fn a_healthy_minute_forgets_the_failures_before_it() {
    let mut s = Story::new();
    let mut run = s.service_up("a", service());
    for _ in 0..4 {
        s.fails(&run);
        waits(&mut s);
        run = s.up();
    }
    s.wait(59_999);
    assert_eq!(s.state.agents[&name("a")].failures, 4);
    s.wait(1);
    assert_eq!(s.state.agents[&name("a")].failures, 0);
    s.fails(&run);
    assert_eq!((s.alerts().len(), waits(&mut s)), (0, 0));
}

#[test]
fn what_an_end_means_is_the_manifests_to_say() {
    for (restart, ending, standing) in [
        (Restart::OnFailure, Ending::Code(0), Standing::Finished),
        (Restart::OnFailure, Ending::Code(3), Standing::Starting),
        (Restart::OnFailure, Ending::Signal(40), Standing::Starting),
        (Restart::Always, Ending::Code(0), Standing::Starting),
        (Restart::Never, Ending::Code(0), Standing::Finished),
        (Restart::Never, Ending::Signal(9), Standing::Finished),
    ] {
        let mut s = Story::new();
        let run = s.service_up("a", with(restart));
        s.ends(&run, ending).wait(0);
        assert_eq!(s.standing("a"), standing, "{restart:?} {ending}");
    }
}

#[test]
fn what_keeps_ending_well_is_started_again_within_a_minute_and_nobody_is_told() {
    let mut s = Story::new();
    let mut run = s.service_up("a", with(Restart::Always));
    for _ in 0..20 {
        s.ends(&run, Ending::Code(0));
        assert!(s.alerts().is_empty());
        assert!(waits(&mut s) <= 60_000);
        run = s.up();
    }
}

#[test]
fn never_also_means_not_after_it_was_killed() {
    let mut s = Story::new();
    let run = s.service_up("a", Manifest { max_rss_bytes: Some(1), ..with(Restart::Never) });
    s.tell(Event::Memory { run: run.clone(), bytes: 2, exact: true })
        .ends(&run, Ending::Signal(9))
        .wait(100_000);
    assert_eq!(s.standing("a"), Standing::Finished);
}

#[test]
fn the_version_that_ended_well_is_remembered_until_the_file_changes() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    s.ends(&run, Ending::Code(0));
    assert!(s.wants(&Effect::Finished(name("a"), Some("1".into()))));

    let mut s = Story::new();
    s.tell(Event::FinishedBefore(name("a"), "1".into())).offer("a", "1", service());
    assert_eq!(s.standing("a"), Standing::Finished);
    s.offer("a", "2", service()).wait(2_000);
    assert!(s.wants(&Effect::Finished(name("a"), None)));
    let run = s.up();
    s.offer("a", "1", service()).wait(2_000).ends(&run, Ending::Code(0));
    assert_eq!(s.launches()[0].1, "1", "changed back is changed");
}

#[test]
fn an_edit_counts_after_two_seconds_of_quiet_and_restarts_that_agent_alone() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    let other = s.service_up("b", service());
    s.offer("a", "2", service()).wait(1_900);
    assert_eq!(s.standing("a"), Standing::Running);
    s.offer("a", "3", service()).wait(1_999);
    assert!(!s.wants(&Effect::Signal(run.clone(), 15)), "a second edit begins the quiet anew");
    s.offer("a", "3", service()).wait(1);
    assert!(s.wants(&Effect::Signal(run.clone(), 15)), "being told twice of one edit does not");
    s.ends(&run, Ending::Code(0));
    assert_eq!(s.launches()[0].1, "3");
    assert_eq!(s.status("b").runs[0].run, other);
}

#[test]
fn an_edit_that_is_taken_back_changes_nothing() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    s.offer("a", "2", service()).wait(1_000).offer("a", "1", service()).wait(10_000);
    assert!(!s.wants(&Effect::Signal(run, 15)));
}

#[test]
fn a_removed_agent_stops_after_two_seconds_and_is_forgotten() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    s.tell(Event::AgentGone(name("a"))).wait(1_000).tell(Event::AgentGone(name("a"))).wait(999);
    assert_eq!(s.standing("a"), Standing::Running);
    s.wait(1);
    assert!(s.wants(&Effect::Signal(run.clone(), 15)));
    s.ends(&run, Ending::Signal(15));
    assert!(s.wants(&Effect::Forget(name("a"))));
    assert!(s.launches().is_empty() && s.state.agent_status(&name("a")).is_none());
}

#[test]
fn an_agent_removed_while_it_waits_for_its_next_try_is_forgotten() {
    let mut s = Story::new();
    let mut run = s.service_up("a", service());
    for _ in 0..5 {
        s.fails(&run);
        if s.alerts().is_empty() {
            waits(&mut s);
            run = s.up();
        }
    }
    s.tell(Event::AgentGone(name("a"))).wait(2_000);
    assert!(s.wants(&Effect::Forget(name("a"))));
    assert_eq!(s.state.next_deadline(), None);
}

#[test]
fn a_version_that_cannot_run_leaves_the_old_one_running() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    let refusal = Refusal { file: "agents/a".into(), reason: "it is empty".into(), remedy: "fill it".into() };
    s.offer("a", "2", service()).tell(Event::AgentRefused(name("a"), refusal.clone()));
    assert!(matches!(&s.facts()[..], [Fact::Refused { .. }]));
    s.tell(Event::AgentRefused(name("a"), refusal.clone())).wait(10_000);
    assert!(s.facts().is_empty(), "it is said once");
    assert_eq!((s.standing("a"), s.status("a").refusal), (Standing::Running, Some(refusal.clone())));
    s.fails(&run);
    assert_eq!(s.launches()[0].1, "1");
    s.tell(Event::AgentRefused(name("new"), refusal));
    assert_eq!(s.standing("new"), Standing::Refused);
    s.tell(Event::AgentGone(name("new")));
    assert!(s.wants(&Effect::Forget(name("new"))));
}

#[test]
fn the_old_versions_end_is_not_the_new_ones() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    s.tell(Event::Exited(run.clone(), Ending::Code(0)));
    s.offer("a", "2", service()).wait(2_000).tell(Event::TreeGone(run, vec!["sleep".into()], String::new()));
    assert_eq!(s.launches()[0].1, "2");
}

#[test]
fn a_start_that_fails_counts_unless_somebody_writes_the_file() {
    let mut s = Story::new();
    s.offer("a", "1", service());
    for time in 0..10 {
        let run = s.launches()[0].0.clone();
        s.tell(Event::SpawnFailed { run, error: "text file busy".into(), busy: true });
        let told = s.facts().iter().any(|fact| matches!(fact, Fact::StartFailed { .. }));
        assert_eq!(told, time == 0, "once, and not at each try");
        assert_eq!(s.status("a").why, "not started: text file busy");
        assert_eq!(waits(&mut s), 2_000);
        assert_eq!(s.state.agents[&name("a")].failures, 0);
    }
    for failures in 1..=5 {
        let run = s.launches()[0].0.clone();
        s.tell(Event::SpawnFailed { run, error: "no such file".into(), busy: false });
        assert_eq!(s.state.agents[&name("a")].failures, failures);
        waits(&mut s);
    }
}

#[test]
fn what_a_service_leaves_behind_is_cleared_before_the_next_one_starts() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    s.tell(Event::Exited(run.clone(), Ending::Code(1)));
    assert!(!s.wants(&Effect::KillTree(run.clone())), "the process thread does that unasked");
    assert!(s.launches().is_empty());
    s.tell(Event::TreeStuck(run.clone(), vec!["dd".into()]));
    assert_eq!(s.alerts(), ["unkillable-a"]);
    s.wait(100_000);
    assert!(s.launches().is_empty());
    s.tell(Event::TreeGone(run, vec!["dd".into()], String::new()));
    assert_eq!(s.launches().len(), 1);
}

#[test]
fn a_survivor_is_stopped_and_its_agent_started_anew() {
    let mut s = Story::new();
    let run = name("old");
    s.tell(Event::SurvivorFound(run.clone(), name("a"), identity(9)));
    assert!(s.wants(&Effect::Signal(run.clone(), 15)));
    s.offer("a", "1", service());
    assert!(s.launches().is_empty());
    s.wait(10_000);
    assert!(s.wants(&Effect::KillTree(run.clone())));
    s.tell(Event::TreeGone(run, Vec::new(), String::new()));
    assert_eq!(s.launches().len(), 1);
}

#[test]
fn what_a_survivor_leaves_is_killed_though_a_restart_was_asked_for_meanwhile() {
    let mut s = Story::new();
    let run = name("old");
    s.tell(Event::SurvivorFound(run.clone(), name("a"), identity(9)));
    s.offer("a", "1", service());
    let ask = Ask::Restart { agents: vec![name("a")] };
    s.tell(Event::Asked(Request { v: 1, id: name("r"), ask }));
    s.tell(Event::Exited(run.clone(), Ending::Unseen));
    assert!(s.wants(&Effect::KillTree(run.clone())), "no process thread kills what it did not start unasked");
    s.tell(Event::TreeGone(run, Vec::new(), String::new()));
    assert_eq!(s.launches().len(), 1);
}
