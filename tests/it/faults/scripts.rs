//! The files of agents: broken in every way that keeps a program from running, and mended.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::status::Standing;
use nix::sys::signal::Signal;

use crate::crew::{Crew, is_alive, name, send, text_of};

const RUNS: &str = "#!/bin/sh\nexec sleep 1000\n";

/// Why an agent does not run, and what to do, wherever that is told.
fn told(crew: &Crew, agent: &str) -> String {
    let status = crew.nightcrew(&["status", agent]);
    let check = crew.nightcrew(&["check"]);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}\n{}", text(&status.stdout), text(&check.stdout))
}

/// Waits until `status` and `check` both say this of the agent.
#[track_caller]
fn says(crew: &Crew, agent: &str, word: &str) {
    crew.eventually(&format!("of {agent} is said: {word}"), || {
        crew.status(agent).is_some_and(|status| {
            let refusal = status.refusal.map(|refusal| format!("{}; {}", refusal.reason, refusal.remedy));
            format!("{} {}", status.why, refusal.unwrap_or_default()).contains(word)
        })
    });
    let told = told(crew, agent);
    assert!(told.contains(word), "{word:?} is not in:\n{told}");
}

/// A program in machine code that stays.
fn machine_code() -> Vec<u8> {
    fs::read("/bin/sleep").or_else(|_| fs::read("/usr/bin/sleep")).expect("a program")
}

fn put_bytes(crew: &Crew, file: &str, bytes: &[u8]) {
    let temp = crew.path("made.new");
    fs::write(&temp, bytes).expect("written");
    fs::set_permissions(&temp, fs::Permissions::from_mode(0o755)).expect("chmod");
    fs::rename(&temp, crew.layout.agents().join(file)).expect("renamed");
}

