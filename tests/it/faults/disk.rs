//! Disks that are full, slow, broken or read-only below a crew's `state/`.

use std::fs;
use std::path::PathBuf;

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::status::{CrewStatus, Standing};
use nix::sys::signal::Signal;
use serde_json::json;

use super::at_work::{WORKER, at_work, beats_go_on, fails, lines_of, pids_of_victim, says, victim_restarts};
use super::injection::{Injection, run_with, threads_of};
use super::mount::Mount;
use super::needs;
use crate::crew::{Crew, Outsider, is_alive, name, send, text_of};

/// Files that a mount has room for, where they are not what a test is about.
const INODES: u32 = 2_000;

/// What lies ready to be renamed in by the protocol, when a command could make nothing any more.
struct Prepared {
    task: TaskId,
    task_file: PathBuf,
    update: PathBuf,
    update_file: PathBuf,
}

impl Prepared {
    /// Before the supervisor's start, so that what is made is not taken at once.
    fn new(crew: &Crew) -> Self {
        let task = crew.submit("work", "\"prepared\"");
        crew.ok(&["remember", "set", "prepared", "1"]);
        let update = crew.layout.queue(&name("operator")).join("1.json");
        let aside = |file: &str| crew.layout.state().join(file);
        let prepared = Self { task, task_file: aside("task"), update, update_file: aside("update") };
        fs::rename(crew.layout.new_task(&prepared.task), &prepared.task_file).expect("aside");
        fs::rename(&prepared.update, &prepared.update_file).expect("aside");
        prepared
    }

    fn hand_in(&self, crew: &Crew) {
        fs::rename(&self.task_file, crew.layout.new_task(&self.task)).expect("handed in");
        fs::rename(&self.update_file, &self.update).expect("handed in");
    }
}

/// A task that the test holds itself, and the process that it holds it by.
fn claimed(crew: &Crew) -> (TaskId, Outsider) {
    let own = crew.submit("own", "1");
    let owner = crew.outsider("sleep", &["1000"]);
    crew.eventually("it is claimed", || {
        crew.nightcrew(&["claim", "own", "--owner-pid", &owner.pid()]).status.success()
    });
    crew.fact("the claim is known", |fact| matches!(fact, Fact::Claimed { .. }).then_some(()));
    (own, owner)
}

/// The story of a disk that is full for a while.
fn full_for_a_while(mut crew: Crew, disk: &Mount) {
    let prepared = Prepared::new(&crew);
    crew.start();
    crew.running("victim", None);
    let early = crew.submit("work", "\"early\"");
    crew.eventually("what came before is done", || crew.is_done(&early));
    let (own, mut owner) = claimed(&crew);
    crew.eventually("the victim runs", || !pids_of_victim(&crew).is_empty());

    // What is still to be shown would make some room again.
    crew.eventually("all is shown", || {
        let is_shown = |status: CrewStatus| {
            status.tasks_open == 1 && status.warnings.iter().all(|of| !of.contains("own"))
        };
        crew.stands("worker") == Some(Standing::Idle)
            && crew.crew_status().is_some_and(is_shown)
            && text_of(&crew.layout.ready(&name("own"))).is_empty()
    });
    disk.fill();
    for args in
        [&["submit", "work", "\"full\""][..], &["remember", "set", "full", "1"], &["done", own.as_str()]]
    {
        fails(&crew, args, "No space left");
    }
    prepared.hand_in(&crew);
    says(&crew, "there is no room, nothing is acknowledged");
    says(&crew, "memory: updates wait, there is no room");
    let restarted = victim_restarts(&crew);
    beats_go_on(&crew);
    assert!(!crew.is_done(&prepared.task) && crew.value("prepared").is_none(), "{}", crew.told());

    disk.empty();
    says(&crew, "the disk takes records again");
    crew.eventually("what waited is done", || crew.is_done(&prepared.task));
    crew.eventually("in memory too", || crew.value("prepared") == Some(json!(1)));
    crew.ok(&["done", own.as_str()]);
    let late = crew.submit("work", "\"full\"");
    crew.eventually("all goes on", || crew.is_done(&own) && crew.is_done(&late));
    let mut done = lines_of(&crew.path("done-tasks"));
    let mut expected = [&early, &prepared.task, &late].map(ToString::to_string);
    done.sort();
    expected.sort();
    assert_eq!(done, expected, "each once");
    crew.eventually("what is shown is true again", || crew.pid("victim") == Some(restarted));
    let is_told =
        |status: CrewStatus| status.warnings.iter().any(|warning| warning.contains("there is no room"));
    crew.eventually("and no warning stands", || crew.crew_status().is_some_and(|status| !is_told(status)));
    assert_eq!(crew.count(|fact| matches!(fact, Fact::Isolated { .. })), 0, "{}", crew.told());
    owner.kill();
    crew.ends_well();
}

