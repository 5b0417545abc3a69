//! A request to change shared memory: `memory/queue/AGENT/SEQ.json`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::name::Key;

/// What to do with the value under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// Replace it.
    Set,
    /// Merge into it, by RFC 7396.
    Merge,
    /// Add to the end of it, which must be an array or absent.
    Append,
    /// Remove it.
    Delete,
}

/// One update. Its agent is the directory's name and its place in the order the file's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The version of the format.
    pub v: u32,
    /// Unique to this update: what makes it apply exactly once.
    pub id: String,
    /// What to do.
    pub op: Operation,
    /// To which value.
    pub key: Key,
    /// With what; absent for `delete`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Value>,
}
