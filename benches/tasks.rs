//! What a task costs: `cargo bench --bench tasks`.
//!
//! Three things are measured, on the binary itself. How many tasks of `/bin/true` a second it does, two at a time,
//! every outcome durable, beside the queues that people use for that on one machine: nq, task-spooler, and huey on
//! `SQLite`. How long after `nightcrew submit` returns a handler executes its first instruction. And what 100,000 tasks
//! that wait for somebody else cost those that are done, in time and in memory.
//!
//! Of every queue all tasks are handed in while something holds it up, and what is timed is from letting go to the last
//! task's end. Nobody else makes as much durable: nq and task-spooler nothing at all, and a power cut costs them their
//! queue; huey each task's beginning and result. All of them take turns in each round, on one machine under one load.
//! A queue that is not installed is skipped, aloud; huey is looked for in `$HUEY_PYTHON`, or `python3`.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::cast_precision_loss,
    reason = "a bench measures the world, and has nobody to report to but its reader"
)]

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::time::{ClockId, clock_gettime};

/// Of each queue and round. task-spooler cannot hold 1,000.
const TASKS: usize = 900;
const ROUNDS: usize = 5;
const AT_ONCE: usize = 2;
const SUBMISSIONS: usize = 50;
const AT_REST: usize = 100_000;
const DEADLINE: Duration = Duration::from_mins(2);
/// How often it is looked whether something came about, where nothing tells.
const PACE: Duration = Duration::from_millis(5);
const NIGHTCREW: &str = env!("CARGO_BIN_EXE_nightcrew");
/// As this verb's handler the bench says when it was started.
const SAY_WHEN: &str = "say-when";

/// A crew with one handler, two processes at a time.
struct Crew {
    dir: tempfile::TempDir,
    supervisor: Option<Child>,
    submitted: usize,
    at_rest: usize,
}

impl Crew {
    /// A crew whose handler of the kind `work` is this command.
    fn new(command: &[&str]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let crew = Self { dir, supervisor: None, submitted: 0, at_rest: 0 };
        for sub in ["agents", "marks", "staged", "state/tasks/new"] {
            fs::create_dir_all(crew.at(sub)).expect("made");
        }
        let manifest = format!("command = {command:?}\nhandles = [\"work\"]\nconcurrency = {AT_ONCE}\n");
        fs::write(crew.at("agents/worker.toml"), manifest).expect("written");
        fs::write(crew.at("nightcrew.toml"), format!("[host]\ntasks_at_once = {AT_ONCE}\n"))
            .expect("written");
        crew
    }

    fn at(&self, path: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(path)
    }

