//! The command line: one file a command, each with its `Args`, `EXAMPLES` and `run`.
//!
//! A new verb needs its file, a line in [`Verb`], one in [`Verb::run`], and its name in [`GROUPS`].

mod asking;
mod beat;
mod cancel;
mod check;
mod chosen;
mod claim;
mod completions;
mod context;
mod dead;
mod done;
mod each;
mod edited;
mod error;
mod exec_agent;
mod exit;
mod fail;
mod halt;
mod init;
mod input;
mod logs;
mod man;
mod new;
mod next;
mod recall;
mod release;
mod remember;
mod restart;
mod resume;
mod review;
mod run;
mod screen;
mod show;
mod start;
mod status;
mod step;
mod steps;
mod stop;
mod submit;
mod supervision;
mod tasks;
#[cfg(test)]
mod tests;
mod try_agent;
mod unit;
mod wait;
mod wishes;
mod work;

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
    /// Give a sign of life
    #[command(after_long_help = beat::EXAMPLES)]
    Beat(beat::Args),
    /// Give open tasks up: they become dead letters
    #[command(after_long_help = cancel::EXAMPLES)]
    Cancel(cancel::Args),
    /// Take a task and print its id
    #[command(after_long_help = claim::EXAMPLES)]
    Claim(claim::Args),
    /// Print a completion script for a shell
    #[command(after_long_help = completions::EXAMPLES)]
    Completions(completions::Args),
    /// See to dead letters: list, show, replay, drop
    #[command(after_long_help = dead::EXAMPLES)]
    Dead(dead::Args),
    /// Hand in a task as done, with its result
    #[command(after_long_help = done::EXAMPLES)]
    Done(done::Args),
    /// Hand in a task as failed
    #[command(after_long_help = fail::EXAMPLES)]
    Fail(fail::Args),
    /// Set the kill switch: nothing new starts, services stop
    #[command(after_long_help = halt::EXAMPLES)]
    Halt(halt::Args),
    /// Print the manual page, or write all of them into a directory
    #[command(after_long_help = man::EXAMPLES)]
    Man(man::Args),
    /// List the coming firings of schedules
    #[command(after_long_help = next::EXAMPLES)]
    Next(next::Args),
    /// Print a value of the shared memory
    #[command(after_long_help = recall::EXAMPLES)]
    Recall(recall::Args),
    /// Change a value of the shared memory
    #[command(after_long_help = remember::EXAMPLES)]
    Remember(remember::Args),
    /// Hand a task back untouched
    #[command(after_long_help = release::EXAMPLES)]
    Release(release::Args),
    /// End agents and start them again
    #[command(after_long_help = restart::EXAMPLES)]
    Restart(restart::Args),
    /// Take the kill switch away
    #[command(after_long_help = resume::EXAMPLES)]
    Resume(resume::Args),
    /// Decide about results that no gate let pass: list, show, approve, reject
    #[command(after_long_help = review::EXAMPLES)]
    Review(review::Args),
    /// Supervise the crew: start its agents and keep them
    #[command(after_long_help = run::EXAMPLES)]
    Run(run::Args),
    /// Let stopped agents start again
    #[command(after_long_help = start::EXAMPLES)]
    Start(start::Args),
    /// Stop agents, across reboots
    #[command(after_long_help = stop::EXAMPLES)]
    Stop(stop::Args),
    /// Print a step's recorded result, or make and record it
    #[command(after_long_help = step::EXAMPLES)]
    Step(step::Args),
    /// List the recorded steps of tasks
    #[command(after_long_help = steps::EXAMPLES)]
    Steps(steps::Args),
    /// Submit a task, or many at once
    #[command(after_long_help = submit::EXAMPLES)]
    Submit(submit::Args),
    /// List tasks and where each stands, or show one
    /// Wait until tasks have ended; the exit code tells how
    #[command(after_long_help = wait::EXAMPLES)]
    Wait(wait::Args),
    /// Run a command for one task after the other
    #[command(after_long_help = work::EXAMPLES)]
    Work(work::Args),
    /// List tasks and where each stands
    #[command(after_long_help = tasks::EXAMPLES)]
    Tasks(tasks::Args),
    /// Validate nightcrew.toml and all manifests, and say how each agent would run
    #[command(after_long_help = check::EXAMPLES)]
    Check(check::Args),
    /// Make a crew with a first agent
    #[command(after_long_help = init::EXAMPLES)]
    Init(init::Args),
    /// Show what agents printed, merged by time
    #[command(after_long_help = logs::EXAMPLES)]
    Logs(logs::Args),
    /// Make an agent from a template
    #[command(after_long_help = new::EXAMPLES)]
    New(new::Args),
    /// Show where each agent stands, and why
    #[command(after_long_help = status::EXAMPLES)]
    Status(status::Args),
    /// Run an agent once, here
    #[command(after_long_help = try_agent::EXAMPLES)]
    Try(try_agent::Args),
    /// Print a systemd unit for this crew and user
    #[command(after_long_help = unit::EXAMPLES)]
    Unit(unit::Args),
    /// Become an agent in another directory; the supervisor calls this
    #[command(hide = true)]
    ExecAgent(exec_agent::Args),
}

