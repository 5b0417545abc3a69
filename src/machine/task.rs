//! What the machine knows of a task, and of the claim that holds it.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};

use crate::protocol::layout::Shelf;
use crate::protocol::name::{AgentName, Kind, Name, RunId, TaskId};
use crate::protocol::task::{Lock, Made, OnDead, Outcome};
use crate::protocol::time::{Mono, Now, Wall};

use super::event::HandedIn;

/// How a task's claim concluded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Conclusion {
    Done,
    /// Likewise, and there was nothing to do: nothing that a gate could judge.
    Nothing,
    /// `code` is the exit code, where that is what failed; `after` the wait that the owner asks for, in
    /// milliseconds.
    Failed {
        error: String,
        permanent: bool,
        code: Option<i32>,
        after: Option<u64>,
    },
    /// Likewise put off, which is no failure.
    Later {
        error: String,
        after: Option<u64>,
    },
    /// It goes back as it was; `died` if its owner did, and nobody had told it to end.
    Returned {
        why: String,
        died: bool,
    },
    /// An operator wants it no more.
    Cancelled {
        why: String,
    },
}

/// Whose a claim is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Owner {
    /// A run of ours.
    Run(RunId),
    /// A process outside any run, watched under this name.
    Outside(Name),
    /// Nobody whose death could be proved: age alone decides.
    Unprovable,
}

#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub nonce: String,
    pub agent: AgentName,
    pub token: u64,
    pub owner: Owner,
    /// A handler's lock does not age.
    pub ages: bool,
    /// When the lock was last seen to change.
    pub renewed: Mono,
    /// Since when it is held.
    pub began: Wall,
    /// Whether a process is known to have begun with it.
    pub has_begun: bool,
    /// What its owner printed last, once that is gone.
    pub words: String,
    /// The most memory that its owner was seen to take, in bytes, where that is measured; once that is gone.
    pub peak_memory: Option<u64>,
    /// What becomes of the task if its owner is gone and left no outcome.
    pub fate: Option<Conclusion>,
}

impl Claim {
    /// A claim of which nothing is left but the token that proves it.
    pub(super) fn by_token(now: Now, agent: AgentName, outcome: &Outcome) -> Self {
        Self {
            nonce: outcome.nonce.clone(),
            agent,
            token: outcome.token,
            owner: Owner::Unprovable,
            ages: false,
            renewed: now.mono,
            began: now.wall,
            has_begun: true,
            words: String::new(),
            peak_memory: None,
            fate: None,
        }
    }
}

/// Where a task is. While its record is being written it is `Pending` and nothing else is done to it.
#[derive(Debug, Clone)]
pub(super) enum Stage {
    /// Its record is being made durable: what is written, under which ticket, and what follows. A lock with
    /// the token that it will have, seen meanwhile, is judged after that; so is an outcome whose lock was lost.
    Pending(Box<Recording>),
    /// It may be claimed.
    Ready,
    /// It waits for its first or another try.
    Waiting { until: Mono },
    /// It waits for what it needs.
    Blocked,
    /// Its result is to be judged; by this run, once one was started.
    Gated { run: Option<RunId> },
    /// It lies in review, and is being decided about.
    Reviewed,
    /// A lock was seen that cannot be read; taken away if it stays so until then.
    Obscured { until: Mono },
    /// A run holds it.
    Held(Box<Claim>),
}

/// A record that is being made durable. A lock with the token that it will have, seen meanwhile, is judged after that;
/// so is an outcome whose lock was lost.
#[derive(Debug, Clone)]
pub(super) struct Recording {
    pub ticket: u64,
    pub writing: Writing,
    pub then: Then,
    pub seen: Option<Box<Lock>>,
    pub handed_in: Option<Box<HandedIn>>,
}

impl Recording {
    /// True while nobody is known to have claimed the task that is ready once this is durable.
    pub(super) fn is_free_of_claims(&self) -> bool {
        matches!(self.writing, Writing::Readiness) && self.then == Then::Ready && self.seen.is_none()
    }
}

