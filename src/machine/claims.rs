//! Claims: who holds a task, and what becomes of it.
//!
//! The rules are those of docs/protocol.md, "Claims". In short: the supervisor alone removes locks,
//! and only after the task's next token is durable; an owner's death is proved before its task is
//! given away, and outcomes are looked for before that; an outcome counts only if it bears the task's
//! token and the lock's nonce.

use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Name, RunId, TaskId};
use crate::protocol::task::Lock;
use crate::protocol::time::{Mono, Now};

use super::conclusion::{Told, conclusion_of};
use super::event::HandedIn;
use super::state::{Claim, Conclusion, Course, Lapse, Owner, RunState, Stage, State, Task, Then, Writing};
use super::{Effect, Out};

/// A claimed lock that did not change for so long has expired.
const LOCK_LIFE_MS: u64 = 30 * 60_000;
/// A lock that cannot be read and does not change for so long holds nothing.
const OBSCURED_MS: u64 = 10_000;
/// No wait is longer than this, whatever a wall clock says.
pub(super) const WAIT_MS_MAX: u64 = 7 * 86_400_000;

impl State {
    pub(super) fn lock_seen(&mut self, now: Now, id: &TaskId, lock: Result<Lock, String>, out: &mut Out) {
        let Some(task) = self.tasks.get(id) else {
            // One that could not be decided about was let go of; the next supervisor takes it up.
            if self.course != Course::Working {
                return;
            }
            let reason = "there is no such open task".into();
            out.push(Effect::Note(Fact::Rejected { what: "lock".into(), name: id.to_string(), reason }));
            out.push(Effect::RemoveLock(None, id.clone()));
            return;
        };
        match (&task.stage, lock) {
            (Stage::Pending(recording), Ok(lock))
                if recording.then == Then::Ready && lock.token == task.token =>
            {
                self.see_later(id, lock);
            }
            // Pending: its removal is on the way already. Held and unreadable: it was read before.
            (Stage::Pending(_) | Stage::Reviewed, _)
            | (Stage::Held(_) | Stage::Obscured { .. } | Stage::Blocked | Stage::Gated { .. }, Err(_)) => {}
            (Stage::Ready | Stage::Obscured { .. }, Ok(lock)) if lock.token == task.token => {
                self.claimed(now, id, lock, out);
            }
            (Stage::Held(claim), Ok(lock)) => {
                // A lock that gives no right to a held task goes with the claim, or is seen again once a
                // handler could not lay out its own. The owner may be at work: nobody else gets the task.
                if claim.nonce != lock.nonce && lock.token == task.token {
                    self.claimed(now, id, lock, out);
                }
            }
            (
                Stage::Ready
                | Stage::Waiting { .. }
                | Stage::Obscured { .. }
                | Stage::Blocked
                | Stage::Gated { .. },
                Ok(lock),
            ) => {
                let why = if lock.token == task.token {
                    "it was made while the task was not ready".to_owned()
                } else {
                    format!("it bears token {}, which is not the task's", lock.token)
                };
                self.clear_lock(id, &lock.agent, lock.token, why, out);
            }
            (Stage::Ready, Err(_)) => {
                self.take_from_ready(id, out);
                self.obscure(now, id);
            }
            (Stage::Waiting { until }, Err(_)) => {
                self.waiting.remove(&(*until, id.clone()));
                self.obscure(now, id);
            }
        }
    }

    /// The record is on the disk before we hear of it: somebody was quick, and holds the task from then on.
    fn see_later(&mut self, id: &TaskId, lock: Lock) {
        if let Some(task) = self.tasks.get_mut(id)
            && let Stage::Pending(recording) = &mut task.stage
        {
            recording.seen = Some(Box::new(lock));
        }
    }

