//! The supervisor's loop (src/machine/claims.rs and tasks.rs, src/app/supervisor/inbox.rs, jobs.rs and recover.rs).
//! Between any two of its looks at files all others may act; what it wants written, the writer does later.

use crate::agent::{Kind, Stand};
use crate::files::{Accepted, Lock, Nonce, Nonces, Record, Shelf, Verdict};
use crate::world::{Rules, Variant, World};
use crate::writer::{Heard, Job, Removal, Write, Writer};

/// What the supervisor knows of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Stage {
    /// There is no such open task.
    Unknown,
    Ready,
    Held(Nonce),
    /// There is a lock that cannot be read.
    Obscured,
    /// A record or a removal is on its way to the disk.
    Pending {
        /// The claim that this ends.
        ends: Option<Nonce>,
        gone: bool,
        /// A claim that was seen meanwhile.
        seen: Option<Nonce>,
        /// An outcome that was handed in for the token that stays, and is judged once the lock is gone.
        waits: Option<Nonce>,
    },
}

/// What becomes of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Conclusion {
    Said(Verdict),
    /// Said before a crash: the ledger has it.
    SaidBefore(Verdict),
    /// Its owner is gone, or its lock expired, without a word.
    Unsaid,
}

/// What the loop is in the midst of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum At {
    Start,
    /// Recovery has read the records, and now looks for a lock.
    FirstLock,
    /// Recovery looks at all outcomes, from this one on.
    FirstOutcomes(Nonce),
    Idle,
    /// It has read an outcome, looked at the lock, and now judges.
    Judging(Nonce, Then),
    /// It has decided, and now looks at the files to write the job.
    Filing(Option<Nonce>, Conclusion, Then),
    /// It has given the task to a handler, and now publishes its lock.
    Publishing(Nonce),
}

/// Where the loop goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Then {
    Idle,
    FirstOutcomes(Nonce),
    FirstLock,
}

impl From<Then> for At {
    fn from(then: Then) -> Self {
        match then {
            Then::Idle => Self::Idle,
            Then::FirstOutcomes(from) => Self::FirstOutcomes(from),
            Then::FirstLock => Self::FirstLock,
        }
    }
}

/// What an idle loop may turn to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Turn {
    /// It goes on with what it is at.
    GoOn,
    LookAtNew,
    LookAtLock,
    LookAtOutcome(Nonce),
    Hear,
    /// The owner is proved gone.
    OwnerGone,
    /// The owner's lock expired; it is none of ours, and may be alive.
    Expired,
    /// The lock cannot be read and did not change for 10 s.
    Unreadable,
    Dispatch(Nonce),
}

/// All that a crash takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Supervisor {
    pub(crate) stage: Stage,
    pub(crate) token: u8,
    next_token: u8,
    pub(crate) at: At,
    pub(crate) writer: Writer,
    pub(crate) heard: Vec<Heard>,
    new_leaving: bool,
    lock_leaving: bool,
    outcomes_leaving: Nonces,
}

