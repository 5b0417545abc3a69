//! All that can happen to the machine, on one screen.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use crate::protocol::layout::Shelf;
use crate::protocol::ledger::{again_at, done_until};
use crate::protocol::manifest::Manifest;
use crate::protocol::name::{AgentName, Kind, Name, RunId, TaskId};
use crate::protocol::process::{Ending, Identity};
use crate::protocol::request::Request;
use crate::protocol::status::Refusal;
use crate::protocol::task::{Lock, Made, Outcome, Phase, Wishes};
use crate::protocol::time::Wall;
use crate::protocol::trigger::TriggerRecord;

use super::timetable::Timetable;

/// An agent's file and manifest, found fit to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Version {
    /// The file, relative to the crew.
    pub file: String,
    /// What tells this version from the next.
    pub digest: String,
    /// What it declares.
    pub manifest: Manifest,
    /// When its schedule fires, if it has one.
    pub table: Option<Timetable>,
}

/// What is known on disk of an id that was submitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Where its record lies.
    pub shelf: Shelf,
    /// The nonce of the submission that it records.
    pub nonce: String,
    /// The token that it ended with.
    pub token: u64,
    /// Done, it keeps others of its id out until then; as long as its record is kept, if absent.
    pub unique_until: Option<Wall>,
}

/// What is known on disk of a task that another one needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// It is done.
    Done,
    /// It is a dead letter.
    Dead,
    /// It has not ended, or is not known yet.
    Open,
}

/// A submission, read and found whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// The task's id.
    pub id: TaskId,
    /// What tells this submission of the id from another.
    pub nonce: String,
    /// The kind.
    pub kind: Kind,
    /// Who submitted it.
    pub by: String,
    /// When.
    pub at: Wall,
    /// What it is to be done by.
    pub wishes: Wishes,
    /// What is known of each task that it needs.
    pub needs: Vec<(TaskId, Need)>,
    /// The token of a record that was admitted before, and was moved back to be replayed.
    pub replayed: Option<u64>,
    /// The record of the same id that ended, if one lies on a shelf.
    pub ended: Option<Ended>,
    /// The token that the ledger told of for this very submission, if a crash came before its record.
    pub told: Option<u64>,
}

/// A task that an earlier supervisor had admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The task's id.
    pub id: TaskId,
    /// Its kind.
    pub kind: Kind,
    /// Its submission's nonce.
    pub nonce: String,
    /// Its token.
    pub token: u64,
    /// Its phase.
    pub phase: Phase,
    /// When it was submitted.
    pub at: Wall,
    /// How often it failed.
    pub failures: u32,
    /// How often it was put off without a failure.
    pub deferrals: u32,
    /// How often an owner died holding it.
    pub deaths: u32,
    /// What it is to be done by.
    pub wishes: Wishes,
    /// What is known of each task that it needs.
    pub needs: Vec<(TaskId, Need)>,
    /// Its result, where that is to be judged.
    pub made: Option<Made>,
    /// An outcome that the ledger accepted, but that the record does not show yet.
    pub accepted: Option<Accepted>,
    /// What was handed in for it, and lies there; judged before the task is given to anyone.
    pub handed_in: Vec<HandedIn>,
    /// Its lock, if anything was handed in and it has one.
    pub lock: Option<Result<Lock, String>>,
}

/// An outcome that the ledger tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// Whose.
    pub agent: AgentName,
    /// What it says.
    pub outcome: Outcome,
    /// What followed from it.
    pub next: Next,
}

/// What follows for a task from the end of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// It is done; until then, if that is given, it keeps others of its id out.
    Done(Option<Wall>),
    /// Its result is to be judged.
    Gated(Made),
    /// It is tried again, not before this.
    Again(Wall),
    /// It may be claimed again at once.
    Ready,
    /// It is a dead letter.
    Dead,
}

impl Next {
    /// Reads what the ledger tells of an outcome of this agent and claim; what it does not know is tried again.
    #[must_use]
    pub fn parse(text: &str, agent: &AgentName, nonce: &str) -> Self {
        let gated = |rest: &str| {
            let (gate, then) =
                rest.split_once(", then ").map_or((rest, None), |(gate, then)| (gate, Some(then)));
            let then = then.map(str::parse).transpose().ok()?;
            let (agent, nonce) = (agent.clone(), nonce.to_owned());
            Some(Self::Gated(Made { agent, nonce, gate: gate.parse().ok()?, then }))
        };
        match text {
            "done" => Self::Done(None),
            "dead" => Self::Dead,
            _ => (text.strip_prefix("gate ").and_then(gated))
                .or_else(|| done_until(text).map(|until| Self::Done(Some(until))))
                .or_else(|| again_at(text).map(Self::Again))
                .unwrap_or(Self::Ready),
        }
    }
}

