//! The switches: halt, stop, restart, drain, and ending when idle.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::ledger::Fact;
use crate::protocol::manifest::Heartbeat;
use crate::protocol::name::{AgentName, Name, RunId, TaskId};
use crate::protocol::request::{Ask, Request};
use crate::protocol::time::{Mono, Now};

use super::state::{
    Cause, Conclusion, Course, Owner, Rest, Run, RunState, Stage, State, Storage, Task, Then,
};
use super::{Effect, Out};

/// How long a service that declares no heartbeat must have run, and how long nothing must have been
/// submitted, for a crew to count as idle.
const IDLE_MS: u64 = 2_000;
/// So many requests are being carried out at a time; any more stay where they are until one of these is.
const ASKED_MAX: usize = 1024;

/// A request that is being carried out. It is answered once these tasks are open no more, which is durable then: until
/// that it stays where it is, so that the next supervisor finds it.
#[derive(Debug)]
pub(super) struct Asked {
    tasks: BTreeSet<TaskId>,
    ok: bool,
    text: String,
}

impl State {
    pub(super) fn halt_seen(&mut self, now: Now, why: Option<String>, out: &mut Out) {
        if self.halt == why {
            return;
        }
        let (what, reason) = match (&self.halt, &why) {
            (None, Some(reason)) => ("halt", reason.clone()),
            (Some(_), None) => ("resume", String::new()),
            (Some(_), Some(_)) | (None, None) => {
                self.halt = why;
                return;
            }
        };
        out.push(Effect::Note(Fact::Control { what: what.into(), why: reason }));
        self.halt = why;
        let names: Vec<AgentName> = self.agents.keys().cloned().collect();
        for name in names {
            self.touch(&name);
            self.stop_if_unwanted(now, &name, out);
        }
    }

    pub(super) fn stopped_seen(&mut self, now: Now, stopped: BTreeMap<AgentName, String>, out: &mut Out) {
        let before = std::mem::replace(&mut self.stopped, stopped);
        let names: Vec<AgentName> = self.agents.keys().cloned().collect();
        for name in names {
            let (was, is) = (before.get(&name), self.stopped.get(&name).cloned());
            if was == is.as_ref() {
                continue;
            }
            let what = if is.is_some() { "stop" } else { "start" };
            let why = is.clone().unwrap_or_default();
            out.push(Effect::Note(Fact::Control { what: format!("{what} {name}"), why }));
            self.touch(&name);
            if is.is_some() {
                self.stop_if_unwanted(now, &name, out);
            } else {
                self.forgive(now, &name, out);
            }
        }
    }

    /// Services stop when they are not wanted; what works on a task finishes it.
    fn stop_if_unwanted(&mut self, now: Now, name: &AgentName, out: &mut Out) {
        let Some(why) = self.unwanted(name) else { return };
        for run in self.services_runs(name) {
            self.stop(now, &run, Cause::Unwanted(why.clone()), out);
        }
    }

    fn services_runs(&self, name: &AgentName) -> Vec<RunId> {
        let runs = self.agents.get(name).map(|agent| agent.runs.as_slice()).unwrap_or_default();
        runs.iter().filter(|run| self.runs.get(*run).is_some_and(Run::is_service)).cloned().collect()
    }

    /// An operator wants it to run: whatever kept it down before is forgotten.
    fn forgive(&mut self, now: Now, name: &AgentName, out: &mut Out) {
        // A run that is on its way out was not asked how it ends.
        for id in self.services_runs(name) {
            if let Some(run) = self.runs.get_mut(&id).filter(|run| !run.is_active()) {
                run.cause = Cause::Restarted;
            }
        }
        let agent = self.agent_mut(now, name);
        agent.failures = 0;
        if agent.finished.take().is_some() {
            out.push(Effect::Finished(name.clone(), None));
        }
        agent.rest = Rest::Ready;
    }

