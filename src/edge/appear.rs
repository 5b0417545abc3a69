//! Waiting for something to show in a directory, for a bounded time, woken by the kernel.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::store::parent;

/// Waits until there is something at `path`, at most this long; false if there is nothing by then.
///
/// # Errors
/// As for [`look_until`], at the directory that `path` lies in.
pub fn appears(path: &Path, within: Duration) -> io::Result<bool> {
    look_until(parent(path), within, || path.symlink_metadata().is_ok())
}

/// Looks at once and after each change in `dir`, until `look` is satisfied, at most this long; false if it
/// was not by then.
///
/// # Errors
/// If the directory cannot be watched, such as when it is missing or the host's inotify watches are used up.
pub fn look_until(dir: &Path, within: Duration, mut look: impl FnMut() -> bool) -> io::Result<bool> {
    let until = Instant::now() + within;
    // The watch is set before the first look, so that nothing falls between.
    let watched = Watched::new(dir)?;
    loop {
        if look() {
            return Ok(true);
        }
        match watched.hints.recv_deadline(until) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(look()),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the watch ended")),
        }
    }
}

/// What lies at a path is watched: the entries of a directory, or that very file, whatever becomes of its name.
#[derive(Debug)]
pub struct Watched {
    hints: Receiver<()>,
    // Held for its watch.
    _watcher: RecommendedWatcher,
}

impl Watched {
    /// Watches what lies at this path, from now on.
    ///
    /// # Errors
    /// If it cannot be watched, such as when it is missing or the host's inotify watches are used up.
    pub fn new(path: &Path) -> io::Result<Self> {
        // One hint is as good as many: whoever gets it looks.
        let (hint, hints) = crossbeam_channel::bounded(1);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            // Our own looking makes access events; an error is a reason to look.
            if !matches!(event, Ok(Event { kind: EventKind::Access(_), .. })) {
                let _ = hint.try_send(());
            }
        })
        .map_err(io::Error::other)?;
        watcher.watch(path, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
        Ok(Self { hints, _watcher: watcher })
    }

    /// Where a hint comes in after a change; one stands for any number of them.
    #[must_use]
    pub fn hints(&self) -> &Receiver<()> {
        &self.hints
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_appears_is_seen_and_what_does_not_ends_the_wait() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("answer");
        assert!(!appears(&path, Duration::from_millis(20)).unwrap());
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| appears(&path, Duration::from_mins(1)));
            std::fs::write(dir.path().join("other"), "").unwrap();
            std::fs::write(&path, "").unwrap();
            assert!(waiting.join().unwrap().unwrap());
        });
        assert!(appears(&dir.path().join("missing").join("x"), Duration::ZERO).is_err());
    }

    #[test]
    fn a_file_that_is_removed_or_renamed_is_told_of_and_its_neighbours_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        for is_renamed in [false, true] {
            std::fs::write(&path, "x").unwrap();
            let watched = Watched::new(&path).unwrap();
            std::fs::write(dir.path().join("neighbour"), "").unwrap();
            let _ = std::fs::read(&path).unwrap();
            assert!(watched.hints().recv_timeout(Duration::from_millis(50)).is_err());
            if is_renamed {
                std::fs::rename(&path, path.with_extension("aside")).unwrap();
            } else {
                std::fs::remove_file(&path).unwrap();
            }
            watched.hints().recv_timeout(Duration::from_mins(1)).unwrap();
        }
        assert!(Watched::new(&path).is_err(), "it is gone");
    }
}
