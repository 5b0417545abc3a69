//! nightcrew.
pub mod edge;
pub mod machine;
pub mod protocol;