    pub(super) fn asked(&mut self, now: Now, request: Request, out: &mut Out) {
        match &request.ask {
            Ask::Restart { .. } => self.restart_asked(now, request, out),
            // What cannot be made durable now is found again when it can, if need be by the next supervisor.
            Ask::Cancel { .. } if !self.can_begin(&request) || !self.takes_work() => {}
            Ask::Cancel { .. } => self.cancel_asked(request, out),
            Ask::Approve { .. } | Ask::Reject { .. } => self.reviewed(now, request, None, out),
        }
    }

    fn cancel_asked(&mut self, request: Request, out: &mut Out) {
        let ids = self.meant_by(&request.ask);
        let Ask::Cancel { tasks, why, .. } = request.ask else { return };
        let unknown = tasks.iter().filter(|id| !self.tasks.contains_key(*id));
        let refused: Vec<String> = unknown.map(|id| format!("{id}: there is no such open task")).collect();
        self.to_cancel.extend(ids.iter().map(|id| (id.clone(), why.clone())));
        let text = if refused.is_empty() {
            format!("{} tasks are cancelled, but for those whose outcome came before", ids.len())
        } else {
            refused.join("; ")
        };
        out.push(Effect::Note(Fact::Control { what: format!("cancel {} tasks", ids.len()), why }));
        self.asked.insert(request.id, Asked { tasks: ids, ok: refused.is_empty(), text });
    }

    /// The open tasks that are to be cancelled.
    #[must_use]
    pub fn meant_by(&self, ask: &Ask) -> BTreeSet<TaskId> {
        let Ask::Cancel { tasks, group, .. } = ask else { return BTreeSet::new() };
        let of_group =
            |task: &Task| group.is_some() && task.more.as_ref().is_some_and(|more| more.group == *group);
        let grouped = self.tasks.iter().filter(|(_, task)| of_group(task)).map(|(id, _)| id);
        let named = tasks.iter().filter(|id| self.tasks.contains_key(*id));
        grouped.chain(named).cloned().collect()
    }

    /// The requests that are being carried out and not answered yet: at most 1,024.
    #[must_use]
    pub fn carried_out(&self) -> Vec<Name> {
        self.asked.keys().cloned().collect()
    }

    /// True if this one is among them.
    #[must_use]
    pub fn carries_out(&self, request: &Name) -> bool {
        self.asked.contains_key(request)
    }

    /// Whether a request is not being carried out already, and can be.
    pub(super) fn can_begin(&self, request: &Request) -> bool {
        !self.asked.contains_key(&request.id) && self.asked.len() < ASKED_MAX
    }

    /// A request about one task, which is being carried out.
    pub(super) fn answer_later(&mut self, request: Name, task: &TaskId, text: String) {
        let tasks = [task.clone()].into();
        self.asked.insert(request, Asked { tasks, ok: true, text });
    }

    /// Those who asked something of a task learn that it is lost.
    pub(super) fn disappoint(&mut self, id: &TaskId, why: &str) {
        for asked in self.asked.values_mut().filter(|asked| asked.tasks.contains(id)) {
            asked.ok = false;
            asked.text = format!("task {id} is lost: {why}");
        }
    }

    /// What is asked of a task that nothing can be decided about is left to the next supervisor.
    pub(super) fn leave_unanswered(&mut self, id: &TaskId) {
        self.asked.retain(|_, asked| !asked.tasks.contains(id));
    }

    /// Answers what has been carried out.
    pub(super) fn answer_what_is_done(&mut self, out: &mut Out) {
        let tasks = &self.tasks;
        self.asked.retain(|request, asked| {
            while let Some(task) = asked.tasks.first()
                && !tasks.contains_key(task)
            {
                asked.tasks.pop_first();
            }
            if asked.tasks.is_empty() {
                out.push(Effect::Answer(request.clone(), asked.ok, std::mem::take(&mut asked.text)));
            }
            !asked.tasks.is_empty()
        });
    }

