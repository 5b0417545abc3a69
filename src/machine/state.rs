//! What the machine knows.
//!
//! An agent has what is *wanted* of it (its version, the switches that stop it) and what *is* (its
//! runs, or how it rests between them), never mixed in one field. A run and a task are each in one
//! state of an enum that holds the state's data.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::protocol::name::{AgentName, Kind, Name, RunId, TaskId};
use crate::protocol::process::{Ending, Identity};
use crate::protocol::status::Refusal;
use crate::protocol::time::{Mono, Now, Wall};
use crate::protocol::trigger::TriggerRecord;

pub(super) use super::task::{
    Claim, Conclusion, End, EndedNeed, More, Owner, Rank, Stage, Task, Then, Writing,
};

use super::control::Asked;
use super::event::Version;
use super::jobs::Job;

/// What the machine is told once, at its start.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The boot that we run in.
    pub boot: String,
    /// The pid namespace that we run in.
    pub ns: u64,
    /// The most handlers' processes at once.
    pub tasks_at_once: usize,
    /// The highest token that may have been given out before.
    pub token_floor: u64,
    /// True to end when there is nothing left to do.
    pub until_idle: bool,
    /// The seed of jitter, nonces and run ids.
    pub seed: u64,
}

/// Whether the crew works, drains, or is done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Course {
    /// Work is taken.
    Working,
    /// No new work; runs are told to stop.
    Draining { why: String },
    /// Every run is gone and every ticket answered.
    Over,
}

/// Whether records can be made durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Storage {
    /// They can.
    Whole,
    /// They wait for room: nothing that needs more of them is begun.
    Full,
    /// They cannot, until another supervisor starts.
    Broken(String),
}

impl Storage {
    pub(super) fn is_broken(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Whole | Self::Full => false,
        }
    }
}

/// A change of an agent's file that counts once it has been quiet.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    Adopt(Arc<Version>, Mono),
    Remove(Mono),
}

/// How an agent is while it has no run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Rest {
    /// It may be started at any time.
    Ready,
    /// It failed: not before this.
    Backoff { until: Mono, next: Wall },
    /// This version of the service ended well.
    Finished,
    /// It ended, and its manifest says never to restart it.
    Over(String),
}

/// Whether what a handler was given went well.
#[derive(Debug, Clone, Default)]
pub(super) struct Health {
    /// Failures in a row.
    pub failures: u32,
    /// The task that failed first among them.
    pub first: Option<TaskId>,
    /// Whether another failed too: one bad document condemns nobody.
    pub several: bool,
    /// Until when its fallback takes its tasks.
    pub ailing_until: Option<Mono>,
}

#[derive(Debug)]
pub(super) struct Agent {
    /// Wanted: the version that counts.
    pub accepted: Option<Arc<Version>>,
    /// Wanted soon.
    pub pending: Option<Pending>,
    /// What is wrong with the file as it is now.
    pub refusal: Option<Refusal>,
    /// Is: its runs, oldest first.
    pub runs: Vec<RunId>,
    /// Is: how it rests without one.
    pub rest: Rest,
    /// Failures in a row without a healthy minute.
    pub failures: u32,
    /// How the tasks that it was given ended of late (a handler's).
    pub health: Health,
    /// The digest of the version that ended well.
    pub finished: Option<String>,
    pub restarts: u64,
    pub last_exit: Option<String>,
    /// Why it could not be started the last time, through no fault of its own.
    pub held_up: Option<String>,
    /// Since when it stands where it stands.
    pub since: Wall,
}

/// Why a run ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cause {
    /// By itself.
    Own,
    /// There is a newer version.
    Replaced,
    /// An operator asked for a restart.
    Restarted,
    /// It is not wanted any more: stopped, halted, disabled or removed.
    Unwanted(String),
    /// The task that it was started for is not wanted any more.
    Cancelled(String),
    /// The supervisor ends.
    Drained,
    /// It stayed silent after it was isolated.
    Silent,
    /// Its tree outgrew its limit.
    Memory(String),
    /// It took longer than its timeout.
    Timeout(String),
    /// An earlier supervisor started it.
    Survivor,
    /// Its process could not be made.
    NotStarted(String),
    /// Its process could not be made, since somebody was writing its file.
    Busy,
}

