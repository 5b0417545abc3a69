//! Waiting until files change, for commands that show what changes.

use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::Receiver;

pub use crate::edge::watches::WatchError;
use crate::edge::watches::{Area, Scope, Watches};

/// The least time between two redraws: four a second are enough for a person.
const REST: Duration = Duration::from_millis(250);

/// Wakes whoever waits when something changes in certain directories, or happens to certain files.
#[derive(Debug)]
pub struct Wake {
    hints: Receiver<()>,
    // Held for its watches.
    _watches: Watches,
}

impl Wake {
    /// Watches these directories from now on, and these files, which need not exist (but their directories must):
    /// look after this, and nothing falls between.
    ///
    /// # Errors
    /// [`WatchError`], such as where a directory is missing.
    pub fn on(directories: &[PathBuf], files: &[PathBuf]) -> Result<Self, WatchError> {
        // One hint is as good as many.
        let (hint, hints) = crossbeam_channel::bounded(1);
        let mut watches = Watches::start(move |_| {
            let _ = hint.try_send(());
        })?;
        for directory in directories {
            watches.watch(directory, Area::Extra, Scope::Entries)?;
        }
        for file in files {
            watches.watch(file, Area::Extra, Scope::File)?;
        }
        Ok(Self { hints, _watches: watches })
    }

    /// Where a hint comes in after a change; one stands for any number of them.
    #[must_use]
    pub fn hints(&self) -> &Receiver<()> {
        &self.hints
    }

    /// Rests, so that a busy directory wakes nobody more than four times a second; then waits for a change since
    /// the last wait, at most this long.
    pub fn wait(&self, at_most: Duration) {
        let _ = crossbeam_channel::after(REST).recv();
        // Woken or not: the caller looks.
        let _ = self.hints.recv_timeout(at_most);
    }
}
