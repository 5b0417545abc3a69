//! `nightcrew dead list|show|replay|drop`

use crate::app::client::Client;
use crate::app::client::dead::Condition;
use crate::app::client::submit::Payload;
use crate::app::world::{self, Disk};
use crate::protocol::layout::Shelf;
use crate::protocol::name::{AgentName, Kind, Name, TaskId};
use crate::protocol::record::RECORD_LEN_MAX;

use super::context::Context;
use super::each::each;
use super::edited::edited;
use super::error::CliError;
use super::exit::Exit;
use super::{screen, show, tasks};

/// What `dead` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List dead letters
    List(ListArgs),
    /// Show one: why it died, its tries with what they printed last, its history
    Show(tasks::ShowArgs),
    /// Have dead letters done again
    Replay(ReplayArgs),
    /// Remove dead letters for good
    Drop(DropArgs),
}

#[derive(Debug, clap::Args)]
struct ListArgs {
    #[command(flatten)]
    such: Such,
    /// Print one line of JSON for each
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct ReplayArgs {
    #[command(flatten)]
    which: Which,
    /// Edit the payload of each first, with $VISUAL, $EDITOR or vi
    #[arg(long)]
    edit: bool,
}

#[derive(Debug, clap::Args)]
struct DropArgs {
    #[command(flatten)]
    which: Which,
    /// Yes, all that this finds; not asked for where each is named
    #[arg(long)]
    yes: bool,
}

/// Some dead letters: those named, all, or all such.
#[derive(Debug, clap::Args)]
struct Which {
    /// The tasks
    #[arg(value_name = "ID")]
    tasks: Vec<TaskId>,
    /// Every dead letter
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    such: Such,
}

/// What they have in common.
#[derive(Debug, clap::Args)]
struct Such {
    /// Of this kind
    #[arg(long)]
    kind: Option<Kind>,
    /// Tried last by this agent
    #[arg(long)]
    agent: Option<AgentName>,
    /// Of this group
    #[arg(long, value_name = "NAME")]
    group: Option<Name>,
    /// kind=K, agent=A, group=G, or error~WORDS for one whose error holds them; all that are given must hold
    #[arg(long = "where", value_name = "FIELD=VALUE")]
    conditions: Vec<Condition>,
}

pub(crate) const EXAMPLES: &str = "\
A dead letter is a task that failed for good. Replayed, it is a submission again: its failures are
forgotten, its tries are not. An id that is no dead letter exits 66; one that was submitted anew in
the meantime, and is open, exits 1. `replay` works without a supervisor, as `submit` does. Of several
those that others need go first; one that expired is tried all the same.

Examples:
  nightcrew dead list --where 'error~exit 1'
  nightcrew dead show 3f2a9c0d11e45b67
  nightcrew dead replay 3f2a9c0d11e45b67 --edit
  nightcrew dead replay --kind edit --where agent=editor
  nightcrew dead drop --all --yes";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    match &args.verb {
        Verb::List(ListArgs { such, json }) => {
            tasks::say(&client.dead(&such.conditions())?, *json, "no dead letters", context.wall())?;
            Ok(Exit::Ok)
        }
        Verb::Show(tasks::ShowArgs { id, json }) => {
            show::show(&client, &client.on_shelf(Shelf::Dead, id)?, *json, context.wall())?;
            Ok(Exit::Ok)
        }
        Verb::Replay(args) => {
            let tasks = client.needed_first(&args.which.of(&client)?);
            each(&tasks, |task| replay(task, args.edit, &mut client, context))
        }
        Verb::Drop(args) => {
            let tasks = args.which.of(&client)?;
            if args.which.tasks.is_empty() && !args.yes {
                return Err(CliError::usage(format_args!("this would remove {} dead letters", tasks.len()))
                    .hint("say --yes too; `nightcrew dead list` with the same options lists them"));
            }
            let needed = client.needed()?;
            each(&tasks, |task| {
                let with_result = if client.drop_dead(task, &needed)? { " and its result" } else { "" };
                screen::say(format_args!("removed {task}{with_result}"))
            })
        }
    }
}

fn replay(task: &TaskId, edit: bool, client: &mut Client<Disk>, context: &Context) -> Result<(), CliError> {
    let payload = if edit {
        let dead = client.on_shelf(Shelf::Dead, task)?;
        // With a newline, as editors leave files.
        let text = format!("{}\n", dead.record.payload.get());
        let taken =
            edited(client, context, text.as_bytes(), RECORD_LEN_MAX, |bytes| Ok(Payload::parse(&bytes)?));
        Some(taken?)
    } else {
        None
    };
    let expired = client.replay(task, payload, context.wall())?;
    let when = if world::is_supervised(client.layout()) { "" } else { ", once a supervisor runs" };
    let lifted = expired.map(|at| format!("; it expired at {at}, and does so no more")).unwrap_or_default();
    screen::say(format_args!("{task} is done again{when}{lifted}"))
}

impl Such {
    fn conditions(&self) -> Vec<Condition> {
        let mut conditions = self.conditions.clone();
        conditions.extend(self.kind.clone().map(Condition::Kind));
        conditions.extend(self.agent.clone().map(Condition::Agent));
        conditions.extend(self.group.clone().map(Condition::Group));
        conditions
    }
}

impl Which {
    /// The dead letters that are meant.
    fn of(&self, client: &Client<Disk>) -> Result<Vec<TaskId>, CliError> {
        let conditions = self.such.conditions();
        match (self.tasks.is_empty(), self.all, conditions.is_empty()) {
            (false, false, true) => Ok(self.tasks.clone()),
            (true, true, true) | (true, false, false) => {
                let listing = client.dead(&conditions)?;
                listing.unreadable.iter().for_each(screen::warn);
                if listing.tasks.is_empty() {
                    return Err(CliError::nothing_there("there are no such dead letters")
                        .hint("`nightcrew dead list` lists them"));
                }
                Ok(listing.tasks.into_iter().map(|found| found.record.id).collect())
            }
            _ => Err(CliError::usage("name the dead letters, or --all, or what they have in common")
                .hint("`nightcrew dead list` lists them")),
        }
    }
}
