//! One agent's log with its index: where the bytes go, and what happens when they cannot.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{SpliceFlags, splice};

use super::Limits;
use crate::protocol::layout::Layout;
use crate::protocol::logindex::{self, Mark};
use crate::protocol::name::{AgentName, RunId};
use crate::protocol::time::{Mono, Now};

/// The most that is moved out of one pipe before the others get their turn.
const SHARE_LEN_MAX: usize = 256 * 1024;
/// How long one mark of the index stands for what the same run prints.
const MARK_MS: u64 = 100;
/// How many rotated logs are kept.
const GENERATIONS: u32 = 3;
/// For how long writing must go well before trouble counts as over, so that a disk on the edge of full
/// does not report at every chunk.
const CALM_MS: u64 = 10_000;

/// Whether there was anything in the pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    Some,
    Nothing,
}

/// What is worth a report.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Note {
    Trouble(String),
    Recovered { dropped: u64 },
}

/// Since output could not be kept.
struct Trouble {
    dropped: u64,
    last: Mono,
}

/// Why a share did not end where it should.
enum Failure {
    /// It is in the log, but the index or the rotation did not succeed.
    Unmarked(String),
    /// It is still in the pipe.
    Unkept(String),
}

struct Files {
    log: File,
    index: File,
}

pub(super) struct Log {
    path: PathBuf,
    index: PathBuf,
    limits: Limits,
    files: Option<Files>,
    last_mark: Option<(RunId, Mono)>,
    trouble: Option<Trouble>,
}

impl Log {
    pub(super) fn new(layout: &Layout, agent: &AgentName, limits: Limits) -> Self {
        let (path, index) = (layout.log(agent), layout.log_index(agent));
        Self { path, index, limits, files: None, last_mark: None, trouble: None }
    }

    /// Moves one share of what is in the pipe to the end of the log; to nowhere where that fails, for
    /// an agent must not hang because a disk is full.
    pub(super) fn take(
        &mut self,
        pipe: &OwnedFd,
        run: &RunId,
        now: Now,
        null: &File,
    ) -> (Taken, Option<Note>) {
        match rustix::io::ioctl_fionread(pipe) {
            Ok(0) | Err(_) => return (Taken::Nothing, None),
            Ok(_) => {}
        }
        match self.append(pipe, run, now) {
            Ok(()) => (Taken::Some, self.went_well(now.mono)),
            Err(Failure::Unmarked(text)) => (Taken::Some, self.went_wrong(now.mono, 0, text)),
            Err(Failure::Unkept(text)) => {
                self.files = None;
                let dropped = splice(pipe, None, null, None, SHARE_LEN_MAX, SpliceFlags::NONBLOCK);
                let note = self.went_wrong(now.mono, dropped.unwrap_or(0), text);
                (if dropped.is_ok() { Taken::Some } else { Taken::Nothing }, note)
            }
        }
    }

    fn went_well(&mut self, now: Mono) -> Option<Note> {
        let over = self.trouble.take_if(|trouble| now.since(trouble.last) >= CALM_MS)?;
        Some(Note::Recovered { dropped: over.dropped })
    }

    fn went_wrong(&mut self, now: Mono, dropped: usize, text: String) -> Option<Note> {
        let dropped = u64::try_from(dropped).unwrap_or(u64::MAX);
        if let Some(trouble) = &mut self.trouble {
            trouble.dropped = trouble.dropped.saturating_add(dropped);
            trouble.last = now;
            return None;
        }
        self.trouble = Some(Trouble { dropped, last: now });
        Some(Note::Trouble(text))
    }