impl Supervisor {
    pub(crate) fn started() -> Self {
        Self {
            stage: Stage::Unknown,
            token: 0,
            next_token: 0,
            at: At::Start,
            writer: Writer::default(),
            heard: Vec::new(),
            new_leaving: false,
            lock_leaving: false,
            outcomes_leaving: Nonces::default(),
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.at == At::Idle && !self.writer.has_work() && self.heard.is_empty()
    }

    fn pending(ends: Option<Nonce>, gone: bool) -> Stage {
        Stage::Pending { ends, gone, seen: None, waits: None }
    }

    /// A removal that the task does not wait for.
    fn take_away(&mut self, removal: Removal) {
        match removal {
            Removal::Lock if self.lock_leaving => return,
            Removal::Lock => self.lock_leaving = true,
            Removal::Outcome(nonce) | Removal::Refused(nonce) => self.outcomes_leaving.insert(nonce),
            Removal::New => self.new_leaving = true,
            Removal::Open => {}
        }
        let heard = Some(Heard::Left(removal));
        self.writer.jobs.push(Job { last: vec![removal], heard, ..Job::default() });
    }

    fn fresh_token(&mut self) {
        self.token = self.next_token;
        self.next_token += 1;
    }

    fn conclude(&mut self, ends: Option<Nonce>, conclusion: Conclusion, then: Then) {
        let gone =
            matches!(conclusion, Conclusion::Said(Verdict::Done) | Conclusion::SaidBefore(Verdict::Done));
        if !gone {
            self.fresh_token();
        }
        self.stage = Self::pending(ends, gone);
        self.at = At::Filing(ends, conclusion, then);
    }

    fn lock_seen(&mut self, lock: Lock) {
        match (self.stage, lock.claims(self.token)) {
            (Stage::Unknown, _) => self.take_away(Removal::Lock),
            (Stage::Pending { ends, gone: false, waits, .. }, Some(nonce)) => {
                self.stage = Stage::Pending { ends, gone: false, seen: Some(nonce), waits };
            }
            (Stage::Ready | Stage::Obscured, Some(nonce)) => self.stage = Stage::Held(nonce),
            (Stage::Ready | Stage::Obscured, None) if lock == Lock::Torn => self.stage = Stage::Obscured,
            (Stage::Ready | Stage::Obscured, None) => {
                self.stage = Self::pending(None, false);
                let heard = Some(Heard::Stored);
                self.writer.jobs.push(Job { last: vec![Removal::Lock], heard, ..Job::default() });
            }
            (Stage::Pending { .. } | Stage::Held(_), _) => {}
        }
    }
}

impl World {
    /// What the loop may do next.
    pub(crate) fn turns(&self, turns: &mut Vec<Turn>) {
        let Some(it) = &self.supervisor else { return };
        if it.at != At::Idle {
            turns.push(Turn::GoOn);
            return;
        }
        if !it.heard.is_empty() {
            turns.push(Turn::Hear);
        }
        if self.disk.new.get().is_some() && !it.new_leaving && !matches!(it.stage, Stage::Pending { .. }) {
            turns.push(Turn::LookAtNew);
        }
        if self.disk.lock.get().is_some() && !it.lock_leaving && !matches!(it.stage, Stage::Held(_)) {
            turns.push(Turn::LookAtLock);
        }
        for (nonce, outcome) in (0..).zip(&self.disk.outcomes) {
            if outcome.get().is_some() && !it.outcomes_leaving.contains(nonce) {
                turns.push(Turn::LookAtOutcome(nonce));
            }
        }
        match it.stage {
            Stage::Held(owner) => {
                let agent = self.agents[usize::from(owner)];
                if agent.is_gone() {
                    turns.push(Turn::OwnerGone);
                } else if agent.kind == Kind::Outside {
                    turns.push(Turn::Expired);
                }
            }
            Stage::Ready => {
                for (nonce, agent) in (0..).zip(&self.agents) {
                    if agent.kind == Kind::Handler && agent.stand == Stand::Idle {
                        turns.push(Turn::Dispatch(nonce));
                    }
                }
            }
            Stage::Obscured => turns.push(Turn::Unreadable),
            Stage::Unknown | Stage::Pending { .. } => {}
        }
    }

    pub(crate) fn take_turn(&mut self, rules: &Rules, turn: Turn) {
        let Some(mut it) = self.supervisor.take() else { return };
        match turn {
            Turn::GoOn => self.go_on(&mut it, rules),
            Turn::LookAtNew => self.submission(&mut it),
            Turn::LookAtLock => self.look_at_lock(&mut it),
            Turn::LookAtOutcome(nonce) => {
                self.look_at_lock(&mut it);
                it.at = At::Judging(nonce, Then::Idle);
            }
            Turn::Hear => self.hear(&mut it, rules),
            Turn::OwnerGone => self.owner_gone(&mut it, rules),
            Turn::Expired => {
                if let Stage::Held(owner) = it.stage
                    && self.disk.outcomes[usize::from(owner)].get().is_none()
                {
                    self.fenced.insert(owner);
                }
                self.owner_gone(&mut it, rules);
            }
            Turn::Unreadable => it.conclude(None, Conclusion::Unsaid, Then::Idle),
            Turn::Dispatch(nonce) => {
                it.stage = Stage::Held(nonce);
                it.at = At::Publishing(nonce);
            }
        }
        self.supervisor = Some(it);
    }

