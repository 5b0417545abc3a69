//! An append-only log of segments, as [`crate::protocol::framing`] frames it: the ledger, the journal.
//!
//! One commit is one write and one `fdatasync`. What a crash leaves at each step:
//!
//! | died | left | mended by |
//! |---|---|---|
//! | in the write of a commit | a torn tail | `open`: copied aside, cut |
//! | between write and fdatasync | a whole commit, perhaps not on disk | `open`: rewritten, fdatasync, then believed |
//! | while a segment was made | `.segment.tmp` | the next rotation removes it |
//! | once it was named | a name that is not durable | `open`: fsync of the directory, then believed |
//! | after an fdatasync that failed | `SEGMENT.suspect` | `open`: the acknowledged prefix is written anew |
//! | after one of `open` itself | the same, of all that is there | the next `open`: likewise, and judged as always |
//!
//! After a failed `fdatasync` the kernel may show pages that never reached the disk and call them clean,
//! also to the next process. So the length acknowledged by then is left in `SEGMENT.suspect`, which
//! needs to outlive the process but no power cut: that one takes the wrong pages with it. A process that is
//! killed as its `fdatasync` fails leaves no such file, and pages that the next `fdatasync` passes over: hence
//! the last commit is written over itself at every start. It is the only one that can be in doubt, since none
//! is written behind one whose `fdatasync` did not succeed; and if it is not, equal bytes replace each other.

use std::io;
use std::path::{Path, PathBuf};

use super::store::{Store, parent};
use crate::protocol::framing::{self, Body, Damage, Header, Start, Tail};
use crate::protocol::layout::{Kept, Layout};

/// A segment longer than this, in bytes, is followed by a new one.
pub const SEGMENT_LEN_MAX: u64 = 64 * 1024 * 1024;
/// How much is read at once, in bytes; doubled while a single commit is longer.
const CHUNK_LEN: usize = 1024 * 1024;
/// The most files looked at in a log's directory.
const FILES_MAX: usize = 100_000;
/// The most parts kept aside of one segment.
const KEPT_MAX: u32 = 1000;

/// Why a log cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The file system said no.
    #[error("{}: {error}; see to the disk, then start again", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// Written by a later nightcrew.
    #[error("{}: version {v} is newer than this nightcrew understands; upgrade nightcrew", path.display())]
    Newer {
        /// The segment.
        path: PathBuf,
        /// Its version.
        v: u32,
    },
    /// Too much was kept aside already.
    #[error("{}: {KEPT_MAX} damaged parts are kept beside it; move them away", .0.display())]
    Cluttered(PathBuf),
}

/// Why nothing can be made durable.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No room, or no descriptors or memory: nothing happened, and the same may be tried again.
    #[error("{0}")]
    Full(String),
    /// The disk failed: nothing is accepted any more until the log is opened anew.
    #[error("{0}")]
    Broken(String),
}

impl Fault {
    /// Sorts a failure of the file system into what may be tried again and what must not.
    #[must_use]
    pub fn of(path: &Path, error: &io::Error) -> Self {
        let text = format!("{}: {error}", path.display());
        if is_shortage(error) { Self::Full(text) } else { Self::Broken(text) }
    }
}

/// True for what passes when room is made, and leaves nothing in doubt.
#[must_use]
pub fn is_shortage(error: &io::Error) -> bool {
    use io::ErrorKind::{FileTooLarge, OutOfMemory, QuotaExceeded, StorageFull};
    // Files of ours are too large only where somebody set a limit (RLIMIT_FSIZE), and can be allowed more.
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge | OutOfMemory)
        || is_descriptor_shortage(error)
}

/// True if too many files are open.
pub(super) fn is_descriptor_shortage(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE))
}

/// A part of a segment that was kept aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Why.
    pub why: Kept,
    /// The segment.
    pub segment: PathBuf,
    /// The copy.
    pub path: PathBuf,
    /// Where in the segment it began, in bytes.
    pub from: u64,
    /// Its length in bytes; 0 where whole lines are missing.
    pub len: u64,
}

/// What was found when a log was opened.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// The last committed `seq`; 0 in a new log.
    pub committed: u64,
    /// What was kept aside: a torn tail is the trace of a crash and no more; damage deserves an alert.
    pub aside: Vec<Aside>,
}

/// The segment that is written to.
struct Segment<F> {
    file: F,
    path: PathBuf,
    first: u64,
    /// Its length up to the end of the last commit.
    len: u64,
    ino: u64,
    dev: u64,
}

enum State<F> {
    Open(Segment<F>),
    Broken(String),
}

/// An append-only log in a directory of its own.
pub struct SegmentedLog<S: Store> {
    store: S,
    dir: PathBuf,
    segment_len_max: u64,
    /// The first `seq` of each segment, rising.
    segments: Vec<u64>,
    next: u64,
    state: State<S::File>,
}

