//! What is decided: pure functions over the protocol's records. No clock, no I/O, no threads, no
//! randomness of its own.

pub mod memory;
