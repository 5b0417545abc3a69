//! What the ledger records: one [`Entry`] a line, framed by [`super::framing`].

use serde::{Deserialize, Serialize};

use super::name::{AgentName, Key, Kind, RunId, TaskId};
use super::process::{Ending, Identity};
use super::time::Wall;

/// One line of the ledger, without its frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was decided, by the supervisor's wall clock.
    pub at: Wall,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// All that can happen, on one screen. The tag is the line's `event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "a field says what it is: who, which, why")]
pub enum Fact {
    /// A supervisor took the crew.
    SupervisorStarted { pid: u32, version: String },
    /// A supervisor gave the crew up in good order.
    SupervisorStopped { why: String },
    /// The loop stood still (machine paused, supervisor stopped): deadlines moved by so much.
    SupervisorPaused { gap_ms: u64 },
    /// A signal, a kill switch or a command changed what may run.
    Control { what: String, why: String },

    /// A process of an agent runs.
    Started {
        agent: AgentName,
        run: RunId,
        process: Identity,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
    },
    /// A process could not be started.
    StartFailed { agent: AgentName, run: RunId, error: String },
    /// A run's root process ended.
    Exited { agent: AgentName, run: RunId, ending: Ending, lived_ms: u64, why: String },
    /// What a run left behind at its exit was killed.
    RemnantsKilled { agent: AgentName, run: RunId, processes: Vec<String> },
    /// A run was told to stop, or its tree was killed.
    Killed { agent: AgentName, run: RunId, how: String, why: String },
    /// A tree could not be proved gone in time.
    Unkillable { agent: AgentName, run: RunId, processes: Vec<String> },
    /// A run missed its heartbeats and is withheld; the evidence is what was seen of it.
    Isolated { agent: AgentName, run: RunId, why: String, evidence: serde_json::Value },
    /// It beat again.
    Reinstated { agent: AgentName, run: RunId },
    /// An agent keeps failing: the next try is at `next`.
    Failing { agent: AgentName, failures: u32, next: Wall },
    /// A file in `agents/` cannot or must not run.
    Refused { file: String, reason: String, remedy: String },
    /// An agent is new, or a new version of it counts from now on.
    Accepted { agent: AgentName, digest: String },
    /// An agent's file is gone.
    Removed { agent: AgentName },

    /// A task was admitted.
    Submitted { task: TaskId, kind: Kind, token: u64, by: String },
    /// A submission repeats an id that is known.
    Duplicate { task: TaskId, of: String },
    /// A task that had ended was submitted again, by moving its record.
    Replayed { task: TaskId, kind: Kind, token: u64 },
    /// Something an agent or operator handed in was refused.
    Rejected { what: String, name: String, reason: String },
    /// A run holds a task.
    Claimed {
        task: TaskId,
        token: u64,
        agent: AgentName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
    },
    /// An outcome was accepted.
    Outcome {
        task: TaskId,
        token: u64,
        nonce: String,
        agent: AgentName,
        status: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        next: String,
    },
    /// An outcome came too late, or bears a claim that is not the task's.
    OutcomeRefused { task: TaskId, token: u64, agent: AgentName, reason: String },
    /// A lock was taken away from its owner.
    Vacated { task: TaskId, token: u64, next_token: u64, agent: AgentName, why: String },

    /// The steward applied an update.
    Updated {
        agent: AgentName,
        /// Named so in the file because `seq` is the line's own.
        #[serde(rename = "update")]
        seq: u64,
        id: String,
        op: String,
        key: Key,
    },
    /// The steward refused an update.
    UpdateRejected {
        agent: AgentName,
        #[serde(rename = "update")]
        seq: u64,
        reason: String,
    },
    /// The order of an agent's updates has a hole that did not fill.
    UpdateGap { agent: AgentName, expected: u64, found: u64 },

    /// An incident that a person should know of; the whole of it is in `alerts/`.
    Alert { key: String, text: String },
}
