//! System calls of one running thread that fail, or take long, for as long as a test wants.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::crew::{Crew, text_of};

/// Only ends a test that fails.
const DEADLINE: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(10);

/// An strace that has taken hold of threads. Dropping it lets them go.
pub(crate) struct Injection {
    strace: Child,
    dir: tempfile::TempDir,
}

impl Injection {
    /// Tampers with the system calls of these threads as `what` says (strace's `inject=`), from now on, and
    /// notes what else they make durable.
    pub(crate) fn into_threads(threads: &[i32], what: &str) -> Self {
        Self::into_threads_at(threads, what, None)
    }

    /// Likewise, but only with calls that name this file, where one is given.
    pub(crate) fn into_threads_at(threads: &[i32], what: &str, file: Option<&Path>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let told = File::create(dir.path().join("told")).expect("a file");
        let calls = what.split(':').next().expect("the calls");
        let mut command = Command::new("strace");
        command.arg("-o").arg(dir.path().join("calls"));
        command
            .arg("--signal=none")
            .arg(format!("--trace={calls},fsync,fdatasync"))
            .arg(format!("--inject={what}"));
        if let Some(file) = file {
            command.arg("-P").arg(file);
        }
        for thread in threads {
            command.arg("-p").arg(thread.to_string());
        }
        let strace = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(told).spawn();
        let injection = Self { strace: strace.expect("strace"), dir };
        injection.wait("it has taken hold", || injection.told().matches("attached").count() >= threads.len());
        injection
    }

    fn told(&self) -> String {
        text_of(&self.dir.path().join("told"))
    }

    /// The calls that were seen so far, as strace writes them; `INJECTED` marks those that were made to fail.
    pub(crate) fn calls(&self) -> Vec<String> {
        text_of(&self.dir.path().join("calls")).lines().map(str::to_owned).collect()
    }

    /// How many calls were made to fail so far.
    pub(crate) fn hits(&self) -> usize {
        self.calls().iter().filter(|call| call.contains("INJECTED")).count()
    }

    #[track_caller]
    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let begun = Instant::now();
        while !holds() {
            assert!(begun.elapsed() < DEADLINE, "not so: {what}: {}", self.told());
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for Injection {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.strace.id()) {
            // It lets go of its threads in order; then it is waited for, so that none is held any more.
            let _ = kill(Pid::from_raw(pid), Signal::SIGINT);
        }
        let _ = self.strace.wait();
    }
}

/// Runs a command in the crew with a fault in it; gives how it ended and how many calls were made to fail.
pub(crate) fn run_with(crew: &Crew, what: &str, args: &[&str]) -> (Output, usize) {
    let dir = tempfile::tempdir().expect("a directory");
    let calls = dir.path().join("calls");
    let (inject, out) = (format!("--inject={what}"), calls.to_str().expect("a name").to_owned());
    let trace = format!("--trace={}", what.split(':').next().expect("the calls"));
    let output = crew.nightcrew_under(&["strace", "-f", "-o", &out, &trace, &inject], args);
    (output, text_of(&calls).matches("INJECTED").count())
}

/// The threads of a process that bear this name; all, if none is given.
pub(crate) fn threads_of(pid: i32, named: Option<&str>) -> Vec<i32> {
    let tasks = PathBuf::from(format!("/proc/{pid}/task"));
    let entries = fs::read_dir(&tasks).expect("it lives");
    let threads = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_named = |thread: &i32| {
        let name = text_of(&Path::new(&tasks).join(thread.to_string()).join("comm"));
        named.is_none_or(|named| name.trim() == named)
    };
    threads.filter(is_named).collect()
}