    /// Makes a dead letter of an open task. Whoever works on it is stopped, and what he handed in before counts.
    pub(super) fn cancel(&mut self, now: Now, id: &TaskId, why: String, out: &mut Out) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        // A handler's run; or one that is told to end already, such as what an earlier supervisor left.
        let ends_with =
            |run: &RunId| self.runs.get(run).is_some_and(|run| run.task() == Some(id) || !run.is_active());
        match &mut task.stage {
            Stage::Reviewed => {}
            Stage::Pending(recording) if matches!(recording.then, Then::Gone(_)) => {}
            Stage::Pending(_) => drop(self.cancelling.insert(id.clone(), why)),
            Stage::Held(claim) => match &claim.owner {
                Owner::Run(run) if ends_with(run) => {
                    let run = run.clone();
                    self.cancelling.insert(id.clone(), why.clone());
                    self.stop(now, &run, Cause::Cancelled(why), out);
                }
                Owner::Run(_) | Owner::Outside(_) | Owner::Unprovable => {
                    self.cancelling.insert(id.clone(), why.clone());
                    claim.fate = Some(Conclusion::Cancelled { why });
                    out.push(Effect::LookForOutcomes(id.clone(), claim.agent.clone()));
                }
            },
            Stage::Gated { run: Some(run) } => {
                let run = run.clone();
                self.cancelling.insert(id.clone(), why.clone());
                self.stop(now, &run, Cause::Cancelled(why), out);
            }
            Stage::Ready
            | Stage::Waiting { .. }
            | Stage::Blocked
            | Stage::Obscured { .. }
            | Stage::Gated { run: None } => self.give_up(id, &format!("cancelled: {why}"), out),
        }
    }

    fn restart_asked(&mut self, now: Now, request: Request, out: &mut Out) {
        let Ask::Restart { agents } = request.ask else { return };
        let all = agents.is_empty();
        let names: Vec<AgentName> = if all { self.agents.keys().cloned().collect() } else { agents };
        let mut refused = Vec::new();
        let mut done = Vec::new();
        for name in names {
            let why = if self.agents.contains_key(&name) {
                self.unwanted(&name)
            } else {
                Some("there is no such agent".into())
            };
            match why {
                // "All" means all that can run.
                Some(_) if all => {}
                Some(why) => refused.push(format!("{name}: {why}")),
                None => {
                    self.restart(now, &name, out);
                    done.push(name.to_string());
                }
            }
        }
        let ok = refused.is_empty();
        let text = if ok { format!("restarting {}", done.join(", ")) } else { refused.join("; ") };
        out.push(Effect::Note(Fact::Control { what: "restart".into(), why: text.clone() }));
        out.push(Effect::Answer(request.id, ok, text));
    }

    fn restart(&mut self, now: Now, name: &AgentName, out: &mut Out) {
        for run in self.services_runs(name) {
            self.stop(now, &run, Cause::Restarted, out);
        }
        self.forgive(now, name, out);
    }

    /// A first signal drains; a second one skips the grace.
    pub(super) fn stop_asked(&mut self, now: Now, why: String, out: &mut Out) {
        match self.course {
            Course::Working => self.drain(now, why, out),
            Course::Draining { .. } => {
                let runs: Vec<RunId> = self.runs.keys().cloned().collect();
                for run in runs {
                    self.kill(&run, None, out);
                }
            }
            Course::Over => {}
        }
    }

    fn drain(&mut self, now: Now, why: String, out: &mut Out) {
        out.push(Effect::Note(Fact::Control { what: "drain".into(), why: why.clone() }));
        self.course = Course::Draining { why };
        let names: Vec<AgentName> = self.agents.keys().cloned().collect();
        for name in &names {
            self.touch(name);
        }
        let runs: Vec<RunId> = self.runs.keys().cloned().collect();
        for run in runs {
            self.stop(now, &run, Cause::Drained, out);
        }
    }

    /// The store failed for good: work that could not be acknowledged is not begun; services go on.
    pub(super) fn store_broken(&mut self, why: String, out: &mut Out) {
        if !self.storage.is_broken() {
            out.push(Effect::Alert("storage".into(), format!("nothing more is acknowledged: {why}")));
            self.storage = Storage::Broken(why);
        }
    }

    /// The disk is full, or has room again.
    pub(super) fn store_full(&mut self, full: bool) {
        self.storage = match &self.storage {
            Storage::Broken(why) => Storage::Broken(why.clone()),
            Storage::Whole | Storage::Full if full => Storage::Full,
            Storage::Whole | Storage::Full => Storage::Whole,
        };
    }

    pub(super) fn drain_if_idle(&mut self, now: Now, out: &mut Out) {
        if self.setup.until_idle && self.course == Course::Working && self.is_idle(now.mono) {
            self.drain(now, "nothing is left to do".into(), out);
        }
    }

    fn is_idle(&self, now: Mono) -> bool {
        let quiet = self.quiet_since.is_some_and(|since| now.since(since) >= IDLE_MS);
        let settled = self.agents.values().all(|agent| agent.pending.is_none());
        quiet
            && settled
            && !self.has_more_due()
            && !self.awaits_debounce()
            && self.memory_queue_empty
            && self.agents.iter().all(|(name, _)| self.service_is_idle(name, now))
            && !self.tasks.values().any(|task| self.is_taken(task))
    }

    fn service_is_idle(&self, name: &AgentName, now: Mono) -> bool {
        let Some(agent) = self.agents.get(name) else { return true };
        if agent.is_handler() {
            return true;
        }
        if self.unwanted(name).is_some() {
            return agent.runs.iter().all(|run| self.is_stuck(run));
        }
        let Some(run) = agent.runs.first().and_then(|run| self.runs.get(run)) else {
            // It has exited; if it is to be started at once, it is not idle yet.
            return agent.last_exit.is_some() && agent.rest != Rest::Ready || agent.rest == Rest::Finished;
        };
        match run.state {
            RunState::Running => {
                run.beaten || !declares_heartbeat(run) && now.since(run.started.mono) >= IDLE_MS
            }
            RunState::Isolated { .. } | RunState::Stuck(_) => true,
            RunState::Starting | RunState::Stopping { .. } | RunState::Killing | RunState::Ending(_) => false,
        }
    }

    pub(super) fn next_idle_check(&self) -> Option<Mono> {
        if !self.setup.until_idle || self.course != Course::Working {
            return None;
        }
        // Only what becomes true by time alone, and has not yet: all else arrives as an event.
        let young = self.runs.values().filter(|run| {
            run.is_service() && run.state == RunState::Running && !run.beaten && !declares_heartbeat(run)
        });
        let since = young.map(|run| run.started.mono).chain(self.quiet_since);
        since.max().map(|since| since.plus(IDLE_MS)).filter(|at| *at > self.stepped.mono)
    }

    fn is_stuck(&self, run: &RunId) -> bool {
        self.runs.get(run).is_none_or(|run| matches!(run.state, RunState::Stuck(_)))
    }

    /// True if nothing waits to be written, nor for a look at the outcomes of an owner that is gone. What a
    /// full or broken disk holds up may wait for ever; it is what a crash would leave, and mended like that.
    fn is_recorded(&self) -> bool {
        let looked_for = |task: &Task| match &task.stage {
            Stage::Held(claim) => claim.fate.is_some(),
            Stage::Pending(_)
            | Stage::Ready
            | Stage::Waiting { .. }
            | Stage::Blocked
            | Stage::Obscured { .. }
            | Stage::Gated { .. }
            | Stage::Reviewed => false,
        };
        self.storage != Storage::Whole || self.tickets.is_empty() && !self.tasks.values().any(looked_for)
    }

    pub(super) fn end_if_over(&mut self, out: &mut Out) {
        let draining = matches!(self.course, Course::Draining { .. });
        // What does not die was reported; waiting for it would keep the machine up for ever.
        let gone = self.runs.values().all(|run| matches!(run.state, RunState::Stuck(_)));
        if draining && gone && self.is_recorded() {
            self.course = Course::Over;
            out.push(Effect::Exit);
        }
    }
}

fn declares_heartbeat(run: &Run) -> bool {
    run.version.as_ref().is_some_and(|version| matches!(version.manifest.heartbeat, Heartbeat::Every(_)))
}
