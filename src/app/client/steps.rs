//! Steps, as files: what is recorded, what may be paid, and the records themselves.
//!
//! A step's file is published whole by one rename, so there is the old one, the new one or none. All but looking is
//! for who holds the step's lock.

use std::path::PathBuf;

use serde::Serialize;

use crate::edge::store::{Store, parent};
use crate::protocol::layout::Layout;
use crate::protocol::name::{Name, TaskId};
use crate::protocol::record::{RecordError, SMALL_LEN_MAX};
use crate::protocol::step::{
    self, FILE_LEN_MAX, Progress, StepDamage, StepId, StepRecord, encode_begun, encode_done,
};
use crate::protocol::time::Wall;

use super::finish::Held;
use super::lookup::LISTED_MAX;
use super::{Client, ClientError};

/// The most damaged records kept of one step; the last is replaced by what comes then.
const ASIDE_MAX: u32 = 16;

/// What is recorded of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    /// Nothing, or nothing that is still good.
    Nothing,
    /// That it was begun, then.
    Begun(Wall),
    /// What it printed.
    Done(Vec<u8>),
    /// A record that is not to be believed, and why.
    Damaged(StepDamage),
}

/// One line of `steps`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepLine {
    /// The task; none for a step that all share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The step's name.
    pub step: Name,
    /// What else tells it from others of its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hash: Option<Name>,
    /// How its key begins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// `begun` or `done`.
    pub state: &'static str,
    /// When it was begun or done.
    pub at: Wall,
    /// The length of its output, in bytes.
    pub bytes: u64,
    /// Where it is recorded.
    pub file: String,
}

/// Steps that were listed, and what could not be read.
#[derive(Debug, Default)]
pub struct StepListing {
    /// The steps, by task and name.
    pub steps: Vec<StepLine>,
    /// Files that are no step, with the reason.
    pub unreadable: Vec<String>,
}

impl<S: Store> Client<S> {
    /// What is recorded of a step. A result older than `ttl_ms` counts as none; one that is given is durable.
    ///
    /// # Errors
    /// [`ClientError::Record`] for one of a newer version, which is nobody's to replace; [`ClientError::Read`] for
    /// what is no file of ours at all; [`ClientError::Io`]
    pub fn recorded(&self, id: &StepId, ttl_ms: Option<u64>, now: Wall) -> Result<Recorded, ClientError> {
        let path = self.layout.step(id);
        let Some(file) = self.bytes(&path, FILE_LEN_MAX)? else { return Ok(Recorded::Nothing) };
        let (record, output) = match step::decode(&file, id) {
            Ok(read) => read,
            Err(StepDamage::Line(error @ RecordError::Newer(_))) => {
                return Err(ClientError::Record { path, error });
            }
            Err(damage) => return Ok(Recorded::Damaged(damage)),
        };
        match record.state {
            Progress::Begun => Ok(Recorded::Begun(record.at)),
            Progress::Done { .. } if ttl_ms.is_some_and(|ttl| step::is_expired(record.at, ttl, now)) => {
                Ok(Recorded::Nothing)
            }
            Progress::Done { .. } => {
                // Who recorded it may have been killed before its name was durable, and our caller relies on it.
                let dir = parent(&path);
                let synced = self.store.sync_dir(dir);
                synced.map_err(|error| ClientError::Io { path: dir.into(), error })?;
                Ok(Recorded::Done(output.to_vec()))
            }
        }
    }

    /// Makes the directory that a step's lock and record lie in.
    ///
    /// # Errors
    /// [`ClientError::Io`]
    pub fn make_room_for(&self, id: &StepId) -> Result<(), ClientError> {
        self.ensure_dir(&self.layout.steps_of(id.task.as_ref()))
    }

    /// Refuses what costs something while the crew is halted, or once the caller's claim is visibly lost.
    ///
    /// # Errors
    /// [`ClientError::Halted`], [`ClientError::TooLate`], and what kept the kill switch from being looked at.
    pub fn may_pay(&self, held: Option<&Held>) -> Result<(), ClientError> {
        match self.halted()? {
            Some(why) => Err(ClientError::Halted(why)),
            None => self.may_record(held),
        }
    }

    /// Refuses once the caller's claim is visibly lost.
    ///
    /// # Errors
    /// [`ClientError::TooLate`]
    pub fn may_record(&self, held: Option<&Held>) -> Result<(), ClientError> {
        let late = held.and_then(|held| Some((held.task.clone(), self.lateness(held)?)));
        late.map_or(Ok(()), |(task, why)| Err(ClientError::TooLate { task, why }))
    }

    /// Records durably that a step is about to be done.
    ///
    /// # Errors
    /// [`ClientError::Io`]
    pub fn record_begun(&mut self, id: &StepId, key: Option<&str>, now: Wall) -> Result<(), ClientError> {
        self.publish(&self.layout.step(id), &encode_begun(id, key, now))
    }

