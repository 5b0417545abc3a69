//! The watchdog: a thread that samples facts at its own pace and reports what changed.
//!
//! It judges nothing. Which silence is too long and which tree too large is decided by pure code.

use std::path::PathBuf;

use crate::protocol::name::{RunId, TaskId};
use crate::protocol::process::Identity;

use super::store::Signature;

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
