//! From the queues to a batch: which updates, in which order, and what each does to its value.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use super::{
    AGENTS_MAX, BATCH_BYTES_MAX, BATCH_MAX, Desk, Doubt, Fault, QUEUE_LIST_MAX, SECOND_LOOK_MS, Steward, Turn,
};
use crate::edge::log::is_shortage;
use crate::edge::store::{ReadError, Store};
use crate::machine::memory::{self, BATCH_PER_AGENT_MAX, Refusal, Stored};
use crate::protocol::journal::{Applied, Line};
use crate::protocol::layout::Layout;
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Key};
use crate::protocol::record::{RECORD_LEN_MAX, RecordError, VERSION, decode};
use crate::protocol::time::Mono;
use crate::protocol::update::{Update, VALUE_LEN_MAX};

/// How often one turn lists an agent's queue again because of holes in its order.
const LISTINGS_PER_TURN_MAX: u32 = 4;
/// How much longer than the value itself its file may be: the newline.
const VALUE_FILE_LEN_MAX: u64 = VALUE_LEN_MAX as u64 + 1;
/// `S_IFMT` and `S_IFDIR` of `st_mode`.
const FILE_TYPE: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;

/// Something in a queue that goes to `rejected/`.
pub(super) struct Reject {
    pub(super) agent: AgentName,
    /// Its file name in the queue.
    pub(super) name: OsString,
    /// Its number, or 0 if its name is none.
    pub(super) seq: u64,
    pub(super) reason: String,
}

/// What one agent has in a batch.
pub(super) struct Tray {
    /// `applied/AGENT` as it will be.
    pub(super) applied: Applied,
    /// The files to unlink.
    pub(super) files: Vec<PathBuf>,
    taken: usize,
    listings: u32,
    /// The number before which the queue was listed once more.
    listed_before: u64,
}

/// A key's value, as the store has it and as it will be.
pub(super) struct Value {
    pub(super) stored: Stored,
    pub(super) next: Stored,
    /// The hash of `next`: a long value is not hashed twice for each update.
    pub(super) hash: String,
}

/// What one turn does.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) rejects: Vec<Reject>,
    pub(super) lines: Vec<Line>,
    pub(super) values: BTreeMap<Key, Value>,
    pub(super) trays: BTreeMap<AgentName, Tray>,
    pub(super) gaps: Vec<Fact>,
    taken: usize,
    bytes: usize,
}

/// Tells what is noted for rejection already: a queue may be listed twice in a turn.
fn is_told(agent: &AgentName, name: &OsStr) -> impl Fn(&Reject) -> bool {
    move |reject| reject.agent == *agent && reject.name == name
}

/// Whether an agent has more for this batch.
enum Served {
    Again,
    Enough,
}

/// What a file in a queue turned out to be.
enum Found {
    Update(Update, usize),
    /// Applied before: only its file is left.
    Known,
    Gone,
    /// Perhaps it is still being written.
    Unsure(String),
    /// It cannot be read for the moment, which says nothing of it.
    Unread(String),
    Bad(String),
}

impl<S: Store> Steward<S> {
    /// Lists the queues of the hinted agents, or all; gives what has no place there.
    pub(super) fn look(&mut self, hinted: Option<&[AgentName]>) -> Result<Vec<Reject>, Fault> {
        let mut agents = match hinted {
            Some(agents) => agents.iter().cloned().collect(),
            None => self.agents_with_queues()?,
        };
        agents.append(&mut self.put_off);
        let mut misplaced = Vec::new();
        for agent in agents {
            // A long queue is not listed again for each hint: what is known of it fills this turn anyway. The
            // hint still holds, so it is listed as soon as it is short.
            let long = self.desks.get(&agent).is_some_and(|desk| desk.pending.len() >= BATCH_PER_AGENT_MAX);
            if long {
                self.put_off.insert(agent);
            } else {
                self.list_queue(&agent, &mut misplaced)?;
            }
        }
        Ok(misplaced)
    }

