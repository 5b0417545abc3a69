//! Whether what a power cut left keeps what was promised before it: by content, not by existence.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use nightcrew::protocol::framing::{Start, Tail, scan};
use nightcrew::protocol::journal::Line;
use nightcrew::protocol::layout::{Layout, Shelf};
use nightcrew::protocol::ledger::{Entry, Fact};
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::record::decode;
use nightcrew::protocol::task::{Lock, Outcome, Phase, TaskRecord, Verdict};
use nightcrew::protocol::tokens::Tokens;
use nightcrew::protocol::update::Update;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::workload::{Ack, History, Promise};
use crate::crew::text_of;

/// All promises that are not kept by what lies below `root`, when the power went at step `at` of the tape.
pub(super) fn broken(root: &Path, history: &History, at: usize) -> Vec<String> {
    let layout = Layout::new(root);
    let mut found = Found { layout: &layout, broken: Vec::new(), token: 0 };
    let made = history.acks.iter().filter(|ack| ack.at <= at);
    let ledger = found.ledger(history);
    let memory = found.memory();
    let tasks = found.tasks();
    for ack in made {
        match &ack.promise {
            Promise::Submitted { task, payload } => found.submitted(&tasks, task, payload),
            Promise::HandedIn { task, result } => found.handed_in(&tasks, task, result),
            Promise::Ended { task, result } => found.ended(&tasks, &ledger, task, result),
            Promise::Remembered { marker, .. } if memory.contains(&Value::from(marker.as_str())) => {}
            Promise::Remembered { marker, .. } => found.broken.push(format!("{marker} is forgotten")),
            Promise::Switched { file, set } => found.switched(history, ack, file, *set, at),
        }
    }
    found.tokens(&ledger);
    found.broken
}

/// True if a claim's name outlived its content: nobody makes either durable.
pub(super) fn has_emptied_lock(root: &Path) -> bool {
    let locks = files(&Layout::new(root).tasks());
    let mut locks = locks.iter().filter(|path| path.extension() == Some(OsStr::new("lock")));
    locks.any(|path| decode::<Lock>(&fs::read(path).unwrap_or_default()).is_err())
}

/// What a log below `dir` has committed, and what is wrong with it.
fn log_of(dir: &Path) -> (Vec<String>, Vec<String>) {
    let (mut bodies, mut wrong) = (Vec::new(), Vec::new());
    for path in files(dir) {
        let is_segment = path.file_name().and_then(OsStr::to_str).and_then(Layout::segment_seq).is_some();
        if !is_segment {
            continue;
        }
        let bytes = fs::read(&path).unwrap_or_default();
        let scanned = scan(&bytes, Start::Segment);
        if !scanned.damage.is_empty() || scanned.tail == Tail::Damaged {
            wrong.push(format!("{} is damaged: {:?} {:?}", path.display(), scanned.damage, scanned.tail));
        }
        bodies.extend(scanned.entries.iter().map(|entry| format!("{} {}", entry.seq, entry.body())));
    }
    (bodies, wrong)
}

/// The entries of a ledger, and what is wrong with it.
pub(super) fn ledger_of(layout: &Layout) -> (Vec<String>, Vec<String>) {
    log_of(&layout.ledger())
}

/// The fact that an entry of [`ledger_of`] tells.
pub(super) fn fact_of(entry: &str) -> Option<Fact> {
    let (_, body) = entry.split_once(' ')?;
    serde_json::from_str::<Entry>(body).ok().map(|entry| entry.fact)
}

/// The regular files in a directory, by name.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut files: Vec<PathBuf> =
        entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_file()).collect();
    files.sort();
    files
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| path.is_dir()).collect()
}

/// The elements of a list, or the value itself.
fn values(value: Value) -> Vec<Value> {
    match value {
        Value::Array(list) => list,
        value => vec![value],
    }
}

/// The records of tasks, by where they lie and their id.
type Tasks = BTreeMap<(&'static str, TaskId), TaskRecord>;

struct Found<'a> {
    layout: &'a Layout,
    broken: Vec<String>,
    /// The highest token seen.
    token: u64,
}

