//! `nightcrew next [AGENT]`

use std::collections::BTreeSet;

use serde::Serialize;

use crate::app::catalog::Offer;
use crate::protocol::name::AgentName;
use crate::protocol::schedule::SlotId;
use crate::protocol::time::Wall;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// The most firings that are listed.
const COUNT_MAX: i64 = 10_000;
/// How a firing is shown to people.
const SHOWN: &str = "%a %Y-%m-%d %H:%M:%S %Z";

/// What `next` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The job; without one, all of them
    agent: Option<AgentName>,
    /// How many firings
    #[arg(short = 'n', long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=COUNT_MAX))]
    number: u32,
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

pub(crate) const EXAMPLES: &str = "\
Times are those of the zone in which each schedule is read. What will be skipped when its time
comes, because its job is stopped then or still at work, is listed too. `jitter` comes on top. What
`watch` will fire nobody knows: `nightcrew check` shows what is watched.

Examples:
  nightcrew next
  nightcrew next digest -n 3
  nightcrew next --json | jq -r '.[] | .at + \" \" + .slot'";

#[derive(Serialize)]
struct Line {
    at: String,
    slot: SlotId,
    agent: AgentName,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let roster = context.survey()?.roster()?;
    let is_meant = |offer: &&Offer| args.agent.as_ref().is_none_or(|agent| *agent == offer.agent);
    let meant: Vec<&Offer> = roster.offers.iter().filter(is_meant).collect();
    if let (Some(agent), None) = (&args.agent, meant.first()) {
        let error = CliError::failed(format_args!("there is no agent {agent} that can run"));
        return Err(error.hint("`nightcrew check` lists the agents, and what is wrong with others"));
    }
    let now = context.wall();
    let number = usize::try_from(args.number).unwrap_or(usize::MAX);
    let slots = firings(&meant, now, number);
    let told = |id: &SlotId| {
        let table = meant.iter().find(|offer| offer.agent == id.agent)?.table.as_ref()?;
        Some(table.local(id.slot))
    };
    if args.json {
        let lines = slots.iter().filter_map(|(_, id)| {
            let at = told(id)?.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
            Some(Line { at, slot: id.clone(), agent: id.agent.clone() })
        });
        screen::say_json(&lines.collect::<Vec<_>>())?;
    } else if slots.is_empty() {
        screen::say("no schedule fires; `schedule = \"0 7 * * *\"` in a manifest makes an agent a job")?;
    } else {
        let rows: Vec<Vec<String>> = slots
            .iter()
            .filter_map(|(_, id)| Some(vec![told(id)?.strftime(SHOWN).to_string(), id.to_string()]))
            .collect();
        screen::print(screen::aligned(&["AT", "SLOT"], &rows))?;
    }
    Ok(Exit::Ok)
}

/// The next firings of all these agents together, in order.
fn firings(agents: &[&Offer], now: Wall, number: usize) -> BTreeSet<(Wall, SlotId)> {
    let mut slots = BTreeSet::new();
    for offer in agents.iter().filter(|offer| offer.manifest.enabled) {
        let Some(table) = &offer.table else { continue };
        for slot in table.following(now).take(number) {
            slots.insert((slot.wall(), SlotId { agent: offer.agent.clone(), slot }));
            while slots.len() > number {
                slots.pop_last();
            }
        }
    }
    slots
}
