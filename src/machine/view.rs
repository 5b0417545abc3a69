//! What the machine shows of itself: the status of each agent and of the whole.

use crate::protocol::manifest::Manifest;
use crate::protocol::name::{AgentName, Kind, RunId, TaskId};
use crate::protocol::record::VERSION;
use crate::protocol::status::{AgentStatus, RunStatus, Standing};
use crate::protocol::time::{Wall, show_duration};

use super::state::{Agent, Course, Lapse, Liveness, Owner, Rest, Role, Run, RunState, Stage, State, Storage};

/// The whole, in a few words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// `running`, `halted: why`, `draining: why` or `failed: why`.
    pub state: String,
    /// What an operator should know.
    pub warnings: Vec<String>,
    /// Tasks that have not ended.
    pub tasks_open: u64,
}

impl State {
    /// The run that works on a task which it was started for: what it printed goes with what it hands in.
    #[must_use]
    pub fn handler_of(&self, id: &TaskId) -> Option<&RunId> {
        match &self.tasks.get(id)?.stage {
            Stage::Held(claim) => match &claim.owner {
                Owner::Run(run) => self.runs.get(run).filter(|it| it.task() == Some(id)).map(|_| run),
                Owner::Outside(_) | Owner::Unprovable => None,
            },
            Stage::Pending(_)
            | Stage::Ready
            | Stage::Waiting { .. }
            | Stage::Blocked
            | Stage::Obscured { .. }
            | Stage::Gated { .. }
            | Stage::Reviewed => None,
        }
    }

    /// The status of an agent; `None` if there is no such agent.
    #[must_use]
    pub fn agent_status(&self, name: &AgentName) -> Option<AgentStatus> {
        let agent = self.agents.get(name)?;
        let runs: Vec<&Run> = agent.runs.iter().filter_map(|run| self.runs.get(run)).collect();
        let (state, why, next) = self.standing(name, agent, &runs);
        let manifest = agent.accepted.as_ref().map(|version| &version.manifest);
        Some(AgentStatus {
            v: VERSION,
            agent: name.clone(),
            state,
            why,
            since: runs.first().map_or(agent.since, |run| run.started.wall),
            kind: manifest.map_or("unknown", Manifest::kind).into(),
            about: manifest.map(|m| m.about.clone()).unwrap_or_default(),
            handles: manifest.map(|m| m.handles.clone()).unwrap_or_default(),
            liveness: liveness_words(agent, &runs),
            next,
            runs: agent.runs.iter().filter_map(|id| Some(run_status(id, self.runs.get(id)?))).collect(),
            restarts: agent.restarts,
            last_exit: agent.last_exit.clone(),
            refusal: agent.refusal.clone(),
        })
    }

    /// The digest of the version of an agent that counts.
    #[must_use]
    pub fn digest_of(&self, agent: &AgentName) -> Option<&str> {
        self.agents.get(agent)?.accepted.as_ref().map(|version| version.digest.as_str())
    }

    fn standing(&self, name: &AgentName, agent: &Agent, runs: &[&Run]) -> (Standing, String, Option<Wall>) {
        if let Some(run) = runs.iter().max_by_key(|run| urgency(&run.state)) {
            let (state, why) = standing_of(run);
            return (state, Self::with_file_news(agent, why), None);
        }
        if let (None, Some(refusal)) = (&agent.accepted, &agent.refusal) {
            return (Standing::Refused, refusal.reason.clone(), None);
        }
        if let Some(why) = self.unwanted(name) {
            let disabled = agent.accepted.as_ref().is_some_and(|version| !version.manifest.enabled);
            return (if disabled { Standing::Disabled } else { Standing::Stopped }, why, None);
        }
        let (state, why, next) = match &agent.rest {
            Rest::Backoff { next, .. } => {
                let failed = || {
                    let last = agent.last_exit.as_deref().unwrap_or("not started");
                    format!("{} failures in a row, the last: {last}", agent.failures)
                };
                let held_up = agent.held_up.as_ref().map(|why| format!("not started: {why}"));
                (Standing::Backoff, held_up.unwrap_or_else(failed), Some(*next))
            }
            Rest::Finished => {
                (Standing::Finished, "it ended well; a changed file or `start` runs it again".into(), None)
            }
            Rest::Over(why) => (Standing::Finished, why.clone(), None),
            Rest::Ready if agent.is_handler() => (Standing::Idle, "no task waits for it".into(), None),
            Rest::Ready => (Standing::Starting, "it is about to start".into(), None),
        };
        (state, Self::with_file_news(agent, why), next)
    }

