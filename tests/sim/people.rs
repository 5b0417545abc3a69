//! Simulated people and programs outside the crew: they submit, look after dead letters, set switches.

use nightcrew::app::client::submit::{Order, Payload, Sameness, Submitted};
use nightcrew::app::client::{Caller, Client};
use nightcrew::edge::store::Store;
use nightcrew::protocol::layout::Shelf;
use nightcrew::protocol::name::Kind;
use nightcrew::protocol::request::Ask;
use nightcrew::protocol::task::{TaskRecord, Wishes};
use serde_json::value::RawValue;

use crate::agents::Program;
use crate::cast::{AGENTS, CANARY, CLAIMED, HANDLED};
use crate::disk::Handle;
use crate::kernel::{INIT, Manners};
use crate::requests;
use crate::world::World;

pub(crate) fn client(world: &World, handle: &Handle) -> Client<Handle> {
    let random = fastrand::Rng::with_seed(world.random());
    Client::new(handle.clone(), world.layout.clone(), Caller::Operator, 99, random)
}

/// One thing that somebody does; they may be killed at it.
pub(crate) fn act(world: &World) {
    let handle = world.disk.process();
    if world.chance(world.options.commands_killed) {
        handle.kill_after(world.below(10) as u64);
    }
    match world.below(20) {
        0..=10 => {
            let kinds = [HANDLED, CLAIMED, HANDLED, CLAIMED, CANARY];
            submit(world, &handle, kinds[world.below(kinds.len())]);
        }
        11 | 12 => drop(replay(world, &handle)),
        13 => {
            let mut client = client(world, &handle);
            // Whether it worked shows in the crew.
            let _ = if world.chance(0.3) {
                client.halt("simulated").map(drop)
            } else {
                client.resume().map(drop)
            };
        }
        14 => {
            let agent = AGENTS[world.below(AGENTS.len())].parse().expect("a name");
            let mut client = client(world, &handle);
            let _ = if world.chance(0.3) {
                client.stop(&agent, "simulated").map(drop)
            } else {
                client.start(&agent).map(drop)
            };
        }
        15 => drop(client(world, &handle).ask(Ask::Restart { agents: Vec::new() })),
        16 => world.edit_agent(),
        _ if !world.kernel.borrow().has_room() => {}
        _ => {
            let outsider = world.disk.process();
            let program = Program::Outsider { held: None };
            world.kernel.borrow_mut().spawn(INIT, None, Manners::Civil, outsider, program, 0);
        }
    }
    handle.kill();
}

/// Submits a task, sometimes one that was submitted before.
pub(crate) fn submit(world: &World, handle: &Handle, kind: &str) {
    let kind: Kind = kind.parse().expect("a name");
    let id = world.oracle.borrow_mut().id_to_submit(world.below(8));
    let text = format!("{{\"of\":\"{id}\",\"kind\":\"{kind}\"}}");
    let payload = Payload::parse(text.as_bytes()).expect("JSON");
    world.oracle.borrow_mut().submitting(&id, &kind, &text);
    let is_new = world.oracle.borrow().promises.life(&id) == 1;
    let wishes = if is_new && !world.is_calm() { requests::wishes(world, &id) } else { Wishes::default() };
    if wishes != Wishes::default() {
        world.oracle.borrow_mut().promises.wished(&id, &wishes);
        let (nonce, payload) = (format!("{:x}", world.random()), RawValue::from_string(text).expect("JSON"));
        let (at, by) = (world.time.wall(), "operator".to_owned());
        let record = TaskRecord::submission(id.clone(), nonce, kind, at, by, payload, wishes);
        if requests::publish(world, handle, &record) {
            world.oracle.borrow_mut().submitted(&id);
        }
        return;
    }
    let same = Sameness::Id(id.clone());
    let order = Order { kind, payload, same, wishes: Wishes::default() };
    let told = client(world, handle).submit(order, None, world.time.wall());
    world.tell(|| format!("{id} is submitted: {told:?}"));
    if let Ok(Submitted::Accepted(_) | Submitted::Duplicate(_)) = told {
        world.oracle.borrow_mut().submitted(&id);
    }
}

/// Moves a dead letter back, as the documentation says: with `mv`, and here made durable; false if there
/// is none.
pub(crate) fn replay(world: &World, handle: &Handle) -> bool {
    let layout = &world.layout;
    let ids = requests::ids_in(world, &layout.shelf(Shelf::Dead));
    if ids.is_empty() {
        return false;
    }
    let id = &ids[world.below(ids.len())];
    let (from, to) = (layout.ended(Shelf::Dead, id), layout.new_task(id));
    // `mv -n`: never over what somebody else submits at this moment.
    if world.disk.text(&to).is_some() {
        return false;
    }
    // From now on it may live again, whether its mover hears of it or not.
    world.oracle.borrow_mut().promises.is_moved_back(id);
    let moved = handle.rename(&from, &to);
    let durable = moved.and_then(|()| handle.sync_dir(&layout.new_tasks()));
    let durable = durable.and_then(|()| handle.sync_dir(&layout.shelf(Shelf::Dead)));
    world.tell(|| format!("{id} is replayed: {durable:?}"));
    if durable.is_ok() {
        world.oracle.borrow_mut().replayed(id);
    }
    durable.is_ok()
}

/// An operator has all agents started again, their failures forgotten.
pub(crate) fn forget_failures(world: &World, handle: &Handle) {
    client(world, handle).ask(Ask::Restart { agents: Vec::new() }).expect("the disk is well");
}