#[test]
fn scripts_that_cannot_run_say_why_and_run_once_mended() {
    let cases: [(&str, &str, &str, &str); 6] = [
        ("nameless", "#!\nexec sleep 1000\n", "names no interpreter", "#!/bin/sh"),
        ("relative", "#!nowhere/sh\nexec sleep 1000\n", "nowhere/sh is not there", "first line"),
        ("missing", "#!/no/such/interpreter\n", "/no/such/interpreter is not there", "install"),
        ("sought", "#!/usr/bin/env no-such-language\n", "no-such-language is not on the PATH", "install"),
        ("blank", "", "it is empty", "write the program into it"),
        ("marked", "\u{feff}#!/bin/sh\nexec sleep 1000\n", "byte order mark", "sed"),
    ];
    let mut crew = Crew::new();
    crew.sleeper("bystander");
    for (agent, text, _, _) in &cases {
        crew.agent(&format!("{agent}.sh"), text);
    }
    fs::create_dir(crew.layout.agents().join("directory.sh")).expect("a directory");
    crew.start();
    let bystander = crew.running("bystander", None);
    for (agent, _, reason, remedy) in &cases {
        says(&crew, agent, reason);
        says(&crew, agent, remedy);
        assert_eq!(crew.stands(agent), Some(Standing::Refused));
    }
    assert!(crew.status("directory").is_none(), "a directory is no agent");
    assert_eq!(crew.processes().len(), 2, "{:?}", crew.processes());

    for (agent, ..) in &cases {
        crew.agent(&format!("{agent}.sh"), RUNS);
    }
    fs::remove_dir(crew.layout.agents().join("directory.sh")).expect("removed");
    crew.agent("directory.sh", RUNS);
    for (agent, ..) in &cases {
        crew.running(agent, None);
        assert!(crew.status(agent).is_some_and(|status| status.refusal.is_none()));
    }
    crew.running("directory", None);
    crew.ok(&["check"]);
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

#[test]
fn machine_code_that_was_cut_off_says_why_and_runs_once_it_is_whole() {
    let mut crew = Crew::new();
    let code = machine_code();
    crew.sleeper("bystander");
    // Its header alone; its header and what the kernel maps of it, which is not all there.
    put_bytes(&crew, "header", &code[..40]);
    put_bytes(&crew, "half", &code[..code.len() / 2]);
    crew.start();
    let bystander = crew.running("bystander", None);
    for agent in ["header", "half"] {
        crew.eventually("it was tried, and waits", || crew.stands(agent) == Some(Standing::Backoff));
    }
    let header = told(&crew, "header");
    assert!(header.contains("cut off") && !header.contains("shebang"), "{header}");
    let half = crew.status("half").expect("a status");
    assert!(half.next.is_some() && !half.why.is_empty(), "{half:?}");
    for agent in ["header", "half"] {
        // What takes no argument ends at once, so that it runs by way of a manifest.
        crew.put(&crew.layout.agents().join(format!("{agent}.toml")), "args = [\"1000\"]\n", 0o644);
        put_bytes(&crew, agent, &code);
        crew.running(agent, None);
    }
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

#[test]
fn a_program_that_is_held_open_for_writing_starts_once_it_is_let_go() {
    let mut crew = Crew::new();
    crew.sleeper("bystander");
    put_bytes(&crew, "busy", &machine_code());
    crew.put(&crew.layout.agents().join("busy.toml"), "args = [\"1000\"]\n", 0o644);
    let path = crew.layout.agents().join("busy");
    let writer = fs::File::options().append(true).open(&path).expect("opened");
    crew.start();
    let bystander = crew.running("bystander", None);
    crew.eventually("it is said why it does not run", || crew.ok(&["status"]).contains("being written"));
    let status = crew.status("busy").expect("a status");
    let tried = status.next.expect("it says when it is tried again");
    crew.eventually("it is tried again", || crew.status("busy").is_some_and(|now| now.next > Some(tried)));
    assert_eq!(crew.pid("busy"), None);
    let told = crew.count(|fact| matches!(fact, Fact::StartFailed { .. }));
    assert_eq!(told, 1, "once, and not at each try: {}", crew.told());
    drop(writer);
    crew.running("busy", None);
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

#[test]
fn a_script_that_vanishes_behind_a_restart_says_so_and_runs_when_it_is_back() {
    let mut crew = Crew::new();
    crew.sleeper("bystander").sleeper("there").sleeper("vanishing");
    crew.start();
    let bystander = crew.running("bystander", None);
    let (there, vanishing) = (crew.running("there", None), crew.running("vanishing", None));
    crew.signal_supervisor(Signal::SIGSTOP);
    // The request and the removal are found together, by one look.
    let asked = crew.outsider(env!("CARGO_BIN_EXE_nightcrew"), &["restart", "vanishing", "there"]);
    crew.eventually("the request waits", || {
        fs::read_dir(crew.layout.requests()).is_ok_and(|mut found| {
            found.any(|entry| {
                entry.is_ok_and(|entry| entry.path().extension().is_some_and(|end| end == "json"))
            })
        })
    });
    crew.remove_agent("vanishing.sh");
    crew.signal_supervisor(Signal::SIGCONT);
    let again = crew.running("there", Some(there));
    crew.eventually("it is ended", || !is_alive(vanishing));
    crew.eventually("it is forgotten", || crew.status("vanishing").is_none());
    let unknown = crew.nightcrew(&["restart", "vanishing"]);
    let said = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert!(!unknown.status.success() && said.contains("vanishing"), "{said}");
    crew.sleeper("vanishing");
    crew.running("vanishing", Some(vanishing));
    assert_eq!((crew.pid("there"), crew.pid("bystander")), (Some(again), Some(bystander)));
    drop(asked);
    crew.ends_well();
}

#[test]
fn a_script_that_loses_its_right_to_run_goes_on_until_it_ends_and_says_why() {
    let mut crew = Crew::new();
    crew.sleeper("bystander").sleeper("barred");
    crew.start();
    let (bystander, barred) = (crew.running("bystander", None), crew.running("barred", None));
    let path = crew.layout.agents().join("barred.sh");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("chmod");
    says(&crew, "barred", "chmod +x agents/barred.sh");
    assert_eq!(crew.pid("barred"), Some(barred), "what runs already is let run");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("chmod");
    crew.eventually("it is not complained of", || {
        crew.status("barred").is_some_and(|status| status.refusal.is_none())
    });
    crew.ok(&["check"]);
    send(crew.running("barred", None), Signal::SIGKILL);
    crew.running("barred", Some(barred));
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

/// Says which version of it runs, and goes on.
fn version(number: u32) -> String {
    format!("#!/bin/sh\necho version {number}\nwhile :; do sleep 0.02; done\n# the end of {number}\n")
}

#[test]
fn a_script_that_is_replaced_while_it_runs_is_restarted_once_with_what_is_whole() {
    let mut crew = Crew::new();
    crew.sleeper("bystander").agent("changing.sh", &version(1));
    crew.start();
    let bystander = crew.running("bystander", None);
    let log = crew.layout.log(&name("changing"));
    let first = crew.running("changing", None);
    crew.eventually("the first runs", || text_of(&log) == "version 1\n");
    // By a rename, as anybody should.
    crew.agent("changing.sh", &version(2));
    let second = crew.running("changing", Some(first));
    crew.eventually("the second runs", || text_of(&log) == "version 1\nversion 2\n");
    // In place, in halves: what is there meanwhile is never run.
    let path = crew.layout.agents().join("changing.sh");
    let whole = version(3);
    let (head, rest) = whole.split_at(whole.find("while").expect("it is there"));
    let mut file = fs::File::create(&path).expect("cut to nothing");
    file.write_all(head.as_bytes()).expect("written");
    file.sync_all().expect("synced");
    crew.eventually("it is said why it waits", || crew.ok(&["status"]).contains("still being written"));
    assert!(!text_of(&log).contains("version 3"), "half of it ran");
    assert_eq!(crew.pid("changing"), Some(second), "what ran before goes on");
    file.write_all(rest.as_bytes()).expect("written");
    drop(file);
    crew.running("changing", Some(second));
    crew.eventually("the third runs", || text_of(&log).ends_with("version 3\n"));
    assert_eq!(text_of(&log).matches("version 3").count(), 1);
    // Removed: it stops. Back as it was: it runs.
    let third = crew.running("changing", Some(second));
    crew.remove_agent("changing.sh");
    crew.eventually("it is stopped", || !is_alive(third));
    crew.agent("changing.sh", &version(4));
    crew.eventually("the fourth runs", || text_of(&log).ends_with("version 4\n"));
    assert_eq!(crew.pid("bystander"), Some(bystander));
    let ended =
        crew.count(|fact| matches!(fact, Fact::Exited { agent, .. } if agent.as_str() == "bystander"));
    assert_eq!(ended, 0);
    crew.ends_well();
}
