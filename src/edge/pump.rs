//! The log pump: one thread that moves what runs print from their named pipes to their agents' logs.
//!
//! A run holds its pipe open for reading and writing, so that it is never told of our death
//! (`SIGPIPE`) and what it printed waits in the pipe, up to the pipe's 64 KiB, for the next supervisor.
//! We hold ours open both ways too: then the kernel never calls the pipe ended, whatever of the run's
//! tree closes it, and nothing here ever waits for an end. That a run's output is complete is told from
//! outside, by [`Pump::close`], once its whole tree is gone.
//!
//! `splice(2)` takes bytes out of the pipe and puts them into the log in one system call. A kill of
//! the supervisor at any point loses none, where a read and a write would lose what lies between them.

mod logfile;
mod tail;
#[cfg(test)]
mod tests;
mod worker;

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use nix::sys::stat::Mode;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::OFlags;

use self::worker::{Command, Worker};
use super::thread;
use crate::protocol::layout::Layout;
use crate::protocol::name::{AgentName, RunId};

pub use self::tail::last_lines;

/// What the pump reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PumpReport {
    /// All that a run printed is in its agent's log, and its pipe is gone.
    Drained {
        /// The agent.
        agent: AgentName,
        /// The run.
        run: RunId,
    },
    /// An agent's output cannot be kept. It is thrown away, so that the agent does not hang.
    Trouble {
        /// The agent.
        agent: AgentName,
        /// What went wrong, with the path, and what to do.
        error: String,
    },
    /// An agent's output is kept again.
    Recovered {
        /// The agent.
        agent: AgentName,
        /// How many bytes were thrown away.
        dropped: u64,
    },
}

/// When a log is rotated, in bytes of it or of its index.
#[derive(Debug, Clone, Copy)]
struct Limits {
    log_len: u64,
    index_len: u64,
}

const LIMITS: Limits = Limits { log_len: 50 * 1024 * 1024, index_len: 50 * 1024 * 1024 };

/// The pump. Dropping it ends its thread; what is still in the pipes stays there.
#[derive(Debug)]
pub struct Pump {
    layout: Layout,
    // Unbounded, because a bounded one could block the loop while the pump's thread waits to report to
    // it. It holds at most two commands for each live run.
    commands: Sender<Command>,
    wake: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Pump {
    /// Starts the pump's thread. `deliver` may block; the logs then wait.
    ///
    /// # Errors
    /// Those of `epoll_create(2)`, `eventfd(2)`, `clone(2)` and of opening `/dev/null`.
    pub fn start(layout: Layout, deliver: impl FnMut(PumpReport) + Send + 'static) -> io::Result<Self> {
        Self::start_with(layout, LIMITS, deliver)
    }

    fn start_with(
        layout: Layout,
        limits: Limits,
        deliver: impl FnMut(PumpReport) + Send + 'static,
    ) -> io::Result<Self> {
        let (commands, inbox) = crossbeam_channel::unbounded();
        let wake = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
        let worker = Worker::new(layout.clone(), limits, inbox, Arc::clone(&wake), deliver)?;
        let thread = thread::spawn("log pump", move || worker.run())?;
        Ok(Self { layout, commands, wake, thread: Some(thread) })
    }

    /// Makes the run's pipe unless it is there, opens our end and pumps from now on. A second call for
    /// the same run changes nothing.
    ///
    /// # Errors
    /// Those of `mkfifo(3)` and `open(2)`; `InvalidInput` if something else lies in the pipe's place.
    pub fn open(&self, agent: &AgentName, run: &RunId) -> io::Result<()> {
        let path = self.layout.pipe(agent, run);
        match nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(()) | Err(nix::errno::Errno::EEXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let pipe = open_pipe(&path)?;
        self.tell(Command::Open { agent: agent.clone(), run: run.clone(), pipe });
        Ok(())
    }

    /// The run's tree is gone: moves what is left in its pipe without waiting for more, removes the
    /// pipe and reports [`PumpReport::Drained`], also for a run whose pipe was never opened.
    pub fn close(&self, agent: &AgentName, run: &RunId) {
        self.tell(Command::Close { agent: agent.clone(), run: run.clone() });
    }

    /// Takes over the pipes that an earlier supervisor left: one that no process holds any more has lost
    /// its content and is removed; one that is held is pumped from now on, and given back. Whoever
    /// calls must [`close`](Self::close) these in time, like any other.
    ///
    /// # Errors
    /// Those of listing the directory of logs. A single pipe that cannot be had is logged and left.
    pub fn adopt_leftovers(&self) -> io::Result<Vec<(AgentName, RunId)>> {
        let mut held = Vec::new();
        for entry in fs::read_dir(self.layout.logs())? {
            let entry = entry?;
            let Some((agent, run)) = entry.file_name().to_str().and_then(Layout::pipe_owner) else {
                continue;
            };
            let path = entry.path();
            let taken = match is_held(&path) {
                Ok(true) => self.open(&agent, &run).map(|()| held.push((agent, run))),
                Ok(false) => fs::remove_file(&path),
                Err(error) => Err(error),
            };
            if let Err(error) = taken {
                log::warn!("cannot take over {}: {error}", path.display());
            }
        }
        Ok(held)
    }

    fn tell(&self, command: Command) {
        // Both can fail only if the thread is gone, which it is not before `drop`; and a full eventfd
        // counter wakes as well as a rising one.
        let _ = self.commands.send(command);
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.tell(Command::Stop);
        thread::join(&mut self.thread);
    }
}

fn open_pipe(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?);
    if file.metadata()?.file_type().is_fifo() {
        Ok(file.into())
    } else {
        let what = format!("{} is no named pipe; move it away", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidInput, what))
    }
}

/// Whether a process has the pipe open. Opening for writing without waiting fails with `ENXIO` exactly
/// if nobody has it open for reading; and a run has it open both ways.
fn is_held(path: &Path) -> io::Result<bool> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::open(path, flags, rustix::fs::Mode::empty()) {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::NXIO) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
