//! `nightcrew claim [KIND…]`

use serde::Serialize;
use serde_json::value::RawValue;

use crate::app::client::Caller;
use crate::app::world;
use crate::protocol::name::{AgentName, Kind, TaskId};
use crate::protocol::process::Identity;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `claim` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kinds of task to take, in this order; none means any
    kinds: Vec<Kind>,
    /// Outside a run: the process that holds the task; when it ends, the task is given up
    #[arg(long, value_name = "PID")]
    owner_pid: Option<u32>,
    /// Print the task's record and the claim as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) const EXAMPLES: &str = "\
Prints the task's id. The task is yours until `done`, `fail` or `release`, until your run ends, or
until its lock was not renewed for 30 minutes (`nightcrew beat` renews it). Nothing to claim: exit 66;
halted or stopped: exit 75.

Examples:
  task=$(nightcrew claim summarize) || exit
  nightcrew claim --json summarize publish
  nightcrew claim --owner-pid $$ summarize";

#[derive(Serialize)]
struct Told<'a> {
    v: u32,
    task: &'a TaskId,
    token: u64,
    nonce: &'a str,
    agent: &'a AgentName,
    kind: &'a Kind,
    failures: u32,
    file: String,
    payload: &'a RawValue,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let owner = owner(client.caller(), args.owner_pid)?;
    let Some(claim) = client.claim(&args.kinds, &owner, context.wall())? else {
        return Err(CliError::nothing_there("there is nothing to claim")
            .hint("`nightcrew tasks` tells what waits; try again when a task was submitted"));
    };
    let (record, lock) = (&claim.record, &claim.lock);
    if args.json {
        screen::say_json(&Told {
            v: lock.v,
            task: &lock.task,
            token: lock.token,
            nonce: &lock.nonce,
            agent: &lock.agent,
            kind: &record.kind,
            failures: record.failures,
            file: client.layout().task(&lock.task).display().to_string(),
            payload: &record.payload,
        })?;
    } else {
        screen::say(&lock.task)?;
    }
    Ok(Exit::Ok)
}

/// The process whose end gives the task up.
fn owner(caller: &Caller, owner_pid: Option<u32>) -> Result<Identity, CliError> {
    match (caller, owner_pid) {
        (Caller::Run { .. }, Some(_)) => Err(CliError::usage("--owner-pid is for use outside a run")
            .hint("inside a run, the run itself holds the task: leave it out")),
        (Caller::Run { run, .. }, None) => world::root_of_run(run).ok_or_else(|| {
            CliError::failed(format_args!("no process above this one belongs to run {run}"))
                .hint("outside its run, unset NIGHTCREW_RUN and name a process with --owner-pid PID")
        }),
        (Caller::Operator, Some(pid)) => world::identity_of(pid).ok_or_else(|| {
            CliError::usage(format_args!("there is no process {pid}")).hint("try --owner-pid $$ in a shell")
        }),
        (Caller::Operator, None) => {
            Err(CliError::usage("outside a run, a claim needs a process that holds it")
                .hint("try --owner-pid $$ in a shell: when that process ends, the task is given up"))
        }
    }
}
