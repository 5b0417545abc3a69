//! The steward's thread: it sleeps on its channel and wakes for a hint, for what it promised to look at
//! again, and at least every 30 s, because hints are only hints.

use std::collections::BTreeSet;
use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{Fault, Steward, Turn};
use crate::edge::clock::Clock;
use crate::edge::store::Store;
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Key};
use crate::protocol::time::Mono;

/// How often all queues are looked at without a hint, in milliseconds.
pub const RESCAN_MS: u64 = 30_000;
/// How many hints may wait. Where more come, one look at everything stands for them.
const HINTS_MAX: usize = 1024;
/// How long a full channel may keep the end waiting.
const STOP_PATIENCE: Duration = Duration::from_secs(10);
/// How many turns the flush at the end may take, each of up to [`super::BATCH_MAX`] updates.
const FLUSH_TURNS_MAX: u32 = 4096;

/// What the steward tells the loop.
#[derive(Debug)]
pub enum StewardReport {
    /// A turn ended.
    Turn {
        /// What is to be recorded.
        facts: Vec<Fact>,
        /// The keys whose values changed.
        changed: Vec<Key>,
        /// True if no update waits, as far as was looked.
        queue_empty: bool,
    },
    /// The disk is full: nothing more is applied until it is not; tried again by itself.
    Full(String),
    /// The storage failed: nothing more is applied until the next start.
    Broken(String),
    /// The thread has ended; nothing comes after this.
    Stopped,
}

enum Message {
    Hint(AgentName),
    Rescan,
    Stop,
}

/// A handle on the running steward.
pub struct StewardThread {
    messages: Sender<Message>,
    thread: JoinHandle<()>,
}

impl StewardThread {
    /// Starts the thread. Its first turn recovers, and looks at every queue.
    ///
    /// # Errors
    /// Those of starting a thread.
    pub fn start<S, C, F>(steward: Steward<S>, clock: C, deliver: F) -> io::Result<Self>
    where
        S: Store,
        C: Clock + Send + 'static,
        F: Fn(StewardReport) + Send + 'static,
    {
        let (messages, inbox) = bounded(HINTS_MAX);
        let worker = Worker { steward, clock, deliver, inbox, told: Telling::default() };
        let thread = std::thread::Builder::new().name("steward".into()).spawn(move || worker.run())?;
        Ok(Self { messages, thread })
    }

    /// Says that something may have changed in an agent's queue. Never blocks.
    pub fn hint(&self, agent: AgentName) {
        // Where the channel is full, the thread sees that it was and looks at everything.
        let _ = self.messages.try_send(Message::Hint(agent));
    }

    /// Has all queues looked at. Never blocks.
    pub fn rescan(&self) {
        let _ = self.messages.try_send(Message::Rescan);
    }

    /// Asks it to apply what is queued and to end, which [`StewardReport::Stopped`] will tell. Waits a
    /// moment where the channel is full, but no longer for a thread that a dead disk holds.
    pub fn stop(&self) {
        // A thread that has ended already needs no asking.
        let _ = self.messages.send_timeout(Message::Stop, STOP_PATIENCE);
    }

    /// Waits for the end of a thread that was asked to stop.
    ///
    /// # Errors
    /// What it panicked with.
    pub fn join(self) -> std::thread::Result<()> {
        drop(self.messages);
        self.thread.join()
    }
}

/// What woke the thread.
enum Wake {
    Hints(BTreeSet<AgentName>),
    Everything,
    Stop,
}

struct Worker<S: Store, C, F> {
    steward: Steward<S>,
    clock: C,
    deliver: F,
    inbox: Receiver<Message>,
    told: Telling,
}

impl<S: Store, C: Clock, F: Fn(StewardReport)> Worker<S, C, F> {
    fn run(mut self) {
        let mut wake = Wake::Everything;
        let mut rescan_at = self.clock.now().mono.plus(RESCAN_MS);
        loop {
            let now = self.clock.now().mono;
            let turn = match wake {
                Wake::Hints(agents) => self.steward.turn(now, Some(&Vec::from_iter(agents))),
                Wake::Everything => {
                    rescan_at = now.plus(RESCAN_MS);
                    self.steward.turn(now, None)
                }
                Wake::Stop => break,
            };
            let next_at = match (turn.more, turn.look_again_in_ms) {
                (true, _) => now,
                (false, Some(ms)) => now.plus(ms).min(rescan_at),
                (false, None) => rescan_at,
            };
            self.report(turn);
            wake = self.wait(next_at, rescan_at);
        }
        self.flush();
        (self.deliver)(StewardReport::Stopped);
    }

    fn wait(&self, next_at: Mono, rescan_at: Mono) -> Wake {
        let wait_ms = next_at.since(self.clock.now().mono);
        let first = match self.inbox.recv_timeout(Duration::from_millis(wait_ms)) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) if self.clock.now().mono >= rescan_at => return Wake::Everything,
            Err(RecvTimeoutError::Timeout) => return Wake::Hints(BTreeSet::new()),
            Err(RecvTimeoutError::Disconnected) => return Wake::Stop,
        };
        let mut agents = BTreeSet::new();
        let mut everything = false;
        // Hints of one burst are one look. As many as fit in the channel mean that some may not have fitted.
        for (count, message) in
            std::iter::once(first).chain(self.inbox.try_iter()).take(HINTS_MAX).enumerate()
        {
            match message {
                Message::Hint(agent) => drop(agents.insert(agent)),
                Message::Rescan => everything = true,
                Message::Stop => return Wake::Stop,
            }
            everything |= count + 1 == HINTS_MAX;
        }
        if everything || self.clock.now().mono >= rescan_at { Wake::Everything } else { Wake::Hints(agents) }
    }

    fn flush(&mut self) {
        for _ in 0..FLUSH_TURNS_MAX {
            let turn = self.steward.turn(self.clock.now().mono, None);
            let done = !turn.more;
            self.report(turn);
            if done {
                return;
            }
        }
    }

    fn report(&mut self, turn: Turn) {
        self.told.tell(turn, &self.deliver);
    }
}

/// What was reported last, so that nothing is said over and over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Said {
    #[default]
    Nothing,
    Empty,
    Waiting,
    Full,
    Broken,
}

/// Turns made into reports, without saying anything over and over.
#[derive(Debug, Default)]
pub struct Telling(Said);

impl Telling {
    /// Tells what is new in a turn.
    pub fn tell(&mut self, turn: Turn, mut deliver: impl FnMut(StewardReport)) {
        let Turn { facts, changed, queue_empty, fault, .. } = turn;
        let state = if queue_empty { Said::Empty } else { Said::Waiting };
        let quiet = facts.is_empty() && changed.is_empty() && (fault.is_some() || self.0 == state);
        if !quiet {
            deliver(StewardReport::Turn { facts, changed, queue_empty });
        }
        let said = match &fault {
            None => state,
            Some(Fault::Full(_)) => Said::Full,
            Some(Fault::Broken(_)) => Said::Broken,
        };
        match fault {
            Some(Fault::Full(why)) if self.0 != Said::Full => deliver(StewardReport::Full(why)),
            Some(Fault::Broken(why)) if self.0 != Said::Broken => deliver(StewardReport::Broken(why)),
            Some(Fault::Full(_) | Fault::Broken(_)) | None => {}
        }
        self.0 = said;
    }
}
