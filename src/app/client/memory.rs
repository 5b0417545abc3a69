//! Shared memory from an agent's side: handing in an update, asking what became of it, reading a value.

use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::edge::store::{ReadError, Store, parent};
use crate::protocol::journal::Applied;
use crate::protocol::layout::Layout;
use crate::protocol::name::{AgentName, Key, Name};
use crate::protocol::record::{RECORD_LEN_MAX, RecordError, SMALL_LEN_MAX, VERSION, decode, encode};
use crate::protocol::update::{Operation, Update, VALUE_LEN_MAX};

/// How many entries of a queue are looked at.
const QUEUE_LIST_MAX: usize = 100_000;
/// How many numbers are tried before giving up.
const TRIES_MAX: u32 = 10_000;
/// How many rejected files of one number are looked through.
const REJECTED_COPIES_MAX: u32 = 16;

/// Why memory could not be used.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The operation lacks its value.
    #[error("{0} needs a value: give it as JSON, or - to read it from standard input")]
    NoValue(Operation),
    /// The update would be larger than one may be.
    #[error("the update is {0} bytes, where {RECORD_LEN_MAX} are allowed: split the value over several keys")]
    TooLarge(usize),
    /// The numbers tried were all taken.
    #[error("{0}: no free number in {TRIES_MAX} tries: try again")]
    Crowded(PathBuf),
    /// The highest number there can be is taken.
    #[error("{0}: no number is left: remove the file with the highest one")]
    Exhausted(PathBuf),
    /// A file of the supervisor's is not what it should be.
    #[error("{path}: {error}")]
    Record {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        error: RecordError,
    },
    /// A file could not be read.
    #[error("{path}: {error}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: ReadError,
    },
    /// The file system said no; nothing was handed in.
    #[error("{path}: {error}; nothing was handed in: mend that and try again")]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// An update that is durably in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submitted {
    /// Its number.
    pub seq: u64,
    /// Its file.
    pub path: PathBuf,
}

/// What became of an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It waits.
    Pending,
    /// It is in the store.
    Applied,
    /// It is in `memory/rejected/`, for this reason.
    Rejected(String),
}

/// Hands in an update and returns when it is durable.
///
/// `id` must be new: handing in the same id twice applies it once. It is made under the name `temp`, on the file
/// system of the crew.
///
/// # Errors
/// [`MemoryError`]; then nothing was handed in, but for an error of the last fsync, after which it may or may
/// not have been: trying again with the same id does no harm.
#[expect(clippy::too_many_arguments, reason = "an update has this many parts, and each is a type of its own")]
pub fn remember<S: Store>(
    store: &S,
    layout: &Layout,
    agent: &AgentName,
    temp: &Path,
    id: &Name,
    op: Operation,
    key: &Key,
    value: Option<Value>,
) -> Result<Submitted, MemoryError> {
    if value.is_none() && op != Operation::Delete {
        return Err(MemoryError::NoValue(op));
    }
    let bytes = encode(&Update { v: VERSION, id: id.as_str().into(), op, key: key.clone(), value });
    if bytes.len() as u64 > RECORD_LEN_MAX {
        return Err(MemoryError::TooLarge(bytes.len()));
    }
    let queue = layout.queue(agent);
    for dir in [&queue, parent(temp)] {
        make_dir(store, dir)?;
    }
    store.write_new(temp, &bytes, true).map_err(io_at(temp))?;
    let linked = link_next(store, layout, agent, temp);
    let removed = store.unlink(temp).map_err(io_at(temp));
    let submitted = linked?;
    removed?;
    store.sync_dir(&queue).map_err(io_at(&queue))?;
    Ok(submitted)
}

fn make_dir<S: Store>(store: &S, dir: &Path) -> Result<(), MemoryError> {
    if store.stat(dir).map_err(io_at(dir))?.is_none() {
        store.create_dir(dir).map_err(io_at(dir))?;
        store.sync_dir(parent(dir)).map_err(io_at(parent(dir)))?;
    }
    Ok(())
}

