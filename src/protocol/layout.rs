//! Where everything lies. Every path and file name of a crew is spelled here and nowhere else.

use std::path::{Path, PathBuf};

use super::name::{AgentName, Key, Kind, Name, RunId, TaskId};

/// The environment variable that names the crew's directory.
pub const ENV_DIR: &str = "NIGHTCREW_DIR";
/// The environment variable that names the agent.
pub const ENV_AGENT: &str = "NIGHTCREW_AGENT";
/// The environment variable that marks every process of a run with the run's id.
pub const ENV_RUN: &str = "NIGHTCREW_RUN";
/// The environment variable that tells a run its heartbeat file.
pub const ENV_HEARTBEAT: &str = "NIGHTCREW_HEARTBEAT";
/// The environment variable that tells a handler its task's id.
pub const ENV_TASK: &str = "NIGHTCREW_TASK";
/// The environment variable that tells a handler the token its task was claimed with.
pub const ENV_TOKEN: &str = "NIGHTCREW_TOKEN";
/// The environment variable that tells a handler the nonce of its claim.
pub const ENV_NONCE: &str = "NIGHTCREW_NONCE";
/// The ending of a lock's file name.
pub const LOCK_EXT: &str = "lock";
/// The ending of a record's file name.
pub const RECORD_EXT: &str = "json";
/// The ending of a log segment's file name.
pub const SEGMENT_EXT: &str = "jsonl";

/// The ending of a claim note's file name.
const CLAIM_EXT: &str = "claim";
/// How much of an odd name is kept, in bytes: with a number and `.reason` it must still be a name.
const ASIDE_STEM_LEN_MAX: usize = 180;
const ASIDE_ENDING_LEN_MAX: usize = 16;

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

