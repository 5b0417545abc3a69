//! Where decisions meet the world: the loop asks the machine and performs what it says through the edge;
//! commands do their part by files alone.

pub mod catalog;
pub mod client;
pub mod environment;
pub mod logview;
pub mod outlast;
pub mod overview;
pub mod pull;
mod reach;
pub mod scaffold;
pub mod steps;
pub mod steward;
pub mod supervisor;
pub mod survey;
pub mod tidying;
pub mod trial;
pub mod unit;
pub mod wake;
pub mod work;
pub mod world;