impl Found<'_> {
    /// A record that was published whole, or is told as broken.
    fn read<T: DeserializeOwned>(&mut self, path: &Path) -> Option<T> {
        match decode(&fs::read(path).unwrap_or_default()) {
            Ok(record) => Some(record),
            Err(error) => {
                self.broken.push(format!("{}: {error}", path.display()));
                None
            }
        }
    }

    fn ledger(&mut self, history: &History) -> Vec<Fact> {
        let (entries, wrong) = ledger_of(self.layout);
        self.broken.extend(wrong);
        if !history.ledger.starts_with(&entries) {
            let last = entries.last().map_or("nothing", String::as_str);
            self.broken.push(format!("the ledger is no prefix: {} entries, last {last}", entries.len()));
        }
        entries.iter().filter_map(|entry| fact_of(entry)).collect()
    }

    /// Every value that is in shared memory, or on its way there.
    fn memory(&mut self) -> Vec<Value> {
        let mut known = Vec::new();
        for queue in directories(&self.layout.queues()) {
            let updates: Vec<PathBuf> = files(&queue)
                .into_iter()
                .filter(|path| path.extension() == Some(OsStr::new("json")))
                .collect();
            known.extend(updates.iter().filter_map(|path| self.read::<Update>(path)?.value));
        }
        let (journal, wrong) = log_of(&self.layout.journal());
        self.broken.extend(wrong);
        for entry in journal {
            let line = entry.split_once(' ').and_then(|(_, body)| serde_json::from_str::<Line>(body).ok());
            known.extend(line.and_then(|line| line.value));
        }
        let mut dirs = vec![self.layout.store_dir()];
        while let Some(dir) = dirs.pop() {
            for path in files(&dir) {
                known.extend(self.read::<Value>(&path).map(values).into_iter().flatten());
            }
            dirs.extend(directories(&dir));
        }
        for path in files(&self.layout.applied_dir()) {
            self.read::<nightcrew::protocol::journal::Applied>(&path);
        }
        known
    }

    fn tasks(&mut self) -> Tasks {
        let mut tasks = Tasks::new();
        let places = [
            ("new", self.layout.new_tasks()),
            ("open", self.layout.tasks()),
            ("done", self.layout.shelf(Shelf::Done)),
            ("dead", self.layout.shelf(Shelf::Dead)),
        ];
        for (place, dir) in places {
            for path in files(&dir).iter().filter(|path| path.extension() == Some(OsStr::new("json"))) {
                if let Some(record) = self.read::<TaskRecord>(path) {
                    self.token = self.token.max(record.token);
                    tasks.insert((place, record.id.clone()), record);
                }
            }
        }
        tasks
    }

    fn submitted(&mut self, tasks: &Tasks, task: &TaskId, payload: &str) {
        let held: Vec<&TaskRecord> = ["new", "open", "done"]
            .iter()
            .filter_map(|place| tasks.get(&(place, task.clone())))
            .filter(|record| record.payload.get() == payload)
            .collect();
        if held.is_empty() {
            self.broken.push(format!("task {task} is gone"));
        }
    }

    /// True if the task's record says that it is done, and its result lies beside it.
    fn is_done(&self, tasks: &Tasks, task: &TaskId, result: &str) -> bool {
        let done = tasks.get(&("done", task.clone())).is_some_and(|record| record.state == Phase::Done);
        done && text_of(&self.layout.result(task)).trim() == result.trim()
    }

    fn handed_in(&mut self, tasks: &Tasks, task: &TaskId, result: &str) {
        let mut kept = self.is_done(tasks, task, result);
        for dir in directories(&self.layout.outcomes()) {
            for path in files(&dir) {
                let Some(outcome) = self.read::<Outcome>(&path) else { continue };
                self.token = self.token.max(outcome.token);
                if outcome.task == *task && outcome.status == Verdict::Done {
                    let agent = dir.file_name().and_then(OsStr::to_str).and_then(|name| name.parse().ok());
                    let output = self.layout.output(&agent.expect("an agent's name"), task, outcome.token);
                    kept |= text_of(&output) == result;
                }
            }
        }
        if !kept {
            self.broken.push(format!("the result of task {task} is gone"));
        }
    }

    fn ended(&mut self, tasks: &Tasks, ledger: &[Fact], task: &TaskId, result: &str) {
        if !self.is_done(tasks, task, result) {
            self.broken.push(format!("task {task} is no longer done, or its result is gone"));
        }
        let told = ledger.iter().any(|fact| is_end_of(fact, task));
        if !told {
            self.broken.push(format!("the ledger does not tell the end of task {task}"));
        }
    }

    /// The last word on a switch counts, unless the next one was being spoken.
    fn switched(&mut self, history: &History, ack: &Ack, file: &str, set: bool, at: usize) {
        let overruled = history.acks.iter().any(|later| {
            let same = matches!(&later.promise, Promise::Switched { file: of, .. } if *of == file);
            same && later.begun >= ack.at && later.begun < at
        });
        if !overruled && self.layout.state().join(file).exists() != set {
            self.broken.push(format!("{file} is not as it was switched: {set}"));
        }
    }

    fn tokens(&mut self, ledger: &[Fact]) {
        for fact in ledger {
            let token = match fact {
                Fact::Submitted { token, .. } | Fact::Claimed { token, .. } | Fact::Outcome { token, .. } => {
                    token
                }
                Fact::Vacated { next_token, .. } => next_token,
                _ => continue,
            };
            self.token = self.token.max(*token);
        }
        if self.token == 0 {
            return;
        }
        let path = self.layout.tokens();
        let reserved = self.read::<Tokens>(&path).map_or(0, |tokens| tokens.reserved);
        if reserved < self.token {
            self.broken.push(format!("tokens are reserved up to {reserved}, and {} is in use", self.token));
        }
    }
}

/// True if an outcome's status says that its task is done.
pub(super) fn is_done(status: &str) -> bool {
    status == "done"
}

fn is_end_of(fact: &Fact, id: &TaskId) -> bool {
    matches!(fact, Fact::Outcome { task, status, .. } if task == id && is_done(status))
}
