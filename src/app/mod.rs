//! Where the layers meet: the loop, what it performs, and what commands do by files alone.

pub mod catalog;
pub mod client;
pub mod environment;
pub mod logview;
pub mod overview;
pub mod scaffold;
pub mod survey;
pub mod trial;
pub mod unit;
pub mod wake;
pub mod world;
