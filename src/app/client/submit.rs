//! Submitting a task: the record, whole and durable, under a name that must be free.

use serde_json::value::RawValue;

use crate::edge::store::Store;
use crate::protocol::name::{Kind, TaskId};
use crate::protocol::record::{RECORD_LEN_MAX, SMALL_LEN_MAX, encode};
use crate::protocol::status::AgentStatus;
use crate::protocol::task::{TaskRecord, Wishes, id_from_key, id_from_payload};
use crate::protocol::time::Wall;

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

/// What became of a submission. In either case the task is safe when this is returned.
#[derive(Debug)]
pub enum Submitted {
    /// It lies in `tasks/new/`, durable; a supervisor admits it.
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
        // Reading it as a value is what bounds the depth, which keeping it raw would not.
        serde_json::from_str::<serde_json::Value>(text)
            .map_err(|error| refused(format!("not JSON that nightcrew takes: {error}")))?;
        let line = text.trim().replace(['\n', '\r'], " ");
        match RawValue::from_string(line) {
            Ok(raw) => Ok(Self(raw)),
            Err(error) => Err(refused(error.to_string())),
        }
    }

    /// The bytes as the record keeps them; an id by payload is computed over these.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.get().as_bytes()
    }
}

impl<S: Store> Client<S> {
    /// Submits a task. When this returns, the task is durable, or known already.
    ///
    /// # Errors
    /// [`ClientError::Payload`] if the record would be too large, [`ClientError::Io`]. Then nothing was
    /// submitted, or (if only the directory could not be made durable) submitting again is safe.
    pub fn submit(
        &mut self,
        kind: &Kind,
        payload: Payload,
        same: &Sameness,
        now: Wall,
    ) -> Result<Submitted, ClientError> {
        let id = self.id_of(kind, &payload, same);
        if let Some(found) = self.find(&id)?.filter(|found| found.keeps_out(now)) {
            return self.duplicate(found);
        }
        let by = self.caller.name().to_owned();
        let nonce = self.nonce();
        let line = encode(&TaskRecord::submission(
            id.clone(),
            nonce,
            kind.clone(),
            now,
            by,
            payload.0,
            Wishes::default(),
        ));
        if line.len() as u64 > RECORD_LEN_MAX {
            let size = line.len();
            return Err(ClientError::Payload(format!(
                "its record would be {size} bytes, where {RECORD_LEN_MAX} are allowed"
            )));
        }
        if self.publish_new(&self.layout.new_task(&id), &line)? {
            return Ok(Submitted::Accepted(id));
        }
        // Somebody else submitted it between our look and our link. If it is admitted and gone from
        // there by now, it is found elsewhere; if it was refused in the same breath, so would ours be.
        match self.find(&id)? {
            Some(found) => self.duplicate(found),
            None => Err(ClientError::Payload(format!("another submission of {id} was just refused"))),
        }
    }

    /// Whoever submitted it first may not have made its name durable yet, and a second caller relies on it too.
    fn duplicate(&self, found: Found) -> Result<Submitted, ClientError> {
        let dirs = match found.standing {
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
        };
        for path in dirs {
            self.store.sync_dir(&path).map_err(|error| ClientError::Io { path, error })?;
        }
        Ok(Submitted::Duplicate(Box::new(found)))
    }

    /// True if some agent's status says that it handles this kind. A status that cannot be read says nothing.
    ///
    /// # Errors
    /// [`ClientError::Io`], if the statuses cannot be listed.
    pub fn is_handled(&self, kind: &Kind) -> Result<bool, ClientError> {
        let agents = self.agents()?;
        Ok(agents.iter().any(|agent| {
            let status = self.record::<AgentStatus>(&self.layout.status(agent), SMALL_LEN_MAX);
            status.is_ok_and(|status| status.is_some_and(|status| status.handles.contains(kind)))
        }))
    }

    fn id_of(&mut self, kind: &Kind, payload: &Payload, same: &Sameness) -> TaskId {
        match same {
            Sameness::Key(key) => id_from_key(kind, key),
            Sameness::Id(id) => id.clone(),
            Sameness::New => {
                let once = self.nonce();
                id_from_key(kind, &once)
            }
            Sameness::Payload => id_from_payload(kind, payload.as_bytes()),
        }
    }
}
