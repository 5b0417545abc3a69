//! `nightcrew init [DIR]`

use std::path::PathBuf;

use crate::app::environment::PATH_DEFAULT;
use crate::app::scaffold::{self, ScaffoldError};
use crate::app::survey;
use crate::protocol::layout::Layout;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `init` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory to make a crew of; it is made if it is missing
    #[arg(default_value = ".")]
    dir: PathBuf,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  nightcrew init mycrew
  cd mycrew && nightcrew init";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let dir = context.environment().here().join(&args.dir);
    let store = survey::found(&dir).map_err(|error| {
        CliError::failed(format_args!("{}: {error}", dir.display()))
            .hint("name a directory that you may make")
    })?;
    let layout = Layout::new(&dir);
    let path = context.environment().text("PATH").unwrap_or(PATH_DEFAULT);
    let made = scaffold::init(&store, &layout, path, std::process::id()).map_err(|error| match error {
        ScaffoldError::Exists(_) => {
            CliError::failed(&error).hint("nothing was changed; `nightcrew new NAME` adds an agent to a crew")
        }
        ScaffoldError::Io { .. } => CliError::failed(&error),
    })?;
    for file in &made {
        screen::say(format_args!("made {}", file.display()))?;
    }
    screen::say("\nThe crew is ready. Next:\n")?;
    if dir != context.environment().here() {
        screen::say(format_args!("  cd {}", scaffold::shell_word(&args.dir.to_string_lossy())))?;
    }
    screen::print(NEXT)?;
    Ok(Exit::Ok)
}

const NEXT: &str = "  \
  nightcrew try hello    runs the first agent here, until Ctrl-C
  nightcrew run          starts every agent in agents/
  nightcrew new NAME     adds another one
";
