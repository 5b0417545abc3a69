use super::*;
use crate::protocol::manifest::Heartbeat;
use serde_json::json;

fn beating() -> Manifest {
    Manifest { heartbeat: Heartbeat::Every(1_000), ..service() }
}

fn round(s: &mut Story) -> &mut Story {
    s.tell(Event::Round(true))
}

#[test]
fn two_missed_intervals_isolate_with_evidence_and_nothing_is_killed_yet() {
    let mut s = Story::new();
    let run = s.service_up("a", beating());
    round(s.wait(2_000));
    assert_eq!(s.standing("a"), Standing::Running, "exactly two are not missed yet");
    s.wait(1).tell(Event::Round(false));
    assert_eq!(s.standing("a"), Standing::Running, "we could not have seen a beat");
    round(&mut s);
    assert_eq!(s.standing("a"), Standing::Isolated);
    assert!(s.wants(&Effect::Examine(run.clone())) && !s.wants(&Effect::KillTree(run.clone())));
    assert_eq!(s.alerts(), ["isolated-a"]);
    s.tell(Event::EvidenceSeen(run, json!({"state": "T"})));
    let [Fact::Isolated { why, evidence, .. }] = &s.facts()[..] else { panic!("{:?}", s.news) };
    assert_eq!(
        (why.as_str(), evidence),
        ("no sign of life for 2s, where one is due every 1s", &json!({"state": "T"}))
    );
}

#[test]
fn an_isolated_run_that_beats_is_reinstated_and_its_outcome_accepted() {
    let mut s = Story::new();
    let run = s.service_up("puller", beating());
    let lock = s.admitted("t", "k").lock("t", "puller", Some(&run), Some(identity(2)));
    s.locked(lock.clone());
    round(s.wait(2_001));
    s.wait(400);
    assert!(s.ready("k").is_empty(), "its task is withheld");
    s.tell(Event::Beat(run.clone()));
    assert!(matches!(&s.facts()[..], [Fact::Reinstated { .. }]));
    assert_eq!(s.standing("puller"), Standing::Running);
    s.tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done)));
    assert_eq!(s.change().phase, Phase::Done);
}

#[test]
fn an_isolated_run_that_stays_silent_is_killed_after_its_grace_and_restarted() {
    for (grace, after) in [(None, 1_000), (Some(300), 300)] {
        let mut s = Story::new();
        let run = s.service_up("a", Manifest { isolation_grace_ms: grace, ..beating() });
        round(s.wait(2_001));
        round(s.wait(after - 1));
        assert!(!s.wants(&Effect::KillTree(run.clone())));
        s.wait(1).tell(Event::Round(false));
        assert!(!s.wants(&Effect::KillTree(run.clone())), "not without a live canary");
        round(&mut s);
        assert!(s.wants(&Effect::KillTree(run.clone())));
        s.tell(Event::Exited(run.clone(), Ending::Signal(9)));
        assert!(!s.wants(&Effect::KillTree(run.clone())), "that is on its way");
        s.tell(Event::TreeGone(run, Vec::new(), String::new()));
        assert_eq!(s.launches().len(), 1);
        assert_eq!(s.state.agents[&name("a")].failures, 1);
    }
}

#[test]
fn a_script_that_never_beats_is_left_alone_and_armed_by_its_first_beat() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    for _ in 0..100 {
        round(s.wait(600_000));
    }
    assert_eq!(s.standing("a"), Standing::Running);
    assert!(s.status("a").liveness.contains("unchecked"));
    s.state.take_changed();
    s.tell(Event::Beat(run));
    assert!(s.state.has_changed(), "its status says from now on that silence is judged");
    assert!(s.wants(&Effect::Watch), "the watchdog may have to look more often");
    round(s.wait(600_000));
    assert_eq!(s.standing("a"), Standing::Running);
    round(s.wait(1));
    assert_eq!(s.standing("a"), Standing::Isolated);
}