    /// Lays down tasks that wait for somebody who is not there. No supervisor runs yet.
    fn lay_at_rest(&mut self, count: usize) {
        for n in 1..=count {
            let id = format!("{n:016x}");
            let head = format!(r#"{{"v":1,"id":"{id}","token":{n},"nonce":"{n:032x}","kind":"elsewhere""#);
            let tail =
                r#""state":"ready","failures":0,"at":"2026-11-20T03:00:00Z","by":"operator","payload":{}}"#;
            fs::write(self.at(format!("state/tasks/{id}.json")), format!("{head},{tail}\n"))
                .expect("written");
        }
        let tokens = format!("{{\"v\":1,\"reserved\":{count}}}\n");
        fs::write(self.at("state/tasks/tokens"), tokens).expect("written");
        self.at_rest = count;
    }

    fn start(&mut self) {
        let log = File::create(self.at("log")).expect("a log");
        let mut command = self.nightcrew("run");
        command.env("RUST_LOG", "warn").stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.supervisor = Some(command.spawn().expect("nightcrew"));
        self.await_shown(&format!("\"tasks_open\":{}", self.at_rest));
    }

    fn nightcrew(&self, verb: &str) -> Command {
        let mut command = Command::new(NIGHTCREW);
        command.arg(verb).env("NIGHTCREW_DIR", self.dir.path());
        command
    }

    /// Waits until what the supervisor shows of itself holds this.
    fn await_shown(&self, what: &str) {
        await_some(what, || {
            fs::read_to_string(self.at("state/crew.json")).ok()?.contains(what).then_some(())
        });
    }

    /// Tasks a second. They are handed in and admitted while the crew is halted; what is timed begins when that ends.
    fn rate(&mut self, count: usize) -> f64 {
        fs::write(self.at("state/HALT"), "to hand in").expect("written");
        self.await_shown("halted: ");
        let ids: Vec<String> =
            (self.submitted..self.submitted + count).map(|n| format!("work-{n}")).collect();
        self.submitted += count;
        for id in &ids {
            let head = format!(r#"{{"v":1,"id":"{id}","token":0,"nonce":"{id}","kind":"work","#);
            let staged = self.at("staged/task");
            fs::write(&staged, format!("{head}\"at\":\"2026-11-20T03:00:00Z\",\"payload\":{{}}}}\n"))
                .expect("written");
            fs::rename(staged, self.at(format!("state/tasks/new/{id}.json"))).expect("renamed");
        }
        // A submission is removed once the admission is durable, and a record once the outcome is.
        self.await_removal("state/tasks/new", &ids);
        let begun = Instant::now();
        fs::remove_file(self.at("state/HALT")).expect("it was there");
        self.await_removal("state/tasks", &ids);
        let took = begun.elapsed();
        let is_done = |id: &&String| self.at(format!("state/tasks/done/{id}.json")).exists();
        assert_eq!(ids.iter().filter(is_done).count(), count, "each of them ended well");
        count as f64 / took.as_secs_f64()
    }

    fn await_removal(&self, dir: &str, ids: &[String]) {
        let mut left = ids.to_vec();
        await_some("a removal", || {
            while left.last().is_some_and(|id| !self.at(format!("{dir}/{id}.json")).exists()) {
                left.pop();
            }
            left.is_empty().then_some(())
        });
    }

    /// Milliseconds from the return of `nightcrew submit` to the handler's first instruction; less than none if
    /// that came first.
    fn submission(&mut self) -> f64 {
        self.submitted += 1;
        let id = format!("work-{}", self.submitted);
        let status = self.nightcrew("submit").args(["work", "--id", &id]).stdout(Stdio::null()).status();
        let returned = monotonic_ns();
        assert!(status.expect("nightcrew").success(), "a submission failed");
        let begun = await_some("a handler's first instruction", || self.mark(&id));
        let done = self.at(format!("state/tasks/done/{id}.json"));
        await_some("its end", || done.exists().then_some(()));
        (begun - returned) as f64 / 1e6
    }

    /// When the first instruction of this task's handler was, once it has said so.
    fn mark(&self, id: &str) -> Option<i64> {
        fs::read_to_string(self.at("marks").join(id)).ok()?.strip_suffix('\n')?.parse().ok()
    }

    /// The memory that is the supervisor's own, in bytes.
    fn memory(&self) -> f64 {
        let pid = self.supervisor.as_ref().map(Child::id).expect("it runs");
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("our child's memory");
        let kb = rollup
            .lines()
            .find_map(|line| line.strip_prefix("Pss_Anon:")?.split_whitespace().next()?.parse::<f64>().ok());
        kb.map_or(f64::NAN, |kb| kb * 1024.0)
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if let Some(supervisor) = self.supervisor.take() {
            end(supervisor, Signal::SIGTERM);
        }
    }
}

/// A handler, which says when its first instruction was.
fn say_when() {
    let begun = monotonic_ns();
    let variable = |name: &str| PathBuf::from(std::env::var_os(name).expect("a handler's environment"));
    let mark = variable("NIGHTCREW_DIR").join("marks").join(variable("NIGHTCREW_TASK"));
    fs::write(mark, format!("{begun}\n")).expect("written");
}

fn monotonic_ns() -> i64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

fn end(mut child: Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("it runs");
    child.wait().expect("our child");
}

fn await_some<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "{what} did not come about");
        std::thread::sleep(PACE);
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Two doors, before each of which one task waits and holds up a queue: named pipes, for what reads one waits until
/// somebody opens it for writing.
struct Doors(Vec<PathBuf>);

impl Doors {
    fn new(dir: &Path) -> Self {
        let doors: Vec<PathBuf> = (0..AT_ONCE).map(|n| dir.join(format!("door-{n}"))).collect();
        for door in &doors {
            nix::unistd::mkfifo(door, nix::sys::stat::Mode::S_IRWXU).expect("a named pipe");
        }
        Self(doors)
    }

