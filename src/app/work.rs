//! Working on a claimed task: a program gets the payload, the claim is renewed while it runs, and its exit code is
//! handed in as the task's outcome.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crossbeam_channel::{Receiver, after, never, select, tick};

use crate::edge::appear::Watched;
use crate::edge::foreground::{Attended, Foreground};
use crate::edge::store::{Store, parent};
use crate::protocol::process::{Ending, Meaning};
use crate::protocol::task::Verdict;

use super::client::claim::Claim;
use super::client::finish::{Again, Held, Output};
use super::client::hold::Hold;
use super::client::{Client, ClientError};
use super::environment::TaskFacts;

/// How often a claim is renewed: well within the 30 minutes that a lock lives.
pub const RENEW_EVERY: Duration = Duration::from_mins(5);

/// What works on tasks.
#[derive(Debug)]
pub struct Program {
    /// Program and arguments.
    pub argv: Vec<OsString>,
    /// Its environment, but for what tells it of its task.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory.
    pub workdir: PathBuf,
    /// How often a claim is renewed while it runs.
    pub renew_every: Duration,
    /// How long it has to end when it is asked to.
    pub stop_grace: Duration,
}

/// What became of a task that was worked on.
#[derive(Debug, PartialEq, Eq)]
pub enum Fate {
    /// Handed in as this, with what went wrong.
    HandedIn(Verdict, Option<String>),
    /// The program handed it in itself.
    ByItself,
    /// It was taken away meanwhile, and the program killed.
    Lost(String),
}

/// What came of working on a task.
#[derive(Debug, PartialEq, Eq)]
pub struct Worked {
    /// What became of it.
    pub fate: Fate,
    /// True if the worker was told to end meanwhile.
    pub is_told_to_end: bool,
}

/// Why a task could not be worked on.
#[derive(Debug, thiserror::Error)]
pub enum WorkError {
    /// A call failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The program could not be started; the task was handed back.
    #[error("{program} cannot be started: {error}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// The program's end could not be waited for.
    #[error("the end of {program} cannot be waited for: {error}")]
    Wait {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
}

/// Works on a claimed task. What comes in at `stop` asks the program to end; a second time, it is killed.
///
/// # Errors
/// [`WorkError`]; the task is then another's once this process has ended.
pub fn work<S: Store>(
    client: &mut Client<S>,
    claim: Claim,
    program: &Program,
    stop: &Receiver<()>,
) -> Result<Worked, WorkError> {
    let payload = client.temp()?;
    let at = |path: &Path, error| ClientError::Io { path: path.into(), error };
    client
        .store()
        .write_new(&payload, claim.record.payload.get().as_bytes(), false)
        .map_err(|error| at(&payload, error))?;
    let worked = with_payload(client, claim, program, &payload, stop);
    client.store().unlink(&payload).map_err(|error| at(&payload, error))?;
    worked
}

fn with_payload<S: Store>(
    client: &mut Client<S>,
    claim: Claim,
    program: &Program,
    payload: &Path,
    stop: &Receiver<()>,
) -> Result<Worked, WorkError> {
    let failures = claim.record.failures;
    let held = Held::from(claim.lock);
    let output = client.layout().output(&held.agent, &held.task, held.token);
    client.ensure_dir(parent(&output))?;
    let facts = TaskFacts {
        needs: None,
        slot: None,
        changed: Vec::new(),
        fallback: false,
        task: held.task.clone(),
        token: held.token,
        nonce: held.nonce.clone(),
        failures,
        payload: payload.into(),
        output: output.clone(),
    };
    let name = || program.argv.first().map(|name| name.display().to_string()).unwrap_or_default();
    let attended = match Attended::start(&started(program, &facts)) {
        Ok(attended) => attended,
        Err(error) => {
            client.finish(&held, Verdict::Released, None, None)?;
            return Err(WorkError::Start { program: name(), error });
        }
    };
    let watch = Watch { held: &held, program, stop };
    let Seen { ending, lost, is_told_to_end } =
        watch.until_end(client, attended).map_err(|error| WorkError::Wait { program: name(), error })?;
    let hold = match lost {
        Some(why) => Hold::Lost(why),
        None => client.hold(&held)?,
    };
    let fate = match hold {
        Hold::Held => hand_in(client, &held, ending, is_told_to_end, &output)?,
        Hold::HandedIn => Fate::ByItself,
        Hold::Lost(why) => {
            client.store().unlink(&output).map_err(|error| ClientError::Io { path: output, error })?;
            client.forget(&held.task)?;
            Fate::Lost(why)
        }
    };
    Ok(Worked { fate, is_told_to_end })
}

fn started(program: &Program, facts: &TaskFacts) -> Foreground {
    let told = facts.variables().into_iter().map(|(name, value)| (OsString::from(name), value));
    Foreground {
        argv: program.argv.clone(),
        // Of two of a name, the later counts.
        env: program.env.iter().cloned().chain(told).collect(),
        stdin: Some(facts.payload.clone()),
        workdir: program.workdir.clone(),
    }
}

/// How a program ended, and what happened meanwhile.
struct Seen {
    ending: Ending,
    lost: Option<String>,
    is_told_to_end: bool,
}

/// What is seen to while a program runs.
struct Watch<'a> {
    held: &'a Held,
    program: &'a Program,
    stop: &'a Receiver<()>,
}

