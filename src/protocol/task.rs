//! A task, the lock by which a run holds it, and the outcome by which the run hands it back.
//!
//! All three are one line of JSON with `v`, the task's id and its token first, so that `sed` and
//! `grep` can read them. Who writes what, and what a crash in between leaves, is told in
//! docs/protocol.md.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::layout::parse_claim_name;
use super::name::{AgentName, Kind, Name, RunId, TaskId};
use super::process::Identity;
use super::record::VERSION;
use super::schedule::SlotId;
use super::time::Wall;

/// The most attempts that a record keeps; older ones are in the ledger.
pub const ATTEMPTS_KEPT_MAX: usize = 16;
/// No owner can put its task off for longer than this: 7 days.
pub const RETRY_AFTER_MS_MAX: u64 = 7 * 86_400_000;
/// The longest error text kept, in bytes.
pub const ERROR_LEN_MAX: usize = 4096;
/// How much of what a try printed last is kept, in bytes.
pub const OUTPUT_KEPT_LEN_MAX: usize = 4096;
/// The most tasks that one may need.
pub const NEEDS_MAX: usize = 256;

/// Where a task stands. What `tasks/ID.json` says decides whether it may be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Submitted; the supervisor has not admitted it yet.
    #[default]
    New,
    /// May be claimed with the token it bears. A claimed task still says so: the lock tells the rest.
    Ready,
    /// Waits until `not_before` for its first or another try.
    Waiting,
    /// Waits for the tasks that it needs.
    Blocked,
    /// Done by its owner; its gate is to judge the result.
    Gated,
    /// Its gate did not pass the result: a person is to decide.
    Review,
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
    /// In which run; none outside any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// With which token.
    pub token: u64,
    /// When it began, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub began: Option<Wall>,
    /// When it ended.
    pub at: Wall,
    /// How it ended: the exit or signal, or what its owner said.
    pub error: String,
    /// The last that its process printed, at most [`OUTPUT_KEPT_LEN_MAX`] bytes, fit for a screen.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub output: String,
    /// The most memory that its processes were seen to take together, in bytes, where that is measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peak_memory: Option<u64>,
}

/// A result that is to be judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// By whom it was made.
    pub agent: AgentName,
    /// In which claim: its nonce.
    pub nonce: String,
    /// Which gate is to judge it: `gates/NAME`.
    pub gate: Name,
    /// The kind of task that it is handed on as, once it has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Kind>,
}

/// What becomes of a task whose need is a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnDead {
    /// It becomes a dead letter itself.
    #[default]
    Fail,
    /// It runs nevertheless, once all its needs have ended.
    Run,
}

