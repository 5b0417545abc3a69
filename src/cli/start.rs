//! `nightcrew start AGENT…|--all [--now [JSON]]`

use crate::app::catalog::Offer;
use crate::app::client::submit::{Order, Payload, Sameness, Submitted};
use crate::protocol::name::AgentName;
use crate::protocol::task::Wishes;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::{chosen, screen, supervision};

/// What `start` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    agents: chosen::Args,
    /// Fire this job once now, beside its schedule and its watch, with this payload
    #[arg(long, value_name = "JSON", num_args = 0..=1, default_missing_value = "null")]
    now: Option<String>,
}

pub(crate) const EXAMPLES: &str = "\
Undoes `nightcrew stop`. An agent that is not stopped is left as it is; `nightcrew restart` starts
one again that runs. With --now a job is fired at once, once more than its schedule says; what it
is given lies in $NIGHTCREW_TASK_FILE, and on its standard input. While it is stopped that waits.

Examples:
  nightcrew start intake
  nightcrew start --all
  nightcrew start digest --now
  nightcrew start digest --now '{\"since\":\"2026-11-01\"}'";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let agents = args.agents.of(&client)?;
    if let Some(payload) = &args.now {
        let payload = Payload::parse(payload.as_bytes())?;
        let roster = context.survey()?.roster()?;
        for agent in &agents {
            is_job(agent, &roster.offers)?;
        }
        for agent in agents {
            let (same, wishes) = (Sameness::New, Wishes::default());
            let order = Order { kind: agent.clone(), payload: payload.clone(), same, wishes };
            if let Submitted::Accepted(task) = client.submit(order, None, context.wall())? {
                screen::say(format_args!("{agent}: fired as task {task}"))?;
            }
        }
        supervision::remark(client.layout());
        return Ok(Exit::Ok);
    }
    for agent in &agents {
        match client.start(agent)? {
            Some(_) => screen::say(format_args!("{agent}: may start"))?,
            None => screen::say(format_args!("{agent}: was not stopped"))?,
        }
    }
    supervision::remark(client.layout());
    Ok(Exit::Ok)
}

/// Refuses what has no firings.
fn is_job(agent: &AgentName, offers: &[Offer]) -> Result<(), CliError> {
    if offers.iter().any(|offer| offer.agent == *agent && offer.manifest.is_job()) {
        return Ok(());
    }
    let error = CliError::failed(format_args!("{agent} is no job, or cannot run"));
    Err(error.hint(
        "only what has a schedule or a watch is fired; `nightcrew submit` gives a handler a task, `check` tells more",
    ))
}
