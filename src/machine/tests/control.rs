use super::*;
use crate::machine::state::Course;
use crate::protocol::manifest::Heartbeat;
use crate::protocol::request::{Ask, Request};
use std::collections::BTreeMap;

fn stop(s: &mut Story, on: bool) -> &mut Story {
    let stopped: BTreeMap<Name, String> = on.then(|| (name("a"), "lunch".to_owned())).into_iter().collect();
    s.tell(Event::StoppedSeen(stopped))
}

fn halt(s: &mut Story, on: bool) -> &mut Story {
    s.tell(Event::HaltSeen(on.then(|| "lunch".to_owned())))
}

fn restart(s: &mut Story, agents: &[&str]) -> bool {
    let ask = Ask::Restart { agents: agents.iter().map(|agent| name(agent)).collect() };
    s.tell(Event::Asked(Request { v: 1, id: name("q"), ask }));
    s.news
        .iter()
        .find_map(|effect| if let Effect::Answer(_, ok, _) = effect { Some(*ok) } else { None })
        .expect("each request is answered")
}

fn term(s: &mut Story) -> &mut Story {
    s.tell(Event::StopAsked("TERM".into()))
}

fn until_idle() -> Story {
    let mut s = Story::with(Setup { until_idle: true, ..setup() });
    s.tell(Event::MemoryQueue { empty: true });
    s
}

#[test]
fn halt_and_stop_stop_services_and_let_tasks_finish() {
    for switch in [halt, stop] {
        let mut s = Story::new();
        let run = s.service_up("a", service());
        s.offer("h", "1", handler("k")).admitted("t", "k");
        let working = s.up();
        switch(&mut s, true);
        assert!(s.wants(&Effect::Signal(run.clone(), 15)) && !s.wants(&Effect::Signal(working, 15)));
        s.ends(&run, Ending::Code(0)).wait(100_000);
        assert!(s.launches().is_empty());
        assert_eq!(s.standing("a"), Standing::Stopped);
        switch(&mut s, true);
        assert!(s.news.is_empty());
        switch(&mut s, false);
        assert_eq!(s.launches().len(), 1);
    }
}

#[test]
fn a_halted_crew_begins_no_task() {
    let mut s = Story::new();
    halt(s.offer("h", "1", handler("k")), true);
    s.admitted("t", "k");
    assert!(s.launches().is_empty());
    assert_eq!(s.standing("h"), Standing::Stopped);
    halt(&mut s, false);
    assert_eq!(s.launches().len(), 1);
}

#[test]
fn what_is_stopped_before_it_is_known_does_not_start() {
    let mut s = Story::new();
    stop(&mut s, true).offer("a", "1", service()).offer("b", "1", Manifest { enabled: false, ..service() });
    assert!(s.launches().is_empty());
    assert_eq!((s.standing("a"), s.standing("b")), (Standing::Stopped, Standing::Disabled));
}

#[test]
fn start_while_it_still_stops_starts_it_once_it_is_gone() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    stop(stop(&mut s, true), false);
    assert!(s.launches().is_empty());
    s.ends(&run, Ending::Signal(15));
    assert_eq!(s.launches().len(), 1);
}

#[test]
fn start_forgives_what_kept_it_down() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    s.ends(&run, Ending::Code(0));
    stop(stop(&mut s, true), false);
    assert!(s.wants(&Effect::Finished(name("a"), None)));
    assert_eq!(s.launches().len(), 1);
}

#[test]
fn a_restart_stops_and_starts_and_forgets_failures() {
    let mut s = Story::new();
    let mut run = s.service_up("a", service());
    assert!(restart(&mut s, &["a"]) && s.wants(&Effect::Signal(run.clone(), 15)));
    s.ends(&run, Ending::Code(0));
    run = s.up();
    for _ in 0..5 {
        s.fails(&run);
        if s.alerts().is_empty() {
            if s.launches().is_empty() {
                s.wait(16_000);
            }
            run = s.up();
        }
    }
    assert!(restart(&mut s, &[]));
    assert_eq!((s.launches().len(), s.state.agents[&name("a")].failures), (1, 0), "out of its backoff");
    assert!(!restart(&mut s, &["nobody"]));
    stop(&mut s, true);
    assert!(!restart(&mut s, &["a"]) && restart(&mut s, &[]));
}

#[test]
fn a_restart_asked_for_while_it_ends_is_not_overruled_by_that_end() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    s.tell(Event::Exited(run.clone(), Ending::Code(0)));
    restart(&mut s, &["a"]);
    s.tell(Event::TreeGone(run, Vec::new(), String::new()));
    assert_eq!(s.launches().len(), 1);
}

#[test]
fn a_stop_while_it_starts_is_kept() {
    for fails in [true, false] {
        let mut s = Story::new();
        s.offer("a", "1", service());
        let run = s.launches()[0].0.clone();
        stop(&mut s, true).wait(10_000);
        assert!(s.wants(&Effect::KillTree(run.clone())));
        if fails {
            s.tell(Event::SpawnFailed { run, error: "no".into(), busy: false });
        } else {
            s.tell(Event::Spawned(run.clone(), identity(5)));
            assert_eq!(s.standing("a"), Standing::Stopping);
            s.ends(&run, Ending::Signal(9));
        }
        assert_eq!(s.standing("a"), Standing::Stopped);
        stop(&mut s, false);
        assert_eq!(s.launches().len(), 1);
    }
}