impl OnDead {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What a submitter asks beside kind and payload.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Wishes {
    /// Among what is ready, the higher goes first, and among equals the older.
    #[serde(default, skip_serializing_if = "is_nought")]
    pub priority: i8,
    /// Not to be tried before this.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Wall>,
    /// No try of it begins after this: then it is a dead letter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<Wall>,
    /// What it belongs to, for lists and cancelling.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// The tasks that must have ended before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<TaskId>,
    /// What becomes of it if one of them is a dead letter.
    #[serde(default, skip_serializing_if = "OnDead::is_default")]
    pub on_dead: OnDead,
}

impl Wishes {
    /// Has it tried although it expired before `now`: for one that is asked for once more. Gives when that was.
    pub fn no_longer_expires(&mut self, now: Wall) -> Option<Wall> {
        self.expires.take_if(|at| *at <= now)
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_nought(priority: &i8) -> bool {
    *priority == 0
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
    /// How often it was put off without a failure.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deferrals: u32,
    /// How often an owner of it died without a word, through no fault of the host or the supervisor.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub deaths: u32,
    /// How often it was replayed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub replays: u32,
    /// When it was submitted, by the submitter's clock.
    pub at: Wall,
    /// Who submitted it: an agent's name, or `operator`.
    #[serde(default)]
    pub by: String,
    /// The slot of its job that it is the firing of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
    /// What its submitter asked for; of `not_before`, what holds by now.
    #[serde(flatten)]
    pub wishes: Wishes,
    /// Who made its result, while that is judged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<Made>,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Wall>,
    /// Done, it keeps others of its id out until then; as long as its record is kept, if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique_until: Option<Wall>,
    /// Why it is a dead letter, or to be reviewed: the gate's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The nonces of the claims whose outcome was accepted (a repeated outcome is dropped silently).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub decided: Vec<String>,
    /// The last tries that did not end well.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// What the task is about: any JSON, kept byte for byte.
    pub payload: Box<RawValue>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(count: &u32) -> bool {
    *count == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_not(flag: &bool) -> bool {
    !*flag
}

/// What a submitter's identity field says when no agent submitted.
pub const OPERATOR: &str = "operator";
/// What it says of changed files that a job is given.
pub const WATCH: &str = "watch";
/// What it says of a slot that was fired.
pub const SCHEDULE: &str = "schedule";

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
        wishes: Wishes,
    ) -> Self {
        Self {
            v: VERSION,
            id,
            token: 0,
            nonce,
            kind,
            state: Phase::New,
            failures: 0,
            deferrals: 0,
            deaths: 0,
            replays: 0,
            at,
            by,
            slot: None,
            wishes,
            made: None,
            ended: None,
            unique_until: None,
            reason: None,
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
    Name::from_hex(&hash.finalize()[..8])
}

/// `tasks/ID.lock`: the run that holds the task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "LockLine")]
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

/// A lock as it stands in its file. A flattened `Option` would take a process that is told in part, or
/// wrongly, for none at all, and the lock for one that nobody can be asked about.
#[derive(Deserialize)]
struct LockLine {
    v: u32,
    task: TaskId,
    token: u64,
    nonce: String,
    agent: AgentName,
    #[serde(default)]
    run: Option<RunId>,
    #[serde(default)]
    pid: Option<u32>,
    #[serde(default)]
    start: Option<u64>,
    #[serde(default)]
    boot: Option<String>,
    #[serde(default)]
    ns: Option<u64>,
    at: Wall,
}

impl TryFrom<LockLine> for Lock {
    type Error = &'static str;
    fn try_from(line: LockLine) -> Result<Self, Self::Error> {
        let owner = match (line.pid, line.start, line.boot, line.ns) {
            (None, None, None, None) => None,
            (Some(pid), Some(start), Some(boot), Some(ns)) => Some(Identity { pid, start, boot, ns }),
            _ => return Err("a process is told by pid, start, boot and ns together, or not at all"),
        };
        let LockLine { v, task, token, nonce, agent, run, at, .. } = line;
        // The names of files are made of it.
        nonce.parse::<Name>().map_err(|_| "its nonce is no name: 1 to 64 of A-Z a-z 0-9 _ -")?;
        Ok(Self { v, task, token, nonce, agent, run, owner, at })
    }
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
    /// With [`Verdict::Failed`]: trying again will not help.
    #[serde(default, skip_serializing_if = "is_not")]
    pub permanent: bool,
    /// With [`Verdict::Failed`] and [`Verdict::Retry`]: the next try is no sooner than so many milliseconds from when
    /// this is accepted, and no sooner than it would be without; [`RETRY_AFTER_MS_MAX`] is as long as any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
}

impl Outcome {
    /// The outcome of the claim that bears this token and nonce.
    #[must_use]
    pub fn new(task: TaskId, token: u64, nonce: String, status: Verdict, error: Option<String>) -> Self {
        Self { v: VERSION, task, token, nonce, status, error, permanent: false, retry_after_ms: None }
    }

    /// True if it says that the try did not end well.
    #[must_use]
    pub fn tells_of_failure(&self) -> bool {
        match self.status {
            Verdict::Failed | Verdict::Retry => true,
            Verdict::Done | Verdict::Released => false,
        }
    }
}

/// What the name of an outcome's file says: `ID.TOKEN.NONCE.json`; `None` for any other name.
#[must_use]
pub fn parse_outcome_name(file: &str) -> Option<(TaskId, u64, &str)> {
    parse_claim_name(file.strip_suffix(".json")?)
}

#[cfg(test)]
mod tests;