/// Where a run is. Every run passes: starting → running → ending, with detours.
///
/// | state | leaves by |
/// |---|---|
/// | starting | spawned → running; spawn failed → gone |
/// | running | silent for two intervals → isolated; told to stop → stopping; root exited → ending |
/// | isolated | a beat → running; silent on → killing; told to stop → stopping; exited → ending |
/// | stopping | exited → ending; grace over → killing |
/// | killing | exited → ending; tree gone → gone |
/// | ending | tree gone → gone; not provable → stuck |
/// | stuck | tree gone → gone |
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum RunState {
    Starting,
    Running,
    Isolated {
        until: Mono,
    },
    Stopping {
        kill_at: Mono,
    },
    Killing,
    Ending(Ending),
    /// How its root ended, if it did.
    Stuck(Ending),
}

/// How signs of life are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Liveness {
    /// Not at all.
    Off,
    /// From the first beat on.
    Unarmed { interval: u64 },
    /// Since the last sign.
    Armed { interval: u64, last: Mono },
}

/// Why a run is isolated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Lapse {
    /// No sign of life for so long, where one is due so often.
    Silent { ms: u64, interval_ms: u64 },
    /// It let its lock of this task grow old.
    Lock(TaskId),
}

impl RunState {
    /// How its root process ended, as far as anybody saw.
    pub(super) fn ending(&self) -> Ending {
        match self {
            Self::Ending(ending) | Self::Stuck(ending) => *ending,
            Self::Starting
            | Self::Running
            | Self::Isolated { .. }
            | Self::Stopping { .. }
            | Self::Killing => Ending::Unseen,
        }
    }
}

/// What a run is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// To be kept alive.
    Service,
    /// To do this task.
    Handler(TaskId),
    /// To judge the result of this task, by the gate of the agent that made it.
    Gate(TaskId),
    /// An earlier supervisor started it, for whatever: it is to end.
    Survivor,
}

#[derive(Debug)]
pub(super) struct Run {
    pub agent: AgentName,
    /// What it runs; none of a gate, unknown of a survivor.
    pub version: Option<Arc<Version>>,
    pub started: Now,
    pub process: Option<Identity>,
    pub state: RunState,
    pub cause: Cause,
    pub liveness: Liveness,
    /// Why it was isolated last.
    pub lapse: Option<Lapse>,
    pub beaten: bool,
    /// The most memory that its tree was seen to take, in bytes, where that is measured.
    pub peak_memory: Option<u64>,
    /// When the time of a handler or a gate is up.
    pub timeout_at: Option<Mono>,
    /// What it was started for.
    pub role: Role,
    /// Every task whose lock names it.
    pub holds: BTreeSet<TaskId>,
}

impl Run {
    /// True if an earlier supervisor started it: whatever it was told to end for since, it is no child of ours.
    #[must_use]
    pub(super) fn is_survivor(&self) -> bool {
        self.role == Role::Survivor
    }

    /// True for what was not started for one task.
    pub(super) fn is_service(&self) -> bool {
        matches!(self.role, Role::Service | Role::Survivor)
    }

    /// The task that it is to do.
    pub(super) fn task(&self) -> Option<&TaskId> {
        match &self.role {
            Role::Handler(task) => Some(task),
            Role::Service | Role::Gate(_) | Role::Survivor => None,
        }
    }

    /// A run that is being started.
    pub(super) fn new(now: Now, agent: AgentName, role: Role) -> Self {
        Self {
            agent,
            version: None,
            started: now,
            process: None,
            state: RunState::Starting,
            cause: Cause::Own,
            liveness: Liveness::Off,
            lapse: None,
            beaten: false,
            peak_memory: None,
            timeout_at: None,
            role,
            holds: BTreeSet::new(),
        }
    }

    /// True while it should be left to work: it has not been told to end and has not ended.
    pub(super) fn is_active(&self) -> bool {
        match self.state {
            RunState::Starting | RunState::Running | RunState::Isolated { .. } => true,
            RunState::Stopping { .. } | RunState::Killing | RunState::Ending(_) | RunState::Stuck(_) => false,
        }
    }
}