    /// Opens them, which waits until somebody stands before each.
    fn open(self) -> Instant {
        let mut options = OpenOptions::new();
        options.write(true).custom_flags(nix::fcntl::OFlag::O_NONBLOCK.bits());
        let opened: Vec<File> = self
            .0
            .iter()
            .map(|door| await_some("a task before a door", || options.open(door).ok()))
            .collect();
        let now = Instant::now();
        drop(opened);
        now
    }
}

/// What a command printed.
fn printed(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().expect("it was found before");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// One queue does one task at a time, so there are two, with half of the tasks each.
fn nq() -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let doors = Doors::new(dir.path());
    let mut last = Vec::new();
    for (n, door) in doors.0.iter().enumerate() {
        let queue = dir.path().join(format!("queue-{n}"));
        let nq = || {
            let mut command = Command::new("nq");
            command.env("NQDIR", &queue);
            command
        };
        printed(nq().arg("cat").arg(door));
        let ids: Vec<String> = (0..TASKS / AT_ONCE).map(|_| printed(nq().arg("/bin/true"))).collect();
        let mut wait = nq();
        wait.arg("-w").args(ids.last());
        last.push(wait);
    }
    timed(doors, last)
}

fn tsp() -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let doors = Doors::new(dir.path());
    let tsp = || {
        let mut command = Command::new("tsp");
        command.env("TS_SOCKET", dir.path().join("socket")).env("TMPDIR", dir.path());
        command
    };
    printed(tsp().args(["-S", &AT_ONCE.to_string()]));
    for door in &doors.0 {
        printed(tsp().arg("cat").arg(door));
    }
    let ids: Vec<String> = (0..TASKS).map(|_| printed(tsp().arg("/bin/true"))).collect();
    let waits = ids.iter().rev().take(AT_ONCE).map(|id| {
        let mut wait = tsp();
        wait.args(["-w", id]);
        wait
    });
    let took = timed(doors, waits.collect());
    printed(tsp().arg("-K"));
    took
}

/// The tasks of huey, and its operator.
const HUEY: &str = r#"
import os, sqlite3, subprocess, time
from huey import SqliteHuey

huey = SqliteHuey(filename=os.environ["QUEUE"], fsync=True)

@huey.task()
def hold(door):
    with open(door) as file:
        return len(file.read())

@huey.task()
def work():
    return subprocess.run(["/bin/true"]).returncode

def submit(count, *doors):
    for door in doors:
        hold(door)
    for _ in range(int(count)):
        work()

def wait(count):
    results = sqlite3.connect(os.environ["QUEUE"])
    while results.execute("select count(*) from kv").fetchone()[0] < int(count):
        time.sleep(0.005)
"#;

/// A result is kept for each task, which is its durable outcome; there is nothing to wait by but asking.
fn huey() -> Duration {
    let dir = tempfile::tempdir().expect("a directory");
    let doors = Doors::new(dir.path());
    fs::write(dir.path().join("tasks.py"), HUEY).expect("written");
    let python = || {
        let mut command = Command::new(huey_python());
        command.env("QUEUE", dir.path().join("queue.db")).env("PYTHONPATH", dir.path()).stdin(Stdio::null());
        command
    };
    printed(
        python()
            .args(["-c", "import sys, tasks; tasks.submit(*sys.argv[1:])", &TASKS.to_string()])
            .args(&doors.0),
    );
    let consumer = python()
        .args([
            "-m",
            "huey.bin.huey_consumer",
            "tasks.huey",
            "-q",
            "-k",
            "process",
            "-w",
            &AT_ONCE.to_string(),
        ])
        .stderr(Stdio::null())
        .spawn()
        .expect("python");
    let mut wait = python();
    wait.args(["-c", "import sys, tasks; tasks.wait(sys.argv[1])", &(TASKS + AT_ONCE).to_string()]);
    let took = timed(doors, vec![wait]);
    end(consumer, Signal::SIGTERM);
    took
}

/// From the opening of the doors to when all these commands, which wait for the end, have ended.
fn timed(doors: Doors, waits: Vec<Command>) -> Duration {
    let waiting: Vec<Child> =
        waits.into_iter().map(|mut wait| wait.stdout(Stdio::null()).spawn().expect("found before")).collect();
    let begun = doors.open();
    for mut wait in waiting {
        assert!(wait.wait().expect("our child").success(), "waiting for the last task failed");
    }
    begun.elapsed()
}

fn huey_python() -> OsString {
    std::env::var_os("HUEY_PYTHON").unwrap_or_else(|| "python3".into())
}

fn has_huey() -> bool {
    let found = Command::new(huey_python()).args(["-c", "import huey"]).stderr(Stdio::null()).status();
    found.is_ok_and(|status| status.success())
}

fn is_on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Somebody else's queue.
struct Peer {
    name: &'static str,
    durable: &'static str,
    round: fn() -> Duration,
    rates: Vec<f64>,
}

