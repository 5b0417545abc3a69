//! `nightcrew status [AGENT]`

use std::fmt::Write;
use std::time::Duration;

use crate::app::logview;
use crate::app::overview::{Agent, Overview, Supervision};
use crate::app::wake::Wake;
use crate::app::world::Disk;
use crate::protocol::layout::Layout;
use crate::protocol::name::AgentName;
use crate::protocol::status::Standing;
use crate::protocol::time::{Wall, show_duration};

use super::check::clean;
use super::context::{self, Context};
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `status` takes.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Tell all about one agent
    agent: Option<AgentName>,
    /// Print JSON
    #[arg(long, conflicts_with = "watch")]
    json: bool,
    /// Draw again whenever something changes, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  nightcrew status            all agents, and what is wrong
  nightcrew status intake     why it stands where it stands, and what to type
  nightcrew status -w         as it changes
  nightcrew status --json | jq '.agents[] | select(.state != \"running\") | .agent'";

/// How many of its last lines are shown with an agent.
const LAST_LINES: usize = 8;
/// How long nothing is drawn again though nothing changed: ages grow, and a supervisor that was killed
/// changes no file.
const REDRAW: Duration = Duration::from_secs(5);
/// Clears the screen and moves to its top.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// The files of a crew and where they lie.
struct Files {
    store: Disk,
    layout: Layout,
}

impl Files {
    fn of(context: &Context) -> Result<Self, CliError> {
        let layout = context.layout()?;
        Ok(Self { store: context::store(&layout)?, layout })
    }
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let files = Files::of(context)?;
    if !args.watch {
        return show(args, context, &files);
    }
    let directories = [files.layout.status_dir(), files.layout.state(), files.layout.logs()];
    let wake = Wake::on(&directories, &[])
        .map_err(|error| CliError::unavailable(error).hint("`nightcrew run` makes these directories"))?;
    loop {
        screen::print(CLEAR)?;
        show(args, context, &files)?;
        wake.wait(REDRAW);
    }
}

fn show(args: &Args, context: &Context, files: &Files) -> Result<Exit, CliError> {
    let overview = Overview::read(&files.store, &files.layout).map_err(CliError::failed)?;
    let Some(name) = &args.agent else {
        if args.json {
            screen::say_json(&overview)?;
        } else {
            screen::print(whole(&overview, context.wall()))?;
        }
        return Ok(Exit::Ok);
    };
    let agent = overview.agents.iter().find(|agent| agent.status.agent == *name).ok_or_else(|| {
        CliError::nothing_there(format_args!("nothing is known of an agent {name}"))
            .hint(format_args!("`nightcrew check` tells whether {name} can run; `nightcrew run` starts it"))
    })?;
    if args.json {
        screen::say_json(agent)?;
    } else {
        let lines = logview::last(&files.store, &files.layout, std::slice::from_ref(name), LAST_LINES)
            .map_err(|error| CliError::failed(format_args!("its log: {error}")))?;
        screen::print(one(agent, &overview, &lines, context.wall()))?;
    }
    Ok(Exit::Ok)
}

/// How long ago, by wall clocks: for display only.
fn ago(at: Wall, now: Wall) -> String {
    show_duration(u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0))
}

fn supervision(overview: &Overview) -> String {
    match &overview.supervisor {
        Supervision::Running { pid: Some(pid) } => format!("supervisor: running, pid {pid}"),
        Supervision::Running { pid: None } => "supervisor: running".into(),
        Supervision::Stale => "NO SUPERVISOR RUNS: what follows is stale; `nightcrew run` starts one".into(),
        Supervision::Never => "no supervisor has run here yet; `nightcrew run` starts the agents".into(),
    }
}

fn whole(overview: &Overview, now: Wall) -> String {
    let mut text = supervision(overview);
    if let Some(crew) = &overview.crew {
        // Writing to a String cannot fail, here and below.
        let said = if overview.supervisor == Supervision::Stale { "; it was " } else { "; " };
        let _ = write!(text, "{said}{}; {} open tasks", clean(&crew.state), crew.tasks_open);
    }
    text.push('\n');
    if let Some(why) = &overview.halted {
        let _ = writeln!(text, "HALTED: {} (`nightcrew resume` ends it)", clean(why));
    }
    let rows: Vec<Vec<String>> = overview.agents.iter().map(|agent| row(agent, now)).collect();
    if !rows.is_empty() {
        let head = ["AGENT", "STATE", "SINCE", "PID", "RESTARTS", "LAST BEAT", "WHY"];
        let _ = write!(text, "\n{}", screen::aligned(&head, &rows));
    }
    let warnings = overview.crew.iter().flat_map(|crew| &crew.warnings).chain(&overview.unreadable);
    for warning in warnings {
        let _ = writeln!(text, "\nwarning: {}", clean(warning));
    }
    for refusal in overview.refusals() {
        let (file, reason) = (clean(&refusal.file), clean(&refusal.reason));
        let _ = writeln!(text, "\nrefused: {file}: {reason}\n  {}", clean(&refusal.remedy));
    }
    text
}

fn row(agent: &Agent, now: Wall) -> Vec<String> {
    let status = &agent.status;
    let pids: Vec<String> =
        status.runs.iter().filter_map(|run| Some(run.process.as_ref()?.pid.to_string())).collect();
    let beat = match agent.last_beat {
        Some(at) if !status.runs.is_empty() => ago(at, now),
        _ => "-".into(),
    };
    vec![
        status.agent.to_string(),
        status.state.as_str().into(),
        ago(status.since, now),
        if pids.is_empty() { "-".into() } else { pids.join(",") },
        status.restarts.to_string(),
        beat,
        clean(&status.why),
    ]
}

