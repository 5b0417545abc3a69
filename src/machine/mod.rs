//! What is to be done, decided. Pure: no clock, no I/O, no threads, no randomness of its own.
//!
//! [`State::step`] takes what happened and when, and returns what is to be done; the application does
//! it and reports what came of it. [`State::next_deadline`] says when to step next though nothing
//! happened. The same events at the same times always give the same effects.

pub mod catch_up;
pub mod effect;
pub mod event;
pub mod jitter;
mod jobs;
pub mod memory;
mod stirred;
pub mod timetable;
pub mod triggers;

mod agents;
mod claims;
mod conclusion;
mod control;
mod dispatch;
mod gates;
mod liveness;
mod runs;
mod state;
mod task;
mod tasks;
mod view;
mod waits;

pub use effect::Effect;
pub use event::Event;
pub use state::{Setup, State};
pub use tasks::TOKEN_BLOCK;
pub use view::Summary;

use crate::protocol::time::{Mono, Now};

type Out = Vec<Effect>;

impl State {
    /// Takes one event at the time `now` and decides what is to be done, in order.
    pub fn step(&mut self, now: Now, event: Event) -> Vec<Effect> {
        let mut out = Vec::new();
        self.stepped = now;
        self.quiet_since.get_or_insert(now.mono);
        self.handle(now, event, &mut out);
        self.advance(now, &mut out);
        out
    }

    fn handle(&mut self, now: Now, event: Event, out: &mut Out) {
        match event {
            Event::Offered(agent, version) => self.offered(now, &agent, version, out),
            Event::AgentRefused(agent, refusal) => self.agent_refused(now, &agent, refusal, out),
            Event::AgentGone(agent) => self.agent_gone(now, &agent, out),
            Event::AgentsLooked => self.agents_looked = true,
            Event::FinishedBefore(agent, digest) => self.finished_before(now, &agent, digest),
            Event::HaltSeen(why) => self.halt_seen(now, why, out),
            Event::StoppedSeen(stopped) => self.stopped_seen(now, stopped, out),
            Event::Asked(request) => self.asked(now, request, out),
            Event::Withdrawn(request) => drop(self.asked.remove(&request)),
            Event::Reviewed(request, found) => self.reviewed(now, request, found.map(|found| *found), out),
            Event::TaskFound(found) => self.task_found(now, *found, out),
            Event::EndedBefore(task, shelf) => self.need_ended(&task, shelf.into()),
            Event::TriggerFound(agent, record) => self.trigger_found(agent, record),
            Event::FilesChanged(agent) => self.files_changed(now, &agent, out),
            Event::FilesSettled(agent) => self.files_settled(&agent, out),
            Event::Submitting => self.quiet_since = Some(now.mono),
            Event::Submitted(submission) => self.submitted(now, submission, out),
            Event::LockSeen(task, lock) => self.lock_seen(now, &task, lock, out),
            Event::OutcomeSeen(handed_in) => self.outcome_seen(now, handed_in, out),
            Event::OutcomesLooked(task) => self.outcomes_looked(now, &task, out),
            Event::OutcomesUnseen(task) => self.outcomes_unseen(&task),
            Event::DispatchFailed(run, why) => self.dispatch_failed(now, &run, &why, out),
            Event::TaskLost(task, why) => self.task_lost(&task, &why, out),
            Event::SurvivorFound(run, agent, process) => self.survivor_found(now, run, agent, process, out),
            Event::Spawned(run, process) => self.spawned(now, &run, process, out),
            Event::SpawnFailed { run, error, busy } => self.spawn_failed(now, &run, &error, busy, out),
            Event::Exited(run, ending) => self.exited(now, &run, ending, out),
            Event::TreeGone(run, killed, words) => self.tree_gone(now, &run, killed, &words, out),
            Event::TreeStuck(run, left) => self.tree_stuck(&run, left, out),
            Event::EvidenceSeen(run, evidence) => self.evidence_seen(&run, evidence, out),
            Event::Beat(run) => self.sign_of_life(now, &run, true, out),
            Event::Printed(run) => self.sign_of_life(now, &run, false, out),
            Event::Renewed(task) => self.renewed(now, &task, out),
            Event::Round(canary_alive) => self.round(now, canary_alive, out),
            Event::Memory { run, bytes, exact } => self.memory_measured(&run, bytes, exact, out),
            Event::Stored(ticket) => self.stored(now, ticket, out),
            Event::NotStored(ticket, why) => self.not_stored(now, ticket, &why, out),
            Event::StoreBroken(why) => self.store_broken(why, out),
            Event::StoreFull(full) => self.store_full(full),
            Event::MemoryQueue { empty } => self.memory_queue_empty = empty,
            Event::StopAsked(why) => self.stop_asked(now, why, out),
            Event::Tick => self.begun = true,
        }
    }

    /// Does what is due at `now`.
    fn advance(&mut self, now: Now, out: &mut Out) {
        self.settle_due(now, out);
        self.rests_over(now);
        self.run_deadlines(now, out);
        self.slots_due(now, out);
        self.changes_due(now, out);
        self.tasks_due(now, out);
        self.start_due(now, out);
        self.dispatch(now, out);
        self.answer_what_is_done(out);
        self.drain_if_idle(now, out);
        self.end_if_over(out);
    }

    /// When the machine wants to step next though nothing happened; `None` if never.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Mono> {
        [
            self.next_settling(),
            self.next_run_deadline(),
            self.next_slot_deadline(),
            self.next_change_deadline(),
            self.next_task_deadline(),
            self.next_idle_check(),
        ]
        .into_iter()
        .flatten()
        .min()
    }
}

#[cfg(test)]
mod tests;
