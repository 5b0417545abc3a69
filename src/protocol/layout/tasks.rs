//! Where tasks lie, and what hands them from one to the next.

use std::path::{Path, PathBuf};

use super::{LOCK_EXT, Layout, below};
use crate::protocol::name::{AgentName, Kind, Name, TaskId};

/// How much of an odd name is kept, in bytes: with a number and `.reason` it must still be a name.
const ASIDE_STEM_LEN_MAX: usize = 180;
const ASIDE_ENDING_LEN_MAX: usize = 16;

/// Where the record of a task that ended lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shelf {
    /// Done, and its output kept.
    Done,
    /// Failed for good: a dead letter.
    Dead,
    /// Its gate did not pass the result: a person is to decide.
    Review,
}

impl Shelf {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Done, Self::Dead, Self::Review];

    /// The directory's name, which is also the state's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Dead => "dead",
            Self::Review => "review",
        }
    }
}

/// What the name of a task says that was submitted within another: `ID.TOKEN.NONCE.NEW.json`.
///
/// The nonce is the claim's: where a power cut took a lock, two claims may bear one token.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BoundName {
    /// The task that it was submitted within.
    pub task: TaskId,
    /// The token of the claim.
    pub token: u64,
    /// The nonce of the claim.
    pub nonce: String,
    /// The new task.
    pub new: TaskId,
}

impl BoundName {
    /// Reads a file's name; `None` for any other one.
    #[must_use]
    pub fn parse(file: &str) -> Option<Self> {
        let (of, new) = file.strip_suffix(".json")?.rsplit_once('.')?;
        let (task, token, nonce) = parse_claim_name(of)?;
        Some(Self { task, token, nonce: nonce.into(), new: new.parse().ok()? })
    }
}

impl std::fmt::Display for BoundName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}.{}.{}.json", self.task, self.token, self.nonce, self.new)
    }
}

/// Reads `ID.TOKEN.NONCE`. The token is written in one way only (not `+3`, not `03`), so that no two names mean one
/// claim.
pub(in crate::protocol) fn parse_claim_name(text: &str) -> Option<(TaskId, u64, &str)> {
    let mut parts = text.split('.');
    let (id, digits, nonce) = (parts.next()?, parts.next()?, parts.next()?);
    let token: u64 = digits.parse().ok()?;
    let whole = parts.next().is_none() && token.to_string() == digits && nonce.parse::<Name>().is_ok();
    if whole { Some((id.parse().ok()?, token, nonce)) } else { None }
}

