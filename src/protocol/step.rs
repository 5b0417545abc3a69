//! A step: `NAME[.HASH].step`, one line of JSON and, right behind it, what the step printed, byte for byte.
//!
//! Both are one file so that one rename publishes them: there is no record without its output. The line tells the
//! output's length and SHA-256, and whatever does not agree with them is believed in nothing.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::digest::{hex, sha256};
use super::name::{Name, TaskId};
use super::record::{self, RecordError, SMALL_LEN_MAX, VERSION, cut};
use super::time::Wall;

/// The longest output of a step, in bytes.
pub const RESULT_LEN_MAX: u64 = 16 * 1024 * 1024;
/// The longest file of a step, in bytes.
pub const FILE_LEN_MAX: u64 = SMALL_LEN_MAX + RESULT_LEN_MAX;
/// How much of a key the record repeats for people, in bytes.
pub const KEY_SHOWN_LEN_MAX: usize = 200;
/// How much of a hash a file's name bears, in bytes: it is nobody's enemy, only to be met by no other.
const HASH_LEN: usize = 16;

/// Which step it is: what it is recorded under, and looked up by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct StepId {
    /// The task it belongs to; none for one that all tasks share.
    pub task: Option<TaskId>,
    /// The step's name.
    pub name: Name,
    /// What else tells it from others of its name: [`hash_of`].
    pub hash: Option<Name>,
}

/// What tells steps of one name apart.
#[derive(Debug, Clone, Copy)]
pub enum KeyOf<'a> {
    /// Nothing.
    Name,
    /// A text of the caller's choice.
    Text(&'a str),
    /// The command and its arguments.
    Command(&'a [OsString]),
}

/// The first 32 hex digits of SHA-256 over a tag and what it announces, each part ended by NUL (which no argument
/// holds), so that no two keys are written alike; `None` where the name alone tells:
///
/// | | without input | with input |
/// |---|---|---|
/// | name | – | `i` INPUT |
/// | text | `k` TEXT | `ki` INPUT TEXT |
/// | command | `a` ARG… | `ai` INPUT ARG… |
///
/// INPUT is the SHA-256 of what is on standard input, as hex digits.
#[must_use]
pub fn hash_of(key: KeyOf<'_>, input: Option<&[u8]>) -> Option<Name> {
    let (tag, parts): (&str, Vec<&[u8]>) = match key {
        KeyOf::Name => ("", Vec::new()),
        KeyOf::Text(text) => ("k", vec![text.as_bytes()]),
        KeyOf::Command(argv) => ("a", argv.iter().map(|arg| arg.as_encoded_bytes()).collect()),
    };
    let input = input.map(sha256);
    if tag.is_empty() && input.is_none() {
        return None;
    }
    let mut hash = Sha256::new();
    let mut part = |bytes: &[u8]| {
        hash.update(bytes);
        hash.update([0]);
    };
    match &input {
        Some(input) => {
            part(format!("{tag}i").as_bytes());
            part(input.as_bytes());
        }
        None => part(tag.as_bytes()),
    }
    parts.into_iter().for_each(part);
    Some(Name::from_hex(&hash.finalize()[..HASH_LEN]))
}

/// How far a step has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Progress {
    /// Its command was started, or was about to be; whether it did what it does is not known.
    Begun,
    /// Its command ended well.
    Done {
        /// The length of what it printed.
        bytes: u64,
        /// The SHA-256 of what it printed, as hex digits.
        sha256: String,
    },
}

/// The line that a step's file begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The version of the format.
    pub v: u32,
    /// The task; absent for a step that all share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The step's name.
    pub step: Name,
    /// The hash in the file's name, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<Name>,
    /// How the key begins, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// How far it has come.
    #[serde(flatten)]
    pub state: Progress,
    /// When it was begun or done, by the caller's clock.
    pub at: Wall,
}

