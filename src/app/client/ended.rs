//! How far a task has come, told by names alone: no directory is listed, and no record read.

use crate::edge::store::Store;
use crate::protocol::layout::Shelf;
use crate::protocol::name::TaskId;

use super::{Client, ClientError};

impl<S: Store> Client<S> {
    /// The shelf that a task's record lies on, if it has ended.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn shelf_of(&self, id: &TaskId) -> Result<Option<Shelf>, ClientError> {
        for shelf in Shelf::ALL {
            if self.exists(&self.layout.ended(shelf, id))? {
                return Ok(Some(shelf));
            }
        }
        Ok(None)
    }

    /// True if there is such a task, wherever it lies.
    ///
    /// # Errors
    /// [`ClientError::Io`].
    pub fn is_known(&self, id: &TaskId) -> Result<bool, ClientError> {
        // Places are looked at in the order in which a record moves. But one that is moved back, to be done again,
        // may pass us by once.
        for _ in 0..2 {
            let open = self.exists(&self.layout.new_task(id))? || self.exists(&self.layout.task(id))?;
            if open || self.shelf_of(id)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
