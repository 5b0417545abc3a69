//! A supervisor whose output goes nowhere, whose terminal is gone, or whose umask is careless; and directories
//! under its eyes that are taken away and put back.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use nightcrew::protocol::holder::Holder;
use nix::sys::signal::Signal;
use serde_json::json;

use super::at_work::{at_work, beats_go_on, lines_of, pids_of_victim, victim_restarts};
use super::watches::SCANS;
use crate::crew::{Crew, is_alive, name, send, text_of};

/// All that a crew does, while nobody can be told.
fn works_unheard(under: &[&str]) {
    let mut crew = at_work();
    crew.spawn_supervisor_under(under, &[], &[]);
    crew.running("victim", None);
    crew.eventually("the victim runs", || !pids_of_victim(&crew).is_empty());
    // A file that is refused is warned of.
    crew.agent("bad.sh", "no shebang\n");
    let task = crew.submit("work", "1");
    crew.ok(&["remember", "set", "key", "1"]);
    crew.eventually("it is done", || crew.is_done(&task) && crew.value("key") == Some(json!(1)));
    victim_restarts(&crew);
    let told = text_of(&nightcrew::protocol::layout::Layout::segment(&crew.layout.ledger(), 1));
    assert!(told.lines().all(|line| line.starts_with("{\"seq\":")), "no message strayed into a file: {told}");
    crew.ends_well();
}

/// Contained: a full disk below its log costs the supervisor its log and nothing else.
#[test]
fn a_supervisor_whose_output_is_full_works_on() {
    works_unheard(&["sh", "-c", "exec \"$@\" >/dev/full 2>&1", "sh"]);
}

/// Contained: closed descriptors are not taken for files of the crew, and cost nothing but the log.
#[test]
fn a_supervisor_whose_output_is_closed_works_on() {
    works_unheard(&["sh", "-c", "exec \"$@\" <&- >&- 2>&-", "sh"]);
}

/// Explained: a command that cannot even say why it failed still says it by its exit code.
#[test]
fn a_command_that_cannot_speak_still_fails_with_its_code() {
    let crew = Crew::new();
    crew.sleeper("one");
    for to in [">/dev/full 2>&1", ">&- 2>&-"] {
        let script = format!("exec \"$@\" {to}");
        let under = ["sh", "-c", &script, "sh"];
        // No such command line, bad input, nothing there, no supervisor.
        for (args, code) in [
            (&["dance"][..], 2),
            (&["submit", "work", "no JSON"], 65),
            (&["recall", "nothing"], 66),
            (&["restart", "one"], 69),
        ] {
            let output = crew.nightcrew_under(&under, args);
            assert_eq!(output.status.code(), Some(code), "nightcrew {args:?} {to}");
        }
    }
    let output = crew.nightcrew_under(&["sh", "-c", "exec \"$@\" >/dev/full", "sh"], &["status"]);
    assert_eq!(output.status.code(), Some(1), "what was asked for could not be printed");
    assert!(String::from_utf8_lossy(&output.stderr).contains("standard output: No space left"));
}

/// Runs a command on a terminal of its own, and closes that when `hang-up` appears.
const TERMINAL: &str = "import os, pty, select, sys\n\
    pid, terminal = pty.fork()\n\
    if pid == 0: os.execv(sys.argv[1], sys.argv[1:])\n\
    while not os.path.exists('hang-up'):\n\
    \x20   if select.select([terminal], [], [], 0.02)[0]: os.read(terminal, 65536)\n\
    os.close(terminal)\n";

/// Contained: who closes the terminal ends neither the supervisor nor an agent.
#[test]
fn a_supervisor_whose_terminal_is_closed_works_on() {
    let mut crew = at_work();
    crew.spawn_supervisor_under(&["python3", "-c", TERMINAL], &[], &[]);
    crew.running("victim", None);
    crew.eventually("the victim runs", || !pids_of_victim(&crew).is_empty());
    let holder: Holder = serde_json::from_str(&text_of(&crew.layout.supervisor_lock())).expect("its name");
    let supervisor = i32::try_from(holder.process.pid).expect("a pid");
    assert_ne!(supervisor, crew.supervisor(), "it is the terminal's child");
    fs::write(crew.path("hang-up"), "").expect("written");
    crew.supervisors_end();
    crew.agent("bad.sh", "no shebang\n");
    victim_restarts(&crew);
    beats_go_on(&crew);
    let task = crew.submit("work", "1");
    crew.eventually("it is done", || crew.is_done(&task));
    assert!(is_alive(supervisor));
    send(supervisor, Signal::SIGTERM);
    crew.eventually("it ends in order", || !is_alive(supervisor));
    crew.leaves_nothing();
}

