//! The on-disk protocol: bytes to records and back. Pure: `std` and `serde`, no I/O, no clock.
//!
//! Each format has one module here that reads and writes it, and [`layout`] spells every path.
//! docs/protocol.md tells the same for someone who writes an agent without this library.

pub mod crewfile;
pub mod digest;
pub mod display;
pub mod envfile;
pub mod framing;
pub mod heartbeat;
pub mod holder;
pub mod journal;
pub mod layout;
pub mod ledger;
pub mod logindex;
pub mod manifest;
pub mod name;
pub mod process;
pub mod record;
pub mod request;
pub mod schedule;
pub mod status;
pub mod step;
pub mod task;
pub mod time;
pub mod tokens;
pub mod trigger;
pub mod update;
pub mod variables;
