//! Running a program for what it prints, as a shell's `$(…)` does: in our process group, environment and directory.
//!
//! What counts is what it has printed by its end. The pipe is not read to its end of file, because a process that it
//! leaves behind may hold it open for ever.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{MemfdFlags, OFlags, fcntl_setfl, memfd_create};
use rustix::io::Errno;

use super::foreground::{PassingOn, ending, hold};
use crate::protocol::process::Ending;

/// How much is read at once.
const CHUNK_LEN: usize = 64 * 1024;

/// What a program has on its standard input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input<'a> {
    /// What we have on ours.
    Ours,
    /// Nothing.
    Nothing,
    /// These bytes.
    Bytes(&'a [u8]),
}

/// What came of a program.
#[derive(Debug, PartialEq, Eq)]
pub struct Captured {
    /// How it ended.
    pub ending: Ending,
    /// What it had printed by then.
    pub output: Vec<u8>,
    /// It printed more than it may, and what follows was not taken: it got EPIPE, or SIGPIPE.
    pub overflowed: bool,
    /// We were told by this signal to end while it ran; it was told too.
    pub interrupted: Option<i32>,
}

/// Why nothing is known of what a program did.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// It was never started.
    #[error("{0}")]
    NotStarted(io::Error),
    /// It was started, and lost sight of.
    #[error("it was started and then lost sight of: {0}")]
    Lost(io::Error),
}

/// Runs a program and gives what it prints, at most `max` bytes; its standard error is ours. INT, QUIT, TERM and HUP
/// do not end us from here on: TERM and HUP are passed on to it, the others it has got by the terminal.
///
/// # Errors
/// [`CaptureError`]
pub fn capture(argv: &[OsString], input: Input<'_>, max: u64) -> Result<Captured, CaptureError> {
    let (child, passing_on) = start(argv, input).map_err(CaptureError::NotStarted)?;
    let mut child = child;
    let held = hold(&child);
    let passing_on = passing_on.to(held.as_ref().ok().and_then(|held| held.try_clone().ok()));
    let drained = match (child.stdout.take(), held) {
        (Some(pipe), Ok(process)) => drain(pipe, process.as_fd(), max),
        (_, Err(error)) => Err(error),
        (None, Ok(_)) => Err(io::ErrorKind::BrokenPipe.into()),
    };
    // Where its output could not be read, the pipe is closed by now, so that it does not wait for us.
    let status = child.wait();
    let interrupted = passing_on.end();
    let (output, overflowed) = drained.map_err(CaptureError::Lost)?;
    let ending = ending(status.map_err(CaptureError::Lost)?);
    Ok(Captured { ending, output, overflowed, interrupted })
}

fn start(argv: &[OsString], input: Input<'_>) -> io::Result<(Child, PassingOn<super::foreground::Caught>)> {
    let (program, args) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let input = match input {
        Input::Ours => Stdio::inherit(),
        Input::Nothing => Stdio::null(),
        Input::Bytes(bytes) => in_memory(bytes)?.into(),
    };
    let passing_on = PassingOn::prepare()?;
    let child = Command::new(program).args(args).stdin(input).stdout(Stdio::piped()).spawn()?;
    Ok((child, passing_on))
}

/// A file of these bytes that lies nowhere.
fn in_memory(bytes: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("input", MemfdFlags::CLOEXEC)?);
    file.write_all(bytes)?;
    file.rewind()?;
    Ok(file)
}

/// Reads what comes until the process has ended and nothing is left in the pipe; and whether more came than `max`.
fn drain(mut pipe: ChildStdout, process: BorrowedFd<'_>, max: u64) -> io::Result<(Vec<u8>, bool)> {
    fcntl_setfl(&pipe, OFlags::NONBLOCK)?;
    let (mut output, mut chunk) = (Vec::new(), vec![0; CHUNK_LEN]);
    let mut ended = false;
    loop {
        match pipe.read(&mut chunk) {
            Ok(0) => return Ok((output, false)),
            Ok(len) => {
                output.extend_from_slice(&chunk[..len]);
                if output.len() as u64 > max {
                    return Ok((output, true));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if ended {
                    return Ok((output, false));
                }
                ended = wait(pipe.as_fd(), process)?;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Waits until there is something to read or the process has ended; true for the latter.
fn wait(pipe: BorrowedFd<'_>, process: BorrowedFd<'_>) -> io::Result<bool> {
    let mut both =
        [PollFd::from_borrowed_fd(pipe, PollFlags::IN), PollFd::from_borrowed_fd(process, PollFlags::IN)];
    loop {
        match poll(&mut both, None) {
            Ok(_) => return Ok(!both[1].revents().is_empty()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::processes::{identity_of, is_gone};

    const MAX: u64 = 1024 * 1024;

    fn shell(script: &str, input: Input<'_>, max: u64) -> Captured {
        capture(&["sh", "-c", script].map(OsString::from), input, max).unwrap()
    }

    fn printed(output: &[u8], code: i32) -> Captured {
        Captured { ending: Ending::Code(code), output: output.into(), overflowed: false, interrupted: None }
    }

    #[test]
    fn what_a_program_prints_is_had_byte_for_byte_and_its_end_is_told() {
        assert_eq!(shell("printf 'a\\000b'; exit 7", Input::Nothing, MAX), printed(b"a\0b", 7));
        assert_eq!(shell("kill -9 $$", Input::Nothing, MAX).ending, Ending::Signal(9));
        assert_eq!(shell("cat", Input::Nothing, MAX), printed(b"", 0));
        let large: Vec<u8> = (0..MAX).map(|n| u8::try_from(n % 251).unwrap()).collect();
        assert_eq!(shell("cat", Input::Bytes(&large), MAX), printed(&large, 0));
    }

    #[test]
    fn more_than_may_be_ends_it() {
        let got = shell("while :; do echo yes; done", Input::Nothing, 1000);
        assert!(got.overflowed && got.ending != Ending::Code(0), "{:?}", got.ending);
    }

    #[test]
    fn a_process_that_holds_the_output_is_not_waited_for() {
        let got = shell("sleep 30 & echo $!", Input::Nothing, MAX);
        let pid: i32 = String::from_utf8(got.output).unwrap().trim().parse().unwrap();
        let identity = identity_of(pid.unsigned_abs()).unwrap();
        assert!(!is_gone(&identity), "it was waited for");
        let left = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(left, rustix::process::Signal::KILL).unwrap();
        assert_eq!(got.ending, Ending::Code(0));
    }

    #[test]
    fn what_cannot_be_started_is_told_from_what_was() {
        for argv in [vec![], vec![OsString::from("/no/such")]] {
            assert!(matches!(capture(&argv, Input::Nothing, MAX), Err(CaptureError::NotStarted(_))));
        }
    }
}