#[test]
fn a_drain_gives_its_grace_then_kills_then_ends() {
    let mut s = Story::new();
    let run = s.service_up("a", Manifest { stop_signal: 2, stop_grace_ms: 500, ..service() });
    term(&mut s);
    assert!(s.wants(&Effect::Signal(run.clone(), 2)));
    s.wait(499);
    assert!(s.news.is_empty());
    s.wait(1);
    assert!(s.wants(&Effect::KillTree(run.clone())));
    s.ends(&run, Ending::Signal(9));
    assert_eq!(s.news.last(), Some(&Effect::Exit));
    assert!(s.state.course == Course::Over && s.state.next_deadline().is_none());
    assert!(!term(&mut s).wants(&Effect::Exit), "once");
}

#[test]
fn a_second_signal_skips_the_grace() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    term(term(&mut s));
    assert!(s.wants(&Effect::KillTree(run)));
}

#[test]
fn a_drain_begins_nothing_new() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    s.admitted("t", "k");
    term(&mut s).offer("h", "1", handler("k")).offer("b", "1", service());
    s.tell(Event::Submitted(Story::submission("u", "k"))).wait(5_000);
    assert!(s.launches().is_empty() && s.state.tasks.len() == 1);
    s.ends(&run, Ending::Code(0));
    assert!(s.wants(&Effect::Exit));
}

#[test]
fn what_a_drained_handler_held_goes_back_uncounted_before_the_end() {
    // Exit 0 is no exception: many a script's trap says so, done or not.
    for ending in [Ending::Signal(15), Ending::Code(1), Ending::Code(0)] {
        let mut s = Story::new();
        s.offer("h", "1", handler("k")).admitted("t", "k");
        let run = s.up();
        term(&mut s).ends(&run, ending);
        assert!(!s.wants(&Effect::Exit), "its outcomes were not looked for yet");
        let change = s.looked("t").change();
        assert_eq!((change.phase, change.failures), (Phase::Ready, 0), "{ending}");
        assert!(!s.wants(&Effect::Exit), "that is not durable yet");
        assert!(s.stored().wants(&Effect::Exit));
    }
}

#[test]
fn a_crew_without_runs_ends_at_once() {
    let mut s = Story::new();
    assert!(term(&mut s).wants(&Effect::Exit));
}

#[test]
fn what_does_not_die_is_told_and_keeps_nobody_up() {
    let mut s = Story::new();
    let run = s.service_up("a", service());
    term(term(&mut s)).tell(Event::TreeStuck(run, vec!["dd".into()]));
    assert_eq!(s.alerts(), ["unkillable-a"]);
    assert!(s.wants(&Effect::Exit));
}

#[test]
fn a_broken_store_stops_tasks_but_not_services() {
    let mut s = Story::new();
    s.offer("h", "1", handler("k"));
    let run = s.service_up("a", service());
    s.tell(Event::Submitted(Story::submission("t", "k")));
    let ticket = s.state.last_ticket;
    s.tell(Event::StoreBroken("EIO".into()));
    assert_eq!(s.alerts(), ["storage"]);
    s.tell(Event::NotStored(ticket, "EIO".into())).tell(Event::Submitted(Story::submission("u", "k")));
    assert!(s.news.is_empty() && s.launches().is_empty());
    assert_eq!(s.fails(&run).launches().len(), 1);
}

#[test]
fn a_broken_store_does_not_hold_up_a_drain() {
    let mut s = Story::new();
    s.offer("h", "1", handler("k")).admitted("t", "k");
    let run = s.up();
    s.tell(Event::Submitted(Story::submission("u", "k")));
    term(&mut s).tell(Event::StoreBroken("EIO".into())).ends(&run, Ending::Signal(15));
    assert!(s.wants(&Effect::Exit));
}

#[test]
fn until_idle_ends_two_seconds_after_all_is_quiet() {
    let mut s = until_idle();
    let run = s.service_up("a", service());
    s.wait(1_999);
    assert!(!s.wants(&Effect::Signal(run.clone(), 15)));
    s.wait(1);
    assert!(s.wants(&Effect::Signal(run.clone(), 15)));
    assert!(s.ends(&run, Ending::Signal(15)).wants(&Effect::Exit));
}

#[test]
fn until_idle_waits_for_the_first_look_around() {
    let mut s = until_idle();
    assert!(!s.wants(&Effect::Exit));
    assert!(s.wait(2_000).wants(&Effect::Exit));
}

#[test]
fn until_idle_waits_for_a_declared_heartbeat_without_spinning() {
    let mut s = until_idle();
    let run = s.service_up("a", Manifest { heartbeat: Heartbeat::Every(60_000), ..service() });
    s.wait(100_000);
    assert!(!s.wants(&Effect::Signal(run.clone(), 15)));
    assert_eq!(s.state.next_deadline(), None);
    s.tell(Event::Beat(run.clone()));
    assert!(s.wants(&Effect::Signal(run, 15)));
}