    fn go_on(&mut self, it: &mut Supervisor, rules: &Rules) {
        match it.at {
            At::Start => {
                // What a killed supervisor renamed may not be durable: it is made so before anything follows from it.
                if rules.variant != Variant::TrustUnsynced {
                    self.disk.sync(Shelf::Open);
                    self.disk.sync(Shelf::Done);
                }
                let reserved = if rules.variant == Variant::TokensForgotten { 0 } else { self.disk.reserved };
                it.next_token = 1 + self.disk.open.get().map_or(reserved, |it| it.token.max(reserved));
                self.recover(it);
            }
            At::FirstLock => {
                self.look_at_lock(it);
                it.at = if rules.variant == Variant::AgentsBeforeOutcomes {
                    At::Idle
                } else {
                    At::FirstOutcomes(0)
                };
            }
            At::FirstOutcomes(nonce) => match self.disk.outcomes.get(usize::from(nonce)) {
                Some(outcome) if outcome.get().is_some() => {
                    self.look_at_lock(it);
                    it.at = At::Judging(nonce, Then::FirstOutcomes(nonce + 1));
                }
                Some(_) => it.at = At::FirstOutcomes(nonce + 1),
                None => it.at = At::Idle,
            },
            At::Idle => {}
            At::Judging(nonce, then) => {
                it.at = then.into();
                self.judge(it, rules, nonce, then);
            }
            At::Filing(ends, conclusion, then) => {
                it.at = then.into();
                self.file(it, ends, conclusion);
            }
            At::Publishing(nonce) => self.publish(it, nonce),
        }
        if it.at == At::Idle {
            self.open_to_claims = true;
        }
    }

    /// What an earlier supervisor left. Its own files change by nobody else, so that this is one step.
    fn recover(&mut self, it: &mut Supervisor) {
        it.at = At::FirstLock;
        let Some(record) = self.disk.open.get() else { return };
        if self.disk.done.get().is_some_and(|done| done.token >= record.token) {
            let last = vec![Removal::Open, Removal::Lock];
            it.writer.jobs.push(Job { last, ..Job::default() });
            return;
        }
        it.token = record.token;
        it.stage = Stage::Ready;
        let accepted = self.disk.ledger.last().copied();
        if let Some(Accepted { nonce, token, verdict }) = accepted
            && token == record.token
            && !record.decided.contains(nonce)
        {
            it.conclude(Some(nonce), Conclusion::SaidBefore(verdict), Then::FirstLock);
        }
    }

    fn submission(&mut self, it: &mut Supervisor) {
        if it.stage != Stage::Unknown || self.disk.done.get().is_some() {
            // It was admitted before a crash.
            it.take_away(Removal::New);
            return;
        }
        it.fresh_token();
        it.stage = Supervisor::pending(None, false);
        let record = Record { token: it.token, decided: Nonces::default() };
        it.writer.jobs.push(Job {
            then: Some(Write { shelf: Shelf::Open, record, ends: None }),
            last: vec![Removal::New],
            heard: Some(Heard::Stored),
            ..Job::default()
        });
    }

    fn look_at_lock(&self, it: &mut Supervisor) {
        let expected = !matches!(it.stage, Stage::Held(_) | Stage::Pending { gone: true, .. });
        if let Some(lock) = self.disk.lock.get().filter(|_| expected && !it.lock_leaving) {
            it.lock_seen(lock);
        }
    }

