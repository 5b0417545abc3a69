//! Standard output. A reader that has gone away ends the command quietly.

use std::fmt;
use std::io::{self, Write};

use serde::Serialize;

use crate::protocol::display::clean;

use super::error::CliError;

/// Prints one line.
pub(crate) fn say(line: impl fmt::Display) -> Result<(), CliError> {
    print(format_args!("{line}\n"))
}

/// Prints text as it is.
pub(crate) fn print(text: impl fmt::Display) -> Result<(), CliError> {
    write!(io::stdout().lock(), "{text}").map_err(|error| CliError::of_output(&error))
}

/// Prints bytes as they are.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut out = io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).map_err(|error| CliError::of_output(&error))
}

/// Prints a value as one line of JSON.
pub(crate) fn say_json(value: &impl Serialize) -> Result<(), CliError> {
    let text =
        serde_json::to_string(value).map_err(|error| CliError::failed(format_args!("as JSON: {error}")))?;
    say(text)
}

/// Tells something that does not keep the command from its work, on standard error.
pub(crate) fn warn(text: impl fmt::Display) {
    // Whoever closed standard error does not want to know.
    let _ = writeln!(io::stderr().lock(), "warning: {text}");
}

/// Text of unknown origin as one harmless line.
pub(crate) fn one_line(text: &str) -> String {
    clean(text.replace('\n', " ").as_bytes())
}
