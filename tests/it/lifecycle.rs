//! The supervisor's own life: one at a time, ended in order, killed and begun again.

use std::fs;
use std::process::Command;
use std::time::Duration;

use nightcrew::protocol::ledger::Fact;
use nix::sys::signal::Signal;
use serde_json::json;

use crate::crew::{Crew, is_alive, name, send, text_of};

#[test]
fn a_second_supervisor_is_refused_and_told_who_holds_the_crew() {
    let mut crew = Crew::new();
    crew.sleeper("one");
    crew.start();
    crew.running("one", None);
    let holder = crew.supervisor().to_string();
    let refused = crew.nightcrew(&["run"]);
    let told = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(75), "{told}");
    assert!(told.contains(&holder), "{told}");

    // Held still, so that it cannot give the crew up before the other comes.
    crew.signal_supervisor(Signal::SIGSTOP);
    fs::remove_dir_all(crew.layout.state()).expect("removed");
    let refused = crew.nightcrew(&["run"]);
    assert_eq!(refused.status.code(), Some(75), "the crew's directory is locked too");
    crew.signal_supervisor(Signal::SIGCONT);
    crew.eventually("it says what is wrong", || text_of(&crew.log()).contains("state was removed"));
    crew.term();
    assert!(!crew.layout.tasks().exists(), "nothing is made in a directory that is somebody else's");
    crew.leaves_nothing();
}

#[test]
fn without_its_state_a_supervisor_rests_and_touches_nothing() {
    let mut crew = Crew::new();
    crew.sleeper("one");
    crew.start();
    crew.running("one", None);
    crew.signal_supervisor(Signal::SIGSTOP);
    fs::remove_dir_all(crew.layout.state()).expect("removed");
    crew.signal_supervisor(Signal::SIGCONT);
    crew.eventually("it says what is wrong", || text_of(&crew.log()).contains("state was removed"));
    // A loop that spins uses as much as there is; one that rests uses next to nothing, however long this takes.
    let begun = cpu_ticks(crew.supervisor());
    crew.agent("two.sh", "#!/bin/sh\n");
    std::thread::sleep(Duration::from_secs(1));
    let used = cpu_ticks(crew.supervisor()) - begun;
    assert!(used < 30, "{used} hundredths of a second in one");
    assert!(!crew.layout.tasks().exists(), "nothing is made in a directory of somebody else's");
    crew.term();
    crew.leaves_nothing();
}

/// User and system time of a process, in clock ticks.
fn cpu_ticks(pid: i32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    [11, 12].iter().map(|field| fields[*field].parse::<u64>().expect("a number")).sum()
}

#[test]
fn term_ends_a_crew_though_a_tasks_record_was_removed() {
    let mut crew = Crew::new();
    crew.agent("slow.sh", "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\nsleep 1000\n");
    crew.start();
    let task = crew.submit("work", "1");
    crew.running("slow", None);
    fs::remove_file(crew.layout.task(&task)).expect("removed");
    crew.ends_well();
}

#[test]
fn term_ends_a_crew_in_order() {
    let mut crew = Crew::new();
    // Its last words are an update and a line: both must be kept.
    crew.agent(
        "polite.sh",
        "#!/bin/sh\ntrap 'nightcrew remember set last \\\"words\\\"; echo goodbye; exit 0' TERM\n\
         echo ready\nwhile :; do sleep 0.02; done\n",
    );
    crew.start();
    let log = crew.layout.log(&"polite".parse().expect("a name"));
    crew.eventually("it is ready", || text_of(&log).contains("ready"));
    crew.ends_well();
    assert_eq!(crew.value("last"), Some(json!("words")), "{}", crew.told());
    assert!(text_of(&log).contains("goodbye"));
    let facts = crew.ledger();
    assert!(matches!(facts.last(), Some(Fact::SupervisorStopped { .. })), "{:?}", facts.last());
}

#[test]
fn an_agent_that_ignores_term_is_gone_after_its_grace_with_its_daemon() {
    let mut crew = Crew::new();
    crew.agent(
        "stubborn.sh",
        "#!/bin/sh\n# /// agent\n# stop_grace = \"200ms\"\n# ///\ntrap '' TERM\n\
         setsid sh -c 'trap \"\" TERM; echo daemon >daemon-runs; exec sleep 1000' >/dev/null 2>&1 </dev/null &\n\
         while :; do sleep 0.02; done\n",
    );
    crew.start();
    crew.eventually("the daemon runs", || crew.path("daemon-runs").exists());
    crew.ends_well();
}

