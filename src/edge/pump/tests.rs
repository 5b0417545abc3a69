use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::*;
use crate::edge::files::FsStore;
use crate::protocol::logindex;

fn store() -> FsStore {
    FsStore::for_crew("/".as_ref()).unwrap()
}

const PATIENCE: Duration = Duration::from_secs(30);

struct Crew {
    _dir: tempfile::TempDir,
    layout: Layout,
}

impl Crew {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        fs::create_dir_all(layout.logs()).unwrap();
        Self { _dir: dir, layout }
    }

    fn pump(&self, limits: Limits) -> (Pump, Receiver<PumpReport>) {
        let (sender, reports) = crossbeam_channel::unbounded();
        let deliver = move |report| sender.send(report).unwrap_or_default();
        (Pump::start_with(self.layout.clone(), limits, deliver).unwrap(), reports)
    }

    /// Runs a shell command whose output goes into the run's pipe as an agent's does.
    fn print(&self, agent: &AgentName, run: &RunId, command: &str) -> Child {
        let pipe = OpenOptions::new().read(true).write(true).open(self.layout.pipe(agent, run)).unwrap();
        Command::new("sh").args(["-c", command]).stdout(Stdio::from(pipe)).spawn().unwrap()
    }

    fn log(&self, agent: &AgentName) -> String {
        fs::read_to_string(self.layout.log(agent)).unwrap_or_default()
    }
}

fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

fn numbers(to: u32) -> String {
    (1..=to).flat_map(|n| [n.to_string(), "\n".to_owned()]).collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn drained(agent: &AgentName, run: &RunId) -> PumpReport {
    PumpReport::Drained { agent: agent.clone(), run: run.clone() }
}

#[test]
fn all_output_arrives_in_order_with_its_marks() {
    let crew = Crew::new();
    let (agent, run) = (name("writer"), name("R1"));
    let (pump, reports) = crew.pump(LIMITS);
    pump.open(&agent, &run).unwrap();
    pump.open(&agent, &run).unwrap();
    assert!(crew.print(&agent, &run, "seq 1 100000").wait().unwrap().success());
    pump.close(&agent, &run);
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), drained(&agent, &run));
    assert!(crew.log(&agent) == numbers(100_000), "output lost or out of order");
    assert!(!crew.layout.pipe(&agent, &run).exists());

    let next = name("R2");
    let first_len = crew.log(&agent).len();
    pump.open(&agent, &next).unwrap();
    crew.print(&agent, &next, "echo again").wait().unwrap();
    pump.close(&agent, &next);
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), drained(&agent, &next));
    let marks = logindex::parse(&fs::read(crew.layout.log_index(&agent)).unwrap());
    assert_eq!((marks[0].offset, &marks[0].run), (0, &run));
    let last = marks.last().unwrap();
    assert_eq!((last.offset, &last.run), (u64::try_from(first_len).unwrap(), &next));
}

#[test]
fn a_run_that_is_closed_at_once_loses_nothing() {
    let crew = Crew::new();
    let (agent, run) = (name("writer"), name("R1"));
    let path = crew.layout.pipe(&agent, &run);
    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    let mut end = OpenOptions::new().read(true).write(true).open(&path).unwrap();
    end.write_all(numbers(10_000).as_bytes()).unwrap();
    let (pump, reports) = crew.pump(LIMITS);
    pump.open(&agent, &run).unwrap();
    pump.close(&agent, &run);
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), drained(&agent, &run));
    assert!(crew.log(&agent) == numbers(10_000), "output lost or out of order");
}

#[test]
fn a_pump_that_ends_and_another_that_follows_lose_nothing() {
    let crew = Crew::new();
    let (agent, run) = (name("writer"), name("R1"));
    let (mut pump, mut reports) = crew.pump(LIMITS);
    pump.open(&agent, &run).unwrap();
    let mut child = crew.print(&agent, &run, "seq 1 300000");
    for _ in 0..10 {
        drop(pump);
        let len = crew.log(&agent).len();
        (pump, reports) = crew.pump(LIMITS);
        let held = pump.adopt_leftovers().unwrap();
        if held.is_empty() {
            break;
        }
        assert_eq!(held, [(agent.clone(), run.clone())]);
        wait_until("the next pump goes on", || {
            crew.log(&agent).len() > len || child.try_wait().unwrap().is_some()
        });
    }
    assert!(child.wait().unwrap().success());
    pump.close(&agent, &run);
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), drained(&agent, &run));
    assert!(crew.log(&agent) == numbers(300_000), "output lost or out of order");
}

