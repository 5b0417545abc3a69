//! The command line: one file a command, each with its `Args`, `EXAMPLES` and `run`.
//!
//! A new verb needs its file, a line in [`Verb`], one in [`Verb::run`], and its name in [`GROUPS`].

mod completions;
mod context;
mod error;
mod exit;
mod man;
mod screen;
#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::app::world::Environment;

use context::Context;
use error::CliError;
use exit::Exit;

/// The name of the binary.
pub(crate) const PROGRAM: &str = "nightcrew";

/// Runs a small fleet of scripts and AI agents unattended, coordinated by nothing but files.
#[derive(Debug, Parser)]
#[command(name = PROGRAM, version, disable_help_subcommand = true, after_long_help = exit::TOLD)]
struct Cli {
    /// The crew's directory (default: `$NIGHTCREW_DIR`, else upwards from here to one that holds agents/)
    #[arg(long, value_name = "DIR")]
    crew: Option<PathBuf>,

    #[command(subcommand)]
    verb: Option<Verb>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print a completion script for a shell
    #[command(after_long_help = completions::EXAMPLES)]
    Completions(completions::Args),
    /// Print the manual page, or write all of them into a directory
    #[command(after_long_help = man::EXAMPLES)]
    Man(man::Args),
}

impl Verb {
    fn run(&self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Completions(args) => completions::run(args, context),
            Self::Man(args) => man::run(args, context),
        }
    }
}

/// How `--help` groups the verbs. clap knows no headings for subcommands, so the list is made here.
const GROUPS: &[(&str, &[&str])] = &[
    ("Operator's verbs", &["completions", "man"]),
    ("Agent's verbs (by files alone, inside a run or out)", &[]),
];

const TEMPLATE: &str = "{about-with-newline}\n{usage-heading} {usage}\n\n{options}";

/// The whole command line, with its verbs listed in groups.
fn command() -> clap::Command {
    let command = Cli::command();
    let list = grouped(&command);
    command
        .help_template(format!("{TEMPLATE}\n{list}\n`{PROGRAM} VERB --help` tells more.{{after-help}}"))
        .subcommand_value_name("VERB")
}

fn grouped(command: &clap::Command) -> String {
    let mut text = String::new();
    for (heading, verbs) in GROUPS {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "\n{heading}:");
        for name in *verbs {
            let about = command.find_subcommand(name).and_then(clap::Command::get_about);
            let _ = writeln!(text, "  {name:<12} {}", about.map(ToString::to_string).unwrap_or_default());
        }
    }
    text
}

/// Runs the command line of this process and gives the code to end with.
#[must_use]
pub fn main() -> ExitCode {
    let parsed = command().try_get_matches().and_then(|matches| Cli::from_arg_matches(&matches));
    let exit = match parsed {
        Ok(cli) => match run(cli) {
            Ok(exit) => exit,
            Err(error) => {
                let exit = error.exit();
                if !matches!(error, CliError::ReaderGone) {
                    eprintln!("{error}");
                }
                exit
            }
        },
        Err(error) => {
            // Help goes to standard output, whose reader may be gone; there is nobody left to tell.
            let _ = error.print();
            if error.use_stderr() { Exit::Usage } else { Exit::Ok }
        }
    };
    ExitCode::from(exit.code())
}

fn run(cli: Cli) -> Result<Exit, CliError> {
    let environment = Environment::read().map_err(|error| {
        CliError::failed(format_args!("the working directory: {error}")).hint("change to one that exists")
    })?;
    let context = Context::new(cli.crew, environment);
    match cli.verb {
        Some(verb) => verb.run(&context),
        None => begin(&context),
    }
}

/// The bare binary: how to begin where there is no crew.
fn begin(context: &Context) -> Result<Exit, CliError> {
    match context.layout() {
        Ok(layout) => screen::say(format_args!("The crew is in {}.", layout.crew().display()))?,
        Err(_) => screen::print(BEGIN)?,
    }
    Ok(Exit::Ok)
}

const BEGIN: &str = "\
There is no crew here yet. To begin:

  nightcrew init mycrew    makes a directory with a first agent
  cd mycrew
  nightcrew run            starts every agent in agents/

`nightcrew --help` lists all verbs.
";
