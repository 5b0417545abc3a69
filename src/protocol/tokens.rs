//! `tasks/tokens`: how far fencing tokens are reserved.

use serde::{Deserialize, Serialize};

/// The crew-wide counter. A token above `reserved` was never given out; one up to it may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tokens {
    /// The version of the format.
    pub v: u32,
    /// The highest token that may have been given out.
    pub reserved: u64,
}
