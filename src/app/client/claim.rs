//! Claiming a task, exactly as docs/protocol.md has it: publish the lock whole by link, then verify.
//!
//! Only a supervisor unlinks a lock. A claim that turns out to be void is therefore handed back by an
//! outcome, like any other.
//!
//! Inside a run, a note in the agent's temp directory remembers the claim, so that the verbs after it
//! need no id. The note is written first and the lock second: a crash in between leaves a note whose
//! lock is somebody else's or nobody's, which [`Client::notes`] passes over.

use std::io;
use std::path::PathBuf;

use crate::edge::store::Store;
use crate::protocol::layout::Layout;
use crate::protocol::name::{AgentName, Kind, TaskId};
use crate::protocol::process::Identity;
use crate::protocol::record::{RECORD_LEN_MAX, SMALL_LEN_MAX, VERSION, encode};
use crate::protocol::task::{Lock, OPERATOR, Phase, TaskRecord, Verdict, parse_outcome_name};
use crate::protocol::time::Wall;

use super::finish::outcome_of;
use super::lookup::LISTED_MAX;
use super::{Caller, Client, ClientError};

/// The most candidates of one kind that a call looks at.
const CANDIDATES_MAX: usize = 1000;
/// The most kinds that a call without kinds looks at.
const KINDS_MAX: usize = 1000;

/// A task that the caller now holds.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Its record.
    pub record: TaskRecord,
    /// The lock by which it is held.
    pub lock: Lock,
}

/// What came of trying one candidate.
#[derive(Debug)]
pub(super) enum Try {
    Got(Box<Claim>),
    /// Somebody else has it, or it is not to be had.
    Next,
}

impl<S: Store> Client<S> {
    /// Claims the next task of one of these kinds, or of any, for the process `owner`: the root of the
    /// caller's run, or outside any run the process whose end gives the task up. `None` if there is none.
    ///
    /// # Errors
    /// [`ClientError::Halted`] and [`ClientError::Stopped`], [`ClientError::Io`].
    pub fn claim(
        &mut self,
        kinds: &[Kind],
        owner: &Identity,
        now: Wall,
    ) -> Result<Option<Claim>, ClientError> {
        self.may_claim()?;
        let kinds = if kinds.is_empty() { self.ready_kinds()? } else { kinds.to_vec() };
        for kind in &kinds {
            for id in self.candidates(kind)? {
                match self.try_claim(&id, kind, owner, now)? {
                    Try::Got(claim) => return Ok(Some(*claim)),
                    Try::Next => {}
                }
            }
        }
        Ok(None)
    }

    /// True if something of these kinds, or of any, may be about to be had: it is listed as ready, or a supervisor
    /// has yet to look at a submission.
    ///
    /// # Errors
    /// [`ClientError::Io`], [`ClientError::Read`].
    pub fn may_come(&self, kinds: &[Kind], is_supervised: bool) -> Result<bool, ClientError> {
        let kinds = if kinds.is_empty() { self.ready_kinds()? } else { kinds.to_vec() };
        for kind in &kinds {
            if !self.candidates(kind)?.is_empty() {
                return Ok(true);
            }
        }
        let dir = self.layout.new_tasks();
        let submitted = self.store.list(&dir, 1).map_err(|error| ClientError::Io { path: dir, error })?;
        Ok(is_supervised && !submitted.is_empty())
    }

    /// Refuses while the crew is halted or the caller's agent is stopped.
    fn may_claim(&self) -> Result<(), ClientError> {
        if let Some(why) = self.halted()? {
            return Err(ClientError::Halted(why));
        }
        match &self.caller {
            Caller::Operator => Ok(()),
            Caller::Run { agent, .. } => match self.stopped(agent)? {
                Some(why) => Err(ClientError::Stopped { agent: agent.clone(), why }),
                None => Ok(()),
            },
        }
    }

    fn ready_kinds(&self) -> Result<Vec<Kind>, ClientError> {
        let dir = self.layout.ready_dir();
        let entries =
            self.store.list(&dir, KINDS_MAX).map_err(|error| ClientError::Io { path: dir, error })?;
        let mut kinds: Vec<Kind> = entries
            .iter()
            .filter(|entry| entry.is_file)
            .filter_map(|entry| entry.name.parse().ok())
            .collect();
        kinds.sort();
        Ok(kinds)
    }

    fn candidates(&self, kind: &Kind) -> Result<Vec<TaskId>, ClientError> {
        let Some(bytes) = self.bytes(&self.layout.ready(kind), RECORD_LEN_MAX)? else {
            return Ok(Vec::new());
        };
        let text = String::from_utf8_lossy(&bytes);
        Ok(text.lines().filter_map(|line| line.trim().parse().ok()).take(CANDIDATES_MAX).collect())
    }

    fn try_claim(
        &mut self,
        id: &TaskId,
        kind: &Kind,
        owner: &Identity,
        now: Wall,
    ) -> Result<Try, ClientError> {
        let path = self.layout.lock(id);
        let Some(record) = self.ready_record(id) else { return Ok(Try::Next) };
        if record.kind != *kind || self.exists(&path)? || self.is_handed_in(&record)? {
            return Ok(Try::Next);
        }
        let lock = Lock {
            v: VERSION,
            task: id.clone(),
            token: record.token,
            nonce: self.nonce(),
            agent: self.agent()?,
            run: match &self.caller {
                Caller::Operator => None,
                Caller::Run { run, .. } => Some(run.clone()),
            },
            owner: Some(owner.clone()),
            at: now,
        };
        self.note(&lock)?;
        if !self.link_lock(&lock)? {
            self.give_way(id)?;
            return Ok(Try::Next);
        }
        self.verify(Claim { record, lock })
    }

