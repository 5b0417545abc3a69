//! Waiting for something to show in a directory, for a bounded time, woken by the kernel.

use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use notify::{Event, EventKind, RecursiveMode, Watcher};

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
    // One hint is as good as many: the directory is looked at after each.
    let (hint, hints) = crossbeam_channel::bounded(1);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        // Our own looking makes access events; an error is a reason to look.
        if !matches!(event, Ok(Event { kind: EventKind::Access(_), .. })) {
            let _ = hint.try_send(());
        }
    })
    .map_err(io::Error::other)?;
    watcher.watch(dir, RecursiveMode::NonRecursive).map_err(io::Error::other)?;
    // The watch is set before the first look, so that nothing falls between.
    loop {
        if look() {
            return Ok(true);
        }
        match hints.recv_deadline(until) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(look()),
            Err(RecvTimeoutError::Disconnected) => return Err(io::Error::other("the watch ended")),
        }
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
}