fn link_next<S: Store>(
    store: &S,
    layout: &Layout,
    agent: &AgentName,
    temp: &Path,
) -> Result<Submitted, MemoryError> {
    let queue = layout.queue(agent);
    let entries = store.list(&queue, QUEUE_LIST_MAX).map_err(io_at(&queue))?;
    let listed = entries.iter().filter_map(|entry| Layout::update_seq(&entry.name)).max().unwrap_or(0);
    let mut seq = listed.max(applied(store, layout, agent)?.seq);
    for _ in 0..TRIES_MAX {
        seq = seq.checked_add(1).ok_or_else(|| MemoryError::Exhausted(queue.clone()))?;
        let path = layout.update(agent, seq);
        match store.link(temp, &path) {
            Ok(()) => return Ok(Submitted { seq, path }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(MemoryError::Io { path, error }),
        }
    }
    Err(MemoryError::Crowded(queue))
}

/// The value under a key, as JSON with a newline; `None` if there is none.
///
/// # Errors
/// [`MemoryError::Read`]
pub fn recall<S: Store>(store: &S, layout: &Layout, key: &Key) -> Result<Option<Vec<u8>>, MemoryError> {
    let path = layout.value(key);
    match store.read(&path, VALUE_LEN_MAX as u64 + 1) {
        Ok(blob) => Ok(Some(blob.bytes)),
        Err(ReadError::Missing) => Ok(None),
        Err(error) => Err(MemoryError::Read { path, error }),
    }
}

/// What became of an update that was handed in under `id` as number `seq`.
///
/// # Errors
/// [`MemoryError`] if a file that tells could not be read.
pub fn outcome_of<S: Store>(
    store: &S,
    layout: &Layout,
    agent: &AgentName,
    seq: u64,
    id: &Name,
) -> Result<Fate, MemoryError> {
    // In this order: the steward raises `applied`, or moves the file, before the queue shows it gone.
    let queued = layout.update(agent, seq);
    let waits = bears(store, &queued, id)?;
    let applied = applied(store, layout, agent)?;
    if applied.ids.iter().any(|known| known == id.as_str()) {
        return Ok(Fate::Applied);
    }
    if waits {
        return Ok(Fate::Pending);
    }
    for copy in 1..=REJECTED_COPIES_MAX {
        let (rejected, reason) = layout.rejected_update(agent, &seq.to_string(), copy);
        if bears(store, &rejected, id)? {
            let text = match store.read(&reason, SMALL_LEN_MAX) {
                Ok(blob) => String::from_utf8_lossy(&blob.bytes).trim_end().to_owned(),
                Err(error) => format!("its reason cannot be read: {error}"),
            };
            return Ok(Fate::Rejected(text));
        }
    }
    if seq <= applied.seq {
        // So long ago that its id is no longer kept.
        return Ok(Fate::Applied);
    }
    Ok(Fate::Rejected(format!("{} is gone, and was not applied: was it removed by hand?", queued.display())))
}

/// True if the file at `path` is the update with this id.
fn bears<S: Store>(store: &S, path: &Path, id: &Name) -> Result<bool, MemoryError> {
    match store.read(path, RECORD_LEN_MAX) {
        Ok(blob) => Ok(decode::<Update>(&blob.bytes).is_ok_and(|update| update.id == id.as_str())),
        Err(ReadError::Io(error)) => {
            Err(MemoryError::Read { path: path.into(), error: ReadError::Io(error) })
        }
        Err(
            ReadError::Missing
            | ReadError::NotRegular(_)
            | ReadError::TooLarge { .. }
            | ReadError::Foreign(_),
        ) => Ok(false),
    }
}

fn applied<S: Store>(store: &S, layout: &Layout, agent: &AgentName) -> Result<Applied, MemoryError> {
    let path = layout.applied(agent);
    match store.read(&path, SMALL_LEN_MAX) {
        Ok(blob) => decode(&blob.bytes).map_err(|error| MemoryError::Record { path, error }),
        Err(ReadError::Missing) => Ok(Applied::default()),
        Err(error) => Err(MemoryError::Read { path, error }),
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> MemoryError + use<> {
    let path = path.to_path_buf();
    move |error| MemoryError::Io { path, error }
}