/// What a whole segment was found to hold.
struct Examined {
    header: Option<Header>,
    valid_len: u64,
    len: u64,
    /// The last whole commit: where it begins, and its bytes.
    last: Option<(u64, Vec<u8>)>,
    committed: Option<u64>,
    highest: Option<u64>,
    damage: Vec<(u64, u64)>,
    tail: Tail,
}

impl<S: Store> SegmentedLog<S> {
    /// Opens the log in `dir`, or begins it there; mends what a crash left.
    ///
    /// # Errors
    /// [`LogError`]. The log is as it was, or mended in part.
    pub fn open(store: S, dir: &Path) -> Result<(Self, Recovery), LogError> {
        Self::open_sized(store, dir, SEGMENT_LEN_MAX)
    }

    fn open_sized(store: S, dir: &Path, segment_len_max: u64) -> Result<(Self, Recovery), LogError> {
        store.create_dir(dir).map_err(at(dir))?;
        store.sync_dir(parent(dir)).map_err(at(parent(dir)))?;
        // A segment that a killed predecessor had just named may lose its name to a power cut, and with it all that
        // is written to it from now on.
        store.sync_dir(dir).map_err(at(dir))?;
        let names = store.list(dir, FILES_MAX).map_err(at(dir))?;
        let mut segments: Vec<u64> =
            names.iter().filter_map(|entry| Layout::segment_seq(&entry.name)).collect();
        segments.sort_unstable();
        let Some(last) = segments.last().copied() else {
            let segment = make_segment(&store, dir, 1, 0, 0).map_err(at(dir))?;
            let state = State::Open(segment);
            let log = Self { store, dir: dir.to_owned(), segment_len_max, segments: vec![1], next: 2, state };
            return Ok((log, Recovery::default()));
        };
        let path = Layout::segment(dir, last);
        rewrite_suspect(&store, dir, &path)?;
        let (file, len) = store.open_append(&path).map_err(at(&path))?;
        let found = examine(&store, &path)?;
        if let Some(Header { v, .. }) = found.header
            && v > framing::VERSION
        {
            return Err(LogError::Newer { path, v });
        }
        // What the page cache shows may never have reached the disk, and may pass for clean: now it has, or we stop
        // here.
        if let Some((from, bytes)) = &found.last {
            store.rewrite(&path, *from, bytes).map_err(at(&path))?;
        }
        sync_or_suspect(&store, &file, &path, len).map_err(at(&path))?;
        let mut log =
            Self { store, dir: dir.to_owned(), segment_len_max, segments, next: 0, state: broken() };
        let recovery = log.mend(file, last, &found)?;
        Ok((log, recovery))
    }

    /// Makes the log writable behind what can be believed.
    fn mend(&mut self, file: S::File, first: u64, found: &Examined) -> Result<Recovery, LogError> {
        let path = Layout::segment(&self.dir, first);
        // A segment whose every line is gone still stands for the numbers before it.
        let committed = found.committed.unwrap_or(first.saturating_sub(1));
        let mut recovery = Recovery { committed, aside: Vec::new() };
        let rest = (found.valid_len, found.len);
        let damaged = !found.damage.is_empty() || found.tail == Tail::Damaged || found.committed.is_none();
        if damaged {
            for stretch in &found.damage {
                recovery.aside.push(self.keep(&path, Kept::Damaged, *stretch)?);
            }
            if found.tail != Tail::Clean || found.committed.is_none() {
                recovery.aside.push(self.keep(&path, Kept::Damaged, rest)?);
            }
            // The segment stays as evidence; a new one goes on behind every number it ever used.
            let seq = found.highest.unwrap_or(0).max(committed).max(first) + 1;
            let segment =
                make_segment(&self.store, &self.dir, seq, first, committed).map_err(at(&self.dir))?;
            self.segments.push(seq);
            self.next = seq + 1;
            self.state = State::Open(segment);
            return Ok(recovery);
        }
        if found.tail == Tail::Torn {
            recovery.aside.push(self.keep(&path, Kept::Torn, rest)?);
            self.store.set_len(&file, found.valid_len).map_err(at(&path))?;
            self.store.sync(&file).map_err(at(&path))?;
        }
        let segment =
            identified(&self.store, file, path.clone(), first, found.valid_len).map_err(at(&path))?;
        self.next = committed + 1;
        self.state = State::Open(segment);
        Ok(recovery)
    }

