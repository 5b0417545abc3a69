//! Descriptors, processes and file sizes that run out, for a while.

use std::fs;
use std::path::Path;

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::status::Standing;
use nix::sys::signal::Signal;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;

use super::at_work::{WORKER, at_work, beats_go_on, fails, lines_of, pids_of_victim, says, victim_restarts};
use super::injection::{Injection, run_with, threads_of};
use super::needs;
use crate::crew::{Crew, is_alive, send, text_of};

/// Works on its task until it is told to end.
const SLOW: &str = "#!/bin/sh\n# /// agent\n# handles = [\"slow\"]\n# ///\n\
    echo on >>slow-runs\nwhile [ ! -e proceed ]; do sleep 0.02; done\necho result >\"$NIGHTCREW_OUTPUT\"\n";

/// Lowers what a process may have of something; gives what it might have before.
fn lower(pid: i32, what: Resource, to: u64) -> Rlimit {
    let pid = Pid::from_raw(pid).expect("a pid");
    let before = rustix::process::getrlimit(what);
    let lowered = Rlimit { current: Some(to), maximum: before.maximum };
    prlimit(Some(pid), what, lowered).expect("a process of ours")
}

fn restore(pid: i32, what: Resource, to: Rlimit) {
    prlimit(Some(Pid::from_raw(pid).expect("a pid")), what, to).expect("a process of ours");
}

/// The story of a supervisor that can open nothing while `lack` gives something that `end` takes back.
fn without_descriptors<T>(lack: impl Fn(&Crew) -> T, end: impl Fn(&Crew, T), error: &str) {
    let mut crew = at_work();
    crew.agent("slow.sh", SLOW);
    crew.start();
    crew.running("victim", None);
    let early = crew.submit("work", "\"early\"");
    crew.eventually("what came before is done", || crew.is_done(&early));
    let slow = crew.submit("slow", "1");
    let at_it = crew.running("slow", None);

    let lacking = lack(&crew);
    let late = crew.submit("work", "\"late\"");
    crew.ok(&["remember", "set", "late", "1"]);
    let before = pids_of_victim(&crew);
    send(*before.last().expect("it ran"), Signal::SIGKILL);
    says(&crew, "cannot read the process table");
    fs::write(crew.path("proceed"), "").expect("written");
    crew.eventually("the task's process has ended", || !is_alive(at_it));
    crew.sleeper("latecomer");
    let cannot_list = || {
        let log = text_of(&crew.log());
        log.lines().any(|line| line.contains("agents: ") && line.contains(error))
    };
    crew.eventually("it says that agents/ cannot be looked at", cannot_list);
    beats_go_on(&crew);
    assert!(!crew.is_done(&late) && !crew.is_done(&slow), "{}", crew.told());
    end(&crew, lacking);

    // What would be done at the next look at everything, at most 30 s later.
    crew.signal_supervisor(Signal::SIGHUP);
    crew.eventually("what ended meanwhile is done", || crew.is_done(&slow));
    assert_eq!(text_of(&crew.layout.result(&slow)), "result\n");
    crew.eventually("what came meanwhile is done", || crew.is_done(&late));
    crew.eventually("in memory too", || crew.value("late") == Some(json!(1)));
    crew.eventually("what died runs", || pids_of_victim(&crew).len() > before.len());
    crew.running("victim", None);
    crew.running("latecomer", None);
    assert_eq!(lines_of(&crew.path("done-tasks")), [early.to_string(), late.to_string()], "each once");
    assert_eq!(text_of(&crew.path("slow-runs")), "on\n", "its end was not forgotten");
    assert_eq!(crew.count(|fact| matches!(fact, Fact::Isolated { .. })), 0, "{}", crew.told());
    crew.ends_well();
}

/// Kept, contained, explained: a supervisor out of descriptors says so, and does later what it could not do.
#[test]
fn a_supervisor_out_of_descriptors_goes_on_once_it_has_some() {
    without_descriptors(
        // Fewer than it has open already.
        |crew| lower(crew.supervisor(), Resource::Nofile, 3),
        |crew, before| restore(crew.supervisor(), Resource::Nofile, before),
        "Too many open files",
    );
}

