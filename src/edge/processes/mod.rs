//! Starting, signalling, reaping and proving gone: one long-lived thread that owns all processes.
//!
//! `thread` is that thread and `worker` what it does; `spawn` makes processes, `inherited` says which descriptors
//! they must not get, `table` reads `/proc`, `identity` tells one process from another, `tree` says whose a
//! process is, `run` holds what is known of one run, `kill` ends a tree, `evidence` describes one, and
//! [`survivors`] finds what an earlier supervisor left.

mod evidence;
mod identity;
mod inherited;
mod kill;
mod run;
mod spawn;
mod survivors;
mod table;
mod thread;
mod tree;
mod worker;
mod writing;

pub use identity::{identity_of, is_gone, is_vacant, own_identity, root_of_run};
pub(in crate::edge) use spawn::explain;
pub use survivors::survivors;
pub use thread::{ChildWaker, Config, ProcessThread};

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::protocol::name::{AgentName, RunId};
use crate::protocol::process::{Ending, Identity};

/// What to start.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The run it is for; every process of it bears the id in its environment.
    pub run: RunId,
    /// Whose run it is.
    pub agent: AgentName,
    /// Program (absolute) and arguments.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// What is on standard input; nothing if absent.
    pub stdin: Option<PathBuf>,
    /// The named pipe for standard output and error, made if it is missing.
    pub output: PathBuf,
    /// The working directory, where it is not the crew (which is the supervisor's own).
    pub workdir: Option<PathBuf>,
}

/// What the process thread can be told.
#[derive(Debug, Clone)]
pub enum Order {
    /// Start a process. Answered by [`Report::Spawned`] or [`Report::SpawnFailed`].
    Spawn(Box<Launch>),
    /// Treat this process, which an earlier supervisor started, as the root of `run`.
    /// Its end is reported as [`Report::Exited`], with [`Ending::Unseen`] unless it is our own child.
    Adopt {
        /// The run.
        run: RunId,
        /// Its root process.
        root: Identity,
    },
    /// Let go of an adopted process: nothing more is reported of it, and nothing is done to it.
    Release {
        /// The run that it was adopted as.
        run: RunId,
    },
    /// Send `signal`, then CONT, to the process group of the run's root process (of an adopted run: to each
    /// process of its tree). Without effect once the root has ended. Real-time signals cannot be sent.
    Signal {
        /// The run.
        run: RunId,
        /// The signal's number.
        signal: i32,
    },
    /// Kill the run's whole tree and prove it gone. Answered by [`Report::TreeGone`] or, where that
    /// cannot be proved in 30 s, by [`Report::TreeStuck`]; then tried on, and `TreeGone` may follow.
    KillTree {
        /// The run.
        run: RunId,
    },
    /// These processes were seen in the run's tree: they count as of it even if they hide later.
    Seen {
        /// The run.
        run: RunId,
        /// Its members.
        members: Vec<Identity>,
    },
    /// Look at a run that seems to hang. Answered by [`Report::Evidence`].
    Examine {
        /// The run.
        run: RunId,
    },
}

/// What the process thread reports.
#[derive(Debug, Clone, PartialEq)]
pub enum Report {
    /// A process runs.
    Spawned {
        /// The run.
        run: RunId,
        /// Its root process.
        process: Identity,
    },
    /// A process could not be made.
    SpawnFailed {
        /// The run.
        run: RunId,
        /// Why, for a person.
        error: String,
        /// True if the file is being written (`ETXTBSY`).
        busy: bool,
    },
    /// A run's root process ended (and was reaped). Unless it was adopted, what it left behind is being killed
    /// from now on, unasked, and [`Report::TreeGone`] follows.
    Exited {
        /// The run.
        run: RunId,
        /// How.
        ending: Ending,
    },
    /// No process of the run is left.
    TreeGone {
        /// The run.
        run: RunId,
        /// What had to be killed beside the root, as `pid name`.
        killed: Vec<String>,
    },
    /// Processes of the run are left that do not die.
    TreeStuck {
        /// The run.
        run: RunId,
        /// Which, as `pid name (state)`.
        left: Vec<String>,
    },
    /// What a run that seems to hang looks like.
    Evidence {
        /// The run.
        run: RunId,
        /// State, wchan, CPU time of the tree, open files.
        evidence: serde_json::Value,
    },
}

/// A run that an earlier supervisor of this crew left behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Survivor {
    /// The run.
    pub run: RunId,
    /// The agent.
    pub agent: AgentName,
    /// The process to regard as its root: the one whose parent is not of the run, the eldest of them.
    pub root: Identity,
}

/// Who can start, signal and end processes.
pub trait Processes {
    /// Carries out an order, later and elsewhere; what comes of it is reported.
    fn order(&self, order: Order);
    /// True if some process that we may look at has this file open for writing.
    fn is_being_written(&self, path: &Path) -> bool;
    /// Nothing of a run is left: moves what it printed last to its log, and lets go of what was kept for it. True if
    /// all of that is in the log now; otherwise it is told once it is.
    fn close_run(&self, agent: &AgentName, run: &RunId) -> bool;
}
