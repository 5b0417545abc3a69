//! Dispatch: what is ready, and who gets it.

use crate::protocol::ledger::Fact;
use crate::protocol::manifest::Manifest;
use crate::protocol::name::{AgentName, Kind, RunId, TaskId};
use crate::protocol::process::Identity;
use crate::protocol::record::VERSION;
use crate::protocol::task::Lock;
use crate::protocol::time::Now;

use super::effect::{Grant, Mode};
use super::state::{Claim, Owner, Rank, Role, Stage, State};
use super::{Effect, Out};

/// How many ids a ready list holds.
pub(super) const READY_LISTED_MAX: usize = 64;

impl State {
    pub(super) fn make_ready(&mut self, id: &TaskId, out: &mut Out) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.stage = Stage::Ready;
        let kind = task.kind.clone();
        let rank = task.rank(id);
        self.ready.entry(kind.clone()).or_default().insert(rank);
        out.push(Effect::ShowReady(kind));
    }

    pub(super) fn take_from_ready(&mut self, id: &TaskId, out: &mut Out) {
        let Some(task) = self.tasks.get(id) else { return };
        let Some(ready) = self.ready.get_mut(&task.kind) else { return };
        if ready.remove(&task.rank(id)) {
            out.push(Effect::ShowReady(task.kind.clone()));
        }
        if ready.is_empty() {
            self.ready.remove(&task.kind);
        }
    }

    /// Gives ready tasks to handlers, one each in turn, and results to their gates, as long as there is room.
    pub(super) fn dispatch(&mut self, now: Now, out: &mut Out) {
        let nothing = self.ready.is_empty() && self.to_judge.is_empty();
        if nothing || self.halt.is_some() || !self.takes_work() {
            return;
        }
        if !self.begun && !mutant!(WorkBeforeOutcomes) {
            return;
        }
        let busy = self.runs.values().filter(|run| !run.is_service()).count();
        let mut room = self.setup.tasks_at_once.saturating_sub(busy);
        // What was paid for comes first.
        while room > 0
            && self.judge_from <= now.mono
            && let Some(task) = self.to_judge.pop_front()
        {
            self.judge(now, &task, out);
            room -= 1;
        }
        while room > 0 {
            let Some((agent, task, mode)) = self.next_match() else { return };
            self.dispatched_last = Some(agent.clone());
            self.grant(now, &agent, &task, mode, out);
            room -= 1;
        }
    }

    /// The next handler in turn that has room and a ready task.
    fn next_match(&self) -> Option<(AgentName, TaskId, Mode)> {
        let start = self.dispatched_last.as_ref();
        let after = self.agents.range::<AgentName, _>((
            start.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded),
            std::ops::Bound::Unbounded,
        ));
        after.chain(self.agents.iter()).find_map(|(name, agent)| {
            let version = agent.accepted.as_ref()?;
            let manifest = &version.manifest;
            let resting = matches!(agent.rest, super::state::Rest::Backoff { .. });
            // A survivor of an earlier supervisor may still work on a task: it goes first.
            let is_work =
                |run: &&RunId| !self.runs.get(*run).is_some_and(|run| matches!(run.role, Role::Gate(_)));
            let full = agent.runs.iter().filter(is_work).count() >= manifest.concurrency as usize;
            if !manifest.is_handler() || resting || full || self.unwanted(name).is_some() {
                return None;
            }
            let kinds = self.kinds_of(name, manifest).into_iter();
            let best = kinds.filter_map(|(kind, mode)| Some((self.next_ready(kind)?, mode)));
            let (rank, mode) = best.min_by_key(|(rank, _)| *rank)?;
            Some((name.clone(), rank.2.clone(), mode))
        })
    }

    /// The next task of a kind, but for those that are about to be cancelled.
    fn next_ready(&self, kind: &Kind) -> Option<&Rank> {
        self.ready.get(kind)?.iter().find(|(.., id)| !self.to_cancel.contains_key(id))
    }

    /// The kinds of tasks that an agent is given now: its own, unless another takes them in its stead, and those of
    /// the agents in whose stead it takes them.
    fn kinds_of<'s>(&'s self, name: &AgentName, manifest: &'s Manifest) -> Vec<(&'s Kind, Mode)> {
        let own = manifest.handles.iter().filter(|_| self.stand_in(name).is_none());
        let mut kinds: Vec<_> = own.map(|kind| (kind, Mode::Normal)).collect();
        for (other, agent) in self.agents.iter().filter(|(other, _)| self.stand_in(other) == Some(name)) {
            let theirs = agent.accepted.iter().flat_map(|version| &version.manifest.handles);
            let theirs = theirs.filter(|kind| *other != *name && !manifest.handles.contains(*kind));
            kinds.extend(theirs.map(|kind| (kind, Mode::Fallback)));
        }
        kinds
    }

    /// Who takes the tasks of this agent while it keeps failing: its fallback, if that can.
    fn stand_in(&self, name: &AgentName) -> Option<&AgentName> {
        let agent = self.agents.get(name)?;
        agent.health.ailing_until?;
        let fallback = agent.accepted.as_ref()?.manifest.fallback.as_ref()?;
        let can = fallback != name
            && self.agents.get(fallback).is_some_and(super::state::Agent::is_handler)
            && self.unwanted(fallback).is_none();
        can.then_some(fallback)
    }

    fn grant(&mut self, now: Now, agent: &AgentName, id: &TaskId, mode: Mode, out: &mut Out) {
        let run = self.fresh_run(now);
        let nonce = self.fresh_nonce();
        self.take_from_ready(id, out);
        let Some(task) = self.tasks.get_mut(id) else { return };
        let lock = Lock {
            v: VERSION,
            task: id.clone(),
            token: task.token,
            nonce: nonce.clone(),
            agent: agent.clone(),
            run: Some(run.clone()),
            owner: None,
            at: now.wall,
        };
        let claim = Claim {
            nonce,
            agent: agent.clone(),
            token: task.token,
            owner: Owner::Run(run.clone()),
            ages: false,
            renewed: now.mono,
            began: now.wall,
            has_begun: false,
            words: String::new(),
            peak_memory: None,
            fate: None,
        };
        task.stage = Stage::Held(Box::new(claim));
        let failures = task.failures;
        out.push(Effect::Note(Fact::Claimed {
            task: id.clone(),
            token: lock.token,
            agent: agent.clone(),
            run: Some(run.clone()),
        }));
        let grant = Box::new(Grant { lock, failures, mode });
        self.launch(now, agent, Some((grant, run)), out);
    }

    /// The process of a handler is known: its lock names it from now on.
    pub(super) fn name_owner(&mut self, id: &TaskId, run: &RunId, process: &Identity, out: &mut Out) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Stage::Held(claim) = &mut task.stage else { return };
        if claim.owner != Owner::Run(run.clone()) {
            return;
        }
        claim.has_begun = true;
        let Some(holder) = self.runs.get(run) else { return };
        out.push(Effect::NameOwner(Lock {
            v: VERSION,
            task: id.clone(),
            token: claim.token,
            nonce: claim.nonce.clone(),
            agent: claim.agent.clone(),
            run: Some(run.clone()),
            owner: Some(process.clone()),
            at: holder.started.wall,
        }));
    }

    /// True if an agent that is wanted handles this kind.
    #[must_use]
    pub fn is_handled(&self, kind: &Kind) -> bool {
        self.agents
            .values()
            .filter_map(|agent| agent.accepted.as_ref())
            .any(|version| version.manifest.handles.contains(kind))
    }

    /// The next ids of a kind, for agents that claim by themselves; none where a handler takes them.
    #[must_use]
    pub fn ready_list(&self, kind: &Kind) -> Vec<TaskId> {
        if self.is_handled(kind) {
            return Vec::new();
        }
        let ready = self.ready.get(kind).into_iter().flatten();
        ready.take(READY_LISTED_MAX).map(|(_, _, id)| id.clone()).collect()
    }
}
