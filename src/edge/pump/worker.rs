//! The pump's thread: waits for output and for commands, never for anything else.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crossbeam_channel::Receiver;
use rustix::buffer::spare_capacity;
use rustix::event::epoll;
use rustix::io::Errno;

use super::logfile::{Log, Note, Taken};
use super::{Limits, PumpReport};
use crate::edge::clock::{Clock, SystemClock};
use crate::protocol::layout::Layout;
use crate::protocol::name::{AgentName, RunId};

/// What the pump's thread is told.
#[derive(Debug)]
pub(super) enum Command {
    /// Pump from this pipe.
    Open { agent: AgentName, run: RunId, pipe: OwnedFd },
    /// Empty this run's pipe and remove it.
    Close { agent: AgentName, run: RunId },
    /// End the thread.
    Stop,
}

struct Pipe {
    agent: AgentName,
    run: RunId,
    end: OwnedFd,
}

/// What becomes of the thread after a round.
enum Next {
    GoOn,
    End,
}

/// The token under which epoll reports the eventfd; pipes have greater ones.
const WAKE: u64 = 0;
/// How many ready pipes are served before epoll is asked again.
const READY_MAX: usize = 64;
/// How often a pipe is emptied before it is closed. It holds 1 MiB at most, so that only a process that
/// escaped its run's end and goes on writing is cut off.
const DRAIN_ROUNDS_MAX: usize = 64;

pub(super) struct Worker<F> {
    layout: Layout,
    limits: Limits,
    clock: SystemClock,
    inbox: Receiver<Command>,
    wake: Arc<OwnedFd>,
    epoll: OwnedFd,
    null: File,
    pipes: BTreeMap<u64, Pipe>,
    logs: HashMap<AgentName, Log>,
    last_token: u64,
    deliver: F,
}

impl<F: FnMut(PumpReport)> Worker<F> {
    pub(super) fn new(
        layout: Layout,
        limits: Limits,
        inbox: Receiver<Command>,
        wake: Arc<OwnedFd>,
        deliver: F,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let null = OpenOptions::new().write(true).open("/dev/null")?;
        Ok(Self {
            layout,
            limits,
            clock: SystemClock::new(),
            inbox,
            wake,
            epoll,
            null,
            pipes: BTreeMap::new(),
            logs: HashMap::new(),
            last_token: WAKE,
            deliver,
        })
    }

    /// Every ready pipe gets one share a round, so that none that floods starves another.
    pub(super) fn run(mut self) {
        let mut ready = Vec::with_capacity(READY_MAX);
        loop {
            ready.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut ready), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    log::error!("the log pump ends, output stays in the pipes: epoll_wait: {error}");
                    return;
                }
            }
            let mut told = false;
            for event in &ready {
                match event.data.u64() {
                    WAKE => told = true,
                    token => {
                        self.serve(token);
                    }
                }
            }
            if told && matches!(self.obey(), Next::End) {
                return;
            }
        }
    }

    fn obey(&mut self) -> Next {
        // Cleared before the inbox is emptied: what is sent after that wakes us again.
        let _ = rustix::io::read(&self.wake, &mut [0_u8; 8]);
        while let Ok(command) = self.inbox.try_recv() {
            match command {
                Command::Open { agent, run, pipe } => self.open(agent, run, pipe),
                Command::Close { agent, run } => self.close(agent, run),
                Command::Stop => return Next::End,
            }
        }
        Next::GoOn
    }

    fn token_of(&self, agent: &AgentName, run: &RunId) -> Option<u64> {
        self.pipes.iter().find(|(_, pipe)| pipe.agent == *agent && pipe.run == *run).map(|(token, _)| *token)
    }

    fn open(&mut self, agent: AgentName, run: RunId, end: OwnedFd) {
        if self.token_of(&agent, &run).is_some() {
            return;
        }
        self.last_token += 1;
        let token = self.last_token;
        let added = epoll::add(&self.epoll, &end, epoll::EventData::new_u64(token), epoll::EventFlags::IN);
        if let Err(error) = added {
            let error = format!("cannot wait for output of run {run}: {error}; it is kept when the run ends");
            (self.deliver)(PumpReport::Trouble { agent: agent.clone(), error });
        }
        self.pipes.insert(token, Pipe { agent, run, end });
    }

    /// Moves one share of what is in a pipe.
    fn serve(&mut self, token: u64) -> Taken {
        let Some(pipe) = self.pipes.get(&token) else { return Taken::Nothing };
        let log = self
            .logs
            .entry(pipe.agent.clone())
            .or_insert_with(|| Log::new(&self.layout, &pipe.agent, self.limits));
        let (taken, note) = log.take(&pipe.end, &pipe.run, self.clock.now(), &self.null);
        if let Some(note) = note {
            let agent = pipe.agent.clone();
            (self.deliver)(match note {
                Note::Trouble(error) => PumpReport::Trouble { agent, error },
                Note::Recovered { dropped } => PumpReport::Recovered { agent, dropped },
            });
        }
        taken
    }

    fn close(&mut self, agent: AgentName, run: RunId) {
        if let Some(token) = self.token_of(&agent, &run) {
            for _ in 0..DRAIN_ROUNDS_MAX {
                match self.serve(token) {
                    Taken::Some => {}
                    Taken::Nothing => break,
                }
            }
            // Dropping the last descriptor takes the pipe out of the epoll set.
            self.pipes.remove(&token);
        }
        if !self.pipes.values().any(|pipe| pipe.agent == agent) {
            self.logs.remove(&agent);
        }
        let path = self.layout.pipe(&agent, &run);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::warn!("cannot remove {}: {error}", path.display());
            }
            Ok(()) | Err(_) => {}
        }
        (self.deliver)(PumpReport::Drained { agent, run });
    }
}
