//! Where everything lies. Every path and file name of a crew is spelled here and nowhere else.

use std::path::{Path, PathBuf};

use super::name::{AgentName, Key, Kind, RunId, TaskId};

/// The environment variable that names the crew's directory.
pub const ENV_DIR: &str = "NIGHTCREW_DIR";
/// The environment variable that names the agent.
pub const ENV_AGENT: &str = "NIGHTCREW_AGENT";
/// The environment variable that marks every process of a run with the run's id.
pub const ENV_RUN: &str = "NIGHTCREW_RUN";
/// The ending of a lock's file name.
pub const LOCK_EXT: &str = "lock";
/// The ending of a record's file name.
pub const RECORD_EXT: &str = "json";

/// The paths of one crew, below its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    crew: PathBuf,
}

/// Where the record of a task that ended lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shelf {
    /// Done, and its output kept.
    Done,
    /// Failed for good: a dead letter.
    Dead,
}

impl Shelf {
    /// The directory's name, which is also the state's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

impl Layout {
    /// The layout of the crew in `crew`, which should be absolute.
    #[must_use]
    pub fn new(crew: impl Into<PathBuf>) -> Self {
        Self { crew: crew.into() }
    }

    /// True if `dir` looks like a crew: it holds `agents/`.
    #[must_use]
    pub fn marks_a_crew(dir: &Path) -> PathBuf {
        dir.join("agents")
    }

    /// The crew's directory.
    #[must_use]
    pub fn crew(&self) -> &Path {
        &self.crew
    }
    /// `agents/`
    #[must_use]
    pub fn agents(&self) -> PathBuf {
        self.crew.join("agents")
    }
    /// `nightcrew.toml`
    #[must_use]
    pub fn crew_file(&self) -> PathBuf {
        self.crew.join("nightcrew.toml")
    }
    /// `.env`, every agent's default environment file.
    #[must_use]
    pub fn default_env_file(&self) -> PathBuf {
        self.crew.join(".env")
    }
    /// `state/`
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.crew.join("state")
    }
    /// `state/supervisor.lock`
    #[must_use]
    pub fn supervisor_lock(&self) -> PathBuf {
        self.state().join("supervisor.lock")
    }
    /// `state/crew.json`: the supervisor's view of the whole.
    #[must_use]
    pub fn crew_status(&self) -> PathBuf {
        self.state().join("crew.json")
    }
    /// `state/HALT`: the kill switch.
    #[must_use]
    pub fn halt(&self) -> PathBuf {
        self.state().join("HALT")
    }
    /// `state/stopped/`
    #[must_use]
    pub fn stopped_dir(&self) -> PathBuf {
        self.state().join("stopped")
    }
    /// `state/stopped/NAME`: while it exists, that agent does not run.
    #[must_use]
    pub fn stopped(&self, agent: &AgentName) -> PathBuf {
        self.stopped_dir().join(agent.as_str())
    }
    /// `state/requests/`
    #[must_use]
    pub fn requests(&self) -> PathBuf {
        self.state().join("requests")
    }
    /// `state/requests/ID.json`
    #[must_use]
    pub fn request(&self, id: &TaskId) -> PathBuf {
        self.requests().join(format!("{id}.json"))
    }
    /// `state/requests/answers/`
    #[must_use]
    pub fn answers(&self) -> PathBuf {
        self.requests().join("answers")
    }
    /// `state/requests/answers/ID.json`
    #[must_use]
    pub fn answer(&self, id: &TaskId) -> PathBuf {
        self.answers().join(format!("{id}.json"))
    }

