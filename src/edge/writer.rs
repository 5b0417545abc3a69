//! The writer: what must be durable before it is acknowledged, many jobs in one commit.
//!
//! A [`Batch`] of jobs goes through four phases, each finished for all jobs before the next begins:
//!
//! 1. `before`: every change of every job; each file fsynced before its rename, then each touched
//!    directory once.
//! 2. `entries`: all ledger entries in one commit.
//! 3. `then`: like `before`.
//! 4. `last`: removals, not made durable. A removal that a power cut undoes is found and done again at
//!    the next start, since what it stood for is durable already.
//!
//! Then, and only then, the tickets are [`Done::Stored`]. Within a job the order is kept; two changes to
//! one path leave the later one, and what a job tidies away is not what a later job put there. Jobs are independent: one whose own input is bad ([`Done::Refused`])
//! stops no other. A batch that found no room ([`Fault::Full`]) remembers how far it got and is committed
//! again as it is: nothing happens twice. A job may also be given again as a whole, after a crash: changes
//! replace what they find and miss nothing that is gone.
//!
//! Neither clock nor thread is here: [`super::writer_thread`] has them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use super::log::{Fault, LogError, Recovery, SegmentedLog, is_descriptor_shortage};
use super::store::{ReadError, Store, parent, temp_name};
use crate::protocol::framing::Body;
use crate::protocol::layout::Layout;
use crate::protocol::ledger::Entry;

/// The most leftover temp files that are cleared at a start.
const LEFTOVERS_MAX: usize = 100_000;

/// What a job's giver knows it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

/// One change to one file. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Replace a record of ours.
    Write {
        /// Which.
        path: PathBuf,
        /// By what.
        bytes: Vec<u8>,
    },
    /// Copy a file that an agent wrote, under the rules of [`Store::read`].
    Copy {
        /// The agent's file.
        from: PathBuf,
        /// The copy; replaced if it exists.
        to: PathBuf,
        /// The largest size accepted, in bytes.
        max: u64,
    },
    /// Rename, replacing; nothing happens if `from` is missing.
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new one.
        to: PathBuf,
    },
    /// Give a second name, unless that is taken or `from` is missing: then nothing happens.
    Link {
        /// The file.
        from: PathBuf,
        /// Its other name.
        to: PathBuf,
    },
    /// Remove; nothing happens if it is missing.
    Remove {
        /// Which.
        path: PathBuf,
    },
}

impl Change {
    /// What it makes or replaces.
    fn target(&self) -> Option<&Path> {
        match self {
            Self::Write { path, .. } => Some(path),
            Self::Copy { to, .. } | Self::Rename { to, .. } | Self::Link { to, .. } => Some(to),
            Self::Remove { .. } => None,
        }
    }

    /// What it takes away.
    fn source(&self) -> Option<&Path> {
        match self {
            Self::Rename { from, .. } => Some(from),
            Self::Remove { path } => Some(path),
            Self::Write { .. } | Self::Copy { .. } | Self::Link { .. } => None,
        }
    }
}

/// What belongs together.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Job {
    /// What must be durable before the ledger tells of it.
    pub before: Vec<Change>,
    /// What the ledger tells.
    pub entries: Vec<Entry>,
    /// What may be durable only once the ledger tells of it.
    pub then: Vec<Change>,
    /// What is tidied away once all else is durable.
    pub last: Vec<Change>,
    /// Who waits for it; nobody if absent.
    pub ticket: Option<Ticket>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Done {
    /// All of it is durable, but for the removals of `last`.
    Stored(Ticket),
    /// What the job itself named cannot be read or replaced: nothing that came later in it happened.
    Refused {
        /// Whose job; absent if nobody waits for it.
        ticket: Option<Ticket>,
        /// Why, with the path.
        reason: String,
    },
}

/// Where a batch stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Before,
    Entries,
    Then,
    Last,
    Ended,
}

/// Where one job of a batch stands.
#[derive(Debug)]
enum Progress {
    /// So many changes of its current part are made.
    Going(usize),
    Refused(String),
}

