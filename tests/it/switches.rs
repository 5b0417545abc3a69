//! The operator's switches.

use std::fs::OpenOptions;
use std::io::Write as _;

use nightcrew::protocol::layout::Layout;
use nightcrew::protocol::status::Standing;
use nix::sys::signal::Signal;

use crate::crew::{Crew, is_alive, name, text_of};

#[test]
fn stop_and_start_hold_across_supervisors() {
    let mut crew = Crew::new();
    crew.sleeper("one").sleeper("two");
    crew.start();
    let (one, two) = (crew.running("one", None), crew.running("two", None));
    crew.ok(&["stop", "one"]);
    crew.eventually("it is stopped", || crew.stands("one") == Some(Standing::Stopped) && !is_alive(one));
    assert_eq!(crew.pid("two"), Some(two));
    crew.ends_well();

    crew.start();
    let two = crew.running("two", None);
    crew.eventually("it stays stopped", || crew.stands("one") == Some(Standing::Stopped));
    crew.ok(&["start", "one"]);
    crew.running("one", None);
    assert_eq!(crew.pid("two"), Some(two));
    crew.ends_well();
}

#[test]
fn halt_stops_all_and_resume_starts_it_again() {
    let mut crew = Crew::new();
    let handler = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\nexit 0\n";
    crew.sleeper("service").agent("worker.sh", handler);
    crew.start();
    let pid = crew.running("service", None);
    crew.ok(&["halt", "the", "disk", "smells"]);
    crew.eventually("it is stopped", || crew.stands("service") == Some(Standing::Stopped) && !is_alive(pid));
    let why = crew.status("service").expect("a status").why;
    assert!(why.contains("the disk smells"), "{why}");
    let task = crew.submit("work", "1");
    crew.eventually("it is admitted", || crew.layout.task(&task).exists());
    crew.sleeper("latecomer");
    crew.eventually("what comes is seen, and not started", || {
        crew.stands("latecomer") == Some(Standing::Stopped)
    });
    assert!(!crew.is_done(&task), "no new work");
    crew.ok(&["resume"]);
    crew.running("service", None);
    crew.running("latecomer", None);
    crew.eventually("work goes on", || crew.is_done(&task));
    crew.ends_well();
}

#[test]
fn restart_restarts_the_named_alone_and_all_when_asked() {
    let mut crew = Crew::new();
    crew.sleeper("one").sleeper("two");
    crew.start();
    let (one, two) = (crew.running("one", None), crew.running("two", None));
    crew.ok(&["restart", "one"]);
    let one = crew.running("one", Some(one));
    assert_eq!(crew.pid("two"), Some(two));
    crew.ok(&["restart", "--all"]);
    crew.running("one", Some(one));
    crew.running("two", Some(two));
    assert!(!crew.nightcrew(&["restart", "nobody"]).status.success());
    crew.ends_well();
    assert_eq!(crew.nightcrew(&["restart", "one"]).status.code(), Some(69), "without a supervisor");
}

#[test]
fn a_request_is_carried_out_once_though_its_answer_cannot_be_written() {
    let mut crew = Crew::new();
    crew.sleeper("one");
    crew.start();
    let first = crew.running("one", None);
    let segment = Layout::segment(&crew.layout.ledger(), 1);
    let mut ledger = OpenOptions::new().append(true).open(segment).expect("a segment");
    ledger.write_all(b"somebody else's\n").expect("written");
    let id = name("q");
    crew.put(&crew.layout.request(&id), r#"{"v":1,"id":"q","ask":"restart","agents":["one"]}"#, 0o644);
    let second = crew.running("one", Some(first));
    crew.eventually("the storage failed", || text_of(&crew.log()).contains("storage failed"));
    assert!(crew.layout.request(&id).exists() && !crew.layout.answer(&id).exists());
    // Each look at everything finds the request again; the new agent proves that there was one.
    for agent in ["two", "three"] {
        crew.signal_supervisor(Signal::SIGHUP);
        crew.sleeper(agent);
        crew.running(agent, None);
    }
    assert_eq!(crew.pid("one"), Some(second));
    assert_eq!(crew.status("one").expect("a status").restarts, 1);
    assert!(!crew.term().success(), "and it says that not all could be written");
    crew.leaves_nothing();
}