#[test]
fn without_heartbeat_nothing_is_judged() {
    let mut s = Story::new();
    let run = s.service_up("a", Manifest { heartbeat: Heartbeat::Off, ..service() });
    round(s.tell(Event::Beat(run)).wait(100_000_000));
    assert_eq!(s.standing("a"), Standing::Running);
}

#[test]
fn output_is_a_sign_of_life_only_where_silence_is_declared() {
    for (manifest, standing) in [
        (Manifest { silence_ms: Some(1_000), ..service() }, Standing::Running),
        (beating(), Standing::Isolated),
    ] {
        let mut s = Story::new();
        let run = s.service_up("a", manifest);
        s.wait(1_500).tell(Event::Printed(run.clone()));
        round(s.wait(1_000));
        assert_eq!(s.standing("a"), standing);
        s.tell(Event::Printed(run));
        assert_eq!(s.standing("a"), standing);
    }
}

#[test]
fn an_isolated_run_can_be_stopped() {
    let mut s = Story::new();
    let run = s.service_up("a", beating());
    round(s.wait(2_001)).tell(Event::HaltSeen(Some("lunch".into())));
    assert!(s.wants(&Effect::Signal(run.clone(), 15)));
    round(s.wait(9_999)).tell(Event::Beat(run.clone()));
    assert_eq!(s.standing("a"), Standing::Stopping);
    s.wait(1);
    assert!(s.wants(&Effect::KillTree(run.clone())));
    s.ends(&run, Ending::Signal(9));
    assert_eq!(s.standing("a"), Standing::Stopped);
    s.tell(Event::HaltSeen(None));
    assert_eq!(s.launches().len(), 1);
    assert_eq!(s.state.agents[&name("a")].failures, 0, "it was stopped, which is no failure");
}

#[test]
fn a_tree_is_killed_only_over_its_limit() {
    let mut s = Story::new();
    let run = s.service_up("a", Manifest { max_rss_bytes: Some(1_000), ..service() });
    assert_eq!(s.state.watched().1[0].max_rss, Some(1_000));
    s.tell(Event::Memory { run: run.clone(), bytes: 1_000, exact: true });
    assert!(s.news.is_empty());
    s.tell(Event::Memory { run: run.clone(), bytes: 1_001, exact: true });
    assert!(s.wants(&Effect::KillTree(run.clone())));
    assert_eq!(s.alerts(), ["memory-a"]);
    s.tell(Event::Memory { run: run.clone(), bytes: 2_000, exact: true });
    assert!(s.news.is_empty(), "once");
    s.ends(&run, Ending::Signal(9));
    assert_eq!(s.launches().len(), 1);
    let unlimited = s.service_up("b", service());
    s.tell(Event::Memory { run: unlimited, bytes: u64::MAX, exact: true });
    assert!(s.news.is_empty());
}

#[test]
fn a_handler_that_overruns_its_timeout_is_stopped_then_killed_and_its_task_failed() {
    let mut s = Story::new();
    s.offer("h", "1", Manifest { timeout_ms: 5_000, stop_grace_ms: 500, ..handler("k") });
    s.admitted("t", "k");
    let run = s.up();
    s.wait(4_999);
    assert!(s.news.is_empty());
    s.wait(1);
    assert!(s.wants(&Effect::Signal(run.clone(), 15)));
    s.wait(500);
    assert!(s.wants(&Effect::KillTree(run.clone())));
    s.ends(&run, Ending::Signal(9)).looked("t");
    assert_eq!((s.change().failures, s.change().phase), (1, Phase::Waiting));
}

#[test]
fn the_watchdog_looks_four_times_an_interval_within_bounds() {
    for (interval, pace) in [(100, 50), (1_000, 250), (10_000_000, 30_000)] {
        let mut s = Story::new();
        s.service_up("a", Manifest { heartbeat: Heartbeat::Every(interval), ..service() });
        assert_eq!(s.state.watched().0, pace);
    }
    let mut s = Story::new();
    s.service_up("a", service());
    assert_eq!(s.state.watched().0, 30_000);
}
