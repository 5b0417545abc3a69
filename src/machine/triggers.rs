//! How often events lead to runs: `debounce` with `max_wait`, and `throttle`. Time is a parameter.

use std::collections::VecDeque;

use crate::protocol::manifest::Throttle;
use crate::protocol::time::Mono;

/// A pause after events, which each further one begins anew.
///
/// | state | an event | a tick |
/// |---|---|---|
/// | clean | dirty since now, last event now | – |
/// | dirty | last event now | at the [deadline](Debounce::deadline): fires, and is clean |
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debounce {
    pause_ms: u64,
    max_wait_ms: u64,
    dirty: Option<Dirty>,
}

/// Events that have not led to a run yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dirty {
    /// When the first of them came.
    pub since: Mono,
    /// When the last of them came.
    pub last: Mono,
}

impl Debounce {
    /// A pause of `pause_ms`, which is over at the latest `max_wait_ms` after the first event.
    #[must_use]
    pub fn new(pause_ms: u64, max_wait_ms: u64) -> Self {
        Self { pause_ms, max_wait_ms, dirty: None }
    }

    /// With the events that an earlier supervisor left, if any, in this one's time.
    #[must_use]
    pub fn resumed(self, dirty: Option<Dirty>) -> Self {
        Self { dirty, ..self }
    }

    /// The events that wait for their run: what outlives a supervisor.
    #[must_use]
    pub fn dirty(&self) -> Option<Dirty> {
        self.dirty
    }

    /// An event comes at `now`.
    pub fn event(&mut self, now: Mono) {
        let since = self.dirty.map_or(now, |dirty| dirty.since);
        self.dirty = Some(Dirty { since, last: now });
    }

    /// When the events are to be run, if there are any.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        let Dirty { since, last } = self.dirty?;
        Some(last.plus(self.pause_ms).min(since.plus(self.max_wait_ms)))
    }

    /// Whether to run at `now`; if so, it is clean again.
    #[must_use]
    pub fn fires(&mut self, now: Mono) -> bool {
        let due = self.deadline().is_some_and(|deadline| deadline <= now);
        if due {
            self.dirty = None;
        }
        due
    }

    /// Forgets the events: somebody stopped the agent, and they are not to be run.
    pub fn clear(&mut self) {
        self.dirty = None;
    }
}

/// The starts that a [`Throttle`] lets through: never more than its count within its span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Starts {
    limit: Throttle,
    /// The last starts, as many as count.
    last: VecDeque<Mono>,
}

impl Starts {
    /// None yet.
    #[must_use]
    pub fn new(limit: Throttle) -> Self {
        Self { limit, last: VecDeque::new() }
    }

    /// From when on there may be another start; `None`: at once, whatever time it is.
    #[must_use]
    pub fn open_from(&self) -> Option<Mono> {
        let full = self.last.len() >= self.limit.count as usize;
        self.last.front().filter(|_| full).map(|first| first.plus(self.limit.per_ms))
    }

    /// Whether there may be a start at `now`.
    #[must_use]
    pub fn is_open(&self, now: Mono) -> bool {
        self.open_from().is_none_or(|from| from <= now)
    }

    /// There was a start at `now`, whether it was open or not: by hand, or found to have been.
    pub fn started(&mut self, now: Mono) {
        self.last.push_back(now);
        while self.last.len() > self.limit.count as usize {
            self.last.pop_front();
        }
    }
}

#[cfg(test)]
mod tests;
