//! `nightcrew new NAME`

use crate::app::scaffold::{self, Language, Purpose, ScaffoldError};
use crate::protocol::name::{AgentName, Kind};

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `new` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The agent's name
    name: AgentName,
    /// Kept alive (this is what it is without --handler)
    #[arg(long, conflicts_with = "handler")]
    service: bool,
    /// One process for each task of this kind
    #[arg(long, value_name = "KIND")]
    handler: Option<Kind>,
    /// What to write it in
    #[arg(long, value_enum, default_value = "sh")]
    lang: Lang,
}

/// The languages that there are templates for.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Lang {
    /// POSIX shell
    Sh,
    /// Python 3
    Python,
    /// JavaScript, by Node.js
    Node,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  nightcrew new poller
  nightcrew new writer --handler generate --lang python";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let survey = context.survey()?;
    let purpose = match &args.handler {
        Some(kind) => Purpose::Handler(kind.clone()),
        None => Purpose::Service,
    };
    let language = match args.lang {
        Lang::Sh => Language::Sh,
        Lang::Python => Language::Python,
        Lang::Node => Language::Node,
    };
    let made =
        scaffold::agent(&survey.store, &survey.layout, &args.name, &purpose, language, std::process::id());
    let file = made.map_err(|error| match error {
        ScaffoldError::Exists(_) => CliError::failed(&error).hint("choose another name; nothing was changed"),
        ScaffoldError::Io { .. } => CliError::failed(&error),
    })?;
    screen::say(format_args!("made {}", file.display()))?;
    let picture = survey.agent(&args.name)?;
    for refusal in &picture.refusals {
        screen::say(format_args!("but it cannot run yet: {}\n  {}", refusal.reason, refusal.remedy))?;
    }
    let name = &args.name;
    screen::say("\nA running supervisor starts it at once, and again when you change it. Next:\n")?;
    match &args.handler {
        None => screen::say(format_args!("  nightcrew try {name}      runs it here, until Ctrl-C"))?,
        Some(kind) => {
            screen::say(format_args!(
                "  nightcrew try {name} '{{\"a\": 1}}'   runs it here, on this payload"
            ))?;
            screen::say(format_args!("  nightcrew submit {kind} '{{\"a\": 1}}'   hands it a task"))?;
        }
    }
    screen::say(format_args!("  nightcrew logs -f {name}  shows what it prints"))?;
    Ok(Exit::Ok)
}
