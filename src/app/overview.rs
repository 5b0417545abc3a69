//! What the supervisor last said of a crew, and whether it still runs to say so.

use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::edge::flock::{self, Held};
use crate::edge::store::{ReadError, Store};
use crate::protocol::layout::{Layout, RECORD_EXT};
use crate::protocol::name::AgentName;
use crate::protocol::record::{self, RECORD_LEN_MAX, SMALL_LEN_MAX};
use crate::protocol::status::{AgentStatus, CrewStatus, Refusal};
use crate::protocol::time::Wall;

/// The most entries of `status/` that are looked at.
const ENTRIES_MAX: usize = 100_000;

/// Whether somebody supervises the crew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Supervision {
    /// A supervisor runs.
    Running {
        /// Its pid, if it said so.
        pid: Option<u32>,
    },
    /// None runs: what its files say is how it was.
    Stale,
    /// None ever ran here.
    Never,
}

/// An agent, with when it last beat.
#[derive(Debug, Clone, Serialize)]
pub struct Agent {
    /// What the supervisor says.
    #[serde(flatten)]
    pub status: AgentStatus,
    /// When its heartbeat last changed, by the file's own time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_beat: Option<Wall>,
}

/// A crew at a glance.
#[derive(Debug, Clone, Serialize)]
pub struct Overview {
    /// Whether the rest is how things are, or how they were.
    pub supervisor: Supervision,
    /// The whole, as the supervisor last told it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crew: Option<CrewStatus>,
    /// Why the crew is halted, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub halted: Option<String>,
    /// The agents, by name.
    pub agents: Vec<Agent>,
    /// Status files that could not be read, with the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub unreadable: Vec<String>,
}

/// Why a crew cannot be looked at.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {error}")]
pub struct OverviewError {
    /// The file or directory.
    path: PathBuf,
    /// Why.
    error: io::Error,
}

impl Overview {
    /// Reads the crew's status files.
    ///
    /// # Errors
    /// If the crew's directory cannot be looked at. A file that cannot be read is listed as such.
    pub fn read(store: &impl Store, layout: &Layout) -> Result<Self, OverviewError> {
        let at = |path: PathBuf| move |error| OverviewError { path, error };
        let held = flock::probe(layout).map_err(at(layout.crew().to_path_buf()))?;
        let mut unreadable = Vec::new();
        let crew: Option<CrewStatus> = one(store, &layout.crew_status(), &mut unreadable);
        let supervisor = match (held, &crew) {
            (Some(Held::By(holder)), _) => Supervision::Running { pid: Some(holder.process.pid) },
            (Some(Held::Unnamed), _) => Supervision::Running { pid: None },
            (None, Some(_)) => Supervision::Stale,
            (None, None) => Supervision::Never,
        };
        let halted = match store.read(&layout.halt(), SMALL_LEN_MAX) {
            Ok(blob) => Some(String::from_utf8_lossy(&blob.bytes).trim().to_owned()),
            Err(ReadError::Missing) => None,
            // It is there, and that alone is the switch.
            Err(error) => Some(format!("(its reason cannot be read: {error})")),
        };
        let dir = layout.status_dir();
        let entries = store.list(&dir, ENTRIES_MAX).map_err(at(dir))?;
        let mut names: Vec<AgentName> = entries
            .iter()
            .filter_map(|entry| entry.name.strip_suffix(RECORD_EXT)?.strip_suffix('.')?.parse().ok())
            .collect();
        names.sort_unstable();
        let agents = names
            .into_iter()
            .filter_map(|name| {
                let status: AgentStatus = one(store, &layout.status(&name), &mut unreadable)?;
                Some(Agent { last_beat: last_beat(store, layout, &status), status })
            })
            .collect();
        Ok(Self { supervisor, crew, halted, agents, unreadable })
    }

    /// Every refusal, of agents and of files that are no agent's.
    pub fn refusals(&self) -> impl Iterator<Item = &Refusal> {
        let of_agents = self.agents.iter().filter_map(|agent| agent.status.refusal.as_ref());
        let of_crew = self.crew.iter().flat_map(|crew| &crew.refusals);
        let mut told: Vec<&Refusal> = Vec::new();
        for refusal in of_agents.chain(of_crew) {
            if !told.contains(&refusal) {
                told.push(refusal);
            }
        }
        told.into_iter()
    }
}

fn one<T: DeserializeOwned>(store: &impl Store, path: &Path, unreadable: &mut Vec<String>) -> Option<T> {
    let read = match store.read(path, RECORD_LEN_MAX) {
        Ok(blob) => record::decode(&blob.bytes).map_err(|error| error.to_string()),
        Err(ReadError::Missing) => return None,
        Err(error) => Err(error.to_string()),
    };
    read.map_err(|error| unreadable.push(format!("{}: {error}", path.display()))).ok()
}

/// The latest beat of the agent, or of any of its runs where each has its own file.
fn last_beat(store: &impl Store, layout: &Layout, status: &AgentStatus) -> Option<Wall> {
    let own = layout.heartbeat(&status.agent);
    let of_runs = status.runs.iter().map(|run| layout.heartbeat_of_run(&status.agent, &run.run));
    let times = std::iter::once(own).chain(of_runs).filter_map(|path| store.stat(&path).ok().flatten());
    let latest = times.map(|signature| signature.mtime_ns).max()?;
    i64::try_from(latest / 1_000_000).ok().map(Wall)
}
