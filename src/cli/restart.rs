//! `nightcrew restart AGENT…|--all`

use std::time::Duration;

use crate::app::world;
use crate::protocol::request::{Answer, Ask};

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

/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let named = args.agents.of(&client)?;
    if !world::is_supervised(client.layout()) {
        return Err(CliError::unavailable("no supervisor runs, so nothing can be restarted")
            .hint("`nightcrew run` starts every agent"));
    }
    let agents = if args.agents.all() { Vec::new() } else { named };
    let (id, path) = client.ask(Ask::Restart { agents })?;
    let appeared = world::appears(&path, ANSWER_WITHIN);
    let answer = client.take_answer(&id)?;
    if answer.is_none() {
        client.withdraw(&id)?;
    }
    match (answer, appeared) {
        (Some(Answer { ok: true, text, .. }), _) => {
            screen::say(screen::one_line(&text))?;
            Ok(Exit::Ok)
        }
        (Some(Answer { ok: false, text, .. }), _) => Err(CliError::failed(screen::one_line(&text))),
        (None, Err(error)) => Err(CliError::failed(format_args!("cannot wait for the answer: {error}"))
            .hint("the request was withdrawn; `nightcrew status` tells what runs")),
        (None, Ok(_)) => {
            let seconds = ANSWER_WITHIN.as_secs();
            Err(CliError::try_again(format_args!("the supervisor did not answer within {seconds} s"))
                .hint("the request was withdrawn; `nightcrew status` tells whether the supervisor is well"))
        }
    }
}
