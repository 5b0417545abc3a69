//! Where everything lies. Every path and file name of a crew is spelled here and nowhere else.

mod logs;
mod memory;
mod steps;
mod tasks;

use std::path::{Path, PathBuf};

use super::name::{AgentName, Name, RunId, TaskId};
use super::task::OPERATOR;

pub use logs::Kept;
pub(in crate::protocol) use tasks::parse_claim_name;
pub use tasks::{BoundName, Shelf};

/// The ending of a lock's file name.
pub const LOCK_EXT: &str = "lock";
/// The ending of a record's file name.
pub const RECORD_EXT: &str = "json";
/// The ending of a log segment's file name.
pub const SEGMENT_EXT: &str = "jsonl";

/// The ending of a claim note's file name.
const CLAIM_EXT: &str = "claim";

/// The paths of one crew, below its directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    crew: PathBuf,
    state: PathBuf,
}

impl Layout {
    /// The layout of the crew in `crew`, which should be absolute.
    #[must_use]
    pub fn new(crew: impl Into<PathBuf>) -> Self {
        let crew = crew.into();
        Self { state: crew.join("state"), crew }
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
        below(&self.crew, "agents")
    }
    /// `gates/`
    #[must_use]
    pub fn gates(&self) -> PathBuf {
        below(&self.crew, "gates")
    }
    /// `gates/NAME`: judges the results of tasks.
    #[must_use]
    pub fn gate(&self, name: &Name) -> PathBuf {
        below(&self.gates(), name.as_str())
    }
    /// `nightcrew.toml`
    #[must_use]
    pub fn crew_file(&self) -> PathBuf {
        below(&self.crew, "nightcrew.toml")
    }
    /// `.gitignore`
    #[must_use]
    pub fn ignore_file(&self) -> PathBuf {
        below(&self.crew, ".gitignore")
    }
    /// `.env`, every agent's default environment file.
    #[must_use]
    pub fn default_env_file(&self) -> PathBuf {
        below(&self.crew, ".env")
    }
    /// `state/`
    #[must_use]
    pub fn state(&self) -> PathBuf {
        self.state.clone()
    }
    /// `state/supervisor.lock`
    #[must_use]
    pub fn supervisor_lock(&self) -> PathBuf {
        below(&self.state, "supervisor.lock")
    }
    /// `state/crew.json`: the supervisor's view of the whole.
    #[must_use]
    pub fn crew_status(&self) -> PathBuf {
        below(&self.state, "crew.json")
    }
    /// `state/HALT`: the kill switch.
    #[must_use]
    pub fn halt(&self) -> PathBuf {
        below(&self.state, "HALT")
    }
    /// `state/stopped/`
    #[must_use]
    pub fn stopped_dir(&self) -> PathBuf {
        below(&self.state, "stopped")
    }
    /// `state/stopped/NAME`: while it exists, that agent does not run.
    #[must_use]
    pub fn stopped(&self, agent: &AgentName) -> PathBuf {
        below(&self.stopped_dir(), agent.as_str())
    }
    /// `state/finished/`
    #[must_use]
    pub fn finished_dir(&self) -> PathBuf {
        below(&self.state, "finished")
    }
    /// `state/finished/NAME`: the digest of the version of a service that ended well.
    #[must_use]
    pub fn finished(&self, agent: &AgentName) -> PathBuf {
        below(&self.finished_dir(), agent.as_str())
    }
    /// `state/triggers/`
    #[must_use]
    pub fn triggers(&self) -> PathBuf {
        below(&self.state, "triggers")
    }
    /// `state/triggers/NAME.json`: how far a job's schedule is decided about.
    #[must_use]
    pub fn trigger(&self, agent: &AgentName) -> PathBuf {
        below(&self.triggers(), format!("{agent}.json"))
    }
    /// `state/triggers/NAME.files`: what a job with `watch` has handled.
    #[must_use]
    pub fn handled_files(&self, agent: &AgentName) -> PathBuf {
        below(&self.triggers(), format!("{agent}.files"))
    }
    /// `state/requests/`
    #[must_use]
    pub fn requests(&self) -> PathBuf {
        below(&self.state, "requests")
    }
    /// `state/requests/ID.json`
    #[must_use]
    pub fn request(&self, id: &TaskId) -> PathBuf {
        below(&self.requests(), format!("{id}.json"))
    }
    /// `state/requests/answers/`
    #[must_use]
    pub fn answers(&self) -> PathBuf {
        below(&self.requests(), "answers")
    }
    /// `state/requests/answers/ID.json`
    #[must_use]
    pub fn answer(&self, id: &TaskId) -> PathBuf {
        below(&self.answers(), format!("{id}.json"))
    }

