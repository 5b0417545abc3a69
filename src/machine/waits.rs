//! Tasks that nobody holds: until their time has come, until what they need has ended, or until they expire or are
//! cancelled.

use std::collections::BTreeSet;

use crate::protocol::ledger::Fact;
use crate::protocol::name::TaskId;
use crate::protocol::task::{OnDead, Phase, Wishes};
use crate::protocol::time::{Mono, Now, Wall};

use super::claims::WAIT_MS_MAX;
use super::conclusion::told;
use super::effect::{Bound, BoundFate, Output, RecordChange};
use super::event::{Need, Submission};
use super::state::{End, EndedNeed, More, Stage, State, Then, Writing};
use super::{Effect, Out};

/// At most so many tasks are seen to in one step; any more in the next, which follows at once.
pub(super) const DUE_AT_ONCE_MAX: usize = 256;

/// How far from now a point on the wall clock is, in milliseconds; at most [`WAIT_MS_MAX`], whatever that clock says.
pub(super) fn wait_until(now: Now, at: Wall) -> u64 {
    u64::try_from(at.0.saturating_sub(now.wall.0)).unwrap_or(0).min(WAIT_MS_MAX)
}

impl More {
    /// How a task begins that is admitted now.
    pub(super) fn begins(&self, now: Now) -> (Phase, Then) {
        if !self.needs.is_empty() || self.lost_need.is_some() {
            return (Phase::Blocked, Then::Blocked);
        }
        match self.not_before.map(|at| wait_until(now, at)) {
            None | Some(0) => (Phase::Ready, Then::Ready),
            Some(wait) => (Phase::Waiting, Then::Waiting(now.mono.plus(wait))),
        }
    }

    /// Nothing, if there is nothing in it.
    pub(super) fn boxed(self) -> Option<Box<Self>> {
        (self != Self::default()).then(|| Box::new(self))
    }
}

impl State {
    /// What few tasks have, of a submission or a record.
    pub(super) fn more_of(&self, wishes: &Wishes, needs: &[(TaskId, Need)]) -> More {
        // Of one that is open we know more than the disk tells.
        let known =
            |(id, need): &(TaskId, Need)| if self.tasks.contains_key(id) { Need::Open } else { *need };
        let such =
            |wanted: Need| needs.iter().filter(move |need| known(need) == wanted).map(|need| need.0.clone());
        More {
            not_before: wishes.not_before,
            expires: wishes.expires,
            group: wishes.group.clone(),
            needs: such(Need::Open).collect(),
            met: such(Need::Done).chain(such(Need::Dead)).collect(),
            lost_need: such(Need::Dead).next().filter(|_| wishes.on_dead == OnDead::Fail),
            on_dead: wishes.on_dead,
            made: None,
        }
    }

    /// Whether what a new task needs waits, in the end, for that task itself.
    pub(super) fn closes_a_cycle(&self, new: &Submission) -> bool {
        // A circle passes through a task that is open and needs this one.
        if !self.needed_by.contains_key(&new.id) {
            return new.wishes.needs.contains(&new.id);
        }
        let mut open: Vec<&TaskId> = new.wishes.needs.iter().collect();
        let mut seen = BTreeSet::new();
        while let Some(id) = open.pop() {
            if *id == new.id {
                return true;
            }
            if seen.insert(id) {
                open.extend(
                    self.tasks
                        .get(id)
                        .and_then(|task| task.more.as_ref())
                        .iter()
                        .flat_map(|more| &more.needs),
                );
            }
        }
        false
    }

    /// Lets tasks go on whose wait is over, gives up those that expired, and acts on locks that grew old.
    pub(super) fn tasks_due(&mut self, now: Now, out: &mut Out) {
        // Before the first look is over, a task that somebody holds may seem to be nobody's.
        if !self.takes_work() || !self.begun {
            return;
        }
        let mut room = DUE_AT_ONCE_MAX;
        while room > 0
            && let Some((id, why)) = self.to_cancel.pop_first()
        {
            room -= 1;
            self.cancel(now, &id, why, out);
        }
        while room > 0
            && let Some(ended) = self.ended_needs.front_mut()
        {
            let (need, end) = (ended.need.clone(), ended.end);
            match ended.waiting.pop_first() {
                Some(waiting) => {
                    room -= 1;
                    self.tell_of_need(now, &waiting, need, end, out);
                }
                None => drop(self.ended_needs.pop_front()),
            }
        }
        while room > 0
            && let Some((until, id)) = self.waiting.first().cloned()
            && until <= now.mono
        {
            room -= 1;
            self.waiting.pop_first();
            self.go_on(now, &id, out);
        }
        while room > 0
            && let Some((at, id)) = self.expiring.first().cloned()
            && at <= now.wall
        {
            room -= 1;
            self.expiring.pop_first();
            self.give_up_if_due(now, &id, out);
        }
        self.locks_due(now, room, out);
    }

    /// True while there are tasks that one step was not enough for.
    pub(super) fn has_more_due(&self) -> bool {
        !self.to_cancel.is_empty() || !self.ended_needs.is_empty()
    }

    pub(super) fn next_task_deadline(&self) -> Option<Mono> {
        if !self.takes_work() || !self.begun {
            return None;
        }
        let expires =
            self.expiring.first().map(|(at, _)| self.stepped.mono.plus(wait_until(self.stepped, *at)));
        let gates = Some(self.judge_from).filter(|at| *at > self.stepped.mono && !self.to_judge.is_empty());
        let waits = self.waiting.first().map(|(at, _)| *at);
        let more = self.has_more_due().then_some(self.stepped.mono);
        [more, waits, expires, gates, self.next_lock_deadline()].into_iter().flatten().min()
    }

