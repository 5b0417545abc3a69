//! What outlives a supervisor of a job's triggers: `state/triggers/NAME.json`.

use serde::{Deserialize, Serialize};

use super::record::VERSION;
use super::schedule::Slot;
use super::time::Wall;

/// How far a job's schedule is decided about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerRecord {
    /// The version of the format: [`VERSION`].
    pub v: u32,
    /// The schedule as it was declared, and its zone. Of another one, nothing below is known.
    pub clock: String,
    /// When this schedule was first seen: what it meant before is nobody's.
    pub since: Wall,
    /// The last slot that was decided about, if any was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<Slot>,
}

impl TriggerRecord {
    /// Of a schedule that is seen for the first time.
    #[must_use]
    pub fn new(clock: String, since: Wall) -> Self {
        Self { v: VERSION, clock, since, decided: None }
    }
}