    pub(super) fn agents_with_queues(&self) -> Result<BTreeSet<AgentName>, Fault> {
        let dir = self.layout.queues();
        let entries = self.store.list(&dir, AGENTS_MAX).map_err(|error| Fault::of(&dir, &error))?;
        Ok(entries.iter().filter(|entry| entry.is_dir).filter_map(|entry| entry.name.parse().ok()).collect())
    }

    fn list_queue(&mut self, agent: &AgentName, misplaced: &mut Vec<Reject>) -> Result<(), Fault> {
        let dir = self.layout.queue(agent);
        let stat = self.store.stat(&dir).map_err(|error| Fault::of(&dir, &error))?;
        // A symlink in a queue's place would have us work in somebody else's directory.
        if stat.is_none_or(|signature| signature.mode & FILE_TYPE != DIRECTORY) {
            return Ok(());
        }
        let Ok(entries) = self.store.list(&dir, QUEUE_LIST_MAX) else {
            // An agent that made its own queue unreadable stops itself alone.
            return Ok(());
        };
        if entries.is_empty() && !self.desks.contains_key(agent) {
            return Ok(());
        }
        if !self.desks.contains_key(agent) {
            let applied = self.load_applied(agent)?;
            let desk = Desk { applied, pending: BTreeSet::new(), doubt: None };
            self.desks.insert(agent.clone(), desk);
        }
        let Some(desk) = self.desks.get_mut(agent) else { return Ok(()) };
        for entry in entries {
            if Layout::is_temporary(&entry.name)
                || self.immovable.contains(&(agent.clone(), entry.file_name.clone()))
            {
                continue;
            }
            match Layout::update_seq(&entry.name) {
                Some(seq) => {
                    desk.pending.insert(seq);
                }
                None if misplaced.len() < BATCH_MAX
                    && !misplaced.iter().any(is_told(agent, &entry.file_name)) =>
                {
                    misplaced.push(Reject {
                        agent: agent.clone(),
                        name: entry.file_name,
                        seq: 0,
                        reason: "not named SEQ.json; link updates in as 1 + the highest number there is"
                            .into(),
                    });
                }
                // The next listing finds it again.
                None => {}
            }
        }
        Ok(())
    }

    /// Takes updates from the queues, one of each agent in turn, so that no flood starves the others.
    pub(super) fn gather(
        &mut self,
        now: Mono,
        rejects: Vec<Reject>,
        turn: &mut Turn,
    ) -> Result<Batch, Fault> {
        let mut batch = Batch { rejects, ..Batch::default() };
        let agents = self.desks.iter().filter(|(_, desk)| !desk.pending.is_empty());
        let agents = agents.map(|(agent, _)| agent.clone()).collect();
        let mut round = VecDeque::from(memory::rotation(agents, self.last_served.as_ref()));
        while let Some(agent) = round.pop_front() {
            if batch.taken >= BATCH_MAX || batch.bytes >= BATCH_BYTES_MAX {
                break;
            }
            match self.take(&agent, now, &mut batch)? {
                Served::Again => {
                    self.last_served = Some(agent.clone());
                    round.push_back(agent);
                }
                Served::Enough => {}
            }
        }
        turn.facts.append(&mut batch.gaps);
        Ok(batch)
    }

