//! What commands do by files alone: submit, claim, hand in, look up, halt.
//!
//! All of it is generic over [`Store`], so that a simulator runs this very code against the supervisor's.
//! Nothing here needs a supervisor to run: each call publishes a file whole, and the supervisor's scan
//! finds it. Time is a parameter.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::edge::store::{ReadError, Store, parent, temp_name};
use crate::protocol::layout::Layout;
use crate::protocol::name::{AgentName, Name, RunId, TaskId};
use crate::protocol::record::{self, RecordError};
use crate::protocol::task::OPERATOR;

pub mod batch;
pub mod beat;
pub mod bound;
pub mod claim;
pub mod control;
pub mod dead;
pub mod ended;
pub mod finish;
pub mod history;
pub mod hold;
pub mod lookup;
pub mod memory;
pub mod remember;
pub mod review;
pub mod steps;
pub mod submit;
#[cfg(test)]
pub(in crate::app) mod tests;

/// Who calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A person, or a program outside any run.
    Operator,
    /// A process of a run.
    Run {
        /// The agent.
        agent: AgentName,
        /// The run.
        run: RunId,
    },
}

impl Caller {
    /// The name that records bear: the agent's, or `operator`.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Operator => OPERATOR,
            Self::Run { agent, .. } => agent.as_str(),
        }
    }
}

/// Why a call did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A file could not be read, or must not be.
    #[error("{path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        error: ReadError,
    },
    /// A file is not the record it should be.
    #[error("{path}: {error}")]
    Record {
        /// The file.
        path: PathBuf,
        /// Why.
        error: RecordError,
    },
    /// Shared memory could not be used.
    #[error(transparent)]
    Memory(#[from] memory::MemoryError),
    /// What was handed in as a payload is none.
    #[error("the payload is refused: {0}")]
    Payload(String),
    /// What is asked cannot be done, whoever asks: the words say why, and what to do.
    #[error("{0}")]
    Refused(String),
    /// A task is to wait for one that nobody knows.
    #[error("it needs task {0}, and there is no such task")]
    UnknownNeed(TaskId),
    /// A line of a batch is refused, and with it the batch.
    #[error("line {line}: {error}")]
    Line {
        /// Which, from 1.
        line: usize,
        /// Why.
        error: Box<ClientError>,
    },
    /// There is no such task where one was looked for.
    #[error("there is no {what} {task}")]
    NoSuchTask {
        /// Its id.
        task: TaskId,
        /// What was looked for: `task`, `dead letter`, …
        what: &'static str,
    },
    /// The task stands elsewhere than is needed for what is asked.
    #[error("task {task} {why}")]
    InTheWay {
        /// Its id.
        task: TaskId,
        /// What is in the way.
        why: String,
    },
    /// The claim within which something was to be done is the caller's no more.
    #[error("task {task} is not this caller's any more: {why}")]
    Over {
        /// The task that was claimed.
        task: TaskId,
        /// What happened.
        why: String,
    },
    /// The crew is halted.
    #[error("the crew is halted: {0}")]
    Halted(String),
    /// The caller's agent is stopped.
    #[error("{agent} is stopped: {why}")]
    Stopped {
        /// The agent.
        agent: AgentName,
        /// The reason given.
        why: String,
    },
    /// The caller holds no task.
    #[error("no claimed task is known here")]
    NoClaim,
    /// The caller holds several tasks and did not say which is meant.
    #[error("this run holds several tasks: {}", .0.iter().map(TaskId::as_str).collect::<Vec<_>>().join(", "))]
    SeveralClaims(Vec<TaskId>),
    /// The task is not the caller's.
    #[error("task {task} is not held by this caller: {why}")]
    NotHeld {
        /// The task.
        task: TaskId,
        /// Who holds it, or that nobody does.
        why: String,
    },
    /// The claim was taken away meanwhile.
    #[error("too late for task {task}: {why}")]
    TooLate {
        /// The task.
        task: TaskId,
        /// What happened to it.
        why: String,
    },
}

/// A caller's hands: one crew's files, seen and changed by the protocol's rules.
#[derive(Debug)]
pub struct Client<S> {
    store: S,
    layout: Layout,
    caller: Caller,
    random: fastrand::Rng,
    pid: u32,
    serial: u64,
}

impl<S: Store> Client<S> {
    /// A client for `caller`, whose process is `pid`; `random` must be seeded differently in each process.
    #[must_use]
    pub fn new(store: S, layout: Layout, caller: Caller, pid: u32, mut random: fastrand::Rng) -> Self {
        // What an earlier process of this pid left behind must not be in the way.
        let serial = random.u64(..u64::from(u32::MAX));
        Self { store, layout, caller, random, pid, serial }
    }

