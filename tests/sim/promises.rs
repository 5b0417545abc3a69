//! What was promised of how tasks end: what they need, who may judge them, what is submitted within them, and what
//! became of what people decided.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use nightcrew::app::client::finish::Held;
use nightcrew::protocol::layout::Shelf;
use nightcrew::protocol::name::{Name, TaskId};
use nightcrew::protocol::record;
use nightcrew::protocol::request::Ask;
use nightcrew::protocol::task::{Lock, OnDead, TaskRecord, Wishes};
use nightcrew::protocol::time::Wall;

use crate::oracle::Oracle;
use crate::world::World;

/// A task that an owner submitted within its own.
pub(crate) struct Within {
    pub(crate) of: Held,
    pub(crate) id: TaskId,
    pub(crate) payload: String,
    pub(crate) acknowledged: bool,
}

/// Something that a person asked for one task.
pub(crate) struct Asked {
    pub(crate) request: Name,
    pub(crate) ask: Ask,
    pub(crate) task: TaskId,
    /// Which of the task's lives is meant.
    life: u32,
    /// Where the task lay when the answer was "yes".
    pub(crate) granted: Option<Shelf>,
    answered: bool,
}

/// What was promised of the ends of tasks.
#[derive(Default)]
pub(crate) struct Promises {
    pub(crate) within: Vec<Within>,
    needs: BTreeMap<TaskId, (Vec<TaskId>, OnDead)>,
    expires: BTreeMap<TaskId, Wall>,
    /// How often a task was submitted or moved back.
    lives: BTreeMap<TaskId, u32>,
    /// What gates let pass: of which task, and its result.
    passes: BTreeMap<TaskId, Vec<Option<Vec<u8>>>>,
    asked: Vec<Asked>,
    /// Tasks that were moved back from among the dead.
    moved_back: BTreeSet<TaskId>,
    approved: BTreeSet<TaskId>,
    cancelled: BTreeSet<TaskId>,
}

impl Promises {
    /// The task is submitted, or moved back.
    pub(crate) fn lives_again(&mut self, id: &TaskId) {
        *self.lives.entry(id.clone()).or_default() += 1;
    }

    /// It is moved back from among the dead.
    pub(crate) fn is_moved_back(&mut self, id: &TaskId) {
        self.moved_back.insert(id.clone());
        self.lives_again(id);
    }

    pub(crate) fn life(&self, id: &TaskId) -> u32 {
        self.lives.get(id).copied().unwrap_or(0)
    }

    /// What a task's submitter asked for.
    pub(crate) fn wished(&mut self, id: &TaskId, wishes: &Wishes) {
        self.needs.insert(id.clone(), (wishes.needs.clone(), wishes.on_dead));
        if let Some(at) = wishes.expires {
            self.expires.insert(id.clone(), at);
        }
    }

    pub(crate) fn expires(&self, id: &TaskId) -> bool {
        self.expires.contains_key(id)
    }

    /// True if a gate let this result of the task pass, or a person did.
    pub(crate) fn has_passed(&self, id: &TaskId, result: Option<&Vec<u8>>) -> bool {
        let passed =
            self.passes.get(id).is_some_and(|passed| passed.iter().any(|one| one.as_ref() == result));
        passed || self.approved.contains(id)
    }

    /// True if somebody wanted the task to be cancelled, whether that was heard or not.
    pub(crate) fn was_cancelled(&self, id: &TaskId) -> bool {
        self.cancelled.contains(id)
    }

    /// Before it is asked: from then on it may be heard.
    pub(crate) fn asking(&mut self, ask: &Ask) {
        match ask {
            Ask::Approve { task } => drop(self.approved.insert(task.clone())),
            Ask::Cancel { tasks, .. } => self.cancelled.extend(tasks.iter().cloned()),
            Ask::Reject { .. } | Ask::Restart { .. } => {}
        }
    }

    pub(crate) fn asked(&mut self, request: Name, ask: Ask, task: TaskId) {
        let life = self.life(&task);
        self.asked.push(Asked { request, ask, task, life, granted: None, answered: false });
    }

    /// The requests that were not answered yet.
    pub(crate) fn unanswered(&self) -> Vec<Name> {
        self.asked.iter().filter(|asked| !asked.answered).map(|asked| asked.request.clone()).collect()
    }