    /// Records durably what a step printed.
    ///
    /// # Errors
    /// [`ClientError::Io`]
    pub fn record_done(
        &mut self,
        id: &StepId,
        key: Option<&str>,
        output: &[u8],
        now: Wall,
    ) -> Result<(), ClientError> {
        self.publish(&self.layout.step(id), &encode_done(id, key, output, now))
    }

    /// Forgets what is recorded of a step: that it was begun, which it was not, or a damaged record that is kept
    /// aside.
    ///
    /// # Errors
    /// [`ClientError::Io`]
    pub fn forget_step(&self, id: &StepId) -> Result<(), ClientError> {
        let path = self.layout.step(id);
        self.remove(&path)?;
        self.store.sync_dir(parent(&path)).map_err(|error| ClientError::Io { path, error })
    }

    /// Keeps a damaged record aside, with its reason, and gives where. It keeps its own name too: only what replaces
    /// it there ends that, so that no crash makes of "nobody knows" a "never begun".
    ///
    /// # Errors
    /// [`ClientError::Io`]
    pub fn keep_aside(&mut self, id: &StepId, damage: &StepDamage) -> Result<PathBuf, ClientError> {
        let mut aside = self.layout.step_aside(id, 1);
        for copy in 2..=ASIDE_MAX {
            if !self.exists(&aside)? {
                break;
            }
            aside = self.layout.step_aside(id, copy);
        }
        self.remove(&aside)?;
        let linked = self.store.link(&self.layout.step(id), &aside);
        linked.map_err(|error| ClientError::Io { path: aside.clone(), error })?;
        self.publish(&Layout::reason_beside(&aside), format!("{damage}\n").as_bytes())?;
        Ok(aside)
    }

    /// Lists the recorded steps of a task, or of all and those that they share. Outputs are not read, only measured.
    ///
    /// # Errors
    /// [`ClientError::Io`], if a directory cannot be listed.
    pub fn steps(&self, task: Option<&TaskId>) -> Result<StepListing, ClientError> {
        let mut listing = StepListing::default();
        self.list_steps(task, &mut listing)?;
        if task.is_none() {
            let dir = self.layout.steps_of_tasks();
            let tasks = self.store.list(&dir, LISTED_MAX);
            let tasks = tasks.map_err(|error| ClientError::Io { path: dir, error })?;
            for task in tasks.iter().filter_map(|entry| entry.name.parse::<TaskId>().ok()) {
                self.list_steps(Some(&task), &mut listing)?;
            }
        }
        listing.steps.sort_by(|a, b| (&a.task, &a.step, &a.hash).cmp(&(&b.task, &b.step, &b.hash)));
        Ok(listing)
    }

    fn list_steps(&self, task: Option<&TaskId>, listing: &mut StepListing) -> Result<(), ClientError> {
        let dir = self.layout.steps_of(task);
        let entries = self.store.list(&dir, LISTED_MAX);
        for entry in entries.map_err(|error| ClientError::Io { path: dir.clone(), error })? {
            let Some((name, hash)) = Layout::step_named(&entry.name) else { continue };
            let id = StepId { task: task.cloned(), name, hash };
            match self.step_line(&id) {
                Ok(line) => listing.steps.extend(line),
                Err(why) => listing.unreadable.push(why),
            }
        }
        Ok(())
    }

    /// A step as a line of a list; none if its file is gone by now.
    fn step_line(&self, id: &StepId) -> Result<Option<StepLine>, String> {
        let path = self.layout.step(id);
        let told = |why: &dyn std::fmt::Display| format!("{}: {why}", path.display());
        let Some(found) = self.store.stat(&path).map_err(|error| told(&error))? else { return Ok(None) };
        if !found.is_regular() {
            return Err(told(&"not a regular file"));
        }
        let len = usize::try_from(SMALL_LEN_MAX).unwrap_or(usize::MAX);
        let begin = self.store.read_at(&path, 0, len).map_err(|error| told(&error))?;
        let (record, rest): (StepRecord, _) = step::decode_line(&begin).map_err(|error| told(&error))?;
        if record.id() != *id {
            return Err(told(&StepDamage::Other));
        }
        let there = found.size.saturating_sub((begin.len() - rest.len()) as u64);
        let (state, bytes) = match record.state {
            Progress::Begun => ("begun", 0),
            Progress::Done { bytes, .. } => ("done", bytes),
        };
        if there != bytes {
            return Err(told(&StepDamage::Length { found: there, told: bytes }));
        }
        let StepRecord { task, step, hash, key, at, .. } = record;
        Ok(Some(StepLine { task, step, hash, key, state, at, bytes, file: path.display().to_string() }))
    }
}
