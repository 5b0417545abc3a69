//! Whether a crew that came to rest kept what it promised, whatever was done to it before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use nightcrew::protocol::framing::{self, Start, Tail};
use nightcrew::protocol::layout::{Layout, Shelf};
use nightcrew::protocol::ledger::{Entry, Fact};
use nightcrew::protocol::name::{RunId, TaskId};
use nightcrew::protocol::task::{Phase, TaskRecord};

use crate::crew::{Crew, text_of};

/// The key that everything is appended to.
pub(super) const NOTES: &str = "notes";

/// What must have become of a task by the time the crew is at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fate {
    /// Done once, with this output.
    Done(Option<String>),
    /// It waits for another try after this many failures.
    Failed(u32),
    /// It may be claimed, and nothing was held against it.
    Ready,
    /// A dead letter, after so many accepted failures, each for good: replayed before each but the first. None, if it
    /// was cancelled.
    Dead(u32),
    /// Its result waits for somebody to decide.
    Review,
}

/// What commands said that they took, each with what must come of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Acknowledged {
    pub(super) tasks: BTreeMap<TaskId, Fate>,
    /// What is appended under [`NOTES`].
    pub(super) values: BTreeSet<String>,
}

/// All that is wrong with a crew at rest: nothing of it runs, and nothing was left to do when it ended.
pub(super) fn judge(crew: &Crew, acknowledged: &Acknowledged) -> Vec<String> {
    let mut wrong = Vec::new();
    let facts = read_facts(crew, &mut wrong);
    read_log(&crew.layout.journal(), &mut wrong);
    for (task, fate) in &acknowledged.tasks {
        judge_task(crew, &facts, task, fate, &mut wrong);
    }
    judge_tokens(&facts, &mut wrong);
    judge_memory(crew, &facts, &acknowledged.values, &mut wrong);
    for (pid, command) in crew.processes() {
        wrong.push(format!("left running: {pid} {command}"));
    }
    let waits = |task: &TaskId| {
        acknowledged.tasks.get(task).is_some_and(|fate| matches!(fate, Fate::Failed(_) | Fate::Ready))
    };
    for path in files_below(&crew.layout.state()) {
        let below = path.strip_prefix(crew.layout.state()).expect("below").to_string_lossy().into_owned();
        if !(belongs(&below, waits) || is_kept_of(&below, acknowledged)) {
            wrong.push(format!("left behind: state/{below}"));
        }
    }
    wrong
}

/// All that the ledger tells, which must be whole.
pub(in crate::faults) fn read_facts(crew: &Crew, wrong: &mut Vec<String>) -> Vec<Fact> {
    let lines = read_log(&crew.layout.ledger(), wrong);
    let facts = lines.iter().filter_map(|line| match serde_json::from_str::<Entry>(line) {
        Ok(entry) => Some(entry.fact),
        Err(error) => {
            wrong.push(format!("no entry of the ledger: {error}: {line}"));
            None
        }
    });
    facts.collect()
}

/// Every entry of a log, from its first segment to its last.
fn read_log(dir: &Path, wrong: &mut Vec<String>) -> Vec<String> {
    let paths = files_below(dir).into_iter();
    let seq_of = |path: &Path| Layout::segment_seq(path.file_name()?.to_str()?);
    let mut lines = Vec::new();
    let mut next = 1;
    for (path, first) in paths.filter_map(|path| Some((path.clone(), seq_of(&path)?))) {
        let bytes = fs::read(&path).expect("a segment");
        let found = framing::scan(&bytes, Start::Segment);
        let whole = found.damage.is_empty() && found.tail == Tail::Clean && found.header.is_some();
        if !whole || first != next {
            let (damage, tail) = (&found.damage, found.tail);
            wrong.push(format!("{}: damage {damage:?}, tail {tail:?}, expected from {next}", path.display()));
        }
        next = found.committed.unwrap_or(first) + 1;
        lines.extend(found.entries.iter().map(framing::Committed::body));
    }
    lines
}

