//! A request to change shared memory: `memory/queue/AGENT/SEQ.json`.
//!
//! One object on one line, `{"v":1,"id":"…","op":"append","key":"topics/rust","value":…}`, at most
//! [`super::record::RECORD_LEN_MAX`] bytes. The id is what makes it apply exactly once; the file's
//! number only orders it among its agent's updates.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::name::Key;

/// The largest value that the store holds, in bytes of JSON.
pub const VALUE_LEN_MAX: usize = 1024 * 1024;
/// How deep arrays and objects may nest in a value of the store.
pub const VALUE_NESTING_MAX: usize = 64;

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

impl Operation {
    /// The word that stands for it in files and commands.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Set => "set",
            Self::Merge => "merge",
            Self::Append => "append",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One update. Its agent is the directory's name and its place in the order the file's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Update {
    /// The version of the format.
    pub v: u32,
    /// Unique to this update, and shaped like a name: what makes it apply exactly once.
    pub id: String,
    /// What to do.
    pub op: Operation,
    /// To which value.
    pub key: Key,
    /// With what; absent for `delete`. A `null` that is written is a value.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "present")]
    pub value: Option<Value>,
}

/// Reads a field that is there: without this, a written `null` would pass for a missing value.
pub(super) fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Else the store would hold another number than was meant, and each `append` move all of them a little further.
    #[test]
    fn a_number_is_the_same_after_any_number_of_readings() {
        for number in
            ["1.0132515819928897e-205", "-1.7976931348623157e+308", "5e-324", "0.1", "18446744073709551615"]
        {
            let value: Value = serde_json::from_str(number).unwrap();
            assert_eq!(value.to_string(), number);
        }
    }

    #[test]
    fn a_written_null_is_a_value_and_a_missing_one_is_none() {
        let read = |text: &str| serde_json::from_str::<Update>(text).map(|update| update.value);
        assert_eq!(read(r#"{"v":1,"id":"a","op":"set","key":"k","value":null}"#).unwrap(), Some(Value::Null));
        assert_eq!(read(r#"{"v":1,"id":"a","op":"delete","key":"k"}"#).unwrap(), None);
        assert!(read(r#"{"v":1,"id":"a","op":"drop","key":"k"}"#).is_err());
        assert!(read(r#"{"v":1,"id":"a","op":"set","key":"../k","value":1}"#).is_err());
    }
}
