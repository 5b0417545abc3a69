//! Pulling: waiting until a task can be claimed, woken by the file system alone.

use std::time::Duration;

use crossbeam_channel::{Receiver, select};

use crate::edge::clock::Clock;
use crate::edge::flock;
use crate::edge::processes::is_gone;
use crate::edge::store::Store;
use crate::edge::watches::WatchError;
use crate::protocol::name::Kind;
use crate::protocol::process::Identity;
use crate::protocol::time::Mono;

use super::client::claim::Claim;
use super::client::{Client, ClientError};
use super::wake::Wake;

/// What is waited for is looked at again after so long, in case a hint was lost or a directory replaced.
pub(super) const RELOOK: Duration = Duration::from_secs(30);

/// What is waited for, and how long.
#[derive(Debug)]
pub struct Pull<'a> {
    /// The kinds of task to take, in this order; none means any.
    pub kinds: &'a [Kind],
    /// The process whose end gives the task up.
    pub owner: &'a Identity,
    /// When to give up.
    pub until: Option<Mono>,
    /// Give up as soon as none is ready.
    pub until_empty: bool,
    /// What comes in here ends the wait.
    pub stop: &'a Receiver<()>,
}

/// What came of waiting.
#[derive(Debug)]
pub enum Pulled {
    /// A task.
    Got(Box<Claim>),
    /// Nothing, within the time or the tasks that there were.
    Nothing,
    /// The wait was ended.
    Stopped,
}

/// Why nothing can be waited for.
#[derive(Debug, thiserror::Error)]
pub enum PullError {
    /// A call failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The files cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// The owner has ended, and with it any claim of its.
    #[error("process {0}, for which a task was to be claimed, has ended")]
    OwnerGone(u32),
}

/// Waits until a task is claimed. While the crew is halted, or the caller's agent stopped, it claims nothing and
/// waits for that to end.
///
/// # Errors
/// [`PullError`]; [`ClientError::Halted`] and [`ClientError::Stopped`] if it gives up in such a time.
pub fn pull<S: Store>(
    client: &mut Client<S>,
    clock: &impl Clock,
    pull: &Pull<'_>,
) -> Result<Pulled, PullError> {
    loop {
        // Before the first look, so that nothing falls between.
        let wake = watch(client, pull.until_empty)?;
        loop {
            if is_gone(pull.owner) {
                return Err(PullError::OwnerGone(pull.owner.pid));
            }
            let now = clock.now();
            let left = pull.until.map_or(RELOOK, |until| Duration::from_millis(until.since(now.mono)));
            let gives_up = match client.claim(pull.kinds, pull.owner, now.wall) {
                Ok(Some(claim)) => return Ok(Pulled::Got(Box::new(claim))),
                Ok(None) => left.is_zero() || pull.until_empty && is_empty(client, pull.kinds)?,
                Err(ClientError::Halted(_) | ClientError::Stopped { .. })
                    if !left.is_zero() && !pull.until_empty =>
                {
                    false
                }
                Err(error) => return Err(error.into()),
            };
            if gives_up {
                return Ok(Pulled::Nothing);
            }
            select! {
                recv(pull.stop) -> _ => return Ok(Pulled::Stopped),
                recv(wake.hints()) -> _ => {}
                default(left.min(RELOOK)) => break,
            }
        }
    }
}

fn watch<S: Store>(client: &Client<S>, submissions: bool) -> Result<Wake, PullError> {
    let layout = client.layout();
    let mut directories = vec![layout.ready_dir(), layout.stopped_dir()];
    directories.extend(submissions.then(|| layout.new_tasks()));
    for directory in &directories {
        client.ensure_dir(directory)?;
    }
    Ok(Wake::on(&directories, &[layout.halt()])?)
}

fn is_empty<S: Store>(client: &Client<S>, kinds: &[Kind]) -> Result<bool, ClientError> {
    let is_supervised = flock::probe(client.layout()).is_ok_and(|held| held.is_some());
    Ok(!client.may_come(kinds, is_supervised)?)
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;
    use crate::app::client::tests::{Crew, NOW, name, owner};
    use crate::app::world::{Disk, SystemClock, identity_of};

    /// Pulls until there is nothing left, or, if it does not see that at once, until it is told to stop.
    fn pulled(client: &mut Client<Disk>) -> Result<Pulled, PullError> {
        let (say, stop) = bounded(1);
        say.send(()).unwrap();
        let me = identity_of(std::process::id()).unwrap();
        let kinds = [name("write")];
        let wanted = Pull { kinds: &kinds, owner: &me, until: None, until_empty: true, stop: &stop };
        pull(client, &SystemClock::new(), &wanted)
    }

    #[test]
    fn a_list_that_is_out_of_date_does_not_make_a_kind_empty() {
        let crew = Crew::new();
        let mut client = crew.operator();
        assert!(matches!(pulled(&mut client), Ok(Pulled::Nothing)));
        crew.ready_task("a", 7);
        crew.operator().claim(&[], &owner(), NOW).unwrap().unwrap();
        assert!(
            matches!(pulled(&mut client), Ok(Pulled::Stopped)),
            "its place in the list may be another's soon"
        );
        crew.store.unlink(&crew.layout.ready(&name("write"))).unwrap();
        assert!(matches!(pulled(&mut client), Ok(Pulled::Nothing)));
    }

    #[test]
    fn a_submission_counts_while_somebody_is_there_to_look_at_it() {
        let crew = Crew::new();
        let submission = crew.layout.new_task(&name("t"));
        crew.store.create_dir(&crew.layout.new_tasks()).unwrap();
        crew.store.write_new(&submission, b"{}", false).unwrap();
        assert!(crew.operator().may_come(&[name("write")], true).unwrap());
        assert!(!crew.operator().may_come(&[name("write")], false).unwrap());
    }

    #[test]
    fn who_does_only_what_there_is_learns_of_a_halt() {
        let crew = Crew::new();
        crew.operator().halt("lunch").unwrap();
        let halted = pulled(&mut crew.operator()).unwrap_err();
        assert!(matches!(halted, PullError::Client(ClientError::Halted(_))), "{halted}");
    }
}
