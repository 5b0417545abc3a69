//! The process thread, with real processes.
//!
//! Being a subreaper and reaping all children are properties of a whole process, and tests run as threads of
//! one. So each test here starts this very binary again, told to run that one test alone, and the scenario
//! runs there, in a process of its own.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    reason = "a test touches the world, and fails by panicking"
)]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use nightcrew::edge::processes::{
    Config, Launch, Order, ProcessThread, Processes, Report, identity_of, is_gone, own_identity, root_of_run,
    survivors,
};
use nightcrew::protocol::name::RunId;
use nightcrew::protocol::process::{Ending, Identity};

const ALONE: &str = "NIGHTCREW_TEST_ALONE";
/// Generous: it only ends a test that fails.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs `scenario` in a process of its own, which runs only the test called `name`.
fn alone(name: &str, scenario: impl FnOnce()) {
    if std::env::var_os(ALONE).is_some() {
        return scenario();
    }
    let binary = std::env::current_exe().expect("our own binary");
    let output = Command::new(binary)
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .expect("it starts");
    let told = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && told.contains("1 passed"), "{name} alone:\n{told}");
}

/// Waits until `probe` finds what it looks for.
fn await_some<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(begun.elapsed() < DEADLINE, "{what} did not come about");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn run_id(text: &str) -> RunId {
    text.parse().expect("a name")
}

/// A crew, its process thread and what that reports.
struct World {
    dir: tempfile::TempDir,
    thread: ProcessThread,
    reports: Receiver<Report>,
}

impl World {
    fn new() -> Self {
        Self::within(tempfile::tempdir().expect("a directory"))
    }