/// Why a file is not the step it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StepDamage {
    /// Its line cannot be read.
    #[error("its line: {0}")]
    Line(#[from] RecordError),
    /// It is another step's.
    #[error("it is the record of another step")]
    Other,
    /// The output is not as long as the line says.
    #[error("its output has {found} bytes, where {told} are told")]
    Length {
        /// The bytes that are there.
        found: u64,
        /// The bytes that should be there.
        told: u64,
    },
    /// The output is not what the line says.
    #[error("its output was changed: it has another SHA-256 than is told")]
    Changed,
}

impl StepRecord {
    fn new(id: &StepId, key: Option<&str>, state: Progress, at: Wall) -> Self {
        Self {
            v: VERSION,
            task: id.task.clone(),
            step: id.name.clone(),
            hash: id.hash.clone(),
            key: key.map(|key| cut(key, KEY_SHOWN_LEN_MAX).to_owned()),
            state,
            at,
        }
    }

    /// Which step the record says that it is of.
    #[must_use]
    pub fn id(&self) -> StepId {
        StepId { task: self.task.clone(), name: self.step.clone(), hash: self.hash.clone() }
    }
}

/// The file of a step that is about to be done.
#[must_use]
pub fn encode_begun(id: &StepId, key: Option<&str>, at: Wall) -> Vec<u8> {
    record::encode(&StepRecord::new(id, key, Progress::Begun, at))
}

/// The file of a step that is done.
#[must_use]
pub fn encode_done(id: &StepId, key: Option<&str>, output: &[u8], at: Wall) -> Vec<u8> {
    let state = Progress::Done { bytes: output.len() as u64, sha256: sha256(output) };
    let mut file = record::encode(&StepRecord::new(id, key, state, at));
    file.extend_from_slice(output);
    file
}

/// Reads the line of a step's file, whatever stands behind it.
///
/// # Errors
/// [`RecordError`]
pub fn decode_line(file: &[u8]) -> Result<(StepRecord, &[u8]), RecordError> {
    let Some(end) = file.iter().position(|byte| *byte == b'\n') else {
        // A version that is newer is told as such even here.
        record::decode::<StepRecord>(file)?;
        return Err(RecordError::Incomplete("its line has no end".into()));
    };
    Ok((record::decode(&file[..end])?, &file[end + 1..]))
}

/// Reads the file of the step `id`: its record and, once it is done, its output.
///
/// # Errors
/// [`StepDamage`]: then nothing of it is to be believed.
pub fn decode<'a>(file: &'a [u8], id: &StepId) -> Result<(StepRecord, &'a [u8]), StepDamage> {
    let (record, output) = decode_line(file)?;
    if record.id() != *id {
        return Err(StepDamage::Other);
    }
    let found = output.len() as u64;
    let (told, sum) = match &record.state {
        Progress::Begun => (0, None),
        Progress::Done { bytes, sha256 } => (*bytes, Some(sha256)),
    };
    if found != told {
        return Err(StepDamage::Length { found, told });
    }
    if sum.is_some_and(|sum| *sum != hex(&Sha256::digest(output))) {
        return Err(StepDamage::Changed);
    }
    Ok((record, output))
}

