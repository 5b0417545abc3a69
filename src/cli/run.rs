//! `nightcrew run`: supervises the crew.

use std::io::{IsTerminal, Write};

use serde_json::json;

use crate::app::supervisor::run::{RunError, run as supervise};

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

pub(crate) const EXAMPLES: &str = "\
Examples:
  nightcrew run                  supervise the crew until TERM or INT
  nightcrew run --until-idle     end when nothing is left to do
  RUST_LOG=debug nightcrew run   say more

TERM or INT drains: no new work, agents get their stop_signal, and after their stop_grace what is left
of them is killed. A second one skips the grace. HUP looks at everything again.";

/// How the supervisor's own messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Text,
    /// A JSON object a line.
    Json,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// End when every service has settled, no task waits or runs, and nothing was submitted for 2 s
    #[arg(long)]
    until_idle: bool,

    /// How messages are written (default: text on a terminal, else json)
    #[arg(long, value_name = "FORMAT")]
    log: Option<Format>,
}

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let layout = context.layout()?;
    let format =
        args.log.unwrap_or(if std::io::stderr().is_terminal() { Format::Text } else { Format::Json });
    start_logging(format);
    match supervise(&layout, context.environment(), args.until_idle) {
        Ok(()) => Ok(Exit::Ok),
        Err(error @ RunError::Lock(_)) => Err(CliError::try_again(error)
            .hint("see what it does with `nightcrew status`, or end it with `kill PID`")),
        Err(error @ RunError::Unfinished(_)) => Err(CliError::failed(error)
            .hint("nothing that was acknowledged is lost; see to the disk, then start again")),
        Err(error @ RunError::Survey(_)) => Err(CliError::failed(error).hint("see `nightcrew check`")),
        Err(error @ (RunError::Opening(_) | RunError::Start { .. })) => Err(CliError::failed(error)),
    }
}

fn start_logging(format: Format) {
    let mut builder = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("info"));
    builder.format(move |out, record| {
        let (at, level) = (out.timestamp_millis(), record.level());
        // It may name files, and what stands in them.
        let text = screen::one_line(&record.args().to_string());
        match format {
            Format::Text => writeln!(out, "[{at} {level:<5}] {text}"),
            Format::Json => {
                let level = level.as_str().to_ascii_lowercase();
                writeln!(out, "{}", json!({ "at": at.to_string(), "level": level, "text": text }))
            }
        }
    });
    // Only tests set a logger before; then theirs is as good.
    let _ = builder.try_init();
}
