//! `nightcrew start AGENT…|--all`

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::{chosen, screen, supervision};

/// What `start` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    agents: chosen::Args,
}

pub(crate) const EXAMPLES: &str = "\
Undoes `nightcrew stop`. An agent that is not stopped is left as it is; `nightcrew restart` starts
one again that runs.

Examples:
  nightcrew start intake
  nightcrew start --all";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let client = context.client()?;
    for agent in &args.agents.of(&client)? {
        match client.start(agent)? {
            Some(_) => screen::say(format_args!("{agent}: may start"))?,
            None => screen::say(format_args!("{agent}: was not stopped"))?,
        }
    }
    supervision::remark(client.layout());
    Ok(Exit::Ok)
}
