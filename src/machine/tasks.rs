//! Tasks: admitted, waiting, ready, dispatched to handlers.
//!
//! A task's record on disk is the truth; what is here follows it. While a record is being written
//! the task is `Pending`, and nothing else is decided about it until the writer has answered.

use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Kind, RunId, TaskId};
use crate::protocol::process::Identity;
use crate::protocol::record::VERSION;
use crate::protocol::task::{Lock, Phase};
use crate::protocol::time::{Mono, Now};

use super::effect::Grant;
use super::event::{Accepted, Found, Submission};
use super::state::{Claim, Conclusion, Course, Owner, RunState, Stage, State, Storage, Task, Then, Writing};
use super::{Effect, Out};

/// How many fencing tokens are reserved on disk at a time.
pub const TOKEN_BLOCK: u64 = 1_000;
/// How many ids a ready list holds.
pub(super) const READY_LISTED_MAX: usize = 64;

impl State {
    /// The next fencing token; reserves a block before the first of it is used.
    pub(super) fn fresh_token(&mut self, out: &mut Out) -> u64 {
        let token = self.next_token;
        self.next_token += 1;
        if token > self.reserved_token {
            self.reserved_token = token + TOKEN_BLOCK - 1;
            out.push(Effect::ReserveTokens(self.reserved_token));
        }
        token
    }

    pub(super) fn fresh_nonce(&mut self) -> String {
        format!("{:032x}", self.rng.u128(..))
    }

    pub(super) fn fresh_ticket(&mut self, task: &TaskId) -> u64 {
        self.last_ticket += 1;
        self.tickets.insert(self.last_ticket, task.clone());
        self.last_ticket
    }

    pub(super) fn submitted(&mut self, now: Now, new: Submission, out: &mut Out) {
        self.quiet_since = Some(now.mono);
        if !self.takes_work() {
            // It stays where it is, for the next supervisor.
            return;
        }
        if let Some(known) = self.tasks.get(&new.id) {
            if let Stage::Pending { writing: Writing::Admission, .. }
            | Stage::Pending { then: Then::Gone, .. } = known.stage
            {
                // This very file is being admitted, and until that is durable it is all there is of the task. Or
                // the task is ending, and this may be its only record, moved back by somebody quick: the next
                // look tells.
                return;
            }
            // The same nonce: a crash came between admitting it and removing the submission.
            let duplicate = (known.nonce != new.nonce)
                .then(|| Fact::Duplicate { task: new.id.clone(), of: "open".into() });
            out.push(Effect::DropSubmission(new.id, duplicate));
            return;
        }
        if let Some(ended) = &new.ended {
            let fresh = new.nonce != ended.nonce || new.replayed;
            let duplicate =
                fresh.then(|| Fact::Duplicate { task: new.id.clone(), of: ended.shelf.as_str().to_owned() });
            out.push(Effect::DropSubmission(new.id, duplicate));
            return;
        }
        if mutant!(ReplayIsDuplicate) && new.replayed {
            let duplicate = Fact::Duplicate { task: new.id.clone(), of: "dead".into() };
            out.push(Effect::DropSubmission(new.id, Some(duplicate)));
            return;
        }
        // No record bore a token that was told of and not written, so nobody can have claimed with it.
        let token = new.told.unwrap_or_else(|| self.fresh_token(out));
        let (task, kind, nonce) = (new.id.clone(), new.kind.clone(), new.nonce.clone());
        let fact = if new.replayed {
            Fact::Replayed { task, kind, token, nonce }
        } else {
            Fact::Submitted { task, kind, token, nonce, by: new.by }
        };
        let fact = new.told.is_none().then_some(fact);
        let ticket = self.fresh_ticket(&new.id);
        out.push(Effect::Admit { ticket, task: new.id.clone(), token, fact });
        let stage = Stage::Pending {
            ticket,
            writing: Writing::Admission,
            then: Then::Ready,
            seen: None,
            handed_in: None,
        };
        let task = Task { kind: new.kind, nonce: new.nonce, token, failures: 0, deferrals: 0, stage };
        self.tasks.insert(new.id, task);
    }