    fn within(dir: tempfile::TempDir) -> Self {
        // Stands in for our own binary: what it is asked is all that counts here.
        let launcher = dir.path().join("launcher");
        let text = "#!/bin/sh\n\
            [ \"$1 $2 $4\" = 'exec-agent --workdir --' ] || exit 99\n\
            cd \"$3\"; shift 4; exec \"$@\"\n";
        write_script(&launcher, text);
        let (deliver, reports) = crossbeam_channel::unbounded();
        let config = Config { crew: dir.path().to_owned(), launcher };
        let deliver = move |report| deliver.send(report).expect("somebody listens");
        let (thread, waker) = ProcessThread::start(config, deliver).expect("it starts");
        let mut signals =
            signal_hook::iterator::Signals::new([signal_hook::consts::SIGCHLD]).expect("registered");
        std::thread::spawn(move || signals.forever().for_each(|_| waker.wake()));
        Self { dir, thread, reports }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn launch(&self, run: &str, text: &str) -> Launch {
        let program = self.path(run);
        write_script(&program, &format!("#!/bin/sh\n{text}\n"));
        let path = std::env::var_os("PATH").expect("a PATH");
        let env = [
            ("PATH", path),
            ("NIGHTCREW_DIR", self.dir.path().into()),
            ("NIGHTCREW_RUN", run.into()),
            ("NIGHTCREW_AGENT", "agent".into()),
        ];
        Launch {
            run: run_id(run),
            agent: run_id("agent"),
            argv: vec![program.into()],
            env: env.map(|(name, value)| (name.into(), value)).into(),
            stdin: None,
            output: self.path(&format!("{run}.pipe")),
            workdir: None,
        }
    }

    fn order_spawn(&self, launch: Launch) {
        self.thread.order(Order::Spawn(Box::new(launch)));
    }

    /// Starts a shell script and waits until it runs.
    fn spawn(&self, run: &str, text: &str) -> Identity {
        self.order_spawn(self.launch(run, text));
        match self.report() {
            Report::Spawned { run: of, process } if of.as_str() == run => process,
            other => panic!("{other:?}"),
        }
    }

    fn report(&self) -> Report {
        self.reports.recv_timeout(DEADLINE).expect("a report")
    }

    fn expect_exit(&self, run: &str, ending: Ending) {
        assert_eq!(self.report(), Report::Exited { run: run_id(run), ending });
    }

    fn signal(&self, run: &str, signal: i32) {
        self.thread.order(Order::Signal { run: run_id(run), signal });
    }

    /// A named pipe on which an agent can wait with `read`.
    fn gate(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
        path
    }

    /// Lets the agent that waits at the gate go on.
    fn open_gate(&self, name: &str) {
        fs::write(self.path(name), "go\n").expect("the gate has a reader");
    }

    fn kill(&self, run: &str) {
        self.thread.order(Order::KillTree { run: run_id(run) });
    }

    /// The names of what was killed beside the root, sorted.
    fn expect_gone(&self, run: &str) -> Vec<String> {
        match self.report() {
            Report::TreeGone { run: of, killed } if of.as_str() == run => {
                let name = |label: &String| label.split(' ').nth(1).expect("pid name").to_owned();
                let mut names: Vec<String> = killed.iter().map(name).collect();
                names.sort_unstable();
                names
            }
            other => panic!("{other:?}"),
        }
    }

    /// The process whose pid an agent wrote into a file.
    fn process_in(&self, file: &str) -> Identity {
        let read = || fs::read_to_string(self.path(file)).ok()?.strip_suffix('\n')?.parse().ok();
        identity_of(await_some(file, read)).expect("it runs")
    }
}

impl Drop for World {
    /// Leaves nothing behind, whether the test passed or failed.
    fn drop(&mut self) {
        let begun = Instant::now();
        loop {
            let left = survivors(self.dir.path());
            if left.is_empty() || begun.elapsed() > DEADLINE {
                break;
            }
            for survivor in &left {
                self.kill(survivor.run.as_str());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, text).expect("written");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("executable");
}

fn await_comm(process: &Identity, comm: &str) {
    let path = format!("/proc/{}/comm", process.pid);
    await_some(comm, || (fs::read_to_string(&path).ok()?.trim() == comm).then_some(()));
}

fn state_of(process: &Identity) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[test]
fn every_ending_is_told_as_it_was() {
    alone("every_ending_is_told_as_it_was", || {
        let world = World::new();
        for (run, text, ending) in [
            ("code", "exit 7", Ending::Code(7)),
            ("term", "kill -TERM $$", Ending::Signal(15)),
            ("realtime", "kill -40 $$", Ending::Signal(40)),
            ("after", "exit 0", Ending::Code(0)),
        ] {
            world.spawn(run, text);
            world.expect_exit(run, ending);
            assert!(world.expect_gone(run).is_empty());
        }
    });
}

#[test]
fn what_cannot_start_says_why() {
    alone("what_cannot_start_says_why", || {
        let world = World::new();
        let refused = |launch: Launch| {
            world.order_spawn(launch);
            match world.report() {
                Report::SpawnFailed { error, busy, .. } => (error, busy),
                other => panic!("{other:?}"),
            }
        };
        let launch = world.launch("busy", "exit 0");
        let writer = fs::OpenOptions::new().append(true).open(&launch.argv[0]).expect("opened");
        let (error, busy) = refused(launch.clone());
        assert!(busy && error.contains("being written"), "{error}");
        drop(writer);

        fs::write(&launch.argv[0], "#!/no/such/interpreter\n").expect("written");
        let (error, busy) = refused(launch.clone());
        assert!(!busy && error.contains("its interpreter /no/such/interpreter is missing"), "{error}");

        fs::write(&launch.argv[0], "exit 0\n").expect("written");
        assert!(refused(launch.clone()).0.contains("no shebang"));

        let nul = Launch { env: vec![("A".into(), "b\0c".into())], ..launch.clone() };
        assert!(refused(nul).0.contains("the variable A holds a NUL byte"));
        let nowhere = Launch { workdir: Some(world.path("nowhere")), ..launch.clone() };
        assert!(refused(nowhere).0.contains("nowhere cannot be entered"));

        fs::write(world.path("file"), "").expect("written");
        let no_pipe = Launch { output: world.path("file"), ..launch };
        assert!(refused(no_pipe).0.contains("no named pipe"));
        world.spawn("next", "exit 3");
        world.expect_exit("next", Ending::Code(3));
    });
}

#[test]
fn an_agent_finds_its_streams_session_and_directory() {
    alone("an_agent_finds_its_streams_session_and_directory", || {
        let world = World::new();
        fs::write(world.path("payload"), "{\"a\":1}").expect("written");
        fs::create_dir(world.path("own")).expect("made");
        let launch = world.launch("run", "cat; pwd; ulimit -n >&2; sleep 1000");
        let pipe = launch.output.clone();
        let (stdin, workdir) = (Some(world.path("payload")), Some(world.path("own")));
        world.order_spawn(Launch { stdin, workdir, ..launch });
        let Report::Spawned { process, .. } = world.report() else { panic!("not spawned") };
        let reader = fs::OpenOptions::new().read(true).custom_flags(0o4000).open(&pipe).expect("a pipe");
        assert_eq!(fs::metadata(&pipe).expect("there").permissions().mode() & 0o777, 0o600);
        let mut output = String::new();
        await_some("output", || {
            let mut part = [0; 4096];
            let len = std::io::Read::read(&mut &reader, &mut part).unwrap_or(0);
            output += std::str::from_utf8(&part[..len]).expect("text");
            (output.lines().count() >= 2).then_some(())
        });
        let own = world.path("own").canonicalize().expect("there");
        assert!(output.starts_with(&format!("{{\"a\":1}}{}\n", own.display())), "{output}");
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.pid)).expect("it runs");
        let fields: Vec<&str> = stat.rsplit_once(") ").expect("a stat").1.split(' ').collect();
        assert_eq!(
            [fields[2], fields[3]],
            [process.pid.to_string(), process.pid.to_string()],
            "group, session"
        );
        // A shell blocks signals for a moment now and then. The C library keeps 32 and 33 for itself.
        await_some("signals at their defaults", || {
            let status = fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("it runs");
            let signals = |name: &str| {
                let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("it is told");
                u64::from_str_radix(line.trim(), 16).expect("hexadecimal")
            };
            (signals("SigBlk:") == 0 && signals("SigIgn:").trailing_zeros() >= 31).then_some(())
        });
        world.kill("run");
        world.expect_exit("run", Ending::Signal(9));
        world.expect_gone("run");
    });
}

#[test]
fn a_daemon_left_behind_is_killed_and_named() {
    alone("a_daemon_left_behind_is_killed_and_named", || {
        let world = World::new();
        let other = world.spawn("other", "exec sleep 1000");
        world.spawn(
            "run",
            "(setsid sleep 1000 & echo $! > one.tmp; mv one.tmp one) >/dev/null\n\
             (env -i \"$(command -v tail)\" -f /dev/null & echo $! > two.tmp; mv two.tmp two)\n\
             read -r line < go; exit 5"
                .replace("one", &world.path("one").display().to_string())
                .replace("two", &world.path("two").display().to_string())
                .replace("< go", &format!("< {}", world.gate("go").display()))
                .as_str(),
        );
        let (one, two) = (world.process_in("one"), world.process_in("two"));
        await_comm(&one, "sleep");
        await_comm(&two, "tail");
        assert!(!is_gone(&one) && !is_gone(&two));
        world.open_gate("go");
        world.expect_exit("run", Ending::Code(5));
        assert_eq!(world.expect_gone("run"), ["sleep", "tail"]);
        assert!(is_gone(&one) && is_gone(&two));
        assert!(!is_gone(&other), "another run is left alone");
    });
}

#[test]
fn an_orphan_that_hid_from_view_dies_when_only_one_run_can_own_it() {
    alone("an_orphan_that_hid_from_view_dies_when_only_one_run_can_own_it", || {
        let world = World::new();
        let hide = format!(
            "env -i \"$(command -v setsid)\" \"$(command -v sleep)\" 1000 & echo $! > {0}.tmp; mv {0}.tmp {0}",
            world.path("hidden").display()
        );
        world.spawn("other", "exec sleep 1000");
        let gate = world.gate("go");
        world.spawn("run", &format!("({hide}) & wait; read -r line < {}; exit 0", gate.display()));
        let hidden = world.process_in("hidden");
        await_comm(&hidden, "sleep");
        world.open_gate("go");
        world.expect_exit("run", Ending::Code(0));
        assert!(world.expect_gone("run").is_empty());
        assert!(!is_gone(&hidden), "it may be the other's");
        world.kill("other");
        world.expect_exit("other", Ending::Signal(9));
        assert_eq!(world.expect_gone("other"), ["sleep"]);
        assert!(is_gone(&hidden));
    });
}

#[test]
fn what_ignores_term_is_killed_and_what_is_stopped_gets_it() {
    alone("what_ignores_term_is_killed_and_what_is_stopped_gets_it", || {
        let world = World::new();
        let ready = world.path("ready").display().to_string();
        let process =
            world.spawn("deaf", &format!("trap '' TERM; : > {ready}; while :; do sleep 1000; done"));
        await_some("ready", || fs::metadata(&ready).ok());
        world.signal("deaf", 15);
        world.kill("deaf");
        world.expect_exit("deaf", Ending::Signal(9));
        world.expect_gone("deaf");
        assert!(is_gone(&process));

        let process = world.spawn("stopped", "kill -STOP $$; exit 1");
        await_some("stop", || (state_of(&process)? == 'T').then_some(()));
        world.signal("stopped", 15);
        world.expect_exit("stopped", Ending::Signal(15));
        // What has ended takes no signal, and a signal that cannot be sent costs nothing.
        world.signal("stopped", 15);
        world.signal("stopped", 40);
        world.kill("stopped");
        world.expect_gone("stopped");
    });
}

#[test]
fn two_hundred_short_lives_are_each_told_once() {
    alone("two_hundred_short_lives_are_each_told_once", || {
        const COUNT: usize = 200;
        let world = World::new();
        let launch = world.launch("short", "exit $1");
        for number in 0..COUNT {
            let argv = vec![launch.argv[0].clone(), (number % 100).to_string().into()];
            world.order_spawn(Launch { run: run_id(&format!("r{number}")), argv, ..launch.clone() });
        }
        let mut spawned = BTreeSet::new();
        let mut ended = BTreeSet::new();
        let mut gone = BTreeSet::new();
        while gone.len() < COUNT {
            match world.report() {
                Report::Spawned { run, .. } => assert!(spawned.insert(run)),
                Report::Exited { run, ending } => {
                    let number: i32 = run.as_str()[1..].parse().expect("a number");
                    assert_eq!(ending, Ending::Code(number % 100));
                    assert!(spawned.contains(&run) && ended.insert(run));
                }
                Report::TreeGone { run, killed } => {
                    assert!(ended.contains(&run) && gone.insert(run) && killed.is_empty());
                }
                other => panic!("{other:?}"),
            }
        }
    });
}

#[test]
fn a_tree_that_keeps_forking_is_ended() {
    alone("a_tree_that_keeps_forking_is_ended", || {
        let world = World::new();
        let ready = |number: u32| world.path(&format!("ready{number}")).display().to_string();
        let breeder = |number: u32| {
            format!("setsid sh -c ': > {}; while :; do setsid sh -c \":; :\"; done' & ", ready(number))
        };
        let breeders: String = (0..12).map(breeder).collect();
        world.spawn("bomb", &format!("{breeders} wait"));
        await_some("all", || (0..12).all(|number| Path::new(&ready(number)).exists()).then_some(()));
        world.kill("bomb");
        world.expect_exit("bomb", Ending::Signal(9));
        assert!(world.expect_gone("bomb").len() >= 12);
        assert!(survivors(world.dir.path()).is_empty());
    });
}

#[test]
fn a_run_that_hangs_can_be_looked_at() {
    alone("a_run_that_hangs_can_be_looked_at", || {
        let world = World::new();
        let ready = world.path("ready").display().to_string();
        let process = world.spawn("run", &format!("sleep 1000 & : > {ready}; wait"));
        await_some("ready", || fs::metadata(&ready).ok());
        let evidence = await_some("sleep", || {
            world.thread.order(Order::Examine { run: run_id("run") });
            let Report::Evidence { run, evidence } = world.report() else { panic!("no evidence") };
            assert_eq!((run.as_str(), &evidence["process_count"]), ("run", &2.into()));
            (evidence["state"] == "S").then_some(evidence)
        });
        assert!(evidence["wchan"].is_string() && evidence["cpu_ms"].is_u64());
        let root = format!("{} run (S)", process.pid);
        assert!(evidence["processes"].as_array().expect("a list").contains(&root.into()), "{evidence}");
        let pipe = format!("1 {}", world.path("run.pipe").display());
        assert!(evidence["files"].as_array().expect("a list").contains(&pipe.into()), "{evidence}");
        world.kill("run");
        world.expect_exit("run", Ending::Signal(9));
        world.expect_gone("run");
    });
}

/// Starts a run as an earlier supervisor would have left it: an orphan that is not below us.
fn leave_behind(dir: &Path, run: &str, text: &str) {
    let status = Command::new("sh")
        .args(["-c", "setsid sh -c \"$0\" </dev/null >/dev/null 2>&1 &", text])
        .envs([
            ("NIGHTCREW_DIR", dir.as_os_str()),
            ("NIGHTCREW_RUN", run.as_ref()),
            ("NIGHTCREW_AGENT", "old".as_ref()),
        ])
        .stdin(Stdio::null())
        .status()
        .expect("sh runs");
    assert!(status.success());
}

#[test]
fn survivors_are_found_adopted_and_ended() {
    alone("survivors_are_found_adopted_and_ended", || {
        let dir = tempfile::tempdir().expect("a directory");
        let ready = |name: &str| dir.path().join(name).display().to_string();
        leave_behind(dir.path(), "tree", &format!("sleep 1000 & : > {}; wait", ready("1")));
        leave_behind(
            dir.path(),
            "polite",
            &format!("trap 'exit 0' TERM; : > {}; sleep 1000 & wait", ready("2")),
        );
        leave_behind(dir.path(), "rest", &format!("(setsid sleep 1000 & : > {}) & wait", ready("3")));
        leave_behind(
            Path::new("/another/crew"),
            "foreign",
            &format!("echo $$ > {0}.tmp; mv {0}.tmp {0}; exec sleep 1000", ready("4")),
        );
        await_some("all", || {
            ["1", "2", "3", "4"].iter().all(|name| Path::new(&ready(name)).exists()).then_some(())
        });
        // The root of "rest" ends by itself; what it left is found by its mark.
        let found = await_some("three", || {
            let found = survivors(dir.path());
            let sleeps = found.iter().any(|survivor| {
                survivor.run.as_str() == "rest"
                    && fs::read_to_string(format!("/proc/{}/comm", survivor.root.pid))
                        .is_ok_and(|name| name == "sleep\n")
            });
            (found.len() == 3 && sleeps).then_some(found)
        });
        assert!(found.iter().all(|survivor| survivor.agent.as_str() == "old" && !is_gone(&survivor.root)));
        let root = |run: &str| {
            found.iter().find(|found| found.run.as_str() == run).expect("it survived").root.clone()
        };
        let (tree, polite) = (root("tree"), root("polite"));

        let world = World::within(dir);
        let adopt = |run: &str, root: &Identity| {
            world.thread.order(Order::Adopt { run: run_id(run), root: root.clone() });
        };
        adopt("late", &Identity { start: tree.start + 1, ..tree.clone() });
        world.expect_exit("late", Ending::Unseen);
        world.kill("late");
        assert!(world.expect_gone("late").is_empty());
        assert!(!is_gone(&tree), "another process of that pid was not touched");

        adopt("tree", &tree);
        adopt("polite", &polite);
        world.signal("polite", 15);
        world.expect_exit("polite", Ending::Unseen);
        world.kill("polite");
        world.expect_gone("polite");
        world.kill("tree");
        world.expect_exit("tree", Ending::Unseen);
        assert_eq!(world.expect_gone("tree").len(), 1);
        world.kill("rest");
        assert_eq!(world.expect_gone("rest"), ["sleep"]);
        assert!(survivors(world.dir.path()).is_empty());

        let foreign = world.process_in("4");
        assert_eq!(survivors(Path::new("/another/crew")).len(), 1, "another crew's was left alone");
        world.spawn("killer", &format!("kill -KILL {}", foreign.pid));
        world.expect_exit("killer", Ending::Code(0));
        await_some("its end", || is_gone(&foreign).then_some(()));
    });
}

#[test]
fn the_root_of_a_run_is_found_from_within() {
    const INSIDE: &str = "NIGHTCREW_TEST_INSIDE";
    if std::env::var_os(INSIDE).is_some() {
        let root = root_of_run(&run_id("marked")).expect("we are in the run");
        let text = format!("{} {}\n", root.pid, own_identity().expect("readable").pid);
        return fs::write(std::env::var_os("NIGHTCREW_TEST_TO").expect("told"), text).expect("written");
    }
    alone("the_root_of_a_run_is_found_from_within", || {
        let world = World::new();
        let (to, binary) = (world.path("to"), std::env::current_exe().expect("our own binary"));
        let text = format!(
            "export {INSIDE}=1 NIGHTCREW_TEST_TO={}\nsh -c '\"$0\" --exact the_root_of_a_run_is_found_from_within; :' {}",
            to.display(),
            binary.display()
        );
        let process = world.spawn("marked", &text);
        world.expect_exit("marked", Ending::Code(0));
        let told = fs::read_to_string(to).expect("written");
        let (root, own) = told.trim().split_once(' ').expect("two pids");
        assert_eq!(root, process.pid.to_string());
        assert_ne!(own, root);
    });
}
