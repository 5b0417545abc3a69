use crate::protocol::variables::ENV_RUN;
use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::*;
use crate::edge::files::FsStore;

fn store() -> FsStore {
    FsStore::for_crew("/".as_ref()).unwrap()
}

const PATIENCE: Duration = Duration::from_mins(1);
const MIB: u64 = 1024 * 1024;

struct Watch {
    dir: tempfile::TempDir,
    watchdog: Watchdog,
    sightings: Receiver<Sighting>,
}

impl Watch {
    fn new() -> Self {
        Self::with_canary_in("")
    }

    fn with_canary_in(below: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (sender, sightings) = crossbeam_channel::unbounded();
        let deliver = move |sighting| sender.send(sighting).unwrap_or_default();
        let watchdog = Watchdog::start(store(), dir.path().join(below).join(".canary"), deliver).unwrap();
        Self { dir, watchdog, sightings }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("x.heartbeat")
    }

    fn assign_files(&self, names: &[&str]) {
        let files = names.iter().map(|name| (beat(name), self.path())).collect();
        self.watchdog.assign(Assignment { files, pace_ms: 10, trees: Vec::new() });
    }

    fn next(&self) -> Sighting {
        self.sightings.recv_timeout(PATIENCE).unwrap()
    }

    /// What is reported until the end of the second round from now, which began after now.
    fn a_whole_round(&self) -> Vec<Sighting> {
        for _ in self.sightings.try_iter() {}
        self.rounds(2)
    }

    /// What is reported in the next rounds.
    fn rounds(&self, count: u32) -> Vec<Sighting> {
        let mut rounds = 0;
        let mut seen = Vec::new();
        while rounds < count {
            match self.next() {
                Sighting::Round { canary_alive } => {
                    assert!(canary_alive);
                    rounds += 1;
                }
                other @ (Sighting::Changed { .. } | Sighting::Memory { .. }) => seen.push(other),
            }
        }
        seen
    }

    fn next_change(&self) -> (Subject, Signature, bool) {
        loop {
            if let Sighting::Changed { subject, signature, first } = self.next() {
                return (subject, signature, first);
            }
        }
    }

    /// Waits for a report on the tree's memory that satisfies.
    fn wait_for_memory(&self, satisfies: impl Fn(u64, bool, &[Identity]) -> bool) -> (u64, Vec<Identity>) {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        while let Ok(sighting) = self.sightings.recv_deadline(deadline) {
            if let Sighting::Memory { bytes, exact, members, .. } = &sighting {
                if satisfies(*bytes, *exact, members) {
                    return (*bytes, members.clone());
                }
                last = Some(sighting);
            }
        }
        panic!("the last report was {last:?}");
    }
}

fn beat(run: &str) -> Subject {
    Subject::Beat(run.parse().unwrap())
}

fn append(path: &std::path::Path, bytes: &[u8]) {
    OpenOptions::new().append(true).create(true).open(path).unwrap().write_all(bytes).unwrap();
}

#[test]
fn a_file_is_reported_at_the_first_look_and_at_each_change() {
    let watch = Watch::new();
    append(&watch.path(), b"a\n");
    watch.assign_files(&["R1"]);
    let (subject, signature, first) = watch.next_change();
    assert_eq!((subject, signature.size, first), (beat("R1"), 2, true));
    assert_eq!(watch.a_whole_round(), []);
    append(&watch.path(), b"b\n");
    let (_, signature, first) = watch.next_change();
    assert_eq!((signature.size, first), (4, false));
    assert_eq!(watch.a_whole_round(), []);
}

#[test]
fn what_is_known_of_a_file_outlives_the_assignment() {
    let watch = Watch::new();
    watch.assign_files(&["R1"]);
    assert_eq!(watch.a_whole_round(), []);
    append(&watch.path(), b"a\n");
    let (_, _, first) = watch.next_change();
    assert!(!first, "it was looked for before, and was missing");
    watch.assign_files(&["R1", "R2"]);
    let news = watch.rounds(10);
    assert_eq!(news.len(), 1, "of R1, nothing is news: {news:?}");
    assert!(matches!(&news[0], Sighting::Changed { subject, first: true, .. } if *subject == beat("R2")));
}

#[test]
fn a_heartbeat_grown_too_large_is_cut_in_place_which_is_no_beat() {
    let watch = Watch::new();
    append(&watch.path(), &vec![b'x'; 70_000]);
    let inode = fs::metadata(watch.path()).unwrap().ino();
    watch.assign_files(&["R1"]);
    assert_eq!(watch.next_change().1.size, 70_000);
    assert_eq!(watch.a_whole_round(), []);
    let about = fs::metadata(watch.path()).unwrap();
    assert_eq!((about.len(), about.ino()), (0, inode));
    append(&watch.path(), b"beat\n");
    assert_eq!(watch.next_change().1.size, 5);
}

