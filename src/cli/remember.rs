//! `nightcrew remember [--wait] OP KEY [JSON|-]`

use std::time::Duration;

use crate::app::client::memory::Fate;
use crate::app::client::submit::Payload;
use crate::app::world;
use crate::protocol::name::Key;
use crate::protocol::update::Operation;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::{input, screen};

/// What `remember` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What to do with the value under the key
    #[arg(value_name = "set|merge|append|delete", value_parser = parse_operation)]
    op: Operation,
    /// The key: 1 to 8 names joined by /
    key: Key,
    /// The value: JSON, @FILE or - for standard input; `delete` takes none
    #[arg(value_name = "JSON|@FILE|-")]
    value: Option<String>,
    /// Wait until it is applied, at most 30 seconds
    #[arg(long)]
    wait: bool,
}

pub(crate) const EXAMPLES: &str = "\
The update is durable when this returns; the running supervisor applies it, each agent's updates in
their order. `merge` follows RFC 7396; `append` adds to a list. With --wait, an update that is refused
exits 65, and one not applied in time 75 (it stays in the queue).

Examples:
  nightcrew remember set topics/today '\"rust\"'
  nightcrew remember --wait append reading/list '{\"title\":\"The Night Shift\"}'
  nightcrew remember delete topics/today";

/// How long `--wait` waits.
const APPLIED_WITHIN: Duration = Duration::from_secs(30);

fn parse_operation(text: &str) -> Result<Operation, String> {
    match text {
        "set" => Ok(Operation::Set),
        "merge" => Ok(Operation::Merge),
        "append" => Ok(Operation::Append),
        "delete" => Ok(Operation::Delete),
        _ => Err("expected one of set, merge, append, delete".into()),
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    if args.op == Operation::Delete && args.value.is_some() {
        return Err(CliError::usage("delete takes no value").hint("leave the value out"));
    }
    let value = match &args.value {
        Some(argument) => Some(Payload::parse(&input::payload(argument, context)?)?),
        None => None,
    };
    let handed = client.remember(args.op, &args.key, value.as_ref())?;
    let seq = handed.seq();
    let supervised = world::is_supervised(client.layout());
    if !args.wait {
        let when = if supervised { "" } else { ", to be applied when a supervisor runs" };
        screen::say(format_args!("accepted as update {seq}{when}"))?;
        return Ok(Exit::Ok);
    }
    if !supervised {
        return Err(CliError::unavailable(format_args!("update {seq} is queued, but no supervisor runs"))
            .hint("`nightcrew run` applies it; do not hand it in again"));
    }
    let mut fate = client.fate(&handed);
    world::look_until(handed.queue(), APPLIED_WITHIN, || {
        fate = client.fate(&handed);
        !matches!(fate, Ok(Fate::Pending))
    })
    .map_err(|error| {
        CliError::try_again(format_args!("update {seq} is queued, but cannot be waited for: {error}"))
            .hint("leave out --wait; do not hand it in again")
    })?;
    match fate? {
        Fate::Applied => {
            screen::say(format_args!("applied update {seq}"))?;
            Ok(Exit::Ok)
        }
        Fate::Rejected(why) => Err(CliError::bad_input(format_args!("update {seq} is refused: {why}"))
            .hint("it is kept in state/memory/rejected/")),
        Fate::Pending => {
            let seconds = APPLIED_WITHIN.as_secs();
            Err(CliError::try_again(format_args!("update {seq} was not applied within {seconds} s"))
                .hint("it stays queued; do not hand it in again"))
        }
    }
}