impl Watch<'_> {
    fn until_end<S: Store>(&self, client: &Client<S>, attended: Attended) -> io::Result<Seen> {
        // Without a watch, it is noticed with the next renewal that the lock has gone.
        let watched = Watched::new(&client.layout().lock(&self.held.task)).ok();
        let mut changes = watched.as_ref().map_or_else(never, |watched| watched.hints().clone());
        let mut stop = self.stop.clone();
        let mut grace = never();
        let renewals = tick(self.program.renew_every);
        let (mut lost, mut is_told_to_end) = (None, false);
        // What happened to the lock before it was watched.
        let mut look = true;
        loop {
            if std::mem::take(&mut look) && lost.is_none() {
                // What cannot be told now is told at the next look.
                if let Ok(Hold::Lost(why)) = client.hold(self.held) {
                    attended.kill();
                    lost = Some(why);
                }
            }
            select! {
                recv(attended.ended()) -> _ => break,
                recv(changes) -> hint => {
                    look = true;
                    if hint.is_err() {
                        changes = never();
                    }
                }
                recv(renewals) -> _ => {
                    look = true;
                    // The lock lives for several renewals more.
                    let _ = client.renew(self.held);
                }
                recv(stop) -> asked => match asked {
                    Err(_) => stop = never(),
                    Ok(()) if is_told_to_end => attended.kill(),
                    Ok(()) => {
                        is_told_to_end = true;
                        attended.ask_to_end();
                        grace = after(self.program.stop_grace);
                    }
                },
                recv(grace) -> _ => attended.kill(),
            }
        }
        Ok(Seen { ending: attended.end()?, lost, is_told_to_end })
    }
}

/// Hands in what the program's end says of the task, as that of a handler would.
fn hand_in<S: Store>(
    client: &mut Client<S>,
    held: &Held,
    ending: Ending,
    is_told_to_end: bool,
    output: &Path,
) -> Result<Fate, ClientError> {
    let why = ending.to_string();
    let (verdict, handed_in) = match ending.meaning() {
        Meaning::Done => return done(client, held, output),
        _ if is_told_to_end => (Verdict::Released, client.finish(held, Verdict::Released, Some(&why), None)),
        Meaning::NothingToDo => return done(client, held, output),
        Meaning::Later => (Verdict::Retry, client.finish(held, Verdict::Retry, Some(&why), None)),
        Meaning::Permanent => (Verdict::Failed, client.fail(held, &why, Again::Never)),
        Meaning::Failed => (Verdict::Failed, client.fail(held, &why, Again::AsEver)),
    };
    in_time(handed_in, Fate::HandedIn(verdict, Some(why)))
}

fn done<S: Store>(client: &mut Client<S>, held: &Held, output: &Path) -> Result<Fate, ClientError> {
    let made = client.store().stat(output);
    let made = made.map_err(|error| ClientError::Io { path: output.into(), error })?;
    let result = made.map(|_| Output::File(output));
    match client.finish(held, Verdict::Done, None, result) {
        // No file, too large, or another's: as of a handler.
        Err(ClientError::Read { error, .. }) => {
            let why = format!("its output was refused: {error}");
            in_time(client.fail(held, &why, Again::AsEver), Fate::HandedIn(Verdict::Failed, Some(why)))
        }
        handed_in => in_time(handed_in, Fate::HandedIn(Verdict::Done, None)),
    }
}

fn in_time(handed_in: Result<(), ClientError>, fate: Fate) -> Result<Fate, ClientError> {
    match handed_in {
        Ok(()) => Ok(fate),
        Err(ClientError::TooLate { why, .. }) => Ok(Fate::Lost(why)),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
