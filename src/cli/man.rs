//! `nightcrew man [DIR]`

use std::path::PathBuf;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `man` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Where to write one page for each verb; without it, the first page is printed
    dir: Option<PathBuf>,
}

pub(crate) const EXAMPLES: &str = "\
Examples:
  nightcrew man | man -l -
  nightcrew man ~/.local/share/man/man1";

pub(crate) fn run(args: &Args, _: &Context) -> Result<Exit, CliError> {
    let command = super::command();
    if let Some(dir) = &args.dir {
        clap_mangen::generate_to(command, dir).map_err(|error| {
            CliError::failed(format_args!("{}: {error}", dir.display()))
                .hint("name a directory that is there")
        })?;
    } else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command)
            .render(&mut page)
            .map_err(|error| CliError::failed(format_args!("the manual page: {error}")))?;
        screen::print_bytes(&page)?;
    }
    Ok(Exit::Ok)
}