    /// Copies a stretch of a segment to a file beside it.
    fn keep(&self, segment: &Path, why: Kept, (from, to): (u64, u64)) -> Result<Aside, LogError> {
        let len = to.saturating_sub(from);
        let bytes = self.store.read_at(segment, from, to_usize(len)).map_err(at(segment))?;
        for n in 1..=KEPT_MAX {
            let path = Layout::segment_kept(segment, why, n);
            match self.store.write_new(&path, &bytes, true) {
                Ok(()) => {
                    self.store.sync_dir(&self.dir).map_err(at(&self.dir))?;
                    return Ok(Aside { why, segment: segment.to_owned(), path, from, len });
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(at(&path)(error)),
            }
        }
        Err(LogError::Cluttered(segment.to_owned()))
    }

    /// Appends entries as one commit and makes it durable; gives the `seq` of the first.
    ///
    /// # Errors
    /// [`Fault::Full`]: nothing happened, it may be tried again. [`Fault::Broken`]: whether these
    /// entries are on disk is unknown, and so it stays until the log is opened anew.
    pub fn append_commit(&mut self, bodies: &[Body]) -> Result<u64, Fault> {
        if bodies.is_empty() {
            return Ok(self.next);
        }
        self.rotate_if_long()?;
        let segment = match &mut self.state {
            State::Open(segment) => segment,
            State::Broken(why) => return Err(Fault::Broken(why.clone())),
        };
        let first = self.next;
        let (lines, next) = framing::commit_lines(first, bodies);
        match write_commit(&self.store, segment, &lines) {
            Ok(()) => {
                segment.len += lines.len() as u64;
                self.next = next;
                Ok(first)
            }
            Err(fault) => Err(self.latch(fault)),
        }
    }

    fn rotate_if_long(&mut self) -> Result<(), Fault> {
        let State::Open(segment) = &self.state else { return Ok(()) };
        if segment.len < self.segment_len_max {
            return Ok(());
        }
        let (seq, previous) = (self.next, segment.first);
        match make_segment(&self.store, &self.dir, seq, previous, seq - 1) {
            Ok(segment) => {
                self.state = State::Open(segment);
                self.segments.push(seq);
                self.next = seq + 1;
                Ok(())
            }
            Err(error) => Err(self.latch(Fault::of(&Layout::segment(&self.dir, seq), &error))),
        }
    }

    /// Remembers that the disk failed; passes on what may be tried again.
    fn latch(&mut self, fault: Fault) -> Fault {
        if let Fault::Broken(why) = &fault {
            self.state = State::Broken(why.clone());
        }
        fault
    }

    /// The last committed entries, oldest first: those of the whole commits within the last `len_max`
    /// bytes, and at least those of the last commit.
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn tail(&self, len_max: u64) -> Result<Vec<(u64, String)>, LogError> {
        let mut parts: Vec<Vec<(u64, String)>> = Vec::new();
        let (mut left, mut limit) = (len_max, self.next - 1);
        for first in self.segments.iter().rev() {
            let path = Layout::segment(&self.dir, *first);
            let Some(signature) = self.store.stat(&path).map_err(at(&path))? else { break };
            let read = |from: u64| {
                self.store.read_at(&path, from, to_usize(signature.size - from)).map_err(at(&path))
            };
            let mut from = signature.size.saturating_sub(left);
            let mut bytes = read(from)?;
            // Nothing whole: the last commit is longer than that, and it is the one that a crash cut short.
            while from > 0 && parts.is_empty() && framing::scan(&bytes, Start::Anywhere).entries.is_empty() {
                left = left.saturating_mul(2).max(1);
                from = signature.size.saturating_sub(left);
                bytes = read(from)?;
            }
            let start = if from == 0 { Start::Segment } else { Start::Anywhere };
            let found = framing::scan(&bytes, start);
            let believed = found.entries.iter().filter(|entry| entry.seq <= limit);
            parts.push(believed.map(|entry| (entry.seq, entry.body())).collect());
            left = left.saturating_sub(signature.size);
            if left == 0 {
                break;
            }
            // The header says how far the segment before is to be believed.
            limit = found.header.map_or(limit, |header| header.committed);
        }
        Ok(parts.into_iter().rev().flatten().collect())
    }
}

fn broken<F>() -> State<F> {
    State::Broken("the log is being opened".to_owned())
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LogError + use<> {
    let path = path.to_owned();
    move |error| LogError::Io { path, error }
}

fn to_usize(len: u64) -> usize {
    usize::try_from(len).unwrap_or(usize::MAX)
}

/// One write and one `fdatasync`; a write that failed is taken back.
fn write_commit<S: Store>(store: &S, segment: &mut Segment<S::File>, lines: &[u8]) -> Result<(), Fault> {
    let path = segment.path.clone();
    // Writing on into a file that was removed or edited would acknowledge what nobody can read.
    let there = store.stat(&path).map_err(|error| Fault::of(&path, &error))?;
    let ours = there.is_some_and(|s| (s.dev, s.ino, s.size) == (segment.dev, segment.ino, segment.len));
    if !ours {
        let text = "removed, replaced or edited while in use; start again to go on behind it";
        return Err(Fault::Broken(format!("{}: {text}", path.display())));
    }
    if let Err(error) = store.append(&mut segment.file, lines) {
        store.set_len(&segment.file, segment.len).map_err(|cut| {
            Fault::Broken(format!("{}: {error}, and it cannot be cut back: {cut}", path.display()))
        })?;
        return Err(Fault::of(&path, &error));
    }
    if mutant!(NoLogSync) {
        return Ok(());
    }
    if mutant!(FailedSyncBelieved) {
        return store.sync(&segment.file).or(Ok(()));
    }
    sync_or_suspect(store, &segment.file, &path, segment.len)
        .map_err(|error| Fault::Broken(format!("{}: fdatasync: {error}", path.display())))
}

/// Makes a segment durable; if that fails, leaves a mark that only so much of what it shows may be believed.
fn sync_or_suspect<S: Store>(store: &S, file: &S::File, path: &Path, believed: u64) -> io::Result<()> {
    store.sync(file).inspect_err(|_| {
        // As far as it goes: the disk has just failed. Whole or not at all: half a length would cut away what was
        // acknowledged.
        let temp = Layout::segment_temp(parent(path));
        let _ = store.unlink(&temp);
        let length = format!("{believed}\n");
        let _ = store.publish_volatile(&temp, &Layout::segment_suspect(path), length.as_bytes());
    })
}

/// Publishes a segment with its header, durable before its first use.
fn make_segment<S: Store>(
    store: &S,
    dir: &Path,
    seq: u64,
    previous: u64,
    committed: u64,
) -> io::Result<Segment<S::File>> {
    let (temp, path) = (Layout::segment_temp(dir), Layout::segment(dir, seq));
    store.unlink(&temp)?;
    store.publish(&temp, &path, &framing::header_line(seq, previous, committed))?;
    let (file, len) = store.open_append(&path)?;
    identified(store, file, path, seq, len)
}

fn identified<S: Store>(
    store: &S,
    file: S::File,
    path: PathBuf,
    first: u64,
    len: u64,
) -> io::Result<Segment<S::File>> {
    let signature = store.stat(&path)?.ok_or(io::ErrorKind::NotFound)?;
    Ok(Segment { file, path, first, len, ino: signature.ino, dev: signature.dev })
}

/// Replaces a segment whose fdatasync failed by a new file with the part that may be believed.
fn rewrite_suspect<S: Store>(store: &S, dir: &Path, path: &Path) -> Result<(), LogError> {
    let suspect = Layout::segment_suspect(path);
    if store.stat(&suspect).map_err(at(&suspect))?.is_none() {
        return Ok(());
    }
    let text = store.read_at(&suspect, 0, 32).map_err(at(&suspect))?;
    // An unreadable length believes what can be read; `open` judges that as always.
    let believed = String::from_utf8_lossy(&text).trim().parse().unwrap_or(u64::MAX);
    let size = store.stat(path).map_err(at(path))?.map_or(0, |signature| signature.size);
    let bytes = store.read_at(path, 0, to_usize(size.min(believed))).map_err(at(path))?;
    let temp = Layout::segment_temp(dir);
    store.unlink(&temp).map_err(at(&temp))?;
    store.publish(&temp, path, &bytes).map_err(at(path))?;
    store.unlink(&suspect).map_err(at(&suspect))?;
    // A power cut that brought it back would have all cut away that is acknowledged from now on.
    store.sync_dir(dir).map_err(at(dir))
}

/// Reads a segment in pieces, from commit to commit.
fn examine<S: Store>(store: &S, path: &Path) -> Result<Examined, LogError> {
    let (mut header, mut committed, mut highest, mut last) = (None, None, None, None);
    let (mut offset, mut chunk_len, mut damage) = (0u64, CHUNK_LEN, Vec::new());
    loop {
        let bytes = store.read_at(path, offset, chunk_len).map_err(at(path))?;
        let start = match committed {
            None => Start::Segment,
            Some(seq) => Start::Next(seq + 1),
        };
        let found = framing::scan(&bytes, start);
        header = header.or(found.header);
        committed = found.committed.or(committed);
        highest = highest.max(found.highest);
        last = found.last.map(|from| (offset + from as u64, bytes[from..found.valid_len].to_vec())).or(last);
        let place = |d: &Damage| (offset + d.from as u64, offset + d.to as u64);
        damage.extend(found.damage.iter().map(place));
        let end = offset + bytes.len() as u64;
        offset += found.valid_len as u64;
        if bytes.len() < chunk_len {
            let (valid_len, tail) = (offset, found.tail);
            return Ok(Examined { header, valid_len, len: end, last, committed, highest, damage, tail });
        }
        chunk_len = if found.valid_len == 0 { chunk_len.saturating_mul(2) } else { CHUNK_LEN };
    }
}

#[cfg(test)]
mod tests;
