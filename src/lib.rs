//! nightcrew.
pub mod edge;
pub mod protocol;
