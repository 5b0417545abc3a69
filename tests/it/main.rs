//! The crew as a whole: the built binary, real processes, real files.
//!
//! Each test tells a short story with [`crew::Crew`] and ends with nothing left running. It waits for evidence (a
//! fact in the ledger, a file, a process that is gone), never for time to pass.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    reason = "a test touches the world, and fails by panicking"
)]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one thing among many")]

mod badinput;
mod batch;
mod bound;
mod claims;
mod crew;
mod deadletters;
mod environment;
mod faults;
mod fleet;
mod gates;
mod jobs;
mod layers;
mod lifecycle;
mod liveness;
mod memory;
mod newsroom;
mod paidonce;
mod pull;
mod refusals;
mod review;
mod steps;
mod survives;
mod switches;
mod unlucky;
