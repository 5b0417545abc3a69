//! Switches: halt and resume, stop and start, and requests to a running supervisor.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::edge::store::{ReadError, Store, parent};
use crate::protocol::display::clean;
use crate::protocol::layout::RECORD_EXT;
use crate::protocol::name::{AgentName, Name};
use crate::protocol::record::{SMALL_LEN_MAX, VERSION, cut, encode};
use crate::protocol::request::{Answer, Ask, Request};

use super::lookup::LISTED_MAX;
use super::{Client, ClientError};

/// The longest reason kept, in bytes.
pub const WHY_LEN_MAX: usize = 1000;

/// The known name that an unknown one was most likely meant to be, if one is near enough.
#[must_use]
pub fn nearest<'a>(unknown: &AgentName, known: &'a BTreeSet<AgentName>) -> Option<&'a AgentName> {
    let likeness = |name: &AgentName| strsim::jaro_winkler(unknown.as_str(), name.as_str());
    known.iter().filter(|name| likeness(name) > 0.8).max_by(|a, b| likeness(a).total_cmp(&likeness(b)))
}

/// What became of a switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Switched {
    /// It is set now, durably.
    Now,
    /// It was set already; its first reason stands.
    Already(String),
}

impl<S: Store> Client<S> {
    /// The reason of the kill switch, while it is set.
    ///
    /// # Errors
    /// [`ClientError`], if that cannot be told.
    pub fn halted(&self) -> Result<Option<String>, ClientError> {
        self.reason(&self.layout.halt())
    }

    /// Why an agent is stopped, while it is.
    ///
    /// # Errors
    /// [`ClientError`], if that cannot be told.
    pub fn stopped(&self, agent: &AgentName) -> Result<Option<String>, ClientError> {
        self.reason(&self.layout.stopped(agent))
    }

    /// Sets the kill switch.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn halt(&mut self, why: &str) -> Result<Switched, ClientError> {
        self.switch(&self.layout.halt(), why)
    }

    /// Takes the kill switch away; gives the reason it bore.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn resume(&self) -> Result<Option<String>, ClientError> {
        self.unswitch(&self.layout.halt())
    }

    /// Stops an agent, across reboots.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn stop(&mut self, agent: &AgentName, why: &str) -> Result<Switched, ClientError> {
        self.switch(&self.layout.stopped(agent), why)
    }

    /// Lets a stopped agent start again; gives the reason it was stopped for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn start(&self, agent: &AgentName) -> Result<Option<String>, ClientError> {
        self.unswitch(&self.layout.stopped(agent))
    }

    /// Every agent that is known: by a file in `agents/`, by a status, or by being stopped.
    ///
    /// # Errors
    /// [`ClientError::Io`], if a directory cannot be listed.
    pub fn agents(&self) -> Result<BTreeSet<AgentName>, ClientError> {
        let mut agents = BTreeSet::new();
        for file in self.files(self.layout.agents())? {
            let stem = file.split_once('.').map_or(file.as_str(), |(stem, _)| stem);
            agents.extend(stem.parse().ok());
        }
        for file in self.files(self.layout.status_dir())? {
            let stem = file.strip_suffix(RECORD_EXT).and_then(|stem| stem.strip_suffix('.'));
            agents.extend(stem.and_then(|stem| stem.parse().ok()));
        }
        agents.extend(self.files(self.layout.stopped_dir())?.iter().filter_map(|file| file.parse().ok()));
        Ok(agents)
    }

    /// Asks a running supervisor for something; gives the request's id and where the answer will be.
    ///
    /// # Errors
    /// [`ClientError::Refused`] if that is too much for one request, [`ClientError::Io`].
    pub fn ask(&mut self, ask: Ask) -> Result<(Name, PathBuf), ClientError> {
        let id = self.fresh_name();
        let path = self.layout.request(&id);
        let answer = self.layout.answer(&id);
        let request = encode(&Request { v: VERSION, id: id.clone(), ask });
        if request.len() as u64 > SMALL_LEN_MAX {
            let size = request.len();
            let why =
                format!("a request of {size} bytes, where {SMALL_LEN_MAX} are allowed: ask for less at once");
            return Err(ClientError::Refused(why));
        }
        self.ensure_dir(parent(&answer))?;
        self.publish(&path, &request)?;
        Ok((id, answer))
    }

    /// Takes the answer to a request, if it is there.
    ///
    /// # Errors
    /// [`ClientError`], if it cannot be read.
    pub fn take_answer(&self, id: &Name) -> Result<Option<Answer>, ClientError> {
        let path = self.layout.answer(id);
        let answer = self.record(&path, SMALL_LEN_MAX)?;
        if answer.is_some() {
            self.remove(&path)?;
        }
        Ok(answer)
    }

    /// Withdraws a request that was not answered.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn withdraw(&self, id: &Name) -> Result<(), ClientError> {
        self.remove(&self.layout.request(id))
    }

    fn files(&self, dir: PathBuf) -> Result<Vec<String>, ClientError> {
        let entries =
            self.store.list(&dir, LISTED_MAX).map_err(|error| ClientError::Io { path: dir, error })?;
        Ok(entries.into_iter().filter(|entry| !entry.is_dir).map(|entry| entry.name).collect())
    }

    /// The text of a switch. One that is there and cannot be read is set all the same: a kill switch that
    /// an operator made with `mkdir` or as another user must work.
    fn reason(&self, path: &Path) -> Result<Option<String>, ClientError> {
        match self.store.read(path, SMALL_LEN_MAX) {
            Ok(blob) => {
                let line = clean(blob.bytes.trim_ascii());
                Ok(Some(if line.is_empty() { "no reason given".into() } else { line }))
            }
            Err(ReadError::Missing) => Ok(None),
            Err(ReadError::Io(error)) => Err(ClientError::Io { path: path.into(), error }),
            Err(odd @ (ReadError::NotRegular(_) | ReadError::TooLarge { .. } | ReadError::Foreign(_))) => {
                Ok(Some(format!("its reason is {odd}")))
            }
        }
    }

    fn switch(&mut self, path: &Path, why: &str) -> Result<Switched, ClientError> {
        let why = cut(why, WHY_LEN_MAX);
        if self.publish_new(path, format!("{why}\n").as_bytes())? {
            return Ok(Switched::Now);
        }
        let first = self.reason(path)?;
        Ok(Switched::Already(first.unwrap_or_else(|| "taken away again this very moment".into())))
    }

    fn unswitch(&self, path: &Path) -> Result<Option<String>, ClientError> {
        let why = self.reason(path)?;
        if why.is_some() {
            self.store
                .unlink(path)
                .and_then(|()| self.store.sync_dir(parent(path)))
                .map_err(|error| ClientError::Io { path: path.into(), error })?;
        }
        Ok(why)
    }
}
