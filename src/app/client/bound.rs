//! Tasks that are submitted within another: bound to its claim, they count once it is done, and never otherwise.

use crate::edge::store::Store;
use crate::protocol::layout::BoundName;
use crate::protocol::name::{AgentName, TaskId};
use crate::protocol::record::RECORD_LEN_MAX;
use crate::protocol::task::TaskRecord;

use super::finish::Held;
use super::lookup::{Found, LISTED_MAX, Listing, Standing};
use super::{Client, ClientError};

impl<S: Store> Client<S> {
    /// The task within which the caller submits: the one that its process was started for (`given`), else the only
    /// one that its run has claimed. `None` for whoever works on no task, and in a trial, which is no task's.
    ///
    /// # Errors
    /// [`ClientError::SeveralClaims`], or what kept the claims from being read.
    pub fn within(&self, given: Option<Held>) -> Result<Option<Held>, ClientError> {
        if let Some(held) = given {
            return Ok(Some(held).filter(|held| held.token > 0));
        }
        let mut notes = self.notes()?;
        match notes.len() {
            0 | 1 => Ok(notes.pop().map(Held::from)),
            _ => Err(ClientError::SeveralClaims(notes.into_iter().map(|note| note.task).collect())),
        }
    }

    /// Refuses where nothing can be submitted within a claim any more, because it was handed in or taken away. (What
    /// is submitted at this very moment is dropped with the claim, or submitted with its outcome.)
    pub(super) fn still_holds(&self, held: &Held) -> Result<(), ClientError> {
        let outcome = self.layout.outcome(&held.agent, &held.task, held.token, &held.nonce);
        let over = |why: String| Err(ClientError::Over { task: held.task.clone(), why });
        if self.exists(&outcome)? {
            return over("it was handed in".into());
        }
        self.lateness(held).map_or(Ok(()), over)
    }

    /// The task of this id that was submitted within the held one.
    pub(super) fn found_bound(&self, held: &Held, id: &TaskId) -> Result<Option<Found>, ClientError> {
        let path = self.place_of(id, Some(held));
        let record = self.record::<TaskRecord>(&path, RECORD_LEN_MAX)?;
        Ok(record.map(|record| bound(record, held.task.clone())))
    }

    /// Adds every task that is bound to another.
    pub(super) fn list_bound(&self, listing: &mut Listing) -> Result<(), ClientError> {
        let dir = self.layout.bound_dir();
        let agents =
            self.store.list(&dir, LISTED_MAX).map_err(|error| ClientError::Io { path: dir, error })?;
        for agent in agents.iter().filter_map(|entry| entry.name.parse::<AgentName>().ok()) {
            let dir = self.layout.bound_of(&agent);
            let entries = self
                .store
                .list(&dir, LISTED_MAX)
                .map_err(|error| ClientError::Io { path: dir.clone(), error })?;
            for name in entries.iter().filter_map(|entry| BoundName::parse(&entry.name)) {
                let path = self.layout.bound(&agent, &name);
                match self.record::<TaskRecord>(&path, RECORD_LEN_MAX) {
                    Ok(Some(record)) => listing.tasks.push(bound(record, name.task)),
                    Ok(None) => {}
                    Err(error) => listing.unreadable.push(error.to_string()),
                }
            }
        }
        Ok(())
    }
}

fn bound(record: TaskRecord, within: TaskId) -> Found {
    Found { standing: Standing::Bound, record, lock: None, within: Some(within) }
}
