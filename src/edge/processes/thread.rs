//! The thread that owns all processes: what others hold of it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::Sender;
use rustix::event::EventfdFlags;

use super::worker::Worker;
use super::{Order, Processes, Report};

/// The stack of the thread. Its deepest work is formatting evidence; the kernel gives pages only as used.
const STACK_LEN: usize = 256 << 10;
/// What the process thread needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The crew's directory, exactly as agents get it in `NIGHTCREW_DIR`.
    pub crew: PathBuf,
    /// Our own binary, which can act as the launcher.
    pub launcher: PathBuf,
}

/// What comes to the thread.
#[derive(Debug)]
pub(super) enum Message {
    /// Something to do.
    Order(Order),
    /// End, and leave the processes as they are.
    Stop,
}

/// The thread that starts, signals, reaps and ends processes. Dropping it ends the thread and leaves the
/// processes as they are.
///
/// A process has at most one: it reaps *all* children of the process it runs in, and makes that process a
/// child subreaper.
#[derive(Debug)]
pub struct ProcessThread {
    // Not bounded, because a bounded one could block the sender while this thread, delivering a report,
    // is blocked by the sender. What bounds it is that each run has a handful of orders in its life.
    orders: Sender<Message>,
    waker: ChildWaker,
    thread: Option<JoinHandle<()>>,
}

/// Tells the process thread that a child may have changed state. Waking it many times before it looks
/// is the same as waking it once.
#[derive(Debug, Clone)]
pub struct ChildWaker {
    event: Arc<OwnedFd>,
}

impl ChildWaker {
    /// To be called after each SIGCHLD. It never blocks.
    pub fn wake(&self) {
        // The counter is full only if the thread is awake already.
        let _ = rustix::io::write(&self.event, &1_u64.to_ne_bytes());
    }

    /// The descriptor that is readable after a wake.
    pub(super) fn event(&self) -> &OwnedFd {
        &self.event
    }

    /// Makes it unreadable until the next wake.
    pub(super) fn clear(&self) {
        let _ = rustix::io::read(&self.event, &mut [0; 8]);
    }
}

impl ProcessThread {
    /// Makes this process a child subreaper and starts the thread. Reports are given to `deliver`, on the
    /// thread; while it blocks, no child is reaped.
    ///
    /// # Errors
    /// Those of `prctl(2)`, `eventfd(2)` and of starting a thread.
    pub fn start(
        config: Config,
        deliver: impl Fn(Report) + Send + 'static,
    ) -> io::Result<(Self, ChildWaker)> {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let event = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let waker = ChildWaker { event: Arc::new(event) };
        let (orders, received) = crossbeam_channel::unbounded();
        let worker = Worker::new(config, deliver, received, waker.clone());
        let thread = std::thread::Builder::new()
            .name("processes".into())
            .stack_size(STACK_LEN)
            .spawn(move || worker.run())?;
        Ok((Self { orders, waker: waker.clone(), thread: Some(thread) }, waker))
    }

    fn send(&self, message: Message) {
        if self.orders.send(message).is_err() {
            log::error!("the process thread has ended: an order to it is lost");
        }
        self.waker.wake();
    }
}

impl Processes for ProcessThread {
    fn order(&self, order: Order) {
        self.send(Message::Order(order));
    }
    fn is_being_written(&self, path: &std::path::Path) -> bool {
        super::writing::is_open_for_writing(path)
    }
    fn close_run(
        &self,
        _agent: &crate::protocol::name::AgentName,
        _run: &crate::protocol::name::RunId,
    ) -> bool {
        // A run is forgotten here as soon as its tree is reported gone.
        true
    }
}

impl Drop for ProcessThread {
    fn drop(&mut self) {
        self.send(Message::Stop);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            log::error!("the process thread ended by a panic");
        }
    }
}