/// Kept, contained: what cannot be made durable is refused aloud; agents go on; nothing is lost or done twice.
#[test]
fn a_full_ext4_acknowledges_nothing_and_all_goes_on_when_there_is_room() {
    let crew = at_work();
    let test = "a_full_ext4_acknowledges_nothing_and_all_goes_on_when_there_is_room";
    let Some(disk) = Mount::ext4(test, &crew.layout.state(), INODES) else { return };
    full_for_a_while(crew, &disk);
}

/// The same where not even a line can be added to a file.
#[test]
fn a_full_tmpfs_acknowledges_nothing_and_all_goes_on_when_there_is_room() {
    let crew = at_work();
    let test = "a_full_tmpfs_acknowledges_nothing_and_all_goes_on_when_there_is_room";
    let Some(disk) = Mount::tmpfs(test, &crew.layout.state(), 4 << 20) else { return };
    full_for_a_while(crew, &disk);
}

/// Contained: an end on a full disk is an end, and says what it could not keep; the next start does it.
#[test]
fn term_on_a_full_disk_ends_the_crew_and_the_next_start_goes_on() {
    let mut crew = at_work();
    let test = "term_on_a_full_disk_ends_the_crew_and_the_next_start_goes_on";
    let Some(disk) = Mount::ext4(test, &crew.layout.state(), INODES) else { return };
    let slow = "#!/bin/sh\n# /// agent\n# handles = [\"slow\"]\n# ///\n\
                echo on >>slow-runs\nwhile [ ! -e proceed ]; do sleep 0.02; done\n";
    crew.agent("slow.sh", slow);
    let prepared = Prepared::new(&crew);
    crew.start();
    crew.running("victim", None);
    let task = crew.submit("slow", "1");
    crew.eventually("it is being worked on", || crew.path("slow-runs").exists());
    let slow = crew.running("slow", None);

    disk.fill();
    prepared.hand_in(&crew);
    says(&crew, "there is no room, nothing is acknowledged");
    fs::write(crew.path("proceed"), "").expect("written");
    crew.eventually("the task's process has ended", || !is_alive(slow));
    assert!(!crew.term().success(), "not all was written");
    says(&crew, "not everything could be made durable");
    crew.leaves_nothing();

    disk.empty();
    crew.start();
    crew.eventually("all is done", || crew.is_done(&prepared.task) && crew.is_done(&task));
    crew.eventually("in memory too", || crew.value("prepared") == Some(json!(1)));
    assert_eq!(lines_of(&crew.path("done-tasks")), [prepared.task.to_string()]);
    crew.ends_well();
}

