//! `nightcrew release [ID]`

use crate::protocol::name::TaskId;
use crate::protocol::task::Verdict;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `release` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The task; needed only where the run holds several
    id: Option<TaskId>,
}

pub(crate) const EXAMPLES: &str = "\
The task is handed back untouched and may be claimed again at once; no failure is counted.

Examples:
  nightcrew release
  nightcrew release 3f2a9c0d11e45b67";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let held = client.held(args.id.as_ref(), context.given(client.caller()))?;
    client.finish(&held, Verdict::Released, None, None)?;
    screen::say(format_args!("handed in {}: released", held.task))?;
    Ok(Exit::Ok)
}
