//! `nightcrew logs [AGENT…]`

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::app::logview::{self, Follower, Line};
use crate::app::wake::Wake;
use crate::protocol::name::AgentName;
use crate::protocol::time::Wall;

use super::context::{self, Context};
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `logs` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The agents (default: all)
    agents: Vec<AgentName>,
    /// Go on with what is printed from now on, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// How many of the last lines to begin with
    #[arg(short = 'n', long = "lines", default_value_t = 100, value_parser = lines_allowed)]
    lines: usize,
    /// Print each line as JSON
    #[arg(long)]
    json: bool,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  nightcrew logs                   the last lines of all agents, in order of time
  nightcrew logs -f editor         what it prints, as it prints it
  nightcrew logs -n 1000 --json | jq -r 'select(.agent == \"intake\") | .text'
Lines are cleaned for the screen; state/logs/NAME.log holds them raw.";

/// How long to wait for a hint before looking all the same.
const LOOK: Duration = Duration::from_secs(30);

fn lines_allowed(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(lines) if lines <= logview::LINES_MAX => Ok(lines),
        _ => Err(format!("expected a number up to {}", logview::LINES_MAX)),
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let layout = context.layout()?;
    let store = context::store(&layout)?;
    let failed = |error| CliError::failed(format_args!("{}: {error}", layout.logs().display()));
    let known = logview::agents(&store, &layout).map_err(failed)?;
    if let Some(unknown) = args.agents.iter().find(|agent| !known.contains(agent))
        && !args.follow
    {
        return Err(CliError::nothing_there(format_args!("{unknown} has printed nothing"))
            .hint("`nightcrew status` lists the agents"));
    }
    let agents = if args.agents.is_empty() { known } else { args.agents.clone() };
    let zone = TimeZone::system();
    if !args.follow {
        let lines = logview::last(&store, &layout, &agents, args.lines).map_err(failed)?;
        show(&lines, args.json, &zone)?;
        return Ok(Exit::Ok);
    }
    // The watch first, then where the logs end now, then what stands before: nothing falls between.
    let wake = Wake::on(&[layout.logs()], &[])
        .map_err(|error| CliError::unavailable(error).hint("`nightcrew run` makes this directory"))?;
    let mut follower = Follower::new(store.clone(), layout.clone(), args.agents.clone()).map_err(failed)?;
    show(&follower.before(args.lines).map_err(failed)?, args.json, &zone)?;
    loop {
        loop {
            let lines = follower.look().map_err(failed)?;
            if lines.is_empty() {
                break;
            }
            show(&lines, args.json, &zone)?;
        }
        wake.wait(LOOK);
    }
}

fn show(lines: &[Line], json: bool, zone: &TimeZone) -> Result<(), CliError> {
    let width = lines.iter().map(|line| line.agent.as_str().len()).max().unwrap_or(0);
    for line in lines {
        if json {
            screen::say_json(line)?;
        } else {
            screen::say(format_args!("{} {:<width$} | {}", time(line.at, zone), line.agent, line.text))?;
        }
    }
    Ok(())
}

/// The time of day, where the reader is.
fn time(at: Option<Wall>, zone: &TimeZone) -> String {
    at.and_then(|at| Timestamp::from_millisecond(at.0).ok())
        .map_or_else(|| "--:--:--".into(), |at| at.to_zoned(zone.clone()).strftime("%H:%M:%S").to_string())
}
