//! Watches that overflow, run out or look at what is there no more: they are hints, and the scan is the truth.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::files::HANDLER;
use super::needs;
use crate::crew::{Crew, name, text_of};

/// More than two of the scans that stand in for watches; only what fails lasts so long.
pub(super) const SCANS: Duration = Duration::from_secs(75);

/// Waits for what no watch tells of.
#[track_caller]
fn at_a_scan(crew: &Crew, what: &str, holds: impl Fn() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < SCANS, "no scan found that {what}\n{}", crew.told());
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Promise 4: what the kernel could not tell of is found all the same, and the loss is told.
#[test]
fn more_events_than_the_kernel_keeps_are_made_up_for() {
    let test = "more_events_than_the_kernel_keeps_are_made_up_for";
    let limit = text_of(Path::new("/proc/sys/fs/inotify/max_queued_events"));
    let limit: usize = limit.trim().parse().unwrap_or(usize::MAX);
    if limit > 100_000 {
        needs::skipped(test, "fs.inotify.max_queued_events is very large here");
        return;
    }
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER).sleeper("bystander");
    crew.start();
    let bystander = crew.running("bystander", None);
    crew.signal_supervisor(Signal::SIGSTOP);
    let noise = crew.layout.agents().join(".noise");
    for _ in 0..limit {
        // Made, closed, removed: three events at the least.
        File::create(&noise).expect("made");
        fs::remove_file(&noise).expect("removed");
    }
    // Of these the kernel's queue has nothing.
    let task = crew.submit("work", "1");
    crew.sleeper("late");
    crew.signal_supervisor(Signal::SIGCONT);
    crew.eventually("it is told", || text_of(&crew.log()).contains("everything is looked at"));
    crew.eventually("the task is done", || crew.is_done(&task));
    crew.running("late", None);
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

/// The limit of watches in the user namespace of a process, or of a new one that a program is started in.
const LIMIT: &str = "/proc/sys/user/max_inotify_watches";

/// Promises 4 and 6: without watches it says so and what to do, finds everything by its scans, and watches again as
/// soon as it may.
#[test]
fn without_watches_the_scans_find_everything_until_there_are_some_again() {
    let test = "without_watches_the_scans_find_everything_until_there_are_some_again";
    let scarce = format!("echo 3 >{LIMIT} && exec \"$@\"");
    let under = ["unshare", "--user", "--map-root-user", "sh", "-c", &scarce, "sh"];
    let tried = Command::new(under[0]).args(&under[1..]).arg("true").output();
    if !tried.is_ok_and(|output| output.status.success()) || !needs::program(test, "nsenter") {
        needs::skipped(test, "no user namespace with limits of its own is to be had");
        return;
    }
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER).sleeper("bystander");
    crew.spawn_supervisor_under(&under, &[], &[]);
    let bystander = crew.running("bystander", None);
    crew.eventually("it says what is wrong, and what to do", || {
        let status = crew.ok(&["status"]);
        status.contains("limit of watches") && status.contains("max_user_watches")
    });
    // Until the next scan nothing can tell it of these.
    let task = crew.submit("work", "1");
    crew.sleeper("late");
    let pid = crew.supervisor().to_string();
    let more = format!("echo 10000 >{LIMIT}");
    let raised = Command::new("nsenter")
        .args(["--user", "--preserve-credentials", "--target", &pid, "sh", "-c", &more])
        .status()
        .expect("it runs");
    assert!(raised.success());
    at_a_scan(&crew, "the task is there", || crew.is_done(&task));
    at_a_scan(&crew, "an agent is there", || crew.pid("late").is_some());
    at_a_scan(&crew, "watches are to be had", || !crew.ok(&["status"]).contains("max_user_watches"));
    let task = crew.submit("work", "2");
    crew.eventually("and they work", || crew.is_done(&task));
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

/// Promise 4: a directory that is removed is made again, and one that was moved away and back is watched again.
#[test]
fn a_watched_directory_that_is_removed_or_moved_away_and_back_is_watched_again() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER).sleeper("bystander");
    crew.start();
    let mut bystander = crew.running("bystander", None);
    let (new, requests) = (crew.layout.new_tasks(), crew.layout.requests());
    let begun = Instant::now();
    for round in 0..3 {
        // What is in one may be made again before it is gone itself.
        for dir in [&new, &requests] {
            crew.eventually("it is removed", || fs::remove_dir_all(dir).is_ok());
        }
        crew.eventually("both are made again", || new.is_dir() && requests.join("answers").is_dir());
        let task = crew.submit("work", &format!("\"removed {round}\""));
        crew.eventually("it is done", || crew.is_done(&task));
        let away = crew.path(&format!("away-{round}"));
        fs::rename(&new, &away).expect("moved away");
        crew.eventually("one is made in its place", || new.is_dir());
        fs::remove_dir(&new).expect("removed");
        let record = r#"{"v":1,"id":"ID","nonce":"n","kind":"work","at":"2026-11-20T03:00:00Z","payload":1}"#;
        let id = name(&format!("moved-{round}"));
        fs::write(away.join(format!("{id}.json")), record.replace("ID", id.as_str())).expect("written");
        // It may have been made once more meanwhile; as long as it is empty, it can be replaced.
        fs::rename(&away, &new).expect("moved back");
        crew.eventually("what came back with it is done", || crew.is_done(&id));
        crew.ok(&["restart", "bystander"]);
        bystander = crew.running("bystander", Some(bystander));
        // The scans find all of this too, but at least two of them in each round.
        assert!(begun.elapsed() < SCANS, "it is found by the scans alone\n{}", crew.told());
    }
    crew.ends_well();
}

/// Promise 4: through a link in the place of a directory nothing is taken that is not the crew's.
#[test]
fn a_link_in_the_place_of_a_directory_leads_nowhere() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER).sleeper("bystander");
    crew.start();
    let bystander = crew.running("bystander", None);
    let foreign = tempfile::tempdir().expect("a directory");
    for file in ["theirs.json", "theirs.txt", "t.1.n.json"] {
        fs::write(foreign.path().join(file), "not yours").expect("written");
    }
    let layout = crew.layout.clone();
    let places = [
        layout.new_tasks(),
        layout.requests(),
        layout.outcomes_of(&name("bystander")),
        layout.queue(&name("bystander")),
    ];
    for place in &places {
        fs::rename(place, place.with_extension("away")).expect("moved");
        // The supervisor may make it anew in between.
        crew.eventually("a link takes its place", || {
            let _ = fs::remove_dir_all(place);
            symlink(foreign.path(), place).is_ok()
        });
    }
    crew.signal_supervisor(Signal::SIGHUP);
    crew.eventually("it is told", || text_of(&crew.log()).contains("nothing is taken from it"));
    File::create(foreign.path().join("late.txt")).expect("made");
    fs::write(foreign.path().join("late.1.n.json"), "not yours either").expect("written");
    // What comes after all that is done; by then all of it was looked at.
    for place in &places {
        fs::remove_file(place).expect("the link is removed");
        crew.eventually("the directory is back", || {
            let _ = fs::remove_dir_all(place);
            fs::rename(place.with_extension("away"), place).is_ok()
        });
    }
    let task = crew.submit("work", "1");
    crew.signal_supervisor(Signal::SIGHUP);
    crew.eventually("it is done", || crew.is_done(&task));
    let files = fs::read_dir(foreign.path()).expect("a directory").map(|entry| entry.expect("an entry"));
    let left = files.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_file())).count();
    assert_eq!(left, 5, "all that is not the crew's is where it was: {}", crew.told());
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}
