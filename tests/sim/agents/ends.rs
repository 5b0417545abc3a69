//! How agents end tasks: what they submit within them, and the gates that judge their results.

use std::path::PathBuf;

use nightcrew::edge::processes::Launch;
use nightcrew::edge::store::Store;
use nightcrew::protocol::name::{Kind, TaskId};
use nightcrew::protocol::process::Ending;
use nightcrew::protocol::record::encode;
use nightcrew::protocol::task::{TaskRecord, Wishes};

use super::{Hands, Me, Next, Program, variable};
use crate::cast::{CLAIMED, HANDLED};
use crate::oracle::Held;
use crate::world::World;
use nightcrew::protocol::variables::ENV_TASK;

/// What is submitted within tasks is done within them no deeper than this, told by its name's length.
const WITHIN_LEN_MAX: usize = 9;
/// Longer than any gate may take.
const TOO_LONG_MS: u64 = 70_000;

/// A gate at its work.
pub(crate) struct Gate {
    task: TaskId,
    /// What it reads.
    result: Option<PathBuf>,
    began: bool,
}

/// The gate that an order starts.
pub(super) fn gate(world: &World, launch: &Launch) -> Program {
    let task: Option<TaskId> = variable(launch, ENV_TASK).and_then(|task| task.parse().ok());
    let task = task.expect("a gate is told of its task");
    world.oracle.borrow_mut().judging(world, &task);
    Program::Gate(Gate { task, result: launch.stdin.clone(), began: false })
}

impl Hands<'_> {
    /// Lets a gate do its next thing.
    pub(super) fn judge(&self, gate: &mut Gate) -> Next {
        let world = self.world;
        let odd = !world.is_calm() && world.chance(world.options.gates_refuse);
        if !gate.began {
            gate.began = true;
            let slow = odd && world.chance(0.3);
            return Next::Wait(if slow { TOO_LONG_MS } else { world.below(300) as u64 });
        }
        let ending = match world.below(4) {
            _ if !odd => Ending::Code(0),
            0 => Ending::Signal(11),
            code => Ending::Code(i32::try_from(code).unwrap_or(1)),
        };
        let result = gate.result.as_ref().and_then(|path| world.disk.text(path));
        world.tell(|| format!("the gate judges {}: {ending}", gate.task));
        if ending == Ending::Code(0) {
            world.oracle.borrow_mut().passed(&gate.task, result);
        }
        Next::Exit(ending)
    }

    /// Submits tasks within the one that it works on, durably: they count if that is done with this claim.
    pub(super) fn submit_within(&self, me: &Me, held: &Held) {
        let world = self.world;
        if held.task.as_str().len() > WITHIN_LEN_MAX || !world.chance(world.options.within) {
            return;
        }
        for n in 0..=world.below(2) {
            let id: TaskId = format!("{}-w{n}", held.task).parse().expect("a name");
            let kind: Kind = [HANDLED, CLAIMED][world.below(2)].parse().expect("a name");
            let text = format!("{{\"of\":\"{id}\",\"within\":\"{}\"}}", held.nonce);
            let payload = serde_json::value::RawValue::from_string(text.clone()).expect("JSON");
            let needs = if world.chance(0.2) { vec![held.task.clone()] } else { Vec::new() };
            let wishes = Wishes { needs, ..Wishes::default() };
            world.oracle.borrow_mut().submitting_within(held, &id, &text);
            let (nonce, at, by) = (format!("{:x}", world.random()), world.time.wall(), me.agent.to_string());
            let record = TaskRecord::submission(id.clone(), nonce, kind, at, by, payload, wishes);
            let path = world.layout.bound(&held.agent, &held.bound(&id));
            let Ok(temp) = self.client(Some(me)).temp() else { return };
            let told = self.handle.publish(&temp, &path, &encode(&record));
            world.tell(|| format!("{id} is submitted within {held:?}: {told:?}"));
            if told.is_ok() {
                world.oracle.borrow_mut().submitted_within(held, &id);
            }
        }
    }
}
