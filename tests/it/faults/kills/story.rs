//! A crew that does a little of everything, so that a kill finds it in the midst of it.

use std::fs;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;

use crate::crew::{Crew, name, text_of};
use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::status::Standing;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::judge::{Acknowledged, Fate, NOTES};
use super::tracer::{End, HELD_BACK, Point, Trace, follow};

/// Its result tells what it was given.
pub(super) const WORKER: &str = r#"#!/bin/sh
# /// agent
# handles = ["work"]
# ///
read -r payload
echo "made of $payload" >"$NIGHTCREW_OUTPUT"
"#;

/// Remembers and submits, and notes outside the crew what was acknowledged.
const SCRIBE: &str = r#"#!/bin/sh
for n in 1 2; do
    value=$NIGHTCREW_RUN-$n
    nightcrew remember append NOTES "\"$value\"" && echo "value $value" >>"ACKNOWLEDGED"
done
task=of-$NIGHTCREW_RUN
nightcrew submit work "\"$task\"" --id "$task" && echo "task $task" >>"ACKNOWLEDGED"
"#;

/// The kind that nobody handles: it is claimed by hand.
const BY_HAND: &str = "by-hand";
const RESULT_BY_HAND: &str = "made by hand\n";

pub(super) struct Story {
    pub(super) crew: Crew,
    /// Outside the crew: what is acknowledged does not depend on what it is a promise of.
    outside: tempfile::TempDir,
    acknowledged: Acknowledged,
    late: bool,
    by_hand: ByHand,
}

/// How far the work is that an operator does.
enum ByHand {
    Waits,
    Holds(TaskId),
    HandedIn,
}

impl Story {
    pub(super) fn new() -> Self {
        let (crew, outside) = (Crew::new(), tempfile::tempdir().expect("a directory"));
        let noted = outside.path().join("acknowledged");
        let scribe = SCRIBE.replace("NOTES", NOTES).replace("ACKNOWLEDGED", noted.to_str().expect("a path"));
        crew.agent("worker.sh", WORKER).agent("scribe.sh", &scribe);
        fs::write(outside.path().join("result"), RESULT_BY_HAND).expect("written");
        let acknowledged = Acknowledged::default();
        let mut story = Self { crew, outside, acknowledged, late: false, by_hand: ByHand::Waits };
        story.submit("work", "early");
        story.submit(BY_HAND, "0");
        story
    }

    fn noted(&self) -> PathBuf {
        self.outside.path().join("acknowledged")
    }

    /// Submits a task; it is acknowledged when this returns.
    fn submit(&mut self, kind: &str, word: &str) {
        let task = self.crew.submit(kind, &format!("\"{word}\""));
        let output =
            if kind == BY_HAND { RESULT_BY_HAND.to_owned() } else { format!("made of \"{word}\"\n") };
        self.acknowledged.tasks.insert(task, Fate::Done(Some(output)));
    }

    /// Everything that was acknowledged so far.
    pub(super) fn acknowledged(&self) -> Acknowledged {
        let mut all = self.acknowledged.clone();
        for line in text_of(&self.noted()).lines() {
            match line.split_once(' ').expect("two words") {
                ("value", value) => drop(all.values.insert(value.to_owned())),
                (_, task) => {
                    let output = format!("made of \"{task}\"\n");
                    all.tasks.insert(name(task), Fate::Done(Some(output)));
                }
            }
        }
        all
    }

    /// Runs a supervisor, to its orderly end once all is done, or to the point at which it is killed.
    pub(super) fn supervise_until(&mut self, point: Option<&Point>) -> Result<Trace, Errno> {
        let mut command = self.crew.awaiting(HELD_BACK);
        let log = fs::OpenOptions::new().create(true).append(true).open(self.crew.log()).expect("a log");
        command.arg("run").stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let before = self.starts();
        let (sender, pid) = mpsc::channel();
        thread::scope(|scope| {
            let tracer = scope.spawn(move || {
                follow(&mut command, point, |pid| assert!(sender.send(pid).is_ok(), "it is awaited"))
            });
            if let Ok(pid) = pid.recv() {
                let mut ended = EndedWith(Signal::SIGKILL, pid);
                self.crew_at_work(before, || tracer.is_finished());
                ended.0 = Signal::SIGTERM;
            }
            tracer.join().expect("the tracer")
        })
    }

