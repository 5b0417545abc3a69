//! The crew's locks: at most one supervisor, and anyone can ask whether there is one.
//!
//! Two files are locked with `flock(2)`, always in this order: the crew's directory, which nobody
//! removes by cleaning up, and `state/supervisor.lock`, which tells people who holds it. So a second
//! supervisor is kept out even after `rm -rf state`. Neither is ever unlinked: a lock on a name that
//! was unlinked keeps nobody out. The kernel lets go when the process ends, however that happens.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fs2::FileExt;
use rustix::fs::{Mode, OFlags};

use crate::protocol::holder::Holder;
use crate::protocol::layout::Layout;
use crate::protocol::record::SMALL_LEN_MAX;

/// Why the locks were not had.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another supervisor runs this crew.
    #[error("this crew already has a supervisor: {0}")]
    Held(Held),
    /// A file could not be opened, locked or written.
    #[error("cannot lock {path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Who holds a crew, as far as its lock file tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// This supervisor.
    By(Holder),
    /// One that did not say (yet), or whose lock file was removed.
    Unnamed,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::By(holder) => write!(f, "pid {}, since {}", holder.process.pid, holder.since),
            Self::Unnamed => f.write_str("it left no name (was state/ removed?)"),
        }
    }
}

/// The crew's locks, held until this is dropped.
#[derive(Debug)]
pub struct CrewLock {
    // Held for its lock alone.
    _crew: File,
    lock: File,
    path: PathBuf,
}

/// How often and how far apart taking a lock is tried: for a second, because a command that asks whether
/// a supervisor runs holds it shared for some microseconds. Nothing tells when it lets go.
const TRIES: u32 = 50;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

impl CrewLock {
    /// Takes both locks, making `state/` if it is missing, and writes down who holds them.
    ///
    /// # Errors
    /// [`LockError::Held`] if another process holds one of them for a second; [`LockError::Io`].
    pub fn acquire(layout: &Layout, holder: &Holder) -> Result<Self, LockError> {
        let path = layout.supervisor_lock();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| LockError::Io { path, source }
        };
        let crew = open_dir(layout.crew()).map_err(failed(layout.crew()))?;
        if !lock_within_a_second(&crew).map_err(failed(layout.crew()))? {
            return Err(LockError::Held(holder_of(layout)));
        }
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(layout.state())
            .map_err(failed(&layout.state()))?;
        let flags = OFlags::RDWR | OFlags::CREATE;
        let mut lock = open_lock(&path, flags).map_err(failed(&path))?;
        if !lock_within_a_second(&lock).map_err(failed(&path))? {
            return Err(LockError::Held(holder_of(layout)));
        }
        write_down(&mut lock, holder).map_err(failed(&path))?;
        Ok(Self { _crew: crew, lock, path })
    }

    /// Whether `state/supervisor.lock` is still the file that is locked here. If not, somebody removed
    /// or replaced `state/`, and nothing in it is what this supervisor knows.
    ///
    /// # Errors
    /// Those of `stat(2)` but for `ENOENT` and `ENOTDIR`.
    pub fn is_intact(&self) -> io::Result<bool> {
        is_at(&self.lock, &self.path)
    }
}

/// Whether the file that is open is the one at `path`.
pub(super) fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let ours = file.metadata()?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Who supervises the crew now; `None` if nobody does. For the moment of asking this holds a shared lock.
///
/// # Errors
/// Those of opening and locking the crew's directory.
pub fn probe(layout: &Layout) -> io::Result<Option<Held>> {
    let crew = open_dir(layout.crew())?;
    match FileExt::try_lock_shared(&crew) {
        Ok(()) => Ok(None),
        Err(error) if is_contended(&error) => Ok(Some(holder_of(layout))),
        Err(error) => Err(error),
    }
}

fn open_dir(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
}

pub(super) fn open_lock(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(0o644))?))
}

