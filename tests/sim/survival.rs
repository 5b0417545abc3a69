//! What must be so in the end of how tasks ended: judged, handed on, followed by what was submitted within them, given
//! up no sooner than declared.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use nightcrew::protocol::layout::{BoundName, Shelf};
use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::{AgentName, TaskId};
use nightcrew::protocol::record;
use nightcrew::protocol::task::{TaskRecord, id_from_key};
use serde_json::Value;

use crate::cast::{AGENTS, CLAIMED};
use crate::promises::Within;
use crate::world::World;

/// How often owners must have died before that is a reason to give a task up, and how that is told.
const DEATHS_MAX: usize = 5;
const POISON: &str = "its owner died holding it";
/// How often a failed task is tried again where nothing is declared.
const RETRIES_DEFAULT: u32 = 3;
/// What simulated owners say of a failure: not the code of an exit, which may have a meaning of its own.
const SAID: &str = "simulated";

/// Records by their ids.
type Records = BTreeMap<TaskId, TaskRecord>;

/// All tasks there are.
pub(crate) struct Tasks {
    open: Records,
    shelves: [Records; 3],
}

impl Tasks {
    pub(crate) fn new(world: &World) -> Self {
        let of = |dir: PathBuf| {
            let ids = crate::requests::ids_in(world, &dir).into_iter();
            let record = |id: &TaskId| {
                record::decode::<TaskRecord>(&world.disk.text(&dir.join(format!("{id}.json")))?).ok()
            };
            ids.filter_map(|id| Some((id.clone(), record(&id)?))).collect()
        };
        let shelves = Shelf::ALL.map(|shelf| of(world.layout.shelf(shelf)));
        Self { open: of(world.layout.tasks()), shelves }
    }

    fn on(&self, shelf: Shelf) -> &Records {
        let at = Shelf::ALL.iter().position(|one| *one == shelf).unwrap_or(0);
        &self.shelves[at]
    }

    /// A task's records, wherever they lie.
    pub(crate) fn of(&self, id: &TaskId) -> Vec<&TaskRecord> {
        std::iter::once(&self.open).chain(&self.shelves).filter_map(|records| records.get(id)).collect()
    }
}

/// Holds what is on the disk against what was promised.
pub(crate) fn judge(world: &World, facts: &[Fact], tasks: &Tasks) {
    let mut wrong = Vec::new();
    submitted_within(world, tasks, &mut wrong);
    handed_on(world, facts, tasks, &mut wrong);
    judged(world, facts, tasks, &mut wrong);
    given_up(world, facts, &mut wrong);
    decided(world, tasks, &mut wrong);
    for what in wrong {
        world.violate(what);
    }
}

/// What an owner submitted within a task is there if and only if that task is done by its claim.
fn submitted_within(world: &World, tasks: &Tasks, wrong: &mut Vec<String>) {
    let oracle = world.oracle.borrow();
    for Within { of, id, payload, acknowledged } in &oracle.promises.within {
        let ended = |shelf| {
            let record = tasks.on(shelf).get(&of.task);
            record.is_some_and(|it| it.token == of.token && it.decided.contains(&of.nonce))
        };
        let is_there = tasks.of(id).iter().any(|record| record.payload.get() == payload);
        let told = format!("{id} was submitted within {} with token {}", of.task, of.token);
        if is_there && !ended(Shelf::Done) {
            wrong.push(format!("{told}, and is there without it"));
        } else if *acknowledged && ended(Shelf::Done) && !is_there {
            wrong.push(format!("{told}, which is done, and is gone"));
        }
        let kept = || world.disk.text(&world.layout.bound(&of.agent, &of.bound(id))).is_some();
        if *acknowledged && ended(Shelf::Review) && !kept() {
            wrong.push(format!("{told}, which is in review, and is gone"));
        }
    }
    for agent in AGENTS.iter().copied().chain(["operator"]) {
        let agent: AgentName = agent.parse().expect("a name");
        for name in world.disk.names(&world.layout.bound_of(&agent)) {
            let waits = BoundName::parse(&name).is_some_and(|bound| {
                let record = tasks.on(Shelf::Review).get(&bound.task);
                record.is_some_and(|record| record.token == bound.token)
            });
            if !waits {
                wrong.push(format!("bound/{agent}/{name} is left"));
            }
        }
    }
}

/// By whom a task was done.
fn done_by<'f>(facts: &'f [Fact], id: &TaskId, token: u64) -> Option<&'f AgentName> {
    facts.iter().rev().find_map(|fact| match fact {
        Fact::Outcome { task, token: with, agent, status, .. }
            if task == id && *with == token && status == "done" =>
        {
            Some(agent)
        }
        _ => None,
    })
}

