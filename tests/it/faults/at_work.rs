//! A crew at work, whose agents leave traces in the crew's directory itself, whatever becomes of its `state/`.

use std::path::Path;

use nix::sys::signal::Signal;

use crate::crew::{Crew, send, text_of};

/// Leaves its pid where there is always room.
const VICTIM: &str = "#!/bin/sh\necho $$ >>victim.pids\nexec sleep 1000\n";
/// Beats a little more often than it must, and counts its beats where there is always room.
const BEATING: &str = "#!/bin/sh\n# /// agent\n# heartbeat = \"1s\"\n# isolation_grace = \"1h\"\n# ///\n\
    while :; do touch \"$NIGHTCREW_HEARTBEAT\"; echo beat >>beats; sleep 0.1; done\n";
pub(super) const WORKER: &str =
    "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\necho \"$NIGHTCREW_TASK\" >>done-tasks\n";

/// A crew at work: a service that beats, one to be killed, a handler.
pub(super) fn at_work() -> Crew {
    let crew = Crew::new();
    crew.agent("victim.sh", VICTIM).agent("beating.sh", BEATING).agent("worker.sh", WORKER);
    crew
}

/// A command that must say that it failed, and why.
#[track_caller]
pub(super) fn fails(crew: &Crew, args: &[&str], why: &str) {
    let output = crew.nightcrew(args);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "nightcrew {args:?} says that it succeeded\n{}", crew.told());
    assert!(told.contains("error:") && told.contains(why), "nightcrew {args:?}: {}\n{told}", output.status);
}

#[track_caller]
pub(super) fn says(crew: &Crew, what: &str) {
    crew.eventually(&format!("its log says {what:?}"), || text_of(&crew.log()).contains(what));
}

pub(super) fn lines_of(path: &Path) -> Vec<String> {
    text_of(path).lines().map(str::to_owned).collect()
}

/// The pids that the victim had, the last of which runs.
pub(super) fn pids_of_victim(crew: &Crew) -> Vec<i32> {
    lines_of(&crew.path("victim.pids")).iter().filter_map(|pid| pid.parse().ok()).collect()
}

/// Kills the victim: it must be started again, whatever the disk does. Gives its new pid.
#[track_caller]
pub(super) fn victim_restarts(crew: &Crew) -> i32 {
    let before = pids_of_victim(crew);
    let pid = *before.last().expect("it ran");
    send(pid, Signal::SIGKILL);
    crew.await_some("what died is started again", || {
        pids_of_victim(crew).split_off(before.len()).first().copied()
    })
}

/// Waits for so many beats that silence for as long would have isolated their agent.
#[track_caller]
pub(super) fn beats_go_on(crew: &Crew) {
    let beats = || lines_of(&crew.path("beats")).len();
    let before = beats();
    crew.eventually("beats go on for more than two intervals", || beats() > before + 25);
}