fn lock_within_a_second(file: &File) -> io::Result<bool> {
    for tried in 1..=TRIES {
        match FileExt::try_lock_exclusive(file) {
            Ok(()) => return Ok(true),
            Err(error) if is_contended(&error) && tried < TRIES => std::thread::sleep(BETWEEN_TRIES),
            Err(error) if is_contended(&error) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

pub(super) fn is_contended(error: &io::Error) -> bool {
    error.raw_os_error() == fs2::lock_contended_error().raw_os_error()
}

/// Says in a lock's file who holds it, for people.
pub(super) fn write_down(lock: &mut File, holder: &Holder) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    lock.write_all(&holder.encode())
}

/// Who a lock's file says that holds it.
pub(super) fn read_holder(path: &Path) -> Option<Holder> {
    let mut bytes = Vec::new();
    let lock = open_lock(path, OFlags::RDONLY).ok()?;
    lock.take(SMALL_LEN_MAX).read_to_end(&mut bytes).ok()?;
    Holder::decode(&bytes).ok()
}

fn holder_of(layout: &Layout) -> Held {
    read_holder(&layout.supervisor_lock()).map_or(Held::Unnamed, Held::By)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::protocol::process::Identity;
    use crate::protocol::time::Wall;

    fn holder() -> Holder {
        let process = Identity { pid: std::process::id(), start: 1, boot: "b".into(), ns: 1 };
        Holder::new(process, Wall(1_795_143_600_123))
    }

    #[test]
    fn a_second_supervisor_is_refused_also_after_state_was_removed() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let lock = CrewLock::acquire(&layout, &holder()).unwrap();
        assert!(lock.is_intact().unwrap());
        match CrewLock::acquire(&layout, &holder()) {
            Err(LockError::Held(Held::By(found))) => assert_eq!(found, holder()),
            other => panic!("{other:?}"),
        }
        fs::remove_dir_all(layout.state()).unwrap();
        assert!(!lock.is_intact().unwrap());
        assert!(matches!(CrewLock::acquire(&layout, &holder()), Err(LockError::Held(Held::Unnamed))));
        drop(lock);
        CrewLock::acquire(&layout, &holder()).unwrap();
    }

    #[test]
    fn the_lock_file_alone_keeps_others_out_too() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        drop(CrewLock::acquire(&layout, &holder()).unwrap());
        let file = File::open(layout.supervisor_lock()).unwrap();
        FileExt::lock_exclusive(&file).unwrap();
        assert!(matches!(CrewLock::acquire(&layout, &holder()), Err(LockError::Held(Held::By(_)))));
    }

    #[test]
    fn probing_tells_who_holds_the_crew_and_keeps_nobody_out() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        assert_eq!(probe(&layout).unwrap(), None);
        let lock = CrewLock::acquire(&layout, &holder()).unwrap();
        assert_eq!(probe(&layout).unwrap(), Some(Held::By(holder())));
        drop(lock);
        assert_eq!(probe(&layout).unwrap(), None, "what the file says counts for nothing");
        CrewLock::acquire(&layout, &holder()).unwrap();
    }

    #[test]
    fn a_child_does_not_inherit_the_locks() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let lock = CrewLock::acquire(&layout, &holder()).unwrap();
        // A grandchild that outlives everything, as a daemon would.
        let mut shell =
            Command::new("sh").args(["-c", "sleep 60 & echo $!"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut pid = String::new();
        let mut output = shell.stdout.take().unwrap();
        while !pid.ends_with('\n') {
            let mut byte = [0];
            output.read_exact(&mut byte).unwrap();
            pid.push(char::from(byte[0]));
        }
        shell.wait().unwrap();
        drop(lock);
        let again = CrewLock::acquire(&layout, &holder());
        let grandchild = rustix::process::Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        assert!(
            rustix::process::test_kill_process(grandchild).is_ok(),
            "it must live for this to prove anything"
        );
        rustix::process::kill_process(grandchild, rustix::process::Signal::KILL).unwrap();
        again.unwrap();
    }
}
