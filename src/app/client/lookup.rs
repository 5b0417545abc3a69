//! Looking tasks up: where each stands, told from the files alone.

use std::path::Path;

use serde::Serialize;

use crate::edge::store::Store;
use crate::protocol::layout::{RECORD_EXT, Shelf};
use crate::protocol::name::{Kind, Name, TaskId};
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
    /// Submitted within a task that is not done yet: it becomes a task of its own once that one is.
    Bound,
    /// Submitted; no supervisor has admitted it yet.
    New,
    /// May be claimed.
    Ready,
    /// Waits for another try.
    Waiting,
    /// Waits for the tasks that it needs.
    Blocked,
    /// Held by a run.
    Claimed,
    /// Done, and its result is being judged.
    Gated,
    /// Its result did not pass; a person is to decide.
    Review,
    /// Ended well.
    Done,
    /// Ended badly, and for good.
    Dead,
}

impl Standing {
    /// All of them, in the order of a task's life.
    pub const ALL: [Self; 10] = [
        Self::Bound,
        Self::New,
        Self::Ready,
        Self::Waiting,
        Self::Blocked,
        Self::Claimed,
        Self::Gated,
        Self::Review,
        Self::Done,
        Self::Dead,
    ];

    /// The word for it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bound => "bound",
            Self::New => "new",
            Self::Ready => "ready",
            Self::Waiting => "waiting",
            Self::Blocked => "blocked",
            Self::Claimed => "claimed",
            Self::Gated => "gated",
            Self::Review => "review",
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
    /// The task within which it was submitted, while it is bound to that.
    pub within: Option<TaskId>,
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
    /// What it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<Name>,
    /// The task within which it was submitted, while it is bound to that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub within: Option<TaskId>,
    /// How often it failed.
    pub failures: u32,
    /// Why it is a dead letter or to be reviewed, else how its last try failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Found {
    /// Whether another submission of its id is a duplicate: not of a dead letter, nor of what was done long ago.
    #[must_use]
    pub fn keeps_out(&self, now: Wall) -> bool {
        match self.standing {
            Standing::Dead => false,
            Standing::Done => self.record.unique_until.is_none_or(|until| now < until),
            Standing::Bound
            | Standing::New
            | Standing::Ready
            | Standing::Waiting
            | Standing::Blocked
            | Standing::Claimed
            | Standing::Gated
            | Standing::Review => true,
        }
    }

    /// By what a list is sorted; two may submit the same task within theirs.
    fn place_in_list(&self) -> (Standing, &TaskId, Option<&TaskId>) {
        (self.standing, &self.record.id, self.within.as_ref())
    }

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
            not_before: record.wishes.not_before.filter(|_| self.standing == Standing::Waiting),
            owner: self.lock.as_ref().map(|lock| lock.agent.to_string()),
            group: record.wishes.group.clone(),
            within: self.within.clone(),
            failures: record.failures,
            error: record
                .reason
                .clone()
                .or_else(|| record.attempts.last().map(|attempt| attempt.error.clone())),
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
const PLACES: [Place; 5] = [
    Place::New,
    Place::Open,
    Place::Ended(Shelf::Review),
    Place::Ended(Shelf::Done),
    Place::Ended(Shelf::Dead),
];

/// How a task may stand whose record lies in `tasks/`.
const OPEN: [Standing; 5] =
    [Standing::Ready, Standing::Waiting, Standing::Blocked, Standing::Claimed, Standing::Gated];

/// The largest record that is looked at: beside what was submitted it tells of the tries.
const RECORD_READ_MAX: u64 = 2 * RECORD_LEN_MAX;

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
        if wanted.contains(&Standing::Bound) {
            self.list_bound(&mut listing)?;
        }
        for place in PLACES {
            let (dir, holds): (_, &[Standing]) = match place {
                Place::New => (self.layout.new_tasks(), &[Standing::New]),
                Place::Open => (self.layout.tasks(), &OPEN),
                Place::Ended(Shelf::Done) => (self.layout.shelf(Shelf::Done), &[Standing::Done]),
                Place::Ended(Shelf::Dead) => (self.layout.shelf(Shelf::Dead), &[Standing::Dead]),
                Place::Ended(Shelf::Review) => (self.layout.shelf(Shelf::Review), &[Standing::Review]),
            };
            if holds.iter().any(|standing| wanted.contains(standing)) {
                self.list_place(place, &dir, wanted, &mut listing)?;
            }
        }
        listing.tasks.sort_by(|a, b| a.place_in_list().cmp(&b.place_in_list()));
        // A task that moved on while we looked was met twice.
        listing.tasks.dedup_by(|a, b| a.place_in_list() == b.place_in_list());
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
        let Some(record) = self.record::<TaskRecord>(path, RECORD_READ_MAX)? else { return Ok(None) };
        let (standing, lock) = match place {
            Place::New => (Standing::New, None),
            Place::Ended(Shelf::Done) => (Standing::Done, None),
            Place::Ended(Shelf::Dead) => (Standing::Dead, None),
            Place::Ended(Shelf::Review) => (Standing::Review, None),
            Place::Open => self.standing_of_open(&record, id)?,
        };
        Ok(Some(Found { standing, record, lock, within: None }))
    }

    fn standing_of_open(
        &self,
        record: &TaskRecord,
        id: &TaskId,
    ) -> Result<(Standing, Option<Lock>), ClientError> {
        let standing = match record.state {
            Phase::New | Phase::Ready => Standing::Ready,
            Phase::Waiting => Standing::Waiting,
            Phase::Blocked => Standing::Blocked,
            Phase::Gated => Standing::Gated,
            Phase::Review => Standing::Review,
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
