//! Looking tasks up: where each stands, told from the files alone.

use std::path::Path;

use serde::Serialize;

use crate::edge::store::Store;
use crate::protocol::layout::{RECORD_EXT, Shelf};
use crate::protocol::name::{Kind, TaskId};
use crate::protocol::record::{RECORD_LEN_MAX, SMALL_LEN_MAX};
use crate::protocol::task::{Lock, Phase, TaskRecord};
use crate::protocol::time::Wall;

use super::{Client, ClientError};

/// The most entries of one directory that are looked at.
pub const LISTED_MAX: usize = 100_000;

/// Where a task stands, as a person asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Submitted; no supervisor has admitted it yet.
    New,
    /// May be claimed.
    Ready,
    /// Waits for another try.
    Waiting,
    /// Held by a run.
    Claimed,
    /// Ended well.
    Done,
    /// Ended badly, and for good.
    Dead,
}

impl Standing {
    /// All of them, in the order of a task's life.
    pub const ALL: [Self; 6] = [Self::New, Self::Ready, Self::Waiting, Self::Claimed, Self::Done, Self::Dead];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Ready => "ready",
            Self::Waiting => "waiting",
            Self::Claimed => "claimed",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }
}

/// A task that was found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Where it stands.
    pub standing: Standing,
    /// Its record.
    pub record: TaskRecord,
    /// Who holds it, where it is claimed.
    pub lock: Option<Lock>,
}

/// One line of `tasks`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// The task.
    pub id: TaskId,
    /// Its kind.
    pub kind: Kind,
    /// Where it stands.
    pub state: Standing,
    /// Since when: claimed, ended, or else submitted.
    pub since: Wall,
    /// Not to be tried before this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<Wall>,
    /// The agent that holds it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// How often it failed.
    pub failures: u32,
    /// How its last try failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Found {
    /// The task as a line of a list.
    #[must_use]
    pub fn line(&self) -> Line {
        let record = &self.record;
        let claimed = self.lock.as_ref().map(|lock| lock.at);
        Line {
            id: record.id.clone(),
            kind: record.kind.clone(),
            state: self.standing,
            since: claimed.or(record.ended).unwrap_or(record.at),
            not_before: record.not_before.filter(|_| self.standing == Standing::Waiting),
            owner: self.lock.as_ref().map(|lock| lock.agent.to_string()),
            failures: record.failures,
            error: record.attempts.last().map(|attempt| attempt.error.clone()),
        }
    }
}

/// Tasks that were listed, and what could not be read.
#[derive(Debug, Default)]
pub struct Listing {
    /// The tasks, by id within each state.
    pub tasks: Vec<Found>,
    /// Files that are no task, with the reason.
    pub unreadable: Vec<String>,
}

/// The places where a task's record can lie.
#[derive(Debug, Clone, Copy)]
enum Place {
    New,
    Open,
    Ended(Shelf),
}

/// In the order in which a record moves: one that moves on while we look is met again further on.
const PLACES: [Place; 4] = [Place::New, Place::Open, Place::Ended(Shelf::Done), Place::Ended(Shelf::Dead)];

