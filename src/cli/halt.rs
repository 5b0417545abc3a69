//! `nightcrew halt [WHY]`

use crate::app::client::control::Switched;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `halt` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Why, for whoever looks next
    why: Vec<String>,
}

pub(crate) const EXAMPLES: &str = "\
The kill switch: nothing new starts and services are stopped, until `nightcrew resume`. Jobs and
tasks that run are finished. It is the file state/HALT; making that file by hand does the same.

Examples:
  nightcrew halt
  nightcrew halt the feed is broken, looking at it";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let why = if args.why.is_empty() {
        format!("halted by {}", client.caller().name())
    } else {
        args.why.join(" ")
    };
    match client.halt(&why)? {
        Switched::Now => screen::say(format_args!("halted: {why}"))?,
        Switched::Already(first) => screen::say(format_args!("halted already: {first}"))?,
    }
    Ok(Exit::Ok)
}
