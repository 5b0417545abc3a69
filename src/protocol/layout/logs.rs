//! Where logs lie: the ledger's and memory's segments, and what agents print.

use std::path::{Path, PathBuf};

use super::{Layout, SEGMENT_EXT, below};
use crate::protocol::name::{AgentName, RunId};

/// Why a part of a log was kept aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// A write that was not finished, and never acknowledged.
    Torn,
    /// It was acknowledged once and cannot be believed any more.
    Damaged,
}

impl Layout {
    /// `state/ledger/`
    #[must_use]
    pub fn ledger(&self) -> PathBuf {
        below(&self.state, "ledger")
    }
    /// `DIR/NNNNNNNNNNNNNNNN.jsonl`: a segment of the ledger or the journal, named by its first `seq`.
    #[must_use]
    pub fn segment(dir: &Path, first_seq: u64) -> PathBuf {
        dir.join(format!("{first_seq:016}.{SEGMENT_EXT}"))
    }
    /// The first `seq` of the segment of this name; `None` unless it is written as [`Layout::segment`] writes
    /// it, so that no two names mean one segment.
    #[must_use]
    pub fn segment_seq(name: &str) -> Option<u64> {
        let digits = name.strip_suffix(SEGMENT_EXT)?.strip_suffix('.')?;
        let seq: u64 = digits.parse().ok()?;
        if format!("{seq:016}") == digits { Some(seq) } else { None }
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
        below(&self.state, "alerts")
    }
    /// `state/alerts/KEY.json`: one incident.
    #[must_use]
    pub fn alert(&self, key: &str) -> PathBuf {
        below(&self.alerts(), format!("{key}.json"))
    }
    /// `state/logs/`
    #[must_use]
    pub fn logs(&self) -> PathBuf {
        below(&self.state, "logs")
    }
    /// `state/logs/NAME.log`: what an agent printed, raw.
    #[must_use]
    pub fn log(&self, agent: &AgentName) -> PathBuf {
        below(&self.logs(), format!("{agent}.log"))
    }
    /// Whose log a file in `state/logs/` is, by its name; `None` if it is no log, or one rotated out.
    #[must_use]
    pub fn log_owner(file_name: &str) -> Option<AgentName> {
        file_name.strip_suffix(".log")?.parse().ok()
    }
    /// `state/logs/NAME.idx`: which part of the log is from when, and of which run.
    #[must_use]
    pub fn log_index(&self, agent: &AgentName) -> PathBuf {
        below(&self.logs(), format!("{agent}.idx"))
    }
    /// `state/logs/NAME.log.1` and on: a log that was rotated out, and its index beside it.
    #[must_use]
    pub fn rotated(path: &Path, generation: u32) -> PathBuf {
        with_suffix(path, &format!(".{generation}"))
    }
    /// `state/logs/NAME.RUN.pipe`: the named pipe that a run's output comes through.
    #[must_use]
    pub fn pipe(&self, agent: &AgentName, run: &RunId) -> PathBuf {
        below(&self.logs(), format!("{agent}.{run}.pipe"))
    }
    /// Whose pipe a file in `state/logs/` is, by its name; `None` if it is no pipe's name.
    #[must_use]
    pub fn pipe_owner(file_name: &str) -> Option<(AgentName, RunId)> {
        let (agent, run) = file_name.strip_suffix(".pipe")?.split_once('.')?;
        Some((agent.parse().ok()?, run.parse().ok()?))
    }
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}