#[test]
fn a_second_signal_skips_the_grace() {
    let mut crew = Crew::new();
    crew.agent(
        "stubborn.sh",
        "#!/bin/sh\n# /// agent\n# stop_grace = \"1h\"\n# ///\ntrap 'echo no' TERM\n\
         echo ready\nwhile :; do sleep 0.02; done\n",
    );
    crew.start();
    let log = crew.layout.log(&"stubborn".parse().expect("a name"));
    crew.eventually("it is ready", || text_of(&log).contains("ready"));
    crew.signal_supervisor(Signal::SIGTERM);
    crew.eventually("it was told, and goes on", || text_of(&log).contains("no"));
    crew.ends_well();
}

#[test]
fn a_crew_whose_supervisor_was_killed_and_started_again_ends_up_right() {
    let mut crew = Crew::new();
    crew.sleeper("service");
    let slow = "#!/bin/sh\n# /// agent\n# handles = [\"slow\"]\n# ///\n\
                echo \"$NIGHTCREW_FAILURES\" >>\"$NIGHTCREW_SCRATCH/tries\"\n\
                [ -e proceed ] || exec sleep 1000\n";
    crew.agent("slow.sh", slow);
    crew.start();
    let service = crew.running("service", None);
    let task = crew.submit("slow", "1");
    let tries = crew.scratch("slow", "tries");
    crew.eventually("the task is being worked on", || text_of(&tries) == "0\n");
    crew.signal_supervisor(Signal::SIGKILL);
    crew.supervisors_end();
    assert!(is_alive(service), "agents outlive their supervisor");
    crew.ok(&["remember", "set", "meanwhile", "1"]);
    fs::write(crew.path("proceed"), "").expect("written");

    crew.start();
    crew.running("service", Some(service));
    assert!(!is_alive(service), "the survivor is ended before its successor begins");
    crew.eventually("the task is done in the end", || crew.is_done(&task));
    assert_eq!(text_of(&tries), "0\n0\n", "no failure was counted");
    crew.eventually("what was asked meanwhile is done", || crew.value("meanwhile") == Some(json!(1)));
    crew.ends_well();
}

#[test]
fn a_survivor_of_a_removed_agent_is_ended_too() {
    let mut crew = Crew::new();
    crew.sleeper("orphan").sleeper("service");
    crew.start();
    let (orphan, service) = (crew.running("orphan", None), crew.running("service", None));
    crew.signal_supervisor(Signal::SIGKILL);
    crew.supervisors_end();
    crew.remove_agent("orphan.sh");
    crew.start();
    crew.running("service", Some(service));
    crew.eventually("nobody's process is ended", || !is_alive(orphan));
    crew.ends_well();
}

#[test]
fn what_was_shown_before_and_is_gone_since_is_shown_no_more() {
    let mut crew = Crew::new();
    crew.sleeper("gone").sleeper("service");
    crew.start();
    crew.running("gone", None);
    let task = crew.submit("work", "1");
    let ready = crew.layout.ready(&name("work"));
    crew.eventually("the task is offered", || text_of(&ready).contains(task.as_str()));
    crew.ends_well();
    crew.remove_agent("gone.sh");
    crew.agent("worker.sh", "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\n");

    crew.start();
    crew.eventually("the task is done", || crew.is_done(&task));
    assert_eq!((text_of(&ready).as_str(), crew.stands("gone")), ("", None));
    crew.ends_well();
}

#[test]
fn until_idle_ends_by_itself_when_all_is_done() {
    let mut crew = Crew::new();
    let handler = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\n\
                   echo \"$NIGHTCREW_TASK\" >>done-tasks\n";
    crew.agent("worker.sh", handler).sleeper("plain");
    let before: Vec<_> = (0..5).map(|n| crew.submit("work", &n.to_string())).collect();
    crew.start_with(&["--until-idle"]);
    let status = crew.supervisors_end();
    assert!(status.success(), "{status}\n{}", crew.told());
    assert!(before.iter().all(|task| crew.is_done(task)), "{}", crew.told());
    crew.leaves_nothing();
}

#[test]
fn a_supervisor_that_is_stopped_for_a_while_blames_nobody() {
    let mut crew = Crew::new();
    crew.sleeper("plain");
    crew.start();
    let pid = crew.running("plain", None);
    crew.signal_supervisor(Signal::SIGSTOP);
    let state = || text_of(std::path::Path::new(&format!("/proc/{}/stat", crew.supervisor())));
    crew.eventually("it stands still", || state().contains(") T "));
    send(pid, Signal::SIGKILL);
    crew.signal_supervisor(Signal::SIGCONT);
    crew.running("plain", Some(pid));
    crew.ends_well();
}

#[test]
fn where_there_is_no_crew_run_says_how_to_begin() {
    let dir = tempfile::tempdir().expect("a directory");
    let output = Command::new(env!("CARGO_BIN_EXE_nightcrew"))
        .arg("run")
        .current_dir(dir.path())
        .env_remove("NIGHTCREW_DIR")
        .output()
        .expect("it runs");
    assert_eq!(output.status.code(), Some(69));
    assert!(String::from_utf8_lossy(&output.stderr).contains("init"));
}
