//! Dead letters: which there are, and what becomes of them: another life, or none.
//!
//! A record is moved as a whole and never over another, so that whatever else happens at that moment (somebody submits
//! the same task anew, a supervisor admits this one and it dies once more) nothing is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::str::FromStr;

use crate::edge::store::Store;
use crate::protocol::layout::Shelf;
use crate::protocol::name::{AgentName, Kind, Name, TaskId};
use crate::protocol::record::{RECORD_LEN_MAX, encode};
use crate::protocol::task::TaskRecord;
use crate::protocol::time::Wall;

use super::lookup::{Found, LISTED_MAX, Listing, Standing};
use super::submit::Payload;
use super::{Client, ClientError};

/// How a task may stand that has not ended.
const OPEN: [Standing; 7] = [
    Standing::Bound,
    Standing::New,
    Standing::Ready,
    Standing::Waiting,
    Standing::Blocked,
    Standing::Claimed,
    Standing::Gated,
];

/// What must be so of a dead letter for it to be meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// It is of this kind.
    Kind(Kind),
    /// This agent tried it last.
    Agent(AgentName),
    /// It is of this group.
    Group(Name),
    /// Why it is dead, or how its last try failed, holds these words.
    Error(String),
}

impl Condition {
    /// Whether it is so of this one.
    #[must_use]
    pub fn holds(&self, record: &TaskRecord) -> bool {
        let last = record.attempts.last();
        match self {
            Self::Kind(kind) => record.kind == *kind,
            Self::Agent(agent) => last.is_some_and(|attempt| attempt.agent == *agent),
            Self::Group(group) => record.wishes.group.as_ref() == Some(group),
            Self::Error(words) => {
                let mut told = record.reason.iter().chain(last.map(|attempt| &attempt.error));
                told.any(|text| text.contains(words.as_str()))
            }
        }
    }
}

impl FromStr for Condition {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let name = |value: &str| value.parse::<Name>().map_err(|error| error.to_string());
        match text.split_once(['=', '~']).map(|(field, value)| (field, &text[field.len()..][..1], value)) {
            Some(("kind", "=", value)) => name(value).map(Self::Kind),
            Some(("agent", "=", value)) => name(value).map(Self::Agent),
            Some(("group", "=", value)) => name(value).map(Self::Group),
            Some(("error", "~", value)) if !value.is_empty() => Ok(Self::Error(value.into())),
            Some(_) | None => Err("expected kind=K, agent=A, group=G or error~WORDS".into()),
        }
    }
}

impl<S: Store> Client<S> {
    /// The dead letters of which all of this holds.
    ///
    /// # Errors
    /// [`ClientError::Io`], if they cannot be listed.
    pub fn dead(&self, conditions: &[Condition]) -> Result<Listing, ClientError> {
        let mut listing = self.tasks(&[Standing::Dead])?;
        listing.tasks.retain(|found| conditions.iter().all(|condition| condition.holds(&found.record)));
        Ok(listing)
    }

    /// A task that lies on this shelf.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTask`], or what kept its record from being read.
    pub fn on_shelf(&self, shelf: Shelf, id: &TaskId) -> Result<Found, ClientError> {
        let what = match shelf {
            Shelf::Done => "task done",
            Shelf::Dead => "dead letter",
            Shelf::Review => "task in review",
        };
        self.ended(shelf, id)?.ok_or_else(|| ClientError::NoSuchTask { task: id.clone(), what })
    }

    /// The same dead letters, what is needed before what needs it: who is replayed first lies on no shelf any more, and
    /// is waited for. One that cannot be read stands as if it needed nothing.
    #[must_use]
    pub fn needed_first(&self, ids: &[TaskId]) -> Vec<TaskId> {
        let needs_of = |id: &TaskId| {
            let found = self.ended(Shelf::Dead, id).ok().flatten();
            (id.clone(), found.map(|found| found.record.wishes.needs).unwrap_or_default())
        };
        needed_first(&ids.iter().map(needs_of).collect::<Vec<_>>())
    }