    /// Where the crew's files lie.
    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Who calls.
    #[must_use]
    pub fn caller(&self) -> &Caller {
        &self.caller
    }

    /// The files.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Random text that nobody has had before: for nonces and ids.
    pub fn nonce(&mut self) -> String {
        format!("{:016x}{:08x}", self.random.u64(..), self.random.u32(..))
    }

    /// A name that nobody has had before: for ids.
    fn fresh_name(&mut self) -> Name {
        Name::from_hex(&self.random.u128(..).to_be_bytes())
    }

    /// A path for a temporary file of this caller's, on the file system of the crew; its directory is there.
    ///
    /// # Errors
    /// [`ClientError::Io`], if the directory is missing and cannot be made.
    pub fn temp(&mut self) -> Result<PathBuf, ClientError> {
        let dir = match &self.caller {
            Caller::Operator => self.layout.tmp_of_operator(),
            Caller::Run { agent, .. } => self.layout.tmp(agent),
        };
        self.ensure_dir(&dir)?;
        self.serial += 1;
        Ok(temp_name(&dir, self.pid, self.serial))
    }

    /// Writes a copy for somebody to edit; gives its path.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn draft(&mut self, bytes: &[u8]) -> Result<PathBuf, ClientError> {
        let path = self.temp()?;
        match self.store.write_new(&path, bytes, false) {
            Ok(()) => Ok(path),
            Err(error) => Err(ClientError::Io { path, error }),
        }
    }

    /// Reads what became of such a copy.
    ///
    /// # Errors
    /// [`ClientError::Read`], also if it is gone.
    pub fn take_draft(&self, path: &Path, max: u64) -> Result<Vec<u8>, ClientError> {
        match self.store.read(path, max) {
            Ok(blob) => Ok(blob.bytes),
            Err(error) => Err(ClientError::Read { path: path.into(), error }),
        }
    }

    /// Removes such a copy.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn discard(&self, path: &Path) -> Result<(), ClientError> {
        self.remove(path)
    }

    /// Makes a directory that a supervisor would have made at its start, durably.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn ensure_dir(&self, dir: &Path) -> Result<(), ClientError> {
        let failed = |error| ClientError::Io { path: dir.into(), error };
        if self.store.stat(dir).map_err(failed)?.is_some() || dir == parent(dir) {
            return Ok(());
        }
        self.ensure_dir(parent(dir))?;
        self.store.create_dir(dir).and_then(|()| self.store.sync_dir(parent(dir))).map_err(failed)
    }

    /// Publishes a record durably, replacing what was there.
    fn publish(&mut self, path: &Path, bytes: &[u8]) -> Result<(), ClientError> {
        let temp = self.temp()?;
        self.ensure_dir(parent(path))?;
        self.store.publish(&temp, path, bytes).map_err(|error| ClientError::Io { path: path.into(), error })
    }

    /// Publishes a record durably under a name that must be free; false if it is taken.
    fn publish_new(&mut self, path: &Path, bytes: &[u8]) -> Result<bool, ClientError> {
        let temp = self.temp()?;
        self.ensure_dir(parent(path))?;
        match self.store.publish_new(&temp, path, bytes) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(ClientError::Io { path: path.into(), error }),
        }
    }

    /// Reads a record that may be missing.
    fn record<T: DeserializeOwned>(&self, path: &Path, max: u64) -> Result<Option<T>, ClientError> {
        let Some(bytes) = self.bytes(path, max)? else { return Ok(None) };
        match record::decode(&bytes) {
            Ok(record) => Ok(Some(record)),
            Err(error) => Err(ClientError::Record { path: path.into(), error }),
        }
    }

    fn bytes(&self, path: &Path, max: u64) -> Result<Option<Vec<u8>>, ClientError> {
        match self.store.read(path, max) {
            Ok(blob) => Ok(Some(blob.bytes)),
            Err(ReadError::Missing) => Ok(None),
            Err(error) => Err(ClientError::Read { path: path.into(), error }),
        }
    }

    fn exists(&self, path: &Path) -> Result<bool, ClientError> {
        let found = self.store.stat(path).map_err(|error| ClientError::Io { path: path.into(), error })?;
        Ok(found.is_some())
    }

    fn sync_dir(&self, path: PathBuf) -> Result<(), ClientError> {
        self.store.sync_dir(&path).map_err(|error| ClientError::Io { path, error })
    }

    fn remove(&self, path: &Path) -> Result<(), ClientError> {
        self.store.unlink(path).map_err(|error| ClientError::Io { path: path.into(), error })
    }
}
