//! What a start does first: finish the journal's last commit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::commit::updated;
use super::{BATCH_BYTES_MAX, Desk, Fault, Steward, Turn};
use crate::edge::store::{ReadError, Store, parent};
use crate::machine::memory::{self, Stored};
use crate::protocol::journal::{Applied, Line};
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Key};
use crate::protocol::record::{RECORD_LEN_MAX, RecordError, SMALL_LEN_MAX, decode};

/// How much of the journal's end surely holds its last commit: a full batch, one update more, frames.
const TAIL_LEN_MAX: u64 = 2 * (BATCH_BYTES_MAX as u64 + RECORD_LEN_MAX);

impl<S: Store> Steward<S> {
    /// What the ledger has not recorded of the journal, as facts to record: a supervisor was killed between the
    /// two. `recorded` are the ids of updates in the ledger's end; `whole` says that its end is all of it.
    ///
    /// Facts are recorded in the journal's order, so what lacks is the journal's end. If none of the ids is in the
    /// journal's end, and the ledger's end is not all of it, nothing can be told of what lies between.
    ///
    /// # Errors
    /// The journal cannot be read.
    pub fn unrecorded(&mut self, recorded: &BTreeSet<String>, whole: bool) -> Result<Vec<Fact>, Fault> {
        let tail = self.tail()?;
        let after_the_last = match tail.iter().rposition(|line| recorded.contains(&line.id)) {
            Some(last) => last + 1,
            None if whole => 0,
            None => tail.len(),
        };
        let untold = &tail[after_the_last..];
        self.told = untold.iter().map(|line| line.id.clone()).collect();
        Ok(untold.iter().map(updated).collect())
    }

    pub(super) fn recover(&mut self, turn: &mut Turn) -> Result<(), Fault> {
        self.desks.clear();
        // What a killed predecessor unlinked may not be durably gone yet, while its ids are about to be
        // pushed out by new ones.
        let queues: Vec<PathBuf> =
            self.agents_with_queues()?.iter().map(|agent| self.layout.queue(agent)).collect();
        self.sync_dirs(queues.iter())?;
        // Nor may what was raised last be durable, if the disk was full or the predecessor killed before that.
        self.sync_dirs(std::iter::once(&self.layout.applied_dir()))?;
        let tail = self.tail()?;
        let last = memory::last_commit(&tail);
        for line in last {
            if !self.desks.contains_key(&line.agent) {
                let applied = self.load_applied(&line.agent)?;
                let desk = Desk { applied, pending: BTreeSet::new(), doubt: None };
                self.desks.insert(line.agent.clone(), desk);
            }
        }
        let undone: Vec<&Line> = last.iter().filter(|line| !self.counts(line)).collect();
        let redone = self.redo(last, &undone)?;
        let mut raised: BTreeMap<AgentName, Applied> = BTreeMap::new();
        for line in &undone {
            let Some(desk) = self.desks.get(&line.agent) else { continue };
            let applied = raised.entry(line.agent.clone()).or_insert_with(|| desk.applied.clone());
            memory::raise(applied, line.update, Some(&line.id));
        }
        self.publish_values(&redone)?;
        self.raise(&raised.into_iter().collect::<Vec<_>>())?;
        let untold = undone.into_iter().filter(|line| !self.told.contains(&line.id));
        turn.facts.extend(untold.map(updated));
        self.told.clear();
        turn.changed.extend(redone.into_iter().map(|(key, _)| key));
        Ok(())
    }

    fn counts(&self, line: &Line) -> bool {
        self.desks.get(&line.agent).is_some_and(|desk| memory::knows(&desk.applied, &line.id))
    }

    /// The values that the last commit did not get to publish.
    fn redo(&self, last: &[Line], undone: &[&Line]) -> Result<Vec<(Key, Stored)>, Fault> {
        let mut redone = Vec::new();
        let keys: BTreeSet<&Key> = undone.iter().map(|line| &line.key).collect();
        for key in keys {
            if let Err(reason) = self.make_room(key)? {
                log::error!("memory {key} cannot be brought up to date: {reason}");
                continue;
            }
            let chain: Vec<&Line> = last.iter().filter(|line| line.key == *key).collect();
            match memory::redo(&self.stored_for_sure(key)?, &chain) {
                Some(value) => redone.push((key.clone(), value)),
                // It was published; whether its name was made durable too, nobody knows any more.
                None => self.sync_dirs(std::iter::once(&parent(&self.layout.value(key)).to_path_buf()))?,
            }
        }
        Ok(redone)
    }

    fn tail(&self) -> Result<Vec<Line>, Fault> {
        let mut lines = Vec::new();
        let tail = self.journal.tail(TAIL_LEN_MAX).map_err(|error| Fault::Broken(error.to_string()))?;
        for (place, text) in tail {
            match decode::<Line>(text.as_bytes()) {
                Ok(line) => lines.push(line),
                Err(error @ RecordError::Newer(_)) => {
                    return Err(Fault::Broken(format!("memory journal, line {place}: {error}")));
                }
                Err(error @ (RecordError::Incomplete(_) | RecordError::Malformed(_))) => {
                    log::error!("memory journal, line {place} is passed over: {error}");
                }
            }
        }
        Ok(lines)
    }

    /// Reads `applied/AGENT`. Where it is damaged it is set aside and made anew from the journal's end,
    /// which is the truth it was derived from.
    pub(super) fn load_applied(&mut self, agent: &AgentName) -> Result<Applied, Fault> {
        let path = self.layout.applied(agent);
        let reason = match self.store.read(&path, SMALL_LEN_MAX) {
            Ok(blob) => match decode::<Applied>(&blob.bytes) {
                Ok(applied) => return Ok(applied),
                Err(error @ RecordError::Newer(_)) => {
                    return Err(Fault::Broken(format!("{}: {error}", path.display())));
                }
                Err(error @ (RecordError::Incomplete(_) | RecordError::Malformed(_))) => error.to_string(),
            },
            Err(ReadError::Missing) => return self.applied_by_journal(agent),
            Err(ReadError::Io(error)) => return Err(Fault::of(&path, &error)),
            Err(error @ (ReadError::NotRegular(_) | ReadError::TooLarge { .. } | ReadError::Foreign(_))) => {
                error.to_string()
            }
        };
        let (aside, _) = self.layout.rejected_update(agent, "applied", 1);
        log::error!("{} is set aside as {}: {reason}", path.display(), aside.display());
        self.store.rename(&path, &aside).map_err(|error| Fault::of(&path, &error))?;
        self.applied_by_journal(agent)
    }

    /// What the journal's end knows of an agent, but for its last commit, which recovery looks at itself.
    fn applied_by_journal(&self, agent: &AgentName) -> Result<Applied, Fault> {
        let tail = self.tail()?;
        let earlier = tail.len() - memory::last_commit(&tail).len();
        let mut applied = Applied::default();
        for line in tail[..earlier].iter().filter(|line| line.agent == *agent) {
            memory::raise(&mut applied, line.update, Some(&line.id));
        }
        Ok(applied)
    }
}
