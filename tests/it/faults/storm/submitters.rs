//! Who hands tasks in, and what they say was taken.

use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde_json::Value;

use crate::crew::{Crew, text_of};

use super::cast::{Fate, Planned};

/// How many hand in at once.
const AT_ONCE: usize = 3;
/// How many tasks one call of `submit -` takes, and how many calls of `submit` a script makes.
const BATCH: usize = 40;
const SINGLES: usize = 8;
/// A submitter that is to be killed is after no more than this.
const LIVED_MS_MAX: u64 = 60;

const MANY: &str = r#"exec "$0" submit - --json <"$1""#;
const ONE_BY_ONE: &str = r#"while read -r id kind payload; do
    "$0" submit "$kind" "$payload" --id "$id" --json </dev/null || exit
done <"$1""#;

/// Tasks that are handed in together.
struct Chunk {
    tasks: Vec<Planned>,
    one_by_one: bool,
    /// They were handed in before, by somebody who was killed.
    again: bool,
}

struct Submitter {
    process: Child,
    chunk: Chunk,
    told: PathBuf,
    /// When it is killed.
    doom: Option<Instant>,
}

/// All of them.
pub(super) struct Submitters {
    /// Outside the crew: what they said does not depend on what it is said of.
    outside: tempfile::TempDir,
    running: Vec<Submitter>,
    again: VecDeque<Chunk>,
    planned: usize,
    started: usize,
    /// What they said was taken.
    pub(super) acknowledged: BTreeMap<String, Planned>,
    /// What somebody who was killed may have handed in or not, and nobody handed in again.
    pub(super) unsure: BTreeMap<String, Planned>,
    /// How many of the next ones are to be killed.
    pub(super) doomed: usize,
    pub(super) killed: usize,
}

impl Submitters {
    pub(super) fn new() -> Self {
        Self {
            outside: tempfile::tempdir().expect("a directory"),
            running: Vec::new(),
            again: VecDeque::new(),
            planned: 0,
            started: 0,
            acknowledged: BTreeMap::new(),
            unsure: BTreeMap::new(),
            doomed: 0,
            killed: 0,
        }
    }

    pub(super) fn are_gone(&self) -> bool {
        self.running.is_empty() && self.again.is_empty()
    }

    /// Starts another, if there is room; one that only hands in again, if `no_more`.
    pub(super) fn start_one(&mut self, crew: &Crew, no_more: bool, dice: &mut fastrand::Rng) {
        if self.running.len() >= AT_ONCE || no_more && self.again.is_empty() {
            return;
        }
        let chunk = self.again.pop_front().unwrap_or_else(|| self.draw(dice));
        self.started += 1;
        let (given, told) = (self.file("given"), self.file("told"));
        let lines = chunk.tasks.iter().fold(String::new(), |mut text, task| {
            let line = if chunk.one_by_one {
                format!("{} {} {}", task.id, task.kind, task.payload())
            } else {
                task.line()
            };
            let _ = writeln!(text, "{line}");
            text
        });
        fs::write(&given, lines).expect("written");
        let file = |path: &PathBuf| File::create(path).expect("a file");
        let script = if chunk.one_by_one { ONE_BY_ONE } else { MANY };
        let mut command = crew.awaiting(script);
        command.arg(&given).stdout(file(&told)).stderr(file(&self.file("errors"))).stdin(Stdio::null());
        let process = command.spawn().expect("a submitter");
        let lived = Duration::from_millis(dice.u64(..LIVED_MS_MAX));
        let is_doomed = self.running.iter().filter(|one| one.doom.is_some()).count() < self.doomed;
        let doom = is_doomed.then(|| Instant::now() + lived);
        self.running.push(Submitter { process, chunk, told, doom });
    }

    fn file(&self, what: &str) -> PathBuf {
        self.outside.path().join(format!("{}.{what}", self.started))
    }

    fn draw(&mut self, dice: &mut fastrand::Rng) -> Chunk {
        let one_by_one = dice.bool();
        let count = if one_by_one { SINGLES } else { BATCH };
        let tasks = (0..count).map(|n| Planned::nth(self.planned + n, dice)).collect();
        self.planned += count;
        Chunk { tasks, one_by_one, again: false }
    }

    /// Kills whose time has come, and hears what those said that have ended.
    pub(super) fn look(&mut self, dice: &mut fastrand::Rng) {
        for mut one in std::mem::take(&mut self.running) {
            let is_due = one.doom.is_some_and(|doom| Instant::now() >= doom);
            match one.process.try_wait().expect("a child of ours") {
                Some(status) => {
                    assert!(status.success(), "a submitter ended with {status}: {}", self.errors_of(&one));
                    let left = self.hear(&one);
                    assert!(left.is_empty(), "not said to be taken: {left:?}");
                }
                None if is_due && self.doomed > 0 => {
                    // Not reaped yet, so that its group is its own.
                    let group = Pid::from_raw(i32::try_from(one.process.id()).expect("a pid"));
                    killpg(group, Signal::SIGKILL).expect("it is there");
                    one.process.wait().expect("a child of ours");
                    self.doomed -= 1;
                    self.killed += 1;
                    let left = self.hear(&one);
                    self.leave(left, one.chunk.one_by_one, dice);
                }
                None => self.running.push(one),
            }
        }
    }

    fn errors_of(&self, one: &Submitter) -> String {
        let path = one.told.with_extension("errors");
        format!("{}: {}", self.outside.path().display(), text_of(&path))
    }

    /// Takes what it said was taken; gives what it did not say.
    fn hear(&mut self, one: &Submitter) -> Vec<Planned> {
        let mut left: BTreeMap<String, Planned> =
            one.chunk.tasks.iter().map(|task| (task.id.clone(), task.clone())).collect();
        for line in text_of(&one.told).split_inclusive('\n').filter(|line| line.ends_with('\n')) {
            let said: Value = serde_json::from_str(line).expect("a line of JSON");
            let id = said["task"].as_str().expect("an id");
            let is_new = said["result"] == "accepted";
            assert!(is_new || one.chunk.again, "nobody had handed it in before: {line}");
            let task = left.remove(id).expect("one that it was given");
            self.unsure.remove(id);
            self.acknowledged.insert(id.to_owned(), task);
        }
        left.into_values().collect()
    }

    /// What a killed one did not say was taken is handed in again or not. A dead letter keeps nobody out, and would be
    /// done twice for a good reason.
    fn leave(&mut self, left: Vec<Planned>, one_by_one: bool, dice: &mut fastrand::Rng) {
        let is_again = dice.bool();
        let (again, unsure): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|task| is_again && task.fate != Fate::Dead);
        self.unsure.extend(unsure.into_iter().map(|task| (task.id.clone(), task)));
        if !again.is_empty() {
            self.again.push_back(Chunk { tasks: again, one_by_one, again: true });
        }
    }
}

impl Drop for Submitters {
    fn drop(&mut self) {
        for mut one in std::mem::take(&mut self.running) {
            // A test that failed left it; what it started ends with its crew.
            let _ = one.process.kill();
            let _ = one.process.wait();
        }
    }
}