/// Kept, contained, explained: where no file can be made, commands fail, what dies is not lost from sight, and
/// all goes on when files can be made again.
#[test]
fn where_no_file_can_be_made_all_goes_on_once_it_can() {
    let mut crew = at_work();
    let test = "where_no_file_can_be_made_all_goes_on_once_it_can";
    let Some(disk) = Mount::ext4(test, &crew.layout.state(), 400) else { return };
    let prepared = Prepared::new(&crew);
    crew.start();
    crew.running("victim", None);
    let early = crew.submit("work", "\"early\"");
    crew.eventually("what came before is done", || crew.is_done(&early));
    // Each of these that goes later makes room for a file.
    let is_pipe = |file: &fs::DirEntry| file.file_name().to_string_lossy().ends_with(".pipe");
    let pipes = || fs::read_dir(crew.layout.logs()).expect("logs/").flatten().filter(is_pipe).count();
    crew.eventually("and cleared away", || {
        let layout = &crew.layout;
        let gone = [layout.task(&early), layout.lock(&early), layout.new_task(&early)];
        let tmp = fs::read_dir(layout.tmp(&name("worker"))).map_or(0, Iterator::count);
        gone.iter().all(|path| !path.exists()) && tmp == 0 && pipes() == 2
    });

    disk.fill_with_files();
    fails(&crew, &["submit", "work", "1"], "No space left");
    prepared.hand_in(&crew);
    says(&crew, "there is no room, nothing is acknowledged");
    says(&crew, "memory: updates wait, there is no room");
    beats_go_on(&crew);
    // The pipe of the one that ended makes room for the next one's; for one more agent there is none.
    victim_restarts(&crew);
    crew.sleeper("latecomer");
    says(&crew, "latecomer could not be started");

    disk.empty();
    crew.running("latecomer", None);
    crew.eventually("what waited is done", || crew.is_done(&prepared.task));
    crew.eventually("in memory too", || crew.value("prepared") == Some(json!(1)));
    crew.running("victim", None);
    crew.ends_well();
}

/// Kept, contained, explained: of a file system that turned read-only under it a supervisor says so and
/// acknowledges nothing; once it is mended, all that was acknowledged is there.
#[test]
fn a_disk_that_turns_read_only_is_told_and_loses_nothing() {
    let mut crew = at_work();
    let test = "a_disk_that_turns_read_only_is_told_and_loses_nothing";
    let Some(disk) = Mount::ext4(test, &crew.layout.state(), INODES) else { return };
    crew.start();
    crew.running("victim", None);
    let early = crew.submit("work", "\"early\"");
    crew.eventually("what came before is done", || crew.is_done(&early));
    let waits = crew.submit("later", "1");
    crew.eventually("it is admitted", || crew.layout.task(&waits).exists());

    disk.turn_read_only();
    for args in [&["submit", "work", "1"][..], &["remember", "set", "a", "1"], &["halt"], &["stop", "victim"]]
    {
        fails(&crew, args, "");
    }
    let beats = lines_of(&crew.path("beats")).len();
    crew.eventually("agents go on", || lines_of(&crew.path("beats")).len() > beats + 25);
    send(*pids_of_victim(&crew).last().expect("it ran"), Signal::SIGKILL);
    says(&crew, "storage failed, nothing more is acknowledged");
    assert!(!crew.term().success(), "not all was written");
    crew.leaves_nothing();

    disk.mend();
    crew.agent("later.sh", &WORKER.replace("work\"", "later\""));
    crew.start();
    crew.eventually("what was acknowledged is done", || crew.is_done(&waits));
    assert!(crew.is_done(&early));
    assert_eq!(lines_of(&crew.path("done-tasks")), [early.to_string(), waits.to_string()]);
    crew.ends_well();
}

/// The writer's thread meets a call that fails once: the story of each.
fn broken_writer(what: &str) {
    let mut crew = at_work();
    crew.start();
    crew.running("victim", None);
    let early = crew.submit("work", "\"early\"");
    crew.eventually("what came before is done", || crew.is_done(&early));
    crew.ok(&["remember", "set", "early", "1"]);
    crew.eventually("in memory too", || crew.value("early") == Some(json!(1)));
    crew.eventually("the victim runs", || !pids_of_victim(&crew).is_empty());

    let fault = Injection::into_threads(&threads_of(crew.supervisor(), Some("writer")), what);
    let task = crew.submit("work", "\"late\"");
    says(&crew, "storage failed, nothing more is acknowledged");
    victim_restarts(&crew);
    beats_go_on(&crew);
    assert_eq!(fault.hits(), 1, "{:?}", fault.calls());
    let last = fault.calls().pop().unwrap_or_default();
    assert!(last.contains("INJECTED"), "nothing is tried again: {:?}", fault.calls());
    drop(fault);
    let failed = || crew.crew_status().is_some_and(|status| status.state.starts_with("failed: "));
    crew.eventually("its status says so", failed);
    let told = crew.ok(&["status"]);
    assert!(told.contains("Input/output error"), "so does the command: {told}");
    assert!(!crew.is_done(&task), "nothing is acknowledged");
    assert!(!crew.term().success(), "not all was written");
    crew.leaves_nothing();

    crew.start();
    crew.eventually("what was handed in is done", || crew.is_done(&task));
    assert!(crew.is_done(&early) && crew.value("early") == Some(json!(1)), "{}", crew.told());
    assert_eq!(lines_of(&crew.path("done-tasks")), [early.to_string(), task.to_string()]);
    crew.ends_well();
}