/// An outcome that was handed in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HandedIn {
    /// Whose directory it lay in.
    pub agent: AgentName,
    /// What it says.
    pub outcome: Outcome,
    /// True if its nonce is already named as decided, in the task's record wherever that lies.
    pub decided: bool,
    /// What its owner printed last, if that is a handler, still runs, and tells that it failed.
    pub words: String,
}

/// What can happen.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A version of an agent was found that can run.
    Offered(AgentName, Arc<Version>),
    /// An agent's file cannot or must not run as it is now.
    AgentRefused(AgentName, Refusal),
    /// An agent's file is gone.
    AgentGone(AgentName),
    /// All files in `agents/` were looked at and told of: whoever is not known has none.
    AgentsLooked,
    /// A service's version that ended well under an earlier supervisor (its digest).
    FinishedBefore(AgentName, String),
    /// The kill switch is set, with its reason, or not.
    HaltSeen(Option<String>),
    /// Which agents an operator stopped, with the reasons.
    StoppedSeen(BTreeMap<AgentName, String>),
    /// A command asks for something.
    Asked(Request),
    /// A request that is being carried out is not there any more: nobody waits for its answer.
    Withdrawn(Name),
    /// A command asks to decide about a task in review: the task, if it is there.
    Reviewed(Request, Option<Box<Found>>),

    /// A task of an earlier supervisor.
    TaskFound(Box<Found>),
    /// A task counted as open, because it could not be told, and is found to have ended: where it lies.
    EndedBefore(TaskId, Shelf),
    /// What an earlier supervisor decided about a job's schedule.
    TriggerFound(AgentName, TriggerRecord),
    /// Files that a job watches are others than those that it has handled.
    FilesChanged(AgentName),
    /// They are the same again.
    FilesSettled(AgentName),
    /// Tasks are on their way to be submitted.
    Submitting,
    /// A submission.
    Submitted(Submission),
    /// A lock was seen: what it says, or why it cannot be read.
    LockSeen(TaskId, Result<Lock, String>),
    /// An outcome was seen.
    OutcomeSeen(HandedIn),
    /// All outcomes on disk for this task were reported; there are no more.
    OutcomesLooked(TaskId),
    /// The outcomes on disk for this task cannot be looked at; that is tried again, unless the crew drains.
    OutcomesUnseen(TaskId),
    /// A handler's lock or payload could not be laid out: no process was made.
    DispatchFailed(RunId, String),
    /// A task's record is gone from the disk, or is no record any more.
    TaskLost(TaskId, String),

    /// A process of an earlier supervisor runs on.
    SurvivorFound(RunId, AgentName, Identity),
    /// A run's root process was started.
    Spawned(RunId, Identity),
    /// It could not be.
    SpawnFailed {
        /// The run.
        run: RunId,
        /// Why.
        error: String,
        /// True if the file is being written at this moment.
        busy: bool,
    },
    /// A run's root process ended.
    Exited(RunId, Ending),
    /// Nothing of the run is left; what had to be killed beside the root, and what it printed last where
    /// [`wants_words`](super::State::wants_words).
    TreeGone(RunId, Vec<String>, String),
    /// Something of the run does not die.
    TreeStuck(RunId, Vec<String>),
    /// What a run that seems to hang looks like.
    EvidenceSeen(RunId, Value),

    /// A run's heartbeat changed.
    Beat(RunId),
    /// A run printed something.
    Printed(RunId),
    /// The lock of a task was renewed by its owner.
    Renewed(TaskId),
    /// The watchdog looked at everything once; true if it would have seen a beat.
    Round(bool),
    /// A tree's memory, in bytes.
    Memory {
        /// The run.
        run: RunId,
        /// How much: an upper bound, if it is not exact.
        bytes: u64,
        /// True if it was measured exactly (PSS).
        exact: bool,
    },

    /// What a ticket stood for is durable.
    Stored(u64),
    /// It is not, and why.
    NotStored(u64, String),
    /// Whether the disk is full: what waits is stored once there is room again.
    StoreFull(bool),
    /// The store failed for good: nothing more is acknowledged.
    StoreBroken(String),
    /// Whether updates of memory wait to be applied.
    MemoryQueue {
        /// True if none waits.
        empty: bool,
    },

    /// TERM or INT.
    StopAsked(String),
    /// Time passed.
    Tick,
}
