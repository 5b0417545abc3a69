//! The steward's two records: a line of `memory/journal/`, and `memory/applied/AGENT`.
//!
//! A journal line is committed before the store changes and names the hash of the value before and
//! after, so that a redo can see whether it is still needed. `applied/AGENT` is raised after the store
//! has changed and before the queue's file is unlinked. What of the last commit a crash left undone is
//! found by comparing the two: see `machine::memory`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::name::{AgentName, Key};
use super::update::{Operation, present};

/// Stands for the hash of a value that does not exist.
pub const HASH_ABSENT: &str = "absent";
/// Stands for the hash of something in the store that cannot be read as a file.
pub const HASH_UNREADABLE: &str = "unreadable";

/// One applied update, as the journal tells it. The journal's frame adds its own `seq`, which is why an
/// update's is called `update` here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// The version of the format.
    pub v: u32,
    /// Whose update it was.
    pub agent: AgentName,
    /// The number of its file in the queue.
    pub update: u64,
    /// Its id.
    pub id: String,
    /// How many lines of the same commit follow this one. The last commit is found by it.
    pub left: usize,
    /// What was done.
    pub op: Operation,
    /// To which value.
    pub key: Key,
    /// With what.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub value: Option<Value>,
    /// SHA-256 of the value's file before, or [`HASH_ABSENT`] or [`HASH_UNREADABLE`].
    pub before: String,
    /// The same after.
    pub after: String,
}

/// `memory/applied/AGENT`: how far an agent's updates are applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The version of the format.
    pub v: u32,
    /// The highest number taken from the agent's queue; the next update takes a higher one.
    pub seq: u64,
    /// The ids of the updates applied last, oldest first: at least all of those whose files may still
    /// be, or after a power cut be again, in the queue.
    pub ids: Vec<String>,
}

impl Default for Applied {
    fn default() -> Self {
        Self { v: super::record::VERSION, seq: 0, ids: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_keep_their_written_form() {
        let line = r#"{"v":1,"agent":"a","update":7,"id":"x","left":0,"op":"set","key":"k/l","value":null,"before":"absent","after":"ff"}"#;
        let read: Line = serde_json::from_str(line).unwrap();
        assert_eq!(read.value, Some(Value::Null));
        assert_eq!(serde_json::to_string(&read).unwrap(), line);
        let applied = r#"{"v":1,"seq":3,"ids":["a","b"]}"#;
        let read: Applied = serde_json::from_str(applied).unwrap();
        assert_eq!(serde_json::to_string(&read).unwrap(), applied);
    }
}
