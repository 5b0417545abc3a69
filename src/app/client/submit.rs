//! Submitting a task: the record, whole and durable, under a name that must be free.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::value::RawValue;

use crate::edge::store::Store;
use crate::protocol::name::{Kind, TaskId};
use crate::protocol::record::{RECORD_LEN_MAX, SMALL_LEN_MAX, encode, one_line_json};
use crate::protocol::status::AgentStatus;
use crate::protocol::task::{NEEDS_MAX, TaskRecord, Wishes, id_from_key, id_from_payload};
use crate::protocol::time::{Wall, parse_duration};

use super::finish::Held;
use super::lookup::{Found, Standing};
use super::{Client, ClientError};

/// What makes two submissions the same task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sameness {
    /// The same kind and key.
    Key(String),
    /// The same id, chosen by the submitter.
    Id(TaskId),
    /// Nothing: it is a task of its own.
    New,
    /// The same kind and payload.
    Payload,
}

/// What is submitted.
#[derive(Debug, Clone)]
pub struct Order {
    /// What kind of task it is.
    pub kind: Kind,
    /// What it is about.
    pub payload: Payload,
    /// What makes another submission the same.
    pub same: Sameness,
    /// What its submitter asks for beside.
    pub wishes: Wishes,
}

/// A point in time as a submitter names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// That very one.
    At(Wall),
    /// So many milliseconds from now.
    In(u64),
}

impl When {
    /// The point on the wall clock.
    #[must_use]
    pub fn wall(self, now: Wall) -> Wall {
        match self {
            Self::At(at) => at,
            Self::In(ms) => Wall(now.0.saturating_add(i64::try_from(ms).unwrap_or(i64::MAX))),
        }
    }
}

impl FromStr for When {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(at) = text.parse() {
            return Ok(Self::At(at));
        }
        let expected =
            "is neither a time like 2026-11-20T03:00:00Z nor a length of time like 10m, 1h30m or 2d";
        parse_duration(text).map(Self::In).map_err(|_| format!("{text:?} {expected}"))
    }
}

/// What became of a submission. In either case it is safe when this is returned.
#[derive(Debug)]
pub enum Submitted {
    /// It lies where a supervisor finds it, durable.
    Accepted(TaskId),
    /// The task is known already.
    Duplicate(Box<Found>),
}

/// A payload that was looked at: JSON, in UTF-8, of bounded depth, on one line.
#[derive(Debug, Clone)]
pub struct Payload(Box<RawValue>);

impl Payload {
    /// Looks at what is to be a payload. White space around it goes, and line breaks (which JSON has
    /// between its parts only) become spaces, since a record is one line; all else stays byte for byte.
    ///
    /// # Errors
    /// [`ClientError::Payload`], naming the place.
    pub fn parse(bytes: &[u8]) -> Result<Self, ClientError> {
        let refused = |why: String| ClientError::Payload(why);
        let size = bytes.len() as u64;
        if size > RECORD_LEN_MAX {
            return Err(refused(format!("{size} bytes, where {RECORD_LEN_MAX} are allowed")));
        }
        let text = std::str::from_utf8(bytes)
            .map_err(|error| refused(format!("byte {} is not UTF-8", error.valid_up_to() + 1)))?;
        one_line_json(text)
            .map(Self)
            .map_err(|error| refused(format!("not JSON that nightcrew takes: {error}")))
    }

    /// The bytes as the record keeps them; an id by payload is computed over these.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.get().as_bytes()
    }

    /// The JSON as a record holds it.
    pub(super) fn into_raw(self) -> Box<RawValue> {
        self.0
    }
}

impl<S: Store> Client<S> {
    /// Submits a task, within the task that the caller holds if that is named: then it counts once that one is done,
    /// and never if it is not. When this returns, the submission is durable, or known already.
    ///
    /// # Errors
    /// [`ClientError::Payload`] if the record would be too large, [`ClientError::Refused`] and
    /// [`ClientError::UnknownNeed`] for wishes that cannot be fulfilled, [`ClientError::Over`] if the held task is
    /// the caller's no more, [`ClientError::Io`]. Then nothing was submitted, or (if only the directory could not
    /// be made durable) submitting again is safe.
    pub fn submit(
        &mut self,
        order: Order,
        within: Option<&Held>,
        now: Wall,
    ) -> Result<Submitted, ClientError> {
        if let Some(held) = within {
            self.still_holds(held)?;
        }
        let id = self.id_of(&order);
        if let Some(found) = self.rival(&id, within, now)? {
            return self.duplicate(found, within);
        }
        check_wishes(&id, &order.wishes, now)?;
        for need in &order.wishes.needs {
            if !self.can_be_needed(need, within)? {
                return Err(ClientError::UnknownNeed(need.clone()));
            }
        }
        let line = self.line_of(&id, order, now)?;
        if self.publish_new(&self.place_of(&id, within), &line)? {
            return Ok(Submitted::Accepted(id));
        }
        // Somebody else submitted it between our look and our link. If it is admitted and gone from
        // there by now, it is found elsewhere; if it was refused in the same breath, so would ours be.
        match self.known(&id, within)? {
            Some(found) => self.duplicate(found, within),
            None => Err(ClientError::Payload(format!("another submission of {id} was just refused"))),
        }
    }

