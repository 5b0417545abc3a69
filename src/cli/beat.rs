//! `nightcrew beat`

use crate::protocol::heartbeat::Beat;
use crate::protocol::name::TaskId;
use crate::protocol::time::parse_duration;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;

/// What `beat` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How far the work has come; one that stands still tells that the agent is stuck
    #[arg(long, value_name = "N")]
    progress: Option<u64>,
    /// The task being worked on
    #[arg(long, value_name = "ID")]
    task: Option<TaskId>,
    /// Announces a silence of this length, such as 20m
    #[arg(long, value_name = "LENGTH", value_parser = parse_duration)]
    busy_for: Option<u64>,
    /// Anything, for a person
    #[arg(long, value_name = "TEXT")]
    note: Option<String>,
}

pub(crate) const EXAMPLES: &str = "\
Appends a line to $NIGHTCREW_HEARTBEAT and renews the locks of the tasks this run claimed. To beat
without this command, `touch \"$NIGHTCREW_HEARTBEAT\"`.

Examples:
  nightcrew beat
  nightcrew beat --progress 12 --note 'page 12 of 40'
  nightcrew beat --busy-for 20m --note 'waiting for the model'";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let heartbeat = context.heartbeat().ok_or_else(|| {
        CliError::usage("NIGHTCREW_HEARTBEAT is not set: only a run of an agent has a heartbeat")
            .hint("`nightcrew try AGENT` runs an agent with the environment it will have")
    })?;
    let beat = Beat {
        at: context.wall(),
        progress: args.progress,
        task: args.task.clone(),
        busy_for_ms: args.busy_for,
        note: args.note.clone(),
    };
    context.client()?.beat(&heartbeat, &beat)?;
    Ok(Exit::Ok)
}
