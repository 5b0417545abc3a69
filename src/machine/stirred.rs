//! Jobs that are stirred by events: changes wait for the end of a `debounce`, for the run before, and after a failure.

use crate::protocol::name::{AgentName, TaskId};
use crate::protocol::time::{Mono, Now};

use super::agents::full_jitter;
use super::jobs::Job;
use super::state::{End, State};
use super::{Effect, Out};

/// The bounds of the waits (full jitter) after the first, second … run in a row that failed with the changes that it
/// was given, in milliseconds; the last serves all after it.
const BACKOFF_MS: [u64; 4] = [1_000, 4_000, 16_000, 60_000];

impl Job {
    /// When the changes that wait are to be given to a run, if nothing else is against it.
    fn is_due_at(&self) -> Option<Mono> {
        let throttled = self.starts.as_ref().and_then(super::triggers::Starts::open_from);
        let due = self.debounce.deadline()?.max(self.not_before);
        Some(throttled.map_or(due, |open| due.max(open)))
    }
}

impl State {
    /// Files changed that a job watches.
    pub(super) fn files_changed(&mut self, now: Now, name: &AgentName, out: &mut Out) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        job.debounce.event(now.mono);
        self.stirred.insert(name.clone());
        // Without a pause nothing is lost that is not found again by looking.
        if job.record.dirty.is_none() && job.debounce.deadline() > Some(now.mono) {
            job.record.dirty = Some(now.wall);
            out.push(Effect::KeepTrigger(name.clone(), job.record.clone()));
        }
    }

    /// All that changed has changed back.
    pub(super) fn files_settled(&mut self, name: &AgentName, out: &mut Out) {
        let Some(job) = self.jobs.get_mut(name) else { return };
        job.debounce.clear();
        self.stirred.remove(name);
        if job.record.dirty.take().is_some() {
            out.push(Effect::KeepTrigger(name.clone(), job.record.clone()));
        }
    }

    /// Gives changes to runs whose time has come.
    pub(super) fn changes_due(&mut self, now: Now, out: &mut Out) {
        for name in self.stirred_and_free().into_iter().map(|(_, name)| name).collect::<Vec<_>>() {
            let Some(job) = self.jobs.get_mut(&name) else { continue };
            if job.is_due_at().is_none_or(|due| due > now.mono) {
                continue;
            }
            job.debounce.clear();
            // Should the firing be lost in a crash, its changes are found again by looking.
            if job.record.dirty.take().is_some() {
                out.push(Effect::KeepTrigger(name.clone(), job.record.clone()));
            }
            if let Some(starts) = &mut job.starts {
                starts.started(now.mono);
            }
            self.stirred.remove(&name);
            self.quiet_since = Some(now.mono);
            out.push(Effect::FireChanges(name));
        }
    }

    pub(super) fn next_change_deadline(&self) -> Option<Mono> {
        self.stirred_and_free().into_iter().map(|(due, _)| due).min()
    }

    /// True if changes wait for the end of a `debounce`, and for nothing that may take for ever.
    pub(super) fn awaits_debounce(&self) -> bool {
        let waits = |(due, name): &(Mono, AgentName)| {
            self.jobs.get(name).is_some_and(|job| job.failures == 0 && job.debounce.deadline() == Some(*due))
        };
        self.stirred_and_free().iter().any(waits)
    }

    /// The jobs that changes wait for and that are free to take them, and from when on.
    fn stirred_and_free(&self) -> Vec<(Mono, AgentName)> {
        if self.stirred.is_empty() || !self.takes_work() || !self.begun {
            return Vec::new();
        }
        let free = |name: &&AgentName| self.unwanted(name).is_none();
        let due = |name: &AgentName| {
            let job = self.jobs.get(name).filter(|job| job.open.is_empty())?;
            Some((job.is_due_at()?, name.clone()))
        };
        self.stirred.iter().filter(free).filter_map(due).collect()
    }

    /// A firing of a job ended, durably. What it was given is handled if it ended well; else it is given again.
    pub(super) fn firing_ended(&mut self, now: Now, name: &AgentName, id: &TaskId, end: End, out: &mut Out) {
        let jitter = self.rng.f64();
        let Some(job) = self.jobs.get_mut(name) else { return };
        job.open.remove(id);
        let well = end == End::Done;
        job.failures = if well { 0 } else { job.failures.saturating_add(1) };
        if let Some(step) = job.failures.checked_sub(1) {
            let bound = BACKOFF_MS[(step as usize).min(BACKOFF_MS.len() - 1)];
            job.not_before = now.mono.plus(full_jitter(bound, jitter));
        }
        out.push(Effect::FiringEnded(name.clone(), id.clone(), well));
    }
}
