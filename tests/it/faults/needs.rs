//! What a fault needs that is not on every machine. A test that has to be skipped says so, and why.

use std::io::Write as _;
use std::process::{Command, Stdio};

/// True for root; else says that `test` is skipped.
pub(crate) fn root(test: &str) -> bool {
    nix::unistd::geteuid().is_root() || skipped(test, "it needs root")
}

/// True if this program can be run; else says that `test` is skipped.
pub(crate) fn program(test: &str, program: &str) -> bool {
    let mut command = Command::new(program);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok() || skipped(test, &format!("{program} is not installed"))
}

/// Says that `test` is skipped, past the capture of the test runner. False.
pub(crate) fn skipped(test: &str, why: &str) -> bool {
    // Where nobody reads, nobody needs to be told.
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {why}");
    false
}