    /// `state/tasks/`
    #[must_use]
    pub fn tasks(&self) -> PathBuf {
        self.state().join("tasks")
    }
    /// `state/tasks/tokens`: how far fencing tokens are reserved.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        self.tasks().join("tokens")
    }
    /// `state/tasks/new/`
    #[must_use]
    pub fn new_tasks(&self) -> PathBuf {
        self.tasks().join("new")
    }
    /// `state/tasks/new/ID.json`: submitted, not yet admitted.
    #[must_use]
    pub fn new_task(&self, id: &TaskId) -> PathBuf {
        self.new_tasks().join(format!("{id}.json"))
    }
    /// `state/tasks/rejected/`: submissions that could not be read, each with its reason.
    #[must_use]
    pub fn rejected_tasks(&self) -> PathBuf {
        self.tasks().join("rejected")
    }
    /// `state/tasks/ID.json`: admitted.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> PathBuf {
        self.tasks().join(format!("{id}.json"))
    }
    /// `state/tasks/ID.lock`: claimed.
    #[must_use]
    pub fn lock(&self, id: &TaskId) -> PathBuf {
        self.tasks().join(format!("{id}.{LOCK_EXT}"))
    }
    /// `state/tasks/ready/`
    #[must_use]
    pub fn ready_dir(&self) -> PathBuf {
        self.tasks().join("ready")
    }
    /// `state/tasks/ready/KIND`: the next ids of a kind, one a line.
    #[must_use]
    pub fn ready(&self, kind: &Kind) -> PathBuf {
        self.ready_dir().join(kind.as_str())
    }
    /// `state/tasks/outcome/`
    #[must_use]
    pub fn outcomes(&self) -> PathBuf {
        self.tasks().join("outcome")
    }
    /// `state/tasks/outcome/AGENT/`
    #[must_use]
    pub fn outcomes_of(&self, agent: &AgentName) -> PathBuf {
        self.outcomes().join(agent.as_str())
    }
    /// `state/tasks/outcome/AGENT/ID.TOKEN.NONCE.json`
    #[must_use]
    pub fn outcome(&self, agent: &AgentName, id: &TaskId, token: u64, nonce: &str) -> PathBuf {
        self.outcomes_of(agent).join(format!("{id}.{token}.{nonce}.json"))
    }
    /// `state/tasks/refused/`: outcomes that came too late or could not be read, each with its reason.
    #[must_use]
    pub fn refused_outcomes(&self) -> PathBuf {
        self.tasks().join("refused")
    }
    /// `state/tasks/output/AGENT/`
    #[must_use]
    pub fn outputs_of(&self, agent: &AgentName) -> PathBuf {
        self.tasks().join("output").join(agent.as_str())
    }
    /// `state/tasks/output/AGENT/ID.TOKEN`: what a task's owner made.
    #[must_use]
    pub fn output(&self, agent: &AgentName, id: &TaskId, token: u64) -> PathBuf {
        self.outputs_of(agent).join(format!("{id}.{token}"))
    }
    /// `state/tasks/done/` or `state/tasks/dead/`
    #[must_use]
    pub fn shelf(&self, shelf: Shelf) -> PathBuf {
        self.tasks().join(shelf.as_str())
    }
    /// `state/tasks/done/ID.json` or `state/tasks/dead/ID.json`
    #[must_use]
    pub fn ended(&self, shelf: Shelf, id: &TaskId) -> PathBuf {
        self.shelf(shelf).join(format!("{id}.json"))
    }
    /// `state/tasks/done/ID.output`: the accepted result.
    #[must_use]
    pub fn result(&self, id: &TaskId) -> PathBuf {
        self.shelf(Shelf::Done).join(format!("{id}.output"))
    }

    /// `state/status/`
    #[must_use]
    pub fn status_dir(&self) -> PathBuf {
        self.state().join("status")
    }
    /// `state/status/NAME.json`: the supervisor's view of an agent.
    #[must_use]
    pub fn status(&self, agent: &AgentName) -> PathBuf {
        self.status_dir().join(format!("{agent}.json"))
    }
    /// `state/status/NAME.heartbeat`: the agent's own file.
    #[must_use]
    pub fn heartbeat(&self, agent: &AgentName) -> PathBuf {
        self.status_dir().join(format!("{agent}.heartbeat"))
    }
    /// `state/status/NAME.RUN.heartbeat`: where an agent has several runs at once, one file each.
    #[must_use]
    pub fn heartbeat_of_run(&self, agent: &AgentName, run: &RunId) -> PathBuf {
        self.status_dir().join(format!("{agent}.{run}.heartbeat"))
    }
    /// `state/status/.canary`: the watchdog's own beat, which proves that beats can be seen at all.
    #[must_use]
    pub fn canary(&self) -> PathBuf {
        self.status_dir().join(".canary")
    }

    /// `state/memory/`
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.state().join("memory")
    }
    /// `state/memory/queue/`
    #[must_use]
    pub fn queues(&self) -> PathBuf {
        self.memory().join("queue")
    }
    /// `state/memory/queue/AGENT/`
    #[must_use]
    pub fn queue(&self, agent: &AgentName) -> PathBuf {
        self.queues().join(agent.as_str())
    }
    /// `state/memory/queue/AGENT/SEQ.json`
    #[must_use]
    pub fn update(&self, agent: &AgentName, seq: u64) -> PathBuf {
        self.queue(agent).join(format!("{seq}.json"))
    }
    /// `state/memory/applied/AGENT`
    #[must_use]
    pub fn applied(&self, agent: &AgentName) -> PathBuf {
        self.memory().join("applied").join(agent.as_str())
    }
    /// `state/memory/store/`
    #[must_use]
    pub fn store_dir(&self) -> PathBuf {
        self.memory().join("store")
    }
    /// `state/memory/store/KEY.json`: the bare value.
    #[must_use]
    pub fn value(&self, key: &Key) -> PathBuf {
        self.store_dir().join(format!("{key}.json"))
    }
    /// `state/memory/rejected/`
    #[must_use]
    pub fn rejected_updates(&self) -> PathBuf {
        self.memory().join("rejected")
    }
    /// `state/memory/journal/`
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.memory().join("journal")
    }

    /// `state/ledger/`
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        self.state().join("ledger")
    }
    /// `state/alerts/`
    #[must_use]
    pub fn alerts(&self) -> PathBuf {
        self.state().join("alerts")
    }
    /// `state/logs/`
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        self.state().join("logs")
    }
    /// `state/logs/NAME.log`: what an agent printed, raw.
    #[must_use]
    pub fn log(&self, agent: &AgentName) -> PathBuf {
        self.logs().join(format!("{agent}.log"))
    }
    /// `state/logs/NAME.idx`: which part of the log is from when, and of which run.
    #[must_use]
    pub fn log_index(&self, agent: &AgentName) -> PathBuf {
        self.logs().join(format!("{agent}.idx"))
    }
    /// `state/logs/NAME.log.1` and on: a log that was rotated out, and its index beside it.
    #[must_use]
    pub fn rotated(path: &Path, generation: u32) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(format!(".{generation}"));
        name.into()
    }
    /// `state/logs/NAME.RUN.pipe`: the named pipe that a run's output comes through.
    #[must_use]
    pub fn pipe(&self, agent: &AgentName, run: &RunId) -> PathBuf {
        self.logs().join(format!("{agent}.{run}.pipe"))
    }
    /// `state/scratch/NAME/`: the agent's own directory.
    #[must_use]
    pub fn scratch(&self, agent: &AgentName) -> PathBuf {
        self.state().join("scratch").join(agent.as_str())
    }
    /// `state/tmp/`
    #[must_use]
    pub fn tmp_dir(&self) -> PathBuf {
        self.state().join("tmp")
    }
    /// `state/tmp/NAME/`: where an agent's temporary files are made.
    #[must_use]
    pub fn tmp(&self, agent: &AgentName) -> PathBuf {
        self.tmp_dir().join(agent.as_str())
    }
    /// `state/tmp/.supervisor/`: where the supervisor's own are made.
    #[must_use]
    pub fn tmp_of_supervisor(&self) -> PathBuf {
        self.tmp_dir().join(".supervisor")
    }
    /// `state/tmp/.operator/`: where those of commands outside any run are made.
    #[must_use]
    pub fn tmp_of_operator(&self) -> PathBuf {
        self.tmp_dir().join(".operator")
    }
    /// `state/tmp/NAME/RUN.payload`: a task's payload, for the one run that handles it.
    #[must_use]
    pub fn payload(&self, agent: &AgentName, run: &RunId) -> PathBuf {
        self.tmp(agent).join(format!("{run}.payload"))
    }
    /// `state/tmp/NAME/usage.jsonl`: where an agent reports what its calls cost.
    #[must_use]
    pub fn usage(&self, agent: &AgentName) -> PathBuf {
        self.scratch(agent).join("usage.jsonl")
    }

    /// Every directory that the supervisor makes at its start, parents first.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        vec![
            self.state(),
            self.stopped_dir(),
            self.requests(),
            self.answers(),
            self.tasks(),
            self.new_tasks(),
            self.rejected_tasks(),
            self.ready_dir(),
            self.outcomes(),
            self.refused_outcomes(),
            self.tasks().join("output"),
            self.shelf(Shelf::Done),
            self.shelf(Shelf::Dead),
            self.status_dir(),
            self.memory(),
            self.queues(),
            self.memory().join("applied"),
            self.store_dir(),
            self.rejected_updates(),
            self.journal(),
            self.ledger(),
            self.alerts(),
            self.logs(),
            self.state().join("scratch"),
            self.tmp_dir(),
            self.tmp_of_supervisor(),
            self.tmp_of_operator(),
        ]
    }

    /// Every directory that belongs to one agent.
    #[must_use]
    pub fn directories_of(&self, agent: &AgentName) -> Vec<PathBuf> {
        vec![
            self.outcomes_of(agent),
            self.outputs_of(agent),
            self.queue(agent),
            self.scratch(agent),
            self.tmp(agent),
        ]
    }
}
