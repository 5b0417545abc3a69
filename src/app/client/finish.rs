//! Handing a task back: the result first, durable, then the outcome; the lock is left to the supervisor.

use std::path::Path;

use crate::edge::store::{ReadError, Store, parent};
use crate::protocol::layout::BoundName;
use crate::protocol::name::{AgentName, TaskId};
use crate::protocol::record::{OUTPUT_LEN_MAX, RECORD_LEN_MAX, SMALL_LEN_MAX, cut, encode};
use crate::protocol::task::{ERROR_LEN_MAX, Lock, Outcome, Phase, TaskRecord, Verdict};

use super::{Caller, Client, ClientError};

/// A task that the caller holds, as far as it knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The task.
    pub task: TaskId,
    /// The token it was claimed with.
    pub token: u64,
    /// The nonce of the claim.
    pub nonce: String,
    /// The agent whose claim it is.
    pub agent: AgentName,
}

impl Held {
    /// What the file of a task is called that is submitted within this claim.
    #[must_use]
    pub fn bound(&self, new: &TaskId) -> BoundName {
        let (task, nonce, new) = (self.task.clone(), self.nonce.clone(), new.clone());
        BoundName { task, token: self.token, nonce, new }
    }
}

impl From<Lock> for Held {
    fn from(lock: Lock) -> Self {
        Self { task: lock.task, token: lock.token, nonce: lock.nonce, agent: lock.agent }
    }
}

/// The result of a task.
#[derive(Debug, Clone, Copy)]
pub enum Output<'a> {
    /// A file, which is copied.
    File(&'a Path),
    /// These bytes.
    Bytes(&'a [u8]),
}

/// When a task that failed is tried again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// As its retries say.
    AsEver,
    /// Likewise, but no sooner than after so many milliseconds.
    After(u64),
    /// Never: it is a dead letter at once.
    Never,
}

/// An outcome of this claim. An error is cut to what is kept of one.
pub(super) fn outcome_of(held: &Held, verdict: Verdict, error: Option<&str>) -> Outcome {
    let error = error.map(|text| cut(text, ERROR_LEN_MAX).to_owned());
    Outcome::new(held.task.clone(), held.token, held.nonce.clone(), verdict, error)
}

/// What was handed in is on record; whoever was late learns it.
fn in_time(held: &Held, late: Option<String>) -> Result<(), ClientError> {
    match late {
        Some(why) => Err(ClientError::TooLate { task: held.task.clone(), why }),
        None => Ok(()),
    }
}

impl<S: Store> Client<S> {
    /// The claim that is meant: the one of task `id`, else the only one that the caller has. `given` is
    /// the claim that a handler was started with.
    ///
    /// # Errors
    /// [`ClientError::NoClaim`], [`ClientError::SeveralClaims`], [`ClientError::NotHeld`], or what kept the
    /// files from being read.
    pub fn held(&self, id: Option<&TaskId>, given: Option<Held>) -> Result<Held, ClientError> {
        let mut all: Vec<Held> = given.into_iter().collect();
        for note in self.notes()? {
            if all.iter().all(|held| held.nonce != note.nonce) {
                all.push(note.into());
            }
        }
        let Some(id) = id else {
            return match all.len() {
                0 => Err(ClientError::NoClaim),
                1 => Ok(all.swap_remove(0)),
                _ => Err(ClientError::SeveralClaims(all.into_iter().map(|held| held.task).collect())),
            };
        };
        match all.into_iter().find(|held| held.task == *id) {
            Some(held) => Ok(held),
            None => self.held_by_lock(id),
        }
    }

    /// A claim that is known by its lock alone, such as one made without our commands.
    fn held_by_lock(&self, id: &TaskId) -> Result<Held, ClientError> {
        let not_held = |why: String| ClientError::NotHeld { task: id.clone(), why };
        let Some(lock) = self.record::<Lock>(&self.layout.lock(id), SMALL_LEN_MAX)? else {
            return Err(not_held("nobody holds it".into()));
        };
        let mine = match &self.caller {
            Caller::Operator => lock.run.is_none() && lock.agent.as_str() == self.caller.name(),
            Caller::Run { run, .. } => lock.run.as_ref() == Some(run),
        };
        if mine { Ok(lock.into()) } else { Err(not_held(format!("{} holds it", lock.agent))) }
    }