    fn starts(&self) -> usize {
        self.crew.count(|fact| matches!(fact, Fact::SupervisorStarted { .. }))
    }

    /// Does an operator's part, until all is done or the supervisor `is_over`.
    fn crew_at_work(&mut self, starts_before: usize, is_over: impl Fn() -> bool) {
        let begun = std::time::Instant::now();
        while !is_over() {
            let runs = self.starts() > starts_before;
            if runs && !self.late {
                self.late = true;
                self.submit("work", "late");
            }
            self.work_by_hand();
            if runs && self.late && self.is_at_rest() {
                return;
            }
            assert!(begun.elapsed().as_secs() < 60, "it does not come to rest\n{}", self.crew.told());
            thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    /// Claims the task that nobody handles, and hands it in.
    fn work_by_hand(&mut self) {
        let crew = &self.crew;
        match &self.by_hand {
            ByHand::Waits if !text_of(&crew.layout.ready(&name(BY_HAND))).is_empty() => {
                let owner = std::process::id().to_string();
                let told = crew.nightcrew(&["claim", BY_HAND, "--owner-pid", &owner]);
                // It may have been too early.
                if told.status.success() {
                    self.by_hand = ByHand::Holds(name(String::from_utf8_lossy(&told.stdout).trim()));
                }
            }
            ByHand::Holds(task) => {
                let result = self.outside.path().join("result");
                crew.ok(&["done", task.as_str(), "--output", result.to_str().expect("a path")]);
                self.by_hand = ByHand::HandedIn;
            }
            ByHand::Waits | ByHand::HandedIn => {}
        }
    }

    /// Nothing is left to do.
    fn is_at_rest(&self) -> bool {
        let layout = &self.crew.layout;
        let is_empty = |dir: PathBuf| fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_none());
        let all = self.acknowledged();
        all.tasks.keys().all(|task| self.crew.is_done(task))
            && self.crew.stands("scribe") == Some(Standing::Finished)
            && is_empty(layout.new_tasks())
            && is_empty(layout.queue(&name("scribe")))
            && fs::read_dir(layout.tasks()).expect("tasks/").all(|entry| {
                let file = entry.expect("an entry").file_name();
                let file = file.to_string_lossy();
                !(file.ends_with(".json") || file.ends_with(".lock"))
            })
    }

    /// The next supervisor brings everything to its end, and ends in order.
    #[track_caller]
    pub(super) fn come_to_rest(&mut self) {
        let trace = self.supervise_untraced();
        assert!(trace.success(), "it ended with {trace}\n{}", self.crew.told());
    }

    fn supervise_untraced(&mut self) -> std::process::ExitStatus {
        let before = self.starts();
        self.crew.spawn_supervisor(&[], &[]);
        self.crew_at_work(before, || false);
        self.crew.term()
    }
}

/// Sends a signal when it goes: a tracer that is waited for comes to its end also if the test fails meanwhile.
struct EndedWith(Signal, Pid);

impl Drop for EndedWith {
    fn drop(&mut self) {
        // It may have been killed by the tracer before.
        let _ = kill(self.1, self.0);
    }
}

/// True if a run that was to be killed was, rather than ending by itself in good order.
#[track_caller]
pub(super) fn was_killed(trace: &Trace) -> bool {
    match trace.end {
        End::Killed => true,
        End::Exited(0) => false,
        End::Exited(_) | End::Signalled(_) => panic!("it ended by itself: {:?}", trace.end),
    }
}