    pub(super) fn task_found(&mut self, now: Now, found: Found, out: &mut Out) {
        let mut task = Task {
            kind: found.kind,
            nonce: found.nonce,
            token: found.token,
            failures: found.failures,
            deferrals: found.deferrals,
            stage: Stage::Ready,
        };
        // A token that a record bears was given out, whatever the reservation says.
        self.next_token = self.next_token.max(found.token + 1);
        self.reserved_token = self.reserved_token.max(found.token);
        if let Some(Accepted { agent, outcome, dead }) = found.accepted {
            let claim = Claim {
                nonce: outcome.nonce.clone(),
                agent,
                token: outcome.token,
                owner: Owner::Unprovable,
                ages: false,
                renewed: now.mono,
                fate: None,
            };
            let conclusion = match super::conclusion::conclusion_of(&outcome) {
                Conclusion::Failed { error, wait_ms, .. } => {
                    Conclusion::Failed { error, permanent: dead, wait_ms }
                }
                other @ (Conclusion::Done | Conclusion::Later { .. } | Conclusion::Returned { .. }) => other,
            };
            self.tasks.insert(found.id.clone(), task);
            self.conclude(now, &found.id, claim, &conclusion, super::conclusion::Told::Already, out);
            return;
        }
        match (found.phase, found.not_before) {
            (Phase::Waiting, at) => {
                let at = at.unwrap_or(now.wall);
                let wait = u64::try_from(at.0.saturating_sub(now.wall.0))
                    .unwrap_or(0)
                    .min(super::claims::WAIT_MS_MAX);
                let until = now.mono.plus(wait);
                task.stage = Stage::Waiting { until };
                self.waiting.insert((until, found.id.clone()));
                self.tasks.insert(found.id, task);
            }
            (Phase::New | Phase::Ready | Phase::Done | Phase::Dead, _) => {
                self.tasks.insert(found.id.clone(), task);
                if let Some(lock) = found.lock {
                    self.lock_seen(now, &found.id, lock, out);
                }
                for outcome in found.handed_in {
                    self.outcome_seen(now, outcome, out);
                }
                if self.tasks.get(&found.id).is_some_and(|task| matches!(task.stage, Stage::Ready)) {
                    self.make_ready(&found.id, out);
                }
            }
        }
    }

    /// The record is durable: the task goes where its record says.
    pub(super) fn stored(&mut self, now: Now, ticket: u64, out: &mut Out) {
        let Some(id) = self.tickets.remove(&ticket) else { return };
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let Stage::Pending { ticket: awaited, then, seen, handed_in, .. } = &mut task.stage else { return };
        if *awaited != ticket {
            return;
        }
        let (seen, handed_in) = (seen.take(), handed_in.take());
        match then.clone() {
            Then::Ready => {
                self.make_ready(&id, out);
                // Before anybody else gets the task.
                if let Some(handed_in) = handed_in {
                    self.outcome_seen(now, *handed_in, out);
                }
                if let Some(lock) = seen {
                    let agent = lock.agent.clone();
                    self.lock_seen(now, &id, Ok(*lock), out);
                    // Its owner may have handed in already, and that hint was not for then.
                    out.push(Effect::LookForOutcomes(id, agent));
                }
            }
            Then::Waiting(until) => {
                task.stage = Stage::Waiting { until };
                self.waiting.insert((until, id));
            }
            Then::Gone => {
                self.tasks.remove(&id);
            }
        }
    }

    /// What was to be written could not be, for a reason of its own.
    pub(super) fn not_stored(&mut self, now: Now, ticket: u64, why: &str, out: &mut Out) {
        let Some(id) = self.tickets.remove(&ticket) else { return };
        if self.storage.is_broken() {
            return;
        }
        let Some(Stage::Pending { ticket: awaited, writing, .. }) =
            self.tasks.get(&id).map(|task| &task.stage)
        else {
            return;
        };
        if *awaited != ticket {
            return;
        }
        match writing.clone() {
            // The owner's output was no output.
            Writing::Success(claim) => {
                let error = format!("its output was refused: {why}");
                let failed = Conclusion::Failed { error, permanent: false, wait_ms: 0 };
                self.conclude(now, &id, *claim, &failed, super::conclusion::Told::Now, out);
            }
            // It is still a submission, or none any more: the next look tells.
            Writing::Admission => {
                self.tasks.remove(&id);
            }
            // Tried again and again it might fail for ever: a person has to look at it.
            Writing::Readiness | Writing::Setback(_) => self.task_lost(&id, why, out),
        }
    }

