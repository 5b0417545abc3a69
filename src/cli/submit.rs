//! `nightcrew submit KIND [JSON|@FILE|-]`

use serde::Serialize;

use crate::app::client::submit::{Payload, Sameness, Submitted};
use crate::app::world;
use crate::protocol::name::{Kind, TaskId};

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::{input, screen};

/// What `submit` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What kind of task it is; agents say in their manifest which kinds they handle
    kind: Kind,
    /// The payload: JSON, @FILE or - for standard input (at most 1 MiB)
    #[arg(default_value = "null", value_name = "JSON|@FILE|-")]
    payload: String,
    #[command(flatten)]
    same: SameArgs,
    /// Print one line of JSON
    #[arg(long)]
    json: bool,
}

/// What makes two submissions the same task: without any of these, the same kind and payload.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct SameArgs {
    /// Submissions of this kind with the same key are one task
    #[arg(long, value_name = "TEXT")]
    key: Option<String>,
    /// The task's id, chosen by you
    #[arg(long)]
    id: Option<TaskId>,
    /// A task of its own, whatever was submitted before
    #[arg(long)]
    new: bool,
}

pub(crate) const EXAMPLES: &str = "\
A submission is durable when this returns, whether a supervisor runs or not. The same task
submitted again is a duplicate, which is no error: it exits 0 and says where the first one stands.

Examples:
  nightcrew submit summarize '{\"file\":\"inbox/report.txt\"}'
  nightcrew submit summarize @request.json --key report-2026-11
  generate | nightcrew submit publish - --new";

#[derive(Serialize)]
struct Told<'a> {
    task: &'a TaskId,
    result: &'static str,
    /// True if a supervisor runs, which admits it at once.
    supervised: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let payload = Payload::parse(&input::payload(&args.payload, context)?)?;
    let submitted = client.submit(&args.kind, payload, &args.sameness(), context.wall())?;
    let supervised = world::is_supervised(client.layout());
    match &submitted {
        Submitted::Accepted(task) => {
            if args.json {
                screen::say_json(&Told { task, result: "accepted", supervised, state: None })?;
            } else if supervised {
                screen::say(format_args!("accepted {task}"))?;
            } else {
                screen::say(format_args!(
                    "accepted {task}, undecided: no supervisor runs (start it with `nightcrew run`)"
                ))?;
            }
            if !client.is_handled(&args.kind)? {
                screen::warn(format_args!(
                    "no agent says that it handles {kind}; the task waits until one does (handles = [\"{kind}\"]) or `nightcrew work {kind}` takes it",
                    kind = args.kind
                ));
            }
        }
        Submitted::Duplicate(found) => {
            let line = found.line();
            let state = line.state.as_str();
            if args.json {
                let state = Some(state);
                screen::say_json(&Told { task: &line.id, result: "duplicate", supervised, state })?;
            } else {
                screen::say(format_args!("duplicate of {}, {state} at {}", line.id, line.since))?;
            }
        }
    }
    Ok(Exit::Ok)
}

impl Args {
    fn sameness(&self) -> Sameness {
        match &self.same {
            SameArgs { key: Some(key), .. } => Sameness::Key(key.clone()),
            SameArgs { id: Some(id), .. } => Sameness::Id(id.clone()),
            SameArgs { new: true, .. } => Sameness::New,
            SameArgs { .. } => Sameness::Payload,
        }
    }
}