    fn judge(&mut self, it: &mut Supervisor, rules: &Rules, nonce: Nonce, then: Then) {
        let Some(outcome) = self.disk.outcomes[usize::from(nonce)].get() else { return };
        if self.is_decided(rules, nonce) {
            it.take_away(Removal::Outcome(nonce));
            return;
        }
        let said = Conclusion::Said(outcome.verdict);
        match it.stage {
            Stage::Pending { ends, seen, .. } if ends == Some(nonce) || seen == Some(nonce) => return,
            Stage::Unknown => {}
            _ if it.token != outcome.token => {}
            Stage::Held(owner) if owner == nonce || rules.variant == Variant::AnyNonce => {
                return it.conclude(Some(nonce), said, then);
            }
            Stage::Ready => return it.conclude(Some(nonce), said, then),
            Stage::Obscured if rules.variant != Variant::TornLockRefuses => {
                return it.conclude(Some(nonce), said, then);
            }
            Stage::Pending { ends: None, gone: false, seen: None, waits: None }
                if rules.variant != Variant::VoidLockRefuses =>
            {
                let waits = Some(nonce);
                it.stage = Stage::Pending { ends: None, gone: false, seen: None, waits };
                return;
            }
            Stage::Pending { waits, .. } if waits == Some(nonce) => return,
            Stage::Held(_) | Stage::Obscured | Stage::Pending { .. } => {}
        }
        self.check_refusal(nonce);
        it.take_away(Removal::Refused(nonce));
    }

    /// The owner is gone: outcomes are looked for before anything follows from that.
    fn owner_gone(&mut self, it: &mut Supervisor, rules: &Rules) {
        let Stage::Held(owner) = it.stage else { return };
        if self.disk.outcomes[usize::from(owner)].get().is_some()
            && rules.variant != Variant::VacateBeforeLooking
        {
            self.judge(it, rules, owner, Then::Idle);
        }
        if it.stage == Stage::Held(owner) {
            it.conclude(Some(owner), Conclusion::Unsaid, Then::Idle);
        }
    }

    /// What is concluded becomes a job. A lock that was lost has no removal either.
    fn file(&mut self, it: &mut Supervisor, ends: Option<Nonce>, conclusion: Conclusion) {
        let Some(mut record) = self.disk.open.get() else {
            it.stage = Stage::Unknown;
            return;
        };
        let mut job = Job { heard: Some(Heard::Stored), ..Job::default() };
        let token = record.token;
        record.token = it.token;
        let mut shelf = Shelf::Open;
        if let (Some(nonce), Conclusion::Said(verdict) | Conclusion::SaidBefore(verdict)) = (ends, conclusion)
        {
            record.decided.insert(nonce);
            if verdict == Verdict::Done {
                shelf = Shelf::Done;
                job.last.push(Removal::Open);
            }
            if verdict != Verdict::Released && matches!(conclusion, Conclusion::Said(_)) {
                job.tell = Some(Accepted { nonce, token, verdict });
            }
        }
        job.then = Some(Write { shelf, record, ends });
        if self.disk.lock.get().is_some() {
            job.last.push(Removal::Lock);
        }
        if let Some(nonce) = ends.filter(|nonce| record.decided.contains(*nonce)) {
            job.last.push(Removal::Outcome(nonce));
        }
        it.writer.jobs.push(job);
    }

    /// The lock first, then the process.
    fn publish(&mut self, it: &mut Supervisor, nonce: Nonce) {
        it.at = At::Idle;
        if self.disk.lock.get().is_some() {
            it.stage = Stage::Ready;
            return;
        }
        self.link_lock(it.token, nonce);
        self.agents[usize::from(nonce)].stand = Stand::Working(it.token);
    }

    fn hear(&mut self, it: &mut Supervisor, rules: &Rules) {
        match it.heard.remove(0) {
            Heard::Left(Removal::Lock) => it.lock_leaving = false,
            Heard::Left(Removal::Outcome(nonce) | Removal::Refused(nonce)) => {
                it.outcomes_leaving.remove(nonce);
            }
            Heard::Left(Removal::New) => it.new_leaving = false,
            Heard::Left(Removal::Open) => {}
            Heard::Stored => {
                let Stage::Pending { gone, seen, waits, .. } = it.stage else { return };
                it.stage = if gone { Stage::Unknown } else { Stage::Ready };
                // Before anybody else gets the task.
                if let Some(nonce) = waits {
                    self.judge(it, rules, nonce, Then::Idle);
                }
                if let Some(nonce) = seen.filter(|_| it.stage == Stage::Ready) {
                    it.stage = Stage::Held(nonce);
                    self.judge(it, rules, nonce, Then::Idle);
                }
            }
        }
    }
}
