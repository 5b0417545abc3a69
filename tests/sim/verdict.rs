//! What must be so in the end, when nothing goes wrong any more and all has come to rest.

use std::collections::BTreeMap;

use nightcrew::protocol::ledger::{Entry, Fact};
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::task::Verdict;

use crate::agents::result_of;
use crate::oracle::Handed;
use crate::requests;
use crate::survival::{self, Tasks};
use crate::world::World;

/// Holds what is on the disk against what was promised.
pub(crate) fn judge(world: &World) {
    people_hear(world);
    let facts = ledger(world);
    let all = Tasks::new(world);
    tasks(world, &all);
    survival::judge(world, &facts, &all);
    outcomes(world, &facts);
    memory(world);
}

/// All entries of the ledger.
pub(crate) fn ledger(world: &World) -> Vec<Fact> {
    let handle = world.disk.process();
    let dir = world.layout.ledger();
    let opened = nightcrew::edge::log::SegmentedLog::open(handle, &dir);
    let lines = opened.and_then(|(log, _)| log.tail(u64::MAX));
    match lines {
        Err(error) => {
            world.violate(format!("the ledger cannot be read: {error}"));
            Vec::new()
        }
        Ok(lines) => {
            let mut oracle = world.oracle.borrow_mut();
            oracle.ledger_opened(&lines);
            let mut known = oracle.ledger.iter().peekable();
            let fact = |line: &String| match known.next_if(|told| told.line == *line) {
                Some(told) => Some(told.fact.clone()),
                // Nobody was told of its commit, because of a kill.
                None => Some(serde_json::from_str::<Entry>(line).ok()?.fact),
            };
            lines.iter().map(|(_, line)| line).filter_map(fact).collect()
        }
    }
}

/// Whoever waits for an answer still takes it.
fn people_hear(world: &World) {
    requests::hear(world, &world.disk.process());
}

/// A submission that could never be done is put aside, with the reason.
fn closes_a_cycle(world: &World, id: &TaskId) -> bool {
    let reason = world.disk.text(&world.layout.rejected_tasks().join(format!("{id}.reason")));
    reason.is_some_and(|bytes| String::from_utf8_lossy(&bytes).contains("lead back"))
}

/// Every acknowledged task ended, once, as what it was submitted as; or is left to a person, or waits for another.
fn tasks(world: &World, all: &Tasks) {
    let oracle = world.oracle.borrow();
    let mut wrong = Vec::new();
    for (id, submission) in &oracle.submissions {
        match all.of(id).as_slice() {
            [] if submission.acknowledged && !closes_a_cycle(world, id) => {
                wrong.push(format!("task {id} was acknowledged, and is gone"));
            }
            [] => {}
            [record] => {
                let payload = record.payload.get();
                let same = |(kind, text): &(_, String)| *kind == record.kind && text == payload;
                if !submission.tried.iter().any(same) {
                    wrong.push(format!(
                        "task {id} ended as {} {payload}, which nobody submitted",
                        record.kind
                    ));
                }
            }
            [_, _, ..] => wrong.push(format!("task {id} lies in two places")),
        }
    }
    drop(oracle);
    for what in wrong {
        world.violate(what);
    }
}

