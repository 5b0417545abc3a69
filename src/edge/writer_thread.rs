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
const BATCH_LEN_MAX: usize = 256;
/// How long to wait for room before trying again.
const RETRY: Duration = Duration::from_secs(2);
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
            let mut batch = Batch::new(jobs);
            if let Err(why) = self.store(&mut batch) {
                self.refuse_all(&batch, &why);
                return Err(why);
            }
        }
        Ok(())
    }

    /// Stores a batch, however long the disk is full; the reason if it cannot be stored at all.
    fn store(&mut self, batch: &mut Batch) -> Result<(), String> {
        let mut last_try = false;
        let mut waited = false;
        loop {
            match self.writer.commit(batch) {
                Ok(ended) => {
                    for done in ended {
                        (self.deliver)(WriterReport::Done(done));
                    }
                    if waited {
                        (self.deliver)(WriterReport::Recovered);
                    }
                    return Ok(());
                }
                Err(Fault::Broken(why)) => {
                    (self.deliver)(WriterReport::Broken(why.clone()));
                    return Err(why);
                }
                Err(Fault::Full(why)) if last_try => return Err(why),
                Err(Fault::Full(why)) => {
                    if !waited {
                        (self.deliver)(WriterReport::Full(why));
                        waited = true;
                    }
                    last_try = self.stopping.recv_timeout(self.retry) != Err(RecvTimeoutError::Timeout);
                }
            }
        }
    }

    /// Answers every ticket, now and until the end, that its job was not stored.
    fn refuse_all(&self, batch: &Batch, reason: &str) {
        let failed = |ticket| WriterReport::Failed { ticket, reason: reason.to_owned() };
        batch.tickets().for_each(|ticket| (self.deliver)(failed(ticket)));
        for ticket in self.queue.iter().filter_map(|job| job.ticket) {
            (self.deliver)(failed(ticket));
        }
    }
}

#[cfg(test)]
mod tests;
