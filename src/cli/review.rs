//! `nightcrew review list|show|approve|reject`

use serde::Serialize;

use crate::app::client::control::WHY_LEN_MAX;
use crate::app::client::lookup::{Line, Standing};
use crate::app::client::{Client, ClientError};
use crate::app::world::Disk;
use crate::protocol::layout::Shelf;
use crate::protocol::name::TaskId;
use crate::protocol::record::{OUTPUT_LEN_MAX, cut};
use crate::protocol::request::Ask;

use super::asking::{Patience, ask, supervised};
use super::context::Context;
use super::each::each;
use super::edited::edited;
use super::error::CliError;
use super::exit::Exit;
use super::{screen, show, tasks};

/// What `review` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the results that wait for somebody to decide
    List {
        /// Print one line of JSON for each
        #[arg(long)]
        json: bool,
    },
    /// Show one: the gate's words, the result, the history
    Show(tasks::ShowArgs),
    /// Take results as they lie there: the tasks are done
    Approve {
        /// The tasks
        #[arg(required = true, value_name = "ID")]
        tasks: Vec<TaskId>,
        /// Edit the result of each first, with $VISUAL, $EDITOR or vi
        #[arg(long)]
        edit: bool,
    },
    /// Do not take them: the tasks become dead letters
    Reject {
        /// The tasks' ids, then why
        #[arg(required = true, value_name = "ID… [WHY]")]
        words: Vec<String>,
    },
}

pub(crate) const EXAMPLES: &str = "\
A result that its gate does not let pass waits here, with the gate's words. To approve and to reject
is asked of the running supervisor: without one, exit 69. An id that is not in review: exit 66.
What was submitted within a task counts once its result is approved, and is dropped if it is rejected.

Examples:
  nightcrew review list
  nightcrew review show 3f2a9c0d11e45b67
  nightcrew review approve 3f2a9c0d11e45b67 --edit
  nightcrew review reject 3f2a9c0d11e45b67 'invents a source'";

/// How much of a result is shown, in characters.
const RESULT_SHOWN_MAX: usize = 4000;
/// How long an id is that nightcrew made.
const MADE_ID_LEN: usize = 16;

/// A task in review, and what its gate said.
#[derive(Serialize)]
struct InReview {
    #[serde(flatten)]
    line: Line,
    agent: Option<String>,
    gate: Option<String>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    match &args.verb {
        Verb::List { json } => list(&client, *json)?,
        Verb::Show(args) => show_with_result(args, &client, context)?,
        Verb::Approve { tasks, edit } => {
            supervised(&client, "nothing can be approved")?;
            return each(tasks, |task| approve(task, *edit, &mut client, context));
        }
        Verb::Reject { words } => {
            let (tasks, why) = told_apart(words, &client)?;
            supervised(&client, "nothing can be rejected")?;
            return each(&tasks, |task| {
                screen::say(ask(
                    &mut client,
                    Ask::Reject { task: task.clone(), why: why.clone() },
                    &Patience::SHORT,
                )?)
            });
        }
    }
    Ok(Exit::Ok)
}

fn list(client: &Client<Disk>, json: bool) -> Result<(), CliError> {
    let listing = client.tasks(&[Standing::Review])?;
    let lines = listing.tasks.iter().map(|found| {
        let made = found.record.made.as_ref();
        let agent = made.map(|made| made.agent.to_string());
        InReview { line: found.line(), agent, gate: made.map(|made| made.gate.to_string()) }
    });
    if json {
        lines.into_iter().try_for_each(|line| screen::say_json(&line))?;
    } else if listing.tasks.is_empty() {
        screen::say("nothing is to be reviewed")?;
    } else {
        let cell = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let rows: Vec<Vec<String>> = lines
            .map(|InReview { line, agent, gate }| {
                let words = screen::one_line(line.error.as_deref().unwrap_or("-"));
                vec![line.id.to_string(), line.kind.to_string(), cell(agent), cell(gate), words]
            })
            .collect();
        screen::print(screen::aligned(&["ID", "KIND", "BY", "GATE", "THE GATE'S WORDS"], &rows))?;
    }
    listing.unreadable.iter().for_each(screen::warn);
    Ok(())
}

fn show_with_result(
    args: &tasks::ShowArgs,
    client: &Client<Disk>,
    context: &Context,
) -> Result<(), CliError> {
    let found = client.on_shelf(Shelf::Review, &args.id)?;
    show::show(client, &found, args.json, context.wall())?;
    if args.json {
        return Ok(());
    }
    let Some(bytes) = client.result(Shelf::Review, &args.id)? else { return screen::say("\nno result") };
    screen::say("\nresult")?;
    let text = String::from_utf8_lossy(&bytes);
    let shown: String = text.chars().take(RESULT_SHOWN_MAX).collect();
    for line in shown.lines() {
        screen::say(format_args!("  {}", screen::one_line(line)))?;
    }
    if shown.len() < text.len() {
        screen::say("  … (the file holds all of it)")?;
    }
    Ok(())
}

fn approve(task: &TaskId, edit: bool, client: &mut Client<Disk>, context: &Context) -> Result<(), CliError> {
    client.on_shelf(Shelf::Review, task)?;
    if edit {
        let before = client.result(Shelf::Review, task)?;
        let bytes = before.clone().unwrap_or_default();
        let after = edited(client, context, &bytes, OUTPUT_LEN_MAX, Ok)?;
        // One that there was not, and that nobody wrote, is not made.
        if before.unwrap_or_default() != after {
            client.replace_result(task, &after)?;
        }
    }
    screen::say(ask(client, Ask::Approve { task: task.clone() }, &Patience::SHORT)?)
}

/// The tasks that the first words name, and why: the words from the first on that is no task in review.
fn told_apart(words: &[String], client: &Client<Disk>) -> Result<(Vec<TaskId>, String), CliError> {
    let mut tasks = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let Ok(id) = word.parse::<TaskId>() else {
            return because(tasks, &words[at..]);
        };
        match client.on_shelf(Shelf::Review, &id) {
            Ok(_) => tasks.push(id),
            // A slip in an id must not become a reason.
            Err(ClientError::NoSuchTask { .. }) if !tasks.is_empty() && !is_made(word) => {
                return because(tasks, &words[at..]);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok((tasks, "no reason given".into()))
}

fn because(tasks: Vec<TaskId>, words: &[String]) -> Result<(Vec<TaskId>, String), CliError> {
    if tasks.is_empty() {
        return Err(CliError::usage(format_args!("{:?} is no task's id", words.join(" ")))
            .hint("`nightcrew review list` lists what is in review"));
    }
    Ok((tasks, cut(&words.join(" "), WHY_LEN_MAX).to_owned()))
}

/// Whether a word looks like an id that nightcrew made.
fn is_made(word: &str) -> bool {
    word.len() == MADE_ID_LEN && word.bytes().all(|byte| byte.is_ascii_hexdigit())
}