/// Jobs that are committed together, and how far they got.
#[derive(Debug)]
pub struct Batch {
    jobs: Vec<(Job, Progress)>,
    phase: Phase,
    /// The directories whose names changed in this phase and are not yet durable.
    touched: BTreeSet<PathBuf>,
}

impl Batch {
    /// A batch of these jobs, of which nothing has been done.
    #[must_use]
    pub fn new(jobs: Vec<Job>) -> Self {
        let jobs = jobs.into_iter().map(|job| (job, Progress::Going(0))).collect();
        Self { jobs, phase: Phase::Before, touched: BTreeSet::new() }
    }

    /// The tickets that wait for it.
    pub fn tickets(&self) -> impl Iterator<Item = Ticket> {
        self.jobs.iter().filter_map(|(job, _)| job.ticket)
    }

    /// The paths that jobs make something at, and the last that does so.
    fn made(&self) -> BTreeMap<&Path, usize> {
        let mut made = BTreeMap::new();
        let going = self.jobs.iter().enumerate().filter(|(_, (_, at))| matches!(at, Progress::Going(_)));
        for (at, (job, _)) in going {
            let targets = job.before.iter().chain(&job.then).filter_map(Change::target);
            made.extend(targets.map(|path| (path, at)));
        }
        made
    }

    fn outcome(&self) -> Vec<Done> {
        let ended = |(job, progress): &(Job, Progress)| match progress {
            Progress::Going(_) => job.ticket.map(Done::Stored),
            Progress::Refused(reason) => Some(Done::Refused { ticket: job.ticket, reason: reason.clone() }),
        };
        self.jobs.iter().filter_map(ended).collect()
    }
}

enum Health {
    Whole,
    Broken(String),
}

/// Why a change was not made.
enum Failure {
    /// The job's own fault: the others go on.
    Refused(String),
    /// The disk's: the whole batch stops here.
    Fault(Fault),
}

/// The one writer of a crew's records and ledger.
pub struct Writer<S: Store> {
    store: S,
    ledger: SegmentedLog<S>,
    temp_dir: PathBuf,
    pid: u32,
    serial: u64,
    health: Health,
}

