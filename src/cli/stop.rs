//! `nightcrew stop AGENT…|--all`

use crate::app::client::control::Switched;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::{chosen, screen};

/// What `stop` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    agents: chosen::Args,
    /// Why, for whoever looks next
    #[arg(long, value_name = "TEXT")]
    why: Option<String>,
}

pub(crate) const EXAMPLES: &str = "\
A stopped agent stays stopped across restarts and reboots, until `nightcrew start`. A service is
ended; jobs and tasks that run are finished.

Examples:
  nightcrew stop intake
  nightcrew stop --all --why 'moving the disk'";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let agents = args.agents.of(&client)?;
    let why = args.why.clone().unwrap_or_else(|| format!("stopped by {}", client.caller().name()));
    for agent in &agents {
        match client.stop(agent, &why)? {
            Switched::Now => screen::say(format_args!("{agent}: stopped"))?,
            Switched::Already(first) => screen::say(format_args!("{agent}: stopped already: {first}"))?,
        }
    }
    Ok(Exit::Ok)
}