    fn take(&mut self, agent: &AgentName, now: Mono, batch: &mut Batch) -> Result<Served, Fault> {
        let Some(desk) = self.desks.get_mut(agent) else { return Ok(Served::Enough) };
        let tray = batch.trays.entry(agent.clone()).or_insert_with(|| Tray {
            applied: desk.applied.clone(),
            files: Vec::new(),
            taken: 0,
            listings: 0,
            listed_before: 0,
        });
        let Some(seq) = desk.pending.first().copied() else { return Ok(Served::Enough) };
        if tray.taken >= BATCH_PER_AGENT_MAX {
            return Ok(Served::Enough);
        }
        let gap = memory::gap(tray.applied.seq, seq);
        if gap.is_some() && tray.listed_before != seq {
            if tray.listings >= LISTINGS_PER_TURN_MAX {
                return Ok(Served::Enough);
            }
            tray.listings += 1;
            tray.listed_before = seq;
            self.list_queue(agent, &mut batch.rejects)?;
            return Ok(Served::Again);
        }
        let path = self.layout.update(agent, seq);
        let found = self.open(&path, &tray.applied, seq);
        let Some(desk) = self.desks.get_mut(agent) else { return Ok(Served::Enough) };
        let found = match found {
            // What comes after it waits with it, however long: it may have been acknowledged.
            Found::Unread(reason) => {
                log::error!("{}: {reason}; it is looked at again", path.display());
                desk.doubt = Some(Doubt { seq, since: now });
                return Ok(Served::Enough);
            }
            Found::Unsure(reason) => match &desk.doubt {
                Some(doubt) if doubt.seq == seq && now.since(doubt.since) >= SECOND_LOOK_MS => {
                    Found::Bad(reason)
                }
                Some(doubt) if doubt.seq == seq => return Ok(Served::Enough),
                // What comes after it waits with it: an agent's updates keep their order.
                Some(_) | None => {
                    desk.doubt = Some(Doubt { seq, since: now });
                    return Ok(Served::Enough);
                }
            },
            found @ (Found::Update(..) | Found::Known | Found::Gone | Found::Bad(_)) => found,
        };
        desk.doubt = None;
        desk.pending.remove(&seq);
        tray.taken += 1;
        batch.taken += 1;
        if let (Some(expected), false) = (gap, matches!(found, Found::Gone)) {
            batch.gaps.push(Fact::UpdateGap { agent: agent.clone(), expected, found: seq });
        }
        self.place(agent, seq, path, found, batch)?;
        Ok(Served::Again)
    }

    /// Puts what was found where it belongs in the batch.
    fn place(
        &mut self,
        agent: &AgentName,
        seq: u64,
        path: PathBuf,
        found: Found,
        batch: &mut Batch,
    ) -> Result<(), Fault> {
        let refused = match found {
            Found::Gone => return Ok(()),
            Found::Known => None,
            Found::Unsure(reason) | Found::Unread(reason) | Found::Bad(reason) => Some(reason),
            Found::Update(update, len) => match self.evaluate(agent, seq, &update, batch)? {
                Ok(()) => {
                    batch.bytes += len;
                    if let Some(tray) = batch.trays.get_mut(agent) {
                        memory::raise(&mut tray.applied, seq, Some(&update.id));
                        tray.files.push(path);
                    }
                    return Ok(());
                }
                Err(refusal) => Some(refusal.to_string()),
            },
        };
        let Some(tray) = batch.trays.get_mut(agent) else { return Ok(()) };
        let leap = tray.applied.seq.saturating_add(memory::SEQ_LEAP_MAX);
        if seq <= leap {
            memory::raise(&mut tray.applied, seq, None);
        }
        match refused {
            None => tray.files.push(path),
            Some(reason) => batch.rejects.push(Reject {
                agent: agent.clone(),
                name: path.file_name().unwrap_or_default().to_owned(),
                seq,
                reason,
            }),
        }
        Ok(())
    }

    fn open(&self, path: &std::path::Path, applied: &Applied, seq: u64) -> Found {
        let bytes = match self.store.read(path, RECORD_LEN_MAX) {
            Ok(blob) => blob.bytes,
            Err(ReadError::Missing) => return Found::Gone,
            Err(ReadError::Io(error)) if error.kind() != std::io::ErrorKind::PermissionDenied => {
                return Found::Unread(error.to_string());
            }
            Err(error) => return Found::Bad(error.to_string()),
        };
        match decode::<Update>(&bytes) {
            Ok(update) if memory::knows(applied, &update.id) => Found::Known,
            Ok(update) => match memory::validate(&update, seq, applied.seq) {
                Ok(()) => Found::Update(update, bytes.len()),
                Err(refusal) => Found::Bad(refusal.to_string()),
            },
            Err(error @ RecordError::Incomplete(_)) => Found::Unsure(error.to_string()),
            Err(error @ (RecordError::Newer(_) | RecordError::Malformed(_))) => Found::Bad(error.to_string()),
        }
    }