/// Kept, contained, explained: after one failed fsync of the ledger, of a record or of a directory nothing is
/// tried again and nothing acknowledged; a restart finds all that was.
#[test]
fn a_failed_fsync_of_the_writer_ends_all_acknowledgement_until_a_restart() {
    let test = "a_failed_fsync_of_the_writer_ends_all_acknowledgement_until_a_restart";
    if !needs::root(test) || !needs::program(test, "strace") {
        return;
    }
    std::thread::scope(|scope| {
        // The first of an admission is the ledger's, the second the record's.
        for what in ["fdatasync:error=EIO:when=1", "fdatasync:error=EIO:when=2", "fsync:error=EIO:when=1"] {
            scope.spawn(move || broken_writer(what));
        }
    });
}

/// Kept, contained, explained: the same of the steward, beside whom tasks go on.
#[test]
fn a_failed_fsync_of_the_steward_ends_all_updates_until_a_restart() {
    let test = "a_failed_fsync_of_the_steward_ends_all_updates_until_a_restart";
    if !needs::root(test) || !needs::program(test, "strace") {
        return;
    }
    let story = |what: &str| {
        let mut crew = at_work();
        crew.start();
        crew.ok(&["remember", "append", "list", "1"]);
        crew.eventually("it is applied", || crew.value("list") == Some(json!([1])));
        let fault = Injection::into_threads(&threads_of(crew.supervisor(), Some("steward")), what);
        crew.ok(&["remember", "append", "list", "2"]);
        says(&crew, "memory: storage failed, no update is applied until a restart");
        let task = crew.submit("work", "1");
        crew.eventually("tasks go on", || crew.is_done(&task));
        let last = fault.calls().pop().unwrap_or_default();
        assert!(last.contains("INJECTED"), "nothing is tried again: {:?}", fault.calls());
        drop(fault);
        crew.eventually("an alert tells it", || crew.layout.alert("memory").exists());
        crew.term();
        crew.leaves_nothing();
        crew.start();
        crew.eventually("it is applied in the end, once", || crew.value("list") == Some(json!([1, 2])));
        crew.ends_well();
    };
    std::thread::scope(|scope| {
        // Of the journal, of the value, of what counts it as applied; and of a directory.
        for what in [
            "fdatasync:error=EIO:when=1",
            "fdatasync:error=EIO:when=2",
            "fdatasync:error=EIO:when=3",
            "fsync:error=EIO:when=1",
        ] {
            scope.spawn(move || story(what));
        }
    });
}

/// Kept: a command that could not make durable what it was given says that it failed, whichever fsync it was.
#[test]
fn a_command_whose_fsync_fails_says_so() {
    let test = "a_command_whose_fsync_fails_says_so";
    if !needs::root(test) || !needs::program(test, "strace") {
        return;
    }
    let mut crew = at_work();
    crew.start();
    let mut tried = 0;
    let commands = [
        &["submit", "other"][..],
        &["remember", "set", "key"],
        &["halt"],
        &["resume"],
        &["stop", "victim"],
        &["start", "victim"],
    ];
    for command in commands {
        for nth in 1.. {
            assert!(nth < 20, "{command:?} never ends well");
            let payload = nth.to_string();
            let mut args = command.to_vec();
            if matches!(command[0], "submit" | "remember") {
                args.push(&payload);
            }
            let (output, hits) = run_with(&crew, &format!("fsync,fdatasync:error=EIO:when={nth}"), &args);
            let told = String::from_utf8_lossy(&output.stderr);
            if hits == 0 {
                assert!(output.status.success(), "nightcrew {args:?} without a fault: {told}");
                break;
            }
            tried += 1;
            assert!(!output.status.success(), "nightcrew {args:?} hides the failure of call {nth}");
            assert!(told.contains("error:") && told.contains("Input/output error"), "{args:?}: {told}");
        }
    }
    assert!(tried >= commands.len(), "each makes something durable: {tried}");
    crew.ends_well();
}

