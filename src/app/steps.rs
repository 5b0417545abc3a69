//! Doing a step once: its recorded result if there is one, else its command, whose result is recorded before anybody
//! is told.
//!
//! Between the command's deed and the record nothing can be known. A plain step that is cut off there is done again.
//! An effect records that it is begun before it begins, so that the next call knows that it does not know, and asks.

use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

use crate::edge::capture::{self, CaptureError, Captured, Input};
use crate::edge::clock::{Clock, SystemClock};
use crate::edge::processes::own_identity;
use crate::edge::steplock::{StepLock, Tried};
use crate::edge::store::Store;
use crate::protocol::holder::Holder;
use crate::protocol::process::Ending;
use crate::protocol::step::{RESULT_LEN_MAX, StepId};
use crate::protocol::time::Wall;

use super::client::finish::Held;
use super::client::steps::Recorded;
use super::client::{Client, ClientError};

pub use crate::edge::capture::Input as StepInput;

/// What a check says by its exit code when the deed was not done.
const CHECK_SAYS_NO: u8 = 1;

/// A step to do.
#[derive(Debug, Clone)]
pub struct Order<'a> {
    /// Which.
    pub id: &'a StepId,
    /// Its key, for people.
    pub key: Option<&'a str>,
    /// The command and its arguments.
    pub argv: &'a [OsString],
    /// What the command reads.
    pub input: Input<'a>,
    /// It changes the world: never done again before it is known that it was not done.
    pub effect: bool,
    /// A shell's command line that tells whether it was done.
    pub check: Option<&'a OsStr>,
    /// A result that is this old counts no more.
    pub ttl_ms: Option<u64>,
    /// The claim it is done under.
    pub held: Option<&'a Held>,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Taken {
    /// Its result, recorded durably, now or before.
    Result(Vec<u8>),
    /// Its command failed, or we were told to end while it ran. Nothing is recorded.
    Failed {
        /// The code to end with, as a shell tells it.
        code: u8,
        /// What the command printed.
        output: Vec<u8>,
    },
}

/// Why a step has no result.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The crew's files said no.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Another process does it.
    #[error("the step is in progress: {}", .0.as_ref().map_or_else(|| "who does it has not said".into(), named))]
    Busy(Option<Holder>),
    /// Its lock cannot be had.
    #[error("{path}: {error}")]
    Lock {
        /// The lock's file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its command was done, but the claim is lost.
    #[error("the command was run, but its result is not recorded: {0}")]
    LostMeanwhile(ClientError),
    /// It was begun, nobody knows whether it was done, and there is no check to ask.
    #[error("the step was begun at {at} and cut off: it may have been done ({path})")]
    Begun {
        /// Since when.
        at: Wall,
        /// Its record.
        path: PathBuf,
    },
    /// The check does not know either.
    #[error(
        "the check ended with {0}, where 0 says that it was done and 1 that it was not: nothing is known"
    )]
    Undecided(u8),
    /// The command printed too much.
    #[error("it printed more than {RESULT_LEN_MAX} bytes: nothing is recorded")]
    TooLong,
    /// The command cannot be started.
    #[error("{program} cannot be started: {error}")]
    NotStarted {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// The command was started and lost sight of.
    #[error("{0}")]
    Lost(CaptureError),
}

/// A process that is in the way, for people.
#[must_use]
pub fn named(holder: &Holder) -> String {
    format!("pid {} does it, since {}", holder.process.pid, holder.since)
}

