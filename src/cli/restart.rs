//! `nightcrew restart AGENT…|--all`

use crate::protocol::request::Ask;

use super::asking::{self, Patience};
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::{chosen, screen};

/// What `restart` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    agents: chosen::Args,
}

pub(crate) const EXAMPLES: &str = "\
Ends the agents' processes and starts them again; their failures are forgotten, so that one that
waits out a backoff starts at once. It is asked of the running supervisor: without one, exit 69.

Examples:
  nightcrew restart intake
  nightcrew restart --all";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let named = args.agents.of(&client)?;
    asking::supervised(&client, "nothing can be restarted")?;
    let agents = if args.agents.all() { Vec::new() } else { named };
    screen::say(asking::ask(&mut client, Ask::Restart { agents }, &Patience::SHORT)?)?;
    Ok(Exit::Ok)
}
