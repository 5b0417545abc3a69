//! The thread that drives the [`Writer`]: group commit, waiting out a full disk, shutdown.
//!
//! While one batch is being made durable the next gathers in the queue, so the busier it is the more
//! records share one fsync. The thread waits for jobs, for room on the disk and for nothing else.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use super::log::Fault;
use super::store::Store;
use super::writer::{Batch, Done, Job, Ticket, Writer};

/// The most jobs that may wait.
pub const QUEUE_LEN_MAX: usize = 65_536;
/// The most jobs in one commit.
pub const BATCH_LEN_MAX: usize = 256;
/// How long to wait for room before trying again.
pub const RETRY: Duration = Duration::from_secs(2);
/// The thread needs no more than a few frames of file work.
const STACK_LEN: usize = 256 * 1024;

/// What the writer thread reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WriterReport {
    /// A job ended.
    Done(Done),
    /// There is no room: jobs wait. Said once until [`WriterReport::Recovered`].
    Full(String),
    /// There is room again, and what waited is stored.
    Recovered,
    /// The disk failed: nothing is stored any more until a restart. Said once.
    Broken(String),
    /// The job of this ticket was not stored, and will not be.
    Failed {
        /// Which.
        ticket: Ticket,
        /// Why.
        reason: String,
    },
}

/// The writer thread ended with something not stored, and not acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum Unfinished {
    /// It was not done in time, and is left behind.
    #[error("the disk did not take what was still to be written in {0:?}")]
    Late(Duration),
    /// The disk was full, or failed.
    #[error("{0}")]
    Refused(String),
}

/// A running writer thread.
pub struct WriterThread {
    jobs: Sender<Job>,
    stop: Sender<()>,
    ended: Receiver<()>,
    thread: JoinHandle<Result<(), String>>,
}

impl WriterThread {
    /// Starts the thread. `deliver` is called on it.
    ///
    /// # Errors
    /// Those of `pthread_create(3)`.
    pub fn start<S: Store>(
        writer: Writer<S>,
        deliver: impl Fn(WriterReport) + Send + 'static,
    ) -> std::io::Result<Self>
    where
        S::File: 'static,
    {
        Self::start_retrying(writer, deliver, RETRY)
    }

    fn start_retrying<S: Store>(
        writer: Writer<S>,
        deliver: impl Fn(WriterReport) + Send + 'static,
        retry: Duration,
    ) -> std::io::Result<Self>
    where
        S::File: 'static,
    {
        // A bounded channel would reserve and touch all of its 8 MB now; `push` keeps the bound.
        let (jobs, queue) = crossbeam_channel::unbounded();
        let (stop, stopping) = crossbeam_channel::bounded(0);
        let (ending, ended) = crossbeam_channel::bounded(0);
        let thread =
            thread::Builder::new().name("writer".to_owned()).stack_size(STACK_LEN).spawn(move || {
                let ended = Driver { writer, deliver, queue, stopping, retry }.run();
                // Dropped last, so that `finish` knows.
                drop(ending);
                ended
            })?;
        Ok(Self { jobs, stop, ended, thread })
    }

    /// Hands over a job, without waiting for anything. One that somebody waits for, or that others build on, is
    /// never turned away: each task and each file has one at a time, and those bound them.
    ///
    /// # Errors
    /// The job, if [`QUEUE_LEN_MAX`] wait already or the thread has ended.
    pub fn push(&self, job: Job) -> Result<(), Job> {
        let dispensable = job.ticket.is_none() && job.before.is_empty();
        if dispensable && self.jobs.len() >= QUEUE_LEN_MAX {
            return Err(job);
        }
        self.jobs.send(job).map_err(|refused| refused.0)
    }