impl Verb {
    fn run(&self, context: &Context) -> Result<Exit, CliError> {
        match self {
            Self::Beat(args) => beat::run(args, context),
            Self::Cancel(args) => cancel::run(args, context),
            Self::Claim(args) => claim::run(args, context),
            Self::Completions(args) => completions::run(args, context),
            Self::Dead(args) => dead::run(args, context),
            Self::Done(args) => done::run(args, context),
            Self::Fail(args) => fail::run(args, context),
            Self::Halt(args) => halt::run(args, context),
            Self::Man(args) => man::run(args, context),
            Self::Next(args) => next::run(args, context),
            Self::Recall(args) => recall::run(args, context),
            Self::Remember(args) => remember::run(args, context),
            Self::Release(args) => release::run(args, context),
            Self::Restart(args) => restart::run(args, context),
            Self::Resume(args) => resume::run(args, context),
            Self::Review(args) => review::run(args, context),
            Self::Run(args) => run::run(args, context),
            Self::Start(args) => start::run(args, context),
            Self::Step(args) => step::run(args, context),
            Self::Steps(args) => steps::run(args, context),
            Self::Stop(args) => stop::run(args, context),
            Self::Submit(args) => submit::run(args, context),
            Self::Tasks(args) => tasks::run(args, context),
            Self::Wait(args) => wait::run(args, context),
            Self::Work(args) => work::run(args, context),
            Self::Check(args) => check::run(args, context),
            Self::Init(args) => init::run(args, context),
            Self::Logs(args) => logs::run(args, context),
            Self::New(args) => new::run(args, context),
            Self::Status(args) => status::run(args, context),
            Self::Try(args) => try_agent::run(args, context),
            Self::Unit(args) => unit::run(args, context),
            Self::ExecAgent(args) => exec_agent::run(args, context),
        }
    }
}

/// How `--help` groups the verbs. clap knows no headings for subcommands, so the list is made here.
const GROUPS: &[(&str, &[&str])] = &[
    (
        "Operator's verbs",
        &[
            "run",
            "init",
            "new",
            "check",
            "next",
            "try",
            "status",
            "logs",
            "unit",
            "submit",
            "wait",
            "tasks",
            "cancel",
            "dead",
            "review",
            "steps",
            "halt",
            "resume",
            "stop",
            "start",
            "restart",
            "completions",
            "man",
        ],
    ),
    ("Agent's verbs", &["work", "beat", "claim", "done", "fail", "release", "step", "remember", "recall"]),
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
                    screen::complain(&error);
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

/// The bare binary: the crew's status, or how to begin where there is no crew.
fn begin(context: &Context) -> Result<Exit, CliError> {
    if context.layout().is_ok() {
        return status::run(&status::Args::default(), context);
    }
    screen::print(BEGIN)?;
    Ok(Exit::Ok)
}

const BEGIN: &str = "\
There is no crew here yet. To begin:

  nightcrew init mycrew    makes a directory with a first agent
  cd mycrew
  nightcrew run            starts every agent in agents/

`nightcrew --help` lists all verbs.
";
