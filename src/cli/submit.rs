//! `nightcrew submit KIND [JSON|@FILE|-]`, `nightcrew submit -`

use std::collections::BTreeSet;
use std::str::FromStr;

use serde::Serialize;

use crate::app::client::batch::{self, BATCH_LEN_MAX, Settled};
use crate::app::client::finish::Held;
use crate::app::client::lookup::Standing;
use crate::app::client::submit::{Order, Payload, Sameness, Submitted};
use crate::app::client::{Client, ClientError};
use crate::app::world::{self, Disk};
use crate::protocol::name::{Kind, NameError, TaskId};

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::wishes::WishArgs;
use super::{input, screen};

/// What `submit` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What kind of task it is (agents say in their manifest which kinds they handle); or - alone, for many tasks, as
    /// JSON Lines on standard input
    #[arg(value_name = "KIND|-")]
    what: What,
    /// The payload: JSON, @FILE or - for standard input (at most 1 MiB); null if absent
    #[arg(value_name = "JSON|@FILE|-")]
    payload: Option<String>,
    #[command(flatten)]
    same: SameArgs,
    #[command(flatten)]
    wishes: WishArgs,
    /// Submit at once, even from within a task
    #[arg(long)]
    now: bool,
    /// Print one line of JSON for each task
    #[arg(long)]
    json: bool,
}

/// One task of a kind, or many.
#[derive(Debug, Clone)]
enum What {
    One(Kind),
    Many,
}

impl FromStr for What {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == input::STDIN { Ok(Self::Many) } else { text.parse().map(Self::One) }
    }
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

Within a task (in a handler's run, or in one that has claimed a single task) a submission is
bound to that task: it counts once the task is done, and never if it fails, so that a retry does not
double it. --now submits at once instead.

`submit -` reads JSON Lines: {\"kind\":…,\"payload\":…}, and as they are needed key, id or new (true),
needs (a list), on_dead, priority, not_before, delay, expires, group. Options given beside hold for
lines that do not say otherwise. One bad line refuses all, before anything is written; then all are
durable together. At most 100,000 lines and 256 MiB.

An unknown need, a cycle of needs, a bad line: exit 65.

Examples:
  nightcrew submit summarize '{\"file\":\"inbox/report.txt\"}'
  nightcrew submit summarize @request.json --key report-2026-11
  nightcrew submit publish --needs 3f2a9c0d11e45b67,8c760dce17ed0763 --on-dead run
  nightcrew submit digest --delay 10m --expires 2h --priority 5 --group nightly
  generate | nightcrew submit publish - --new
  generate-many | nightcrew submit - --group import";

#[derive(Serialize)]
struct Told<'a> {
    task: &'a TaskId,
    result: &'static str,
    /// True if a supervisor runs, which admits it at once.
    supervised: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'static str>,
    /// The task that it is bound to.
    #[serde(skip_serializing_if = "Option::is_none")]
    within: Option<&'a TaskId>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let within = args.within(&client, context)?;
    let supervised = world::is_supervised(client.layout());
    let submission = Submission { args, context, within: within.as_ref(), supervised };
    match &args.what {
        What::One(kind) => submission.one(kind, &mut client),
        What::Many => submission.many(&mut client),
    }
}

/// One call.
struct Submission<'a> {
    args: &'a Args,
    context: &'a Context,
    /// The task to which it is bound.
    within: Option<&'a Held>,
    supervised: bool,
}

