//! What people ask for single tasks: that they are cancelled, and what becomes of those in review.

use nightcrew::protocol::layout::{RECORD_EXT, Shelf};
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::request::Ask;
use nightcrew::protocol::task::{OnDead, TaskRecord, Wishes};
use nightcrew::protocol::time::Wall;

use crate::disk::Handle;
use crate::people::client;
use crate::world::World;

/// How far ahead of those that were submitted a task may name one that it needs.
const AHEAD_MAX: usize = 6;

/// One thing that somebody decides about a task; they may be killed at it.
pub(crate) fn decide(world: &World) {
    let handle = world.disk.process();
    if world.chance(world.options.commands_killed) {
        handle.kill_after(world.below(10) as u64);
    }
    match world.below(3) {
        0 => review(world, &handle, world.chance(0.6)),
        1 => cancel(world, &handle),
        _ => hear(world, &handle),
    }
    handle.kill();
}

/// The ids whose records lie in a directory.
pub(crate) fn ids_in(world: &World, dir: &std::path::Path) -> Vec<TaskId> {
    let names = world.disk.names(dir);
    let stems = names.iter().filter_map(|name| name.strip_suffix(RECORD_EXT)?.strip_suffix('.'));
    stems.filter_map(|id| id.parse().ok()).collect()
}

fn one_of(world: &World, ids: &[TaskId]) -> Option<TaskId> {
    ids.get(world.below(ids.len())).cloned()
}

fn ask(world: &World, handle: &Handle, task: TaskId, ask: Ask) {
    world.oracle.borrow_mut().promises.asking(&ask);
    let told = client(world, handle).ask(ask.clone());
    world.tell(|| format!("{ask:?} is asked: {told:?}"));
    if let Ok((request, _)) = told {
        world.oracle.borrow_mut().promises.asked(request, ask, task);
    }
}

/// Decides about a task in review.
pub(crate) fn review(world: &World, handle: &Handle, approved: bool) {
    let ids = ids_in(world, &world.layout.shelf(Shelf::Review));
    let Some(task) = one_of(world, &ids) else { return };
    let wanted = if approved {
        Ask::Approve { task: task.clone() }
    } else {
        Ask::Reject { task: task.clone(), why: "simulated".into() }
    };
    ask(world, handle, task, wanted);
}

fn cancel(world: &World, handle: &Handle) {
    let Some(task) = one_of(world, &ids_in(world, &world.layout.tasks())) else { return };
    let wanted = Ask::Cancel { tasks: vec![task.clone()], group: None, why: "simulated".into() };
    ask(world, handle, task, wanted);
}

/// Takes the answers that are there.
pub(crate) fn hear(world: &World, handle: &Handle) {
    let waiting = world.oracle.borrow().promises.unanswered();
    for request in waiting {
        let told = client(world, handle).take_answer(&request);
        if let Ok(Some(answer)) = told {
            world.tell(|| format!("{answer:?} is heard"));
            world.oracle.borrow_mut().answered(world, &request, answer.ok);
        }
    }
}

/// What somebody wishes for a new task.
pub(crate) fn wishes(world: &World, id: &TaskId) -> Wishes {
    let mut wishes = Wishes::default();
    let options = &world.options;
    if world.chance(options.needs) {
        wishes.needs = (0..=world.below(2)).filter_map(|_| need(world, id)).collect();
        wishes.on_dead = if world.chance(0.3) { OnDead::Run } else { OnDead::Fail };
    }
    if world.chance(options.terms_of_time) {
        let Wall(now) = world.time.wall();
        let soon = || Some(Wall(now + i64::try_from(world.below(90_000)).unwrap_or(0)));
        match world.below(3) {
            0 => wishes.not_before = soon(),
            1 => wishes.expires = soon(),
            _ => wishes.priority = i8::try_from(world.below(9)).unwrap_or(0) - 4,
        }
    }
    wishes
}

/// A task that another one may need: known, not known yet, dead, in review, or none that will ever be.
fn need(world: &World, id: &TaskId) -> Option<TaskId> {
    let serial = world.oracle.borrow().serial();
    let shelf = |shelf| one_of(world, &ids_in(world, &world.layout.shelf(shelf)));
    let need = match world.below(10) {
        0 => format!("t{}", serial as usize + 1 + world.below(AHEAD_MAX)).parse().ok(),
        1 => shelf(Shelf::Dead),
        2 | 3 => shelf(Shelf::Review),
        4 => "nowhere".parse().ok(),
        _ => one_of(world, &ids_in(world, &world.layout.tasks())),
    };
    need.filter(|need| need != id)
}

/// Publishes a submission with wishes, as `submit` does; true if it was acknowledged.
pub(crate) fn publish(world: &World, handle: &Handle, record: &TaskRecord) -> bool {
    use nightcrew::edge::store::Store as _;
    let bytes = nightcrew::protocol::record::encode(record);
    let temp = client(world, handle).temp();
    let told = temp.map(|temp| handle.publish_new(&temp, &world.layout.new_task(&record.id), &bytes));
    world.tell(|| format!("{} is submitted with {:?}: {told:?}", record.id, record.wishes));
    matches!(told, Ok(Ok(())))
}