/// Kept: the same of an outcome; what is told as failed can be handed in again.
#[test]
fn an_outcome_whose_fsync_fails_is_told_and_can_be_handed_in_again() {
    let test = "an_outcome_whose_fsync_fails_is_told_and_can_be_handed_in_again";
    if !needs::root(test) || !needs::program(test, "strace") {
        return;
    }
    let mut crew = Crew::new();
    crew.start();
    for nth in 1.. {
        assert!(nth < 20, "it never ends well");
        let task = crew.submit("own", &nth.to_string());
        let mut owner = crew.outsider("sleep", &["1000"]);
        let pid = owner.pid();
        crew.eventually("it is claimed", || {
            crew.nightcrew(&["claim", "own", "--owner-pid", &pid]).status.success()
        });
        let result = format!("result {nth}");
        fs::write(crew.path("result"), &result).expect("written");
        let args = ["done", task.as_str(), "--output", "result"];
        let (output, hits) = run_with(&crew, &format!("fsync,fdatasync:error=EIO:when={nth}"), &args);
        let told = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), hits == 0, "call {nth}: {told}");
        if hits == 1 {
            assert!(told.contains("error:") && told.contains("Input/output error"), "{told}");
            // It may have been seen although it was not durable: then there is nothing left to hand in.
            crew.eventually("it can be handed in", || {
                crew.nightcrew(&args).status.success() || crew.is_done(&task)
            });
        }
        crew.eventually("it is done", || crew.is_done(&task));
        assert_eq!(text_of(&crew.layout.result(&task)), result);
        owner.kill();
        if hits == 0 {
            assert!(nth > 2, "a result and an outcome are made durable");
            break;
        }
    }
    crew.ends_well();
}

/// Contained, kept: while the disk takes its time, agents are started again and beats are seen; nothing is
/// acknowledged before the disk has it.
#[test]
fn a_disk_that_takes_its_time_holds_up_acknowledgement_and_nothing_else() {
    let test = "a_disk_that_takes_its_time_holds_up_acknowledgement_and_nothing_else";
    if !needs::root(test) || !needs::program(test, "strace") {
        return;
    }
    let mut crew = at_work();
    crew.spawn_supervisor(&[], &[("RUST_LOG", "debug")]);
    crew.running("victim", None);
    crew.eventually("the victim runs", || !pids_of_victim(&crew).is_empty());
    // Longer than this test lasts: it ends when the disk is let go.
    let what = "fsync,fdatasync:delay_enter=600000000";
    let slow = Injection::into_threads(&threads_of(crew.supervisor(), Some("writer")), what);
    let task = crew.submit("work", "1");
    // Handed to the writer, who may be held up by what came before it.
    says(&crew, &format!("task {task} of kind work was submitted"));
    let pid = victim_restarts(&crew);
    crew.eventually("that is shown", || crew.pid("victim") == Some(pid));
    beats_go_on(&crew);
    assert!(!crew.layout.task(&task).exists() && !crew.is_done(&task), "nothing is acknowledged");
    assert!(!crew.path("done-tasks").exists(), "nor given to anybody");
    drop(slow);
    crew.eventually("it is done when the disk is", || crew.is_done(&task));
    assert_eq!(crew.count(|fact| matches!(fact, Fact::Isolated { .. })), 0, "{}", crew.told());
    crew.ends_well();
}