    /// Without its record a task cannot go on; nothing is left to keep of it.
    pub(super) fn task_lost(&mut self, id: &TaskId, reason: &str, out: &mut Out) {
        self.take_from_ready(id, out);
        let Some(task) = self.tasks.remove(id) else { return };
        match task.stage {
            Stage::Waiting { until } => {
                self.waiting.remove(&(until, id.clone()));
            }
            Stage::Held(claim) => self.let_go(id, &claim, out),
            // Nobody will answer for what could not even be handed to the writer.
            Stage::Pending { ticket, .. } => drop(self.tickets.remove(&ticket)),
            Stage::Ready | Stage::Obscured { .. } => {}
        }
        self.aging.remove(id);
        out.push(Effect::Note(Fact::Rejected {
            what: "task".into(),
            name: id.to_string(),
            reason: reason.to_owned(),
        }));
        out.push(Effect::Alert(format!("lost-{id}"), format!("task {id} is lost: {reason}")));
    }

    /// The task goes back untouched: no process was made for it.
    pub(super) fn hand_back(&mut self, id: &TaskId, run: &RunId, out: &mut Out) {
        if let Some(task) = self.tasks.get(id)
            && let Stage::Held(claim) = &task.stage
            && claim.owner == Owner::Run(run.clone())
        {
            self.make_ready(id, out);
        }
    }

    /// True if the task is known and has not ended.
    #[must_use]
    pub fn is_open(&self, id: &TaskId) -> bool {
        self.tasks.contains_key(id)
    }

    /// True if a lock of this task would be news.
    #[must_use]
    pub fn expects_lock(&self, id: &TaskId) -> bool {
        match self.tasks.get(id).map(|task| &task.stage) {
            Some(Stage::Held(_) | Stage::Pending { then: Then::Waiting(_) | Then::Gone, .. }) => false,
            Some(
                Stage::Ready
                | Stage::Waiting { .. }
                | Stage::Obscured { .. }
                | Stage::Pending { then: Then::Ready, .. },
            )
            | None => true,
        }
    }