/// The same where it is the whole machine that is out of them.
#[test]
fn a_supervisor_on_a_machine_out_of_files_goes_on_once_there_are_some() {
    let test = "a_supervisor_on_a_machine_out_of_files_goes_on_once_there_are_some";
    if !needs::root(test) || !needs::program(test, "strace") {
        return;
    }
    without_descriptors(
        |crew| Injection::into_threads(&threads_of(crew.supervisor(), None), "openat:error=ENFILE"),
        |_, injection| drop(injection),
        "Too many open files in system",
    );
}

/// Contained: an agent whose file could not be read for the moment is taken up when it can be.
#[test]
fn an_agent_that_could_not_be_read_for_the_moment_runs_later() {
    let test = "an_agent_that_could_not_be_read_for_the_moment_runs_later";
    if !needs::root(test) || !needs::program(test, "strace") {
        return;
    }
    let mut crew = at_work();
    crew.start();
    crew.running("victim", None);
    let file = crew.layout.agents().join("latecomer.sh");
    let threads = threads_of(crew.supervisor(), None);
    let injection = Injection::into_threads_at(&threads, "openat:error=ENFILE", Some(&file));
    crew.sleeper("latecomer");
    crew.eventually("it is refused", || crew.stands("latecomer") == Some(Standing::Refused));
    let told = crew.ok(&["status"]);
    assert!(told.contains("Too many open files"), "{told}");
    drop(injection);
    crew.signal_supervisor(Signal::SIGHUP);
    crew.running("latecomer", None);
    crew.ends_well();
}

/// Kept, contained: a start that cannot read a task says so, leaves it as it is, and goes on with the others.
#[test]
fn a_task_that_a_start_could_not_read_waits_and_is_not_lost() {
    let test = "a_task_that_a_start_could_not_read_waits_and_is_not_lost";
    if !needs::root(test) || !needs::program(test, "strace") {
        return;
    }
    let mut crew = Crew::new();
    crew.start();
    let task = crew.submit("work", "1");
    let record = crew.layout.task(&task);
    crew.eventually("it is admitted", || record.exists());
    crew.ends_well();
    let path = record.to_str().expect("a path").to_owned();
    let under =
        ["strace", "-f", "-o", "/dev/null", "-P", &path, "--trace=openat", "--inject=openat:error=ENFILE"];
    let output = crew.nightcrew_under(&under, &["run", "--until-idle"]);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("waits until it can be read"), "{}\n{told}", output.status);
    assert!(record.exists(), "it was not put aside");
    crew.agent("worker.sh", WORKER);
    crew.start();
    crew.eventually("the next start does it", || crew.is_done(&task));
    crew.ends_well();
}

/// Contained, explained: an agent for which no process can be had is tried again, and the others do not notice.
#[test]
fn a_start_for_which_there_is_no_process_is_told_and_tried_again() {
    let test = "a_start_for_which_there_is_no_process_is_told_and_tried_again";
    if !needs::root(test) || !needs::program(test, "strace") {
        return;
    }
    let mut crew = at_work();
    crew.start();
    let beating = crew.running("beating", None);
    crew.running("victim", None);
    crew.eventually("the victim runs", || !pids_of_victim(&crew).is_empty());
    let threads = threads_of(crew.supervisor(), Some("processes"));
    let injection = Injection::into_threads(&threads, "clone,clone3,vfork,fork:error=EAGAIN:when=1..2");
    let before = pids_of_victim(&crew);
    send(*before.last().expect("it ran"), Signal::SIGKILL);
    let told = || crew.status("victim").and_then(|status| status.last_exit).unwrap_or_default();
    crew.eventually("its status says why", || told().contains("out of processes, memory or files"));
    crew.eventually("it runs in the end", || pids_of_victim(&crew).len() > before.len());
    assert_eq!(injection.hits(), 2, "{:?}", injection.calls());
    drop(injection);
    let failed = crew.count(|fact| matches!(fact, Fact::StartFailed { .. }));
    crew.eventually("both are in the ledger", || failed == 2);
    beats_go_on(&crew);
    assert_eq!(crew.pid("beating"), Some(beating), "another agent did not notice");
    let task = crew.submit("work", "1");
    crew.eventually("nor do tasks", || crew.is_done(&task));
    crew.ends_well();
}

