//! `nightcrew work KIND… -- COMMAND…`

use std::ffi::OsString;
use std::time::Duration;

use crate::app::client::{Caller, Client};
use crate::app::pull::{self, Pull, Pulled};
use crate::app::work::{self, Fate, Program, RENEW_EVERY, Worked};
use crate::app::world::{Disk, EndSignals};
use crate::protocol::name::{Kind, TaskId};
use crate::protocol::task::Verdict;
use crate::protocol::time::parse_duration;
use crate::protocol::variables::ENV_DIR;

use super::claim;
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// What `work` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The kinds of task to take, in this order
    #[arg(required = true)]
    kinds: Vec<Kind>,
    /// End after so many tasks
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End as soon as no task of these kinds is ready
    #[arg(long)]
    until_empty: bool,
    /// How long COMMAND has to end when the worker is told to, before it is killed
    #[arg(long, value_name = "LENGTH", value_parser = parse_duration, default_value = "10s")]
    stop_grace: u64,
    /// The program that does one task, and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

pub(crate) const EXAMPLES: &str = "\
Claims one task after the other, waiting where there is none, and runs COMMAND for each, as a handler
is run: the payload is on its standard input and in $NIGHTCREW_TASK_FILE, its result goes to
$NIGHTCREW_OUTPUT, and $NIGHTCREW_TASK, _TOKEN, _NONCE and _FAILURES tell it of its task. Its exit code
is the outcome: 0 and 66 done, 75 and 69 later, 64, 65 and 78 failed for good, any other failed. All
else of its environment, its directory and its output are the worker's own.

The claim is renewed while COMMAND runs, however long: bound it with timeout(1). If the claim is taken
away all the same, COMMAND is killed and the next task claimed. TERM, INT, QUIT or HUP end the worker:
COMMAND gets TERM, and unless it exits with 0 its task is handed back; a second one kills it. While
the crew is halted nothing is claimed. Outside any run, a task is held as long as the worker lives.

Examples:
  nightcrew work summarize -- python3 summarize.py
  nightcrew work --until-empty resize -- sh -c './resize.py >\"$NIGHTCREW_OUTPUT\"'
  nightcrew work --count 100 fetch crawl -- timeout 10m ./fetch";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    let own = matches!(client.caller(), Caller::Operator).then(std::process::id);
    let owner = claim::owner(client.caller(), own)?;
    let signals = EndSignals::catch().map_err(|error| {
        CliError::failed(format_args!("cannot catch signals: {error}"))
            .hint("the host is out of files or memory")
    })?;
    let pull = Pull {
        kinds: &args.kinds,
        owner: &owner,
        until: None,
        until_empty: args.until_empty,
        stop: signals.asked(),
    };
    let program = program(args, context, &client);
    let mut worked: u64 = 0;
    while args.count.is_none_or(|count| worked < count) {
        let claim = match pull::pull(&mut client, context.clock(), &pull)? {
            Pulled::Got(claim) => *claim,
            Pulled::Nothing | Pulled::Stopped => break,
        };
        let task = claim.record.id.clone();
        let Worked { fate, is_told_to_end } = work::work(&mut client, claim, &program, signals.asked())?;
        tell(&task, &fate);
        if is_told_to_end {
            break;
        }
        worked += 1;
    }
    Ok(Exit::Ok)
}

fn program(args: &Args, context: &Context, client: &Client<Disk>) -> Program {
    let environment = context.environment();
    let mut env: Vec<(OsString, OsString)> =
        environment.variables().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    if environment.get(ENV_DIR).is_none() {
        // So that `nightcrew beat` and the like find the crew wherever the program runs.
        env.push((ENV_DIR.into(), client.layout().crew().into()));
    }
    Program {
        argv: args.command.clone(),
        env,
        workdir: environment.here().to_path_buf(),
        renew_every: RENEW_EVERY,
        stop_grace: Duration::from_millis(args.stop_grace),
    }
}

/// On standard error, for standard output is the program's.
fn tell(task: &TaskId, fate: &Fate) {
    match fate {
        Fate::HandedIn(verdict, why) => {
            let word = match verdict {
                Verdict::Done => "done",
                Verdict::Failed => "failed",
                Verdict::Retry => "to be tried again later",
                Verdict::Released => "handed back",
            };
            let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
            screen::complain(format_args!("{task} {word}{why}"));
        }
        Fate::ByItself => screen::complain(format_args!("{task} was handed in by the program itself")),
        Fate::Lost(why) => screen::complain(format_args!("{task} lost: {why}")),
    }
}
