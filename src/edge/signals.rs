//! Signals to the supervisor, as events.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::iterator::{Handle, Signals as Incoming};

use super::thread;

/// Has a write beyond the limit of file sizes (`RLIMIT_FSIZE`) fail with `EFBIG`, as any other failure of the disk,
/// instead of ending this process by SIGXFSZ. What is started from here gets the signal's default again.
///
/// # Errors
/// Those of `sigaction(2)`.
pub fn outlive_file_size_limit() -> io::Result<()> {
    // A handler that does next to nothing, because an ignored signal would stay ignored in what is executed.
    signal_hook::flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalEvent {
    /// TERM or INT: drain and end; a second time: at once.
    Stop,
    /// HUP: look at everything again.
    Rescan,
}

/// The thread that waits for signals. Dropping it ends the thread; the signals are ignored from then on.
#[derive(Debug)]
pub struct Signals {
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

impl Signals {
    /// Catches TERM, INT and HUP for `deliver`, and CHLD for `on_child`. Neither may block for long.
    /// Several signals of a kind may arrive as one: `on_child` must reap until no child is left to reap.
    ///
    /// # Errors
    /// Those of `sigaction(2)`, `socketpair(2)` and `clone(2)`.
    pub fn start(
        mut deliver: impl FnMut(SignalEvent) + Send + 'static,
        mut on_child: impl FnMut() + Send + 'static,
    ) -> io::Result<Self> {
        let mut incoming = Incoming::new([SIGTERM, SIGINT, SIGHUP, SIGCHLD])?;
        let handle = incoming.handle();
        let thread = thread::spawn("signals", move || {
            for signal in incoming.forever() {
                match signal {
                    SIGCHLD => on_child(),
                    SIGHUP => deliver(SignalEvent::Rescan),
                    _ => deliver(SignalEvent::Stop),
                }
            }
        })?;
        Ok(Self { handle, thread: Some(thread) })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
        thread::join(&mut self.thread);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;

    /// The one test that signals this process: handlers are global to it.
    #[test]
    fn signals_become_events() {
        let (sender, events) = crossbeam_channel::unbounded();
        let (child_sender, children) = crossbeam_channel::unbounded();
        let signals = Signals::start(
            move |event| sender.send(event).unwrap_or_default(),
            move || child_sender.send(()).unwrap_or_default(),
        )
        .unwrap();
        let wait = Duration::from_secs(20);
        for (signal, event) in [
            (Signal::HUP, SignalEvent::Rescan),
            (Signal::TERM, SignalEvent::Stop),
            (Signal::INT, SignalEvent::Stop),
        ] {
            kill_process(getpid(), signal).unwrap();
            assert_eq!(events.recv_timeout(wait), Ok(event));
        }
        kill_process(getpid(), Signal::CHILD).unwrap();
        children.recv_timeout(wait).unwrap();
        drop(signals);
        assert!(events.recv_timeout(wait).is_err(), "the thread let go of its sender");
    }
}
