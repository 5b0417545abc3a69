//! `AGENT…|--all`: which agents a command is about.

use crate::app::client::Client;
use crate::app::client::control::nearest;
use crate::app::world::Disk;
use crate::protocol::name::AgentName;

use super::error::CliError;

/// Some agents by name, or all.
#[derive(Debug, clap::Args)]
#[group(id = "chosen", required = true, multiple = false)]
pub(crate) struct Args {
    /// The agents
    #[arg(value_name = "AGENT")]
    names: Vec<AgentName>,
    /// Every agent of the crew
    #[arg(long)]
    all: bool,
}

impl Args {
    /// True if every agent is meant.
    pub(crate) fn all(&self) -> bool {
        self.all
    }

    /// The agents that are meant, each of which is known.
    pub(crate) fn of(&self, client: &Client<Disk>) -> Result<Vec<AgentName>, CliError> {
        let known = client.agents()?;
        if self.all {
            return Ok(known.into_iter().collect());
        }
        if let Some(unknown) = self.names.iter().find(|name| !known.contains(*name)) {
            let error = CliError::failed(format_args!("there is no agent {unknown}"));
            return Err(match nearest(unknown, &known) {
                Some(near) => error.hint(format_args!("did you mean {near}?")),
                None => error.hint("`nightcrew status` lists the agents"),
            });
        }
        Ok(self.names.clone())
    }
}
