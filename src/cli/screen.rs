//! Standard output. A reader that has gone away ends the command quietly.

use std::fmt::{self, Write as _};
use std::io::{self, Write};

use serde::Serialize;

use crate::protocol::display::{clean, harmless_json};

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
    say(harmless_json(&text))
}

/// Prints bytes that are JSON, so that a terminal shows them and does as they say in nothing.
pub(crate) fn print_json(bytes: &[u8]) -> Result<(), CliError> {
    match std::str::from_utf8(bytes) {
        Ok(json) => print(harmless_json(json)),
        Err(_) => print(clean(bytes)),
    }
}

/// A table whose columns are as wide as what stands in them; the last one is not filled up.
pub(crate) fn aligned(head: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(head.get(column).map(|name| name.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{cell:<width$}  ");
        }
        format!("{}\n", text.trim_end())
    };
    let mut text = line(&mut head.iter().copied());
    for row in rows {
        text.push_str(&line(&mut row.iter().map(String::as_str)));
    }
    text
}

/// Tells something that does not keep the command from its work, on standard error.
pub(crate) fn warn(text: impl fmt::Display) {
    complain(format_args!("warning: {text}"));
}

/// Tells what went wrong, line by line, on standard error.
pub(crate) fn complain(text: impl fmt::Display) {
    for line in text.to_string().lines() {
        // Where nobody can be told, the exit code still tells.
        let _ = writeln!(io::stderr().lock(), "{}", clean(line.as_bytes()));
    }
}

/// Text of unknown origin as one harmless line.
pub(crate) fn one_line(text: &str) -> String {
    clean(text.replace('\n', " ").as_bytes())
}