    /// True if an owner has handed in the task as it is now. A power cut may have taken that owner's lock, and its
    /// outcome would be refused if another held the task when a supervisor comes to look.
    fn is_handed_in(&self, record: &TaskRecord) -> Result<bool, ClientError> {
        let list = |dir: PathBuf| {
            let listed = self.store.list(&dir, LISTED_MAX);
            listed.map_err(|error| ClientError::Io { path: dir, error })
        };
        let of_it = |name: &str| {
            parse_outcome_name(name).is_some_and(|(id, token, _)| id == record.id && token == record.token)
        };
        let outcomes = self.layout.outcomes();
        for agent in list(outcomes.clone())?.iter().filter(|entry| entry.is_dir) {
            if list(outcomes.join(&agent.name))?.iter().any(|entry| of_it(&entry.name)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Publishes the lock, whole; false if the task is locked already.
    ///
    /// No lock outlives a boot (the supervisor voids it then), so none is made durable.
    pub(super) fn link_lock(&mut self, lock: &Lock) -> Result<bool, ClientError> {
        let temp = self.temp()?;
        let path = self.layout.lock(&lock.task);
        let linked =
            self.store.write_new(&temp, &encode(lock), false).and_then(|()| self.store.link(&temp, &path));
        let removed = self.store.unlink(&temp);
        match linked {
            Ok(()) => removed.map(|()| true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => removed.map(|()| false),
            Err(error) => Err(error),
        }
        .map_err(|error| ClientError::Io { path, error })
    }

    /// Whether the claim holds: what was looked at before the link may have changed until it.
    pub(super) fn verify(&mut self, claim: Claim) -> Result<Try, ClientError> {
        let lock = &claim.lock;
        let mine = self
            .record::<Lock>(&self.layout.lock(&lock.task), SMALL_LEN_MAX)?
            .is_some_and(|found| found.nonce == lock.nonce);
        let ready = self.ready_record(&lock.task).is_some_and(|record| record.token == lock.token);
        let allowed = self.may_claim();
        if mine && ready && allowed.is_ok() {
            return Ok(Try::Got(Box::new(claim)));
        }
        let held = claim.lock.into();
        self.hand_in(&held, &outcome_of(&held, Verdict::Released, None))?;
        allowed.map(|()| Try::Next)
    }

    /// The record of a task that may be claimed; any other is none of ours to judge.
    fn ready_record(&self, id: &TaskId) -> Option<TaskRecord> {
        let record: TaskRecord = self.record(&self.layout.task(id), RECORD_LEN_MAX).ok()??;
        (record.state == Phase::Ready && record.token > 0 && record.id == *id).then_some(record)
    }

    /// The name that the caller's locks and outcomes bear.
    pub(super) fn agent(&self) -> Result<AgentName, ClientError> {
        match &self.caller {
            Caller::Run { agent, .. } => Ok(agent.clone()),
            Caller::Operator => OPERATOR.parse().map_err(|_| ClientError::NoClaim),
        }
    }

    /// Remembers a claim of this run.
    pub(super) fn note(&mut self, lock: &Lock) -> Result<(), ClientError> {
        let Caller::Run { agent, run } = &self.caller else { return Ok(()) };
        let path = self.layout.claim_note(agent, run, &lock.task);
        let temp = self.temp()?;
        self.store
            .publish_volatile(&temp, &path, &encode(lock))
            .map_err(|error| ClientError::Io { path, error })
    }

    /// Forgets a claim of this run.
    pub(in crate::app) fn forget(&self, id: &TaskId) -> Result<(), ClientError> {
        match &self.caller {
            Caller::Operator => Ok(()),
            Caller::Run { agent, run } => self.remove(&self.layout.claim_note(agent, run, id)),
        }
    }

    /// Somebody else was quicker. If that was another process of this run, the note is to be of its claim, which
    /// ours has overwritten.
    fn give_way(&mut self, id: &TaskId) -> Result<(), ClientError> {
        let Caller::Run { run, .. } = self.caller.clone() else { return Ok(()) };
        match self.record::<Lock>(&self.layout.lock(id), SMALL_LEN_MAX) {
            Ok(Some(lock)) if lock.run.as_ref() == Some(&run) => self.note(&lock),
            Ok(_) | Err(_) => self.forget(id),
        }
    }

    /// The claims that this run made by command and has not finished.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn notes(&self) -> Result<Vec<Lock>, ClientError> {
        let Caller::Run { agent, run } = &self.caller else { return Ok(Vec::new()) };
        let dir = self.layout.tmp(agent);
        let entries =
            self.store.list(&dir, LISTED_MAX).map_err(|error| ClientError::Io { path: dir, error })?;
        let mut notes = Vec::new();
        for id in entries.iter().filter_map(|entry| Layout::claim_noted(&entry.name, run)) {
            let path = self.layout.claim_note(agent, run, &id);
            match self.record::<Lock>(&path, SMALL_LEN_MAX) {
                Ok(Some(note)) if self.was_mine(&note)? => notes.push(note),
                // Not removed: it may belong to a claim that another process of this run is just making.
                Ok(_) | Err(ClientError::Record { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(notes)
    }

    /// False for a note whose claim never came to be: its task is untouched and nobody's, or another
    /// claimed it with this very token. A claim that was taken away has another token in its record.
    fn was_mine(&self, note: &Lock) -> Result<bool, ClientError> {
        match self.record::<Lock>(&self.layout.lock(&note.task), SMALL_LEN_MAX) {
            Ok(Some(lock)) => Ok(lock.nonce == note.nonce || lock.token != note.token),
            Ok(None) => Ok(self.ready_record(&note.task).is_none_or(|record| record.token != note.token)),
            Err(ClientError::Record { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
