//! `nightcrew claim [KIND…]`

use crossbeam_channel::never;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::app::client::claim::Claim;
use crate::app::client::{Caller, Client};
use crate::app::pull::{self, Pull, Pulled};
use crate::app::world::{self, Disk};
use crate::protocol::name::{AgentName, Kind, TaskId};
use crate::protocol::process::Identity;
use crate::protocol::time::parse_duration;

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
    /// Where there is nothing to claim, wait until there is
    #[arg(long)]
    wait: bool,
    /// Wait no longer than this, such as 10m
    #[arg(long, value_name = "LENGTH", value_parser = parse_duration, requires = "wait")]
    within: Option<u64>,
    /// Print the task's record and the claim as one line of JSON
    #[arg(long)]
    json: bool,
}

pub(crate) const EXAMPLES: &str = "\
Prints the task's id. The task is yours until `done`, `fail` or `release`, until your run ends, or
until its lock was not renewed for 30 minutes (`nightcrew beat` renews it). Nothing to claim: exit 66;
halted or stopped: exit 75. With --wait it waits instead, and through a halt that comes meanwhile.

Examples:
  task=$(nightcrew claim summarize) || exit
  nightcrew claim --json summarize publish
  nightcrew claim --wait --within 10m summarize
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
    let claim = match client.claim(&args.kinds, &owner, context.wall())? {
        None if args.wait => waited(args, context, &mut client, &owner)?,
        claim => claim,
    };
    let Some(claim) = claim else {
        return Err(CliError::nothing_there("there is nothing to claim").hint(if args.wait {
            "`nightcrew tasks` tells what waits; leave --within out to wait for ever"
        } else {
            "`nightcrew tasks` tells what waits; --wait waits until there is something"
        }));
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

fn waited(
    args: &Args,
    context: &Context,
    client: &mut Client<Disk>,
    owner: &Identity,
) -> Result<Option<Claim>, CliError> {
    let pull = Pull {
        kinds: &args.kinds,
        owner,
        until: args.within.map(|ms| context.after(ms)),
        until_empty: false,
        // Who ends us ends the wait.
        stop: &never(),
    };
    match pull::pull(client, context.clock(), &pull)? {
        Pulled::Got(claim) => Ok(Some(*claim)),
        Pulled::Nothing | Pulled::Stopped => Ok(None),
    }
}

/// The process whose end gives the task up.
pub(super) fn owner(caller: &Caller, owner_pid: Option<u32>) -> Result<Identity, CliError> {
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
