//! `nightcrew try AGENT [JSON]`

use std::io::IsTerminal;

use crate::app::catalog::Picture;
use crate::app::{trial, world};
use crate::protocol::name::AgentName;
use crate::protocol::process::Ending;

use super::check::show_refusals;
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `try` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The agent
    agent: AgentName,
    /// The payload, for a handler (default: null)
    #[arg(value_name = "JSON")]
    payload: Option<String>,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  nightcrew try intake                      a service, until it ends or Ctrl-C
  nightcrew try editor '{\"title\": \"x\"}'     a handler, on this payload
It runs once, with the environment, standard input and working directory that it has under a
supervisor (whether one runs or not). No task is touched; its result is printed.";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let survey = context.survey()?;
    let Picture { offer, refusals } = survey.agent(&args.agent)?;
    let Some(offer) = offer else {
        show_refusals(&refusals)?;
        return Err(if refusals.is_empty() {
            CliError::nothing_there(format_args!("there is no agent {}", args.agent))
                .hint("`nightcrew check` lists them")
        } else {
            CliError::failed(format_args!("{} cannot run", args.agent)).hint("do as told above")
        });
    };
    let payload = match (&args.payload, offer.manifest.is_handler()) {
        (None, true) => Some("null"),
        (Some(text), true) => Some(text.as_str()),
        (None, false) => None,
        (Some(_), false) => {
            return Err(CliError::usage(format_args!("{} is a service: it takes no payload", args.agent))
                .hint("leave the JSON out"));
        }
    };
    if let Some(text) = payload
        && let Err(error) = serde_json::from_str::<serde::de::IgnoredAny>(text)
    {
        return Err(CliError::bad_input(format_args!("the payload is no JSON: {error}"))
            .hint("a text needs its quotes, too: '\"text\"'"));
    }
    let id = world::fresh_id(context.wall(), &mut world::randomness());
    let run = id.parse().map_err(CliError::failed)?;
    let tried = trial::run(&survey, &offer, &run, payload.map(str::as_bytes))
        .map_err(|error| CliError::failed(error).hint("`nightcrew check` looks at what it needs"))?;
    if let Some(output) = tried.output {
        screen::print_bytes(&output)?;
        if std::io::stdout().is_terminal() && !output.ends_with(b"\n") {
            screen::say("")?;
        }
    }
    Ok(match tried.ending {
        Ending::Code(code) => Exit::Theirs(u8::try_from(code).unwrap_or(u8::MAX)),
        // As a shell tells it.
        Ending::Signal(signal) => Exit::Theirs(u8::try_from(128 + signal).unwrap_or(u8::MAX)),
        Ending::Unseen => Exit::Failed,
    })
}
