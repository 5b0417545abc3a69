//! Results that no gate let pass: reading them, and putting a better one in their place.

use crate::edge::store::Store;
use crate::protocol::layout::Shelf;
use crate::protocol::name::TaskId;
use crate::protocol::record::OUTPUT_LEN_MAX;

use super::{Client, ClientError};

impl<S: Store> Client<S> {
    /// The result that lies with a task on this shelf, if there is one.
    ///
    /// # Errors
    /// [`ClientError::Read`].
    pub fn result(&self, shelf: Shelf, id: &TaskId) -> Result<Option<Vec<u8>>, ClientError> {
        self.bytes(&self.layout.result_on(shelf, id), OUTPUT_LEN_MAX)
    }

    /// Puts another result in the place of one that is to be reviewed, durably.
    ///
    /// # Errors
    /// [`ClientError::NoSuchTask`] if the task is not in review any more, [`ClientError::Io`].
    pub fn replace_result(&mut self, id: &TaskId, bytes: &[u8]) -> Result<(), ClientError> {
        self.on_shelf(Shelf::Review, id)?;
        self.publish(&self.layout.result_on(Shelf::Review, id), bytes)
    }
}
