//! What has become of a claim while its owner works, and keeping it.

use crate::edge::store::Store;
use crate::protocol::record::SMALL_LEN_MAX;
use crate::protocol::task::Lock;

use super::finish::Held;
use super::{Client, ClientError};

/// What has become of a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hold {
    /// The task is the claim's.
    Held,
    /// An outcome of this very claim was handed in.
    HandedIn,
    /// It is the claim's no more.
    Lost(String),
}

impl<S: Store> Client<S> {
    /// Looks at what has become of a claim of a process that lives.
    ///
    /// # Errors
    /// [`ClientError`], if that cannot be told.
    pub fn hold(&self, held: &Held) -> Result<Hold, ClientError> {
        if self.exists(&self.layout.outcome(&held.agent, &held.task, held.token, &held.nonce))? {
            return Ok(Hold::HandedIn);
        }
        // What was handed in is removed only once the record names it.
        if self.find(&held.task)?.is_some_and(|found| found.record.decided.contains(&held.nonce)) {
            return Ok(Hold::HandedIn);
        }
        if let Some(why) = self.lateness(held) {
            return Ok(Hold::Lost(why));
        }
        // Only a power cut takes a lock and leaves the claim, and nobody who lives has seen one.
        let lock = self.record::<Lock>(&self.layout.lock(&held.task), SMALL_LEN_MAX)?;
        Ok(if lock.is_some() { Hold::Held } else { Hold::Lost("its lock was taken away".into()) })
    }

    /// Renews a claim that is held: its lock expires only a whole life from now.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn renew(&self, held: &Held) -> Result<(), ClientError> {
        let path = self.layout.lock(&held.task);
        // One that has gone meanwhile is noticed at the next look.
        self.store.touch(&path).map(drop).map_err(|error| ClientError::Io { path, error })
    }
}