    /// Hands in how a held task ended, with its result. When this returns, both are durable; the
    /// supervisor decides on them when it next looks.
    ///
    /// # Errors
    /// [`ClientError::TooLate`] if the claim was visibly taken away: the outcome is handed in for the
    /// record, and will be refused. Else what kept the files from being written.
    pub fn finish(
        &mut self,
        held: &Held,
        verdict: Verdict,
        error: Option<&str>,
        output: Option<Output<'_>>,
    ) -> Result<(), ClientError> {
        let late = self.lateness(held);
        if let Some(output) = output {
            self.store_output(held, output)?;
        }
        self.hand_in(held, &outcome_of(held, verdict, error))?;
        in_time(held, late)
    }

    /// Hands in that a held task failed, and what that means for its next try.
    ///
    /// # Errors
    /// As for [`Client::finish`].
    pub fn fail(&mut self, held: &Held, why: &str, again: Again) -> Result<(), ClientError> {
        let late = self.lateness(held);
        let mut outcome = outcome_of(held, Verdict::Failed, Some(why));
        match again {
            Again::AsEver => {}
            Again::After(ms) => outcome.retry_after_ms = Some(ms),
            Again::Never => outcome.permanent = true,
        }
        self.hand_in(held, &outcome)?;
        in_time(held, late)
    }

    /// Publishes an outcome, then forgets the claim: in this order, so that a crash forgets nothing.
    pub(super) fn hand_in(&mut self, held: &Held, outcome: &Outcome) -> Result<(), ClientError> {
        let path = self.layout.outcome(&held.agent, &held.task, held.token, &held.nonce);
        self.publish(&path, &encode(outcome))?;
        self.forget(&held.task)
    }

    fn store_output(&mut self, held: &Held, output: Output<'_>) -> Result<(), ClientError> {
        let path = self.layout.output(&held.agent, &held.task, held.token);
        match output {
            Output::Bytes(bytes) => {
                if bytes.len() as u64 > OUTPUT_LEN_MAX {
                    let error = ReadError::TooLarge { size: bytes.len() as u64, max: OUTPUT_LEN_MAX };
                    return Err(ClientError::Read { path, error });
                }
                self.publish(&path, bytes)
            }
            Output::File(from) => {
                // To a temp file first: a handler's own output file may be the very one we are to replace.
                let temp = self.temp()?;
                self.ensure_dir(parent(&path))?;
                self.store
                    .copy_durably(from, &temp, OUTPUT_LEN_MAX)
                    .map_err(|error| ClientError::Read { path: from.into(), error })?;
                self.store
                    .rename(&temp, &path)
                    .and_then(|()| self.store.sync_dir(parent(&path)))
                    .map_err(|error| ClientError::Io { path, error })
            }
        }
    }

    /// What shows that the claim is the caller's no more, if anything does. What is missing or cannot be
    /// read shows nothing: it is the supervisor that decides.
    pub(super) fn lateness(&self, held: &Held) -> Option<String> {
        let record = match self.record::<TaskRecord>(&self.layout.task(&held.task), RECORD_LEN_MAX) {
            Ok(Some(record)) => record,
            Ok(None) => return Some("the task has ended, or was removed".into()),
            Err(_) => return None,
        };
        if record.state != Phase::Ready || record.token != held.token {
            return Some("it was taken away from this claim and has another token now".into());
        }
        // A lock may be missing: a power cut can lose it. Then the token alone decides.
        let lock = self.record::<Lock>(&self.layout.lock(&held.task), SMALL_LEN_MAX).ok()??;
        (lock.nonce != held.nonce).then(|| format!("{} holds it now", lock.agent))
    }
}
