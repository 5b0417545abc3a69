//! Where the world is touched: clock, files, processes, signals, watches, logs.
//!
//! Nothing here decides. Each part does what it is told and reports what it saw through a `deliver`
//! callback, which the application points at its one queue.

#![expect(clippy::disallowed_methods, reason = "this is the layer that the bans elsewhere point to")]

pub mod clock;
pub mod launcher;
pub mod processes;
pub mod store;
pub mod watchdog;
