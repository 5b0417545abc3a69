//! `nightcrew exec-agent`: the launcher of an agent with a working directory of its own.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::app::world;

use super::context::Context;
use super::error::CliError;
use super::exit::Exit;

/// What `exec-agent` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The directory to enter
    #[arg(long)]
    workdir: PathBuf,
    /// What to become there
    #[arg(last = true, required = true)]
    argv: Vec<OsString>,
}

pub(crate) fn run(args: &Args, _: &Context) -> Result<Exit, CliError> {
    match world::exec_agent(&args.workdir, &args.argv) {
        Ok(never) => match never {},
        Err(error) => Err(CliError::failed(error)),
    }
}
