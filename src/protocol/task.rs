//! A task, the lock by which a run holds it, and the outcome by which the run hands it back.
//!
//! All three are one line of JSON with `v`, the task's id and its token first, so that `sed` and
//! `grep` can read them. Who writes what, and what a crash in between leaves, is told in
//! docs/protocol.md.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::name::{AgentName, Kind, Name, RunId, TaskId};
use super::process::Identity;
use super::record::VERSION;
use super::time::Wall;

/// The most attempts that a record keeps; older ones are in the ledger.
pub const ATTEMPTS_KEPT_MAX: usize = 16;
/// The longest error text kept, in bytes.
pub const ERROR_LEN_MAX: usize = 4096;

/// Where a task stands. What `tasks/ID.json` says decides whether it may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Submitted; the supervisor has not admitted it yet.
    #[default]
    New,
    /// May be claimed with the token it bears. A claimed task still says so: the lock tells the rest.
    Ready,
    /// Waits until `not_before` for another try.
    Waiting,
    /// Ended well.
    Done,
    /// Ended badly, and for good.
    Dead,
}

/// One try at a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Who tried.
    pub agent: AgentName,
    /// In which run.
    pub run: RunId,
    /// With which token.
    pub token: u64,
    /// When it ended.
    pub at: Wall,
    /// How it ended.
    pub error: String,
}

/// `tasks/new/ID.json`, `tasks/ID.json`, `tasks/done/ID.json` and `tasks/dead/ID.json`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct TaskRecord {
    /// The version of the format.
    pub v: u32,
    /// The task's id; the file's name says the same.
    pub id: TaskId,
    /// The fencing token; 0 before admission.
    #[serde(default)]
    pub token: u64,
    /// Chosen by the submitter: tells one submission of an id from another.
    pub nonce: String,
    /// What kind of task it is.
    pub kind: Kind,
    /// Where it stands.
    #[serde(default)]
    pub state: Phase,
    /// How often it failed since it was admitted.
    #[serde(default)]
    pub failures: u32,
    /// When it was submitted, by the submitter's clock.
    pub at: Wall,
    /// Who submitted it: an agent's name, or `operator`.
    #[serde(default)]
    pub by: String,
    /// Not to be tried before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Wall>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Wall>,
    /// The nonces of the claims whose outcome was accepted (a repeated outcome is dropped silently).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided: Vec<String>,
    /// The last tries that did not end well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// What the task is about: any JSON, kept byte for byte.
    pub payload: Box<RawValue>,
}

/// What a submitter's identity field says when no agent submitted.
pub const OPERATOR: &str = "operator";

impl TaskRecord {
    /// A fresh submission.
    #[must_use]
    pub fn submission(
        id: TaskId,
        nonce: String,
        kind: Kind,
        at: Wall,
        by: String,
        payload: Box<RawValue>,
    ) -> Self {
        Self {
            v: VERSION,
            id,
            token: 0,
            nonce,
            kind,
            state: Phase::New,
            failures: 0,
            at,
            by,
            not_before: None,
            ended: None,
            decided: Vec::new(),
            attempts: Vec::new(),
            payload,
        }
    }
}

/// The id of a task submitted with a key: the same kind and key give the same id, whoever submits.
#[must_use]
pub fn id_from_key(kind: &Kind, key: &str) -> TaskId {
    id_from(kind, b'k', key.as_bytes())
}

/// The id of a task submitted without a key: the same kind and payload bytes give the same id.
#[must_use]
pub fn id_from_payload(kind: &Kind, payload: &[u8]) -> TaskId {
    id_from(kind, b'p', payload)
}

/// First 16 hex digits of SHA-256 over (kind, NUL, `tag`, NUL, `content`).
fn id_from(kind: &Kind, tag: u8, content: &[u8]) -> TaskId {
    let mut hash = Sha256::new();
    hash.update(kind.as_str().as_bytes());
    hash.update([0, tag, 0]);
    hash.update(content);
    let mut text = super::digest::hex(&hash.finalize());
    text.truncate(16);
    name_of_hex(&text)
}

/// The name that 1 to 64 hex digits are.
pub(crate) fn name_of_hex(text: &str) -> Name {
    match text.parse() {
        Ok(name) => name,
        // Hex digits are name characters, and 16 of them are within the length.
        Err(_) => unreachable!("hex is a name"),
    }
}

/// `tasks/ID.lock`: the run that holds the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// The version of the format.
    pub v: u32,
    /// The task.
    pub task: TaskId,
    /// The token it was claimed with.
    pub token: u64,
    /// The claim's own random text; an outcome must name it.
    pub nonce: String,
    /// The agent that holds it; `operator` outside any run.
    pub agent: AgentName,
    /// The run that holds it; absent outside any run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The process that stands for the owner (its run's root process), once it is known.
    #[serde(flatten)]
    pub owner: Option<Identity>,
    /// When it was claimed, by the owner's clock.
    pub at: Wall,
}

/// How an owner says a task ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Done: the output, if any, is the result.
    Done,
    /// Failed: tried again until its retries are used up.
    Failed,
    /// Not now: tried again later, no failure counted.
    Retry,
    /// Handed back untouched: ready again at once.
    Released,
}

/// `tasks/outcome/AGENT/ID.TOKEN.NONCE.json`: how an owner finishes a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The version of the format.
    pub v: u32,
    /// The task.
    pub task: TaskId,
    /// The token it was claimed with.
    pub token: u64,
    /// The nonce of the lock.
    pub nonce: String,
    /// How it ended.
    pub status: Verdict,
    /// What went wrong.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// What the name of an outcome's file says: `ID.TOKEN.NONCE.json`.
#[must_use]
pub fn parse_outcome_name(file: &str) -> Option<(TaskId, u64, &str)> {
    let mut parts = file.strip_suffix(".json")?.split('.');
    let (id, token, nonce) = (parts.next()?, parts.next()?, parts.next()?);
    let whole = parts.next().is_none() && nonce.parse::<Name>().is_ok();
    if whole { Some((id.parse().ok()?, token.parse().ok()?, nonce)) } else { None }
}