#[test]
fn until_idle_waits_for_tasks_their_retries_and_the_memory_queue() {
    let mut s = until_idle();
    s.offer("h", "1", handler("k")).admitted("t", "k");
    let run = s.up();
    s.wait(100_000);
    assert!(s.state.course != Course::Over);
    s.fails(&run).looked("t").stored();
    assert!(!s.wants(&Effect::Exit), "it is due a retry");
    s.tell(Event::MemoryQueue { empty: false }).wait(1_000).stored();
    let run = s.up();
    s.ends(&run, Ending::Code(0)).looked("t").stored().wait(10_000);
    assert!(s.state.course != Course::Over, "memory waits");
    assert!(s.tell(Event::MemoryQueue { empty: true }).wants(&Effect::Exit));
}

#[test]
fn until_idle_does_not_wait_for_what_nobody_takes() {
    let mut s = until_idle();
    s.admitted("t", "nobodys");
    let run = s.service_up("a", service());
    s.ends(&run, Ending::Code(0)).wait(1_999);
    assert!(!s.wants(&Effect::Exit), "something was submitted just now");
    assert!(s.wait(1).wants(&Effect::Exit));
}

#[test]
fn until_idle_does_not_take_a_file_being_written_for_an_agent_that_exited() {
    let mut s = until_idle();
    s.wait(1_900).offer("a", "1", service());
    let run = s.launches()[0].0.clone();
    s.tell(Event::SpawnFailed { run, error: "busy".into(), busy: true }).wait(1_999);
    assert!(s.state.course != Course::Over);
    s.wait(1).up();
}

#[test]
fn a_full_disk_does_not_hold_up_a_drain_and_begins_nothing() {
    let mut s = Story::new();
    s.offer("h", "1", handler("k")).admitted("t", "k");
    let run = s.up();
    s.tell(Event::StoreFull(true)).tell(Event::Submitted(Story::submission("u", "k")));
    assert!(s.news.is_empty(), "it stays where it is until there is room");
    s.tell(Event::StoreFull(false)).tell(Event::Submitted(Story::submission("u", "k")));
    assert!(s.news.iter().any(|effect| matches!(effect, Effect::Admit { .. })));
    s.tell(Event::StoreFull(true));
    term(&mut s).ends(&run, Ending::Signal(15));
    assert!(s.wants(&Effect::Exit), "what waits for room is what a crash would leave");
}

#[test]
fn a_task_whose_record_vanished_does_not_hold_up_a_drain() {
    let mut s = Story::new();
    s.offer("h", "1", handler("k")).admitted("t", "k");
    let run = s.up();
    s.ends(&run, Ending::Code(0)).looked("t").change();
    s.tell(Event::TaskLost(name("t"), "missing".into()));
    assert_eq!(s.alerts(), ["lost-t"]);
    assert!(term(&mut s).wants(&Effect::Exit), "nobody answers for what was never written");
}

#[test]
fn outcomes_that_cannot_be_looked_at_do_not_hold_up_a_drain() {
    let mut s = Story::new();
    s.offer("h", "1", handler("k")).admitted("t", "k");
    let run = s.up();
    term(&mut s).ends(&run, Ending::Code(0));
    assert!(!s.wants(&Effect::Exit), "they are looked for first");
    let lock = s.lock("t", "h", Some(&run), None);
    assert!(s.tell(Event::OutcomesUnseen(name("t"))).wants(&Effect::Exit));
    s.tell(Event::LockSeen(name("t"), Ok(lock)));
    assert!(s.news.is_empty(), "its lock is the next supervisor's to judge");
}

#[test]
fn a_task_that_is_cancelled_before_its_process_is_made_is_given_up_if_none_can_be() {
    let mut s = Story::new();
    s.offer("h", "1", handler("k")).admitted("t", "k");
    let run = s.launches()[0].0.clone();
    let ask = Ask::Cancel { tasks: vec![name("t")], group: None, why: "x".into() };
    s.tell(Event::Asked(Request { v: 1, id: name("r"), ask }));
    s.tell(Event::DispatchFailed(run, "no room".into()));
    assert_eq!(s.change().phase, Phase::Dead);
    assert_eq!(s.stored().answers(), [(name("r"), true)]);
}

#[test]
fn who_asked_and_went_away_is_answered_nothing() {
    let mut s = Story::new();
    s.admitted("t", "k");
    let ask = Ask::Cancel { tasks: vec![name("t")], group: None, why: "x".into() };
    s.tell(Event::Asked(Request { v: 1, id: name("r"), ask }));
    assert!(s.state.carries_out(&name("r")));
    s.tell(Event::Withdrawn(name("r")));
    assert!(s.stored().answers().is_empty() && s.state.carried_out().is_empty());
    assert!(!s.state.is_open(&name("t")), "what was begun goes on");
}
