//! The steward: the one writer of shared memory.
//!
//! A turn takes a bounded number of updates from the agents' queues and makes them true in four steps,
//! each durable before the next begins. What a crash leaves at each line:
//!
//! 1. *reject*: what cannot be applied goes to `rejected/`, where its reason is durable already. Before its
//!    rename the update is still in the queue and is judged again.
//! 2. *journal*: all lines in one commit. Before it nothing has happened; from it on, the updates count.
//! 3. *store*: the last value of each key. A crash in between is mended at the next start from the
//!    journal's last commit: a line is done again only where the store shows its `before`.
//! 4. *applied* is raised, then the queue's files are unlinked and the queues made durable. A file that is
//!    still there, or is there again after a power cut, bears an id that `applied` knows, and is only
//!    unlinked.
//!
//! After a failure the steward forgets all it holds in memory and recovers as at a start, so that there is
//! one way back and not two. A full disk is retried; anything else latches until the next start.

mod commit;
mod gather;
mod recover;
pub mod thread;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use crate::edge::log::{Fault, SegmentedLog};
use crate::edge::store::Store;
use crate::protocol::journal::Applied;
use crate::protocol::layout::Layout;
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Key};
use crate::protocol::time::Mono;

/// The most agents whose queues are looked at.
pub const AGENTS_MAX: usize = 4096;
/// The most entries of one queue that are looked at in one listing.
pub const QUEUE_LIST_MAX: usize = 100_000;
/// The most updates in one turn, of all agents.
pub const BATCH_MAX: usize = 256;
/// A turn takes no further update once its journal lines have this many bytes.
pub const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How soon a file that is merely incomplete gets its second look, in milliseconds.
pub const SECOND_LOOK_MS: u64 = 1000;
/// How soon a full disk is tried again, in milliseconds.
pub const FULL_RETRY_MS: u64 = 5000;

/// What a turn came to.
#[derive(Debug, Default)]
pub struct Turn {
    /// What is to be recorded.
    pub facts: Vec<Fact>,
    /// True if there is more to do at once.
    pub more: bool,
    /// When another turn is worth its while without a hint, in milliseconds from now.
    pub look_again_in_ms: Option<u64>,
    /// The keys whose values changed.
    pub changed: Vec<Key>,
    /// True if no update waits in any queue, as far as was looked.
    pub queue_empty: bool,
    /// What the storage said, if it did not take something.
    pub fault: Option<Fault>,
}

/// How far the steward can be trusted with the store.
enum Mode {
    /// Just started, or after a full disk: what the last commit left undone is done first.
    Unrecovered,
    /// At work.
    Ready,
    /// The storage failed in a way after which nothing is known of it.
    Broken(String),
}

/// An update that could not be read whole yet.
struct Doubt {
    seq: u64,
    since: Mono,
}

/// What is known of one agent's queue.
struct Desk {
    applied: Applied,
    pending: BTreeSet<u64>,
    doubt: Option<Doubt>,
}

/// The one writer of shared memory.
pub struct Steward<S: Store> {
    store: S,
    layout: Layout,
    journal: SegmentedLog<S>,
    mode: Mode,
    desks: BTreeMap<AgentName, Desk>,
    /// Whose queue something may have come to, and was not listed because much of it waits already.
    put_off: BTreeSet<AgentName>,
    /// What could not even be moved away. It is told once and looked at no more.
    immovable: BTreeSet<(AgentName, OsString)>,
    last_served: Option<AgentName>,
    /// Ids whose facts were given out before the first turn: see [`Steward::unrecorded`].
    told: BTreeSet<String>,
    temp_serial: u64,
}

impl<S: Store> Steward<S> {
    /// A steward over an opened journal. It touches nothing before its first turn.
    #[must_use]
    pub fn new(store: S, layout: Layout, journal: SegmentedLog<S>) -> Self {
        Self {
            store,
            layout,
            journal,
            mode: Mode::Unrecovered,
            desks: BTreeMap::new(),
            put_off: BTreeSet::new(),
            immovable: BTreeSet::new(),
            last_served: None,
            told: BTreeSet::new(),
            temp_serial: 0,
        }
    }

    /// One turn: looks into the hinted agents' queues (all, if `hinted` is `None`), and applies a bounded
    /// number of the updates known of.
    pub fn turn(&mut self, now: Mono, hinted: Option<&[AgentName]>) -> Turn {
        let mut turn = Turn::default();
        if let Err(fault) = self.work(now, hinted, &mut turn) {
            self.desks.clear();
            self.put_off.clear();
            match &fault {
                Fault::Full(_) => {
                    self.mode = Mode::Unrecovered;
                    turn.look_again_in_ms = Some(FULL_RETRY_MS);
                }
                Fault::Broken(why) => self.mode = Mode::Broken(why.clone()),
            }
            turn.fault = Some(fault);
            turn.more = false;
            return turn;
        }
        let waiting = |desk: &Desk| !desk.pending.is_empty();
        turn.queue_empty = self.put_off.is_empty() && !self.desks.values().any(waiting);
        let unlisted = |agent| self.desks.get(agent).is_none_or(|desk| desk.doubt.is_none());
        turn.more = self.desks.values().any(|desk| waiting(desk) && desk.doubt.is_none())
            || self.put_off.iter().any(unlisted);
        let due = |doubt: &Doubt| SECOND_LOOK_MS.saturating_sub(now.since(doubt.since)).max(1);
        turn.look_again_in_ms = self.desks.values().filter_map(|desk| desk.doubt.as_ref()).map(due).min();
        turn
    }

    fn work(&mut self, now: Mono, hinted: Option<&[AgentName]>, turn: &mut Turn) -> Result<(), Fault> {
        let recovered = match &self.mode {
            Mode::Broken(why) => return Err(Fault::Broken(why.clone())),
            Mode::Unrecovered => {
                self.recover(turn)?;
                self.mode = Mode::Ready;
                true
            }
            Mode::Ready => false,
        };
        // A recovery forgot what waits where, so a hint does not do.
        let misplaced = self.look(if recovered { None } else { hinted })?;
        let batch = self.gather(now, misplaced, turn)?;
        self.commit(batch, turn)
    }

    fn temp(&mut self) -> Result<std::path::PathBuf, Fault> {
        self.temp_serial += 1;
        let temp = self.layout.steward_temp(self.temp_serial);
        // One steward makes these names, so what is there is a crashed predecessor's.
        self.store.unlink(&temp).map_err(|error| Fault::of(&temp, &error))?;
        Ok(temp)
    }
}

#[cfg(test)]
mod tests;
