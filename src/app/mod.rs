//! Where decisions meet the world: the loop asks the machine and performs what it says through the edge;
//! commands do their part by files alone.

pub mod client;
pub mod steward;
pub mod world;
