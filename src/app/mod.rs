//! Where the layers meet: what is decided becomes what is done.

pub mod environment;
