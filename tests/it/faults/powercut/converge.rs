//! What nightcrew makes of what a power cut left: all that was promised is brought to its end, and that once.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use serde_json::Value;

use super::check::{fact_of, is_done, ledger_of};
use super::workload::{HANDLER, History, LIST, Promise};
use crate::crew::{Crew, text_of};

/// Starts nightcrew on what lies below `root` until nothing is left to do; tells what it did not make good.
pub(super) fn unfinished(root: &Path, history: &History, at: usize) -> Vec<String> {
    let mut crew = Crew::at(root);
    // An operator lets the crew go on, with somebody for every task and nobody who makes new work.
    for left in ["state/HALT", "state/stopped/idler", "agents/diarist.sh"] {
        let _ = fs::remove_file(crew.path(left));
    }
    crew.agent("puller.sh", &HANDLER.replace("echo", "pull"));
    crew.spawn_supervisor(&["--until-idle"], &[]);
    let status = crew.supervisors_end();
    let mut wrong = Vec::new();
    if !status.success() {
        wrong.push(format!("the supervisor ended with {status}\n{}", crew.told()));
    }
    let ends = ends(&crew);
    wrong.extend(ends.iter().filter(|(_, times)| **times > 1).map(|(id, n)| format!("{id} ended {n} times")));
    let list = crew.value(LIST).and_then(|value| value.as_array().cloned()).unwrap_or_default();
    for ack in history.acks.iter().filter(|ack| ack.at <= at) {
        match &ack.promise {
            Promise::Submitted { task, .. } if ends.contains_key(task) && crew.is_done(task) => {}
            Promise::Submitted { task, .. } => wrong.push(format!("task {task} was never done")),
            Promise::HandedIn { task, result } | Promise::Ended { task, result } => {
                if text_of(&crew.layout.result(task)).trim() != result.trim() {
                    wrong.push(format!("task {task} has another result than was handed in"));
                }
            }
            Promise::Remembered { key, marker } => {
                let marker = Value::from(marker.as_str());
                let times = list.iter().filter(|value| **value == marker).count();
                let kept = if key == LIST { times == 1 } else { crew.value(key).as_ref() == Some(&marker) };
                if !kept {
                    wrong.push(format!("{key} holds {marker} {times} times"));
                }
            }
            Promise::Switched { .. } => {}
        }
    }
    let mut once = list.iter().map(Value::to_string).collect::<Vec<_>>();
    once.sort();
    wrong.extend(
        once.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| format!("{} came twice", pair[0])),
    );
    if !wrong.is_empty() {
        wrong.push(crew.told());
    }
    wrong
}

/// How often the ledger tells the end of each task.
fn ends(crew: &Crew) -> BTreeMap<TaskId, usize> {
    let mut ends = BTreeMap::new();
    for fact in ledger_of(&crew.layout).0.iter().filter_map(|entry| fact_of(entry)) {
        if let Fact::Outcome { task, status, .. } = fact
            && is_done(&status)
        {
            *ends.entry(task).or_default() += 1;
        }
    }
    ends
}