impl<S: Store> Client<S> {
    /// Finds a task wherever it lies.
    ///
    /// # Errors
    /// [`ClientError`], if its record is there and cannot be read.
    pub fn find(&self, id: &TaskId) -> Result<Option<Found>, ClientError> {
        for place in PLACES {
            let path = match place {
                Place::New => self.layout.new_task(id),
                Place::Open => self.layout.task(id),
                Place::Ended(shelf) => self.layout.ended(shelf, id),
            };
            if let Some(found) = self.found(place, &path, id)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The record on a shelf, which alone tells how a task ended: one that is not yet cleared away elsewhere does not.
    ///
    /// # Errors
    /// [`ClientError`], if it is there and cannot be read.
    pub fn ended(&self, shelf: Shelf, id: &TaskId) -> Result<Option<Found>, ClientError> {
        self.found(Place::Ended(shelf), &self.layout.ended(shelf, id), id)
    }

    /// Lists the tasks that stand as one of `wanted`. A record that cannot be read is named, not fatal.
    ///
    /// # Errors
    /// [`ClientError::Io`], if a directory cannot be listed.
    pub fn tasks(&self, wanted: &[Standing]) -> Result<Listing, ClientError> {
        let mut listing = Listing::default();
        for place in PLACES {
            let (dir, holds): (_, &[Standing]) = match place {
                Place::New => (self.layout.new_tasks(), &[Standing::New]),
                Place::Open => {
                    (self.layout.tasks(), &[Standing::Ready, Standing::Waiting, Standing::Claimed])
                }
                Place::Ended(Shelf::Done) => (self.layout.shelf(Shelf::Done), &[Standing::Done]),
                Place::Ended(Shelf::Dead) => (self.layout.shelf(Shelf::Dead), &[Standing::Dead]),
            };
            if holds.iter().any(|standing| wanted.contains(standing)) {
                self.list_place(place, &dir, wanted, &mut listing)?;
            }
        }
        listing.tasks.sort_by(|a, b| (a.standing, &a.record.id).cmp(&(b.standing, &b.record.id)));
        // A task that moved on while we looked was met twice.
        listing.tasks.dedup_by(|a, b| a.standing == b.standing && a.record.id == b.record.id);
        Ok(listing)
    }

    fn list_place(
        &self,
        place: Place,
        dir: &Path,
        wanted: &[Standing],
        listing: &mut Listing,
    ) -> Result<(), ClientError> {
        let entries =
            self.store.list(dir, LISTED_MAX).map_err(|error| ClientError::Io { path: dir.into(), error })?;
        for entry in entries.iter().filter(|entry| !entry.is_dir) {
            let stem = entry.name.strip_suffix(RECORD_EXT).and_then(|stem| stem.strip_suffix('.'));
            let Some(id) = stem.and_then(|stem| stem.parse::<TaskId>().ok()) else { continue };
            match self.found(place, &dir.join(&entry.name), &id) {
                Ok(Some(found)) if wanted.contains(&found.standing) => listing.tasks.push(found),
                Ok(_) => {}
                Err(error) => listing.unreadable.push(error.to_string()),
            }
        }
        Ok(())
    }

    fn found(&self, place: Place, path: &Path, id: &TaskId) -> Result<Option<Found>, ClientError> {
        let Some(record) = self.record::<TaskRecord>(path, RECORD_LEN_MAX)? else { return Ok(None) };
        let (standing, lock) = match place {
            Place::New => (Standing::New, None),
            Place::Ended(Shelf::Done) => (Standing::Done, None),
            Place::Ended(Shelf::Dead) => (Standing::Dead, None),
            Place::Open => self.standing_of_open(&record, id)?,
        };
        Ok(Some(Found { standing, record, lock }))
    }

    fn standing_of_open(
        &self,
        record: &TaskRecord,
        id: &TaskId,
    ) -> Result<(Standing, Option<Lock>), ClientError> {
        let standing = match record.state {
            Phase::New | Phase::Ready => Standing::Ready,
            Phase::Waiting => Standing::Waiting,
            // Decided, on the way to its shelf.
            Phase::Done => Standing::Done,
            Phase::Dead => Standing::Dead,
        };
        if standing != Standing::Ready {
            return Ok((standing, None));
        }
        // A lock that cannot be read still keeps others out; who holds it is then not known.
        match self.record::<Lock>(&self.layout.lock(id), SMALL_LEN_MAX) {
            Ok(Some(lock)) => Ok((Standing::Claimed, Some(lock))),
            Ok(None) => Ok((Standing::Ready, None)),
            Err(ClientError::Record { .. } | ClientError::Read { .. }) => Ok((Standing::Claimed, None)),
            Err(error) => Err(error),
        }
    }
}
