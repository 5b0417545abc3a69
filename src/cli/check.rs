//! `nightcrew check`

use serde::Serialize;

use crate::app::catalog::{Offer, Timetable};
use crate::protocol::manifest::{Heartbeat, Manifest};
use crate::protocol::name::AgentName;
use crate::protocol::status::Refusal;
use crate::protocol::time::{Wall, show_duration};

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// So many of the next times of a schedule are shown.
const NEXT_SHOWN: usize = 3;

/// What `check` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  nightcrew check                 exits with 1 if anything is refused
  nightcrew check --json | jq .refusals";

/// How an agent would run, as `check --json` prints it.
#[derive(Debug, Serialize)]
struct Effective<'a> {
    agent: &'a AgentName,
    file: &'a str,
    about: &'a str,
    kind: &'static str,
    /// The next times of its schedule, if it has one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    next: Vec<String>,
    trigger: String,
    enabled: bool,
    timeout: Option<String>,
    restart: Option<&'static str>,
    liveness: String,
    stop_grace: String,
    max_rss_bytes: Option<u64>,
    warnings: &'a [String],
}

#[derive(Debug, Serialize)]
struct Report<'a> {
    agents: Vec<Effective<'a>>,
    refusals: &'a [Refusal],
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let roster = context.survey()?.roster()?;
    let report = Report {
        agents: roster.offers.iter().map(|offer| effective(offer, context.wall())).collect(),
        refusals: &roster.refusals,
    };
    if args.json {
        screen::say_json(&report)?;
    } else {
        show(&report)?;
    }
    Ok(if report.refusals.is_empty() { Exit::Ok } else { Exit::Failed })
}

fn effective(offer: &Offer, now: Wall) -> Effective<'_> {
    let Manifest { handles, timeout_ms, restart, stop_grace_ms, .. } = &offer.manifest;
    let handler = offer.manifest.is_handler();
    let kinds: Vec<&str> = handles.iter().map(AgentName::as_str).collect();
    Effective {
        agent: &offer.agent,
        file: &offer.file,
        about: &offer.manifest.about,
        kind: offer.manifest.kind(),
        next: offer.table.iter().flat_map(|table| next_of(table, now)).collect(),
        trigger: match (offer.manifest.is_job(), handler) {
            (true, _) => fired_by(offer),
            (false, true) => format!("tasks of {}, {} at once", kinds.join(", "), offer.manifest.concurrency),
            (false, false) => "kept alive".into(),
        },
        enabled: offer.manifest.enabled,
        timeout: handler.then(|| show_duration(*timeout_ms)),
        restart: (!handler).then(|| restart.as_str()),
        liveness: liveness(&offer.manifest),
        stop_grace: show_duration(*stop_grace_ms),
        max_rss_bytes: offer.manifest.max_rss_bytes,
        warnings: &offer.warnings,
    }
}

/// What a job is fired by, in words.
fn fired_by(offer: &Offer) -> String {
    let watch = &offer.manifest.triggers.watch;
    let watched = (!watch.is_empty()).then(|| format!("changes of {}", watch.join(", ")));
    let all: Vec<String> = offer.table.iter().map(Timetable::words).chain(watched).collect();
    all.join("; ")
}

/// The next times of a schedule, as clocks in its zone show them.
fn next_of(table: &Timetable, now: Wall) -> impl Iterator<Item = String> + '_ {
    let shown = |slot| table.local(slot).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string();
    table.following(now).take(NEXT_SHOWN).map(shown)
}

/// How an agent's signs of life are judged, in words.
fn liveness(manifest: &Manifest) -> String {
    match (manifest.is_handler(), manifest.silence_ms, manifest.heartbeat) {
        (true, ..) => format!("timeout {}", show_duration(manifest.timeout_ms)),
        (false, Some(ms), _) => format!("output or a beat every {}", show_duration(ms)),
        (false, None, Heartbeat::Every(ms)) => format!("heartbeat every {}", show_duration(ms)),
        (false, None, Heartbeat::Default) => "from its first beat on, every 5m".into(),
        (false, None, Heartbeat::Off) => "unchecked".into(),
    }
}

fn show(report: &Report<'_>) -> Result<(), CliError> {
    let rows: Vec<Vec<String>> = report
        .agents
        .iter()
        .map(|agent| {
            let restart = agent.restart.map_or_else(|| "-".into(), str::to_owned);
            let name = if agent.enabled { agent.agent.to_string() } else { format!("{} (off)", agent.agent) };
            vec![name, agent.kind.into(), agent.trigger.clone(), restart, agent.liveness.clone()]
        })
        .collect();
    if rows.is_empty() && report.refusals.is_empty() {
        screen::say("There is no agent in agents/ yet; `nightcrew new NAME` makes one.")?;
    } else if !rows.is_empty() {
        screen::print(screen::aligned(&["AGENT", "KIND", "TRIGGER", "RESTART", "LIVENESS"], &rows))?;
    }
    for agent in report.agents.iter().filter(|agent| !agent.next.is_empty()) {
        screen::say(format_args!("\n{} next fires at {}", agent.agent, agent.next.join(", ")))?;
    }
    for agent in &report.agents {
        for warning in agent.warnings {
            screen::say(format_args!("\nwarning: {}", clean(warning)))?;
        }
    }
    show_refusals(report.refusals)
}

/// Prints what is refused, why, and what to do.
pub(crate) fn show_refusals(refusals: &[Refusal]) -> Result<(), CliError> {
    for Refusal { file, reason, remedy } in refusals {
        screen::say(format_args!("\nrefused: {}: {}", clean(file), clean(reason)))?;
        screen::say(format_args!("  {}", clean(remedy)))?;
    }
    Ok(())
}

/// What comes from files is made fit for a screen.
pub(crate) fn clean(text: &str) -> String {
    crate::protocol::display::clean(text.as_bytes())
}
