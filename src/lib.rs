//! nightcrew.
pub mod app;
pub mod edge;
pub mod machine;
pub mod protocol;
