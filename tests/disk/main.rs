//! The simulated disk, held against its own promises and against a real one.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    reason = "a test touches the world, and fails by panicking"
)]

mod batch;
mod crashes;
mod faults;
mod oracle;
mod real;
mod steps;

#[path = "../sim/disk/mod.rs"]
#[expect(dead_code, reason = "the simulator uses more of it")]
mod disk;
#[path = "../it/faults/needs.rs"]
mod needs;
