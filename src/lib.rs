//! nightcrew.
pub mod app;
pub mod edge;
pub mod protocol;
