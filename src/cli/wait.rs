//! `nightcrew wait ID…`

use std::collections::BTreeSet;
use std::io::{self, IsTerminal, Write};

use crate::app::client::Client;
use crate::app::client::lookup::Line;
use crate::app::outlast::{self, Outlast, Outlasted};
use crate::app::world::{self, Disk};
use crate::protocol::layout::Shelf;
use crate::protocol::name::TaskId;
use crate::protocol::record::OUTPUT_LEN_MAX;
use crate::protocol::time::{parse_duration, show_duration};

use super::context::{self, Context};
use super::error::CliError;
use super::exit::Exit;
use super::{screen, supervision};

/// What `wait` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The tasks
    #[arg(required = true, value_name = "ID")]
    tasks: Vec<TaskId>,
    /// Wait no longer than this, such as 10m
    #[arg(long, value_name = "LENGTH", value_parser = parse_duration)]
    within: Option<u64>,
    /// The first of them that ends will do
    #[arg(long)]
    any: bool,
    /// Print the result of the task (one alone) and nothing else
    #[arg(long, conflicts_with = "json")]
    output: bool,
    /// Print one line of JSON for each task
    #[arg(long)]
    json: bool,
}

pub(crate) const EXAMPLES: &str = "\
Waits until the tasks have ended, and prints a line for each: its id, done or dead, and why. All are
done: exit 0; one is not: exit 1. Nothing is known of one: exit 66. Not within the time: exit 75.

Examples:
  nightcrew wait 3f2a9c0d11e45b67
  nightcrew wait --any --within 10m 3f2a9c0d11e45b67 0c11e45b673f2a9d
  nightcrew wait --output \"$(nightcrew submit sum @numbers.json --json | jq -r .task)\"";

/// Back to the start of the line, and clears it.
const CLEAR_LINE: &str = "\r\x1b[K";
/// How many tasks a message names.
const NAMED_MAX: usize = 5;

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut known = BTreeSet::new();
    let tasks: Vec<TaskId> = args.tasks.iter().filter(|task| known.insert(*task)).cloned().collect();
    if args.output && tasks.len() != 1 {
        return Err(CliError::usage("--output prints the result of one task")
            .hint("without it, the results are in tasks/done/ID.output"));
    }
    let client = context.client()?;
    let is_terminal = io::stderr().is_terminal();
    let total = tasks.len();
    let wanted = Outlast { tasks: &tasks, any: args.any, until: args.within.map(|ms| context.after(ms)) };
    let mut is_shown = false;
    let found = outlast::outlast(&client, context.clock(), &wanted, |ended| {
        if is_terminal && ended < total {
            is_shown = true;
            progress(&format!("{CLEAR_LINE}{ended} of {total} ended"));
        }
    });
    if is_shown {
        progress(CLEAR_LINE);
    }
    let found = found?;
    tell(args, &tasks, &found, &client)?;
    judge(args, &tasks, &found, &client)
}

/// Where nobody sees it, the exit code still tells.
fn progress(text: &str) {
    let mut out = io::stderr().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

fn tell(args: &Args, tasks: &[TaskId], found: &Outlasted, client: &Client<Disk>) -> Result<(), CliError> {
    for task in tasks {
        let Some(shelf) = found.ended.get(task) else { continue };
        if args.output && *shelf == Shelf::Done {
            print_result(client, task)?;
            continue;
        }
        let Some(line) = client.ended(*shelf, task)?.map(|found| found.line()) else { continue };
        if args.json {
            screen::say_json(&line)?;
        } else if args.output {
            screen::complain(words(&line, *shelf));
        } else {
            screen::say(words(&line, *shelf))?;
        }
    }
    Ok(())
}

/// A task that was done has failed too, perhaps; that is of no interest any more.
fn words(line: &Line, shelf: Shelf) -> String {
    let why = line.error.as_deref().filter(|_| shelf != Shelf::Done).unwrap_or_default();
    let why = screen::one_line(why.trim());
    format!("{} {} {why}", line.id, shelf.as_str()).trim_end().to_owned()
}

/// Prints the accepted result; of a task that made none, nothing.
fn print_result(client: &Client<Disk>, task: &TaskId) -> Result<(), CliError> {
    let path = client.layout().result(task);
    let store = context::store(client.layout())?;
    match world::read(&store, &path, OUTPUT_LEN_MAX) {
        Ok(bytes) => screen::print_bytes(&bytes),
        Err(world::ReadError::Missing) => Ok(()),
        Err(error) => Err(CliError::failed(format_args!("{}: {error}", path.display()))),
    }
}

fn judge(args: &Args, tasks: &[TaskId], found: &Outlasted, client: &Client<Disk>) -> Result<Exit, CliError> {
    if !found.unknown.is_empty() {
        return Err(CliError::nothing_there(format_args!("there is no task {}", named(&found.unknown)))
            .hint(
                "`nightcrew tasks` lists them; one that was refused is in tasks/rejected/, with the reason",
            ));
    }
    if found.is_over {
        supervision::remark(client.layout());
        let open: Vec<TaskId> =
            tasks.iter().filter(|task| !found.ended.contains_key(*task)).cloned().collect();
        let within = show_duration(args.within.unwrap_or_default());
        return Err(CliError::try_again(format_args!("not ended within {within}: {}", named(&open)))
            .hint("`nightcrew tasks` tells what each waits for"));
    }
    let all_done = found.ended.values().all(|shelf| *shelf == Shelf::Done);
    Ok(if all_done { Exit::Ok } else { Exit::Failed })
}

fn named(tasks: &[TaskId]) -> String {
    let names: Vec<&str> = tasks.iter().take(NAMED_MAX).map(TaskId::as_str).collect();
    let more = tasks.len().saturating_sub(NAMED_MAX);
    if more == 0 { names.join(", ") } else { format!("{} and {more} more", names.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_tasks_are_named_in_few_words() {
        let tasks: Vec<TaskId> = (0..7).map(|n| format!("t{n}").parse().unwrap()).collect();
        assert_eq!(named(&tasks[..2]), "t0, t1");
        assert_eq!(named(&tasks), "t0, t1, t2, t3, t4 and 2 more");
    }
}
