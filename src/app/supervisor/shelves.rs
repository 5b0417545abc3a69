//! The records of tasks that ended or wait for a person, read.

use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::Store;
use crate::machine::event::{Found, Need};
use crate::protocol::layout::Shelf;
use crate::protocol::name::TaskId;
use crate::protocol::record::{self, RECORD_LEN_MAX};
use crate::protocol::task::{NEEDS_MAX, TaskRecord};

use super::perform::Unread;
use super::{Helpers, Supervisor};

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// The record of a task that ended, if one lies on a shelf; why, if that cannot be told for the moment.
    pub(super) fn ended_record(&self, id: &TaskId) -> Result<Option<(Shelf, TaskRecord)>, String> {
        for shelf in Shelf::ALL {
            if let Some(record) = self.read_ended(shelf, id)? {
                return Ok(Some((shelf, record)));
            }
        }
        Ok(None)
    }

    /// The record of a task on one shelf, if one lies there.
    pub(super) fn read_ended(&self, shelf: Shelf, id: &TaskId) -> Result<Option<TaskRecord>, String> {
        let path = self.options.layout.ended(shelf, id);
        match self.store.read(&path, RECORD_LEN_MAX * 2).map_err(|error| Unread::because(&path, &error)) {
            Ok(blob) => Ok(record::decode(&blob.bytes).ok()),
            Err(Unread::Lost(_)) => Ok(None),
            Err(Unread::ForNow(why)) => Err(why),
        }
    }

    /// What is known of the tasks that one needs. One that is open has not ended, whatever lies of it on a shelf.
    pub(super) fn needs_of(&self, record: &TaskRecord) -> Result<Vec<(TaskId, Need)>, String> {
        let is_there = |shelf: Shelf, id: &TaskId| {
            let path = self.options.layout.ended(shelf, id);
            let found = self.store.stat(&path).map_err(|error| format!("{}: {error}", path.display()))?;
            Ok::<_, String>(found.is_some())
        };
        let need_of = |id: &TaskId| {
            if self.state.is_open(id) || self.unread.contains_key(id) {
                return Ok((id.clone(), Need::Open));
            }
            if is_there(Shelf::Done, id)? {
                return Ok((id.clone(), Need::Done));
            }
            let need = if is_there(Shelf::Dead, id)? { Need::Dead } else { Need::Open };
            Ok((id.clone(), need))
        };
        record.wishes.needs.iter().take(NEEDS_MAX).map(need_of).collect()
    }

    /// The record of a task that is in review: not of one that was decided about, and whose removal from there a
    /// crash prevented. Tokens only rise, so that of another life which is to be reviewed is higher.
    pub(super) fn in_review(&self, id: &TaskId) -> Result<Option<TaskRecord>, String> {
        let Some(reviewed) = self.read_ended(Shelf::Review, id)? else { return Ok(None) };
        for shelf in [Shelf::Done, Shelf::Dead] {
            let ended = self.read_ended(shelf, id)?;
            if ended.is_some_and(|ended| ended.token >= reviewed.token) {
                return Ok(None);
            }
        }
        Ok(Some(reviewed))
    }
}

/// What a record says of its task, but for what was handed in and accepted for it.
pub(super) fn found_of(record: TaskRecord, needs: Vec<(TaskId, Need)>) -> Found {
    Found {
        id: record.id,
        kind: record.kind,
        nonce: record.nonce,
        token: record.token,
        phase: record.state,
        at: record.at,
        failures: record.failures,
        deferrals: record.deferrals,
        deaths: record.deaths,
        wishes: record.wishes,
        needs,
        made: record.made,
        accepted: None,
        handed_in: Vec::new(),
        lock: None,
    }
}