#[test]
fn only_regular_heartbeats_are_cut() {
    let watch = Watch::new();
    let victim = watch.dir.path().join("victim");
    fs::write(&victim, vec![b'x'; 70_000]).unwrap();
    std::os::unix::fs::symlink(&victim, watch.path()).unwrap();
    watch.assign_files(&["R1"]);
    watch.next_change();
    watch.a_whole_round();
    assert_eq!(fs::metadata(&victim).unwrap().len(), 70_000);
}

#[test]
fn a_canary_that_cannot_be_written_is_told_and_the_files_are_looked_at() {
    let watch = Watch::with_canary_in("no/such/directory");
    append(&watch.path(), b"a\n");
    watch.assign_files(&["R1"]);
    watch.next_change();
    assert_eq!(watch.next(), Sighting::Round { canary_alive: false });
}

/// A process that allocates, says so, and lives until it is killed with its tree.
struct Eater {
    root: Child,
    tree: Tree,
}

impl Eater {
    /// Runs the shell command with the python program in `$EAT`, which takes megabytes to allocate and
    /// how many times to fork after that. Returns once that program has all its memory.
    fn new(run: &str, limit: u64, command: &str) -> Self {
        const EAT: &str = "import os,sys,time\nmemory = bytearray(b'x' * (int(sys.argv[1]) << 20))\n\
            if all(os.fork() for _ in range(int(sys.argv[2]))): print(flush=True)\ntime.sleep(120)\n";
        let mut root = Command::new("sh")
            .args(["-c", command])
            .env(ENV_RUN, run)
            .env("EAT", EAT)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        BufReader::new(root.stdout.take().unwrap()).read_line(&mut String::new()).unwrap();
        let pid = root.id();
        let start = proc::start_of(pid).unwrap();
        let identity = Identity { pid, start, boot: "boot".into(), ns: 1 };
        Self { root, tree: Tree { run: run.parse().unwrap(), root: identity, limit } }
    }

    fn watched(&self) -> Assignment {
        Assignment { files: Vec::new(), pace_ms: 1000, trees: vec![self.tree.clone()] }
    }

    fn end(mut self, members: &[Identity]) {
        for member in members.iter().filter(|member| proc::start_of(member.pid) == Some(member.start)) {
            let _ = kill_process(Pid::from_raw(member.pid.try_into().unwrap()).unwrap(), Signal::KILL);
        }
        let _ = self.root.kill();
        self.root.wait().unwrap();
    }
}

#[test]
fn the_memory_of_a_grandchild_counts() {
    // Without the run's marker, so that descent alone can tell.
    let command = "unset NIGHTCREW_RUN; exec sh -c 'sh -c \"python3 -c \\\"\\$EAT\\\" 100 0; true\"; true'";
    let eater = Eater::new("MEMA", 1 << 40, command);
    let watch = Watch::new();
    watch.watchdog.assign(eater.watched());
    let (bytes, members) = watch.wait_for_memory(|bytes, exact, _| bytes > 100 * MIB && !exact);
    assert!(bytes < 200 * MIB, "{bytes}: counted twice?");
    assert_eq!(members.len(), 3);
    assert!(members.contains(&eater.tree.root));
    eater.end(&members);
}

#[test]
fn the_memory_of_what_detached_itself_counts_by_the_runs_marker() {
    // The program's parent has ended before the watchdog looks for the first time.
    let eater = Eater::new("MEMB", 1 << 40, "(setsid python3 -c \"$EAT\" 50 0 &); exec sleep 120");
    let watch = Watch::new();
    watch.watchdog.assign(eater.watched());
    let (_, members) = watch.wait_for_memory(|bytes, _, _| bytes > 50 * MIB);
    assert_eq!(members.len(), 2);
    eater.end(&members);
}

#[test]
fn over_the_limit_shared_pages_are_counted_once() {
    let eater = Eater::new("MEMC", 150 * MIB, "python3 -c \"$EAT\" 100 3; true");
    let watch = Watch::new();
    watch.watchdog.assign(eater.watched());
    let (bytes, members) = watch.wait_for_memory(|_, exact, members| exact && members.len() == 5);
    assert!((100 * MIB..150 * MIB).contains(&bytes), "{bytes}");
    eater.end(&members);
}

#[test]
fn a_reused_pid_is_no_member() {
    let mut eater = Eater::new("MEMD", 1 << 40, "python3 -c \"$EAT\" 20 0; true");
    let honest = eater.tree.clone();
    eater.tree.root.start += 1;
    eater.tree.run = "OTHER".parse().unwrap();
    let watch = Watch::new();
    watch.watchdog.assign(eater.watched());
    let (_, members) = watch.wait_for_memory(|_, _, _| true);
    assert_eq!(members, []);
    eater.tree = honest;
    watch.watchdog.assign(eater.watched());
    let (_, members) = watch.wait_for_memory(|bytes, _, _| bytes > 20 * MIB);
    eater.end(&members);
}