fn judge_task(crew: &Crew, facts: &[Fact], task: &TaskId, fate: &Fate, wrong: &mut Vec<String>) {
    let layout = &crew.layout;
    let count = |is: &dyn Fn(&Fact) -> bool| facts.iter().filter(|fact| is(fact)).count();
    let admitted = count(&|fact| matches!(fact, Fact::Submitted { task: of, .. } if of == task));
    if admitted != 1 {
        wrong.push(format!("{task} was admitted {admitted} times"));
    }
    let ended = |wanted: &str| {
        count(
            &|fact| matches!(fact, Fact::Outcome { task: of, status, .. } if of == task && status == wanted),
        )
    };
    let told = (ended("done"), ended("failed"));
    let (path, phases, failures, expected) = match fate {
        Fate::Done(_) => (layout.ended(Shelf::Done, task), &[Phase::Done][..], 0, (1, 0)),
        // Its wait may be over by now.
        Fate::Failed(times) => {
            (layout.task(task), &[Phase::Waiting, Phase::Ready][..], *times, (0, *times as usize))
        }
        Fate::Ready => (layout.task(task), &[Phase::Ready][..], 0, (0, 0)),
        Fate::Dead(times) => {
            (layout.ended(Shelf::Dead, task), &[Phase::Dead][..], (*times).min(1), (0, *times as usize))
        }
        Fate::Review => (layout.ended(Shelf::Review, task), &[Phase::Review][..], 0, (1, 0)),
    };
    if told != expected {
        wrong.push(format!("{task} should be {fate:?}; accepted as done and as failed: {told:?} times"));
    }
    match serde_json::from_str::<TaskRecord>(&text_of(&path)) {
        Ok(record) if phases.contains(&record.state) && record.failures == failures && record.id == *task => {
        }
        Ok(record) => wrong.push(format!("{task} should be {fate:?} and is {record:?}")),
        Err(error) => wrong.push(format!("{task} should be {fate:?}; {}: {error}", path.display())),
    }
    if let Fate::Done(Some(output)) = fate {
        let found = text_of(&layout.result(task));
        if found != *output {
            wrong.push(format!("the result of {task} should be {output:?} and is {found:?}"));
        }
    }
}

/// A token belongs to one owner of one task and is never given out again; of a task they rise.
pub(in crate::faults) fn judge_tokens(facts: &[Fact], wrong: &mut Vec<String>) {
    let mut given: BTreeMap<u64, &TaskId> = BTreeMap::new();
    let mut last: BTreeMap<&TaskId, u64> = BTreeMap::new();
    let mut owners = BTreeMap::new();
    let mut held: BTreeMap<&TaskId, u64> = BTreeMap::new();
    // A handler's claim is told of before its lock is laid and its process started: after a kill in between nobody
    // ever owned the task.
    let started: BTreeSet<&RunId> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Started { run, .. } => Some(run),
            _ => None,
        })
        .collect();
    let mut concluded = BTreeSet::new();
    for fact in facts {
        match fact {
            Fact::Submitted { task, token, .. }
            | Fact::Replayed { task, token, .. }
            | Fact::Vacated { task, next_token: token, .. } => {
                // A kill before a lock is removed lets the ledger tell once more why it goes.
                if *given.entry(*token).or_insert(task) != task {
                    wrong.push(format!("token {token} was given out twice: {fact}"));
                }
                if last.insert(task, *token).is_some_and(|before| before > *token) {
                    wrong.push(format!("the tokens of {task} do not rise: {fact}"));
                }
            }
            Fact::Claimed { task, token, agent, run } => {
                let owner = (agent, run);
                let is_owner = run.as_ref().is_none_or(|run| started.contains(run));
                if is_owner && *owners.entry((task, token)).or_insert(owner) != owner {
                    wrong.push(format!("{task} has two owners with token {token}: {fact}"));
                }
                // Not compared with what the ledger says is next: that is told before it is durable.
                if held.insert(task, *token).is_some_and(|before| before > *token) {
                    wrong.push(format!("{task} is held with an old token: {fact}"));
                }
            }
            Fact::Outcome { task, token, .. } if !concluded.insert((task, token)) => {
                wrong.push(format!("accepted twice: {fact}"));
            }
            Fact::OutcomeRefused { .. }
            | Fact::Alert { .. }
            | Fact::Rejected { .. }
            | Fact::UpdateGap { .. } => {
                wrong.push(format!("it should not have come to this: {fact}"));
            }
            _ => {}
        }
    }
}

