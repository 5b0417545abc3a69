//! All that the machine can want done, on one screen.

use crate::protocol::layout::Shelf;
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Kind, Name, RunId, TaskId};
use crate::protocol::process::Identity;
use crate::protocol::schedule::SlotId;
use crate::protocol::task::{Attempt, Lock, Made, Phase};
use crate::protocol::time::Wall;
use crate::protocol::trigger::TriggerRecord;

use super::state::{Stage, Task};

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
    /// How often an owner died holding it, from now on.
    pub deaths: u32,
    /// Not to be tried before this.
    pub not_before: Option<Wall>,
    /// The claim that this decides.
    pub decided: Option<String>,
    /// The try that ended badly.
    pub attempt: Option<Attempt>,
    /// Why it is a dead letter, or to be reviewed.
    pub reason: Option<String>,
    /// Until when it keeps others of its id out, once done.
    pub unique_until: Option<Wall>,
    /// The result that is to be judged from now on.
    pub made: Option<Made>,
    /// What to keep as the result.
    pub output: Option<Output>,
    /// What becomes of the tasks that were submitted within it.
    pub bound: Option<Bound>,
    /// What to record with it, in the same commit.
    pub facts: Vec<Fact>,
    /// The outcome's files to clear away: whose, token, nonce.
    pub settled: Option<(AgentName, u64, String)>,
    /// True if the record lies among those to review, rather than the open ones.
    pub reviewed: bool,
}

/// Where a result comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// An owner handed it in: whose, and under which token.
    HandedIn(AgentName, u64),
    /// It was judged.
    Judged,
}

/// What becomes of the tasks that an owner submitted within its own, and of what its result is handed on as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// Whose, where that is known.
    pub agent: Option<AgentName>,
    /// Whether others may have claimed it with this token too, of whose locks nothing is left.
    pub others: bool,
    /// With which token.
    pub token: u64,
    /// Whether they are submitted, or dropped.
    pub fate: BoundFate,
}

/// See [`Bound`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BoundFate {
    /// Those of this claim are submitted, and its result as a task of this kind.
    Submitted {
        /// The claim's nonce.
        nonce: String,
        /// The kind, if the result is handed on.
        then: Option<Kind>,
    },
    /// Those of this claim, by its nonce, wait for the judgement of its result.
    Kept(String),
    /// The claim came to nothing, and so do they.
    Dropped,
}

impl RecordChange {
    /// A change that leaves all as it is, but that the task is ready.
    pub(super) fn of(id: &TaskId, task: &Task) -> Self {
        Self {
            task: id.clone(),
            token: task.token,
            phase: Phase::Ready,
            failures: task.failures,
            deferrals: task.deferrals.into(),
            deaths: task.deaths.into(),
            not_before: None,
            decided: None,
            attempt: None,
            reason: None,
            unique_until: None,
            made: None,
            output: None,
            bound: None,
            facts: Vec::new(),
            settled: None,
            reviewed: matches!(task.stage, Stage::Reviewed),
        }
    }

    /// The shelf that the record moves to, if it ends.
    #[must_use]
    pub fn shelf(&self) -> Option<Shelf> {
        match self.phase {
            Phase::Done => Some(Shelf::Done),
            Phase::Dead => Some(Shelf::Dead),
            Phase::Review => Some(Shelf::Review),
            Phase::New | Phase::Ready | Phase::Waiting | Phase::Blocked | Phase::Gated => None,
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
    /// In whose stead it is given out.
    pub mode: Mode,
}

/// How an agent is to work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// As ever.
    Normal,
    /// In the place of one that keeps failing.
    Fallback,
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
    /// Start the gate that judges a task's result.
    Judge {
        /// The new run, one of the agent that made the result.
        run: RunId,
        /// The task.
        task: TaskId,
        /// Who made the result, and which gate.
        made: Made,
    },
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
        /// Its phase: ready, waiting or blocked.
        phase: Phase,
        /// Where a record of the same id lies that it takes the place of.
        replaces: Option<Shelf>,
        /// What to record, unless the ledger tells of it already.
        fact: Option<Fact>,
    },
    /// Submit the firing of a slot, not to be begun before this.
    Fire(SlotId, Option<Wall>),
    /// Submit a firing that is given the files which changed.
    FireChanges(AgentName),
    /// A firing of a job ended: whether what it was given is handled.
    FiringEnded(AgentName, TaskId, bool),
    /// Remember how far a job's schedule is decided about.
    KeepTrigger(AgentName, TriggerRecord),
    /// Put a submission aside that can never be done, with the reason.
    RejectSubmission(TaskId, String),
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
