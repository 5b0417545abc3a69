//! Names and keys: the only strings from outside that ever become part of a path.
//!
//! A [`Name`] is one path segment of `[A-Za-z0-9_-]{1,64}`; a [`Key`] is one to eight of them joined
//! by `/`. Neither can hold a dot, so no name can climb out of its directory, hide itself, or meet a
//! file that nightcrew makes for its own use (those all hold a dot).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes.
pub const NAME_LEN_MAX: usize = 64;
/// The most segments in a memory key.
pub const KEY_SEGMENTS_MAX: usize = 8;

/// Why a string is no name or key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not one to 64 of the allowed characters.
    #[error("{0:?} is not a name: use 1 to 64 of A-Z a-z 0-9 _ -")]
    BadName(String),
    /// Not one to eight names joined by `/`.
    #[error("{0:?} is not a memory key: use 1 to 8 names of A-Z a-z 0-9 _ - joined by /")]
    BadKey(String),
}

/// An agent's name, a task's id, a task's kind or a run's id. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(Arc<str>);

/// The name of an agent: the stem of its file.
pub type AgentName = Name;
/// The id of a task.
pub type TaskId = Name;
/// The kind of a task, which says who handles it.
pub type Kind = Name;
/// The id of one process lifetime of an agent (a ULID).
pub type RunId = Name;

impl Name {
    /// A name made of `bytes` as hex digits, at most 32 of them.
    #[must_use]
    pub fn from_hex(bytes: &[u8]) -> Self {
        Self(super::digest::hex(&bytes[..bytes.len().min(NAME_LEN_MAX / 2)]).into())
    }

    /// A run's id: a ULID of the wall time and 80 random bits, so that ids sort by their start.
    #[must_use]
    pub fn of_run(at: super::time::Wall, random: u128) -> Self {
        let ms = u64::try_from(at.0).unwrap_or(0);
        Self(ulid::Ulid::from_parts(ms, random).to_string().into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_name(text: &str) -> bool {
    (1..=NAME_LEN_MAX).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// Shortens and cleans what is quoted in an error, so that a hostile name cannot fill a log.
fn quoted(text: &str) -> String {
    text.chars().take(80).collect()
}

impl FromStr for Name {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_name(text) { Ok(Self(text.into())) } else { Err(NameError::BadName(quoted(text))) }
    }
}

impl TryFrom<String> for Name {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0.as_ref().into()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// A key of the shared memory, such as `topics/rust`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Key(Arc<str>);

impl Key {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Key {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let whole = text.split('/').all(is_name) && text.split('/').count() <= KEY_SEGMENTS_MAX;
        if whole { Ok(Self(text.into())) } else { Err(NameError::BadKey(quoted(text))) }
    }
}

impl TryFrom<String> for Key {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<Key> for String {
    fn from(key: Key) -> Self {
        key.0.as_ref().into()
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_harmless_path_segment() {
        for good in ["a", "Writer-lite_2", &"x".repeat(64)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", ".", "..", "a.b", "a/b", "a b", "ä", "a\0", "-\n", &"x".repeat(65)] {
            assert!(bad.parse::<Name>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_is_one_to_eight_names() {
        for good in ["a", "topics/rust", "1/2/3/4/5/6/7/8"] {
            assert!(good.parse::<Key>().is_ok(), "{good}");
        }
        for bad in ["", "/", "a/", "/a", "a//b", "../a", "1/2/3/4/5/6/7/8/9"] {
            assert!(bad.parse::<Key>().is_err(), "{bad:?}");
        }
    }
}