    fn append(&mut self, pipe: &OwnedFd, run: &RunId, now: Now) -> Result<(), Failure> {
        let unkept = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| {
                let path = path.display();
                Failure::Unkept(format!(
                    "cannot write {path}: {error}; output is thrown away until that is mended"
                ))
            }
        };
        let mut unmarked = None;
        let mut len = self.ready().map_err(unkept(&self.path))?;
        if self.is_full(len) {
            match self.rotate().and_then(|()| self.ready()) {
                Ok(new_len) => len = new_len,
                Err(error) => {
                    unmarked = Some(format!("cannot rotate {}: {error}; it grows on", self.path.display()));
                    len = self.ready().map_err(unkept(&self.path))?;
                }
            }
        }
        if let Err(error) = self.mark(len, run, now) {
            let path = self.index.display();
            unmarked = Some(format!("cannot write {path}: {error}; the log is kept without times"));
        }
        let Some(files) = &self.files else { return Ok(()) };
        let mut offset = len;
        match splice(pipe, None, &files.log, Some(&mut offset), SHARE_LEN_MAX, SpliceFlags::NONBLOCK) {
            // Somebody else emptied it, or a signal came: what is left wakes us again.
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(unkept(&self.path)(error.into())),
        }
        unmarked.map_or(Ok(()), |text| Err(Failure::Unmarked(text)))
    }

    /// Opens the files unless they are open; gives the length of the log, which is where to go on.
    ///
    /// The length is asked each time, for a person may cut or remove a log while we write it.
    fn ready(&mut self) -> io::Result<u64> {
        if let Some(files) = &self.files {
            let about = files.log.metadata()?;
            if about.nlink() > 0 && files.index.metadata()?.nlink() > 0 {
                return Ok(about.len());
            }
            self.files = None;
        }
        let log = open_for_writing(&self.path, OFlags::empty())?;
        let len = log.metadata()?.len();
        self.mend_index(len)?;
        let index = open_for_writing(&self.index, OFlags::APPEND)?;
        self.files = Some(Files { log, index });
        self.last_mark = None;
        Ok(len)
    }

    fn is_full(&self, log_len: u64) -> bool {
        let index_len =
            self.files.as_ref().and_then(|files| files.index.metadata().ok()).map_or(0, |about| about.len());
        log_len >= self.limits.log_len || index_len >= self.limits.index_len
    }

    /// Sets the log and its index aside. The log goes first: a crash between the two leaves an index
    /// that points past the end of the new log, which [`mend_index`](Self::mend_index) recognises.
    fn rotate(&mut self) -> io::Result<()> {
        self.files = None;
        for path in [&self.path, &self.index] {
            for generation in (1..GENERATIONS).rev() {
                rename_if_there(&Layout::rotated(path, generation), &Layout::rotated(path, generation + 1))?;
            }
        }
        rename_if_there(&self.path, &Layout::rotated(&self.path, 1))?;
        rename_if_there(&self.index, &Layout::rotated(&self.index, 1))
    }

    /// An index that points past the end of its log belongs to another: to the one a rotation was
    /// interrupted for, or to one that a person cut.
    fn mend_index(&self, log_len: u64) -> io::Result<()> {
        let Some(last) = last_mark(&self.index)? else { return Ok(()) };
        if last.offset <= log_len {
            return Ok(());
        }
        let aside = Layout::rotated(&self.index, 1);
        if Layout::rotated(&self.path, 1).exists() && !aside.exists() {
            fs::rename(&self.index, &aside)
        } else {
            open_for_writing(&self.index, OFlags::empty())?.set_len(0)
        }
    }

    /// Notes in the index what begins at `offset`, if the last mark does not stand for it.
    fn mark(&mut self, offset: u64, run: &RunId, now: Now) -> io::Result<()> {
        let stands = self
            .last_mark
            .as_ref()
            .is_some_and(|(marked, at)| marked == run && now.mono.since(*at) < MARK_MS);
        if stands {
            return Ok(());
        }
        let Some(files) = &mut self.files else { return Ok(()) };
        self.last_mark = Some((run.clone(), now.mono));
        files.index.write_all(Mark { offset, at: now.wall, run: run.clone() }.to_string().as_bytes())
    }
}

/// Opens a file of ours for writing at its end, making it if it is missing. Never a symlink, FIFO or device.
fn open_for_writing(path: &Path, more: OFlags) -> io::Result<File> {
    let flags =
        OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | more;
    let file = File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o640))?);
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file; move it away"))
    }
}

fn rename_if_there(from: &Path, to: &Path) -> io::Result<()> {
    match fs::rename(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The last mark of an index, as far as its end can be read.
fn last_mark(index: &Path) -> io::Result<Option<Mark>> {
    const END_LEN: u64 = 4096;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let mut file = match rustix::fs::open(index, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let from = file.metadata()?.len().saturating_sub(END_LEN);
    file.seek(SeekFrom::Start(from))?;
    let mut end = Vec::new();
    file.take(END_LEN).read_to_end(&mut end)?;
    Ok(logindex::parse(&end).pop())
}
