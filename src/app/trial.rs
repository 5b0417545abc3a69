//! Trying an agent out: once, in the foreground, as a supervisor would run it, but for its task.
//!
//! Nothing in `tasks/` is touched: payload, result and heartbeat lie in the agent's `tmp/` and are removed
//! afterwards. Its memory updates and what it does to the world are real.

use std::io;
use std::path::PathBuf;

use crate::edge::foreground::{self, Foreground};
use crate::edge::store::{ReadError, Store};
use crate::protocol::name::RunId;
use crate::protocol::process::Ending;
use crate::protocol::record::OUTPUT_LEN_MAX;
use crate::protocol::task;

use super::catalog::Offer;
use super::environment::{Inputs, TaskFacts, environment};
use super::survey::Survey;

/// What came of a trial.
#[derive(Debug)]
pub struct Tried {
    /// How the agent ended.
    pub ending: Ending,
    /// The result that a handler made.
    pub output: Option<Vec<u8>>,
}

/// Why an agent could not be tried.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It could not be started.
    #[error("{program} cannot be started: {error}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        error: io::Error,
    },
    /// Its result cannot be read.
    #[error("{path}: the result cannot be read: {error}")]
    Output {
        /// The file.
        path: PathBuf,
        /// Why.
        error: ReadError,
    },
}

/// Runs `offer` once, as the run `run`; a handler gets `payload`.
///
/// # Errors
/// [`TrialError`]
pub fn run(survey: &Survey, offer: &Offer, run: &RunId, payload: Option<&[u8]>) -> Result<Tried, TrialError> {
    let Survey { store, layout, .. } = survey;
    let at = |path: PathBuf| move |error| TrialError::Io { path, error };
    for dir in layout.directories_of(&offer.agent) {
        store.create_dir(&dir).map_err(at(dir.clone()))?;
    }
    let (payload_file, output) = (layout.payload(&offer.agent, run), layout.trial_output(&offer.agent, run));
    let heartbeat = layout.trial_heartbeat(&offer.agent, run);
    let facts = match (payload, offer.manifest.handles.first()) {
        (Some(payload), Some(kind)) => {
            store.write_new(&payload_file, payload, false).map_err(at(payload_file.clone()))?;
            Some(TaskFacts {
                slot: None,
                changed: Vec::new(),
                needs: None,
                fallback: false,
                task: task::id_from_payload(kind, payload),
                // No task has it: whatever is handed in with it is refused.
                token: 0,
                nonce: run.to_string(),
                failures: 0,
                payload: payload_file.clone(),
                output: output.clone(),
            })
        }
        _ => None,
    };
    let env = environment(&Inputs {
        layout,
        agent: &offer.agent,
        run,
        manifest: &offer.manifest,
        crew_file: &survey.terms.crew_file,
        dot_env: &offer.dot_env,
        env_file: &offer.env_file,
        inherited: &survey.terms.inherited,
        binary_dir: &survey.terms.binary_dir,
        heartbeat: &heartbeat,
        task: facts.as_ref(),
    });
    let ending = foreground::run(&Foreground {
        argv: offer.argv.clone(),
        env,
        stdin: facts.is_some().then(|| payload_file.clone()),
        workdir: offer.workdir.clone().unwrap_or_else(|| layout.crew().to_path_buf()),
    });
    for path in [payload_file, heartbeat] {
        store.unlink(&path).map_err(at(path.clone()))?;
    }
    let result = foreground::collect(store, &output, OUTPUT_LEN_MAX);
    let ending = ending.map_err(|error| TrialError::Start { program: offer.file.clone(), error })?;
    let output = result.map_err(|error| TrialError::Output { path: output, error })?;
    Ok(Tried { ending, output })
}
