//! How a record becomes one line of JSON and is read back: versioned, capped, never half believed.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version that this build writes.
pub const VERSION: u32 = 1;
/// The largest task or update, in bytes.
pub const RECORD_LEN_MAX: u64 = 1024 * 1024;
/// The largest lock, outcome, request or other small record, in bytes.
pub const SMALL_LEN_MAX: u64 = 64 * 1024;
/// The largest output of a task, in bytes.
pub const OUTPUT_LEN_MAX: u64 = 64 * 1024 * 1024;

/// Why bytes are not the record they should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// Written by a later version of nightcrew: left as it is.
    #[error("version {0} is newer than this nightcrew understands ({VERSION}); upgrade nightcrew")]
    Newer(u64),
    /// It ends in the middle: perhaps it is still being written.
    #[error("incomplete: {0}")]
    Incomplete(String),
    /// Not the record it should be.
    #[error("{0}")]
    Malformed(String),
}

#[derive(serde::Deserialize)]
struct Versioned {
    #[serde(default)]
    v: u64,
}

/// Reads one record.
///
/// # Errors
/// [`RecordError`], saying which kind of wrong it is.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    if let Ok(Versioned { v }) = serde_json::from_slice::<Versioned>(bytes)
        && v > u64::from(VERSION)
    {
        return Err(RecordError::Newer(v));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_eof() {
            RecordError::Incomplete(error.to_string())
        } else {
            RecordError::Malformed(error.to_string())
        }
    })
}

/// The longest beginning of `text` that is whole characters and at most `max` bytes.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    let end = (0..=max.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

/// Writes one record as a line with its newline.
#[must_use]
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    // The records hold only string keys and finite numbers, for which serialising cannot fail; an
    // empty line is what a reader would refuse, should that ever become untrue.
    let mut line = serde_json::to_vec(record).unwrap_or_default();
    line.push(b'\n');
    line
}
