//! `nightcrew tasks`, `nightcrew tasks show ID`

use crate::app::client::lookup::{Found, Line, Listing, Standing};
use crate::protocol::name::{AgentName, Kind, Name, TaskId};
use crate::protocol::time::{Wall, show_duration};

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::{screen, show};

/// What `tasks` takes.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Option<Verb>,
    #[command(flatten)]
    list: ListArgs,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Show one task: its record, its tries, what it needs, and what the ledger tells of it
    Show(ShowArgs),
}

/// Which task to show.
#[derive(Debug, clap::Args)]
pub(crate) struct ShowArgs {
    /// The task
    pub(crate) id: TaskId,
    /// Print one line of JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    /// Only tasks that stand so; may be given several times
    #[arg(long, value_parser = parse_standing, value_name = "STATE")]
    state: Vec<Standing>,
    /// Only tasks of this kind
    #[arg(long)]
    kind: Option<Kind>,
    /// Only tasks that this agent holds
    #[arg(long)]
    agent: Option<AgentName>,
    /// Only tasks of this group
    #[arg(long, value_name = "NAME")]
    group: Option<Name>,
    /// Print one line of JSON for each task
    #[arg(long)]
    json: bool,
}

pub(crate) const EXAMPLES: &str = "\
A state is one of bound, new, ready, waiting, blocked, claimed, gated, review, done, dead. `show` exits
66 if there is no such task.

Examples:
  nightcrew tasks
  nightcrew tasks --state claimed --agent editor
  nightcrew tasks --group nightly --kind edit
  nightcrew tasks --json | jq -r 'select(.failures > 0) | .id'
  nightcrew tasks show 3f2a9c0d11e45b67";

fn parse_standing(text: &str) -> Result<Standing, String> {
    let found = Standing::ALL.into_iter().find(|standing| standing.as_str() == text);
    found.ok_or_else(|| format!("expected one of {}", Standing::ALL.map(Standing::as_str).join(", ")))
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let client = context.client()?;
    if let Some(Verb::Show(ShowArgs { id, json })) = &args.verb {
        show::show(&client, &client.task(id)?, *json, context.wall())?;
        return Ok(Exit::Ok);
    }
    let list = &args.list;
    let wanted: &[Standing] = if list.state.is_empty() { &Standing::ALL } else { &list.state };
    let mut listing = client.tasks(wanted)?;
    listing.tasks.retain(|found| list.admits(found));
    say(&listing, list.json, "no tasks", context.wall())?;
    Ok(Exit::Ok)
}

impl ListArgs {
    fn admits(&self, found: &Found) -> bool {
        let owner = found.lock.as_ref().map(|lock| &lock.agent);
        self.kind.as_ref().is_none_or(|kind| found.record.kind == *kind)
            && self.agent.as_ref().is_none_or(|agent| owner == Some(agent))
            && self.group.as_ref().is_none_or(|group| found.record.wishes.group.as_ref() == Some(group))
    }
}

/// Lists tasks: one line of JSON each, or a table; `nothing` is what to say if there are none.
pub(crate) fn say(listing: &Listing, json: bool, nothing: &str, now: Wall) -> Result<(), CliError> {
    let lines: Vec<Line> = listing.tasks.iter().map(Found::line).collect();
    if json {
        lines.iter().try_for_each(screen::say_json)?;
    } else if lines.is_empty() {
        screen::say(nothing)?;
    } else {
        table(&lines, now)?;
    }
    for unreadable in &listing.unreadable {
        screen::warn(unreadable);
    }
    Ok(())
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