    /// The requests that were granted, of tasks that live the same life still.
    pub(crate) fn granted(&self) -> impl Iterator<Item = &Asked> {
        self.asked.iter().filter(|asked| asked.granted.is_some() && self.life(&asked.task) == asked.life)
    }
}

impl Oracle {
    /// A request was answered: where that was "yes", it is done by now.
    pub(crate) fn answered(&mut self, world: &World, request: &Name, yes: bool) {
        let Some(at) = self.promises.asked.iter().position(|asked| asked.request == *request) else { return };
        let asked = &mut self.promises.asked[at];
        asked.answered = true;
        if !yes || self.promises.lives.get(&asked.task).copied().unwrap_or(0) != asked.life {
            return;
        }
        asked.granted = world.shelf_of(&asked.task);
        let wrong = match (&asked.ask, asked.granted) {
            (Ask::Approve { .. }, Some(Shelf::Done))
            | (Ask::Reject { .. }, Some(Shelf::Dead))
            | (Ask::Cancel { .. }, Some(_))
            | (Ask::Restart { .. }, _) => false,
            (Ask::Approve { .. } | Ask::Reject { .. } | Ask::Cancel { .. }, _) => true,
        };
        if wrong {
            let what = format!("{:?} was granted, and the task is {:?}", asked.ask, asked.granted);
            self.violations.push(what);
        }
    }

    /// Somebody is about to submit a task within the one that it holds.
    pub(crate) fn submitting_within(&mut self, of: &Held, id: &TaskId, payload: &str) {
        let (of, id, payload) = (of.clone(), id.clone(), payload.to_owned());
        self.promises.within.push(Within { of, id, payload, acknowledged: false });
    }

    pub(crate) fn submitted_within(&mut self, of: &Held, id: &TaskId) {
        let mut all = self.promises.within.iter_mut().rev();
        if let Some(within) = all.find(|within| within.id == *id && within.of == *of) {
            within.acknowledged = true;
        }
    }

    /// A gate is started: what passed before, and was recorded, is not judged anew.
    pub(crate) fn judging(&mut self, world: &World, id: &TaskId) {
        let read = |path: PathBuf| record::decode::<TaskRecord>(&world.disk.text(&path)?).ok();
        let done = read(world.layout.ended(Shelf::Done, id));
        let open = read(world.layout.task(id));
        if let (Some(done), Some(open)) = (done, open)
            && done.nonce == open.nonce
            && done.token >= open.token
        {
            self.violations.push(format!("the result of {id} is judged, which is done already"));
        }
    }

    /// A gate let a result pass.
    pub(crate) fn passed(&mut self, id: &TaskId, result: Option<Vec<u8>>) {
        self.promises.passes.entry(id.clone()).or_default().push(result);
    }

    /// A task is given to an owner: what it needs must have ended, and its time must not be over.
    pub(crate) fn begun(&mut self, world: &World, id: &TaskId) {
        let promises = &self.promises;
        // Another life has other needs.
        if promises.life(id) > 1 {
            return;
        }
        let mut wrong = Vec::new();
        for (need, on_dead) in
            promises.needs.get(id).iter().flat_map(|(needs, on)| needs.iter().map(|n| (n, *on)))
        {
            match world.shelf_of(need) {
                Some(Shelf::Done) => {}
                _ if promises.life(need) > 1 || promises.moved_back.contains(need) => {}
                Some(Shelf::Dead) if on_dead == OnDead::Run => {}
                shelf => {
                    wrong.push(format!("task {id} was given out, and {need}, which it needs, is {shelf:?}"));
                }
            }
        }
        let lock = world.disk.text(&world.layout.lock(id));
        let lock = lock.and_then(|bytes| record::decode::<Lock>(&bytes).ok());
        // Who claims by himself may not have heard yet.
        let granted = lock.filter(|lock| lock.run.is_some() && lock.owner.is_none());
        if let (Some(at), Some(lock)) = (promises.expires.get(id), granted)
            && *at < lock.at
        {
            wrong.push(format!("task {id} was given out at {}, and expired at {at}", lock.at));
        }
        self.violations.append(&mut wrong);
    }
}
