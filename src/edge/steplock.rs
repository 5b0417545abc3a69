//! The lock of a step: one process at a time does it.
//!
//! It is a `flock(2)` on a file beside the step's record, which is there only while the step is in progress: who
//! holds the lock removes the file. A lock on a name that was removed keeps nobody out; so whoever got the lock looks
//! whether the file is still the one of that name, and otherwise begins again. Only the holder of the lock on the
//! file of that name removes it, hence nobody can take it away from under him. The descriptor is closed on exec: what
//! a step runs does not hold its lock, and when the step's process is killed the kernel lets go.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use fs2::FileExt;
use rustix::fs::OFlags;

use super::flock::{is_at, is_contended, open_lock, read_holder, write_down};
use crate::protocol::holder::Holder;

/// How often a lock's file may be removed before our eyes: each time somebody else has done the step, or failed.
const TRIES_MAX: u32 = 10_000;

/// A step's lock, held until this is dropped.
#[derive(Debug)]
pub struct StepLock {
    file: File,
    path: PathBuf,
}

/// What came of asking for a lock without waiting.
#[derive(Debug)]
pub enum Tried {
    /// It is ours.
    Got(StepLock),
    /// Another process holds it: this one, if it has written that down by now.
    Busy(Option<Holder>),
}

impl StepLock {
    /// Takes the lock if it is free. Its directory must be there.
    ///
    /// # Errors
    /// Those of opening, locking and writing the file.
    pub fn try_take(path: &Path, holder: &Holder) -> io::Result<Tried> {
        let taken = take(path, holder, |file| match FileExt::try_lock_exclusive(file) {
            Ok(()) => Ok(true),
            Err(error) if is_contended(&error) => Ok(false),
            Err(error) => Err(error),
        })?;
        Ok(taken.map_or_else(|| Tried::Busy(read_holder(path)), Tried::Got))
    }

    /// Takes the lock, and waits for it as long as others hold it: each as long as its process lives at most.
    ///
    /// # Errors
    /// Those of opening, locking and writing the file.
    pub fn take(path: &Path, holder: &Holder) -> io::Result<Self> {
        let taken = take(path, holder, |file| FileExt::lock_exclusive(file).map(|()| true))?;
        taken.ok_or_else(|| io::ErrorKind::WouldBlock.into())
    }
}

/// Opens and locks the file until what is locked is what the path names; `None` if `lock` did not get it.
fn take(
    path: &Path,
    holder: &Holder,
    lock: impl Fn(&File) -> io::Result<bool>,
) -> io::Result<Option<StepLock>> {
    for _ in 0..TRIES_MAX {
        let file = open_lock(path, OFlags::RDWR | OFlags::CREATE)?;
        if !lock(&file)? {
            return Ok(None);
        }
        if is_at(&file, path)? {
            // Now it is ours to remove, also if nothing can be written into it (the disk may be full).
            let mut lock = StepLock { file, path: path.to_owned() };
            write_down(&mut lock.file, holder)?;
            return Ok(Some(lock));
        }
    }
    Err(io::Error::other("the lock's file was removed each time it was locked"))
}

impl Drop for StepLock {
    fn drop(&mut self) {
        // A file that stays is locked by nobody and in nobody's way.
        if is_at(&self.file, &self.path).unwrap_or(false) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::protocol::process::Identity;
    use crate::protocol::time::Wall;

    fn holder(pid: u32) -> Holder {
        Holder::new(Identity { pid, start: 1, boot: "b".into(), ns: 1 }, Wall(0))
    }

    #[test]
    fn a_lock_that_is_held_tells_by_whom_and_leaves_no_file_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let Tried::Got(lock) = StepLock::try_take(&path, &holder(7)).unwrap() else { panic!("it is free") };
        assert!(
            matches!(StepLock::try_take(&path, &holder(8)).unwrap(), Tried::Busy(Some(by)) if by == holder(7))
        );
        drop(lock);
        assert!(!path.exists());
        fs::write(&path, "left by one that was killed").unwrap();
        assert!(matches!(StepLock::try_take(&path, &holder(8)).unwrap(), Tried::Got(_)));
        assert!(StepLock::try_take(&dir.path().join("none").join("lock"), &holder(8)).is_err());
    }

    /// Each removes the file that others have opened and wait for.
    #[test]
    fn of_many_that_wait_one_at_a_time_gets_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let (inside, entered) = (AtomicU32::new(0), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for pid in 0..8 {
                let (path, inside, entered) = (&path, &inside, &entered);
                scope.spawn(move || {
                    for _ in 0..50 {
                        let lock = StepLock::take(path, &holder(pid)).unwrap();
                        assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "somebody is in");
                        std::thread::yield_now();
                        inside.fetch_sub(1, Ordering::SeqCst);
                        entered.fetch_add(1, Ordering::SeqCst);
                        drop(lock);
                    }
                });
            }
        });
        assert_eq!(entered.into_inner(), 400);
        assert!(!path.exists());
    }

    #[test]
    fn a_lock_whose_file_was_replaced_removes_nobody_elses() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let lock = StepLock::take(&path, &holder(7)).unwrap();
        fs::remove_file(&path).unwrap();
        let other = StepLock::take(&path, &holder(8)).unwrap();
        drop(lock);
        assert!(path.exists());
        drop(other);
        assert!(!path.exists());
    }
}
