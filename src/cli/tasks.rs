//! `nightcrew tasks`

use crate::app::client::lookup::{Found, Line, Standing};
use crate::protocol::time::{Wall, show_duration};

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `tasks` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only tasks that stand so; may be given several times
    #[arg(long, value_parser = parse_standing, value_name = "STATE")]
    state: Vec<Standing>,
    /// Print one line of JSON for each task
    #[arg(long)]
    json: bool,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  nightcrew tasks
  nightcrew tasks --state dead
  nightcrew tasks --json | jq -r 'select(.failures > 0) | .id'";

fn parse_standing(text: &str) -> Result<Standing, String> {
    let found = Standing::ALL.into_iter().find(|standing| standing.as_str() == text);
    found.ok_or_else(|| format!("expected one of {}", Standing::ALL.map(Standing::as_str).join(", ")))
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let wanted: &[Standing] = if args.state.is_empty() { &Standing::ALL } else { &args.state };
    let listing = context.client()?.tasks(wanted)?;
    let lines: Vec<Line> = listing.tasks.iter().map(Found::line).collect();
    if args.json {
        lines.iter().try_for_each(screen::say_json)?;
    } else if lines.is_empty() {
        screen::say("no tasks")?;
    } else {
        table(&lines, context.wall())?;
    }
    for unreadable in &listing.unreadable {
        screen::warn(unreadable);
    }
    Ok(Exit::Ok)
}

fn table(lines: &[Line], now: Wall) -> Result<(), CliError> {
    let width = |of: fn(&Line) -> usize, least: usize| lines.iter().map(of).max().unwrap_or(0).max(least);
    let (id, kind) = (width(|line| line.id.as_str().len(), 2), width(|line| line.kind.as_str().len(), 4));
    let owner = width(|line| line.owner.as_ref().map_or(0, String::len), 5);
    screen::say(format_args!(
        "{:id$}  {:kind$}  STATE    {:>7}  {:owner$}  FAILED",
        "ID", "KIND", "SINCE", "OWNER"
    ))?;
    for line in lines {
        let ago =
            u64::try_from(now.0.saturating_sub(line.since.0)).map_or_else(|_| "0s".into(), show_duration);
        let (holder, state) = (line.owner.as_deref().unwrap_or("-"), line.state.as_str());
        let error =
            line.error.as_deref().map(|error| format!("  {}", screen::one_line(error))).unwrap_or_default();
        screen::say(format_args!(
            "{:id$}  {:kind$}  {state:7}  {ago:>7}  {holder:owner$}  {}{error}",
            line.id, line.kind, line.failures
        ))?;
    }
    Ok(())
}
