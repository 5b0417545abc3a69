//! Dead letters: which there are, and what becomes of them: another life, or none.
//!
//! A record is moved as a whole and never over another, so that whatever else happens at that moment (somebody submits
//! the same task anew, a supervisor admits this one and it dies once more) nothing is lost.

use std::collections::BTreeMap;
use std::path::Path;
use std::str::FromStr;

use crate::edge::store::Store;
use crate::protocol::layout::Shelf;
use crate::protocol::name::{AgentName, Kind, Name, TaskId};
use crate::protocol::record::{RECORD_LEN_MAX, encode};
use crate::protocol::task::TaskRecord;

use super::lookup::{Found, LISTED_MAX, Listing, Standing};
use super::submit::Payload;
use super::{Client, ClientError};

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

    /// Has a dead letter done again, with another payload if one is given: it becomes a submission that has a history.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTask`], [`ClientError::InTheWay`] if the task was submitted anew meanwhile,
    /// [`ClientError::Payload`] if its record would be too large, [`ClientError::Io`].
    pub fn replay(&mut self, id: &TaskId, payload: Option<Payload>) -> Result<(), ClientError> {
        let Found { mut record, .. } = self.on_shelf(Shelf::Dead, id)?;
        let (from, to) = (self.layout.ended(Shelf::Dead, id), self.layout.new_task(id));
        let in_the_way = |why: &str| ClientError::InTheWay { task: id.clone(), why: why.into() };
        if self.exists(&to)? {
            return Err(in_the_way("is submitted anew already"));
        }
        if self.exists(&self.layout.task(id))? {
            return Err(in_the_way("is open already"));
        }
        let is_edited = payload.is_some();
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
        self.sync_dir(self.layout.shelf(Shelf::Dead))
    }

    /// What open tasks need, each with one that needs it.
    ///
    /// # Errors
    /// [`ClientError::Io`], if they cannot be listed.
    pub fn needed(&self) -> Result<BTreeMap<TaskId, TaskId>, ClientError> {
        let open = self.tasks(&[Standing::New, Standing::Blocked])?.tasks;
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
