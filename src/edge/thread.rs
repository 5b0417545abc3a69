//! How helper threads are made: named, and with small stacks.

use std::io;
use std::thread::{Builder, JoinHandle};

/// The stack of a helper thread, in bytes. They nest little, and there are several.
const STACK_LEN: usize = 256 * 1024;

/// Starts a named thread.
///
/// # Errors
/// Those of `clone(2)`: no memory, or too many processes.
pub fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    Builder::new().name(name.to_owned()).stack_size(STACK_LEN).spawn(work)
}

/// Waits for a helper thread that was told to end.
pub fn join(handle: &mut Option<JoinHandle<()>>) {
    if let Some(handle) = handle.take()
        && handle.join().is_err()
    {
        log::error!("a helper thread ended by a panic");
    }
}
