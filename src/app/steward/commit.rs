//! Making a batch true: rejected, journal, store, applied, queue, in this order.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use super::gather::{Batch, Reject, Tray};
use super::{Fault, Steward, Turn};
use crate::edge::store::{Store, parent};
use crate::machine::memory::Stored;
use crate::protocol::framing::Body;
use crate::protocol::journal::{Applied, Line};
use crate::protocol::layout::Layout;
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Key};
use crate::protocol::record::encode;

/// How many rejected files of one name are kept apart; after so many the last is replaced.
const COPIES_MAX: u32 = 16;
/// How many things that cannot be moved away are remembered.
const IMMOVABLE_MAX: usize = 4096;

impl<S: Store> Steward<S> {
    pub(super) fn commit(&mut self, mut batch: Batch, turn: &mut Turn) -> Result<(), Fault> {
        let rejects = std::mem::take(&mut batch.rejects);
        self.reject(rejects, turn)?;
        if mutant!(UpdateRemovedFirst) {
            self.sweep(&batch.trays)?;
        }
        if !batch.lines.is_empty() {
            let total = batch.lines.len();
            for (place, line) in batch.lines.iter_mut().enumerate() {
                line.left = total - 1 - place;
            }
            let bodies: Result<Vec<_>, _> = batch.lines.iter().map(Body::of).collect();
            let bodies = bodies.map_err(|error| Fault::Broken(format!("memory journal: {error}")))?;
            self.journal.append_commit(&bodies)?;
        }
        let changed = batch.values.iter().filter(|(_, value)| value.next != value.stored);
        let changed: Vec<_> = changed.map(|(key, value)| (key.clone(), value.next.clone())).collect();
        self.publish_values(&changed)?;
        let raised: Vec<_> =
            batch.trays.iter().map(|(agent, tray)| (agent.clone(), tray.applied.clone())).collect();
        self.raise(&raised)?;
        turn.changed.extend(changed.into_iter().map(|(key, _)| key));
        turn.facts.extend(batch.lines.iter().map(updated));
        self.sweep(&batch.trays)
    }

    /// Publishes what values became, with one fsync for each file and one for each directory.
    pub(super) fn publish_values(&mut self, values: &[(Key, Stored)]) -> Result<(), Fault> {
        let mut dirs = BTreeSet::new();
        for (key, value) in values {
            let path = self.layout.value(key);
            match value {
                Stored::Absent => self.store.unlink(&path).map_err(|error| Fault::of(&path, &error))?,
                Stored::Held { bytes, .. } => self.replace(&path, bytes)?,
                // It is what was found, never what an operation made: there is nothing to write.
                Stored::Unusable { .. } => continue,
            }
            dirs.insert(parent(&path).to_path_buf());
        }
        self.sync_dirs(dirs.iter())
    }

    /// Raises `applied/AGENT` of those for whom it changes.
    pub(super) fn raise(&mut self, raised: &[(AgentName, Applied)]) -> Result<(), Fault> {
        let mut any = None;
        for (agent, applied) in raised {
            if self.desks.get(agent).is_some_and(|desk| desk.applied == *applied) {
                continue;
            }
            self.replace(&self.layout.applied(agent), &encode(applied))?;
            any = Some(self.layout.applied_dir());
        }
        self.sync_dirs(any.iter())?;
        for (agent, applied) in raised {
            if let Some(desk) = self.desks.get_mut(agent) {
                desk.applied = applied.clone();
            }
        }
        Ok(())
    }

    /// Unlinks the queue's files of what is applied. Only when that is durable may a later commit push
    /// their ids out of `applied/AGENT`.
    fn sweep(&self, trays: &std::collections::BTreeMap<AgentName, Tray>) -> Result<(), Fault> {
        let mut dirs = BTreeSet::new();
        for file in trays.values().flat_map(|tray| &tray.files) {
            self.store.unlink(file).map_err(|error| Fault::of(file, &error))?;
            dirs.insert(parent(file).to_path_buf());
        }
        self.sync_dirs(dirs.iter())
    }