/// True if what was recorded `at` is as old as `ttl_ms`. Only the wall clock outlives a boot; a record from the
/// future was made before the clock was set back, and counts as new.
#[must_use]
pub fn is_expired(at: Wall, ttl_ms: u64, now: Wall) -> bool {
    u64::try_from(now.0.saturating_sub(at.0)).is_ok_and(|age| age >= ttl_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(task: Option<&str>, hash: Option<&str>) -> StepId {
        let name = |text: &str| text.parse().unwrap();
        StepId { task: task.map(name), name: name("fetch"), hash: hash.map(name) }
    }

    #[test]
    fn a_step_is_a_line_and_its_output_behind_it() {
        let bare = id(Some("t"), None);
        let begun = r#"{"v":1,"task":"t","step":"fetch","state":"begun","at":"1970-01-01T00:00:00.000Z"}"#;
        assert_eq!(encode_begun(&bare, None, Wall(0)), format!("{begun}\n").into_bytes());
        let shared = id(None, Some("ab"));
        let file = encode_done(&shared, Some("k"), b"\0\n\xff", Wall(0));
        let line = r#"{"v":1,"step":"fetch","hash":"ab","key":"k","state":"done","bytes":3,"sha256":"a0956176ad28cadf4a54b314f9fcd6143d7007957454286ff24580445304b558","at":"1970-01-01T00:00:00.000Z"}"#;
        assert_eq!(file, [line.as_bytes(), b"\n\0\n\xff"].concat());
        let (record, output) = decode(&file, &shared).unwrap();
        assert_eq!((record.id(), output), (shared, b"\0\n\xff".as_slice()));
        assert_eq!(decode(&encode_begun(&bare, None, Wall(0)), &bare).unwrap().0.state, Progress::Begun);
    }

    #[test]
    fn no_part_of_a_step_and_no_changed_bit_of_its_output_is_believed() {
        let id = id(Some("t"), Some("ab"));
        let file = encode_done(&id, Some("a key"), b"paid for", Wall(0));
        for len in 0..file.len() {
            assert!(decode(&file[..len], &id).is_err(), "{len} bytes of it");
        }
        let output_at = file.len() - b"paid for".len();
        for at in 0..file.len() {
            for bit in 0..8 {
                let mut changed = file.clone();
                changed[at] ^= 1 << bit;
                // What people read, its time and the key, may change; nothing of what is printed may.
                if let Ok((_, output)) = decode(&changed, &id) {
                    assert!(at < output_at && output == b"paid for", "byte {at}, bit {bit}");
                }
            }
        }
        assert!(matches!(decode(&[&file[..], b"\n"].concat(), &id), Err(StepDamage::Length { .. })));
        assert!(decode(&[0; 4096], &id).is_err(), "a hole");
    }

    #[test]
    fn another_steps_record_and_a_newer_one_are_told_apart() {
        let ours = id(Some("t"), None);
        for other in [id(Some("u"), None), id(None, None), id(Some("t"), Some("ab"))] {
            assert_eq!(decode(&encode_begun(&other, None, Wall(0)), &ours), Err(StepDamage::Other));
        }
        let newer = Err(StepDamage::Line(RecordError::Newer(2)));
        assert_eq!(decode(b"{\"v\":2,\"shape\":\"of the future\"}\nx", &ours), newer);
        assert_eq!(decode(b"{\"v\":2,\"shape\":\"of the future\"}", &ours), newer);
    }

    #[test]
    fn keys_that_differ_in_anything_have_hashes_that_do() {
        let argv = |args: &[&str]| args.iter().map(OsString::from).collect::<Vec<_>>();
        let (ab, a_b, empty) = (argv(&["ab"]), argv(&["a", "b"]), argv(&["ab", ""]));
        let mut all = vec![hash_of(KeyOf::Name, None)];
        for input in [None, Some(b"".as_slice()), Some(b"x".as_slice())] {
            for key in [
                KeyOf::Text(""),
                KeyOf::Text("ab"),
                KeyOf::Command(&ab),
                KeyOf::Command(&a_b),
                KeyOf::Command(&empty),
            ] {
                all.push(hash_of(key, input));
            }
        }
        all.push(hash_of(KeyOf::Name, Some(b"")));
        all.push(hash_of(KeyOf::Name, Some(b"x")));
        let count = all.len();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), count);
        // The same as `printf 'k\0key\0' | sha256sum | cut -c 1-32`.
        let key = hash_of(KeyOf::Text("key"), None).unwrap();
        assert_eq!(key.as_str(), "5f0cd6bc592b874e6a7a0e0edaba570a");
    }

    #[test]
    fn a_long_key_is_told_in_part() {
        let file = encode_begun(&id(None, Some("ab")), Some(&"é".repeat(100_000)), Wall(0));
        assert!(file.len() < 1000);
    }

    #[test]
    fn what_is_old_is_expired_and_what_is_from_the_future_is_not() {
        for (at, ttl, now, expired) in [
            (0, 10, 9, false),
            (0, 10, 10, true),
            (20, 10, 10, false),
            (0, 0, 0, true),
            (i64::MIN, 1, 0, true),
        ] {
            assert_eq!(is_expired(Wall(at), ttl, Wall(now)), expired, "{at} {ttl} {now}");
        }
    }
}