impl Submission<'_> {
    fn one(&self, kind: &Kind, client: &mut Client<Disk>) -> Result<Exit, CliError> {
        let (args, context) = (self.args, self.context);
        let payload = match &args.payload {
            Some(argument) => Payload::parse(&input::payload(argument, context)?)?,
            None => Payload::parse(b"null")?,
        };
        let now = context.wall();
        let order =
            Order { kind: kind.clone(), payload, same: args.sameness(), wishes: args.wishes.wishes(now) };
        match client.submit(order, self.within, now)? {
            Submitted::Accepted(task) => {
                if args.json {
                    self.say_json(&task, None)?;
                } else {
                    screen::say(format_args!("accepted {task}{}", self.what_follows()))?;
                }
                warn_of_unhandled(client, [kind])?;
            }
            Submitted::Duplicate(found) => {
                let line = found.line();
                let state = line.state.as_str();
                if args.json {
                    self.say_json(&line.id, Some(state))?;
                } else {
                    screen::say(format_args!("duplicate of {}, {state} at {}", line.id, line.since))?;
                }
            }
        }
        Ok(Exit::Ok)
    }

    fn many(&self, client: &mut Client<Disk>) -> Result<Exit, CliError> {
        let args = self.args;
        if args.payload.is_some() || args.same.is_given() {
            return Err(CliError::usage(
                "`submit -` takes kind, payload, key and id from the lines it reads",
            )
            .hint("leave them out of the command line; for one task, name its kind"));
        }
        let now = self.context.wall();
        let lines = batch::parse(&input::stdin(BATCH_LEN_MAX)?, &args.wishes.wishes(now), now)?;
        let settled = client.submit_all(lines, self.within, now)?;
        let accepted = settled.iter().filter(|settled| settled.duplicate_of.is_none());
        if args.json {
            for Settled { task, duplicate_of, .. } in &settled {
                self.say_json(task, duplicate_of.map(Standing::as_str))?;
            }
        } else {
            let count = accepted.clone().count();
            let duplicates = match settled.len() - count {
                0 => String::new(),
                1 => ", 1 duplicate".into(),
                several => format!(", {several} duplicates"),
            };
            screen::say(format_args!("accepted {count}{duplicates}{}", self.what_follows()))?;
        }
        warn_of_unhandled(client, accepted.map(|settled| &settled.kind))?;
        Ok(Exit::Ok)
    }

    /// What becomes of what was accepted.
    fn what_follows(&self) -> String {
        match self.within {
            Some(held) => format!(", bound to task {}", held.task),
            None if self.supervised => String::new(),
            None => ", undecided: no supervisor runs (start it with `nightcrew run`)".into(),
        }
    }

    /// Tells of a task; where it stands, if it is a duplicate.
    fn say_json(&self, task: &TaskId, duplicate_of: Option<&'static str>) -> Result<(), CliError> {
        let result = if duplicate_of.is_some() { "duplicate" } else { "accepted" };
        let within = self.within.map(|held| &held.task).filter(|_| duplicate_of.is_none());
        screen::say_json(&Told { task, result, supervised: self.supervised, state: duplicate_of, within })
    }
}

fn warn_of_unhandled<'a>(
    client: &Client<Disk>,
    kinds: impl IntoIterator<Item = &'a Kind>,
) -> Result<(), CliError> {
    let handled = client.handled()?;
    for kind in kinds.into_iter().filter(|kind| !handled.contains(*kind)).collect::<BTreeSet<_>>() {
        screen::warn(format_args!(
            "no agent says that it handles {kind}; the task waits until one does: handles = [\"{kind}\"]"
        ));
    }
    Ok(())
}

impl Args {
    /// The task to which the submission is bound.
    fn within(&self, client: &Client<Disk>, context: &Context) -> Result<Option<Held>, CliError> {
        if self.now {
            return Ok(None);
        }
        client.within(context.given(client.caller())).map_err(|error| {
            let is_unclear = matches!(error, ClientError::SeveralClaims(_));
            let told = CliError::from(error);
            if is_unclear { told.hint("--now submits at once, bound to none of them") } else { told }
        })
    }

    fn sameness(&self) -> Sameness {
        match &self.same {
            SameArgs { key: Some(key), .. } => Sameness::Key(key.clone()),
            SameArgs { id: Some(id), .. } => Sameness::Id(id.clone()),
            SameArgs { new: true, .. } => Sameness::New,
            SameArgs { .. } => Sameness::Payload,
        }
    }
}

impl SameArgs {
    fn is_given(&self) -> bool {
        self.key.is_some() || self.id.is_some() || self.new
    }
}
