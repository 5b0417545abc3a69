//! A crew in a directory of its own, and the binary under test working it.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use nightcrew::protocol::layout::Layout;
use nightcrew::protocol::ledger::{Entry, Fact};
use nightcrew::protocol::name::{AgentName, Name, TaskId};
use nightcrew::protocol::status::{AgentStatus, CrewStatus, Standing};
use nightcrew::protocol::variables::ENV_DIR;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Generous: it only ends a test that fails.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often evidence is looked for.
const LOOK: Duration = Duration::from_millis(10);
/// The binary under test.
const NIGHTCREW: &str = env!("CARGO_BIN_EXE_nightcrew");
/// How much of the supervisor's log a failure shows.
const TOLD_LINES: usize = 60;

/// A crew. Dropping it ends the supervisor and whatever else of the crew still runs.
pub(crate) struct Crew {
    /// What goes with it; a directory that was there before stays.
    _dir: Option<tempfile::TempDir>,
    pub(crate) layout: Layout,
    supervisor: Option<Child>,
    starts: u32,
}

impl Crew {
    pub(crate) fn new() -> Self {
        Self::below(&std::env::temp_dir())
    }

    /// A crew in a new directory below `parent`, which may be a file system of its own.
    pub(crate) fn below(parent: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("crew").tempdir_in(parent).expect("a directory");
        let root = dir.path().canonicalize().expect("it is there");
        let layout = Layout::new(root);
        fs::create_dir(layout.agents()).expect("agents/");
        Self { _dir: Some(dir), layout, supervisor: None, starts: 0 }
    }

    /// The crew in a directory that is there already.
    pub(crate) fn at(root: &Path) -> Self {
        let root = root.canonicalize().expect("it is there");
        Self { _dir: None, layout: Layout::new(root), supervisor: None, starts: 0 }
    }

    /// A copy of all there is of a crew, in a directory of its own.
    pub(crate) fn copy_of(other: &Self) -> Self {
        let copy = Self::new();
        let mut command = Command::new("cp");
        command.arg("-a").arg(other.path(".")).arg(copy.layout.crew());
        assert!(command.status().expect("cp").success(), "it is copied");
        copy
    }

    /// Puts an executable into `agents/`, whole or not at all: as anybody should.
    pub(crate) fn agent(&self, file: &str, text: &str) -> &Self {
        self.file_with_mode(file, text, 0o755)
    }

    pub(crate) fn file_with_mode(&self, file: &str, text: &str, mode: u32) -> &Self {
        self.put(&self.layout.agents().join(file), text, mode)
    }

    /// Puts a file there, whole or not at all.
    pub(crate) fn put(&self, path: &Path, text: &str, mode: u32) -> &Self {
        let temp = self.path("made.new");
        let mut written = File::create(&temp).expect("a file");
        written.write_all(text.as_bytes()).expect("written");
        drop(written);
        fs::set_permissions(&temp, fs::Permissions::from_mode(mode)).expect("chmod");
        fs::rename(&temp, path).expect("renamed");
        self
    }

    /// A service that runs until it is stopped.
    pub(crate) fn sleeper(&self, name: &str) -> &Self {
        self.agent(&format!("{name}.sh"), "#!/bin/sh\nexec sleep 1000\n")
    }

    pub(crate) fn remove_agent(&self, file: &str) {
        fs::remove_file(self.layout.agents().join(file)).expect("removed");
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.layout.crew().join(below)
    }

    pub(crate) fn scratch(&self, agent: &str, file: &str) -> PathBuf {
        self.layout.scratch(&name(agent)).join(file)
    }

    pub(crate) fn start(&mut self) {
        self.start_with(&[]);
    }

    /// Starts the supervisor, and waits until it holds the crew.
    pub(crate) fn start_with(&mut self, args: &[&str]) {
        self.spawn_supervisor(args, &[]);
        self.eventually("the supervisor's start is in the ledger", || {
            let starts = self.count(|fact| matches!(fact, Fact::SupervisorStarted { .. }));
            starts >= self.starts as usize
        });
    }

    /// Starts the supervisor with more in its environment, and waits for nothing.
    pub(crate) fn spawn_supervisor(&mut self, args: &[&str], env: &[(&str, &str)]) {
        self.spawn_supervisor_under(&[], args, env);
    }

    /// Likewise, as the child of a program that changes its world (`strace …`, `prlimit …`); the pid that is known
    /// is then that program's, unless it becomes the supervisor.
    pub(crate) fn spawn_supervisor_under(&mut self, under: &[&str], args: &[&str], env: &[(&str, &str)]) {
        self.starts += 1;
        let log = OpenOptions::new().create(true).append(true).open(self.log()).expect("a log");
        let words: Vec<&str> = under.iter().copied().chain([NIGHTCREW, "run"]).collect();
        let child = self
            .command(words[0])
            .args(&words[1..])
            .args(args)
            .envs(env.iter().copied())
            .stdout(log.try_clone().expect("a descriptor"))
            .stderr(log)
            // Signals of the terminal are the test runner's business, not the crew's.
            .process_group(0)
            .spawn()
            .expect("the supervisor");
        self.supervisor = Some(child);
    }