fn one(agent: &Agent, overview: &Overview, lines: &[logview::Line], now: Wall) -> String {
    let status = &agent.status;
    let mut text = String::new();
    if overview.supervisor == Supervision::Stale {
        text.push_str("NO SUPERVISOR RUNS: what follows is stale\n");
    }
    let about = clean(&status.about);
    let _ = writeln!(text, "{}{}{about}", status.agent, if about.is_empty() { "" } else { ": " });
    let mut field = |name: &str, value: String| {
        if !value.is_empty() {
            let _ = writeln!(text, "  {name:<9} {value}");
        }
    };
    field("state", format!("{}, for {}", status.state.as_str(), ago(status.since, now)));
    field("why", clean(&status.why));
    field("kind", clean(&status.kind));
    field("handles", status.handles.iter().map(AgentName::as_str).collect::<Vec<_>>().join(", "));
    field("liveness", clean(&status.liveness));
    field("last beat", agent.last_beat.map(|at| format!("{} ago", ago(at, now))).unwrap_or_default());
    for run in &status.runs {
        let pid = run.process.as_ref().map_or_else(|| "-".into(), |process| process.pid.to_string());
        let task = run.task.as_ref().map(|task| format!(", task {task}")).unwrap_or_default();
        field("run", format!("{} pid {pid}, for {}{task}", run.run, ago(run.since, now)));
    }
    field("restarts", status.restarts.to_string());
    field("last exit", status.last_exit.as_deref().map(clean).unwrap_or_default());
    field("next", status.next.map(|at| format!("{at}, in {}", ago(now, at))).unwrap_or_default());
    if let Some(refusal) = &status.refusal {
        field("refused", format!("{}: {}", clean(&refusal.file), clean(&refusal.reason)));
    }
    if !lines.is_empty() {
        text.push_str("\nlast lines:\n");
        for line in lines {
            let _ = writeln!(text, "  {}", line.text);
        }
    }
    let _ = writeln!(text, "\nto type next:\n  {}", next_command(agent, overview));
    text
}

/// The one command that most likely helps.
fn next_command(agent: &Agent, overview: &Overview) -> String {
    let status = &agent.status;
    let name = &status.agent;
    if let Some(refusal) = &status.refusal {
        return clean(&refusal.remedy);
    }
    match status.state {
        _ if !matches!(overview.supervisor, Supervision::Running { .. }) => "nightcrew run".into(),
        Standing::Stopped if overview.halted.is_some() => "nightcrew resume".into(),
        Standing::Stopped => format!("nightcrew start {name}"),
        Standing::Backoff | Standing::Isolated | Standing::Refused => format!("nightcrew logs -n 50 {name}"),
        Standing::Finished => format!("nightcrew restart {name}"),
        Standing::Disabled => "edit its manifest (enabled = true), then: nightcrew check".into(),
        Standing::Running | Standing::Idle | Standing::Starting | Standing::Stopping => {
            format!("nightcrew logs -f {name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::record;

    fn overview(agent: &str, supervisor: Supervision) -> Overview {
        let status = record::decode(agent.as_bytes()).unwrap();
        let agents = vec![Agent { status, last_beat: Some(Wall(0)) }];
        Overview { supervisor, crew: None, halted: None, agents, unreadable: Vec::new() }
    }

    const FAILING: &str = r#"{"v":1,"agent":"a","state":"backoff","why":"exit 1, 3 times \u001b]0;x\u0007",
        "since":"1970-01-01T00:00:00Z","kind":"service","next":"1970-01-01T00:03:00Z"}"#;

    #[test]
    fn an_agent_tells_why_when_next_and_what_to_type() {
        let overview = overview(FAILING, Supervision::Running { pid: Some(7) });
        let text = one(&overview.agents[0], &overview, &[], Wall(60_000));
        for part in ["backoff, for 1m", "why       exit 1, 3 times", "in 2m", "nightcrew logs -n 50 a"] {
            assert!(text.contains(part), "{part:?} is not in:\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "{text:?}");
        assert!(!text.contains("stale"), "{text}");
    }

    #[test]
    fn what_a_dead_supervisor_said_is_called_stale() {
        let overview = overview(FAILING, Supervision::Stale);
        assert!(whole(&overview, Wall(60_000)).contains("stale"));
        let text = one(&overview.agents[0], &overview, &[], Wall(60_000));
        assert!(text.contains("stale") && text.ends_with("nightcrew run\n"), "{text}");
    }

    #[test]
    fn a_refusal_comes_with_its_remedy() {
        let refused = r#"{"v":1,"agent":"a","state":"refused","why":"it is empty","kind":"unknown",
            "since":"1970-01-01T00:00:00Z",
            "refusal":{"file":"agents/a.sh","reason":"it is empty","remedy":"rm agents/a.sh"}}"#;
        let overview = overview(refused, Supervision::Running { pid: None });
        assert!(whole(&overview, Wall(0)).contains("refused: agents/a.sh: it is empty\n  rm agents/a.sh"));
        assert!(one(&overview.agents[0], &overview, &[], Wall(0)).ends_with("\n  rm agents/a.sh\n"));
    }
}
