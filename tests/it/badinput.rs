//! Whatever an agent writes is put aside with a reason if it is no good, and nothing else notices.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::json;

use crate::crew::{Crew, name};

const HANDLER: &str = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\nexit 0\n";
/// Deeper than any reader goes.
const DEEP: usize = 100_000;

/// Puts one of each kind of bad input into `dir`, named by `named`; gives what is there then.
fn spoil(crew: &Crew, dir: &Path, named: impl Fn(u32) -> String) -> Vec<PathBuf> {
    fs::create_dir_all(dir).expect("a directory");
    let path = |n| dir.join(named(n));
    mkfifo(&path(1), Mode::S_IRWXU).expect("a FIFO");
    let secret = crew.path("secret");
    fs::write(&secret, "not yours").expect("written");
    symlink(&secret, path(2)).expect("a symlink");
    fs::create_dir(path(3)).expect("a directory");
    File::create(path(4)).and_then(|file| file.set_len(1 << 40)).expect("a sparse file");
    rename_in(crew, format!("{{\"v\":1,\"payload\":{}", "[".repeat(DEEP)).as_bytes(), &path(5));
    rename_in(crew, b"\x00\xff\xfe not JSON at all \n", &path(6));
    rename_in(crew, b"{\"v\":1,\"id\":\"half", &path(7));
    rename_in(crew, b"", &path(8));
    (1..=8).map(path).collect()
}

fn rename_in(crew: &Crew, bytes: &[u8], path: &Path) {
    let temp = crew.path("made");
    fs::write(&temp, bytes).expect("written");
    fs::rename(temp, path).expect("renamed");
}

fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// All are put aside, each with a reason; and the crew works as before.
#[track_caller]
fn are_put_aside(crew: &Crew, spoiled: &[PathBuf], aside: &Path) {
    crew.eventually(&format!("all are out of the way of {}", spoiled[0].display()), || {
        spoiled.iter().all(|path| !is_there(path))
    });
    crew.eventually("each has its reason", || reasons(aside) >= spoiled.len());
}

fn reasons(aside: &Path) -> usize {
    let Ok(entries) = fs::read_dir(aside) else { return 0 };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let told = paths.filter(|path| path.extension().is_some_and(|ending| ending == "reason"));
    told.filter(|path| path.metadata().is_ok_and(|file| file.len() > 0)).count()
}

#[track_caller]
fn works_on(crew: &Crew, round: u32) {
    let task = crew.submit("work", &round.to_string());
    crew.eventually("other tasks are done", || crew.is_done(&task));
    crew.ok(&["remember", "--wait", "set", "round", &round.to_string()]);
    assert_eq!(crew.value("round"), Some(json!(round)));
}

#[test]
fn bad_submissions_are_put_aside() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER).sleeper("bystander");
    crew.start();
    let bystander = crew.running("bystander", None);
    let spoiled = spoil(&crew, &crew.layout.new_tasks(), |n| format!("bad-{n}.json"));
    works_on(&crew, 1);
    are_put_aside(&crew, &spoiled, &crew.layout.rejected_tasks());
    works_on(&crew, 2);
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

#[test]
fn bad_outcomes_are_put_aside() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER).sleeper("bystander");
    crew.start();
    let bystander = crew.running("bystander", None);
    let dir = crew.layout.outcomes_of(&name("bystander"));
    let spoiled = spoil(&crew, &dir, |n| format!("task.{n}.nonce.json"));
    works_on(&crew, 1);
    are_put_aside(&crew, &spoiled, &crew.layout.refused_outcomes());
    works_on(&crew, 2);
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

#[test]
fn bad_updates_are_put_aside() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER).sleeper("bystander");
    crew.start();
    let bystander = crew.running("bystander", None);
    let dir = crew.layout.queue(&name("bystander"));
    let spoiled = spoil(&crew, &dir, |n| format!("{n}.json"));
    works_on(&crew, 1);
    are_put_aside(&crew, &spoiled, &crew.layout.rejected_updates());
    works_on(&crew, 2);
    assert_eq!(crew.pid("bystander"), Some(bystander));
    crew.ends_well();
}

#[test]
fn bad_requests_locks_and_heartbeats_stop_nothing() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER).sleeper("bystander");
    mkfifo_in(&crew.layout.status_dir(), "bystander.heartbeat");
    crew.start();
    let bystander = crew.running("bystander", None);
    let spoiled = spoil(&crew, &crew.layout.requests(), |n| format!("bad-{n}.json"));
    mkfifo_in(&crew.layout.tasks(), "nobody.lock");
    works_on(&crew, 1);
    crew.eventually("the requests are out of the way", || spoiled.iter().all(|path| !is_there(path)));
    crew.ok(&["restart", "bystander"]);
    crew.running("bystander", Some(bystander));
    works_on(&crew, 2);
    crew.ends_well();
}

fn mkfifo_in(dir: &Path, file: &str) {
    fs::create_dir_all(dir).expect("a directory");
    mkfifo(&dir.join(file), Mode::S_IRWXU).expect("a FIFO");
}
