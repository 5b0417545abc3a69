//! The writer (src/edge/writer.rs): jobs are committed in batches, phase by phase: the ledger's lines, what may be
//! seen once it tells of them, then the removals, which nothing makes durable.
//!
//! The checks that stand outside the protocol are here too, at the steps that would do the harm.

use crate::files::{Accepted, Lock, Nonce, Record, Shelf, Verdict};
use crate::supervisor::Supervisor;
use crate::world::{Flaw, Rules, Variant, World};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Removal {
    New,
    Open,
    Lock,
    Outcome(Nonce),
    /// Moved to `refused/`.
    Refused(Nonce),
}

/// A record that is written, and the claim that this ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Write {
    pub(crate) shelf: Shelf,
    pub(crate) record: Record,
    pub(crate) ends: Option<Nonce>,
}

/// What the loop hears once a job has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Heard {
    /// What the task waited for is durable.
    Stored,
    /// These files are gone, and may be looked at again.
    Left(Removal),
}

/// What belongs together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Job {
    pub(crate) tell: Option<Accepted>,
    pub(crate) then: Option<Write>,
    pub(crate) last: Vec<Removal>,
    pub(crate) heard: Option<Heard>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Step {
    Tell(Accepted),
    Put(Write),
    Sync(Shelf),
    Remove(Removal),
}

/// The writer's thread: what it was given, and the batch that it is at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Writer {
    pub(crate) jobs: Vec<Job>,
    steps: Vec<Step>,
    ends: Vec<Heard>,
}

impl Writer {
    pub(crate) fn has_work(&self) -> bool {
        !self.jobs.is_empty() || !self.steps.is_empty()
    }

    fn begin(&mut self, rules: &Rules, cuts: bool) {
        let jobs = std::mem::take(&mut self.jobs);
        let tells = jobs.iter().filter_map(|job| job.tell).map(Step::Tell);
        let puts = jobs.iter().filter_map(|job| job.then).map(Step::Put);
        let mut syncs: Vec<Step> = Vec::new();
        for write in jobs.iter().filter_map(|job| job.then) {
            if cuts && !syncs.contains(&Step::Sync(write.shelf)) {
                syncs.push(Step::Sync(write.shelf));
            }
        }
        let removals = jobs.iter().flat_map(|job| &job.last).copied().map(Step::Remove);
        let then = puts.chain(syncs);
        self.steps = if rules.variant == Variant::BumpAfterUnlink {
            tells.chain(removals).chain(then).collect()
        } else {
            tells.chain(then).chain(removals).collect()
        };
        self.ends = jobs.iter().filter_map(|job| job.heard).collect();
    }
}

impl Supervisor {
    /// The writer's next step; at the end of its batch the loop hears of it.
    fn next_step(&mut self, rules: &Rules, cuts: bool) -> Option<Step> {
        if self.writer.steps.is_empty() {
            self.writer.begin(rules, cuts);
        }
        let step = (!self.writer.steps.is_empty()).then(|| self.writer.steps.remove(0));
        if self.writer.steps.is_empty() {
            self.heard.append(&mut self.writer.ends);
        }
        step
    }
}

impl World {
    pub(crate) fn writer_step(&mut self, rules: &Rules) {
        let cuts = self.cuts > 0;
        let Some(step) = self.supervisor.as_mut().and_then(|it| it.next_step(rules, cuts)) else { return };
        match step {
            Step::Tell(accepted) => self.tell(accepted),
            Step::Put(write) => self.put(write),
            Step::Sync(shelf) => self.disk.sync(shelf),
            Step::Remove(Removal::New) => self.disk.new.put(None, cuts),
            Step::Remove(Removal::Open) => self.disk.open.put(None, cuts),
            Step::Remove(Removal::Lock) => self.remove_lock(),
            Step::Remove(Removal::Outcome(nonce)) => self.disk.outcomes[usize::from(nonce)].put(None, cuts),
            Step::Remove(Removal::Refused(nonce)) => {
                self.disk.outcomes[usize::from(nonce)].put(None, cuts);
                self.disk.refused.insert(nonce);
            }
        }
    }