fn judge_memory(crew: &Crew, facts: &[Fact], acknowledged: &BTreeSet<String>, wrong: &mut Vec<String>) {
    let list = crew.value(NOTES).unwrap_or_else(|| serde_json::json!([]));
    let Ok(list) = serde_json::from_value::<Vec<String>>(list.clone()) else {
        wrong.push(format!("memory holds {list} instead of a list"));
        return;
    };
    let applied: BTreeSet<&String> = list.iter().collect();
    if applied.len() != list.len() {
        wrong.push(format!("memory holds a value twice: {list:?}"));
    }
    wrong.extend(
        acknowledged.iter().filter(|value| !applied.contains(value)).map(|value| format!("{value} is lost")),
    );
    let ids: Vec<&String> = facts
        .iter()
        .filter_map(|fact| match fact {
            Fact::Updated { id, key, .. } if key.as_str() == NOTES => Some(id),
            _ => None,
        })
        .collect();
    let distinct = ids.iter().collect::<BTreeSet<_>>().len();
    if (ids.len(), distinct) != (list.len(), list.len()) {
        let told = ids.len();
        wrong.push(format!("{} values in memory, {told} told of, {distinct} of them distinct", list.len()));
    }
}

/// All that is no directory, by name.
pub(in crate::faults) fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let entries = fs::read_dir(dir).into_iter().flatten();
    for path in entries.map(|entry| entry.expect("an entry").path()) {
        if fs::symlink_metadata(&path).expect("it is there").is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// True for a file that a crew at rest has: in particular no temporary one, no pipe of a run that is gone, nothing
/// that was not dealt with, and no lock but of a task that `waits`.
pub(in crate::faults) fn belongs(below: &str, waits: impl Fn(&TaskId) -> bool) -> bool {
    let parts: Vec<&str> = below.split('/').collect();
    let (stem, ending) =
        below.rsplit_once('/').map_or(below, |(_, file)| file).rsplit_once('.').unwrap_or_default();
    match (&parts[..], ending) {
        (["tasks", _], "json") => stem.parse().is_ok_and(|task| waits(&task)),
        (["memory", "store", _], "json") => stem == NOTES,
        // What a write that was cut short left is kept for people.
        (["ledger", file] | ["memory", "journal", file], _) => {
            Layout::segment_seq(file).is_some() || is_torn(file)
        }
        // By the protocol a void lock is kept to be looked at, and a kill before it is removed leaves one.
        (["tasks", "refused", _], _) => ending == "lock",
        (["tasks", "done", _], _) => ["json", "output"].contains(&ending),
        (["status", _], _) => ["json", "heartbeat", "canary"].contains(&ending),
        (["logs", _], _) => ["log", "idx"].contains(&ending),
        (
            ["finished" | "stopped", _] | ["tasks", "ready", _] | ["memory", "applied", _] | ["scratch", ..],
            _,
        ) => true,
        _ => ["crew.json", "supervisor.lock", "tasks/tokens"].contains(&below),
    }
}

/// True for what is kept of a task that did not end well, and for what was paid for in one.
fn is_kept_of(below: &str, acknowledged: &Acknowledged) -> bool {
    let parts: Vec<&str> = below.split('/').collect();
    let fate = |file: &str| acknowledged.tasks.get(file.split('.').next()?.parse::<TaskId>().ok().as_ref()?);
    match parts[..] {
        ["tasks", "dead", file] => matches!(fate(file), Some(Fate::Dead(_))),
        ["tasks", "review", file] => matches!(fate(file), Some(Fate::Review)),
        // A lock that nobody holds is left where its holder was killed, and goes with the step.
        ["steps", "tasks", task, _] => ["step", "lock"].contains(&ending_of(below)) && fate(task).is_some(),
        _ => false,
    }
}

fn ending_of(file: &str) -> &str {
    file.rsplit_once('.').map_or("", |(_, ending)| ending)
}

fn is_torn(file: &str) -> bool {
    file.split_once(".jsonl.torn-").is_some_and(|(_, n)| n.parse::<u32>().is_ok())
}
