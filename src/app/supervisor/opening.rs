//! What must be done before there is a supervisor: directories made, leftovers cleared, logs opened and mended,
//! in the order in which each can rely on the one before.

use std::collections::BTreeSet;
use std::path::PathBuf;

use crate::app::steward::Steward;
use crate::edge::log::{Recovery, SegmentedLog};
use crate::edge::store::{Store, parent};
use crate::edge::writer::Writer;
use crate::protocol::layout::{Layout, Shelf};
use crate::protocol::ledger::{Entry, Fact};

use super::leftovers::clear_temporary_files;
use super::tokens::floor;

/// How much of the ledger's end is looked at for what a crash cut short: more than one group commit.
const TAIL_LEN: u64 = 1024 * 1024;

/// Why a crew's files could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("{what}: {why}")]
pub struct OpeningError {
    /// What was to be opened.
    pub what: &'static str,
    /// Why it could not be, with the path.
    pub why: String,
}

/// What the logs tell of an earlier supervisor's time.
#[derive(Debug)]
pub struct History {
    /// What was cut from the ledger, and kept.
    pub ledger: Recovery,
    /// The ledger's end: numbers and lines.
    pub tail: Vec<(u64, String)>,
    /// What those lines tell.
    pub facts: Vec<Fact>,
    /// What was cut from memory's journal, and kept.
    pub journal: Recovery,
    /// Memory updates that were applied, and that the ledger does not tell of yet.
    pub unrecorded: Vec<Fact>,
    /// What is wrong with the counter of fencing tokens.
    pub damage: Option<String>,
}

/// A crew's files, opened and mended as far as that comes before the first look at them.
pub struct Opening<S: Store> {
    /// The one writer of records and ledger.
    pub writer: Writer<S>,
    /// The one writer of memory.
    pub steward: Steward<S>,
    /// The highest fencing token that may have been given out.
    pub token_floor: u64,
    /// What [`Supervisor::recover`](super::Supervisor::recover) goes by.
    pub history: History,
}

impl<S: Store> Opening<S> {
    /// Opens the crew's files. The crew's lock must be held, and nothing else of this supervisor run yet.
    ///
    /// # Errors
    /// [`OpeningError`]; what was done until then is done again by the next try, without harm.
    pub fn new(store: &S, layout: &Layout, pid: u32) -> Result<Self, OpeningError> {
        failing("state", make_directories(store, &layout.directories()))?;
        if !mutant!(NamesBelieved) {
            failing("state", make_names_durable(store, layout))?;
        }
        clear_temporary_files(store, &layout.tmp_of_supervisor());
        let (writer, ledger) = failing("the ledger", Writer::open(store.clone(), layout, pid))?;
        let tail = failing("the ledger", writer.tail(TAIL_LEN))?;
        let floor = failing("fencing tokens", floor(store, layout, |len| writer.tail(len)))?;
        let journal = SegmentedLog::open(store.clone(), &layout.journal());
        let (lines, journal) = failing("memory's journal", journal)?;
        let mut steward = Steward::new(store.clone(), layout.clone(), lines);
        let facts = facts_in(&tail);
        // The ledger's first line is its header.
        let whole = tail.first().is_none_or(|(seq, _)| *seq <= 2);
        let recorded = updates_in(&facts);
        let unrecorded = steward.unrecorded(&recorded, whole).map_err(|fault| format!("{fault:?}"));
        let unrecorded = failing("memory's journal", unrecorded)?;
        let history = History { ledger, tail, facts, journal, unrecorded, damage: floor.damage };
        Ok(Self { writer, steward, token_floor: floor.token, history })
    }
}

fn failing<T>(what: &'static str, result: Result<T, impl std::fmt::Display>) -> Result<T, OpeningError> {
    result.map_err(|why| OpeningError { what, why: why.to_string() })
}

/// What lines of the ledger tell, where this build understands them.
pub(super) fn facts_in(lines: &[(u64, String)]) -> Vec<Fact> {
    lines.iter().filter_map(|(_, line)| Some(serde_json::from_str::<Entry>(line).ok()?.fact)).collect()
}

/// The ids of the memory updates that the ledger's tail tells of.
fn updates_in(facts: &[Fact]) -> BTreeSet<String> {
    let ids =
        facts.iter().filter_map(|fact| if let Fact::Updated { id, .. } = fact { Some(id) } else { None });
    ids.cloned().collect()
}

/// Makes every directory of the crew's state, and their names durable: also of those that are there already, because
/// whoever made them may have been killed before that.
///
/// # Errors
/// The path and the reason.
pub(super) fn make_directories<S: Store>(store: &S, directories: &[PathBuf]) -> Result<(), String> {
    for dir in directories {
        let missing = store.stat(dir).map_err(|error| format!("{}: {error}", dir.display()))?.is_none();
        if missing {
            store.create_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        }
    }
    let above: BTreeSet<_> = directories.iter().map(|dir| parent(dir)).collect();
    for dir in above {
        store.sync_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    Ok(())
}

/// Makes durable what names an earlier supervisor gave to records. Killed between a rename and the sync of the
/// directory, it left names that a power cut takes back; what follows from them now must not outlive them.
fn make_names_durable<S: Store>(store: &S, layout: &Layout) -> Result<(), String> {
    let shelves = Shelf::ALL.map(|shelf| layout.shelf(shelf));
    let dirs = [layout.tasks(), layout.applied_dir(), layout.finished_dir()];
    for dir in dirs.into_iter().chain(shelves) {
        store.sync_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    Ok(())
}
