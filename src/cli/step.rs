//! `nightcrew step NAME [--key TEXT] -- COMMAND…`

use std::ffi::OsString;

use crate::app::client::finish::Held;
use crate::app::client::{Client, ClientError};
use crate::app::steps::{self, Order, StepInput, Taken, World};
use crate::app::world::Disk;
use crate::protocol::name::{Name, TaskId};
use crate::protocol::step::{KeyOf, RESULT_LEN_MAX, StepId, hash_of};
use crate::protocol::time::parse_duration;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::{input, screen};

/// What `step` takes.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Args {
    /// The step's name, one to a task and key
    name: Name,
    /// What tells it from other steps of that name, such as the page or the prompt
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// Standard input belongs to the key (at most 16 MiB); COMMAND still reads it
    #[arg(long)]
    stdin_key: bool,
    /// The task; needed only where the run holds several
    #[arg(long, value_name = "ID", conflicts_with = "shared")]
    task: Option<TaskId>,
    /// Of no task: whoever has this name and this key, else this COMMAND, gets the result
    #[arg(long)]
    shared: bool,
    /// A result this old is made anew, such as 7d
    #[arg(long, value_name = "LENGTH", value_parser = parse_duration, requires = "shared")]
    ttl: Option<u64>,
    /// It changes the world: once begun it is not begun again before `--check` says that it was not done
    #[arg(long)]
    effect: bool,
    /// For sh: was it done? Exit 0: yes, and standard output is the result; 1: no
    #[arg(long, value_name = "COMMAND", requires = "effect")]
    check: Option<OsString>,
    /// Where another process does it just now: exit 75 instead of waiting
    #[arg(long)]
    no_wait: bool,
    /// What makes the result: a program and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) const EXAMPLES: &str = "\
Prints what COMMAND prints, which is recorded for this task, NAME and key. From then on the record
is printed, byte for byte, and nothing is run: neither when the task is tried again nor after a
replay. Only what ended with 0 is recorded, at most 16 MiB; else the step ends with COMMAND's code
(128+N for signal N). A call that is killed before it has recorded leaves nothing, and the next one
runs COMMAND again. With --effect it leaves \"begun\", as a COMMAND that fails does, and the next one
asks --check.

With --shared, results are kept for all tasks, and outside them. Without --key what counts is
COMMAND with its arguments; it gets no standard input then, unless --stdin-key has that count too.

Exit codes: 65 begun and cut off, and no --check; or too much was printed. 66 no task is held here.
75 in progress elsewhere (--no-wait), halted, or the claim is lost. 1 failed, or the check does not
know.

Examples:
  page=$(nightcrew step fetch --key \"$url\" -- curl -fsS \"$url\")
  nightcrew step summary -- ask-llm --file page.txt >summary.txt
  nightcrew step invoice --effect --check 'find-invoice 17' -- send-invoice 17
  nightcrew step llm --shared --stdin-key --ttl 7d --key \"$model $temperature\" -- ask-llm <prompt.txt
`nightcrew steps` lists what is recorded.";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let held = held(args, context, &client)?;
    let bytes = if args.stdin_key { Some(input::stdin(RESULT_LEN_MAX)?) } else { None };
    let key = match (&args.key, args.shared) {
        (Some(text), _) => KeyOf::Text(text),
        (None, true) => KeyOf::Command(&args.command),
        (None, false) => KeyOf::Name,
    };
    let task = if args.shared { None } else { held.as_ref().map(|held| held.task.clone()) };
    let id = StepId { task, name: args.name.clone(), hash: hash_of(key, bytes.as_deref()) };
    // A trial's claim is none: there is no token 0. It leaves nothing behind for a task of the same id.
    let is_trial = held.as_ref().is_some_and(|held| held.token == 0);
    let order = Order {
        id: &id,
        key: args.key.as_deref(),
        argv: &args.command,
        input: match (&bytes, key) {
            (Some(bytes), _) => StepInput::Bytes(bytes),
            (None, KeyOf::Command(_)) => StepInput::Nothing,
            (None, KeyOf::Name | KeyOf::Text(_)) => StepInput::Ours,
        },
        effect: args.effect,
        check: args.check.as_deref(),
        ttl_ms: args.ttl,
        held: held.as_ref().filter(|_| !is_trial),
    };
    let mut world = World::new(!args.no_wait, |text: &str| screen::warn(text));
    let taken = if is_trial && !args.shared {
        screen::warn(format_args!("{} is only tried: nothing is recorded", args.name));
        steps::rehearse(&order, &mut world)?
    } else {
        steps::take(&mut client, &order, &mut world)?
    };
    match taken {
        Taken::Result(output) => {
            screen::print_bytes(&output)?;
            Ok(Exit::Ok)
        }
        Taken::Failed { code, output } => {
            screen::print_bytes(&output)?;
            Ok(Exit::Theirs(code))
        }
    }
}

/// The claim that the step is done under; a shared one needs none.
fn held(args: &Args, context: &Context, client: &Client<Disk>) -> Result<Option<Held>, CliError> {
    match client.held(args.task.as_ref(), context.given(client.caller())) {
        Ok(held) => Ok(Some(held)),
        Err(ClientError::NoClaim | ClientError::SeveralClaims(_)) if args.shared => Ok(None),
        Err(error @ ClientError::NoClaim) => Err(CliError::nothing_there(error)
            .hint("a step belongs to a task that is claimed; name one with --task ID, or use --shared")),
        Err(error @ ClientError::SeveralClaims(_)) => {
            Err(CliError::usage(error).hint("name one with --task ID"))
        }
        Err(error) => Err(error.into()),
    }
}
