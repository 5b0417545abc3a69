//! All that is known of one task: its record, what hangs together with it, and what the ledger tells.

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use crate::edge::store::Store;
use crate::protocol::framing::{Start, scan};
use crate::protocol::layout::{Layout, Shelf};
use crate::protocol::ledger::Entry;
use crate::protocol::name::TaskId;
use crate::protocol::time::Wall;

use super::lookup::{Found, LISTED_MAX, Standing};
use super::{Client, ClientError};

/// How much of the ledger is read, in bytes: its latest segments.
const LEDGER_READ_MAX: u64 = 256 * 1024 * 1024;
/// The most lines of the ledger that are told: the last ones.
const EVENTS_MAX: usize = 1000;

/// What the ledger says happened.
#[derive(Debug, Clone, Serialize)]
pub struct Happened {
    /// When.
    pub at: Wall,
    /// As a sentence.
    pub text: String,
    /// The entry as it stands in the ledger.
    pub entry: Value,
}

/// What the ledger tells of a task.
#[derive(Debug, Default)]
pub struct History {
    /// In order.
    pub events: Vec<Happened>,
    /// True if there may be more that was not looked at, or left out.
    pub is_cut: bool,
}

impl<S: Store> Client<S> {
    /// A task wherever it lies, be it bound to another.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTask`], or what kept its record from being read.
    pub fn task(&self, id: &TaskId) -> Result<Found, ClientError> {
        if let Some(found) = self.find(id)? {
            return Ok(found);
        }
        let bound = self.tasks(&[Standing::Bound])?.tasks;
        let found = bound.into_iter().find(|found| found.record.id == *id);
        found.ok_or_else(|| ClientError::NoSuchTask { task: id.clone(), what: "task" })
    }

    /// The tasks that one needs, and where each stands; nothing where there is no such task any more.
    ///
    /// # Errors
    /// What kept a record from being read.
    pub fn needs_of(&self, found: &Found) -> Result<Vec<(TaskId, Option<Standing>)>, ClientError> {
        let needs = found.record.wishes.needs.iter();
        needs.map(|id| Ok((id.clone(), self.find(id)?.map(|need| need.standing)))).collect()
    }

    /// The tasks that are bound to one.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn bound_to(&self, id: &TaskId) -> Result<Vec<Found>, ClientError> {
        let mut bound = self.tasks(&[Standing::Bound])?.tasks;
        bound.retain(|found| found.within.as_ref() == Some(id));
        Ok(bound)
    }

    /// Where a task's result lies and how long it is, if it has one that was accepted or is to be judged.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn result_of(&self, found: &Found) -> Result<Option<(std::path::PathBuf, u64)>, ClientError> {
        let shelf = match found.standing {
            Standing::Done => Shelf::Done,
            Standing::Dead => Shelf::Dead,
            Standing::Gated | Standing::Review => Shelf::Review,
            Standing::Bound
            | Standing::New
            | Standing::Ready
            | Standing::Waiting
            | Standing::Blocked
            | Standing::Claimed => return Ok(None),
        };
        let path = self.layout.result_on(shelf, &found.record.id);
        match self.store.stat(&path) {
            Ok(stat) => Ok(stat.map(|stat| (path, stat.size))),
            Err(error) => Err(ClientError::Io { path, error }),
        }
    }

    /// What the ledger tells of a task, and of the processes that were started for it.
    ///
    /// # Errors
    /// [`ClientError`], if the ledger cannot be read.
    pub fn history(&self, id: &TaskId) -> Result<History, ClientError> {
        let dir = self.layout.ledger();
        let io = |error| ClientError::Io { path: dir.clone(), error };
        let mut segments: Vec<u64> = self
            .store
            .list(&dir, LISTED_MAX)
            .map_err(io)?
            .iter()
            .filter_map(|entry| Layout::segment_seq(&entry.name))
            .collect();
        segments.sort_unstable();
        let (mut history, mut left) = (History::default(), LEDGER_READ_MAX);
        let mut chosen = Vec::new();
        for path in segments.iter().rev().map(|seq| Layout::segment(&dir, *seq)) {
            let size = self.store.stat(&path).map_err(io)?.map_or(0, |stat| stat.size);
            let Some(rest) = left.checked_sub(size) else {
                history.is_cut = true;
                break;
            };
            left = rest;
            chosen.push(path);
        }
        let mut runs = BTreeSet::new();
        for path in chosen.iter().rev() {
            // The last one grows while it is read.
            let bytes = self.bytes(path, LEDGER_READ_MAX)?.unwrap_or_default();
            for entry in scan(&bytes, Start::Anywhere).entries {
                history.events.extend(event_of(&entry.body(), id, &mut runs));
            }
        }
        let surplus = history.events.len().saturating_sub(EVENTS_MAX);
        history.is_cut |= surplus > 0;
        history.events.drain(..surplus);
        Ok(history)
    }
}

/// What a line of the ledger tells, if it is about this task or one of the runs that were started for it.
fn event_of(line: &str, id: &TaskId, runs: &mut BTreeSet<String>) -> Option<Happened> {
    if !line.contains(id.as_str()) && !runs.iter().any(|run| line.contains(run.as_str())) {
        return None;
    }
    let entry: Value = serde_json::from_str(line).ok()?;
    let field = |name: &str| entry.get(name).and_then(Value::as_str);
    let is_of_task = field("task") == Some(id.as_str());
    if is_of_task && field("event") == Some("started") {
        runs.extend(field("run").map(str::to_owned));
    }
    if !is_of_task && !field("run").is_some_and(|run| runs.contains(run)) {
        return None;
    }
    let at = field("at")?.parse().ok()?;
    // What a later nightcrew wrote is told as it stands.
    let text = serde_json::from_str::<Entry>(line).map_or_else(|_| line.to_owned(), |it| it.fact.to_string());
    Some(Happened { at, text, entry })
}
