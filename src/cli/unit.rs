//! `nightcrew unit`

use crate::app::survey::Survey;
use crate::app::unit::{self, Facts};

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `unit` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {}

pub(crate) const EXAMPLES: &str = "\
Examples:
  nightcrew unit                                          reads it first
  nightcrew unit > ~/.config/systemd/user/mycrew.service  for your user
  nightcrew unit | sudo tee /etc/systemd/system/mycrew.service";

pub(crate) fn run(_: &Args, context: &Context) -> Result<Exit, CliError> {
    let survey: Survey = context.survey()?;
    let roster = survey.roster()?;
    let grace = roster.offers.iter().map(|offer| offer.manifest.stop_grace_ms).max();
    let facts = Facts::here(&survey, grace)
        .map_err(|error| CliError::failed(format_args!("the path of this program: {error}")))?;
    let text = unit::systemd(&facts)
        .map_err(|error| CliError::failed(error).hint("move the crew to a directory with a plainer name"))?;
    screen::print(text)?;
    Ok(Exit::Ok)
}