impl Layout {
    /// `state/tasks/`
    #[must_use]
    pub fn tasks(&self) -> PathBuf {
        below(&self.state, "tasks")
    }
    /// `state/tasks/tokens`: how far fencing tokens are reserved.
    #[must_use]
    pub fn tokens(&self) -> PathBuf {
        below(&self.tasks(), "tokens")
    }
    /// `state/tasks/new/`
    #[must_use]
    pub fn new_tasks(&self) -> PathBuf {
        below(&self.tasks(), "new")
    }
    /// `state/tasks/new/ID.json`: submitted, not yet admitted.
    #[must_use]
    pub fn new_task(&self, id: &TaskId) -> PathBuf {
        below(&self.new_tasks(), format!("{id}.json"))
    }
    /// `state/tasks/rejected/`: submissions that could not be read, each with its reason.
    #[must_use]
    pub fn rejected_tasks(&self) -> PathBuf {
        below(&self.tasks(), "rejected")
    }
    /// `state/tasks/ID.json`: admitted.
    #[must_use]
    pub fn task(&self, id: &TaskId) -> PathBuf {
        below(&self.tasks(), format!("{id}.json"))
    }
    /// `state/tasks/ID.lock`: claimed.
    #[must_use]
    pub fn lock(&self, id: &TaskId) -> PathBuf {
        below(&self.tasks(), format!("{id}.{LOCK_EXT}"))
    }
    /// `state/tasks/ready/`
    #[must_use]
    pub fn ready_dir(&self) -> PathBuf {
        below(&self.tasks(), "ready")
    }
    /// `state/tasks/ready/KIND`: the next ids of a kind, one a line.
    #[must_use]
    pub fn ready(&self, kind: &Kind) -> PathBuf {
        below(&self.ready_dir(), kind.as_str())
    }
    /// `state/tasks/outcome/`
    #[must_use]
    pub fn outcomes(&self) -> PathBuf {
        below(&self.tasks(), "outcome")
    }
    /// `state/tasks/outcome/AGENT/`
    #[must_use]
    pub fn outcomes_of(&self, agent: &AgentName) -> PathBuf {
        below(&self.outcomes(), agent.as_str())
    }
    /// `state/tasks/outcome/AGENT/ID.TOKEN.NONCE.json`
    #[must_use]
    pub fn outcome(&self, agent: &AgentName, id: &TaskId, token: u64, nonce: &str) -> PathBuf {
        below(&self.outcomes_of(agent), format!("{id}.{token}.{nonce}.json"))
    }
    /// `state/tasks/refused/`: outcomes that came too late or could not be read, each with its reason.
    #[must_use]
    pub fn refused_outcomes(&self) -> PathBuf {
        below(&self.tasks(), "refused")
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
    /// `state/tasks/output/`
    #[must_use]
    pub fn outputs(&self) -> PathBuf {
        below(&self.tasks(), "output")
    }
    /// `state/tasks/output/AGENT/`
    #[must_use]
    pub fn outputs_of(&self, agent: &AgentName) -> PathBuf {
        below(&self.outputs(), agent.as_str())
    }
    /// `state/tasks/output/AGENT/ID.TOKEN`: what a task's owner made.
    #[must_use]
    pub fn output(&self, agent: &AgentName, id: &TaskId, token: u64) -> PathBuf {
        below(&self.outputs_of(agent), format!("{id}.{token}"))
    }
    /// The task and token of an output's file name; `None` for any other name.
    #[must_use]
    pub fn output_of(file_name: &str) -> Option<(TaskId, u64)> {
        let (id, token) = file_name.split_once('.')?;
        Some((id.parse().ok()?, token.parse().ok()?))
    }
    /// `state/tasks/bound/`
    #[must_use]
    pub fn bound_dir(&self) -> PathBuf {
        below(&self.tasks(), "bound")
    }
    /// `state/tasks/bound/AGENT/`
    #[must_use]
    pub fn bound_of(&self, agent: &AgentName) -> PathBuf {
        below(&self.bound_dir(), agent.as_str())
    }
    /// `state/tasks/bound/AGENT/ID.TOKEN.NONCE.NEW.json`: task NEW, submitted by the owner of task ID; it counts once
    /// that one is done.
    #[must_use]
    pub fn bound(&self, agent: &AgentName, name: &BoundName) -> PathBuf {
        below(&self.bound_of(agent), name.to_string())
    }
    /// `state/tasks/done/`, `state/tasks/dead/` or `state/tasks/review/`
    #[must_use]
    pub fn shelf(&self, shelf: Shelf) -> PathBuf {
        below(&self.tasks(), shelf.as_str())
    }
    /// `state/tasks/done/ID.json`, `state/tasks/dead/ID.json` or `state/tasks/review/ID.json`
    #[must_use]
    pub fn ended(&self, shelf: Shelf, id: &TaskId) -> PathBuf {
        below(&self.shelf(shelf), format!("{id}.json"))
    }
    /// `state/tasks/done/ID.output`: the accepted result.
    #[must_use]
    pub fn result(&self, id: &TaskId) -> PathBuf {
        self.result_on(Shelf::Done, id)
    }
    /// `state/tasks/SHELF/ID.output`: on the shelf of reviews, the result that is judged or was not passed; on that
    /// of dead letters, one that was rejected.
    #[must_use]
    pub fn result_on(&self, shelf: Shelf, id: &TaskId) -> PathBuf {
        below(&self.shelf(shelf), format!("{id}.output"))
    }
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
}
