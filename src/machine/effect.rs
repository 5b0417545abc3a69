//! All that the machine can want done, on one screen.

use crate::protocol::layout::Shelf;
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Kind, Name, RunId, TaskId};
use crate::protocol::process::Identity;
use crate::protocol::task::{Attempt, Lock, Phase};
use crate::protocol::time::Wall;

/// A change of a task's record, durable before anything that depends on it.
#[derive(Debug, Clone, PartialEq)]
pub struct RecordChange {
    /// The task.
    pub task: TaskId,
    /// Its token from now on.
    pub token: u64,
    /// Its phase from now on.
    pub phase: Phase,
    /// Its failures from now on.
    pub failures: u32,
    /// How often it was put off without a failure, from now on.
    pub deferrals: u32,
    /// Not to be tried before this.
    pub not_before: Option<Wall>,
    /// The claim that this decides.
    pub decided: Option<String>,
    /// The try that ended badly.
    pub attempt: Option<Attempt>,
    /// The output to keep as the result: whose, and under which token.
    pub output: Option<(AgentName, u64)>,
    /// What to record with it, in the same commit.
    pub facts: Vec<Fact>,
    /// The outcome's files to clear away: whose, token, nonce.
    pub settled: Option<(AgentName, u64, String)>,
}

impl RecordChange {
    /// The shelf that the record moves to, if it ends.
    #[must_use]
    pub fn shelf(&self) -> Option<Shelf> {
        match self.phase {
            Phase::Done => Some(Shelf::Done),
            Phase::Dead => Some(Shelf::Dead),
            Phase::New | Phase::Ready | Phase::Waiting => None,
        }
    }
}

/// A task given to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The lock to publish before the process is made.
    pub lock: Lock,
    /// How often the task failed before.
    pub failures: u32,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub enum Effect {
    /// Start a process of this version of the agent; for a handler, publish the lock first.
    Launch {
        /// The new run.
        run: RunId,
        /// The agent.
        agent: AgentName,
        /// Which version.
        digest: String,
        /// The task, for a handler.
        grant: Option<Box<Grant>>,
    },
    /// From now on this is the version that counts; older ones can be forgotten.
    Adopt(AgentName, String),
    /// Nothing is known of this agent any more.
    Forget(AgentName),
    /// Regard a process of an earlier supervisor as this run's root.
    TakeOver(RunId, Identity),
    /// A process outside any run, taken over under this name, is watched no more.
    Release(Name),
    /// Tell a run to stop.
    Signal(RunId, i32),
    /// Kill a run's whole tree and prove it gone.
    KillTree(RunId),
    /// Collect evidence of a run that seems to hang.
    Examine(RunId),
    /// Clear away what belongs to a run that is gone.
    CloseRun(RunId, AgentName),

    /// Reserve fencing tokens up to and including this one, before any record that bears one of them.
    ReserveTokens(u64),
    /// Admit a submission with this token, durably; answered by ticket.
    Admit {
        /// The ticket.
        ticket: u64,
        /// The task.
        task: TaskId,
        /// Its token.
        token: u64,
        /// What to record, unless the ledger tells of it already.
        fact: Option<Fact>,
    },
    /// Remove a submission that was decided already; what to record, if anything.
    DropSubmission(TaskId, Option<Fact>),
    /// Change a task's record, durably; answered by ticket. Its lock is removed after that.
    Record(u64, Box<RecordChange>),
    /// Put the owner's process into a lock that is ours.
    NameOwner(Lock),
    /// Remove a lock that holds nothing; answered by ticket where the task is known.
    RemoveLock(Option<u64>, TaskId),
    /// Report every outcome on disk for this task, then `OutcomesLooked`.
    LookForOutcomes(TaskId, AgentName),
    /// Put an outcome aside: refused, with the reason.
    RefuseOutcome {
        /// Whose.
        agent: AgentName,
        /// The task.
        task: TaskId,
        /// The token it bears.
        token: u64,
        /// The nonce it bears.
        nonce: String,
        /// Why.
        reason: String,
    },
    /// Remove an outcome that was decided already: whose, task, token, nonce.
    DropOutcome(AgentName, TaskId, u64, String),
    /// The ready tasks of this kind changed.
    ShowReady(Kind),

    /// Record a fact.
    Note(Fact),
    /// Open or count up an incident.
    Alert(String, String),
    /// Answer a request: its id, whether it is done, a sentence.
    Answer(Name, bool, String),
    /// Remember that this version of a service ended well, or forget that one did.
    Finished(AgentName, Option<String>),
    /// What the watchdog watches changed.
    Watch,
    /// Everything is stopped and durable: end.
    Exit,
}