    /// Where the record of a submission is published.
    pub(super) fn place_of(&self, id: &TaskId, within: Option<&Held>) -> PathBuf {
        match within {
            Some(held) => self.layout.bound(&held.agent, &held.bound(id)),
            None => self.layout.new_task(id),
        }
    }

    /// The record of a submission as a line.
    pub(super) fn line_of(&mut self, id: &TaskId, order: Order, now: Wall) -> Result<Vec<u8>, ClientError> {
        let by = self.caller.name().to_owned();
        let nonce = self.nonce();
        let Order { kind, payload, wishes, .. } = order;
        let line =
            encode(&TaskRecord::submission(id.clone(), nonce, kind, now, by, payload.into_raw(), wishes));
        if line.len() as u64 > RECORD_LEN_MAX {
            let size = line.len();
            return Err(ClientError::Payload(format!(
                "its record would be {size} bytes, where {RECORD_LEN_MAX} are allowed"
            )));
        }
        Ok(line)
    }

    /// The task that makes a submission of this id a duplicate.
    pub(super) fn rival(
        &self,
        id: &TaskId,
        within: Option<&Held>,
        now: Wall,
    ) -> Result<Option<Found>, ClientError> {
        Ok(self.known(id, within)?.filter(|found| found.keeps_out(now)))
    }

    /// A task of this id, within the held one or anywhere else.
    pub(super) fn known(&self, id: &TaskId, within: Option<&Held>) -> Result<Option<Found>, ClientError> {
        match within.map(|held| self.found_bound(held, id)).transpose()?.flatten() {
            Some(found) => Ok(Some(found)),
            None => self.find(id),
        }
    }

    /// True if there is such a task, or will be when the held one is done.
    pub(super) fn can_be_needed(&self, id: &TaskId, within: Option<&Held>) -> Result<bool, ClientError> {
        if within.is_some() && self.exists(&self.place_of(id, within))? {
            return Ok(true);
        }
        self.is_known(id)
    }

    /// Whoever submitted it first may not have made its name durable yet, and a second caller relies on it too.
    fn duplicate(&self, found: Found, within: Option<&Held>) -> Result<Submitted, ClientError> {
        for dir in self.unsettled(found.standing, within) {
            self.sync_dir(dir)?;
        }
        Ok(Submitted::Duplicate(Box::new(found)))
    }

    /// The directories in which the name of a task that stands so may not be durable yet.
    pub(super) fn unsettled(&self, standing: Standing, within: Option<&Held>) -> Vec<PathBuf> {
        match standing {
            Standing::Bound => within.iter().map(|held| self.layout.bound_of(&held.agent)).collect(),
            // It may be on its way from the one to the other.
            Standing::New | Standing::Ready | Standing::Blocked => {
                vec![self.layout.new_tasks(), self.layout.tasks()]
            }
            Standing::Waiting
            | Standing::Claimed
            | Standing::Gated
            | Standing::Review
            | Standing::Done
            | Standing::Dead => Vec::new(),
        }
    }

    /// The kinds that some agent's status says it handles. A status that cannot be read says nothing.
    ///
    /// # Errors
    /// [`ClientError::Io`], if the statuses cannot be listed.
    pub fn handled(&self) -> Result<BTreeSet<Kind>, ClientError> {
        let statuses = self.agents()?.into_iter().filter_map(|agent| {
            self.record::<AgentStatus>(&self.layout.status(&agent), SMALL_LEN_MAX).ok().flatten()
        });
        Ok(statuses.flat_map(|status| status.handles).collect())
    }

    pub(super) fn id_of(&mut self, order: &Order) -> TaskId {
        let kind = &order.kind;
        match &order.same {
            Sameness::Key(key) => id_from_key(kind, key),
            Sameness::Id(id) => id.clone(),
            Sameness::New => {
                let once = self.nonce();
                id_from_key(kind, &once)
            }
            Sameness::Payload => id_from_payload(kind, order.payload.as_bytes()),
        }
    }
}

/// Refuses what could never be fulfilled.
pub(super) fn check_wishes(id: &TaskId, wishes: &Wishes, now: Wall) -> Result<(), ClientError> {
    let refused = |why: String| Err(ClientError::Refused(why));
    let count = wishes.needs.len();
    if count > NEEDS_MAX {
        return refused(format!(
            "it needs {count} tasks, where {NEEDS_MAX} are allowed: have one task need those, and this one that"
        ));
    }
    if wishes.needs.contains(id) {
        return refused(format!("task {id} would need itself: leave that out"));
    }
    match (wishes.expires, wishes.not_before) {
        (Some(expires), _) if expires <= now => {
            refused(format!("it would expire at {expires}, which is past: name a later time"))
        }
        (Some(expires), Some(begins)) if expires <= begins => refused(format!(
            "it would expire at {expires}, and not begin before {begins}: name a later time to expire at"
        )),
        (Some(_) | None, _) => Ok(()),
    }
}
