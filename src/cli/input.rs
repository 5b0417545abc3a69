//! What a command is handed: in an argument, a file or standard input; never more than may be.

use std::io::{self, Read};
use std::path::Path;

use crate::protocol::record::RECORD_LEN_MAX;

use super::context::Context;
use super::error::CliError;

/// The argument that stands for standard input.
pub(crate) const STDIN: &str = "-";

/// Reads a payload: `-` is standard input, `@FILE` a file, anything else the JSON itself.
pub(crate) fn payload(argument: &str, context: &Context) -> Result<Vec<u8>, CliError> {
    if argument == STDIN {
        return stdin(RECORD_LEN_MAX);
    }
    match argument.strip_prefix('@') {
        Some(file) => context.read(Path::new(file), RECORD_LEN_MAX),
        None => Ok(argument.as_bytes().to_vec()),
    }
}

/// Reads standard input to its end.
pub(crate) fn stdin(max: u64) -> Result<Vec<u8>, CliError> {
    let mut bytes = Vec::new();
    io::stdin()
        .lock()
        .take(max.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| CliError::failed(format_args!("standard input: {error}")))?;
    if bytes.len() as u64 > max {
        return Err(CliError::bad_input(format_args!("standard input: more than {max} bytes"))
            .hint("put what is large into a file and hand in its path"));
    }
    Ok(bytes)
}
