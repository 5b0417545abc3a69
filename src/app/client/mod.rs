//! What commands and agents do by files alone, with or without a running supervisor.

pub mod memory;
