//! How shared memory changes: one operation on one value, the order of one agent's updates, and what
//! a recovery does again.

use json_patch::merge;
use serde_json::Value;

use crate::protocol::digest::sha256;
use crate::protocol::journal::{Applied, HASH_ABSENT, HASH_UNREADABLE, Line};
use crate::protocol::name::{AgentName, Name};
use crate::protocol::record::VERSION;
use crate::protocol::update::{Operation, Update, VALUE_LEN_MAX, VALUE_NESTING_MAX};

/// The most updates of one agent in one commit.
pub const BATCH_PER_AGENT_MAX: usize = 64;
/// How many ids `applied/AGENT` keeps.
///
/// Those of a commit must stay until its queue files are durably gone. A commit ends with that, and a
/// steward that starts makes the queue directories durable before anything else; so when a later
/// commit pushes ids out, those of the one before must still fit beside its own, and no more.
pub const IDS_KEPT_MAX: usize = 2 * BATCH_PER_AGENT_MAX;
/// How far a number may lie beyond the last one. No honest writer leaps; without a limit one file name
/// could use up all numbers there are.
pub const SEQ_LEAP_MAX: u64 = 1 << 32;

/// Why an update is not applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its version is not one that was ever written.
    #[error("version {0} is unknown; write \"v\":{VERSION}")]
    Version(u32),
    /// Its id is not shaped like a name.
    #[error("the id {0}")]
    Id(String),
    /// It lacks what its operation works with.
    #[error("{0} needs a value; add \"value\":…")]
    NoValue(Operation),
    /// Its number is far beyond the last one.
    #[error("the number {found} is far beyond {last}, the last one; use 1 + the highest there is")]
    Leap {
        /// The highest number before.
        last: u64,
        /// Its own.
        found: u64,
    },
    /// What it would append to is no array.
    #[error("the value is no array; set it to one first, or append under another key")]
    NotAnArray,
    /// The result would be too large.
    #[error("the value would be {len} bytes, where {VALUE_LEN_MAX} are allowed; split it over several keys")]
    TooLarge {
        /// The length it would have.
        len: usize,
    },
    /// The result would nest too deeply.
    #[error("the value would nest deeper than {VALUE_NESTING_MAX} levels; flatten it")]
    TooDeep,
    /// What is in the store cannot be worked on.
    #[error("the stored value is unusable ({0}); set it anew or delete it")]
    Unusable(String),
}

/// What the store holds under a key.
#[derive(Debug, Clone, PartialEq)]
pub enum Stored {
    /// Nothing.
    Absent,
    /// A value.
    Held {
        /// The file's content.
        bytes: Vec<u8>,
        /// The same, parsed.
        value: Value,
    },
    /// Something the steward did not write.
    Unusable {
        /// What identifies it.
        hash: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Stored {
    /// What a file's content means.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Self {
        match serde_json::from_slice(&bytes) {
            Ok(value) => Self::Held { bytes, value },
            Err(error) => Self::Unusable { hash: sha256(&bytes), reason: error.to_string() },
        }
    }

    /// What stands for a file that could not be read.
    #[must_use]
    pub fn unreadable(reason: String) -> Self {
        Self::Unusable { hash: HASH_UNREADABLE.into(), reason }
    }

    /// What the journal calls it.
    #[must_use]
    pub fn hash(&self) -> String {
        match self {
            Self::Absent => HASH_ABSENT.into(),
            Self::Held { bytes, .. } => sha256(bytes),
            Self::Unusable { hash, .. } => hash.clone(),
        }
    }
}

/// Checks what the shape of an update alone does not say.
///
/// # Errors
/// [`Refusal`], saying what to write instead.
pub fn validate(update: &Update, seq: u64, last: u64) -> Result<(), Refusal> {
    if update.v != VERSION {
        return Err(Refusal::Version(update.v));
    }
    if let Err(error) = update.id.parse::<Name>() {
        return Err(Refusal::Id(error.to_string()));
    }
    if seq > last.saturating_add(SEQ_LEAP_MAX) {
        return Err(Refusal::Leap { last, found: seq });
    }
    match (update.op, &update.value) {
        (Operation::Delete, _) | (_, Some(_)) => Ok(()),
        (op, None) => Err(Refusal::NoValue(op)),
    }
}

/// Does one operation to one value and gives the new one.
///
/// # Errors
/// [`Refusal`] if the operation does not fit the value, or the result would be too large or too deep.
pub fn apply(current: &Stored, op: Operation, operand: Option<&Value>) -> Result<Stored, Refusal> {
    let operand = || operand.ok_or(Refusal::NoValue(op));
    let value = match op {
        Operation::Delete => return Ok(Stored::Absent),
        Operation::Set => operand()?.clone(),
        Operation::Merge => {
            let mut value = held(current)?.cloned().unwrap_or(Value::Null);
            merge(&mut value, operand()?);
            value
        }
        Operation::Append => match held(current)? {
            None => Value::Array(vec![operand()?.clone()]),
            Some(Value::Array(items)) => {
                let mut items = items.clone();
                items.push(operand()?.clone());
                Value::Array(items)
            }
            Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Object(_)) => {
                return Err(Refusal::NotAnArray);
            }
        },
    };
    if nests_deeper(&value, VALUE_NESTING_MAX) {
        return Err(Refusal::TooDeep);
    }
    let mut bytes = value.to_string().into_bytes();
    if bytes.len() > VALUE_LEN_MAX {
        return Err(Refusal::TooLarge { len: bytes.len() });
    }
    bytes.push(b'\n');
    Ok(Stored::Held { bytes, value })
}