    /// Moves what cannot be applied to `rejected/`. All reasons are durable before the first update goes there, so
    /// that whoever sees it there finds the reason too, even after a power cut. Where they went is made durable
    /// before whence they came.
    fn reject(&mut self, rejects: Vec<Reject>, turn: &mut Turn) -> Result<(), Fault> {
        let places = self.give_reasons(&rejects)?;
        let mut queues = BTreeSet::new();
        let mut facts = Vec::new();
        for (reject, to) in rejects.into_iter().zip(places) {
            let from = self.layout.queue(&reject.agent).join(&reject.name);
            let mut reason = reject.reason;
            match self.store.rename(&from, &to) {
                Ok(()) => {
                    queues.insert(parent(&from).to_path_buf());
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound && reject.seq != 0 => continue,
                Err(error) if matches!(Fault::of(&from, &error), Fault::Full(_)) => {
                    return Err(Fault::of(&from, &error));
                }
                Err(error) => {
                    if self.immovable.len() < IMMOVABLE_MAX {
                        self.immovable.insert((reject.agent.clone(), reject.name.clone()));
                    }
                    reason = format!("{reason} (left where it is: {error})");
                }
            }
            if reject.seq == 0 {
                let shown = reject.name.to_string_lossy();
                reason = format!("{:?}: {reason}", shown.chars().take(80).collect::<String>());
            }
            facts.push(Fact::UpdateRejected { agent: reject.agent, seq: reject.seq, reason });
        }
        if !queues.is_empty() {
            self.sync_dirs(std::iter::once(&self.layout.rejected_updates()).chain(&queues))?;
        }
        turn.facts.append(&mut facts);
        Ok(())
    }

    /// Makes the reasons durable; gives where each of these is to go.
    fn give_reasons(&mut self, rejects: &[Reject]) -> Result<Vec<PathBuf>, Fault> {
        let mut places = Vec::new();
        let mut soon = BTreeSet::new();
        for reject in rejects {
            let (to, reason) = self.free_place(reject, &soon)?;
            self.replace(&reason, format!("{}\n", reject.reason).as_bytes())?;
            soon.insert(to.clone());
            places.push(to);
        }
        let any = (!places.is_empty()).then(|| self.layout.rejected_updates());
        self.sync_dirs(any.iter())?;
        Ok(places)
    }

    /// Where an update may go that is in the way of none there, nor of those that are about to go there.
    fn free_place(&self, reject: &Reject, soon: &BTreeSet<PathBuf>) -> Result<(PathBuf, PathBuf), Fault> {
        let name = reject.name.to_string_lossy();
        let plain = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        let odd = || format!("x-{}", name.chars().take(64).map(plain).collect::<String>());
        let what = Layout::update_seq(&name).map_or_else(odd, |seq| seq.to_string());
        let mut copy = 1;
        loop {
            let place = self.layout.rejected_update(&reject.agent, &what, copy);
            let there = self.store.stat(&place.0).map_err(|error| Fault::of(&place.0, &error))?;
            if copy == COPIES_MAX || there.is_none() && !soon.contains(&place.0) {
                return Ok(place);
            }
            copy += 1;
        }
    }

    /// Puts a file with durable content under a name that is not durable yet.
    fn replace(&mut self, path: &Path, bytes: &[u8]) -> Result<(), Fault> {
        let temp = self.temp()?;
        self.store
            .write_new(&temp, bytes, true)
            .and_then(|()| self.store.rename(&temp, path))
            .map_err(|error| Fault::of(path, &error))
    }

    pub(super) fn sync_dirs<'a>(&self, dirs: impl Iterator<Item = &'a PathBuf>) -> Result<(), Fault> {
        for dir in dirs.filter(|_| !mutant!(NoDirectorySyncBySteward)) {
            self.store.sync_dir(dir).map_err(|error| Fault::of(dir, &error))?;
        }
        Ok(())
    }
}

pub(super) fn updated(line: &Line) -> Fact {
    Fact::Updated {
        agent: line.agent.clone(),
        seq: line.update,
        id: line.id.clone(),
        op: line.op.to_string(),
        key: line.key.clone(),
    }
}