/// Legible: whatever the umask, what the supervisor makes is for nobody else to write, and output for few to read.
#[test]
fn what_is_made_under_any_umask_is_not_for_everybody_to_write() {
    for mask in ["000", "077"] {
        let mut crew = at_work();
        let script = format!("umask {mask}; exec \"$@\"");
        let under = ["sh", "-c", &script, "sh"];
        crew.agent("beating.sh", "#!/bin/sh\necho hello\nexec sleep 1000\n");
        let submitted = crew.nightcrew_under(&under, &["submit", "work", "1", "--id", "one"]);
        assert!(submitted.status.success());
        crew.spawn_supervisor_under(&under, &[], &[]);
        crew.running("victim", None);
        for args in [
            &["submit", "work", "2", "--id", "two"][..],
            &["submit", "waits", "3", "--id", "three"],
            &["remember", "set", "a/b", "1"],
            &["stop", "worker"],
            &["restart", "victim"],
        ] {
            let output = crew.nightcrew_under(&under, args);
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let log = crew.layout.log(&name("beating"));
        crew.eventually("one is done", || {
            crew.is_done(&name("one")) || crew.layout.task(&name("one")).exists()
        });
        crew.eventually("it is remembered", || crew.value("a/b") == Some(json!(1)));
        crew.eventually("its output is kept", || text_of(&log) == "hello\n");
        crew.eventually("three is admitted", || crew.layout.task(&name("three")).exists());
        let mut seen = 0;
        for path in below(&crew.layout.state()) {
            let Ok(meta) = fs::symlink_metadata(&path) else { continue };
            let mode = meta.permissions().mode() & 0o777;
            seen += 1;
            assert_eq!(mode & 0o022, 0, "umask {mask}: {} has {mode:o}", path.display());
            let people_read = meta.is_dir() || path.extension().is_some_and(|ending| ending == "json");
            assert!(!people_read || mode & 0o444 == 0o444, "umask {mask}: {} has {mode:o}", path.display());
        }
        assert!(seen > 30, "a whole state: {seen}");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert!([0o640, 0o600].contains(&mode(&log)), "{:o}", mode(&log));
        crew.ends_well();
    }
}

fn below(dir: &Path) -> Vec<PathBuf> {
    let mut paths = vec![dir.to_owned()];
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        // What is taken away meanwhile is not there to be judged.
        let path = entry.path();
        if path.is_dir() { paths.extend(below(&path)) } else { paths.push(path) }
    }
    paths
}

/// Legible, contained: directories that are removed and made again, or moved away and back, are seen again.
#[test]
fn directories_that_are_taken_away_and_put_back_are_seen_again() {
    let mut crew = at_work();
    crew.start();
    crew.running("victim", None);
    let before = pids_of_victim(&crew).len();
    let begun = Instant::now();

    let new = crew.layout.new_tasks();
    fs::remove_dir_all(&new).expect("removed");
    let early = crew.submit("work", "1");
    crew.eventually("what is submitted then is done", || crew.is_done(&early));
    let task = crew.submit("work", "2");
    crew.eventually("and what comes after that", || crew.is_done(&task));

    let outcomes = crew.layout.outcomes();
    fs::remove_dir_all(&outcomes).expect("removed");
    let own = crew.submit("own", "1");
    let mut owner = crew.outsider("sleep", &["1000"]);
    crew.eventually("it is claimed", || {
        crew.nightcrew(&["claim", "own", "--owner-pid", &owner.pid()]).status.success()
    });
    crew.ok(&["done", own.as_str()]);
    crew.eventually("an outcome is seen", || crew.is_done(&own));
    owner.kill();

    let queue = crew.layout.queue(&name("operator"));
    fs::remove_dir_all(queue.parent().expect("memory/queue")).expect("removed");
    crew.ok(&["remember", "set", "key", "1"]);
    crew.eventually("an update is seen", || crew.value("key") == Some(json!(1)));

    let aside = crew.path("agents.aside");
    fs::rename(crew.layout.agents(), &aside).expect("moved away");
    fs::rename(&aside, crew.layout.agents()).expect("and back");
    crew.sleeper("latecomer");
    crew.running("latecomer", None);
    fs::rename(crew.layout.agents(), &aside).expect("moved away");
    fs::create_dir(crew.layout.agents()).expect("made anew");
    crew.sleeper("other");
    crew.running("other", None);
    crew.eventually("what is not there is ended", || crew.pid("victim").is_none());
    // The scans find all of this too, but one after the other.
    assert!(begun.elapsed() < SCANS, "it is found by the scans alone\n{}", crew.told());
    assert!(lines_of(&crew.path("victim.pids")).len() >= before);
    crew.ends_well();
}