/// Why a part of a log was kept aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A write that was not finished, and never acknowledged.
    Torn,
    /// It was acknowledged once and cannot be believed any more.
    Damaged,
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
    /// `.gitignore`
    #[must_use]
    pub fn ignore_file(&self) -> PathBuf {
        self.crew.join(".gitignore")
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
    /// `state/finished/`
    #[must_use]
    pub fn finished_dir(&self) -> PathBuf {
        self.state().join("finished")
    }
    /// `state/finished/NAME`: the digest of the version of a service that ended well.
    #[must_use]
    pub fn finished(&self, agent: &AgentName) -> PathBuf {
        self.finished_dir().join(agent.as_str())
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
    /// `STEM.ENDING`, or from the second of a name on `STEM.COPY.ENDING`: what was put aside under the name that
    /// it had. A name that leaves no room for more is cut.
    #[must_use]
    pub fn aside_name(name: &str, copy: u32) -> String {
        let (stem, ending) = name.rsplit_once('.').unwrap_or((name, ""));
        let cut = |part: &str, len: usize| part[..part.floor_char_boundary(len)].to_owned();
        let (stem, ending) = (cut(stem, ASIDE_STEM_LEN_MAX), cut(ending, ASIDE_ENDING_LEN_MAX));
        match (copy, ending.is_empty()) {
            (0 | 1, true) => stem,
            (0 | 1, false) => format!("{stem}.{ending}"),
            (_, true) => format!("{stem}-{copy}"),
            (_, false) => format!("{stem}.{copy}.{ending}"),
        }
    }
    /// `STEM.reason`: why the file beside it was put aside.
    #[must_use]
    pub fn reason_beside(aside: &Path) -> PathBuf {
        aside.with_extension("reason")
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
    /// The number in an update's file name; `None` unless it is written as [`Layout::update`] writes it, so
    /// that no two names mean one number.
    #[must_use]
    pub fn update_seq(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(RECORD_EXT)?.strip_suffix('.')?;
        let plain = digits.bytes().all(|b| b.is_ascii_digit()) && !digits.starts_with('0');
        if plain { digits.parse().ok() } else { None }
    }
    /// True for the name of a file that is still being made: it is nobody's business in a queue.
    #[must_use]
    pub fn is_temporary(name: &str) -> bool {
        name.strip_suffix(".tmp").is_some()
    }
    /// The temporary name of a writer of an update: the id makes it its own.
    #[must_use]
    pub fn update_temp(tmp_dir: &Path, id: &Name) -> PathBuf {
        tmp_dir.join(format!("update.{id}.tmp"))
    }
    /// `state/memory/applied/`
    #[must_use]
    pub fn applied_dir(&self) -> PathBuf {
        self.memory().join("applied")
    }
    /// `state/memory/applied/AGENT`
    #[must_use]
    pub fn applied(&self, agent: &AgentName) -> PathBuf {
        self.applied_dir().join(agent.as_str())
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
    /// `state/memory/rejected/AGENT.WHAT.json` and `AGENT.WHAT.reason`: what was rejected, and why. WHAT is
    /// the update's number, or a cleaned file name after `x-`; from the second of a name on, `.COPY` follows.
    #[must_use]
    pub fn rejected_update(&self, agent: &AgentName, what: &str, copy: u32) -> (PathBuf, PathBuf) {
        let stem = if copy <= 1 { format!("{agent}.{what}") } else { format!("{agent}.{what}.{copy}") };
        let dir = self.rejected_updates();
        (dir.join(format!("{stem}.{RECORD_EXT}")), dir.join(format!("{stem}.reason")))
    }
    /// `state/tmp/.supervisor/steward.SERIAL.tmp`: where the steward makes what it publishes.
    #[must_use]
    pub fn steward_temp(&self, serial: u64) -> PathBuf {
        self.tmp_of_supervisor().join(format!("steward.{serial}.tmp"))
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
    /// `DIR/NNNNNNNNNNNNNNNN.jsonl`: a segment of the ledger or the journal, named by its first `seq`.
    #[must_use]
    pub fn segment(dir: &Path, first_seq: u64) -> PathBuf {
        dir.join(format!("{first_seq:016}.{SEGMENT_EXT}"))
    }
    /// The first `seq` of the segment of this name; `None` if it is not a segment's name.
    #[must_use]
    pub fn segment_seq(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(SEGMENT_EXT)?.strip_suffix('.')?;
        let plain = digits.len() >= 16 && digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain { digits.parse().ok() } else { None }
    }
    /// `DIR/.segment.tmp`: a segment while it is made.
    #[must_use]
    pub fn segment_temp(dir: &Path) -> PathBuf {
        dir.join(".segment.tmp")
    }
    /// `SEGMENT.suspect`: after a failed fsync, how much of the segment may be believed.
    #[must_use]
    pub fn segment_suspect(segment: &Path) -> PathBuf {
        with_suffix(segment, ".suspect")
    }
    /// `SEGMENT.torn-N` or `SEGMENT.damaged-N`: what was cut off or cannot be believed, kept for people.
    #[must_use]
    pub fn segment_kept(segment: &Path, why: Kept, n: u32) -> PathBuf {
        let why = match why {
            Kept::Torn => "torn",
            Kept::Damaged => "damaged",
        };
        with_suffix(segment, &format!(".{why}-{n}"))
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
    /// Whose log a file in `state/logs/` is, by its name; `None` if it is no log, or one rotated out.
    #[must_use]
    pub fn log_owner(file_name: &str) -> Option<AgentName> {
        file_name.strip_suffix(".log")?.parse().ok()
    }
    /// `state/logs/NAME.idx`: which part of the log is from when, and of which run.
    #[must_use]
    pub fn log_index(&self, agent: &AgentName) -> PathBuf {
        self.logs().join(format!("{agent}.idx"))
    }
    /// `state/logs/NAME.log.1` and on: a log that was rotated out, and its index beside it.
    #[must_use]
    pub fn rotated(path: &Path, generation: u32) -> PathBuf {
        with_suffix(path, &format!(".{generation}"))
    }
    /// `state/logs/NAME.RUN.pipe`: the named pipe that a run's output comes through.
    #[must_use]
    pub fn pipe(&self, agent: &AgentName, run: &RunId) -> PathBuf {
        self.logs().join(format!("{agent}.{run}.pipe"))
    }
    /// Whose pipe a file in `state/logs/` is, by its name; `None` if it is no pipe's name.
    #[must_use]
    pub fn pipe_owner(file_name: &str) -> Option<(AgentName, RunId)> {
        let (agent, run) = file_name.strip_suffix(".pipe")?.split_once('.')?;
        Some((agent.parse().ok()?, run.parse().ok()?))
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
    /// `state/tmp/.writer/`: where those of the writer are made, which clears it at its start.
    #[must_use]
    pub fn tmp_of_writer(&self) -> PathBuf {
        self.tmp_dir().join(".writer")
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
    /// `state/tmp/NAME/RUN.ID.claim`: what a run remembers of a claim it made by command.
    #[must_use]
    pub fn claim_note(&self, agent: &AgentName, run: &RunId, id: &TaskId) -> PathBuf {
        self.tmp(agent).join(format!("{run}.{id}.{CLAIM_EXT}"))
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
        self.tmp(agent).join(format!("{run}.output"))
    }
    /// `state/tmp/NAME/RUN.heartbeat`: where an agent beats that an operator tries out.
    #[must_use]
    pub fn trial_heartbeat(&self, agent: &AgentName, run: &RunId) -> PathBuf {
        self.tmp(agent).join(format!("{run}.heartbeat"))
    }
    /// `state/scratch/NAME/usage.jsonl`: where an agent reports what its calls cost.
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
            self.finished_dir(),
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
            self.applied_dir(),
            self.store_dir(),
            self.rejected_updates(),
            self.journal(),
            self.ledger(),
            self.alerts(),
            self.logs(),
            self.state().join("scratch"),
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
            self.queue(agent),
            self.scratch(agent),
            self.tmp(agent),
        ]
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_aside_keeps_its_name_as_far_as_there_is_room() {
        assert_eq!(Layout::aside_name("x.json", 1), "x.json");
        assert_eq!(Layout::aside_name("x.json", 2), "x.2.json");
        assert_eq!(Layout::aside_name("bare", 1), "bare");
        assert_eq!(
            Layout::reason_beside(Path::new(&Layout::aside_name("bare", 2))),
            Path::new("bare-2.reason")
        );
        for odd in ["é".repeat(127), "a".repeat(255), format!("a.{}", "é".repeat(126)), ".".repeat(255)] {
            let name = Layout::aside_name(&odd, 100);
            assert!(name.len() < 255 - ".reason".len(), "{name}");
        }
    }

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