#[test]
fn an_agent_that_floods_starves_no_other() {
    let crew = Crew::new();
    let (loud, quiet, run) = (name("loud"), name("quiet"), name("R1"));
    let (pump, _reports) = crew.pump(Limits { log_len: 1 << 20, index_len: 1 << 20 });
    pump.open(&loud, &run).unwrap();
    pump.open(&quiet, &run).unwrap();
    let mut flood = crew.print(&loud, &run, "exec yes");
    wait_until("the flood is on", || crew.layout.log(&loud).exists());
    crew.print(&quiet, &run, "echo hello").wait().unwrap();
    wait_until("the quiet one is heard", || crew.log(&quiet) == "hello\n");
    assert!(flood.try_wait().unwrap().is_none());
    flood.kill().unwrap();
    flood.wait().unwrap();
}

#[test]
fn a_log_past_its_limit_is_rotated_with_its_index() {
    let crew = Crew::new();
    let (agent, run) = (name("writer"), name("R1"));
    let (pump, reports) = crew.pump(Limits { log_len: 30_000, index_len: 1 << 20 });
    pump.open(&agent, &run).unwrap();
    crew.print(&agent, &run, "seq 1 20000").wait().unwrap();
    pump.close(&agent, &run);
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), drained(&agent, &run));
    let log = crew.layout.log(&agent);
    let mut whole = String::new();
    for generation in (1..=4).rev() {
        let (old, index) =
            (Layout::rotated(&log, generation), Layout::rotated(&crew.layout.log_index(&agent), generation));
        assert_eq!(old.exists(), index.exists(), "{}", old.display());
        assert!(!(generation == 4 && old.exists()), "three are kept");
        if old.exists() {
            whole += &fs::read_to_string(&old).unwrap();
            assert_eq!(logindex::parse(&fs::read(&index).unwrap())[0].offset, 0, "offsets begin anew");
        }
    }
    assert!(Layout::rotated(&log, 1).exists());
    assert!(whole + &crew.log(&agent) == numbers(20_000), "output lost at a rotation");
}

#[test]
fn an_interrupted_rotation_is_finished_and_a_cut_log_gets_a_new_index() {
    let crew = Crew::new();
    let (agent, run) = (name("writer"), name("R1"));
    let (log, index) = (crew.layout.log(&agent), crew.layout.log_index(&agent));
    let say = |run: &RunId, command: &str| {
        let (pump, reports) = crew.pump(LIMITS);
        pump.open(&agent, run).unwrap();
        crew.print(&agent, run, command).wait().unwrap();
        pump.close(&agent, run);
        reports.recv_timeout(PATIENCE).unwrap();
    };
    say(&run, "echo one");
    say(&run, "echo two");
    let old_index = fs::read(&index).unwrap();
    // The crash: the log was set aside, its index was not.
    fs::rename(&log, Layout::rotated(&log, 1)).unwrap();
    say(&name("R2"), "echo three; echo four");
    assert_eq!(fs::read(Layout::rotated(&index, 1)).unwrap(), old_index);
    say(&name("R3"), "echo five");
    // A person cuts the log.
    fs::write(&log, "").unwrap();
    say(&name("R4"), "echo six");
    assert_eq!(crew.log(&agent), "six\n");
    let marks = logindex::parse(&fs::read(&index).unwrap());
    assert_eq!(
        marks.iter().map(|mark| (mark.offset, mark.run.clone())).collect::<Vec<_>>(),
        [(0, name("R4"))]
    );
}

