//! `nightcrew done [ID]`

use std::path::{Path, PathBuf};

use crate::app::client::finish::Output;
use crate::protocol::name::TaskId;
use crate::protocol::record::OUTPUT_LEN_MAX;
use crate::protocol::task::Verdict;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::{input, screen};

/// What `done` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The task; needed only where the run holds several
    id: Option<TaskId>,
    /// The result: a file, which is copied, or - for standard input (at most 64 MiB)
    #[arg(long, value_name = "FILE|-")]
    output: Option<PathBuf>,
}

pub(crate) const EXAMPLES: &str = "\
Result and outcome are durable when this returns: they are handed in. The supervisor accepts them if
the task is still yours, and refuses them if it was given to another meanwhile.

Examples:
  nightcrew done
  nightcrew done --output summary.json
  nightcrew done 3f2a9c0d11e45b67";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let held = client.held(args.id.as_ref(), context.given(client.caller()))?;
    let bytes;
    let file;
    let output = match &args.output {
        None => None,
        Some(path) if path == Path::new(input::STDIN) => {
            bytes = input::stdin(OUTPUT_LEN_MAX)?;
            Some(Output::Bytes(&bytes))
        }
        Some(path) => {
            file = context.absolute(path);
            Some(Output::File(&file))
        }
    };
    client.finish(&held, Verdict::Done, None, output)?;
    screen::say(format_args!("handed in {}: done", held.task))?;
    Ok(Exit::Ok)
}