    /// A command in the crew's directory, which names the crew.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(self.layout.crew()).env(ENV_DIR, self.layout.crew()).stdin(Stdio::null());
        command.env("RUST_LOG", "info").env_remove("NIGHTCREW_RUN").env_remove("NIGHTCREW_AGENT");
        command
    }

    /// The binary under test, in the crew's directory, as a shell that awaits with `script` that it may begin:
    /// `$0` is the binary.
    pub(crate) fn awaiting(&self, script: &str) -> Command {
        let mut command = self.command("sh");
        // Cargo sets it for its own, and makes the loader look in many places.
        command.args(["-c", script, NIGHTCREW]).process_group(0).env_remove("LD_LIBRARY_PATH");
        command
    }

    /// Runs a command of an operator: bounded, because what should be refused may run on instead.
    pub(crate) fn nightcrew(&self, args: &[&str]) -> Output {
        self.nightcrew_under(&[], args)
    }

    /// Likewise, as the child of a program that changes its world.
    pub(crate) fn nightcrew_under(&self, under: &[&str], args: &[&str]) -> Output {
        let limit = DEADLINE.as_secs().to_string();
        let mut command = self.command("timeout");
        let command = command.args(["--signal=KILL", &limit]).args(under).arg(NIGHTCREW).args(args);
        command.output().expect("it runs")
    }

    /// Runs a command of an operator that must succeed; gives what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.nightcrew(args);
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "nightcrew {args:?}: {}\n{told}{}", output.status, self.told());
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Submits a task and gives its id.
    pub(crate) fn submit(&self, kind: &str, payload: &str) -> TaskId {
        let told: Value = serde_json::from_str(&self.ok(&["submit", kind, payload, "--json"])).expect("JSON");
        told["task"].as_str().and_then(|id| id.parse().ok()).expect("an id")
    }

    /// A process of the crew that is no agent's: a shell command run in its environment.
    pub(crate) fn outsider(&self, program: &str, args: &[&str]) -> Outsider {
        Outsider(self.command(program).args(args).spawn().expect("it starts"))
    }

    /// A shell script of an operator's, in which `$0` is the binary under test.
    pub(crate) fn script(&self, script: &str) -> Outsider {
        Outsider(self.awaiting(script).spawn().expect("it starts"))
    }

    /// Waits until `holds`; if it never does, fails and tells all there is to know.
    #[track_caller]
    pub(crate) fn eventually(&self, what: &str, mut holds: impl FnMut() -> bool) {
        self.await_some(what, || holds().then_some(()));
    }

    /// Waits until `probe` finds what it looks for.
    #[track_caller]
    pub(crate) fn await_some<T>(&self, what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
        let begun = Instant::now();
        loop {
            if let Some(found) = probe() {
                return found;
            }
            assert!(begun.elapsed() < DEADLINE, "not so within {DEADLINE:?}: {what}\n{}", self.told());
            std::thread::sleep(LOOK);
        }
    }

    /// Waits for a fact in the ledger and gives what `pick` makes of it.
    #[track_caller]
    pub(crate) fn fact<T>(&self, what: &str, mut pick: impl FnMut(&Fact) -> Option<T>) -> T {
        self.await_some(what, || self.ledger().iter().find_map(&mut pick))
    }

    /// All that the ledger says, in order. What is not whole yet is left out.
    pub(crate) fn ledger(&self) -> Vec<Fact> {
        let Ok(entries) = fs::read_dir(self.layout.ledger()) else { return Vec::new() };
        let mut segments: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.file_name().and_then(OsStr::to_str).and_then(Layout::segment_seq).is_some())
            .collect();
        segments.sort();
        let mut facts = Vec::new();
        for segment in segments {
            let text = fs::read_to_string(&segment).unwrap_or_default();
            let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            facts.extend(
                lines
                    .filter(|line| line.contains("\"event\":"))
                    .map(|line| serde_json::from_str::<Entry>(line).expect("an entry of the ledger").fact),
            );
        }
        facts
    }

    pub(crate) fn count(&self, is: impl Fn(&Fact) -> bool) -> usize {
        self.ledger().iter().filter(|fact| is(fact)).count()
    }

    /// The supervisor's view of an agent.
    pub(crate) fn status(&self, agent: &str) -> Option<AgentStatus> {
        self.status_of(&name(agent))
    }

    pub(crate) fn status_of(&self, agent: &AgentName) -> Option<AgentStatus> {
        serde_json::from_slice(&fs::read(self.layout.status(agent)).ok()?).ok()
    }

    /// The supervisor's view of the whole.
    pub(crate) fn crew_status(&self) -> Option<CrewStatus> {
        serde_json::from_slice(&fs::read(self.layout.crew_status()).ok()?).ok()
    }

    pub(crate) fn stands(&self, agent: &str) -> Option<Standing> {
        self.status(agent).map(|status| status.state)
    }

    /// The pid of an agent's run, if one runs.
    pub(crate) fn pid(&self, agent: &str) -> Option<i32> {
        let status = self.status(agent).filter(|status| status.state == Standing::Running)?;
        let pid = status.runs.first()?.process.as_ref()?.pid;
        i32::try_from(pid).ok().filter(|pid| is_alive(*pid))
    }

    /// Waits until an agent runs, as another process than `before`; gives its pid.
    #[track_caller]
    pub(crate) fn running(&self, agent: &str, before: Option<i32>) -> i32 {
        self.await_some(&format!("{agent} runs, and not as {before:?}"), || {
            self.pid(agent).filter(|pid| Some(*pid) != before)
        })
    }

    /// The record of a task that ended well.
    pub(crate) fn is_done(&self, task: &TaskId) -> bool {
        self.path("state/tasks/done").join(format!("{task}.json")).exists()
    }

    /// The stored value of a key.
    pub(crate) fn value(&self, key: &str) -> Option<Value> {
        serde_json::from_slice(&fs::read(self.layout.value(&key.parse().ok()?)).ok()?).ok()
    }

    /// The pid of the supervisor.
    pub(crate) fn supervisor(&self) -> i32 {
        self.supervisor.as_ref().map(|child| pid_of(child.id())).expect("it was started")
    }

    pub(crate) fn signal_supervisor(&self, signal: Signal) {
        send(self.supervisor(), signal);
    }

    /// Waits for the supervisor's own end.
    #[track_caller]
    pub(crate) fn supervisors_end(&mut self) -> ExitStatus {
        let mut child = self.supervisor.take().expect("it was started");

        self.await_some("the supervisor ends", || child.try_wait().expect("a child of ours"))
    }

    /// Ends the crew as an operator would.
    #[track_caller]
    pub(crate) fn term(&mut self) -> ExitStatus {
        self.signal_supervisor(Signal::SIGTERM);
        self.supervisors_end()
    }

    /// Ends the crew, which must go in good order and leave nothing running.
    #[track_caller]
    pub(crate) fn ends_well(&mut self) {
        let status = self.term();
        assert!(status.success(), "the supervisor ended with {status}\n{}", self.told());
        self.leaves_nothing();
    }

    /// Fails if a process of the crew runs.
    #[track_caller]
    pub(crate) fn leaves_nothing(&self) {
        let left = self.processes();
        assert!(left.is_empty(), "left running: {left:?}\n{}", self.told());
    }

    /// Every process that bears the crew's marker.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let mut marker = format!("{ENV_DIR}=").into_bytes();
        marker.extend_from_slice(self.layout.crew().as_os_str().as_bytes());
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
        pids.filter(|pid| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == marker)
        })
        .map(|pid| {
            let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            (pid, String::from_utf8_lossy(&command).replace('\0', " "))
        })
        .collect()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.path("supervisor.output")
    }

    /// All that helps to understand a failure.
    pub(crate) fn told(&self) -> String {
        let mut text = String::new();
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = &lines[lines.len().saturating_sub(TOLD_LINES)..];
        let _ = writeln!(text, "--- supervisor\n{}", last.join("\n"));
        let facts = self.ledger();
        let _ = writeln!(text, "--- ledger, {} facts", facts.len());
        for fact in facts.iter().skip(facts.len().saturating_sub(TOLD_LINES)) {
            let _ = writeln!(text, "{fact}");
        }
        let status = self.nightcrew(&["status"]);
        let _ = writeln!(text, "--- status\n{}", String::from_utf8_lossy(&status.stdout));
        text
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        if let Some(mut child) = self.supervisor.take() {
            // It may have ended by itself; either way it is gone after this.
            let _ = child.kill();
            let _ = child.wait();
        }
        // Killing one may let another fork first: until none is found, but not for ever.
        for _ in 0..100 {
            let left = self.processes();
            if left.is_empty() {
                return;
            }
            for (pid, _) in left {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            std::thread::sleep(LOOK);
        }
    }
}

/// A process that the test started itself. Dropping it ends it.
pub(crate) struct Outsider(Child);

impl Outsider {
    pub(crate) fn pid(&self) -> String {
        self.0.id().to_string()
    }

    pub(crate) fn kill(&mut self) {
        // It may be gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.0.wait().expect("a child of ours")
    }

    pub(crate) fn signal(&self, signal: Signal) {
        send(pid_of(self.0.id()), signal);
    }

    /// True if it watches files.
    pub(crate) fn watches(&self) -> bool {
        let Ok(entries) = fs::read_dir(format!("/proc/{}/fdinfo", self.0.id())) else { return false };
        entries.flatten().any(|entry| text_of(&entry.path()).contains("inotify wd:"))
    }
}

impl Drop for Outsider {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn pid_of(pid: u32) -> i32 {
    i32::try_from(pid).expect("a pid")
}

pub(crate) fn send(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("a process to signal");
}

/// True while the process runs; one that only waits to be reaped does not.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

pub(crate) fn text_of(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}
