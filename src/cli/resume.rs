//! `nightcrew resume`

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::{screen, supervision};

/// What `resume` takes: nothing.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) const EXAMPLES: &str = "\
Agents that were stopped one by one stay stopped: `nightcrew start AGENT` lets them start.

Examples:
  nightcrew resume";

pub(crate) fn run(_: &Args, context: &Context) -> Result<Exit, CliError> {
    let client = context.client()?;
    match client.resume()? {
        Some(why) => screen::say(format_args!("resumed (it was halted: {why})"))?,
        None => screen::say("not halted")?,
    }
    supervision::remark(client.layout());
    Ok(Exit::Ok)
}
