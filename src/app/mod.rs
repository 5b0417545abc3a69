//! Where decisions meet the world: asks the machine, performs what it says through the edge.

pub mod client;
pub mod environment;
pub mod steward;