/// All that the machine knows. Time, files and processes reach it only as events.
#[derive(Debug)]
pub struct State {
    pub(super) setup: Setup,
    pub(super) rng: fastrand::Rng,
    pub(super) tickets: BTreeMap<u64, TaskId>,
    pub(super) last_ticket: u64,
    pub(super) next_token: u64,
    pub(super) reserved_token: u64,
    pub(super) agents: BTreeMap<AgentName, Agent>,
    /// Every agent that there is was told of.
    pub(super) agents_looked: bool,
    /// What an earlier supervisor left was looked at, locks and outcomes too: until then nothing is given out or up.
    pub(super) begun: bool,
    pub(super) stopped: BTreeMap<AgentName, String>,
    /// What is known of the schedules of jobs.
    pub(super) jobs: BTreeMap<AgentName, Job>,
    /// What the disk tells of agents that are no jobs, or not seen yet.
    pub(super) triggers_found: BTreeMap<AgentName, TriggerRecord>,
    /// The jobs that changes wait for.
    pub(super) stirred: BTreeSet<AgentName>,
    /// When which job's next slot comes.
    pub(super) slots_due: BTreeSet<(Wall, AgentName)>,
    /// By how much the wall clock ran ahead of the other one at the last step.
    pub(super) apart: Option<i64>,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) tasks: BTreeMap<TaskId, Task>,
    /// The kinds of the tasks that were seen.
    pub(super) kinds: BTreeSet<Kind>,
    /// Ready tasks by kind, in the order of dispatch.
    pub(super) ready: BTreeMap<Kind, BTreeSet<Rank>>,
    pub(super) waiting: BTreeSet<(Mono, TaskId)>,
    /// When tasks expire that do.
    pub(super) expiring: BTreeSet<(Wall, TaskId)>,
    /// Tasks that are to be cancelled once their records are written, and why.
    pub(super) cancelling: BTreeMap<TaskId, String>,
    /// Tasks that are to be cancelled as soon as that is their turn, and why.
    pub(super) to_cancel: BTreeMap<TaskId, String>,
    /// Tasks that ended, and of which not all were told that need them, in the order in which they ended.
    pub(super) ended_needs: VecDeque<EndedNeed>,
    /// Requests that are being carried out.
    pub(super) asked: BTreeMap<Name, Asked>,
    /// Which tasks wait for this one to end.
    pub(super) needed_by: BTreeMap<TaskId, BTreeSet<TaskId>>,
    /// Tasks whose results wait for their gate, in the order in which they were made.
    pub(super) to_judge: VecDeque<TaskId>,
    /// Not before this: a gate's file was being written.
    pub(super) judge_from: Mono,
    /// Tasks whose locks age or cannot be read.
    pub(super) aging: BTreeSet<TaskId>,
    /// Claims by processes outside any run, by the name they are watched under.
    pub(super) outside: BTreeMap<Name, TaskId>,
    pub(super) claimed_kinds: BTreeSet<Kind>,
    pub(super) halt: Option<String>,
    pub(super) course: Course,
    pub(super) storage: Storage,
    pub(super) memory_queue_empty: bool,
    /// Since when nothing was submitted: at first, since the first step.
    pub(super) quiet_since: Option<Mono>,
    /// When the machine was last stepped: what is due by then was done.
    pub(super) stepped: Now,
    /// Which agents' status changed since it was last asked.
    pub(super) changed: BTreeSet<AgentName>,
    /// Where the next round of dispatch begins, so that no handler starves another.
    pub(super) dispatched_last: Option<AgentName>,
}

impl State {
    /// A machine that knows nothing yet.
    #[must_use]
    pub fn new(setup: Setup) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(setup.seed),
            tickets: BTreeMap::new(),
            last_ticket: 0,
            next_token: setup.token_floor + 1,
            reserved_token: setup.token_floor,
            agents: BTreeMap::new(),
            agents_looked: false,
            begun: false,
            stopped: BTreeMap::new(),
            jobs: BTreeMap::new(),
            triggers_found: BTreeMap::new(),
            stirred: BTreeSet::new(),
            slots_due: BTreeSet::new(),
            apart: None,
            runs: BTreeMap::new(),
            tasks: BTreeMap::new(),
            kinds: BTreeSet::new(),
            ready: BTreeMap::new(),
            waiting: BTreeSet::new(),
            expiring: BTreeSet::new(),
            cancelling: BTreeMap::new(),
            to_cancel: BTreeMap::new(),
            ended_needs: VecDeque::new(),
            asked: BTreeMap::new(),
            needed_by: BTreeMap::new(),
            to_judge: VecDeque::new(),
            judge_from: Mono(0),
            aging: BTreeSet::new(),
            outside: BTreeMap::new(),
            claimed_kinds: BTreeSet::new(),
            halt: None,
            course: Course::Working,
            storage: Storage::Whole,
            memory_queue_empty: false,
            quiet_since: None,
            stepped: Now { mono: Mono(0), wall: Wall(0) },
            changed: BTreeSet::new(),
            dispatched_last: None,
            setup,
        }
    }

    pub(super) fn touch(&mut self, agent: &AgentName) {
        if !self.changed.contains(agent) {
            self.changed.insert(agent.clone());
        }
    }

    /// True if the status of some agent changed since it was last taken.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The agents whose status changed since this was last asked.
    pub fn take_changed(&mut self) -> BTreeSet<AgentName> {
        std::mem::take(&mut self.changed)
    }
}