/// A result is handed on once if its handler declares that, and else never.
fn handed_on(world: &World, facts: &[Fact], tasks: &Tasks, wrong: &mut Vec<String>) {
    let kind = CLAIMED.parse().expect("a name");
    let mut expected = BTreeSet::new();
    for (id, record) in tasks.on(Shelf::Done) {
        let next = id_from_key(&kind, &format!("then {id} {}", record.nonce));
        let Some(by) = done_by(facts, id, record.token) else {
            wrong.push(format!("task {id} is done, and the ledger does not tell by whom"));
            continue;
        };
        let by_which = record.decided.last();
        let nothing = by_which.is_some_and(|nonce| world.oracle.borrow().said_nothing(id, nonce));
        if nothing || !world.options.cast.ends(by.as_str()).then {
            continue;
        }
        match tasks.of(&next).as_slice() {
            [] => wrong.push(format!("the result of {id}, by {by}, was not handed on")),
            all => {
                let text = world.disk.text(&world.layout.result(id));
                let text = text.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                let wanted = text.map_or(Value::Null, |text| {
                    serde_json::from_str(&text).unwrap_or_else(|_| Value::from(text))
                });
                // What the disk did not let be read is told by its place.
                let place = serde_json::json!({ "output_file": world.layout.result(id) });
                let unread = world.options.disk_faults > 0.0;
                for found in all.iter().filter(|found| {
                    let payload = serde_json::from_str::<Value>(found.payload.get()).ok();
                    payload.as_ref() != Some(&wanted) && !(unread && payload.as_ref() == Some(&place))
                }) {
                    wrong.push(format!("{wanted} of {id} was handed on as {}", found.payload));
                }
            }
        }
        expected.insert(next);
    }
    let all = std::iter::once(&tasks.open).chain(&tasks.shelves).flatten();
    for (id, _) in all.filter(|(id, record)| record.nonce.ends_with("-then") && !expected.contains(id)) {
        wrong.push(format!("{id} was handed on, and nothing that is done says so"));
    }
}

/// What has a gate is done only if that let the very result pass, or a person did.
fn judged(world: &World, facts: &[Fact], tasks: &Tasks, wrong: &mut Vec<String>) {
    let oracle = world.oracle.borrow();
    for fact in facts {
        if let Fact::Outcome { task, nonce, agent, status, next, .. } = fact
            && status == "done"
            && !oracle.said_nothing(task, nonce)
            && (next == "done") == world.options.cast.ends(agent.as_str()).gate
        {
            wrong.push(format!("{agent} ended {task}, and next was {next}"));
        }
    }
    for (id, record) in tasks.on(Shelf::Done) {
        let by = done_by(facts, id, record.token);
        let is_judged = !record.decided.last().is_some_and(|nonce| oracle.said_nothing(id, nonce));
        if is_judged && by.is_some_and(|by| world.options.cast.ends(by.as_str()).gate) {
            let result = world.disk.text(&world.layout.result(id));
            if !oracle.promises.has_passed(id, result.as_ref()) {
                let result = result.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
                wrong.push(format!("task {id} is done with {result:?}, which nobody let pass"));
            }
        }
    }
}

/// Tasks are tried as often as their handlers declare, and their owners' deaths count only where they are theirs.
fn given_up(world: &World, facts: &[Fact], wrong: &mut Vec<String>) {
    let mut failures: BTreeMap<&TaskId, u32> = BTreeMap::new();
    for fact in facts {
        match fact {
            Fact::Submitted { task, .. } | Fact::Replayed { task, .. } => drop(failures.remove(task)),
            Fact::Outcome { task, status, error, .. }
                if status == "failed" && error.as_ref().is_some_and(|why| why.starts_with(POISON)) =>
            {
                let deaths = world.oracle.borrow().deaths(&world.kernel.borrow(), task);
                if deaths < DEATHS_MAX {
                    wrong.push(format!("task {task} was given up after {deaths} deaths of its owners"));
                }
            }
            Fact::Outcome { task, status, error, next, agent, .. } if status == "failed" => {
                let failures = failures.entry(task).or_default();
                *failures += 1;
                let most = world.options.cast.ends(agent.as_str()).retries.unwrap_or(RETRIES_DEFAULT);
                let again = next.starts_with("again");
                let said = error.as_ref().is_some_and(|why| why == SAID);
                if again && *failures > most || !again && said && *failures <= most {
                    wrong.push(format!("after failure {failures} of {task}, by {agent}, next was {next}"));
                }
            }
            _ => {}
        }
    }
}

/// What was granted to people stays so.
fn decided(world: &World, tasks: &Tasks, wrong: &mut Vec<String>) {
    let oracle = world.oracle.borrow();
    for asked in oracle.promises.granted() {
        let id = &asked.task;
        let found = tasks.of(id);
        let stays = asked.granted.is_some_and(|shelf| {
            shelf == Shelf::Review || found.len() == 1 && tasks.on(shelf).contains_key(id)
        });
        if !stays {
            wrong.push(format!("{:?} was granted, {:?}, and that is so no more", asked.ask, asked.granted));
        }
    }
}