    /// An outcome is accepted: the point from which it counts.
    fn tell(&mut self, accepted: Accepted) {
        let Accepted { nonce, token, .. } = accepted;
        if let Some(before) = self.disk.ledger.last().copied() {
            if before.verdict == Verdict::Done || self.disk.ledger.iter().any(|one| one.nonce == nonce) {
                self.flaw(Flaw::AcceptedTwice);
            }
            if before.token >= token {
                self.flaw(Flaw::TokenShared);
            }
        }
        // A lock of another claim may have come between the look and this, but only where a power cut took this
        // claim's own: that other claim is void from the look on.
        let other = self.disk.holder().is_some_and(|holder| holder != nonce && !self.late.contains(holder));
        if self.disk.token() != Some(token) || self.fenced.contains(nonce) || other {
            self.flaw(Flaw::StaleAccepted);
        }
        self.disk.ledger.push(accepted);
    }

    /// A record appears: whoever held the task by the one before it does not any more.
    fn put(&mut self, write: Write) {
        if let Some(before) = self.disk.open.get() {
            if write.shelf == Shelf::Open && write.record.token <= before.token {
                self.flaw(Flaw::TokenShared);
            }
            for nonce in (0..).take(self.agents.len()) {
                self.fence(nonce, before.token, write);
            }
        }
        self.disk.reserved = self.disk.reserved.max(write.record.token);
        let cuts = self.cuts > 0;
        self.disk.shelf(write.shelf).put(Some(write.record), cuts);
    }

    /// One claim loses its right by this write: was it given up before, or is it the one that ended?
    fn fence(&mut self, nonce: Nonce, token: u8, write: Write) {
        let said = write.ends == Some(nonce) && write.record.decided.contains(nonce);
        if said || self.fenced.contains(nonce) || self.late.contains(nonce) {
            return;
        }
        let agent = self.agents[usize::from(nonce)];
        if agent.works_with() == Some(token) && self.disk.holder() == Some(nonce) {
            self.flaw(Flaw::OwnerRobbed);
        }
        let handed_in = self.disk.outcomes[usize::from(nonce)].get();
        let counts = handed_in.is_some_and(|it| it.token == token && it.verdict != Verdict::Released);
        if counts && !self.claimed_early {
            self.flaw(Flaw::AcknowledgedLost);
        }
    }

    /// An outcome is about to be refused: is it one that must not be?
    pub(crate) fn check_refusal(&mut self, nonce: Nonce) {
        let Some(outcome) = self.disk.outcomes[usize::from(nonce)].get() else { return };
        let current = self.disk.token() == Some(outcome.token) && outcome.verdict != Verdict::Released;
        let given_up = self.fenced.contains(nonce) || self.late.contains(nonce) || self.claimed_early;
        if current && !given_up || self.disk.ledger.iter().any(|accepted| accepted.nonce == nonce) {
            self.flaw(Flaw::AcknowledgedLost);
        }
    }

    /// The supervisor removes a lock. One that gives its live owner the right to the task is nobody's to remove.
    fn remove_lock(&mut self) {
        if let Some(holder) = self.disk.holder() {
            let works_with = self.agents[usize::from(holder)].works_with();
            if works_with.is_some() && works_with == self.disk.token() && !self.fenced.contains(holder) {
                self.flaw(Flaw::OwnerRobbed);
            }
        }
        self.put_lock(None);
    }

    pub(crate) fn put_lock(&mut self, lock: Option<Lock>) {
        let cuts = self.cuts > 0;
        self.disk.lock.put(lock, cuts);
    }

    /// True if a record names the claim as decided. After a crash there may be two, of which one is to go.
    pub(crate) fn is_decided(&self, rules: &Rules, nonce: Nonce) -> bool {
        let (open, done) = (self.disk.open.get(), self.disk.done.get());
        let done = done.filter(|_| rules.variant != Variant::OpenRecordDecides || open.is_none());
        [open, done].into_iter().flatten().any(|record| record.decided.contains(nonce))
    }
}
