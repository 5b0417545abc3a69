//! What holds for any bytes and any values, by format: what is written is read as the same, what is damaged is
//! refused or told apart, and nothing that an agent, an operator or a failing disk leaves behind is misread.
//!
//! What was ever found wrong is kept in `tests/proptest-regressions/` and tried first.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a test touches the world, and fails by panicking"
)]

mod any;
mod declarations;
mod display;
mod framing;
mod lines;
mod logs;
mod numbers;
mod records;
mod schedules;
