//! Jobs: which of their slots are fired when they come. A firing is a task, of a kind that is called like its job.

use std::collections::BTreeSet;

use crate::protocol::ledger::Fact;
use crate::protocol::manifest::{Overlap, Triggers};
use crate::protocol::name::{AgentName, TaskId};
use crate::protocol::schedule::{Slot, SlotId};
use crate::protocol::time::{Mono, Now, Wall};
use crate::protocol::trigger::TriggerRecord;

use super::catch_up::{Known, ON_TIME_MS, Plan, Policy, plan};
use super::jitter::delay_ms;
use super::state::State;
use super::timetable::Timetable;
use super::triggers::{Debounce, Dirty, Starts};
use super::waits::wait_until;
use super::{Effect, Out};

/// Slots that were missed start within so much of one another, in milliseconds: a host that was down for a day does
/// not start all its jobs in one second.
const SPREAD_MS: u64 = 60_000;
/// By how much the wall clock may run apart from the other one, before all slots are looked for anew, in milliseconds.
const JUMP_MS: i64 = 1_000;

/// What is known of a job's schedule.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) record: TriggerRecord,
    /// The record says more than what is on the disk, which waits until the firing is durable.
    unsaved: bool,
    /// When it comes next, if it does.
    next: Option<Wall>,
    /// The starts that its `throttle` counts.
    pub(super) starts: Option<Starts>,
    /// Changes that wait for their run.
    pub(super) debounce: Debounce,
    /// How many runs failed that were given changes, one after the other.
    pub(super) failures: u32,
    /// Not to be given changes before this, because the last run that was failed.
    pub(super) not_before: Mono,
    /// Its firings that have not ended.
    pub(super) open: BTreeSet<TaskId>,
}

impl Job {
    /// A firing of this job is admitted, durably: its slot is decided about for ever.
    pub(super) fn is_durable(&mut self, name: &AgentName, out: &mut Out) {
        if std::mem::take(&mut self.unsaved) {
            out.push(Effect::KeepTrigger(name.clone(), self.record.clone()));
        }
    }
}

impl State {
    /// An earlier supervisor left this.
    pub(super) fn trigger_found(&mut self, agent: AgentName, record: TriggerRecord) {
        self.triggers_found.insert(agent, record);
    }

    /// A version of an agent counts from now on: its schedule does, and no other.
    pub(super) fn schedule(&mut self, now: Now, name: &AgentName, out: &mut Out) {
        let Some(triggers) = self.triggers_of(name).filter(|triggers| triggers.are_any()).cloned() else {
            return self.unschedule(name);
        };
        let table = self.table_of(name).cloned();
        let declared = table.as_ref().map(Timetable::declared).unwrap_or_default();
        let before = self.jobs.remove(name);
        if let Some(at) = before.as_ref().and_then(|job| job.next) {
            self.slots_due.remove(&(at, name.clone()));
        }
        let found = before.as_ref().map(|job| &job.record).or(self.triggers_found.get(name));
        let known = found.filter(|record| record.clock == declared).cloned();
        let is_new = known.is_none();
        let record = known.unwrap_or_else(|| TriggerRecord::new(declared, now.wall));
        let starts = before.and_then(|job| job.starts).or_else(|| triggers.throttle.map(Starts::new));
        let pause = triggers.debounce_ms.unwrap_or(0);
        let debounce = Debounce::new(pause, triggers.max_wait_ms.unwrap_or(pause));
        let since = |wall: Wall| {
            let ms = u64::try_from(now.wall.0.saturating_sub(wall.0)).unwrap_or(0);
            Dirty { since: Mono(now.mono.0.saturating_sub(ms)), last: now.mono }
        };
        let debounce = debounce.resumed(record.dirty.map(since));
        if is_new {
            out.push(Effect::KeepTrigger(name.clone(), record.clone()));
        }
        let open =
            self.tasks.iter().filter(|(_, task)| task.kind == *name).map(|(id, _)| id.clone()).collect();
        if debounce.dirty().is_some() {
            self.stirred.insert(name.clone());
        }
        let (failures, not_before) = (0, now.mono);
        let job = Job { record, unsaved: false, next: None, starts, debounce, failures, not_before, open };
        self.jobs.insert(name.clone(), job);
        if let Some(table) = table {
            self.await_next_slot(now, name, &table);
        }
    }

    /// It is a job no more. What its schedule was stays on the disk: it may come back.
    pub(super) fn unschedule(&mut self, name: &AgentName) {
        let Some(job) = self.jobs.remove(name) else { return };
        self.stirred.remove(name);
        if let Some(at) = job.next {
            self.slots_due.remove(&(at, name.clone()));
        }
        self.triggers_found.insert(name.clone(), job.record);
    }

    /// Fires the slots that have come.
    pub(super) fn slots_due(&mut self, now: Now, out: &mut Out) {
        // What cannot be admitted would be lost.
        if !self.takes_work() || !self.begun || !self.agents_looked {
            return;
        }
        self.look_after_a_jump(now);
        while let Some((at, name)) = self.slots_due.first().cloned()
            && at <= now.wall
        {
            self.slots_due.pop_first();
            self.slots_come(now, &name, out);
        }
    }