    /// A void lock is on its way out, and this outcome bears the task's token: a power cut brought the one back and
    /// took the lock of the other. To conclude now would have two jobs remove one name.
    fn judge_later(&mut self, seen: HandedIn) {
        if let Some(task) = self.tasks.get_mut(&seen.outcome.task)
            && let Stage::Pending(recording) = &mut task.stage
        {
            recording.handed_in.get_or_insert(Box::new(seen));
        }
    }

    fn obscure(&mut self, now: Now, id: &TaskId) {
        if let Some(task) = self.tasks.get_mut(id) {
            task.stage = Stage::Obscured { until: now.mono.plus(OBSCURED_MS) };
            self.aging.insert(id.clone());
        }
    }

    /// Removes a lock that gives no right to the task. The task's token stands: nobody can hold it.
    fn clear_lock(&mut self, id: &TaskId, agent: &Name, token: u64, why: String, out: &mut Out) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let next_token = task.token;
        let then = match task.stage {
            Stage::Waiting { until } => {
                self.waiting.remove(&(until, id.clone()));
                Then::Waiting(until)
            }
            Stage::Blocked => Then::Blocked,
            // A gate that runs is not asked twice: only its end takes the task out of this stage.
            Stage::Gated { run: Some(_) } => return,
            Stage::Gated { run: None } => {
                self.to_judge.retain(|other| other != id);
                Then::Gated
            }
            Stage::Ready | Stage::Obscured { .. } | Stage::Pending(_) | Stage::Held(_) | Stage::Reviewed => {
                Then::Ready
            }
        };
        self.aging.remove(id);
        self.take_from_ready(id, out);
        let ticket = self.fresh_ticket(id);
        if let Some(task) = self.tasks.get_mut(id) {
            task.stage = Stage::pending(ticket, Writing::Readiness, then);
        }
        let (task, agent) = (id.clone(), agent.clone());
        out.push(Effect::Note(Fact::Vacated { task, token, next_token, agent, why }));
        out.push(Effect::RemoveLock(Some(ticket), id.clone()));
    }

    /// An agent claimed a ready task by itself.
    fn claimed(&mut self, now: Now, id: &TaskId, lock: Lock, out: &mut Out) {
        self.take_from_ready(id, out);
        if let Some(Stage::Held(before)) = self.tasks.get(id).map(|task| task.stage.clone()) {
            // The disk decides: whoever we thought held it does not.
            self.let_go(id, &before, out);
        }
        let began_in_this_boot = lock.owner.as_ref().is_some_and(|process| process.boot == self.setup.boot);
        let owner = self.owner_of(&lock, out);
        let Some(task) = self.tasks.get_mut(id) else { return };
        self.claimed_kinds.insert(task.kind.clone());
        let held_by = owner.clone().unwrap_or(Owner::Unprovable);
        let claim = Claim {
            nonce: lock.nonce,
            agent: lock.agent.clone(),
            token: lock.token,
            owner: held_by.clone(),
            ages: true,
            renewed: now.mono,
            began: now.wall,
            has_begun: lock.owner.is_some(),
            words: String::new(),
            peak_memory: None,
            fate: None,
        };
        task.stage = Stage::Held(Box::new(claim));
        self.aging.insert(id.clone());
        out.push(Effect::Note(Fact::Claimed {
            task: id.clone(),
            token: lock.token,
            agent: lock.agent,
            run: lock.run.clone(),
        }));
        out.push(Effect::Watch);
        match owner {
            Some(Owner::Run(run)) => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.holds.insert(id.clone());
                }
            }
            Some(Owner::Outside(name)) => {
                self.outside.insert(name, id.clone());
            }
            Some(Owner::Unprovable) => {}
            None => {
                // A boot that is over ended all that ran in it, and what the lock does not name never began.
                let died = began_in_this_boot;
                let fate = Conclusion::Returned { why: "its owner is gone".into(), died };
                self.owner_gone(id, &held_by, fate, out);
            }
        }
    }

    /// Whose a lock is; `None` if that owner is proved gone.
    fn owner_of(&self, lock: &Lock, out: &mut Out) -> Option<Owner> {
        match (&lock.run, &lock.owner) {
            (_, Some(process)) if process.boot != self.setup.boot => None,
            (_, Some(process)) if process.ns != self.setup.ns => Some(Owner::Unprovable),
            (Some(run), _) => {
                // Survivors of an earlier supervisor are runs too: a run that is none is gone.
                self.runs.get(run).is_some_and(|run| run.agent == lock.agent).then(|| Owner::Run(run.clone()))
            }
            (None, Some(process)) => {
                // A name that is taken, or none, cannot be watched under: age decides.
                let free = |name: &Name| !self.runs.contains_key(name) && !self.outside.contains_key(name);
                let Some(name) = lock.nonce.parse::<Name>().ok().filter(free) else {
                    return Some(Owner::Unprovable);
                };
                out.push(Effect::TakeOver(name.clone(), process.clone()));
                Some(Owner::Outside(name))
            }
            (None, None) => Some(Owner::Unprovable),
        }
    }

    /// A process outside any run, which held a task, is gone.
    pub(super) fn outside_owner_gone(&mut self, name: &RunId, out: &mut Out) {
        if let Some(id) = self.outside.remove(name) {
            let fate = Conclusion::Returned { why: "its owner is gone".into(), died: true };
            self.owner_gone(&id, &Owner::Outside(name.clone()), fate, out);
        }
    }

    /// The owner of a task is proved gone: outcomes are looked for first; `fate` is what follows if there is none.
    pub(super) fn owner_gone(&mut self, id: &TaskId, owner: &Owner, fate: Conclusion, out: &mut Out) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Stage::Held(claim) = &mut task.stage else { return };
        if claim.owner != *owner {
            return;
        }
        claim.fate = Some(fate);
        out.push(Effect::LookForOutcomes(id.clone(), claim.agent.clone()));
    }

    pub(super) fn outcomes_looked(&mut self, now: Now, id: &TaskId, out: &mut Out) {
        if self.storage.is_broken() {
            return;
        }
        let Some(task) = self.tasks.get(id) else { return };
        let Stage::Held(claim) = &task.stage else { return };
        let Some(fate) = claim.fate.clone() else { return };
        let claim = claim.as_ref().clone();
        self.conclude(now, id, claim, &fate, Told::Now, out);
    }

    /// Nothing may be decided about the task. The next supervisor finds its lock and looks again.
    pub(super) fn outcomes_unseen(&mut self, id: &TaskId) {
        if let Course::Draining { .. } = self.course {
            self.tasks.remove(id);
            self.aging.remove(id);
            self.leave_unanswered(id);
        }
    }

    pub(super) fn outcome_seen(&mut self, now: Now, seen: HandedIn, out: &mut Out) {
        let HandedIn { agent, outcome, decided, words } = seen;
        let refuse = |reason: String| Effect::RefuseOutcome {
            agent: agent.clone(),
            task: outcome.task.clone(),
            token: outcome.token,
            nonce: outcome.nonce.clone(),
            reason,
        };
        if decided {
            out.push(Effect::DropOutcome(agent, outcome.task, outcome.token, outcome.nonce));
            return;
        }
        let Some(task) = self.tasks.get(&outcome.task) else {
            if self.course == Course::Working {
                out.push(refuse("there is no such open task".into()));
            }
            return;
        };
        if self.storage.is_broken() {
            return;
        }
        let claim = match &task.stage {
            Stage::Pending(recording)
                if recording.writing.claim().is_some_and(|claim| claim.nonce == outcome.nonce) =>
            {
                return;
            }
            // Claimed and handed in while the record was on its way: judged with that lock, once it is durable.
            Stage::Pending(recording)
                if recording
                    .seen
                    .as_ref()
                    .is_some_and(|lock| lock.token == outcome.token && lock.nonce == outcome.nonce) =>
            {
                return;
            }
            _ if task.token != outcome.token => {
                out.push(refuse(format!("too late: the task's token is {} by now", task.token)));
                return;
            }
            Stage::Held(claim)
                if claim.nonce == outcome.nonce && claim.agent == agent || mutant!(NonceUnchecked) =>
            {
                claim.as_ref().clone()
            }
            Stage::Held(claim) => {
                out.push(refuse(format!("the task is held by {}, by another claim", claim.agent)));
                return;
            }
            // A power cut took the lock's name or its bytes, which nobody makes durable; the token still proves the
            // claim.
            Stage::Ready | Stage::Obscured { .. } => Claim::by_token(now, agent.clone(), &outcome),
            Stage::Pending(recording) if recording.is_free_of_claims() => {
                self.judge_later(HandedIn { agent, outcome, decided, words });
                return;
            }
            Stage::Pending(_)
            | Stage::Waiting { .. }
            | Stage::Blocked
            | Stage::Gated { .. }
            | Stage::Reviewed => {
                out.push(refuse("the task is not held by that claim".into()));
                return;
            }
        };
        let claim = self.with_what_was_seen(claim, words);
        if self.is_unknown(&claim.agent) {
            return self.keep_for_later(&outcome.task, claim, out);
        }
        let conclusion = conclusion_of(&outcome);
        self.conclude(now, &outcome.task, claim, &conclusion, Told::Now, out);
    }

    /// A claim with what is known of its owner's work, where that goes on.
    fn with_what_was_seen(&self, claim: Claim, words: String) -> Claim {
        let run = match &claim.owner {
            Owner::Run(run) => self.runs.get(run),
            Owner::Outside(_) | Owner::Unprovable => None,
        };
        let peak_memory = run.map_or(claim.peak_memory, |run| run.peak_memory);
        let words = if words.is_empty() { claim.words } else { words };
        Claim { words, peak_memory, ..claim }
    }

    /// True while it cannot be told what an agent declares: its file was not looked at yet, or is refused.
    fn is_unknown(&self, agent: &AgentName) -> bool {
        match self.agents.get(agent).map(|agent| (&agent.accepted, &agent.refusal)) {
            Some((Some(_), _)) => false,
            Some((None, Some(_))) => true,
            Some((None, None)) | None => !self.agents_looked,
        }
    }

    /// An outcome stays where it is until it is known what follows from it: a gate, retries. Its owner holds the
    /// task until then, dead or alive.
    fn keep_for_later(&mut self, id: &TaskId, claim: Claim, out: &mut Out) {
        self.take_from_ready(id, out);
        if let Some(task) = self.tasks.get_mut(id) {
            task.stage = Stage::Held(Box::new(Claim { fate: None, ..claim }));
        }
    }

    /// The claim that holds a task.
    pub(super) fn claim_mut(&mut self, id: &TaskId) -> Option<&mut Claim> {
        match &mut self.tasks.get_mut(id)?.stage {
            Stage::Held(claim) => Some(claim),
            Stage::Pending(_)
            | Stage::Ready
            | Stage::Waiting { .. }
            | Stage::Blocked
            | Stage::Obscured { .. }
            | Stage::Gated { .. }
            | Stage::Reviewed => None,
        }
    }

    /// The claim is no longer counted as its owner's.
    pub(super) fn let_go(&mut self, id: &TaskId, claim: &Claim, out: &mut Out) {
        self.take_from_ready(id, out);
        if self.aging.remove(id) {
            out.push(Effect::Watch);
        }
        match &claim.owner {
            Owner::Run(run) => {
                if let Some(run) = self.runs.get_mut(run) {
                    run.holds.remove(id);
                }
            }
            Owner::Outside(name) => {
                self.outside.remove(name);
                out.push(Effect::Release(name.clone()));
            }
            Owner::Unprovable => {}
        }
    }

    pub(super) fn renewed(&mut self, now: Now, id: &TaskId, out: &mut Out) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        match &mut task.stage {
            Stage::Held(claim) => {
                claim.renewed = now.mono;
                if let Owner::Run(run) = &claim.owner {
                    let run = run.clone();
                    self.lock_renewed(&run, id, out);
                }
            }
            Stage::Obscured { until } => *until = now.mono.plus(OBSCURED_MS),
            Stage::Pending(_)
            | Stage::Ready
            | Stage::Waiting { .. }
            | Stage::Blocked
            | Stage::Gated { .. }
            | Stage::Reviewed => {}
        }
    }

    /// Acts on locks that expired or stayed unreadable, at most so many.
    pub(super) fn locks_due(&mut self, now: Now, most: usize, out: &mut Out) {
        let due: Vec<TaskId> = self
            .aging
            .iter()
            .filter(|id| self.lock_due_at(id).is_some_and(|at| at <= now.mono))
            .take(most)
            .cloned()
            .collect();
        for id in due {
            match self.tasks.get(&id).map(|task| &task.stage) {
                Some(Stage::Obscured { .. }) => self.vacate_unreadable(now, &id, out),
                Some(Stage::Held(claim)) => {
                    let owner = claim.owner.clone();
                    self.expired(now, &id, &owner, out);
                }
                Some(
                    Stage::Pending(_)
                    | Stage::Ready
                    | Stage::Waiting { .. }
                    | Stage::Blocked
                    | Stage::Gated { .. }
                    | Stage::Reviewed,
                )
                | None => {
                    self.aging.remove(&id);
                }
            }
        }
    }

    fn vacate_unreadable(&mut self, now: Now, id: &TaskId, out: &mut Out) {
        let Some(token) = self.tasks.get(id).map(|task| task.token) else { return };
        let Ok(agent) = crate::protocol::task::OPERATOR.parse::<Name>() else { return };
        let claim = Claim {
            nonce: String::new(),
            agent,
            token,
            owner: Owner::Unprovable,
            ages: false,
            renewed: now.mono,
            began: now.wall,
            has_begun: false,
            words: String::new(),
            peak_memory: None,
            fate: None,
        };
        let why = "its lock cannot be read and did not change for 10 s".to_owned();
        self.conclude(now, id, claim, &Conclusion::Returned { why, died: false }, Told::Now, out);
    }

    fn expired(&mut self, now: Now, id: &TaskId, owner: &Owner, out: &mut Out) {
        let live = match owner {
            Owner::Run(run) => self.runs.get(run).map(|record| (run.clone(), record.state.clone())),
            Owner::Outside(_) | Owner::Unprovable => None,
        };
        // Asked again only after another life, whatever comes of it.
        if let Some(Task { stage: Stage::Held(claim), .. }) = self.tasks.get_mut(id) {
            claim.renewed = now.mono;
        }
        match live {
            Some((run, RunState::Running)) => {
                self.isolate(now, &run, Lapse::Lock(id.clone()), out);
            }
            Some(_) => {}
            None => {
                let why = "its lock expired".to_owned();
                self.owner_gone(id, owner, Conclusion::Returned { why, died: false }, out);
            }
        }
    }

    fn lock_due_at(&self, id: &TaskId) -> Option<Mono> {
        match &self.tasks.get(id)?.stage {
            Stage::Obscured { until } => Some(*until),
            Stage::Held(claim) if claim.ages && claim.fate.is_none() && !self.is_withheld(claim) => {
                Some(claim.renewed.plus(LOCK_LIFE_MS))
            }
            Stage::Held(_)
            | Stage::Pending(_)
            | Stage::Ready
            | Stage::Waiting { .. }
            | Stage::Blocked
            | Stage::Gated { .. }
            | Stage::Reviewed => None,
        }
    }

    pub(super) fn next_lock_deadline(&self) -> Option<Mono> {
        self.aging.iter().filter_map(|id| self.lock_due_at(id)).min()
    }
}