    /// `state/status/`
    #[must_use]
    pub fn status_dir(&self) -> PathBuf {
        below(&self.state, "status")
    }
    /// `state/status/NAME.json`: the supervisor's view of an agent.
    #[must_use]
    pub fn status(&self, agent: &AgentName) -> PathBuf {
        below(&self.status_dir(), format!("{agent}.json"))
    }
    /// `state/status/NAME.heartbeat`: the agent's own file.
    #[must_use]
    pub fn heartbeat(&self, agent: &AgentName) -> PathBuf {
        below(&self.status_dir(), format!("{agent}.heartbeat"))
    }
    /// `state/status/NAME.RUN.heartbeat`: where an agent has several runs at once, one file each.
    #[must_use]
    pub fn heartbeat_of_run(&self, agent: &AgentName, run: &RunId) -> PathBuf {
        below(&self.status_dir(), format!("{agent}.{run}.heartbeat"))
    }
    /// `state/status/.canary`: the watchdog's own beat, which proves that beats can be seen at all.
    #[must_use]
    pub fn canary(&self) -> PathBuf {
        below(&self.status_dir(), ".canary")
    }
    /// `state/scratch/NAME/`: the agent's own directory.
    #[must_use]
    pub fn scratch(&self, agent: &AgentName) -> PathBuf {
        below(&self.state, "scratch").join(agent.as_str())
    }
    /// `state/tmp/`
    #[must_use]
    pub fn tmp_dir(&self) -> PathBuf {
        below(&self.state, "tmp")
    }
    /// `state/tmp/NAME/`: where an agent's temporary files are made.
    #[must_use]
    pub fn tmp(&self, agent: &AgentName) -> PathBuf {
        below(&self.tmp_dir(), agent.as_str())
    }
    /// `state/tmp/.supervisor/`: where the supervisor's own are made.
    #[must_use]
    pub fn tmp_of_supervisor(&self) -> PathBuf {
        below(&self.tmp_dir(), ".supervisor")
    }
    /// `state/tmp/.writer/`: where those of the writer are made, which clears it at its start.
    #[must_use]
    pub fn tmp_of_writer(&self) -> PathBuf {
        below(&self.tmp_dir(), ".writer")
    }
    /// `state/tmp/.operator/`: where those of commands outside any run are made.
    #[must_use]
    pub fn tmp_of_operator(&self) -> PathBuf {
        below(&self.tmp_dir(), ".operator")
    }
    /// `state/tmp/NAME/RUN.payload`: a task's payload, for the one run that handles it.
    #[must_use]
    pub fn payload(&self, agent: &AgentName, run: &RunId) -> PathBuf {
        below(&self.tmp(agent), format!("{run}.payload"))
    }
    /// `state/tmp/NAME/RUN.needs`: what became of the tasks that a run's task needed, for that run.
    #[must_use]
    pub fn needs(&self, agent: &AgentName, run: &RunId) -> PathBuf {
        below(&self.tmp(agent), format!("{run}.needs"))
    }
    /// The run that a file in `state/tmp/NAME/` or `state/status/` was made for, if it was for one run alone: of no
    /// use once that is gone.
    #[must_use]
    pub fn run_of_file(file_name: &str) -> Option<RunId> {
        let mut parts = file_name.split('.');
        let ([Some(run), Some("payload" | "needs"), None, None]
        | [Some(run), Some(_), Some(CLAIM_EXT), None]
        | [Some(_), Some(run), Some("heartbeat"), None]) =
            [parts.next(), parts.next(), parts.next(), parts.next()]
        else {
            return None;
        };
        // The length of a ULID: what an agent made by a shorter name is its own.
        if run.len() == 26 { run.parse().ok() } else { None }
    }
    /// `state/tmp/NAME/RUN.ID.claim`: what a run remembers of a claim it made by command.
    #[must_use]
    pub fn claim_note(&self, agent: &AgentName, run: &RunId, id: &TaskId) -> PathBuf {
        below(&self.tmp(agent), format!("{run}.{id}.{CLAIM_EXT}"))
    }
    /// The task that a file in `state/tmp/NAME/` is a claim note of, if it is one of this run.
    #[must_use]
    pub fn claim_noted(file: &str, run: &RunId) -> Option<TaskId> {
        let rest = file.strip_prefix(run.as_str())?.strip_prefix('.')?;
        rest.strip_suffix(CLAIM_EXT)?.strip_suffix('.')?.parse().ok()
    }
    /// `state/tmp/NAME/RUN.output`: the result of a handler that an operator tries out.
    #[must_use]
    pub fn trial_output(&self, agent: &AgentName, run: &RunId) -> PathBuf {
        below(&self.tmp(agent), format!("{run}.output"))
    }
    /// `state/tmp/NAME/RUN.heartbeat`: where an agent beats that an operator tries out.
    #[must_use]
    pub fn trial_heartbeat(&self, agent: &AgentName, run: &RunId) -> PathBuf {
        below(&self.tmp(agent), format!("{run}.heartbeat"))
    }
    /// `state/scratch/NAME/usage.jsonl`: where an agent reports what its calls cost.
    #[must_use]
    pub fn usage(&self, agent: &AgentName) -> PathBuf {
        below(&self.scratch(agent), "usage.jsonl")
    }

