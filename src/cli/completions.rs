//! `nightcrew completions SHELL`

use clap_complete::Shell;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `completions` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The shell to write for
    shell: Shell,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  nightcrew completions bash > ~/.local/share/bash-completion/completions/nightcrew
  nightcrew completions fish > ~/.config/fish/completions/nightcrew.fish";

pub(crate) fn run(args: &Args, _: &Context) -> Result<Exit, CliError> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::command(), super::PROGRAM, &mut script);
    screen::print_bytes(&script)?;
    Ok(Exit::Ok)
}