impl<S: Store> Writer<S> {
    /// Opens the crew's ledger, mends what a crash left of it, and clears the writer's temp files.
    /// `pid` is part of the temp files' names.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn open(store: S, layout: &Layout, pid: u32) -> Result<(Self, Recovery), LogError> {
        let temp_dir = layout.tmp_of_writer();
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| LogError::Io { path, error }
        };
        store.create_dir(&temp_dir).map_err(at(&temp_dir))?;
        for leftover in store.list(&temp_dir, LEFTOVERS_MAX).map_err(at(&temp_dir))? {
            let path = temp_dir.join(&leftover.name);
            store.unlink(&path).map_err(at(&path))?;
        }
        let (ledger, recovery) = SegmentedLog::open(store.clone(), &layout.ledger())?;
        let writer = Self { store, ledger, temp_dir, pid, serial: 0, health: Health::Whole };
        Ok((writer, recovery))
    }

    /// The ledger's last entries: see [`SegmentedLog::tail`].
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn tail(&self, len_max: u64) -> Result<Vec<(u64, String)>, LogError> {
        self.ledger.tail(len_max)
    }

    /// Makes a batch durable, from where it stood. How each job ended is told once all have.
    ///
    /// # Errors
    /// [`Fault::Full`]: nothing is acknowledged; commit the same batch again when there is room.
    /// [`Fault::Broken`]: nothing is acknowledged, now or later, until the writer is opened anew.
    pub fn commit(&mut self, batch: &mut Batch) -> Result<Vec<Done>, Fault> {
        if let Health::Broken(why) = &self.health {
            return Err(Fault::Broken(why.clone()));
        }
        self.advance(batch).inspect_err(|fault| {
            if let Fault::Broken(why) = fault {
                self.health = Health::Broken(why.clone());
            }
        })?;
        Ok(batch.outcome())
    }

    fn advance(&mut self, batch: &mut Batch) -> Result<(), Fault> {
        while batch.phase != Phase::Ended {
            batch.phase = match batch.phase {
                Phase::Before => {
                    self.change_durably(batch, |job| &job.before)?;
                    Phase::Entries
                }
                Phase::Entries => {
                    self.tell_ledger(batch)?;
                    Phase::Then
                }
                Phase::Then => {
                    self.change_durably(batch, |job| &job.then)?;
                    Phase::Last
                }
                Phase::Last => {
                    self.tidy(batch);
                    Phase::Ended
                }
                Phase::Ended => Phase::Ended,
            };
        }
        Ok(())
    }

    fn change_durably(&mut self, batch: &mut Batch, part: fn(&Job) -> &Vec<Change>) -> Result<(), Fault> {
        for (job, progress) in &mut batch.jobs {
            while let Progress::Going(made) = progress
                && let Some(change) = part(job).get(*made)
            {
                match self.apply(change, &mut batch.touched) {
                    Ok(()) => *made += 1,
                    Err(Failure::Fault(fault)) => return Err(fault),
                    Err(Failure::Refused(reason)) => *progress = Progress::Refused(reason),
                }
            }
        }
        for dir in batch.touched.iter().filter(|_| !mutant!(NoDirectorySyncByWriter)) {
            self.sync_dir(dir)?;
        }
        batch.touched.clear();
        for (_, progress) in &mut batch.jobs {
            if let Progress::Going(made) = progress {
                *made = 0;
            }
        }
        Ok(())
    }

    fn tell_ledger(&mut self, batch: &mut Batch) -> Result<(), Fault> {
        let mut bodies = Vec::new();
        for (job, progress) in &mut batch.jobs {
            if matches!(progress, Progress::Refused(_)) {
                continue;
            }
            match job.entries.iter().map(Body::of).collect::<Result<Vec<_>, _>>() {
                Ok(of_job) => bodies.extend(of_job),
                Err(error) => *progress = Progress::Refused(format!("a ledger entry {error}")),
            }
        }
        self.ledger.append_commit(&bodies).map(|_| ())
    }

    fn tidy(&mut self, batch: &Batch) {
        let mut untracked = BTreeSet::new();
        let made = batch.made();
        for (at, (job, progress)) in batch.jobs.iter().enumerate() {
            if matches!(progress, Progress::Refused(_)) {
                continue;
            }
            // What it would take away was replaced by a later job.
            let stands = |path: &Path| made.get(path).is_some_and(|by| *by > at);
            for change in job.last.iter().filter(|change| !change.source().is_some_and(stands)) {
                let why = match self.apply(change, &mut untracked) {
                    Ok(()) => continue,
                    Err(Failure::Refused(why) | Failure::Fault(Fault::Full(why) | Fault::Broken(why))) => why,
                };
                // All that counts is durable: what stays behind is tidied away at the next start.
                log::warn!("{why}; left for the next start");
            }
        }
    }

    fn apply(&mut self, change: &Change, touched: &mut BTreeSet<PathBuf>) -> Result<(), Failure> {
        match change {
            Change::Write { path, bytes } => {
                let temp = self.temp();
                self.store.write_new(&temp, bytes, true).map_err(|e| our_fault(&temp, &e))?;
                self.publish(&temp, path, touched)
            }
            Change::Copy { from, to, max } => {
                let temp = self.temp();
                self.store.copy_durably(from, &temp, *max).map_err(|error| {
                    if let ReadError::Io(error) = &error {
                        failure(from, error)
                    } else {
                        Failure::Refused(format!("{}: {error}", from.display()))
                    }
                })?;
                self.publish(&temp, to, touched)
            }
            Change::Rename { from, to } => {
                if self.store.stat(from).map_err(|error| failure(from, &error))?.is_none() {
                    // Done before, or nothing to do; a repeat must still make the name durable.
                    touched.insert(parent(to).to_owned());
                    return Ok(());
                }
                self.rename(from, to, touched)?;
                touched.insert(parent(from).to_owned());
                Ok(())
            }
            Change::Link { from, to } => self.link(from, to, touched),
            Change::Remove { path } => {
                self.store.unlink(path).map_err(|error| failure(path, &error))?;
                touched.insert(parent(path).to_owned());
                Ok(())
            }
        }
    }

    fn link(&self, from: &Path, to: &Path, touched: &mut BTreeSet<PathBuf>) -> Result<(), Failure> {
        if self.store.stat(from).map_err(|error| failure(from, &error))?.is_some() {
            match self.store.link(from, to) {
                // Somebody removed the directory that it goes to.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.store.create_dir(parent(to)).map_err(|error| failure(to, &error))?;
                    touched.insert(parent(parent(to)).to_owned());
                    self.store.link(from, to).map_err(|error| failure(to, &error))?;
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(|error| failure(to, &error))?,
            }
        }
        // Done before, or nothing to do; a repeat must still make the name durable.
        touched.insert(parent(to).to_owned());
        Ok(())
    }

    fn publish(&mut self, temp: &Path, to: &Path, touched: &mut BTreeSet<PathBuf>) -> Result<(), Failure> {
        self.rename(temp, to, touched).inspect_err(|_| {
            // The first error is the one to tell; a leftover temp file is cleared at the next start.
            let _ = self.store.unlink(temp);
        })
    }

    /// Renames; a directory that is missing on the way to `to` is made, durably.
    fn rename(&self, from: &Path, to: &Path, touched: &mut BTreeSet<PathBuf>) -> Result<(), Failure> {
        let dir = parent(to);
        match self.store.rename(from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                for missing in dir.ancestors() {
                    if self.store.stat(missing).map_err(|e| failure(missing, &e))?.is_some() {
                        break;
                    }
                    touched.insert(parent(missing).to_owned());
                }
                self.store.create_dir(dir).map_err(|error| failure(dir, &error))?;
                self.store.rename(from, to).map_err(|error| failure(to, &error))?;
            }
            other => other.map_err(|error| failure(to, &error))?,
        }
        touched.insert(dir.to_owned());
        Ok(())
    }

    fn sync_dir(&self, dir: &Path) -> Result<(), Fault> {
        match self.store.sync_dir(dir) {
            // Somebody removed the directory with all that was in it: nothing is left to make durable.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            // The directory could not even be opened: nothing was asked of the disk.
            Err(error) if is_descriptor_shortage(&error) => Err(Fault::of(dir, &error)),
            Err(error) => Err(Fault::Broken(format!("{}: fsync: {error}", dir.display()))),
            Ok(()) => Ok(()),
        }
    }

    fn temp(&mut self) -> PathBuf {
        self.serial += 1;
        temp_name(&self.temp_dir, self.pid, self.serial)
    }
}

/// An error on a file that is ours alone. A temp file whose fsync found no room is thrown away and made
/// anew, so nothing unknown is left behind.
fn our_fault(path: &Path, error: &io::Error) -> Failure {
    Failure::Fault(Fault::of(path, error))
}

/// An error on a path that others reach too: what they can bring about costs their job alone.
fn failure(path: &Path, error: &io::Error) -> Failure {
    use io::ErrorKind as Kind;
    let theirs = [
        Kind::NotFound,
        Kind::NotADirectory,
        Kind::IsADirectory,
        Kind::AlreadyExists,
        Kind::DirectoryNotEmpty,
        Kind::InvalidFilename,
        Kind::InvalidInput,
        Kind::PermissionDenied,
        Kind::CrossesDevices,
        Kind::ResourceBusy,
    ];
    // std has no stable name for a loop of symlinks.
    let looped = rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP);
    if looped || theirs.contains(&error.kind()) {
        Failure::Refused(format!("{}: {error}", path.display()))
    } else {
        our_fault(path, error)
    }
}

#[cfg(test)]
mod tests;
