//! `supervisor.lock`: who runs this crew, for people. What counts is the lock on it, not its content.

use serde::{Deserialize, Serialize};

use super::process::Identity;
use super::record::{self, RecordError, VERSION};
use super::time::Wall;

/// The one line in `supervisor.lock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The version of the format.
    pub v: u32,
    /// The supervisor.
    #[serde(flatten)]
    pub process: Identity,
    /// Since when it runs.
    pub since: Wall,
}

impl Holder {
    /// A record of the supervisor `process`.
    #[must_use]
    pub fn new(process: Identity, since: Wall) -> Self {
        Self { v: VERSION, process, since }
    }

    /// The record as a line.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        record::encode(self)
    }

    /// Reads the record.
    ///
    /// # Errors
    /// [`RecordError`]; an incomplete record is one that is being written.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        record::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_one_line_both_ways() {
        let process = Identity { pid: 7, start: 99, boot: "b".into(), ns: 4_026_531_836 };
        let holder = Holder::new(process, Wall(1_795_143_600_123));
        let line = holder.encode();
        assert_eq!(
            String::from_utf8(line.clone()).unwrap(),
            "{\"v\":1,\"pid\":7,\"start\":99,\"boot\":\"b\",\"ns\":4026531836,\"since\":\"2026-11-20T03:00:00.123Z\"}\n"
        );
        assert_eq!(Holder::decode(&line), Ok(holder));
        assert!(matches!(Holder::decode(b""), Err(RecordError::Incomplete(_))));
    }
}
