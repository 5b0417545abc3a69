//! Where the layers meet: the loop, what it performs, and what commands do by files alone.

pub mod catalog;
pub mod client;
pub mod environment;
pub mod survey;
pub mod world;