    /// Has all that was handed over written, and ends the thread. What a full disk holds up is tried
    /// once more and then reported as [`WriterReport::Failed`].
    ///
    /// # Errors
    /// [`Unfinished`], if that takes longer than `patience`, or something could not be stored.
    pub fn finish(self, patience: Duration) -> Result<(), Unfinished> {
        let Self { jobs, stop, ended, thread } = self;
        drop(jobs);
        drop(stop);
        match ended.recv_timeout(patience) {
            Err(RecvTimeoutError::Timeout) => Err(Unfinished::Late(patience)),
            // It has nothing left to do but to return.
            Ok(()) | Err(RecvTimeoutError::Disconnected) => thread
                .join()
                .unwrap_or_else(|_| Err("the writer ended by a panic".to_owned()))
                .map_err(Unfinished::Refused),
        }
    }
}

/// What came of trying to store a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Attempt {
    /// All of it is stored, or refused job by job.
    Ended,
    /// There is no room: try again later.
    Full(String),
    /// Nothing can be stored any more.
    Broken(String),
}

/// A batch on its way to the disk, and what is told of it: the thread without its waiting.
pub struct Storing {
    batch: Batch,
    waited: bool,
}

impl Storing {
    /// Nothing of these jobs has been done.
    #[must_use]
    pub fn new(jobs: Vec<Job>) -> Self {
        Self { batch: Batch::new(jobs), waited: false }
    }

    /// Tries to store the batch, from where the last try ended.
    pub fn attempt<S: Store>(
        &mut self,
        writer: &mut Writer<S>,
        mut deliver: impl FnMut(WriterReport),
    ) -> Attempt {
        if mutant!(AcknowledgedFirst) {
            for ticket in self.batch.tickets() {
                deliver(WriterReport::Done(Done::Stored(ticket)));
            }
        }
        match writer.commit(&mut self.batch) {
            Ok(ended) => {
                for done in ended {
                    deliver(WriterReport::Done(done));
                }
                if self.waited {
                    deliver(WriterReport::Recovered);
                }
                Attempt::Ended
            }
            Err(Fault::Broken(why)) => {
                deliver(WriterReport::Broken(why.clone()));
                Attempt::Broken(why)
            }
            Err(Fault::Full(why)) => {
                if !self.waited {
                    deliver(WriterReport::Full(why.clone()));
                    self.waited = true;
                }
                Attempt::Full(why)
            }
        }
    }

    /// Tells that nothing of it is stored, nor will be.
    pub fn refuse(&self, reason: &str, deliver: impl FnMut(WriterReport)) {
        refuse(self.batch.tickets(), reason, deliver);
    }
}

fn refuse(tickets: impl Iterator<Item = Ticket>, reason: &str, deliver: impl FnMut(WriterReport)) {
    tickets.map(|ticket| WriterReport::Failed { ticket, reason: reason.to_owned() }).for_each(deliver);
}

struct Driver<S: Store, D> {
    writer: Writer<S>,
    deliver: D,
    queue: Receiver<Job>,
    stopping: Receiver<()>,
    retry: Duration,
}

impl<S: Store, D: Fn(WriterReport)> Driver<S, D> {
    fn run(mut self) -> Result<(), String> {
        while let Ok(first) = self.queue.recv() {
            let mut jobs = vec![first];
            jobs.extend(self.queue.try_iter().take(BATCH_LEN_MAX - 1));
            let mut storing = Storing::new(jobs);
            if let Err(why) = self.store(&mut storing) {
                // Every ticket is answered, now and until the end.
                storing.refuse(&why, &self.deliver);
                refuse(self.queue.iter().filter_map(|job| job.ticket), &why, &self.deliver);
                return Err(why);
            }
        }
        Ok(())
    }

    /// Stores a batch, however long the disk is full; the reason if it cannot be stored at all.
    fn store(&mut self, storing: &mut Storing) -> Result<(), String> {
        let mut last_try = false;
        loop {
            match storing.attempt(&mut self.writer, &self.deliver) {
                Attempt::Ended => return Ok(()),
                Attempt::Broken(why) => return Err(why),
                Attempt::Full(why) if last_try => return Err(why),
                Attempt::Full(_) => {
                    last_try = self.stopping.recv_timeout(self.retry) != Err(RecvTimeoutError::Timeout);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