/// What a step needs of the world beside the crew's files.
pub trait Hands {
    /// A step's lock, held until it is dropped.
    type Lock;
    /// Takes the lock in this file, whose directory is there.
    ///
    /// # Errors
    /// [`StepError::Busy`], [`StepError::Lock`]
    fn lock(&mut self, path: &Path) -> Result<Self::Lock, StepError>;
    /// Runs a command and gives what it prints.
    ///
    /// # Errors
    /// [`CaptureError`]
    fn run(&mut self, argv: &[OsString], input: Input<'_>) -> Result<Captured, CaptureError>;
    /// What time it is.
    fn wall(&self) -> Wall;
    /// Tells the caller something that is no reason to end.
    fn warn(&mut self, text: &str);
}

/// Does a step, or finds that it is done.
///
/// # Errors
/// [`StepError`]
pub fn take<S: Store>(
    client: &mut Client<S>,
    order: &Order<'_>,
    hands: &mut impl Hands,
) -> Result<Taken, StepError> {
    if let Recorded::Done(output) = client.recorded(order.id, order.ttl_ms, hands.wall())? {
        return Ok(Taken::Result(output));
    }
    client.make_room_for(order.id)?;
    let _lock = hands.lock(&client.layout().step_lock(order.id))?;
    let begun = match client.recorded(order.id, order.ttl_ms, hands.wall())? {
        Recorded::Done(output) => return Ok(Taken::Result(output)),
        Recorded::Nothing => None,
        Recorded::Begun(at) => Some(at),
        Recorded::Damaged(damage) => {
            let aside = client.keep_aside(order.id, &damage)?;
            hands.warn(&format!(
                "the record is not to be believed: {damage}; it is kept as {}",
                aside.display()
            ));
            if order.effect {
                // It may have been done: that is as much as is known.
                let at = hands.wall();
                client.record_begun(order.id, order.key, at)?;
                Some(at)
            } else {
                client.forget_step(order.id)?;
                None
            }
        }
    };
    client.may_pay(order.held)?;
    match begun {
        None if order.effect => {
            client.record_begun(order.id, order.key, hands.wall())?;
            pay(client, order, hands, true)
        }
        None => pay(client, order, hands, false),
        Some(at) => match ask(client, order, hands, at)? {
            Some(taken) => Ok(taken),
            None => pay(client, order, hands, false),
        },
    }
}

/// Asks whether a step that was begun was done; `None` if it was not.
fn ask<S: Store>(
    client: &mut Client<S>,
    order: &Order<'_>,
    hands: &mut impl Hands,
    at: Wall,
) -> Result<Option<Taken>, StepError> {
    let Some(check) = order.check else {
        return Err(StepError::Begun { at, path: client.layout().step(order.id) });
    };
    let argv = ["sh".into(), "-c".into(), check.to_owned()];
    let captured = hands.run(&argv, Input::Nothing).map_err(|error| unseen(error, &argv))?;
    if captured.interrupted.is_some() {
        return settle(client, order, hands, captured).map(Some);
    }
    match code(&captured) {
        0 => settle(client, order, hands, captured).map(Some),
        CHECK_SAYS_NO => Ok(None),
        other => Err(StepError::Undecided(other)),
    }
}

/// Runs the command and records what it printed. `fresh` says that this very call has recorded the step as begun.
fn pay<S: Store>(
    client: &mut Client<S>,
    order: &Order<'_>,
    hands: &mut impl Hands,
    fresh: bool,
) -> Result<Taken, StepError> {
    match hands.run(order.argv, order.input) {
        Ok(captured) => settle(client, order, hands, captured),
        Err(error) => {
            if fresh && matches!(error, CaptureError::NotStarted(_)) {
                client.forget_step(order.id)?;
            }
            Err(unseen(error, order.argv))
        }
    }
}

/// Records what was printed, if it was printed by a command that ended well and by the owner of the task.
fn settle<S: Store>(
    client: &mut Client<S>,
    order: &Order<'_>,
    hands: &mut impl Hands,
    captured: Captured,
) -> Result<Taken, StepError> {
    if captured.overflowed {
        return Err(StepError::TooLong);
    }
    let code = code(&captured);
    let output = captured.output;
    if code != 0 {
        return Ok(Taken::Failed { code, output });
    }
    client.may_record(order.held).map_err(StepError::LostMeanwhile)?;
    client.record_done(order.id, order.key, &output, hands.wall())?;
    Ok(Taken::Result(output))
}

/// How it ended, as a shell tells it. Who ends well because we were told to end has not done its work: many a trap
/// says `exit 0`.
fn code(captured: &Captured) -> u8 {
    let by_signal = |signal: i32| u8::try_from(128 + signal).unwrap_or(u8::MAX);
    match (captured.interrupted, captured.ending) {
        (Some(signal), Ending::Code(0)) | (_, Ending::Signal(signal)) => by_signal(signal),
        (_, Ending::Code(code)) => u8::try_from(code).unwrap_or(u8::MAX),
        (_, Ending::Unseen) => u8::MAX,
    }
}

fn unseen(error: CaptureError, argv: &[OsString]) -> StepError {
    match error {
        CaptureError::NotStarted(error) => {
            let program = argv.first().map(|program| program.display().to_string()).unwrap_or_default();
            StepError::NotStarted { program, error }
        }
        CaptureError::Lost(_) => StepError::Lost(error),
    }
}

/// The real world.
pub struct World<W> {
    clock: SystemClock,
    wait: bool,
    warn: W,
}

impl<W: FnMut(&str)> World<W> {
    /// Hands that wait for who does the step already, or do not; `warn` tells the caller something.
    #[must_use]
    pub fn new(wait: bool, warn: W) -> Self {
        Self { clock: SystemClock::new(), wait, warn }
    }
}

impl<W: FnMut(&str)> Hands for World<W> {
    type Lock = StepLock;

    fn lock(&mut self, path: &Path) -> Result<StepLock, StepError> {
        let failed = |error| StepError::Lock { path: path.into(), error };
        let holder = Holder::new(own_identity().map_err(failed)?, self.wall());
        match StepLock::try_take(path, &holder).map_err(failed)? {
            Tried::Got(lock) => Ok(lock),
            Tried::Busy(by) if self.wait => {
                (self.warn)(&format!("{}; waiting", StepError::Busy(by)));
                StepLock::take(path, &holder).map_err(failed)
            }
            Tried::Busy(by) => Err(StepError::Busy(by)),
        }
    }

    fn run(&mut self, argv: &[OsString], input: Input<'_>) -> Result<Captured, CaptureError> {
        capture::capture(argv, input, RESULT_LEN_MAX)
    }

    fn wall(&self) -> Wall {
        self.clock.now().wall
    }

    fn warn(&mut self, text: &str) {
        (self.warn)(text);
    }
}

/// Runs a command for what it prints, recording nothing.
///
/// # Errors
/// [`StepError`]
pub fn rehearse(order: &Order<'_>, hands: &mut impl Hands) -> Result<Taken, StepError> {
    let captured = hands.run(order.argv, order.input).map_err(|error| unseen(error, order.argv))?;
    match (captured.overflowed, code(&captured)) {
        (true, _) => Err(StepError::TooLong),
        (false, 0) => Ok(Taken::Result(captured.output)),
        (false, code) => Ok(Taken::Failed { code, output: captured.output }),
    }
}