/// Explained: a supervisor that cannot have the threads it needs says so instead of running without.
#[test]
fn a_supervisor_that_gets_no_thread_says_so_and_ends() {
    let test = "a_supervisor_that_gets_no_thread_says_so_and_ends";
    if !needs::root(test) || !needs::program(test, "strace") {
        return;
    }
    let crew = Crew::new();
    for nth in 1.. {
        assert!(nth < 20, "it never gets all its threads");
        let (output, hits) =
            run_with(&crew, &format!("clone,clone3:error=EAGAIN:when={nth}"), &["run", "--until-idle"]);
        let told = String::from_utf8_lossy(&output.stderr);
        if hits == 0 {
            assert!(output.status.success(), "{told}");
            assert!(nth > 5, "it has several threads");
            break;
        }
        // Without watches it runs on, and looks at everything now and then.
        let ended = output.status.code() == Some(1)
            && told.contains("error:")
            && told.contains("temporarily unavailable");
        assert!(ended || told.contains("no thread to watch with"), "thread {nth}: {}\n{told}", output.status);
    }
}

/// Kept, contained, explained: a limit on the size of files is a full disk, not the supervisor's death, and no
/// agent inherits how that is brought about.
#[test]
fn a_limit_on_the_size_of_files_is_told_and_kills_nobody() {
    let mut crew = at_work();
    crew.spawn_supervisor(&[], &[("RUST_LOG", "error")]);
    crew.running("victim", None);
    let early = crew.submit("work", "\"early\"");
    crew.eventually("what came before is done", || crew.is_done(&early));
    crew.eventually("the victim runs", || !pids_of_victim(&crew).is_empty());
    // What is as long as the ledger cannot grow any more; its log, of errors alone, is shorter.
    let ledger = nightcrew::protocol::layout::Layout::segment(&crew.layout.ledger(), 1);
    let len = fs::metadata(ledger).expect("it is there").len();
    let before = lower(crew.supervisor(), Resource::Fsize, len);
    let late = crew.submit("work", "\"late\"");
    says(&crew, "there is no room, nothing is acknowledged");
    says(&crew, "File too large");
    let restarted = victim_restarts(&crew);
    let status = text_of(Path::new(&format!("/proc/{restarted}/status")));
    for set in ["SigBlk", "SigIgn", "SigCgt"] {
        let line = status.lines().find_map(|line| line.strip_prefix(set)).expect("a set of signals");
        let signals = u64::from_str_radix(line.trim_start_matches(':').trim(), 16).expect("a number");
        let xfsz = 1 << (Signal::SIGXFSZ as u64 - 1);
        assert!(set == "SigCgt" || signals & xfsz == 0, "an agent has it as it always is: {set}{line}");
    }
    beats_go_on(&crew);
    assert!(!crew.is_done(&late));
    restore(crew.supervisor(), Resource::Fsize, before);
    crew.eventually("it goes on when it may", || crew.is_done(&late));
    crew.eventually("what is shown is true again", || crew.pid("victim") == Some(restarted));
    assert_eq!(lines_of(&crew.path("done-tasks")), [early.to_string(), late.to_string()], "each once");
    crew.ends_well();
}

/// Kept: a command that may write no file of that size says that it failed.
#[test]
fn a_command_that_may_not_write_so_much_says_so() {
    let mut crew = Crew::new();
    crew.start();
    let under = ["sh", "-c", "ulimit -f 0; exec \"$@\"", "sh"];
    let output = crew.nightcrew_under(&under, &["submit", "work", "1"]);
    assert!(!output.status.success(), "{}", output.status);
    crew.submit("work", "1");
    fails(&crew, &["done", "no-such-task"], "");
    crew.ends_well();
}