    /// Has a dead letter done again, with another payload if one is given: it becomes a submission that has a history.
    /// If it expired before `now` it may be tried all the same; gives when that was.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTask`], [`ClientError::InTheWay`] if the task was submitted anew meanwhile,
    /// [`ClientError::Payload`] if its record would be too large, [`ClientError::Io`].
    pub fn replay(
        &mut self,
        id: &TaskId,
        payload: Option<Payload>,
        now: Wall,
    ) -> Result<Option<Wall>, ClientError> {
        let Found { mut record, .. } = self.on_shelf(Shelf::Dead, id)?;
        let (from, to) = (self.layout.ended(Shelf::Dead, id), self.layout.new_task(id));
        let in_the_way = |why: &str| ClientError::InTheWay { task: id.clone(), why: why.into() };
        if self.exists(&to)? {
            return Err(in_the_way("is submitted anew already"));
        }
        if self.exists(&self.layout.task(id))? {
            return Err(in_the_way("is open already"));
        }
        let expired = record.wishes.no_longer_expires(now);
        let is_edited = payload.is_some() || expired.is_some();
        if let Some(payload) = payload {
            record.payload = payload.into_raw();
        }
        let line = encode(&record);
        if line.len() as u64 > RECORD_LEN_MAX {
            let why = format!(
                "its record, with its tries, is {} bytes, where {RECORD_LEN_MAX} are allowed: submit it anew",
                line.len()
            );
            return Err(ClientError::Payload(why));
        }
        if is_edited {
            // Where it lies, and then moved like any other: a crash in between leaves the dead letter, edited.
            self.publish(&from, &line)?;
        }
        self.ensure_dir(&self.layout.new_tasks())?;
        match self.store.rename_new(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(in_the_way("was submitted anew this very moment"));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(ClientError::NoSuchTask { task: id.clone(), what: "dead letter" });
            }
            Err(error) => return Err(ClientError::Io { path: from, error }),
        }
        self.sync_dir(self.layout.new_tasks())?;
        self.sync_dir(self.layout.shelf(Shelf::Dead))?;
        Ok(expired)
    }

    /// What open tasks need, each with one that needs it.
    ///
    /// # Errors
    /// [`ClientError::Io`], if they cannot be listed.
    pub fn needed(&self) -> Result<BTreeMap<TaskId, TaskId>, ClientError> {
        // One that has all it needs may still be about to read the results.
        let open = self.tasks(&OPEN)?.tasks;
        let needs = open.into_iter().flat_map(|found| {
            let by = found.record.id;
            found.record.wishes.needs.into_iter().map(move |need| (need, by.clone()))
        });
        Ok(needs.collect())
    }

    /// Removes a dead letter that is none of `needed`, with its steps, and the result that lies with it; true if there
    /// was one.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTask`], [`ClientError::InTheWay`] if it is still needed, [`ClientError::Io`].
    pub fn drop_dead(&self, id: &TaskId, needed: &BTreeMap<TaskId, TaskId>) -> Result<bool, ClientError> {
        self.on_shelf(Shelf::Dead, id)?;
        if let Some(by) = needed.get(id) {
            return Err(ClientError::InTheWay {
                task: id.clone(),
                why: format!("is still needed by task {by}"),
            });
        }
        let result = self.layout.result_on(Shelf::Dead, id);
        let had_result = self.exists(&result)?;
        // The record last: by it all else is found again, should this be cut short.
        let steps = self.layout.steps_of(Some(id));
        let at = |path: &Path| {
            let path = path.to_path_buf();
            move |error| ClientError::Io { path, error }
        };
        for entry in self.store.list(&steps, LISTED_MAX).map_err(at(&steps))? {
            self.remove(&steps.join(entry.file_name))?;
        }
        self.store.remove_dir(&steps).map_err(at(&steps))?;
        self.remove(&result)?;
        self.remove(&self.layout.ended(Shelf::Dead, id))?;
        self.sync_dir(self.layout.shelf(Shelf::Dead))?;
        Ok(had_result)
    }
}

/// Puts tasks, each with what it needs, in an order in which none comes before what it needs, and otherwise leaves them
/// as they are. What needs itself in a circle comes last.
fn needed_first(tasks: &[(TaskId, Vec<TaskId>)]) -> Vec<TaskId> {
    let among: BTreeSet<&TaskId> = tasks.iter().map(|(id, _)| id).collect();
    let mut waiting_for: BTreeMap<&TaskId, Vec<usize>> = BTreeMap::new();
    let mut left: Vec<usize> = Vec::new();
    for (at, (_, needs)) in tasks.iter().enumerate() {
        let needs: BTreeSet<&TaskId> = needs.iter().filter(|need| among.contains(need)).collect();
        left.push(needs.len());
        for need in needs {
            waiting_for.entry(need).or_default().push(at);
        }
    }
    let mut free: BTreeSet<usize> = (0..tasks.len()).filter(|at| left[*at] == 0).collect();
    let mut order = Vec::with_capacity(tasks.len());
    while let Some(at) = free.pop_first() {
        order.push(at);
        for waiting in waiting_for.remove(&tasks[at].0).unwrap_or_default() {
            left[waiting] -= 1;
            if left[waiting] == 0 {
                free.insert(waiting);
            }
        }
    }
    order.extend((0..tasks.len()).filter(|at| left[*at] > 0));
    order.into_iter().map(|at| tasks[at].0.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_comes_before_what_needs_it() {
        let order = |tasks: &[(&str, &[&str])]| {
            let id = |text: &&str| text.parse::<TaskId>().unwrap();
            let tasks: Vec<_> =
                tasks.iter().map(|(of, needs)| (id(of), needs.iter().map(id).collect())).collect();
            needed_first(&tasks).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            order(&[("a", &["b"]), ("b", &["c", "gone"]), ("c", &[]), ("d", &[])]),
            ["c", "b", "a", "d"]
        );
        assert_eq!(order(&[("a", &["c", "c"]), ("b", &[]), ("c", &[])]), ["b", "c", "a"]);
        assert_eq!(order(&[("a", &["b"]), ("b", &["a"]), ("c", &[])]), ["c", "a", "b"], "a circle");
    }
}