/// What the ledger accepted came from owners, once for each token; what an owner handed in in time was accepted.
fn outcomes(world: &World, facts: &[Fact]) {
    let oracle = world.oracle.borrow();
    let mut wrong = Vec::new();
    let mut accepted: BTreeMap<(&TaskId, u64), (&str, &str)> = BTreeMap::new();
    let mut ended: BTreeMap<&TaskId, bool> = BTreeMap::new();
    for fact in facts {
        match fact {
            Fact::Submitted { task, .. } | Fact::Replayed { task, .. } => drop(ended.insert(task, false)),
            Fact::Judged { task, token, next, .. } if next == "done" => {
                let nonce = accepted.get(&(task, *token)).map_or("", |(_, nonce)| *nonce);
                wrong.extend(result(world, &oracle.handed, task, *token, nonce, facts));
            }
            Fact::Outcome { task, token, nonce, status, next, .. } => {
                // Where a power cut took the lock, or nobody had claimed yet, the token alone proves a claim.
                let boot = world.kernel.borrow().boot_id();
                let grants = oracle.grants.get(task).map_or(&[][..], Vec::as_slice);
                let mut held = grants.iter().filter(|grant| grant.token == *token);
                let known = grants.iter().any(|grant| grant.token == *token && grant.nonce == *nonce);
                if !known && held.any(|grant| grant.is_of_this_boot(&boot)) {
                    wrong.push(format!(
                        "an outcome of {task} with token {token} was accepted from no owner: {nonce}"
                    ));
                }
                let said = grants.iter().find(|grant| grant.token == *token && grant.nonce == *nonce);
                if status == "done" && said.is_some_and(|grant| !grant.said_done()) {
                    wrong.push(format!("{task} with token {token} is done, which its owner never said"));
                }
                if accepted.insert((task, *token), (status, nonce)).is_some() {
                    wrong.push(format!("two outcomes of {task} with token {token} were accepted"));
                }
                if next == "done" || next == "dead" {
                    if ended.insert(task, true) == Some(true) {
                        wrong.push(format!("task {task} ended twice"));
                    }
                    if next == "done" {
                        wrong.extend(result(world, &oracle.handed, task, *token, nonce, facts));
                    }
                }
            }
            _ => {}
        }
    }
    for Handed { held, verdict } in &oracle.handed {
        let found = accepted.get(&(&held.task, held.token));
        let said = match verdict {
            Verdict::Done => "done",
            Verdict::Failed => "failed",
            Verdict::Retry => "retry",
            Verdict::Released => continue,
        };
        // Where a power cut took the lock, nothing tells what was forged with the right token from the real one.
        let forged = |nonce: &str| nonce.starts_with("forged") && world.kernel.borrow().boot > 1;
        if !found.is_some_and(|(status, nonce)| *status == said || forged(nonce)) {
            let (task, token) = (&held.task, held.token);
            wrong.push(format!(
                "{verdict:?} of {task} with token {token} was handed in, and came to {found:?}"
            ));
        }
    }
    drop(oracle);
    for what in wrong {
        world.violate(what);
    }
}

/// The result of a task that is done is what its owner handed in.
fn result(
    world: &World,
    handed: &[Handed],
    task: &TaskId,
    token: u64,
    nonce: &str,
    facts: &[Fact],
) -> Option<String> {
    let own = handed.iter().find(|handed| {
        handed.held.task == *task && handed.held.token == token && handed.held.nonce == nonce
    })?;
    // A later life of the task has its own.
    let last = facts.iter().rev().find_map(|fact| match fact {
        Fact::Outcome { task: of, token, next, .. } | Fact::Judged { task: of, token, next, .. }
            if of == task && next == "done" =>
        {
            Some(*token)
        }
        _ => None,
    });
    if last != Some(token) || own.verdict != Verdict::Done {
        return None;
    }
    let found = world.disk.text(&world.layout.result(task)).unwrap_or_default();
    let wanted = result_of(&own.held);
    (found != wanted.as_bytes()).then(|| {
        format!("the result of {task} is {:?}, and {wanted:?} was handed in", String::from_utf8_lossy(&found))
    })
}

/// Every acknowledged value was appended once; any other at most once.
fn memory(world: &World) {
    let oracle = world.oracle.borrow();
    let mut wrong = Vec::new();
    for (key, values) in &oracle.values {
        let bytes = world.disk.text(&world.layout.value(key)).unwrap_or_else(|| b"[]".to_vec());
        let Ok(found) = serde_json::from_slice::<Vec<String>>(&bytes) else {
            wrong.push(format!("the value of {key} is not whole"));
            continue;
        };
        for (value, acknowledged) in values {
            match (found.iter().filter(|found| *found == value).count(), acknowledged) {
                // Where a value could not be read, what was to be added to it is put aside, and said.
                (0, true) if world.is_put_aside(value) => {}
                (0, true) => wrong.push(format!("{value} was acknowledged, and is not in {key}")),
                (0, false) | (1, _) => {}
                (n, _) => wrong.push(format!("{value} is in {key} {n} times")),
            }
        }
    }
    drop(oracle);
    for what in wrong {
        world.violate(what);
    }
}
