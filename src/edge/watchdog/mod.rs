//! The watchdog: a thread that samples facts at its own pace and reports what changed.
//!
//! It judges nothing. Which silence is too long and which tree too large is decided by pure code.

pub mod files;
mod memory;
mod proc;
#[cfg(test)]
mod tests;

use std::io;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use self::files::Files;
use self::memory::Memory;
use super::store::{Signature, Store};
use super::thread;
use crate::protocol::name::{RunId, TaskId};
use crate::protocol::process::Identity;

/// What a watched file is a sign of.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// The heartbeat of a run.
    Beat(RunId),
    /// The output of a run.
    Output(RunId),
    /// The lock of a task that an agent claimed by itself.
    Lock(TaskId),
}

/// A tree whose memory is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tree {
    /// The run.
    pub run: RunId,
    /// Its root process.
    pub root: Identity,
    /// Its limit in bytes.
    pub limit: u64,
}

/// All that is watched. It replaces what was watched before; what was known of subjects that stay is kept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Assignment {
    /// Files whose change is a sign of life.
    pub files: Vec<(Subject, PathBuf)>,
    /// How often to look at them, in milliseconds.
    pub pace_ms: u64,
    /// Trees whose memory is watched.
    pub trees: Vec<Tree>,
}

/// What the watchdog reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sighting {
    /// A file changed, or appeared, since it was looked at last. (A file that is there at the first look is
    /// reported too, with `first`.)
    Changed {
        /// Which.
        subject: Subject,
        /// What it is now.
        signature: Signature,
        /// True at the first look at this subject.
        first: bool,
    },
    /// One round of looking at the files is complete.
    Round {
        /// True if the watchdog's own beat, written just before, was seen by the same path.
        canary_alive: bool,
    },
    /// The memory of a tree.
    Memory {
        /// The run.
        run: RunId,
        /// Resident and swapped bytes of the tree; PSS where `exact`.
        bytes: u64,
        /// True if it was measured as PSS + swapped PSS, false for the sum of RSS and swap.
        exact: bool,
        /// True if part of it could only be estimated.
        estimated: bool,
        /// The processes of the tree.
        members: Vec<Identity>,
    },
}

/// The watchdog. Dropping it ends its thread.
#[derive(Debug)]
pub struct Watchdog {
    // Unbounded, because a bounded one could block the loop while the thread waits to report to it; the
    // thread takes all that is in it at once and keeps the last. Taken out by `drop`, which is what
    // ends the thread.
    assignments: Option<Sender<Assignment>>,
    thread: Option<JoinHandle<()>>,
}

impl Watchdog {
    /// Starts the thread, with nothing to watch. `canary` is its own heartbeat
    /// ([`Layout::canary`](crate::protocol::layout::Layout::canary)). `deliver` may block; the samples
    /// then wait.
    ///
    /// # Errors
    /// Those of `clone(2)`.
    pub fn start<S: Store>(
        store: S,
        canary: PathBuf,
        deliver: impl FnMut(Sighting) + Send + 'static,
    ) -> io::Result<Self> {
        let (assignments, inbox) = crossbeam_channel::unbounded();
        let sampler = Sampler {
            files: Files::new(store, canary),
            memory: Memory::default(),
            pace: PACE_MAX,
            files_due: None,
            memory_due: None,
            deliver,
        };
        let thread = thread::spawn("watchdog", move || sampler.run(&inbox))?;
        Ok(Self { assignments: Some(assignments), thread: Some(thread) })
    }

    /// Watches this from now on, instead of what was watched before.
    pub fn assign(&self, assignment: Assignment) {
        if let Some(assignments) = &self.assignments {
            // Fails only if the thread is gone, which it is not before `drop`.
            let _ = assignments.send(assignment);
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.assignments = None;
        thread::join(&mut self.thread);
    }
}

/// The bounds of the pace: zero would make a busy loop, and a point in time centuries ahead does not exist.
const PACE_MIN: Duration = Duration::from_millis(10);
const PACE_MAX: Duration = Duration::from_hours(24);
/// How soon the tree of a new run is measured first.
const NEW_TREE: Duration = Duration::from_secs(1);

/// The thread's side. Without anything to watch, nothing is due and it blocks on its channel.
struct Sampler<S, F> {
    files: Files<S>,
    memory: Memory,
    pace: Duration,
    files_due: Option<Instant>,
    memory_due: Option<Instant>,
    deliver: F,
}

impl<S: Store, F: FnMut(Sighting)> Sampler<S, F> {
    fn run(mut self, inbox: &Receiver<Assignment>) {
        loop {
            let due = [self.files_due, self.memory_due].into_iter().flatten().min();
            let assignment = match due {
                Some(due) => inbox.recv_deadline(due),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match assignment {
                Ok(first) => self.assign(inbox.try_iter().last().unwrap_or(first)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.sample();
        }
    }

    fn assign(&mut self, assignment: Assignment) {
        let now = Instant::now();
        let was_idle = self.files.is_empty();
        self.pace = Duration::from_millis(assignment.pace_ms).clamp(PACE_MIN, PACE_MAX);
        self.files.assign(assignment.files);
        // What is due sooner stays due: assignments that follow each other must not put a look off for ever.
        let next = if was_idle { now } else { now + self.pace };
        self.files_due = (!self.files.is_empty()).then(|| self.files_due.map_or(next, |due| due.min(next)));
        let any_new = self.memory.assign(assignment.trees);
        self.memory_due = match (self.memory.is_empty(), self.memory_due) {
            (true, _) => None,
            (false, Some(due)) if !any_new => Some(due),
            (false, due) => Some(due.map_or(now + NEW_TREE, |due| due.min(now + NEW_TREE))),
        };
    }

    fn sample(&mut self) {
        let now = Instant::now();
        if self.files_due.is_some_and(|due| due <= now) {
            self.files.look(&mut self.deliver);
            self.files_due = Some(now + self.pace);
        }
        if self.memory_due.is_some_and(|due| due <= now) {
            self.memory_due = Some(now + self.memory.sample(now, &mut self.deliver));
        }
    }
}