fn peers() -> Vec<Peer> {
    let known = [
        ("nq, two queues", "nothing", nq as fn() -> Duration, is_on_path("nq"), "apt-get install nq"),
        ("task-spooler -S 2", "nothing", tsp, is_on_path("tsp"), "apt-get install task-spooler"),
        (
            "huey, SQLite, fsync",
            "results",
            huey,
            has_huey(),
            "python3 -m venv V; V/bin/pip install huey; HUEY_PYTHON=V/bin/python",
        ),
    ];
    let mut found = Vec::new();
    for (name, durable, round, is_there, how) in known {
        if is_there {
            found.push(Peer { name, durable, round, rates: Vec::new() });
        } else {
            println!("SKIPPED: {name} is not here; to compare with it: {how}");
        }
    }
    found
}

fn throughput() {
    let mut peers = peers();
    let mut crew = Crew::new(&["/bin/true"]);
    crew.start();
    let mut ours = Vec::new();
    for round in 1..=ROUNDS {
        ours.push(crew.rate(TASKS));
        for peer in &mut peers {
            peer.rates.push(TASKS as f64 / (peer.round)().as_secs_f64());
        }
        let rates: Vec<String> =
            peers.iter().filter_map(|peer| Some(format!("{:.0}", peer.rates.last()?))).collect();
        println!("round {round}: {:.0}; {}", ours.last().copied().unwrap_or(f64::NAN), rates.join(", "));
    }
    let ours = median(ours);
    println!(
        "{TASKS} tasks of /bin/true, {AT_ONCE} at a time, medians of {ROUNDS} rounds; aim: 1.0 times the best"
    );
    println!("{:<24}{:>20}{:>10}{:>22}", "", "makes durable", "tasks/s", "nightcrew is at");
    println!("{:<24}{:>20}{ours:>10.0}{:>22}", "nightcrew", "records, ledger", "-");
    for Peer { name, durable, rates, .. } in peers {
        let theirs = median(rates);
        println!("{name:<24}{durable:>20}{theirs:>10.0}{:>21.2}x", ours / theirs);
    }
}

/// The time from the return of `submit` to the handler's first instruction, and that from a plain spawn to the same,
/// which is what the machine itself takes under the load that it is under; medians in milliseconds.
fn latency() -> (f64, f64) {
    let bench = std::env::current_exe().expect("our own path");
    let mut crew = Crew::new(&[&bench.to_string_lossy(), SAY_WHEN]);
    crew.start();
    let (mut submitted, mut spawned) = (Vec::new(), Vec::new());
    for _ in 0..SUBMISSIONS {
        submitted.push(crew.submission());
        let begun = monotonic_ns();
        let mut command = Command::new(&bench);
        command.arg(SAY_WHEN).env("NIGHTCREW_DIR", crew.at("")).env("NIGHTCREW_TASK", "spawned");
        assert!(command.status().expect("ourselves").success(), "the mark was not made");
        spawned.push((crew.mark("spawned").expect("made") - begun) as f64 / 1e6);
    }
    (median(submitted), median(spawned))
}

fn main() {
    if std::env::args().nth(1).as_deref() == Some(SAY_WHEN) {
        return say_when();
    }
    throughput();
    let (submitted, spawned) = latency();

    let (mut alone, mut beside) = (Crew::new(&["/bin/true"]), Crew::new(&["/bin/true"]));
    beside.lay_at_rest(AT_REST);
    alone.start();
    beside.start();
    let bytes = (beside.memory() - alone.memory()) / AT_REST as f64;
    let (mut rates_alone, mut rates_beside) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        rates_alone.push(alone.rate(TASKS));
        rates_beside.push(beside.rate(TASKS));
    }
    let bytes_after = (beside.memory() - alone.memory()) / AT_REST as f64;
    let share = median(rates_beside) / median(rates_alone);

    println!("\n{:<46}{:>8}{:>10}{:>12}", "", "unit", "aim", "measured");
    println!("{:<46}{:>8}{:>10}{submitted:>12.2}", "submit returned to first instruction", "ms", "<= 5");
    println!("{:<46}{:>8}{:>10}{spawned:>12.2}", "a plain spawn to the same", "ms", "-");
    println!("{:<46}{:>8}{:>10}{share:>12.2}", "rate beside 100,000 waiting tasks", "x", ">= 0.8");
    println!(
        "{:<46}{:>8}{:>10}{bytes:>12.0}",
        "memory of a waiting task, after the start", "bytes", "<= 250"
    );
    println!("{:<46}{:>8}{:>10}{bytes_after:>12.0}", "the same, after the work", "bytes", "<= 250");
}
