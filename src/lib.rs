//! nightcrew.
pub mod app;
mod cli;
pub mod edge;
pub mod machine;
pub mod protocol;

pub use cli::main;