    pub(super) fn wait(&mut self, id: &TaskId, until: Mono) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.stage = Stage::Waiting { until };
            self.waiting.insert((until, id.clone()));
        }
    }

    /// Nothing is left that it waits for, unless its time has not come. The record says that it waits, and an agent
    /// that claims by itself would believe it: so it is written first.
    fn go_on(&mut self, now: Now, id: &TaskId, out: &mut Out) {
        let Some(task) = self.tasks.get(id) else { return };
        let (phase, then) = task.more.as_ref().map_or((Phase::Ready, Then::Ready), |more| more.begins(now));
        if let (Then::Waiting(until), Stage::Waiting { .. }) = (&then, &task.stage) {
            let until = *until;
            return self.wait(id, until);
        }
        let mut change = RecordChange::of(id, task);
        change.phase = phase;
        change.not_before =
            task.more.as_ref().and_then(|more| more.not_before).filter(|_| phase == Phase::Waiting);
        self.decide(id, change, Writing::Readiness, then, out);
    }

    /// Has a change of a task written that nobody holds.
    pub(super) fn decide(
        &mut self,
        id: &TaskId,
        change: RecordChange,
        writing: Writing,
        then: Then,
        out: &mut Out,
    ) {
        let ticket = self.fresh_ticket(id);
        if let Some(task) = self.tasks.get_mut(id) {
            task.token = change.token;
            task.stage = Stage::pending(ticket, writing, then);
            out.push(Effect::Record(ticket, Box::new(change)));
        }
    }

    /// Goes on with a task that may have nothing left to wait for.
    pub(super) fn unblock(&mut self, now: Now, id: &TaskId, out: &mut Out) {
        let Some(task) = self.tasks.get(id) else { return };
        let Stage::Blocked = task.stage else { return };
        let more = task.more.as_ref();
        if let Some(lost) = more.and_then(|more| more.lost_need.as_ref()) {
            let why = format!("task {lost}, which it needs, is a dead letter");
            self.give_up(id, &why, out);
        } else if more.is_none_or(|more| more.needs.is_empty()) {
            self.go_on(now, id, out);
        }
    }

    /// The tasks that ended and whose results others are still to use.
    #[must_use]
    pub fn needed(&self) -> BTreeSet<TaskId> {
        self.tasks
            .values()
            .filter_map(|task| task.more.as_ref())
            .flat_map(|more| more.met.iter().chain(&more.needs).cloned())
            .collect()
    }

    /// Has those told that need a task, which ended: see [`State::tasks_due`].
    pub(super) fn need_ended(&mut self, id: &TaskId, end: End) {
        if end == End::Review && !mutant!(ReviewedNeedEnded) {
            return;
        }
        if let Some(waiting) = self.needed_by.remove(id) {
            self.ended_needs.push_back(EndedNeed { need: id.clone(), end, waiting });
        }
    }

    fn tell_of_need(&mut self, now: Now, id: &TaskId, need: TaskId, end: End, out: &mut Out) {
        let Some(more) = self.tasks.get_mut(id).and_then(|task| task.more.as_mut()) else { return };
        more.needs.remove(&need);
        if end == End::Dead && more.on_dead == OnDead::Fail {
            more.lost_need = Some(need.clone());
        }
        more.met.insert(need);
        self.unblock(now, id, out);
    }

    /// Gives a task up that expired or that somebody wants to be cancelled, unless it is being worked on.
    pub(super) fn give_up_if_due(&mut self, now: Now, id: &TaskId, out: &mut Out) {
        if let Some(why) = self.cancelling.remove(id) {
            return self.cancel(now, id, why, out);
        }
        let Some(task) = self.tasks.get(id) else { return };
        let expired = task.more.as_ref().is_some_and(|more| more.expires.is_some_and(|at| at <= now.wall));
        match task.stage {
            Stage::Ready | Stage::Waiting { .. } | Stage::Blocked if expired => {
                self.give_up(id, "it expired before a try of it began", out);
            }
            Stage::Ready
            | Stage::Waiting { .. }
            | Stage::Blocked
            | Stage::Pending(_)
            | Stage::Obscured { .. }
            | Stage::Gated { .. }
            | Stage::Reviewed
            | Stage::Held(_) => {}
        }
    }

    /// Makes a dead letter of a task that nobody holds. A lock that somebody links meanwhile bears an old token.
    pub(super) fn give_up(&mut self, id: &TaskId, why: &str, out: &mut Out) {
        self.take_from_ready(id, out);
        let token = self.fresh_token(out);
        let Some(task) = self.tasks.get(id) else { return };
        if let Stage::Waiting { until } = task.stage {
            self.waiting.remove(&(until, id.clone()));
        }
        self.to_judge.retain(|other| other != id);
        let mut change = RecordChange::of(id, task);
        change.output = task.made().map(|_| Output::Judged);
        // Somebody may have claimed it whose lock was not seen, or cannot be read.
        let agent = task.made().map(|made| made.agent.clone());
        change.bound =
            Some(Bound { others: agent.is_none(), agent, token: task.token, fate: BoundFate::Dropped });
        change.phase = Phase::Dead;
        change.token = token;
        change.reason = Some(why.to_owned());
        change.facts.push(Fact::GivenUp { task: id.clone(), token, why: told(why) });
        self.decide(id, change, Writing::Decision, Then::Gone(End::Dead), out);
    }
}
