//! Running a program whose output goes where ours goes: in the foreground, for an operator who watches, or attended,
//! for a worker that sees to its claim meanwhile.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::store::{ReadError, Store};
use crate::protocol::process::Ending;

/// What to run.
#[derive(Debug, Clone)]
pub struct Foreground {
    /// Program (absolute) and arguments.
    pub argv: Vec<OsString>,
    /// The whole environment.
    pub env: Vec<(OsString, OsString)>,
    /// What is on standard input; nothing if absent.
    pub stdin: Option<PathBuf>,
    /// The working directory.
    pub workdir: PathBuf,
}

/// Runs a program and waits for its end.
///
/// It stays in our process group, so that the terminal's Ctrl-C reaches it as it reaches us; we outlive that,
/// to tell how it ended. What is sent to us alone (TERM, HUP) is passed on.
///
/// # Errors
/// If it could not be started or waited for.
pub fn run(what: &Foreground) -> io::Result<Ending> {
    let mut command = command(what)?;
    let passing_on = PassingOn::prepare()?;
    let mut child = command.spawn()?;
    let passing_on = passing_on.to(hold(&child).ok());
    let status = child.wait();
    passing_on.end();
    Ok(ending(status?))
}

fn command(what: &Foreground) -> io::Result<Command> {
    let Some((program, args)) = what.argv.split_first() else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "no program is named"));
    };
    let stdin = match &what.stdin {
        Some(path) => Stdio::from(std::fs::File::open(path)?),
        None => Stdio::null(),
    };
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .envs(what.env.iter().map(|(name, value)| (name, value)))
        .stdin(stdin)
        .current_dir(&what.workdir);
    Ok(command)
}

/// A descriptor of a child, not its pid: that may be another process's by the time a signal comes.
pub(super) fn hold(child: &Child) -> io::Result<OwnedFd> {
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.ok_or(io::ErrorKind::InvalidData)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// How a child that was waited for ended.
pub(super) fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Code(code),
        (None, Some(signal)) => Ending::Signal(signal),
        (None, None) => Ending::Unseen,
    }
}

/// Catches what would end us, from before a child is started until after its end.
pub(super) struct PassingOn<S> {
    handle: Handle,
    state: S,
}

/// Signals that are caught, while there is no child yet to pass them on to.
pub(super) struct Caught(Signals);

/// The thread that passes signals on, and what it has seen.
pub(super) struct Passing {
    thread: Option<JoinHandle<()>>,
    seen: Receiver<i32>,
}

impl PassingOn<Caught> {
    /// From now on INT, QUIT, TERM and HUP do not end us.
    pub(super) fn prepare() -> io::Result<Self> {
        let signals = Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP])?;
        Ok(Self { handle: signals.handle(), state: Caught(signals) })
    }

    /// Passes TERM and HUP on to this process, those that came already too.
    pub(super) fn to(self, process: Option<OwnedFd>) -> PassingOn<Passing> {
        let Self { handle, state: Caught(mut signals) } = self;
        let (sender, seen) = crossbeam_channel::unbounded();
        let thread = super::thread::spawn("nc-pass-on", move || {
            for number in signals.forever() {
                let passed = match number {
                    SIGTERM => Some(Signal::TERM),
                    SIGHUP => Some(Signal::HUP),
                    // The terminal has sent these to the whole group.
                    _ => None,
                };
                if let (Some(signal), Some(process)) = (passed, &process) {
                    // It may have ended meanwhile; then there is nobody to tell.
                    let _ = pidfd_send_signal(process.as_fd(), signal);
                }
                // Who asks no more has ended.
                let _ = sender.send(number);
            }
        });
        PassingOn { handle, state: Passing { thread: thread.ok(), seen } }
    }
}

impl PassingOn<Passing> {
    /// Ends it, and gives the last signal that came. The signals stay caught: they no longer end us.
    pub(super) fn end(mut self) -> Option<i32> {
        self.handle.close();
        super::thread::join(&mut self.state.thread);
        self.state.seen.try_iter().last()
    }
}

/// A program that runs while whoever started it sees to other things too.
///
/// It has a process group of its own, so what it is to know of the terminal's signals it has to be told. What is left
/// of the group when it ended, or when this is dropped, is killed.
#[derive(Debug)]
pub struct Attended {
    child: Child,
    group: Pid,
    ended: Receiver<()>,
    is_reaped: bool,
}

impl Attended {
    /// Starts a program.
    ///
    /// # Errors
    /// If it could not be started, or its end could not be waited for.
    pub fn start(what: &Foreground) -> io::Result<Self> {
        let child = command(what)?.process_group(0).spawn()?;
        let group = Pid::from_child(&child);
        let (ends, ended) = crossbeam_channel::bounded(0);
        let attended = Self { child, group, ended, is_reaped: false };
        let process = pidfd_open(group, PidfdFlags::empty())?;
        super::thread::spawn("nc-await-end", move || {
            let ends: Sender<()> = ends;
            while poll(&mut [PollFd::new(&process, PollFlags::IN)], None) == Err(Errno::INTR) {}
            drop(ends);
        })?;
        Ok(attended)
    }

    /// Is disconnected when the program has ended; nothing ever comes in.
    #[must_use]
    pub fn ended(&self) -> &Receiver<()> {
        &self.ended
    }

    /// Asks it to end: TERM to its group, and CONT, since what is stopped sees no TERM.
    pub fn ask_to_end(&self) {
        self.signal(Signal::TERM);
        self.signal(Signal::CONT);
    }

    /// Kills its group.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits for its end, kills what it left of its group, and says how it ended.
    ///
    /// # Errors
    /// Those of `waitpid(2)`.
    pub fn end(mut self) -> io::Result<Ending> {
        // Disconnected: it has ended.
        let _ = self.ended.recv();
        self.reap().map(ending)
    }

