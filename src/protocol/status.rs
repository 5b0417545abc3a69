//! The supervisor's view: `status/NAME.json` for each agent, `crew.json` for the whole.

use serde::{Deserialize, Serialize};

use super::name::{AgentName, Kind, RunId, TaskId};
use super::process::Identity;
use super::time::Wall;

/// The word for where an agent stands; `why` beside it tells the rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// At least one process of it runs.
    Running,
    /// A handler with nothing to do.
    Idle,
    /// Its process is being made.
    Starting,
    /// It is being told to stop.
    Stopping,
    /// It failed and will be started again at `next`.
    Backoff,
    /// It missed its heartbeats: withheld.
    Isolated,
    /// A service that ended well and is not started again.
    Finished,
    /// An operator stopped it, the crew is halted, or the supervisor drains.
    Stopped,
    /// Its manifest says `enabled = false`.
    Disabled,
    /// It cannot or must not run.
    Refused,
}

impl Standing {
    /// The word as it stands in files and on the screen.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Starting => "starting",
            Self::Stopping => "stopping",
            Self::Backoff => "backoff",
            Self::Isolated => "isolated",
            Self::Finished => "finished",
            Self::Stopped => "stopped",
            Self::Disabled => "disabled",
            Self::Refused => "refused",
        }
    }
}

/// A process of an agent, as its status tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunStatus {
    /// Its id.
    pub run: RunId,
    /// Its root process, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub process: Option<Identity>,
    /// Since when.
    pub since: Wall,
    /// The task it handles.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
}

/// `status/NAME.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// The version of the format.
    pub v: u32,
    /// The agent.
    pub agent: AgentName,
    /// Where it stands.
    pub state: Standing,
    /// Why it stands there, in a sentence.
    pub why: String,
    /// Since when.
    pub since: Wall,
    /// `service` or `handler`, or `unknown` for what never ran.
    pub kind: String,
    /// What the manifest says it is for.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub about: String,
    /// The kinds of task it handles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub handles: Vec<Kind>,
    /// How its signs of life are judged: `heartbeat every 5m`, `unchecked` …
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub liveness: String,
    /// When it is started next, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Wall>,
    /// Its processes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub runs: Vec<RunStatus>,
    /// How often it was started again since the supervisor started.
    #[serde(default)]
    pub restarts: u64,
    /// How its last run ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<String>,
    /// What is wrong with the file that should replace the one running (or with the only one).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
}

/// Why a file in `agents/` is not run, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The file, relative to the crew.
    pub file: String,
    /// What is wrong.
    pub reason: String,
    /// What to type or change.
    pub remedy: String,
}

/// `crew.json`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrewStatus {
    /// The version of the format.
    pub v: u32,
    /// The supervisor.
    pub supervisor: Identity,
    /// Its version.
    pub version: String,
    /// Since when it runs.
    pub since: Wall,
    /// `running`, `halted: why`, `draining`, or `failed: why`.
    pub state: String,
    /// What an operator should know: kinds nobody handles, files with bad names, storage errors.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Files in `agents/` that have no agent's name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refusals: Vec<Refusal>,
    /// Tasks that are ready, waiting or claimed.
    #[serde(default)]
    pub tasks_open: u64,
}

/// An incident, in `alerts/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// The version of the format.
    pub v: u32,
    /// What it is about: one incident, one key.
    pub key: String,
    /// When it was opened.
    pub opened: Wall,
    /// When it was last seen.
    pub updated: Wall,
    /// How often.
    pub count: u64,
    /// What happened, for a person.
    pub text: String,
}