    /// Works out what an update makes of its value, and notes the journal's line.
    fn evaluate(
        &mut self,
        agent: &AgentName,
        seq: u64,
        update: &Update,
        batch: &mut Batch,
    ) -> Result<Result<(), Refusal>, Fault> {
        if !batch.values.contains_key(&update.key) {
            if let Err(reason) = self.make_room(&update.key)? {
                return Ok(Err(Refusal::Unusable(reason)));
            }
            let stored = self.stored(&update.key)?;
            let hash = stored.hash();
            batch.values.insert(update.key.clone(), Value { next: stored.clone(), stored, hash });
        }
        let Some(value) = batch.values.get_mut(&update.key) else { return Ok(Ok(())) };
        let next = match memory::apply(&value.next, update.op, update.value.as_ref()) {
            Ok(next) => next,
            Err(refusal) => return Ok(Err(refusal)),
        };
        batch.lines.push(Line {
            v: VERSION,
            agent: agent.clone(),
            update: seq,
            id: update.id.clone(),
            left: 0,
            op: update.op,
            key: update.key.clone(),
            value: update.value.clone(),
            before: std::mem::replace(&mut value.hash, next.hash()),
            after: value.hash.clone(),
        });
        value.next = next;
        Ok(Ok(()))
    }

    /// What the store shows under a key.
    pub(super) fn stored(&self, key: &Key) -> Result<Stored, Fault> {
        match self.read_value(key) {
            Ok(stored) => Ok(stored),
            // That too many files are open says nothing of the value.
            Err(error) if is_shortage(&error) => Err(Fault::of(&self.layout.value(key), &error)),
            Err(error) => Ok(Stored::unreadable(error.to_string())),
        }
    }

    /// What the store shows under a key; an error if the disk does not tell. What was journaled must not be given up
    /// because of that.
    pub(super) fn stored_for_sure(&self, key: &Key) -> Result<Stored, Fault> {
        self.read_value(key).map_err(|error| Fault::of(&self.layout.value(key), &error))
    }

    fn read_value(&self, key: &Key) -> std::io::Result<Stored> {
        match self.store.read(&self.layout.value(key), VALUE_FILE_LEN_MAX) {
            Ok(blob) => Ok(Stored::from_bytes(blob.bytes)),
            Err(ReadError::Missing) => Ok(Stored::Absent),
            Err(ReadError::Io(error)) => Err(error),
            Err(error @ (ReadError::NotRegular(_) | ReadError::TooLarge { .. } | ReadError::Foreign(_))) => {
                Ok(Stored::unreadable(error.to_string()))
            }
        }
    }

    /// Makes the directories that a key needs; the inner result says why that cannot be, where something
    /// else stands in their place. That is one key's trouble and must not become the storage's.
    pub(super) fn make_room(&self, key: &Key) -> Result<Result<(), String>, Fault> {
        let is_dir = |signature: crate::edge::store::Signature| signature.mode & FILE_TYPE == DIRECTORY;
        let value = self.layout.value(key);
        let root = self.layout.store_dir();
        let within = |dir: &&std::path::Path| dir.starts_with(&root) && *dir != root;
        let mut dirs: Vec<_> = value.ancestors().skip(1).take_while(within).collect();
        dirs.reverse();
        for dir in dirs {
            match self.store.stat(dir).map_err(|error| Fault::of(dir, &error))? {
                Some(signature) if is_dir(signature) => {}
                Some(_) => return Ok(Err(format!("{} is no directory; remove it", dir.display()))),
                None => {
                    self.store.create_dir(dir).map_err(|error| Fault::of(dir, &error))?;
                    let parent = crate::edge::store::parent(dir);
                    self.store.sync_dir(parent).map_err(|error| Fault::of(parent, &error))?;
                }
            }
        }
        match self.store.stat(&value).map_err(|error| Fault::of(&value, &error))? {
            Some(signature) if is_dir(signature) => {
                Ok(Err(format!("{} is a directory; remove it", value.display())))
            }
            Some(_) | None => Ok(Ok(())),
        }
    }
}
