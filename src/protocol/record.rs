//! How a record becomes one line of JSON and is read back: versioned, capped, never half believed.

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use serde_json::value::RawValue;

/// The version that this build writes.
pub const VERSION: u32 = 1;
/// How a record of that version begins as we write it.
const OWN_BEGIN: &[u8] = b"{\"v\":1,";
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
    v: u64,
}

/// Reads one record.
///
/// # Errors
/// [`RecordError`], saying which kind of wrong it is.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, RecordError> {
    // Most records begin with the version that this build writes: then nothing need be read twice. (A second `v`
    // behind the first is wrong in any record.)
    let version = if bytes.starts_with(OWN_BEGIN) {
        Ok(Versioned { v: u64::from(VERSION) })
    } else {
        serde_json::from_slice(bytes)
    };
    match version {
        Ok(Versioned { v: 0 }) => return Err(RecordError::Malformed("there is no version 0".into())),
        Ok(Versioned { v }) if v > u64::from(VERSION) => return Err(RecordError::Newer(v)),
        Ok(Versioned { .. }) | Err(_) => {}
    }
    serde_json::from_slice(bytes).map_err(|error| {
        if error.is_eof() || ends_within_a_number(bytes) {
            RecordError::Incomplete(error.to_string())
        } else {
            RecordError::Malformed(error.to_string())
        }
    })
}

/// True for JSON that ends behind the `-`, `.` or `e` of a number. The parser calls some such numbers wrong, but
/// the rest of them may only not be written yet: with a digit behind it, it would be incomplete.
fn ends_within_a_number(bytes: &[u8]) -> bool {
    let open = matches!(bytes.last(), Some(b'-' | b'+' | b'.' | b'e' | b'E'));
    let with_a_digit = || serde_json::from_slice::<IgnoredAny>(&[bytes, b"0"].concat());
    open && with_a_digit().is_err_and(|error| error.is_eof())
}

/// JSON as a part of a record, which is one line: white space around it goes, and line breaks (which JSON has between
/// its parts only) become spaces; all else stays byte for byte.
///
/// # Errors
/// Why it is no JSON, or nests too deeply.
pub fn one_line_json(text: &str) -> Result<Box<RawValue>, serde_json::Error> {
    // Reading it as a value is what bounds the depth, which keeping it raw would not.
    serde_json::from_str::<Value>(text)?;
    RawValue::from_string(text.trim().replace(['\n', '\r'], " "))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::protocol::request::{Answer, Request};
    use crate::protocol::status::{AgentStatus, Alert, CrewStatus};
    use crate::protocol::task::{Lock, Outcome, TaskRecord};
    use crate::protocol::update::Update;

    const OUTCOME: &str = r#"{"v":1,"task":"t","token":3,"nonce":"n","status":"done"}"#;

    #[test]
    fn each_kind_of_wrong_is_told_apart() {
        assert!(decode::<Outcome>(OUTCOME.as_bytes()).is_ok());
        let newer = OUTCOME.replace("\"v\":1", "\"v\":2");
        assert_eq!(decode::<Outcome>(newer.as_bytes()), Err(RecordError::Newer(2)));
        let newer = r#"{"v":7,"shape":"of the future"}"#;
        assert_eq!(decode::<Outcome>(newer.as_bytes()), Err(RecordError::Newer(7)));
        for cut in 0..OUTCOME.len() {
            let got = decode::<Outcome>(&OUTCOME.as_bytes()[..cut]);
            assert!(matches!(got, Err(RecordError::Incomplete(_))), "{cut}: {got:?}");
        }
        for number in ["-", "1.", "1e", "1E", "1e-", "-0.5e+"] {
            let half = format!(r#"{{"v":1,"payload":[{number}"#);
            let got = decode::<TaskRecord>(half.as_bytes());
            assert!(matches!(got, Err(RecordError::Incomplete(_))), "{half}: {got:?}");
        }
        let malformed = [
            OUTCOME.replace("\"v\":1,", ""),
            OUTCOME.replace("\"token\":3", "\"token\":3e-"),
            "{\"v\":1,\"token\":--".to_owned(),
            OUTCOME.replace("\"v\":1", "\"v\":-1"),
            OUTCOME.replace("\"v\":1", "\"v\":0"),
            OUTCOME.replace("\"v\":1", "\"v\":1,\"v\":1"),
            OUTCOME.replace("\"token\":3", "\"token\":3,\"token\":4"),
            OUTCOME.replace("\"token\":3", "\"token\":3.5"),
            OUTCOME.replace("\"task\":\"t\"", "\"task\":\"../t\""),
            OUTCOME.replace("done", "perfect"),
            format!("{OUTCOME}{OUTCOME}"),
            "null".to_owned(),
            "\0\0\0\0".to_owned(),
        ];
        for text in malformed {
            let got = decode::<Outcome>(text.as_bytes());
            assert!(matches!(got, Err(RecordError::Malformed(_))), "{text}: {got:?}");
        }
        assert!(matches!(decode::<Outcome>(b"\xff\xfe"), Err(RecordError::Malformed(_))));
    }

    #[test]
    fn deep_json_is_refused_where_it_is_read_and_kept_where_it_is_not() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let update = format!(r#"{{"v":1,"id":"u","op":"set","key":"k","value":{deep}}}"#);
        assert!(matches!(decode::<Update>(update.as_bytes()), Err(RecordError::Malformed(_))));
        let task = format!(
            r#"{{"v":1,"id":"t","nonce":"n","kind":"k","at":"2026-11-20T03:00:00Z","payload":{deep}}}"#
        );
        assert_eq!(decode::<TaskRecord>(task.as_bytes()).unwrap().payload.get(), deep);
    }

    fn decode_as_everything(bytes: &[u8]) {
        let _ = decode::<TaskRecord>(bytes);
        let _ = decode::<Lock>(bytes);
        let _ = decode::<Outcome>(bytes);
        let _ = decode::<Update>(bytes);
        let _ = decode::<Request>(bytes);
        let _ = decode::<Answer>(bytes);
        let _ = decode::<AgentStatus>(bytes);
        let _ = decode::<CrewStatus>(bytes);
        let _ = decode::<Alert>(bytes);
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            decode_as_everything(&bytes);
        }

        #[test]
        fn almost_a_record_never_panics(at in 0..OUTCOME.len(), junk in prop::collection::vec(any::<u8>(), 0..8)) {
            let mut bytes = OUTCOME.as_bytes().to_vec();
            bytes.splice(at..(at + junk.len()).min(bytes.len()), junk);
            decode_as_everything(&bytes);
        }
    }
}
