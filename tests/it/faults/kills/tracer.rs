//! Follows a program and its threads from system call to system call, and kills it at one of them.
//!
//! The kill comes when the call is entered, and the kernel then leaves it out. What a thread leaves between two of
//! its calls is what it left before the second; so the kills before each of its calls are all the kills there are,
//! as far as files can tell.
//!
//! strace can inject a signal too, but counts to N in every thread and kills with the first that gets there: the
//! later calls of the writer are out of its reach as soon as another thread makes more of the same kind. Here a
//! [`Point`] names its thread. And only threads are followed, not what the program starts.

use std::collections::BTreeMap;
use std::ffi::c_long;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::calls;

/// A moment in the life of a program: a thread is about to make a call of this kind for the nth time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) call: c_long,
    pub(super) thread: String,
    pub(super) nth: u32,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} of thread {}", calls::name(self.call), self.nth, self.thread)
    }
}

/// How often each thread made each call that has to do with files.
#[derive(Debug, Clone, Default)]
pub(super) struct Counts(BTreeMap<(c_long, String), u32>);

impl Counts {
    /// Every point there was.
    pub(super) fn points(&self) -> Vec<Point> {
        let all = self.0.iter().flat_map(|((call, thread), count)| {
            (1..=*count).map(|nth| Point { call: *call, thread: thread.clone(), nth })
        });
        all.collect()
    }
}

/// How a program that was followed ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// At the point.
    Killed,
    /// By itself, with this code; the point was not reached.
    Exited(i32),
    /// By a signal that was not the tracer's.
    Signalled(Signal),
}

#[derive(Debug)]
pub(super) struct Trace {
    pub(super) counts: Counts,
    pub(super) end: End,
}

/// What `sh -c` does until the tracer has hold of it: `$0` is the program.
pub(super) const HELD_BACK: &str = r#"read -r go; exec "$0" "$@""#;

/// The name that the kernel has for it.
const SHELL: &str = "sh";

/// Follows what `command` becomes, a shell that runs [`HELD_BACK`], until its end; kills it at `point`. `begun` is
/// told its pid before it is let go.
///
/// # Errors
/// If this machine does not let one process trace another.
#[expect(clippy::zombie_processes, reason = "the tracer waits for it, as for all of its threads")]
pub(super) fn follow(
    command: &mut Command,
    point: Option<&Point>,
    begun: impl FnOnce(Pid),
) -> Result<Trace, Errno> {
    let mut child = command.stdin(Stdio::piped()).spawn().expect("a shell");
    let root = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC
        | Options::PTRACE_O_EXITKILL;
    if let Err(errno) = ptrace::seize(root, options) {
        // It waits for its line and has done nothing yet.
        let _ = child.kill();
        let _ = child.wait();
        return Err(errno);
    }
    begun(root);
    child.stdin.take().expect("a pipe").write_all(b"go\n").expect("the shell reads");
    Ok(Tracer {
        root,
        point,
        threads: BTreeMap::new(),
        names: BTreeMap::new(),
        has_begun: false,
        shot: false,
    }
    .run())
}

/// A thread that is followed.
#[derive(Default)]
struct Thread {
    /// Between the entry of a call and its exit.
    inside: bool,
    /// Known from its first call on that has to do with files.
    name: Option<String>,
    counts: BTreeMap<c_long, u32>,
}

struct Tracer<'a> {
    root: Pid,
    point: Option<&'a Point>,
    threads: BTreeMap<Pid, Thread>,
    /// How many threads bore each name: the second "x" is told as "x#2".
    names: BTreeMap<String, u32>,
    has_begun: bool,
    shot: bool,
}

impl Tracer<'_> {
    fn run(mut self) -> Trace {
        let end = loop {
            // Other tests wait for their own children in other threads of this process.
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
            match waitpid(Pid::from_raw(-1), Some(flags)) {
                Ok(WaitStatus::PtraceSyscall(tid)) => {
                    let thread = self.threads.entry(tid).or_default();
                    thread.inside = !thread.inside;
                    if thread.inside {
                        self.entered(tid);
                    }
                    self.go_on(tid, None);
                }
                Ok(WaitStatus::PtraceEvent(tid, _, libc::PTRACE_EVENT_EXEC)) => {
                    // The program begins here, in the midst of the call that made it; unless it is the shell that
                    // does, of which a part of its beginning may be seen.
                    self.has_begun = name_of(self.root, tid) != SHELL;
                    self.threads.entry(tid).or_default().inside = true;
                    self.go_on(tid, None);
                }
                Ok(WaitStatus::PtraceEvent(tid, ..)) => self.go_on(tid, None),
                Ok(WaitStatus::Stopped(tid, signal)) => self.go_on(tid, Some(signal)),
                Ok(WaitStatus::Exited(pid, code)) if pid == self.root => break End::Exited(code),
                Ok(WaitStatus::Signaled(pid, ..)) if pid == self.root && self.shot => break End::Killed,
                Ok(WaitStatus::Signaled(pid, signal, _)) if pid == self.root => break End::Signalled(signal),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => panic!("waiting for what is traced: {errno}"),
            }
        };
        let mut counts = Counts::default();
        for Thread { name, counts: own, .. } in self.threads.into_values() {
            let name = name.unwrap_or_default();
            counts.0.extend(own.into_iter().map(|(call, count)| ((call, name.clone()), count)));
        }
        Trace { counts, end }
    }

    /// A thread is about to make a call.
    fn entered(&mut self, tid: Pid) {
        let Some(call) = call_of(self.root, tid).filter(|call| !calls::is_none_of_files(*call)) else {
            return;
        };
        let root = self.root;
        let thread = self.threads.entry(tid).or_default();
        let name = thread.name.get_or_insert_with(|| {
            let comm = name_of(root, tid);
            let bearers = self.names.entry(comm.clone()).or_default();
            *bearers += 1;
            if *bearers == 1 { comm } else { format!("{comm}#{bearers}") }
        });
        let nth = thread.counts.entry(call).or_default();
        *nth += 1;
        if self.point.is_some_and(|point| point.call == call && point.nth == *nth && point.thread == *name) {
            kill(self.root, Signal::SIGKILL).expect("what is traced can be killed");
            self.shot = true;
        }
    }

    /// Lets a thread go on: to its next call, once the program has begun.
    fn go_on(&self, tid: Pid, signal: Option<Signal>) {
        // One that was killed meanwhile is not there any more; its end is reported like any other.
        let _ = if self.has_begun { ptrace::syscall(tid, signal) } else { ptrace::cont(tid, signal) };
    }
}

/// The number of the call that a stopped thread is about to make; `None` if it was killed meanwhile.
fn call_of(pid: Pid, tid: Pid) -> Option<c_long> {
    loop {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{tid}/syscall")).ok()?;
        // It has said that it stops, and may take a moment to.
        if text.trim() != "running" {
            return text.split(' ').next()?.parse().ok();
        }
    }
}

fn name_of(pid: Pid, tid: Pid) -> String {
    let comm = fs::read_to_string(format!("/proc/{pid}/task/{tid}/comm"));
    comm.unwrap_or_default().trim().to_owned()
}