/// What is being made durable.
#[derive(Debug, Clone)]
pub(super) enum Writing {
    /// That it is admitted at all.
    Admission,
    /// That its wait is over, or that a lock which holds nothing is removed.
    Readiness,
    /// That it ended while nobody held it, or what its gate said.
    Decision,
    /// That it was done, with its output.
    Success(Box<Claim>),
    /// Any other end of a claim.
    Setback(Box<Claim>),
}

impl Writing {
    /// The claim that it ends.
    pub(super) fn claim(&self) -> Option<&Claim> {
        match self {
            Self::Success(claim) | Self::Setback(claim) => Some(claim),
            Self::Admission | Self::Readiness | Self::Decision => None,
        }
    }
}

/// What follows once a record is durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Then {
    Ready,
    Waiting(Mono),
    /// It waits for what it needs.
    Blocked,
    /// Its gate is to judge the result.
    Gated,
    /// It ended, well or not, or is left to a person.
    Gone(End),
}

/// How a task left those that are open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Done,
    Dead,
    /// What needs it waits on.
    Review,
}

/// A task that ended, and those that need it and were not told yet.
#[derive(Debug)]
pub(super) struct EndedNeed {
    pub need: TaskId,
    pub end: End,
    pub waiting: BTreeSet<TaskId>,
}

impl From<Shelf> for End {
    fn from(shelf: Shelf) -> Self {
        match shelf {
            Shelf::Done => Self::Done,
            Shelf::Dead => Self::Dead,
            Shelf::Review => Self::Review,
        }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Task {
    pub kind: Kind,
    /// What tells its submission from another of the same id: see [`fingerprint`].
    pub nonce: u64,
    pub token: u64,
    pub failures: u32,
    pub deferrals: u16,
    pub deaths: u8,
    pub priority: i8,
    /// When it was submitted.
    pub at: Wall,
    /// What few tasks have.
    pub more: Option<Box<More>>,
    pub stage: Stage,
}

/// A submission's nonce, in a form that takes little room where a hundred thousand of them wait.
pub(super) fn fingerprint(nonce: &str) -> u64 {
    let hash = Sha256::digest(nonce.as_bytes());
    hash.iter().take(8).fold(0, |all, byte| all << 8 | u64::from(*byte))
}

/// What few tasks have.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct More {
    /// Not to be tried before this.
    pub not_before: Option<Wall>,
    /// No try of it begins after this, by the wall clock: pauses of the machine count too.
    pub expires: Option<Wall>,
    /// What it belongs to.
    pub group: Option<Name>,
    /// What it needs and has not ended yet.
    pub needs: BTreeSet<TaskId>,
    /// What it needs and has ended: the results are to stay until it has used them.
    pub met: BTreeSet<TaskId>,
    /// What it needs and is a dead letter, where that is the end of it too.
    pub lost_need: Option<TaskId>,
    /// What becomes of it if one of them is a dead letter.
    pub on_dead: OnDead,
    /// Who made its result, and the gate that is to judge it.
    pub made: Option<Made>,
}

impl Stage {
    /// That a record is being made durable.
    pub(super) fn pending(ticket: u64, writing: Writing, then: Then) -> Self {
        Self::Pending(Box::new(Recording { ticket, writing, then, seen: None, handed_in: None }))
    }
}

impl Task {
    /// Where it stands among the ready of its kind: higher priority first, then age.
    pub(super) fn rank(&self, id: &TaskId) -> Rank {
        (std::cmp::Reverse(self.priority), self.at, id.clone())
    }

    pub(super) fn made(&self) -> Option<&Made> {
        self.more.as_ref()?.made.as_ref()
    }
}

/// The order of dispatch.
pub(super) type Rank = (std::cmp::Reverse<i8>, Wall, TaskId);