    fn reap(&mut self) -> io::Result<ExitStatus> {
        // Before it is reaped, for until then its group is nobody else's.
        self.kill();
        self.is_reaped = true;
        self.child.wait()
    }

    fn signal(&self, signal: Signal) {
        // Of those that have ended meanwhile nobody is left to tell.
        let _ = kill_process_group(self.group, signal);
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        if !self.is_reaped {
            let _ = self.reap();
        }
    }
}

/// The signals that ask this process to end (TERM, INT, QUIT, HUP) are caught as long as this is kept.
#[derive(Debug)]
pub struct EndSignals {
    asked: Receiver<()>,
    handle: Handle,
    thread: Option<JoinHandle<()>>,
}

/// A third request says nothing that the second did not.
const ASKED_MAX: usize = 2;

impl EndSignals {
    /// Catches them from now on.
    ///
    /// # Errors
    /// Those of `sigaction(2)`, `socketpair(2)` and `clone(2)`.
    pub fn catch() -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGQUIT, SIGTERM, SIGHUP])?;
        let handle = signals.handle();
        let (ask, asked) = crossbeam_channel::bounded(ASKED_MAX);
        let thread = super::thread::spawn("nc-end-signals", move || {
            for _ in signals.forever() {
                let _ = ask.try_send(());
            }
        })?;
        Ok(Self { asked, handle, thread: Some(thread) })
    }

    /// Where a request to end comes in.
    #[must_use]
    pub fn asked(&self) -> &Receiver<()> {
        &self.asked
    }
}

impl Drop for EndSignals {
    fn drop(&mut self) {
        self.handle.close();
        super::thread::join(&mut self.thread);
    }
}

/// Reads what a program that ran left behind, if it did; then removes it.
///
/// # Errors
/// [`ReadError`], other than that it is missing.
pub fn collect(store: &impl Store, path: &std::path::Path, max: u64) -> Result<Option<Vec<u8>>, ReadError> {
    let read = store.read(path, max);
    store.unlink(path)?;
    match read {
        Ok(blob) => Ok(Some(blob.bytes)),
        Err(ReadError::Missing) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::files::FsStore;

    fn shell(dir: &std::path::Path, script: &str, stdin: Option<PathBuf>) -> Ending {
        let argv = ["/bin/sh", "-c", script].map(OsString::from).into();
        let env = vec![("PATH".into(), "/usr/bin:/bin".into()), ("A".into(), "given".into())];
        run(&Foreground { argv, env, stdin, workdir: dir.to_path_buf() }).unwrap()
    }

    #[test]
    fn a_program_gets_what_it_is_given_and_its_end_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = FsStore::for_crew(dir.path()).unwrap();
        let payload = dir.path().join("payload");
        store.write_new(&payload, b"input", false).unwrap();
        // HOME stands for all that must not be inherited.
        let script = "printf '%s %s %s' \"$(cat)\" \"$A\" \"${HOME-none}\" >out; exit 7";
        assert_eq!(shell(dir.path(), script, Some(payload)), Ending::Code(7));
        let out = dir.path().join("out");
        assert_eq!(collect(&store, &out, 100).unwrap().unwrap(), b"input given none");
        assert_eq!(collect(&store, &out, 100).unwrap(), None, "it was taken away");
        assert_eq!(shell(dir.path(), "kill -9 $$", None), Ending::Signal(9));
        assert_eq!(shell(dir.path(), "cat", None), Ending::Code(0), "without input, it ends at once");
    }

    fn attended(dir: &std::path::Path, script: &str) -> Attended {
        let argv = ["/bin/sh", "-c", script].map(OsString::from).into();
        let env = vec![("PATH".into(), "/usr/bin:/bin".into())];
        Attended::start(&Foreground { argv, env, stdin: None, workdir: dir.to_path_buf() }).unwrap()
    }

    fn appears(path: &std::path::Path) -> String {
        let whole = || std::fs::read_to_string(path).is_ok_and(|text| text.ends_with('\n'));
        assert!(super::super::appear::look_until(path.parent().unwrap(), PATIENCE, whole).unwrap());
        std::fs::read_to_string(path).unwrap().trim().to_owned()
    }

    const PATIENCE: std::time::Duration = std::time::Duration::from_mins(1);

    #[test]
    fn an_attended_program_ends_with_all_of_its_group() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let program = attended(dir.path(), "sleep 1000 & echo $! >out; wait");
        let background: u32 = appears(&out).parse().unwrap();
        assert!(program.ended().try_recv().is_err_and(|error| error.is_empty()), "it runs");
        program.ask_to_end();
        assert_eq!(program.end().unwrap(), Ending::Signal(15));
        std::fs::remove_file(&out).unwrap();
        let leaver = attended(dir.path(), "trap '' TERM; sleep 1000 & echo $! >out; exit 3");
        let left: u32 = appears(&out).parse().unwrap();
        assert_eq!(leaver.end().unwrap(), Ending::Code(3));
        std::fs::remove_file(&out).unwrap();
        let dropped = attended(dir.path(), "echo $$ >out; exec sleep 1000");
        let gone: u32 = appears(&out).parse().unwrap();
        drop(dropped);
        for pid in [background, left, gone] {
            // Each was sent KILL, which takes a moment.
            while !super::super::processes::is_vacant(pid) {
                std::thread::yield_now();
            }
        }
    }

    #[test]
    fn a_program_that_cannot_be_started_is_an_error() {
        let nothing = Foreground { argv: vec![], env: vec![], stdin: None, workdir: "/".into() };
        assert!(run(&nothing).is_err());
        assert!(run(&Foreground { argv: vec!["/no/such".into()], ..nothing }).is_err());
    }
}
