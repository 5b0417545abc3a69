//! Tasks: admitted, waiting, ready, dispatched to handlers.
//!
//! A task's record on disk is the truth; what is here follows it. While a record is being written
//! the task is `Pending`, and nothing else is decided about it until the writer has answered.

use std::collections::BTreeSet;

use crate::protocol::layout::Shelf;
use crate::protocol::ledger::Fact;
use crate::protocol::name::{Kind, RunId, TaskId};
use crate::protocol::task::Phase;
use crate::protocol::time::Now;

use super::conclusion::Told;
use super::event::{Accepted, Found, Submission};
use super::state::{Claim, Conclusion, Course, Owner, RunState, Stage, State, Storage, Task, Then, Writing};
use super::task::fingerprint;
use super::waits::wait_until;
use super::{Effect, Out};

/// How many kinds of tasks share their memory; any more are kept as they come.
const KINDS_SHARED_MAX: usize = 1_000;
/// How many fencing tokens are reserved on disk at a time.
pub const TOKEN_BLOCK: u64 = 1_000;

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
            if let Stage::Pending(recording) = &known.stage
                && (matches!(recording.writing, Writing::Admission)
                    || matches!(recording.then, Then::Gone(_)))
            {
                // This very file is being admitted, and until that is durable it is all there is of the task. Or
                // the task is ending, and this may be its only record, moved back by somebody quick: the next
                // look tells.
                return;
            }
            // The same nonce: a crash came between admitting it and removing the submission.
            let duplicate = (known.nonce != fingerprint(&new.nonce))
                .then(|| Fact::Duplicate { task: new.id.clone(), of: "open".into() });
            out.push(Effect::DropSubmission(new.id, duplicate));
            return;
        }
        if is_left_over(&new) {
            out.push(Effect::DropSubmission(new.id, None));
            return;
        }
        if let Some(of) = repeats(now, &new) {
            let duplicate = Fact::Duplicate { task: new.id.clone(), of: of.into() };
            out.push(Effect::DropSubmission(new.id, Some(duplicate)));
            return;
        }
        if self.closes_a_cycle(&new) {
            let why = "its needs lead back to it: none of these tasks could ever run";
            out.push(Effect::RejectSubmission(new.id, why.into()));
            return;
        }
        self.admit(now, new, out);
    }

    fn admit(&mut self, now: Now, new: Submission, out: &mut Out) {
        // No record bore a token that was told of and not written, so nobody can have claimed with it.
        let token = new.told.unwrap_or_else(|| self.fresh_token(out));
        let (task, kind, nonce) = (new.id.clone(), new.kind.clone(), new.nonce.clone());
        let fact = if new.replayed.is_some() {
            Fact::Replayed { task, kind, token, nonce }
        } else {
            Fact::Submitted { task, kind, token, nonce, by: new.by }
        };
        let fact = new.told.is_none().then_some(fact);
        let ticket = self.fresh_ticket(&new.id);
        let more = self.more_of(&new.wishes, &new.needs);
        let (phase, then) = more.begins(now);
        let replaces = new.ended.map(|ended| ended.shelf);
        out.push(Effect::Admit { ticket, task: new.id.clone(), token, phase, replaces, fact });
        let task = Task {
            kind: self.shared(new.kind),
            nonce: fingerprint(&new.nonce),
            token,
            failures: 0,
            deferrals: 0,
            deaths: 0,
            priority: new.wishes.priority,
            at: new.at,
            more: more.boxed(),
            stage: Stage::pending(ticket, Writing::Admission, then),
        };
        self.insert(new.id, task);
    }

    /// The same kind, in the memory that all tasks of it share.
    fn shared(&mut self, kind: Kind) -> Kind {
        if let Some(known) = self.kinds.get(&kind) {
            return known.clone();
        }
        if self.kinds.len() < KINDS_SHARED_MAX {
            self.kinds.insert(kind.clone());
        }
        kind
    }

    /// Takes up a task, with what it waits for.
    fn insert(&mut self, id: TaskId, task: Task) {
        for need in task.more.iter().flat_map(|more| &more.needs) {
            self.needed_by.entry(need.clone()).or_default().insert(id.clone());
        }
        if let Some(at) = task.more.as_ref().and_then(|more| more.expires) {
            self.expiring.insert((at, id.clone()));
        }
        if let Some(job) = self.jobs.get_mut(&task.kind) {
            job.open.insert(id.clone());
        }
        self.tasks.insert(id, task);
    }

    /// Lets go of a task that is open no more.
    fn take_out(&mut self, id: &TaskId) -> Option<Task> {
        let task = self.tasks.remove(id)?;
        if let Some(job) = self.jobs.get_mut(&task.kind) {
            job.open.remove(id);
        }
        self.aging.remove(id);
        self.cancelling.remove(id);
        self.to_cancel.remove(id);
        for ended in &mut self.ended_needs {
            ended.waiting.remove(id);
        }
        if let Some(more) = &task.more {
            for need in &more.needs {
                if let Some(waiting) = self.needed_by.get_mut(need) {
                    waiting.remove(id);
                }
                if self.needed_by.get(need).is_some_and(BTreeSet::is_empty) {
                    self.needed_by.remove(need);
                }
            }
            if let Some(at) = more.expires {
                self.expiring.remove(&(at, id.clone()));
            }
        }
        Some(task)
    }

    pub(super) fn task_found(&mut self, now: Now, found: Found, out: &mut Out) {
        let id = found.id.clone();
        let accepted = found.accepted.clone();
        let (phase, not_before) = (found.phase, found.wishes.not_before);
        let (lock, handed_in) = (found.lock.clone(), found.handed_in.clone());
        let task = self.task_of(found);
        self.insert(id.clone(), task);
        if let Some(Accepted { agent, outcome, next }) = accepted {
            let claim = Claim::by_token(now, agent, &outcome);
            let conclusion = super::conclusion::conclusion_of(&outcome);
            self.conclude(now, &id, claim, &conclusion, Told::Already(next), out);
            return;
        }
        match phase {
            Phase::Waiting => {
                let until = now.mono.plus(wait_until(now, not_before.unwrap_or(now.wall)));
                self.wait(&id, until);
            }
            Phase::Blocked => self.unblock(now, &id, out),
            Phase::Gated => self.to_judge.push_back(id),
            Phase::New | Phase::Ready | Phase::Done | Phase::Dead | Phase::Review => {
                if let Some(lock) = lock {
                    self.lock_seen(now, &id, lock, out);
                }
                for outcome in handed_in {
                    self.outcome_seen(now, outcome, out);
                }
                if self.tasks.get(&id).is_some_and(|task| matches!(task.stage, Stage::Ready)) {
                    self.make_ready(&id, out);
                }
            }
        }
    }

    /// What a record says, without what follows from its phase.
    pub(super) fn task_of(&mut self, found: Found) -> Task {
        // A token that a record bears was given out, whatever the reservation says.
        self.next_token = self.next_token.max(found.token + 1);
        self.reserved_token = self.reserved_token.max(found.token);
        let mut more = self.more_of(&found.wishes, &found.needs);
        // Of a task that was tried, it says when the next try may be.
        more.not_before.take_if(|_| found.failures + found.deferrals > 0);
        more.made = found.made;
        // What it needed was met once, whatever became of that since.
        if !matches!(found.phase, Phase::New | Phase::Blocked) {
            more.met.append(&mut more.needs);
            more.lost_need = None;
        }
        let stage = match found.phase {
            Phase::Blocked => Stage::Blocked,
            Phase::Gated => Stage::Gated { run: None },
            Phase::Review => Stage::Reviewed,
            Phase::New | Phase::Ready | Phase::Waiting | Phase::Done | Phase::Dead => Stage::Ready,
        };
        Task {
            kind: self.shared(found.kind),
            nonce: fingerprint(&found.nonce),
            token: found.token,
            failures: found.failures,
            deferrals: u16::try_from(found.deferrals).unwrap_or(u16::MAX),
            deaths: u8::try_from(found.deaths).unwrap_or(u8::MAX),
            priority: found.wishes.priority,
            at: found.at,
            more: more.boxed(),
            stage,
        }
    }

    /// The record is durable: the task goes where its record says.
    pub(super) fn stored(&mut self, now: Now, ticket: u64, out: &mut Out) {
        let Some(id) = self.tickets.remove(&ticket) else { return };
        let Some(task) = self.tasks.get_mut(&id) else { return };
        let Stage::Pending(recording) = &mut task.stage else { return };
        if recording.ticket != ticket {
            return;
        }
        if matches!(recording.writing, Writing::Admission)
            && let Some(job) = self.jobs.get_mut(&task.kind)
        {
            job.is_durable(&task.kind, out);
        }
        let (seen, handed_in) = (recording.seen.take(), recording.handed_in.take());
        match recording.then.clone() {
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
                    out.push(Effect::LookForOutcomes(id.clone(), agent));
                }
            }
            Then::Waiting(until) => self.wait(&id, until),
            Then::Blocked => {
                task.stage = Stage::Blocked;
                self.unblock(now, &id, out);
            }
            Then::Gated => {
                task.stage = Stage::Gated { run: None };
                self.to_judge.push_back(id.clone());
            }
            Then::Gone(end) => {
                let gone = self.take_out(&id);
                self.need_ended(&id, end);
                if let Some(task) = gone {
                    self.firing_ended(now, &task.kind, &id, end, out);
                }
                return;
            }
        }
        self.give_up_if_due(now, &id, out);
    }

    /// What was to be written could not be, for a reason of its own.
    pub(super) fn not_stored(&mut self, now: Now, ticket: u64, why: &str, out: &mut Out) {
        let Some(id) = self.tickets.remove(&ticket) else { return };
        if self.storage.is_broken() {
            return;
        }
        let Some(Stage::Pending(recording)) = self.tasks.get(&id).map(|task| &task.stage) else { return };
        if recording.ticket != ticket {
            return;
        }
        match recording.writing.clone() {
            // The owner's output was no output.
            Writing::Success(claim) => {
                if let Some(more) = self.tasks.get_mut(&id).and_then(|task| task.more.as_mut()) {
                    more.made = None;
                }
                let error = format!("its output was refused: {why}");
                let failed = Conclusion::Failed { error, permanent: false, code: None, after: None };
                self.conclude(now, &id, *claim, &failed, Told::Now, out);
            }
            // It is still a submission, or none any more: the next look tells.
            Writing::Admission => drop(self.take_out(&id)),
            // Tried again and again it might fail for ever: a person has to look at it.
            Writing::Readiness | Writing::Decision | Writing::Setback(_) => self.task_lost(&id, why, out),
        }
    }

    /// Without its record a task cannot go on; nothing is left to keep of it.
    pub(super) fn task_lost(&mut self, id: &TaskId, reason: &str, out: &mut Out) {
        self.take_from_ready(id, out);
        let Some(task) = self.take_out(id) else { return };
        match task.stage {
            Stage::Waiting { until } => {
                self.waiting.remove(&(until, id.clone()));
            }
            Stage::Held(claim) => self.let_go(id, &claim, out),
            // Nobody will answer for what could not even be handed to the writer.
            Stage::Pending(recording) => drop(self.tickets.remove(&recording.ticket)),
            Stage::Gated { .. } => self.to_judge.retain(|other| other != id),
            Stage::Ready | Stage::Obscured { .. } | Stage::Blocked | Stage::Reviewed => {}
        }
        self.disappoint(id, reason);
        out.push(Effect::Note(Fact::Rejected {
            what: "task".into(),
            name: id.to_string(),
            reason: reason.to_owned(),
        }));
        out.push(Effect::Alert(format!("lost-{id}"), format!("task {id} is lost: {reason}")));
    }

    /// The task goes back untouched: no process was made for it.
    pub(super) fn hand_back(&mut self, now: Now, id: &TaskId, run: &RunId, out: &mut Out) {
        if let Some(task) = self.tasks.get(id)
            && let Stage::Held(claim) = &task.stage
            && claim.owner == Owner::Run(run.clone())
        {
            // It may have expired meanwhile.
            let expires = task.more.as_ref().and_then(|more| more.expires);
            self.expiring.extend(expires.map(|at| (at, id.clone())));
            self.make_ready(id, out);
            self.give_up_if_due(now, id, out);
        }
    }

    /// True if the task is known and has not ended.
    #[must_use]
    pub fn is_open(&self, id: &TaskId) -> bool {
        self.tasks.contains_key(id)
    }

    /// True if the task is open, nobody is known to hold it, and nothing is being decided about it.
    #[must_use]
    pub fn is_free(&self, id: &TaskId) -> bool {
        let stage = self.tasks.get(id).map(|task| &task.stage);
        matches!(stage, Some(Stage::Ready | Stage::Waiting { .. } | Stage::Blocked))
    }

    /// The token that an open task bears whose result is not made yet.
    #[must_use]
    pub fn token_to_claim(&self, id: &TaskId) -> Option<u64> {
        self.tasks.get(id).filter(|task| task.made().is_none()).map(|task| task.token)
    }

    /// True if what was submitted within this task, by the claim of this token and nonce, may still count.
    #[must_use]
    pub fn may_count(&self, id: &TaskId, token: u64, nonce: &str) -> bool {
        let Some(task) = self.tasks.get(id) else { return false };
        // Without a nonce, nobody knows whose the claim is.
        let is_its = |claim: &Claim| claim.token == token && (claim.nonce.is_empty() || claim.nonce == nonce);
        let made = || task.made().is_some_and(|made| made.nonce == nonce);
        match &task.stage {
            Stage::Held(claim) => is_its(claim),
            Stage::Pending(recording) => {
                let seen = recording.seen.as_ref().is_some_and(|lock| lock.token == token);
                let handed_in = recording.handed_in.as_ref().is_some_and(|seen| seen.outcome.nonce == nonce);
                seen || handed_in || recording.writing.claim().is_some_and(is_its) || made()
            }
            Stage::Gated { .. } | Stage::Reviewed => made(),
            Stage::Obscured { .. } => task.token == token,
            Stage::Ready | Stage::Waiting { .. } | Stage::Blocked => false,
        }
    }

    /// True if a lock of this task would be news.
    #[must_use]
    pub fn expects_lock(&self, id: &TaskId) -> bool {
        match self.tasks.get(id).map(|task| &task.stage) {
            Some(Stage::Held(_)) => false,
            Some(Stage::Pending(recording)) => recording.then == Then::Ready,
            Some(
                Stage::Ready
                | Stage::Waiting { .. }
                | Stage::Blocked
                | Stage::Gated { .. }
                | Stage::Reviewed
                | Stage::Obscured { .. },
            )
            | None => true,
        }
    }

    /// True while something new may be begun: afterwards records stay as they are, for the next supervisor.
    pub(super) fn takes_work(&self) -> bool {
        self.storage == Storage::Whole && self.course == Course::Working
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
            Stage::Pending(_) | Stage::Gated { .. } | Stage::Reviewed => !self.storage.is_broken(),
            // What ends what it needs makes it ready.
            Stage::Blocked => false,
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

/// Whether this is what was admitted before, still there because a power cut undid its removal.
fn is_left_over(new: &Submission) -> bool {
    new.ended.as_ref().is_some_and(|ended| match new.replayed {
        None => new.nonce == ended.nonce,
        Some(token) => ended.shelf == Shelf::Dead && token < ended.token,
    })
}

/// Where the task lies that a submission repeats, if one keeps it out. A dead letter keeps out nobody: this is its
/// next life.
fn repeats(now: Now, new: &Submission) -> Option<&'static str> {
    if mutant!(ReplayIsDuplicate) && new.replayed.is_some() {
        return Some("dead");
    }
    let ended = new.ended.as_ref()?;
    let is_past = || new.replayed.is_none() && ended.unique_until.is_some_and(|until| until <= now.wall);
    let keeps_out = match ended.shelf {
        Shelf::Dead => false,
        Shelf::Done => !is_past(),
        Shelf::Review => true,
    };
    keeps_out.then(|| ended.shelf.as_str())
}
