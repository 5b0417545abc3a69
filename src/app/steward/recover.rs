//! What a start does first: finish the journal's last commit.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::commit::updated;
use super::{BATCH_BYTES_MAX, Desk, Fault, Steward, Turn};
use crate::edge::store::{ReadError, Store};
use crate::machine::memory::{self, Stored};
use crate::protocol::journal::{Applied, Line};
use crate::protocol::name::{AgentName, Key};
use crate::protocol::record::{RECORD_LEN_MAX, RecordError, SMALL_LEN_MAX, decode};

/// How much of the journal's end surely holds its last commit: a full batch, one update more, frames.
const TAIL_LEN_MAX: u64 = 2 * (BATCH_BYTES_MAX as u64 + RECORD_LEN_MAX);

impl<S: Store> Steward<S> {
    pub(super) fn recover(&mut self, turn: &mut Turn) -> Result<(), Fault> {
        self.desks.clear();
        // What a killed predecessor unlinked may not be durably gone yet, while its ids are about to be
        // pushed out by new ones.
        let queues: Vec<PathBuf> =
            self.agents_with_queues()?.iter().map(|agent| self.layout.queue(agent)).collect();
        self.sync_dirs(queues.iter())?;
        let tail = self.tail()?;
        let last = memory::last_commit(&tail);
        for line in last {
            if !self.desks.contains_key(&line.agent) {
                let applied = self.load_applied(&line.agent)?;
                let desk = Desk { applied, pending: std::collections::BTreeSet::new(), doubt: None };
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
        turn.facts.extend(undone.into_iter().map(updated));
        turn.changed.extend(redone.into_iter().map(|(key, _)| key));
        Ok(())
    }

    fn counts(&self, line: &Line) -> bool {
        self.desks.get(&line.agent).is_some_and(|desk| memory::knows(&desk.applied, &line.id))
    }

    /// The values that the last commit did not get to publish.
    fn redo(&self, last: &[Line], undone: &[&Line]) -> Result<Vec<(Key, Stored)>, Fault> {
        let mut redone = Vec::new();
        let keys: std::collections::BTreeSet<&Key> = undone.iter().map(|line| &line.key).collect();
        for key in keys {
            if let Err(reason) = self.make_room(key)? {
                log::error!("memory {key} cannot be brought up to date: {reason}");
                continue;
            }
            let chain: Vec<&Line> = last.iter().filter(|line| line.key == *key).collect();
            if let Some(value) = memory::redo(&self.stored(key), &chain) {
                redone.push((key.clone(), value));
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