    pub(super) fn make_ready(&mut self, id: &TaskId, out: &mut Out) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.stage = Stage::Ready;
        let kind = task.kind.clone();
        self.ready.entry(kind.clone()).or_default().insert((task.token, id.clone()));
        out.push(Effect::ShowReady(kind));
    }

    pub(super) fn take_from_ready(&mut self, id: &TaskId, out: &mut Out) {
        let Some(task) = self.tasks.get(id) else { return };
        let Some(ready) = self.ready.get_mut(&task.kind) else { return };
        if ready.remove(&(task.token, id.clone())) {
            out.push(Effect::ShowReady(task.kind.clone()));
        }
        if ready.is_empty() {
            self.ready.remove(&task.kind);
        }
    }

    /// Lets tasks go on whose wait is over, and locks that grew old.
    pub(super) fn tasks_due(&mut self, now: Now, out: &mut Out) {
        if !self.takes_work() {
            return;
        }
        while let Some((until, id)) = self.waiting.first().cloned()
            && until <= now.mono
        {
            self.waiting.pop_first();
            self.wait_is_over(&id, out);
        }
        self.locks_due(now, out);
    }

    /// The record says "waiting", and an agent that claims by itself would believe it: so it is written first.
    fn wait_is_over(&mut self, id: &TaskId, out: &mut Out) {
        let ticket = self.fresh_ticket(id);
        let Some(task) = self.tasks.get_mut(id) else { return };
        task.stage = Stage::Pending {
            ticket,
            writing: Writing::Readiness,
            then: Then::Ready,
            seen: None,
            handed_in: None,
        };
        let change = super::effect::RecordChange {
            task: id.clone(),
            token: task.token,
            phase: Phase::Ready,
            failures: task.failures,
            deferrals: task.deferrals,
            not_before: None,
            decided: None,
            attempt: None,
            output: None,
            facts: Vec::new(),
            settled: None,
        };
        out.push(Effect::Record(ticket, Box::new(change)));
    }

    /// True while something new may be begun: afterwards records stay as they are, for the next supervisor.
    fn takes_work(&self) -> bool {
        self.storage == Storage::Whole && self.course == Course::Working
    }

    pub(super) fn next_task_deadline(&self) -> Option<Mono> {
        if !self.takes_work() {
            return None;
        }
        let waiting = self.waiting.first().map(|(until, _)| *until);
        waiting.into_iter().chain(self.next_lock_deadline()).min()
    }

    /// Gives ready tasks to handlers, one each in turn, as long as there is room.
    pub(super) fn dispatch(&mut self, now: Now, out: &mut Out) {
        if self.ready.is_empty() || self.halt.is_some() || !self.takes_work() {
            return;
        }
        let mut room = self
            .setup
            .tasks_at_once
            .saturating_sub(self.runs.values().filter(|run| run.task.is_some()).count());
        while room > 0 {
            let Some((agent, task)) = self.next_match() else { return };
            self.dispatched_last = Some(agent.clone());
            self.grant(now, &agent, &task, out);
            room -= 1;
        }
    }

    /// The next handler in turn that has room and a ready task.
    fn next_match(&self) -> Option<(AgentName, TaskId)> {
        let start = self.dispatched_last.as_ref();
        let after = self.agents.range::<AgentName, _>((
            start.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded),
            std::ops::Bound::Unbounded,
        ));
        after.chain(self.agents.iter()).find_map(|(name, agent)| {
            let version = agent.accepted.as_ref()?;
            let manifest = &version.manifest;
            let resting = matches!(agent.rest, super::state::Rest::Backoff { .. });
            let full = agent.runs.len() >= manifest.concurrency as usize;
            if !manifest.is_handler() || resting || full || self.unwanted(name).is_some() {
                return None;
            }
            // A survivor of an earlier supervisor may still work on a task: it goes first.
            let best = manifest.handles.iter().filter_map(|kind| self.ready.get(kind)?.first()).min()?;
            Some((name.clone(), best.1.clone()))
        })
    }

    fn grant(&mut self, now: Now, agent: &AgentName, id: &TaskId, out: &mut Out) {
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
        let grant = Box::new(Grant { lock, failures });
        self.launch(now, agent, Some((grant, run)), out);
    }

    /// The process of a handler is known: its lock names it from now on.
    pub(super) fn name_owner(&self, id: &TaskId, run: &RunId, process: &Identity, out: &mut Out) {
        let Some(task) = self.tasks.get(id) else { return };
        let Stage::Held(claim) = &task.stage else { return };
        if claim.owner != Owner::Run(run.clone()) {
            return;
        }
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
        ready.take(READY_LISTED_MAX).map(|(_, id)| id.clone()).collect()
    }

    /// True if an agent of this crew takes this task, as far as that can be known.
    pub(super) fn is_taken(&self, task: &Task) -> bool {
        match &task.stage {
            // Its owner is gone, and what follows for it is not decided yet.
            Stage::Held(claim) if claim.fate.is_some() => !self.storage.is_broken(),
            Stage::Held(claim) => match &claim.owner {
                Owner::Run(run) => {
                    self.runs.get(run).is_some_and(|run| !matches!(run.state, RunState::Stuck(_)))
                }
                Owner::Outside(_) | Owner::Unprovable => false,
            },
            // What cannot be written any more is nobody's.
            Stage::Pending { .. } => !self.storage.is_broken(),
            Stage::Ready | Stage::Waiting { .. } | Stage::Obscured { .. } => {
                let handler = self.agents.iter().any(|(name, agent)| {
                    let handles =
                        agent.accepted.as_ref().is_some_and(|v| v.manifest.handles.contains(&task.kind));
                    handles && self.unwanted(name).is_none()
                });
                !self.storage.is_broken() && (handler || self.claimed_kinds.contains(&task.kind))
            }
        }
    }
}
