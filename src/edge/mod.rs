//! Where the world is touched: clock, files, processes, signals, watches, logs.
//!
//! Nothing here decides. Each part does what it is told and reports what it saw through a `deliver`
//! callback, which the application points at its one queue.

#![expect(clippy::disallowed_methods, reason = "this is the layer that the bans elsewhere point to")]

pub mod appear;
pub mod capture;
pub mod clock;
pub mod editor;
pub mod environment;
#[cfg(test)]
pub(crate) mod faulty;
pub mod files;
pub mod flock;
pub mod foreground;
pub mod launcher;
pub mod log;
pub mod processes;
pub mod pump;
pub mod signals;
pub mod steplock;
pub mod store;
pub mod thread;
pub mod watchdog;
pub mod watches;
pub mod writer;
pub mod writer_thread;
pub mod zones;
