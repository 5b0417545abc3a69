//! `nightcrew recall KEY`

use crate::protocol::name::Key;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `recall` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The key: 1 to 8 names joined by /
    key: Key,
}

pub(crate) const EXAMPLES: &str = "\
Prints the value as JSON, as the steward last applied it: updates that still wait in a queue do not
show yet. No value: exit 66.

Examples:
  nightcrew recall topics/today
  nightcrew recall reading/list | jq length";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    match context.client()?.recall(&args.key)? {
        Some(value) => screen::print_json(&value)?,
        None => {
            return Err(CliError::nothing_there(format_args!("there is no value under {}", args.key))
                .hint("`nightcrew remember set KEY JSON` gives it one"));
        }
    }
    Ok(Exit::Ok)
}
