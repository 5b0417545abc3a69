//! `nightcrew cancel ID…|--group G`

use crate::protocol::manifest::STOP_GRACE_MS_DEFAULT;
use crate::protocol::name::{Name, TaskId};
use crate::protocol::record::cut;
use crate::protocol::request::Ask;

use super::asking::{self, Patience};
use super::context::Context;
use super::error::CliError;
use super::exit::Exit;
use super::screen;
use crate::app::client::control::WHY_LEN_MAX;

/// No manifest makes it wait longer than this: an hour.
const GRACE_MS_MAX: u64 = 3_600_000;

/// What `cancel` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// Why, for whoever looks at the dead letters
    #[arg(long, value_name = "TEXT", default_value = "no reason given")]
    why: String,
}

/// Some open tasks.
#[derive(Debug, clap::Args)]
#[group(required = true)]
struct Which {
    /// The tasks
    #[arg(value_name = "ID")]
    tasks: Vec<TaskId>,
    /// Every open task of this group
    #[arg(long, value_name = "NAME")]
    group: Option<Name>,
}

pub(crate) const EXAMPLES: &str = "\
The tasks become dead letters; whoever works on one is stopped, and what was submitted within it is
dropped. It is asked of the running supervisor: without one, exit 69. If one of the tasks is not open,
the others are cancelled, and it exits 1. It waits until all have ended, for as long as the longest
`stop_grace` and 5 s; exit 75 then: what was begun goes on.

Examples:
  nightcrew cancel 3f2a9c0d11e45b67
  nightcrew cancel --group nightly --why 'the feed is broken'";

pub(crate) fn run(args: &Args, context: &Context) -> Result<Exit, CliError> {
    let mut client = context.client()?;
    asking::supervised(&client, "nothing can be cancelled")?;
    let Which { tasks, group } = &args.which;
    let why = cut(&args.why, WHY_LEN_MAX).to_owned();
    let ask = Ask::Cancel { tasks: tasks.clone(), group: group.clone(), why };
    let answer = asking::ask(&mut client, ask, &Patience::until_ended(longest_grace_ms(context)))?;
    screen::say(answer)?;
    Ok(Exit::Ok)
}

/// How long whoever works on a task may take to end, as far as the agents that there are tell.
fn longest_grace_ms(context: &Context) -> u64 {
    let roster = context.survey().and_then(|survey| Ok(survey.roster()?));
    let offers = roster.map(|roster| roster.offers).unwrap_or_default();
    let graces = offers.iter().map(|offer| offer.manifest.stop_grace_ms);
    graces.fold(STOP_GRACE_MS_DEFAULT, u64::max).min(GRACE_MS_MAX)
}
