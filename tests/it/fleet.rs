//! Agents as files: dropped in, edited, removed, killed.

use std::fs;
use std::process::Command;

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::process::Ending;
use nightcrew::protocol::status::Standing;
use nix::sys::signal::Signal;

use crate::crew::{Crew, is_alive, name, send, text_of};

#[test]
fn thirty_five_agents_are_started() {
    let mut crew = Crew::new();
    let names: Vec<String> = (1..=35).map(|n| format!("agent-{n}")).collect();
    for name in &names {
        crew.sleeper(name);
    }
    crew.start();
    let mut pids: Vec<i32> = names.iter().map(|name| crew.running(name, None)).collect();
    pids.sort_unstable();
    pids.dedup();
    assert_eq!(pids.len(), names.len());
    assert_eq!(crew.count(|fact| matches!(fact, Fact::Started { .. })), names.len(), "each just once");
    crew.ends_well();
    assert!(pids.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn an_agent_dropped_in_starts_an_edited_one_restarts_alone_and_a_removed_one_stops() {
    let mut crew = Crew::new();
    crew.sleeper("bystander").sleeper("edited");
    crew.start();
    let bystander = crew.running("bystander", None);
    let edited = crew.running("edited", None);

    crew.sleeper("newcomer");
    let newcomer = crew.running("newcomer", None);

    crew.agent("edited.sh", "#!/bin/sh\necho second version\nexec sleep 1000\n");
    let again = crew.running("edited", Some(edited));
    assert!(!is_alive(edited), "the old version was ended before the new one began");

    crew.remove_agent("newcomer.sh");
    crew.eventually("the removed one is stopped and forgotten", || {
        !is_alive(newcomer) && crew.status("newcomer").is_none()
    });
    assert_eq!(crew.pid("bystander"), Some(bystander), "it was not touched");
    assert_eq!(crew.pid("edited"), Some(again));
    assert_eq!(crew.status("bystander").expect("a status").restarts, 0);
    crew.ends_well();
    assert!(text_of(&crew.layout.log(&name("edited"))).contains("second version"));
}

#[test]
fn a_version_that_cannot_run_leaves_the_old_one_running_and_says_why() {
    let mut crew = Crew::new();
    crew.sleeper("steady");
    crew.start();
    let pid = crew.running("steady", None);
    crew.agent("steady.sh", "#!/bin/sh\n# /// agent\n# max_rs = \"1M\"\n# ///\nexec sleep 1000\n");
    crew.eventually("the new file is refused", || {
        crew.status("steady").is_some_and(|status| {
            status.refusal.is_some_and(|why| why.reason.contains("max_rs") && why.remedy.contains("max_rss"))
        })
    });
    assert_eq!(crew.pid("steady"), Some(pid));
    crew.sleeper("steady");
    crew.eventually("what was put right is not complained of", || {
        crew.status("steady").is_some_and(|status| status.refusal.is_none())
    });
    assert_eq!(crew.pid("steady"), Some(pid), "it is the version that runs already");
    crew.ends_well();
}

#[test]
fn an_agent_without_a_script_runs_in_its_own_directory_and_follows_what_it_reloads_on() {
    let mut crew = Crew::new();
    fs::create_dir(crew.path("app")).expect("a directory");
    fs::write(crew.path("app/settings"), "one").expect("written");
    let command = "command = [\"sh\", \"-c\", \"pwd; cat settings; echo; exec sleep 1000\"]";
    let manifest = format!("{command}\nworkdir = \"app\"\nreload_on = [\"app/*\"]\n");
    crew.file_with_mode("worker.toml", &manifest, 0o644);
    crew.start();
    let first = crew.running("worker", None);
    let log = crew.layout.log(&name("worker"));
    let here = crew.path("app").display().to_string();
    crew.eventually("it read its settings", || text_of(&log) == format!("{here}\none\n"));
    crew.put(&crew.path("app/settings"), "two", 0o644);
    crew.running("worker", Some(first));
    crew.eventually("it read the new ones", || text_of(&log) == format!("{here}\none\n{here}\ntwo\n"));
    crew.ends_well();
}

#[test]
fn a_file_that_is_still_being_written_is_not_run() {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;

    let mut crew = Crew::new();
    crew.start();
    let path = crew.layout.agents().join("slow.sh");
    let mut file =
        fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path).expect("a file");
    file.write_all(b"#!/bin/sh\necho half >>\"$NIGHTCREW_SCRATCH/ran\"\n").expect("written");
    // It is noticed at once, and so is what came after it: that one is the evidence.
    crew.sleeper("later");
    crew.running("later", None);
    assert!(crew.pid("slow").is_none());
    file.write_all(b"echo whole >>\"$NIGHTCREW_SCRATCH/ran\"\nexec sleep 1000\n").expect("written");
    drop(file);
    crew.running("slow", None);
    let ran = crew.scratch("slow", "ran");
    crew.eventually("it ran, whole", || text_of(&ran) == "half\nwhole\n");
    crew.ends_well();
}

#[test]
fn a_killed_service_is_started_again_at_once() {
    let mut crew = Crew::new();
    crew.sleeper("victim").sleeper("bystander");
    crew.start();
    let (victim, bystander) = (crew.running("victim", None), crew.running("bystander", None));
    send(victim, Signal::SIGKILL);
    crew.running("victim", Some(victim));
    assert_eq!(crew.pid("bystander"), Some(bystander));
    let ending = crew.fact("its end is told", |fact| match fact {
        Fact::Exited { agent, ending, .. } if agent.as_str() == "victim" => Some(*ending),
        _ => None,
    });
    assert_eq!(ending, Ending::Signal(9));
    crew.ends_well();
}

#[test]
fn a_service_that_ends_well_is_finished_across_restarts_of_the_supervisor() {
    let mut crew = Crew::new();
    crew.agent("once.sh", "#!/bin/sh\necho ran >>\"$NIGHTCREW_SCRATCH/runs\"\n").sleeper("other");
    crew.start();
    crew.eventually("it is finished", || crew.stands("once") == Some(Standing::Finished));
    crew.ends_well();
    crew.start();
    crew.running("other", None);
    crew.eventually("it still is", || crew.stands("once") == Some(Standing::Finished));
    assert_eq!(text_of(&crew.scratch("once", "runs")), "ran\n");
    crew.ok(&["restart", "once"]);
    crew.eventually("it runs once more when asked to", || {
        text_of(&crew.scratch("once", "runs")) == "ran\nran\n"
    });
    crew.ends_well();
}

#[test]
fn a_service_that_keeps_failing_is_alerted_of_and_tried_rarely() {
    let mut crew = Crew::new();
    crew.agent("broken.sh", "#!/bin/sh\nexit 3\n");
    crew.start();
    crew.eventually("it failed and waits", || crew.stands("broken") == Some(Standing::Backoff));
    let status = crew.status("broken").expect("a status");
    assert!(status.last_exit.as_ref().is_some_and(|exit| exit.starts_with("exit 3")), "{status:?}");
    assert!(status.next.is_some(), "it says when it is next: {status:?}");
    crew.ends_well();
}

/// nix's waitid fails on such a child, and a reaper that does not expect that reaps nobody after it.
#[test]
fn a_child_killed_by_a_real_time_signal_stops_nothing() {
    let mut crew = Crew::new();
    crew.sleeper("odd").sleeper("other");
    crew.start();
    let (odd, other) = (crew.running("odd", None), crew.running("other", None));
    let signal = (libc_sigrtmin() + 6).to_string();
    let status = Command::new("kill").args(["-s", &signal, &odd.to_string()]).status().expect("kill runs");
    assert!(status.success());
    crew.running("odd", Some(odd));
    send(other, Signal::SIGKILL);
    crew.running("other", Some(other));
    crew.ends_well();
}

/// What glibc leaves of the kernel's real-time signals begins here; so does what shells call RTMIN.
fn libc_sigrtmin() -> i32 {
    34
}

#[test]
fn what_a_run_leaves_behind_is_killed_and_said() {
    let mut crew = Crew::new();
    crew.agent("leaver.sh", "#!/bin/sh\nsetsid sleep 1000 >/dev/null 2>&1 </dev/null &\nexit 0\n");
    crew.start();
    let left = crew.fact("the remnant is told", |fact| match fact {
        Fact::RemnantsKilled { agent, processes, .. } if agent.as_str() == "leaver" => {
            Some(processes.clone())
        }
        _ => None,
    });
    assert_eq!(left.len(), 1, "{left:?}");
    crew.eventually("nothing of it is left", || crew.processes().len() == 1);
    crew.ends_well();
}