    /// Every directory that the supervisor makes at its start, parents first.
    #[must_use]
    pub fn directories(&self) -> Vec<PathBuf> {
        vec![
            self.state(),
            self.stopped_dir(),
            self.finished_dir(),
            self.triggers(),
            self.requests(),
            self.answers(),
            self.tasks(),
            self.new_tasks(),
            self.rejected_tasks(),
            self.ready_dir(),
            self.outcomes(),
            // Watched from the start: what is handed in the moment its directory was made could be missed.
            self.outcomes().join(OPERATOR),
            self.refused_outcomes(),
            self.outputs(),
            self.shelf(Shelf::Done),
            self.shelf(Shelf::Dead),
            self.shelf(Shelf::Review),
            self.bound_dir(),
            self.status_dir(),
            self.memory(),
            self.queues(),
            self.queues().join(OPERATOR),
            self.applied_dir(),
            self.store_dir(),
            self.rejected_updates(),
            self.journal(),
            self.ledger(),
            self.alerts(),
            self.logs(),
            self.state.join("scratch"),
            self.tmp_dir(),
            self.tmp_of_supervisor(),
            self.tmp_of_writer(),
            self.tmp_of_operator(),
        ]
    }

    /// Every directory that belongs to one agent.
    #[must_use]
    pub fn directories_of(&self, agent: &AgentName) -> Vec<PathBuf> {
        vec![
            self.outcomes_of(agent),
            self.outputs_of(agent),
            self.bound_of(agent),
            self.queue(agent),
            self.scratch(agent),
            self.tmp(agent),
        ]
    }
}

/// `dir/name`, in memory of the right size at once: paths are made all the time.
fn below(dir: &Path, name: impl AsRef<Path>) -> PathBuf {
    let name = name.as_ref();
    let mut path = PathBuf::with_capacity(dir.as_os_str().len() + 1 + name.as_os_str().len());
    path.push(dir);
    path.push(name);
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_named_by_its_first_seq() {
        let path = Layout::segment(Path::new("/l"), 42);
        assert_eq!(path, Path::new("/l/0000000000000042.jsonl"));
        assert_eq!(Layout::segment_seq("0000000000000042.jsonl"), Some(42));
        for other in ["42.jsonl", "0000000000000042.jsonl.torn-1", "000000000000004x.jsonl", "ledger.db", ""]
        {
            assert_eq!(Layout::segment_seq(other), None, "{other}");
        }
    }

    #[test]
    fn one_number_has_one_file_name() {
        assert_eq!(Layout::update_seq("1.json"), Some(1));
        assert_eq!(Layout::update_seq("20.json"), Some(20));
        for bad in ["0.json", "01.json", "+1.json", ".json", "1", "1.JSON", "a.json", "1.json.json"] {
            assert_eq!(Layout::update_seq(bad), None, "{bad}");
        }
        assert_eq!(Layout::update_seq("99999999999999999999.json"), None);
    }
}
