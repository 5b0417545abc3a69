//! What outlives a supervisor of a job's triggers: `state/triggers/NAME.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::record::VERSION;
use super::schedule::Slot;
use super::time::Wall;

/// How far a job's schedule is decided about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerRecord {
    /// The version of the format: [`VERSION`].
    pub v: u32,
    /// The schedule as it was declared, and its zone; empty without one. Of another one, nothing below is known.
    pub clock: String,
    /// When this schedule was first seen: what it meant before is nobody's.
    pub since: Wall,
    /// The last slot that was decided about, if any was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Slot>,
    /// Since when changes wait for the end of a `debounce`, if any do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dirty: Option<Wall>,
}

impl TriggerRecord {
    /// Of a schedule that is seen for the first time.
    #[must_use]
    pub fn new(clock: String, since: Wall) -> Self {
        Self { v: VERSION, clock, since, decided: None, dirty: None }
    }
}

/// A file that changed, as a job is told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Which, relative to the crew.
    pub path: String,
    /// What happened to it since a run was last told of it.
    pub change: Change,
    /// What tells its versions apart; absent if it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// It was not there before.
    Created,
    /// It is another.
    Changed,
    /// It is not there any more.
    Removed,
}

/// The payload of a firing by changed files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changes {
    /// What changed, by path.
    pub changed: Vec<Changed>,
    /// How many more changed than this run is told of; they come in the next.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub more: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// The files that a job was given in runs which ended well: `state/triggers/NAME.files`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandledFiles {
    /// The version of the format: [`VERSION`].
    pub v: u32,
    /// How many firings handled them: the same change twice is two firings.
    #[serde(default)]
    pub firings: u64,
    /// The version of each, by its path.
    pub files: BTreeMap<String, String>,
}

impl HandledFiles {
    /// So many bytes may tell of them.
    pub const LEN_MAX: u64 = 32 * 1024 * 1024;
}
