//! What a fleet of 35 idle agents costs: `cargo bench --bench fleet`.
//!
//! Each agent is a sh script that execs one small static program, which touches the file it is given and then sleeps.
//! That touch is the successor's "first instruction" of every measure: its time is the file's mtime, so that looking for it
//! costs what is measured nothing. Waiting for it polls, in this process alone and never while CPU time is measured.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::cast_precision_loss,
    reason = "a bench measures the world, and has nobody to report to but its reader"
)]

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const AGENTS: usize = 35;
const RUNS: usize = 7;
/// Three times 20 s: everything is looked at each 30 s, and a single 20 s may or may not hold one of these looks.
const IDLE: Duration = Duration::from_mins(1);
const DEADLINE: Duration = Duration::from_secs(30);
const NIGHTCREW: &str = env!("CARGO_BIN_EXE_nightcrew");

/// Touches its argument, then sleeps for ever.
const PROGRAM: &str = r#"
fn main() {
    let file = std::env::args_os().nth(1).expect("a file");
    std::fs::write(file, std::process::id().to_string()).expect("written");
    loop {
        std::thread::sleep(std::time::Duration::from_secs(1 << 30));
    }
}
"#;

/// A crew of idle agents, and where their marks are.
struct Fleet {
    dir: tempfile::TempDir,
}

impl Fleet {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join("agents")).expect("agents/");
        fs::create_dir(dir.path().join("marks")).expect("marks/");
        let fleet = Self { dir };
        fleet.build_program();
        for n in 0..AGENTS {
            let script = fleet.script(n);
            let text = format!("#!/bin/sh\nexec {} {}\n", fleet.program().display(), fleet.mark(n).display());
            fs::write(&script, text).expect("written");
            fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
        }
        fleet
    }

    fn build_program(&self) {
        let source = self.dir.path().join("idle.rs");
        fs::write(&source, PROGRAM).expect("written");
        let status = Command::new("rustc")
            .args(["--edition=2024", "-O", "-C", "panic=abort", "-C", "target-feature=+crt-static", "-o"])
            .args([&self.program(), &source])
            .status()
            .expect("rustc is beside cargo");
        assert!(status.success(), "the idle program does not build");
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("idle")
    }

    fn script(&self, n: usize) -> PathBuf {
        self.dir.path().join("agents").join(format!("agent-{n}.sh"))
    }

    fn mark(&self, n: usize) -> PathBuf {
        self.dir.path().join("marks").join(n.to_string())
    }

    fn clear_marks(&self) {
        for n in 0..AGENTS {
            // The first time there is none.
            let _ = fs::remove_file(self.mark(n));
        }
    }

    /// Starts the supervisor; gives it and the time until the last agent's first instruction.
    fn start(&self) -> (Child, f64) {
        self.clear_marks();
        // What an earlier run recorded is no part of the measure.
        let _ = fs::remove_dir_all(self.dir.path().join("state"));
        let log = File::create(self.dir.path().join("log")).expect("a log");
        let begun = SystemTime::now();
        let supervisor = Command::new(NIGHTCREW)
            .arg("run")
            .env("NIGHTCREW_DIR", self.dir.path())
            .env("RUST_LOG", "warn")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nightcrew");
        (supervisor, self.last_mark_since(begun))
    }

    fn last_mark_since(&self, begun: SystemTime) -> f64 {
        let marks = (0..AGENTS).map(|n| self.await_mark(n, None).1);
        marks.map(|at| since(begun, at)).fold(0.0, f64::max)
    }

    /// Waits for a mark by another process than `before`; gives its pid and time.
    fn await_mark(&self, n: usize, before: Option<i32>) -> (i32, i128) {
        let path = self.mark(n);
        await_some("an agent's first instruction", || {
            let pid = fs::read_to_string(&path).ok()?.parse().ok().filter(|pid| Some(*pid) != before)?;
            let mark = fs::metadata(&path).ok()?;
            Some((pid, i128::from(mark.mtime()) * 1_000_000_000 + i128::from(mark.mtime_nsec())))
        })
    }

    /// Kills each agent once; the time of each to its successor's first instruction.
    fn kill_each(&self) -> Vec<f64> {
        let each = (0..AGENTS).map(|n| {
            let (pid, _) = self.await_mark(n, None);
            let begun = SystemTime::now();
            kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it runs");
            since(begun, self.await_mark(n, Some(pid)).1)
        });
        each.collect()
    }

    /// The same 35 scripts, spawned and waited for by nobody but this loop: what the system calls alone cost.
    fn raw(&self) -> (f64, f64) {
        self.clear_marks();
        let begun = SystemTime::now();
        let spawn = |n| Command::new(self.script(n)).stdin(Stdio::null()).spawn().expect("it starts");
        let mut children: Vec<Child> = (0..AGENTS).map(spawn).collect();
        let start = self.last_mark_since(begun);
        let ended = Instant::now();
        for child in &children {
            kill(pid_of(child), Signal::SIGTERM).expect("it runs");
        }
        for child in &mut children {
            child.wait().expect("our child");
        }
        (start, ms(ended.elapsed()))
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid"))
}

fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

fn since(begun: SystemTime, at_ns: i128) -> f64 {
    let begun = begun.duration_since(UNIX_EPOCH).expect("after 1970").as_nanos();
    (at_ns - i128::try_from(begun).expect("before 10^21 years")) as f64 / 1e6
}

fn await_some<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "{what} did not come about");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// The proportional share of memory of a process, in MB.
fn pss_mb(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("our child's memory");
    let kb =
        rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.split_whitespace().next()?.parse().ok());
    kb.map_or(f64::NAN, |kb: f64| kb / 1024.0)
}

/// CPU time of all threads of a process, in nanoseconds.
fn cpu_ns(pid: u32) -> u64 {
    let tasks =
        fs::read_dir(Path::new("/proc").join(pid.to_string()).join("task")).expect("our child's threads");
    let of_thread = |path: PathBuf| -> Option<u64> {
        fs::read_to_string(path.join("schedstat")).ok()?.split_whitespace().next()?.parse().ok()
    };
    tasks.filter_map(|task| of_thread(task.ok()?.path())).sum()
}

fn term(mut supervisor: Child) -> f64 {
    let begun = Instant::now();
    kill(pid_of(&supervisor), Signal::SIGTERM).expect("it runs");
    supervisor.wait().expect("our child");
    ms(begun.elapsed())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn main() {
    let fleet = Fleet::new();
    let (mut starts, mut restarts, mut ends, mut raw_starts, mut raw_ends) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..RUNS {
        let (supervisor, start) = fleet.start();
        starts.push(start);
        restarts.extend(fleet.kill_each());
        ends.push(term(supervisor));
        let (start, end) = fleet.raw();
        raw_starts.push(start);
        raw_ends.push(end);
    }
    let (supervisor, _) = fleet.start();
    // The first seconds belong to the start.
    std::thread::sleep(Duration::from_secs(3));
    let before = cpu_ns(supervisor.id());
    std::thread::sleep(IDLE);
    let idle_ppm = (cpu_ns(supervisor.id()) - before) as f64 / IDLE.as_nanos() as f64 * 1e6;
    let pss = pss_mb(supervisor.id());
    term(supervisor);

    let rows = [
        ("start of all", "ms", 40.0, median(starts), Some(median(raw_starts))),
        ("PSS of the supervisor", "MB", 4.0, pss, None),
        ("idle CPU, 3 x 20 s", "ppm", 100.0, idle_ppm, None),
        ("kill -9 to successor", "ms", 2.0, median(restarts), None),
        ("TERM to nothing left", "ms", 12.0, median(ends), Some(median(raw_ends))),
    ];
    println!("{AGENTS} idle agents, medians of {RUNS} runs; raw: the same scripts by posix_spawn alone");
    println!("{:<24}{:>6}{:>10}{:>12}{:>10}{:>8}", "", "unit", "aim", "measured", "raw", "ratio");
    for (what, unit, aim, measured, raw) in rows {
        let raw_text = raw.map_or_else(|| "-".into(), |raw| format!("{raw:.2}"));
        let ratio = raw.map_or_else(|| "-".into(), |raw| format!("{:.2}", measured / raw));
        println!("{what:<24}{unit:>6}{aim:>10.1}{measured:>12.2}{raw_text:>10}{ratio:>8}");
    }
}