    pub(super) fn next_slot_deadline(&self) -> Option<Mono> {
        if !self.takes_work() || !self.begun || !self.agents_looked {
            return None;
        }
        let (at, _) = self.slots_due.first()?;
        Some(self.stepped.mono.plus(wait_until(self.stepped, *at)))
    }

    fn slots_come(&mut self, now: Now, name: &AgentName, out: &mut Out) {
        let Some(table) = self.table_of(name).cloned() else { return };
        let Some(triggers) = self.triggers_of(name).cloned() else { return };
        let Some(job) = self.jobs.get_mut(name) else { return };
        let known = Known { first_seen: job.record.since, decided: job.record.decided };
        let policy = Policy { mode: triggers.catch_up, window_ms: triggers.catch_up_window_ms };
        let Plan { fire, passed, decided } = plan(&table, known, now.wall, policy);
        if let Some(passed) = passed {
            let id = |slot| SlotId { agent: name.clone(), slot };
            let (first, last) = (id(passed.first), id(passed.last));
            out.push(Effect::Note(Fact::SlotsMissed { first, last, count: passed.count }));
        }
        job.record.decided = decided.or(job.record.decided);
        let before: Vec<TaskId> = job.open.iter().cloned().collect();
        let mut any = false;
        for slot in fire {
            any |= self.slot_comes(now, name, slot, &table, &triggers, &before, out);
        }
        if let Some(job) = self.jobs.get_mut(name) {
            job.unsaved |= any;
            if !job.unsaved && decided.is_some() {
                out.push(Effect::KeepTrigger(name.clone(), job.record.clone()));
            }
        }
        self.await_next_slot(now, name, &table);
    }

    /// Fires one slot, unless something is against it. `before` are the firings that were open when it came.
    #[expect(
        clippy::too_many_arguments,
        reason = "all of it is looked up once for all slots that come together"
    )]
    fn slot_comes(
        &mut self,
        now: Now,
        name: &AgentName,
        slot: Slot,
        table: &Timetable,
        triggers: &Triggers,
        before: &[TaskId],
        out: &mut Out,
    ) -> bool {
        let id = SlotId { agent: name.clone(), slot };
        if let Some(why) = self.against_slot(now, name, triggers, before) {
            out.push(Effect::Note(Fact::SlotSkipped { slot: id, why }));
            return false;
        }
        if triggers.overlap == Overlap::Replace {
            for task in before {
                self.cancel(now, task, format!("{id} takes its place"), out);
            }
        }
        if let Some(starts) = self.jobs.get_mut(name).and_then(|job| job.starts.as_mut()) {
            starts.started(now.mono);
        }
        let is_late = now.wall.0.saturating_sub(slot.wall().0) > ON_TIME_MS;
        let begin = if is_late { now.wall } else { slot.wall() };
        let within = if is_late { triggers.jitter_ms.max(SPREAD_MS) } else { triggers.jitter_ms };
        let delay = i64::try_from(delay_ms(&id, within, table.next(now.wall))).unwrap_or(0);
        let not_before = Some(Wall(begin.0.saturating_add(delay))).filter(|at| *at > now.wall);
        out.push(Effect::Fire(id, not_before));
        true
    }

    /// Why a slot is not fired, if it is not.
    fn against_slot(
        &self,
        now: Now,
        name: &AgentName,
        triggers: &Triggers,
        before: &[TaskId],
    ) -> Option<String> {
        if let Some(why) = self.unwanted(name) {
            return Some(why);
        }
        if let (Overlap::Skip, Some(task)) = (triggers.overlap, before.first()) {
            return Some(format!("task {task}, the firing before it, is still open"));
        }
        let starts = self.jobs.get(name).and_then(|job| job.starts.as_ref());
        starts
            .is_some_and(|starts| !starts.is_open(now.mono))
            .then(|| "its throttle lets nothing through yet".into())
    }

    fn await_next_slot(&mut self, now: Now, name: &AgentName, table: &Timetable) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        // What came since the last decision comes at once.
        let after = job.record.decided.map_or(job.record.since, Slot::wall).max(job.record.since);
        let ahead = after.0.saturating_sub(now.wall.0) > super::catch_up::AHEAD_MS_MAX;
        let after = if ahead { now.wall } else { after };
        job.next = table.next(after).map(Slot::wall);
        self.slots_due.extend(job.next.map(|at| (at, name.clone())));
    }

    /// Whoever sets the wall clock moves it nearer to slots, or away from them.
    fn look_after_a_jump(&mut self, now: Now) {
        let apart = now.wall.0.saturating_sub_unsigned(now.mono.0);
        let before = self.apart.replace(apart);
        if before.is_none_or(|before| before.abs_diff(apart) < JUMP_MS.unsigned_abs()) {
            return;
        }
        for name in self.jobs.keys().cloned().collect::<Vec<_>>() {
            if let Some(at) = self.jobs.get(&name).and_then(|job| job.next) {
                self.slots_due.remove(&(at, name.clone()));
            }
            if let Some(table) = self.table_of(&name).cloned() {
                self.await_next_slot(now, &name, &table);
            }
        }
    }

    fn table_of(&self, name: &AgentName) -> Option<&Timetable> {
        self.agents.get(name)?.accepted.as_ref()?.table.as_ref()
    }

    pub(super) fn triggers_of(&self, name: &AgentName) -> Option<&Triggers> {
        Some(&self.agents.get(name)?.accepted.as_ref()?.manifest.triggers)
    }
}
