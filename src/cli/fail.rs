//! `nightcrew fail [ID] [WHY]`

use crate::app::client::finish::Again;
use crate::protocol::name::TaskId;
use crate::protocol::task::RETRY_AFTER_MS_MAX;
use crate::protocol::time::{parse_duration, show_duration};

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
    /// Trying again will not help: a dead letter at once
    #[arg(long, conflicts_with = "retry_after")]
    permanent: bool,
    /// The next try, if there is one, is no sooner than after this: such as 90s, at most 7d
    #[arg(long, value_name = "LENGTH", value_parser = parse_wait)]
    retry_after: Option<u64>,
}

pub(crate) const EXAMPLES: &str = "\
The task is tried again after a while, until its retries are used up. A first word that is the id of
a task you hold is taken for the id.

Examples:
  nightcrew fail 'the feed answered 500'
  nightcrew fail 3f2a9c0d11e45b67 'the feed answered 500'
  nightcrew fail --permanent 'there is no such feed'
  nightcrew fail --retry-after 90s 'the feed answered 429'";

fn parse_wait(text: &str) -> Result<u64, String> {
    let ms = parse_duration(text)?;
    if ms > RETRY_AFTER_MS_MAX {
        return Err(format!("a task waits for {} at most", show_duration(RETRY_AFTER_MS_MAX)));
    }
    Ok(ms)
}

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
    let again = match (args.permanent, args.retry_after) {
        (true, _) => Again::Never,
        (false, Some(ms)) => Again::After(ms),
        (false, None) => Again::AsEver,
    };
    client.fail(&held, why, again)?;
    screen::say(format_args!("handed in {}: failed", held.task))?;
    Ok(Exit::Ok)
}
