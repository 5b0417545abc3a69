//! `nightcrew steps [TASK]`

use crate::app::client::steps::StepLine;
use crate::protocol::name::TaskId;
use crate::protocol::time::{Wall, show_duration};

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `steps` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The task; without one, those of all tasks and those they share
    task: Option<TaskId>,
    /// Print one line of JSON for each step
    #[arg(long)]
    json: bool,
}

pub(crate) const EXAMPLES: &str = "\
A step that is `begun` was cut off, or is in progress. To forget one, remove its file; to read its
result, `sed 1d FILE`.

Examples:
  nightcrew steps 3f2a9c0d11e45b67
  nightcrew steps --json | jq -r 'select(.state == \"begun\") | .file'";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let listing = context.client()?.steps(args.task.as_ref())?;
    if args.json {
        listing.steps.iter().try_for_each(screen::say_json)?;
    } else if listing.steps.is_empty() {
        screen::say("no steps")?;
    } else {
        let rows: Vec<Vec<String>> = listing.steps.iter().map(|line| row(line, context.wall())).collect();
        screen::print(screen::aligned(&["TASK", "STEP", "STATE", "SINCE", "BYTES", "KEY", "FILE"], &rows))?;
    }
    for unreadable in &listing.unreadable {
        screen::warn(unreadable);
    }
    Ok(Exit::Ok)
}

fn row(line: &StepLine, now: Wall) -> Vec<String> {
    let ago = u64::try_from(now.0.saturating_sub(line.at.0)).map_or_else(|_| "0s".into(), show_duration);
    vec![
        line.task.as_ref().map_or_else(|| "shared".into(), ToString::to_string),
        line.step.to_string(),
        line.state.into(),
        ago,
        line.bytes.to_string(),
        line.key.as_deref().map_or_else(|| "-".into(), screen::one_line),
        line.file.clone(),
    ]
}
