//! What a submitter asks for beside kind and payload.

use crate::app::client::submit::When;
use crate::protocol::name::{Name, TaskId};
use crate::protocol::task::{OnDead, Wishes};
use crate::protocol::time::{Wall, parse_duration};

/// The options that say when, and in what order.
#[derive(Debug, clap::Args)]
pub(crate) struct WishArgs {
    /// Not before these tasks are done; may be given several times
    #[arg(long, value_name = "ID[,ID…]", value_delimiter = ',')]
    needs: Vec<TaskId>,
    /// If one of those becomes a dead letter: fail too (the default), or run all the same
    #[arg(long, value_name = "fail|run", value_parser = parse_on_dead, requires = "needs")]
    on_dead: Option<OnDead>,
    /// Among ready tasks the higher goes first (-128 to 127)
    #[arg(long, value_name = "N", default_value_t = 0, allow_negative_numbers = true)]
    priority: i8,
    /// Not to be begun before this time, such as 2026-11-20T03:00:00Z
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    not_before: Option<Wall>,
    /// Not to be begun before so long from now, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    delay: Option<u64>,
    /// A dead letter if no try of it has begun by then
    #[arg(long, value_name = "TIME|DURATION")]
    expires: Option<When>,
    /// What it belongs to, for lists and for cancelling
    #[arg(long, value_name = "NAME")]
    group: Option<Name>,
}

fn parse_on_dead(text: &str) -> Result<OnDead, String> {
    match text {
        "fail" => Ok(OnDead::Fail),
        "run" => Ok(OnDead::Run),
        _ => Err("expected fail or run".into()),
    }
}

impl WishArgs {
    /// What is asked for, as a record says it.
    pub(crate) fn wishes(&self, now: Wall) -> Wishes {
        Wishes {
            priority: self.priority,
            not_before: self.not_before.or_else(|| self.delay.map(|ms| When::In(ms).wall(now))),
            expires: self.expires.map(|when| when.wall(now)),
            group: self.group.clone(),
            needs: self.needs.clone(),
            on_dead: self.on_dead.unwrap_or_default(),
        }
    }
}
