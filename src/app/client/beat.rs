//! A sign of life: a line in the run's heartbeat file, and the run's locks renewed.

use std::path::Path;

use crate::edge::store::Store;
use crate::protocol::heartbeat::Beat;

use super::{Client, ClientError};

impl<S: Store> Client<S> {
    /// Appends a line to the heartbeat file, which is never replaced, and renews the locks of the tasks
    /// that this run claimed by command.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn beat(&self, heartbeat: &Path, beat: &Beat) -> Result<(), ClientError> {
        let line = format!("{beat}\n");
        self.store
            .open_append(heartbeat)
            .and_then(|(mut file, _)| self.store.append(&mut file, line.as_bytes()))
            .map_err(|error| ClientError::Io { path: heartbeat.into(), error })?;
        for note in self.notes()? {
            let lock = self.layout.lock(&note.task);
            // A lock that has gone was vacated; `done` will say so.
            self.store.touch(&lock).map_err(|error| ClientError::Io { path: lock, error })?;
        }
        Ok(())
    }
}