fn held(current: &Stored) -> Result<Option<&Value>, Refusal> {
    match current {
        Stored::Absent => Ok(None),
        Stored::Held { value, .. } => Ok(Some(value)),
        Stored::Unusable { reason, .. } => Err(Refusal::Unusable(reason.clone())),
    }
}

/// True if `value` has more than `levels` levels of arrays and objects. Recurses no deeper than that.
fn nests_deeper(value: &Value, levels: usize) -> bool {
    let deeper = |child| levels == 0 || nests_deeper(child, levels - 1);
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
        Value::Array(items) => levels == 0 || items.iter().any(deeper),
        Value::Object(members) => levels == 0 || members.values().any(deeper),
    }
}

/// True if the update with this id is applied already.
#[must_use]
pub fn knows(applied: &Applied, id: &str) -> bool {
    applied.ids.iter().any(|known| known == id)
}

/// Counts one more update in: its number, and its id if it was applied rather than rejected.
pub fn raise(applied: &mut Applied, seq: u64, id: Option<&str>) {
    applied.seq = applied.seq.max(seq);
    if let Some(id) = id {
        applied.ids.push(id.into());
    }
    let surplus = applied.ids.len().saturating_sub(IDS_KEPT_MAX);
    applied.ids.drain(..surplus);
}

/// The number that should have come, if `found` leaves a hole after `last`. A lower number than `last`
/// is none: a writer that was overtaken took it, and it is applied when it is found.
#[must_use]
pub fn gap(last: u64, found: u64) -> Option<u64> {
    let expected = last.saturating_add(1);
    (found > expected).then_some(expected)
}

/// In which order agents are served: in the order of their names, beginning after the one served last.
#[must_use]
pub fn rotation(mut agents: Vec<AgentName>, last_served: Option<&AgentName>) -> Vec<AgentName> {
    agents.sort();
    let begin = last_served.map_or(0, |last| agents.partition_point(|agent| agent <= last));
    agents.rotate_left(begin);
    agents
}

/// The lines of the journal's last commit, given its last lines. Each earlier commit was finished
/// before a later one was begun, so the last is all that can be undone.
#[must_use]
pub fn last_commit(lines: &[Line]) -> &[Line] {
    let len = lines.iter().rev().enumerate().take_while(|(place, line)| line.left == *place).count();
    &lines[lines.len() - len..]
}

/// Does again what of a key's lines in the last commit the store does not show; `None` if nothing.
///
/// `lines` must be *all* lines of that key in that commit, also those of agents whose `applied` is
/// raised. They are one chain, and the store shows its first `before` or its last `after`. Where a value
/// went there and back the two are equal, and a chain with a link left out would stop half way; the
/// whole one ends where it ended.
#[must_use]
pub fn redo(current: &Stored, lines: &[&Line]) -> Option<Stored> {
    let mut redone: Option<Stored> = None;
    for line in lines {
        let now = redone.as_ref().unwrap_or(current);
        if now.hash() != line.before && !mutant!(RedoneUnlooked) {
            continue;
        }
        match apply(now, line.op, line.value.as_ref()) {
            Ok(next) if next.hash() == line.after || mutant!(RedoneUnlooked) => redone = Some(next),
            Ok(_) | Err(_) => {}
        }
    }
    redone
}

#[cfg(test)]
mod tests;
