//! `nightcrew fail [ID] [WHY]`

use crate::protocol::name::TaskId;
use crate::protocol::task::Verdict;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `fail` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The task's id (needed only where the run holds several), then what went wrong
    #[arg(value_name = "[ID] [WHY]", num_args = 0..)]
    words: Vec<String>,
}

pub(crate) const EXAMPLES: &str = "\
The task is tried again after a while, until its retries are used up. A first word that is the id of
a task you hold is taken for the id.

Examples:
  nightcrew fail 'the feed answered 500'
  nightcrew fail 3f2a9c0d11e45b67 'the feed answered 500'";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let given = context.given(client.caller());
    let first: Option<TaskId> = args.words.first().and_then(|word| word.parse().ok());
    let by_id = first.and_then(|id| client.held(Some(&id), given.clone()).ok());
    let (held, why) = match by_id {
        Some(held) => (held, args.words[1..].join(" ")),
        None => (client.held(None, given)?, args.words.join(" ")),
    };
    let why = if why.is_empty() { "no reason given" } else { &why };
    client.finish(&held, Verdict::Failed, Some(why), None)?;
    screen::say(format_args!("handed in {}: failed", held.task))?;
    Ok(Exit::Ok)
}