    /// Adds that the file in `agents/` is not the one that runs.
    fn with_file_news(agent: &Agent, why: String) -> String {
        match (&agent.refusal, &agent.pending) {
            (Some(refusal), _) => format!("{why}; the earlier version is kept, since {}", refusal.reason),
            (None, Some(_)) => format!("{why}; its file changed and is left to settle"),
            (None, None) => why,
        }
    }

    /// The whole, in a few words.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let state = match (&self.course, &self.storage, &self.halt) {
            (Course::Draining { why }, ..) => format!("draining: {why}"),
            (Course::Over, ..) => "ended".into(),
            (Course::Working, Storage::Broken(why), _) => format!("failed: {why}"),
            (Course::Working, Storage::Whole | Storage::Full, Some(why)) => format!("halted: {why}"),
            (Course::Working, Storage::Whole | Storage::Full, None) => "running".into(),
        };
        let warnings = self.unhandled_kinds().into_iter().map(|(kind, count)| {
            format!("{count} tasks of kind {kind} wait, and no agent handles it (agents may claim them by themselves)")
        });
        Summary { state, warnings: warnings.collect(), tasks_open: self.tasks.len() as u64 }
    }

    fn unhandled_kinds(&self) -> Vec<(Kind, usize)> {
        let waits = self
            .ready
            .iter()
            .filter(|(kind, _)| !self.is_handled(kind) && !self.claimed_kinds.contains(kind));
        waits.map(|(kind, ready)| (kind.clone(), ready.len())).collect()
    }

    /// True once no new work is taken.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.course != Course::Working
    }
}

fn urgency(state: &RunState) -> u8 {
    match state {
        RunState::Stuck(_) => 6,
        RunState::Isolated { .. } => 5,
        RunState::Killing => 4,
        RunState::Stopping { .. } => 3,
        RunState::Ending(_) => 2,
        RunState::Running => 1,
        RunState::Starting => 0,
    }
}

fn standing_of(run: &Run) -> (Standing, String) {
    match &run.state {
        RunState::Starting => (Standing::Starting, "its process is being made".into()),
        RunState::Running => match &run.role {
            Role::Handler(task) => (Standing::Running, format!("works on task {task}")),
            Role::Gate(task) => (Standing::Running, format!("its gate judges the result of task {task}")),
            Role::Service | Role::Survivor => (Standing::Running, "up".into()),
        },
        RunState::Isolated { .. } => {
            let why = run.lapse.as_ref().map(Lapse::words).unwrap_or_default();
            let then = "its tasks are withheld until it shows signs of life or its grace is over";
            (Standing::Isolated, format!("{why}: {then}"))
        }
        RunState::Stopping { .. } | RunState::Killing => (Standing::Stopping, run.cause.words()),
        RunState::Ending(ending) => {
            (Standing::Stopping, format!("{ending}; what it left behind is being cleared"))
        }
        RunState::Stuck(_) => (Standing::Stopping, "unkillable: processes of it do not die".into()),
    }
}

fn run_status(id: &RunId, run: &Run) -> RunStatus {
    RunStatus {
        run: id.clone(),
        process: run.process.clone(),
        since: run.started.wall,
        task: run.task().cloned(),
    }
}

fn liveness_words(agent: &Agent, runs: &[&Run]) -> String {
    let Some(version) = &agent.accepted else { return String::new() };
    if version.manifest.is_handler() {
        return format!("timeout {}", show_duration(version.manifest.timeout_ms));
    }
    match runs.first().map(|run| run.liveness) {
        Some(Liveness::Armed { interval, .. }) => format!("heartbeat every {}", show_duration(interval)),
        Some(Liveness::Unarmed { .. }) => "unchecked: it has not beaten yet".into(),
        Some(Liveness::Off) => "unchecked: heartbeat = \"off\"".into(),
        None => String::new(),
    }
}