#[test]
fn output_that_cannot_be_kept_is_thrown_away_and_told_once() {
    let crew = Crew::new();
    let (agent, run) = (name("writer"), name("R1"));
    fs::create_dir(crew.layout.log(&agent)).unwrap();
    let (pump, reports) = crew.pump(LIMITS);
    pump.open(&agent, &run).unwrap();
    // More than a pipe holds: the agent would hang if nobody read.
    assert!(crew.print(&agent, &run, "seq 1 100000").wait().unwrap().success());
    pump.close(&agent, &run);
    let told = reports.recv_timeout(PATIENCE).unwrap();
    let PumpReport::Trouble { agent: of, error } = told else { panic!("{told:?}") };
    assert_eq!(of, agent);
    assert!(error.contains("writer.log"), "{error}");
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), drained(&agent, &run));
}

#[test]
fn a_log_is_never_written_through_a_symlink() {
    let crew = Crew::new();
    let (agent, run) = (name("writer"), name("R1"));
    let victim = crew.layout.crew().join("victim");
    fs::write(&victim, "precious").unwrap();
    std::os::unix::fs::symlink(&victim, crew.layout.log(&agent)).unwrap();
    let (pump, reports) = crew.pump(LIMITS);
    pump.open(&agent, &run).unwrap();
    crew.print(&agent, &run, "echo evil").wait().unwrap();
    pump.close(&agent, &run);
    assert!(matches!(reports.recv_timeout(PATIENCE).unwrap(), PumpReport::Trouble { .. }));
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn pipes_left_behind_are_removed_unless_someone_holds_them() {
    let crew = Crew::new();
    let (agent, dead, live) = (name("writer"), name("R1"), name("R2"));
    for run in [&dead, &live] {
        nix::unistd::mkfifo(&crew.layout.pipe(&agent, run), Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
    }
    fs::write(crew.layout.logs().join("note.txt"), "mine").unwrap();
    let mut survivor = crew.print(&agent, &live, "echo from before; exec sleep 60");
    let (pump, reports) = crew.pump(LIMITS);
    assert_eq!(pump.adopt_leftovers().unwrap(), [(agent.clone(), live.clone())]);
    assert!(!crew.layout.pipe(&agent, &dead).exists());
    wait_until("the survivor is heard", || crew.log(&agent) == "from before\n");
    survivor.kill().unwrap();
    survivor.wait().unwrap();
    pump.close(&agent, &live);
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), drained(&agent, &live));
    assert!(crew.layout.logs().join("note.txt").exists());
}

#[test]
fn what_is_no_pipe_is_refused_and_a_run_never_opened_is_closed_all_the_same() {
    let crew = Crew::new();
    let (agent, run) = (name("writer"), name("R1"));
    fs::write(crew.layout.pipe(&agent, &run), "").unwrap();
    let (pump, reports) = crew.pump(LIMITS);
    assert!(pump.open(&agent, &run).unwrap_err().to_string().contains("no named pipe"));
    pump.close(&agent, &run);
    assert_eq!(reports.recv_timeout(PATIENCE).unwrap(), drained(&agent, &run));
}

#[test]
fn the_last_lines_are_clean_and_bounded() {
    let crew = Crew::new();
    let path: PathBuf = crew.layout.log(&name("writer"));
    let last = |count| last_lines(&store(), &path, count).unwrap();
    assert_eq!(last(5), Vec::<String>::new());
    fs::write(&path, "").unwrap();
    assert_eq!(last(5), Vec::<String>::new());
    fs::write(&path, "one\n\x1b[31mtwo\x1b[0m\nthr\u{7}ee").unwrap();
    assert_eq!(last(2), ["two", "three"]);
    assert_eq!(last(9), ["one", "two", "three"]);
    fs::write(&path, numbers(50_000)).unwrap();
    assert_eq!(last(2), ["49999", "50000"]);
    let all = last(usize::MAX);
    assert!(all.iter().map(|line| line.len() + 1).sum::<usize>() <= 64 * 1024);
    assert_eq!(all[0].len(), 5, "no half line first");
    fs::write(&path, "x".repeat(100_000)).unwrap();
    assert_eq!(last(3), ["x".repeat(64 * 1024)]);
}
