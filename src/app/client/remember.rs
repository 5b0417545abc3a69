//! Shared memory in a caller's own name.

use std::path::Path;

use serde_json::Value;

use crate::edge::store::{Store, parent};
use crate::protocol::name::{AgentName, Key, Name};
use crate::protocol::update::Operation;

use super::memory::{self, Fate};
use super::submit::Payload;
use super::{Client, ClientError};

/// An update that is durable in the caller's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Handed {
    agent: AgentName,
    id: Name,
    submitted: memory::Submitted,
}

impl Handed {
    /// Its number in the queue.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.submitted.seq
    }

    /// The directory in which something changes when the steward has dealt with it.
    #[must_use]
    pub fn queue(&self) -> &Path {
        parent(&self.submitted.path)
    }
}

impl<S: Store> Client<S> {
    /// Hands in an update of shared memory; it is durable when this returns.
    ///
    /// # Errors
    /// [`ClientError::Memory`], [`ClientError::Payload`], [`ClientError::Io`]
    pub fn remember(
        &mut self,
        op: Operation,
        key: &Key,
        value: Option<&Payload>,
    ) -> Result<Handed, ClientError> {
        let value = match value {
            None => None,
            Some(payload) => Some(
                serde_json::from_slice::<Value>(payload.as_bytes())
                    .map_err(|error| ClientError::Payload(error.to_string()))?,
            ),
        };
        let (agent, id) = (self.agent()?, self.fresh_name());
        let temp = self.temp()?;
        self.ensure_dir(&self.layout.queue(&agent))?;
        let submitted = memory::remember(&self.store, &self.layout, &agent, &temp, &id, op, key, value)?;
        Ok(Handed { agent, id, submitted })
    }

    /// What became of an update so far.
    ///
    /// # Errors
    /// [`ClientError::Memory`], if that cannot be told.
    pub fn fate(&self, handed: &Handed) -> Result<Fate, ClientError> {
        let seq = handed.submitted.seq;
        Ok(memory::outcome_of(&self.store, &self.layout, &handed.agent, seq, &handed.id)?)
    }

    /// The value under a key, as JSON with a newline; `None` if there is none.
    ///
    /// # Errors
    /// [`ClientError::Memory`], if it cannot be read.
    pub fn recall(&self, key: &Key) -> Result<Option<Vec<u8>>, ClientError> {
        Ok(memory::recall(&self.store, &self.layout, key)?)
    }
}
