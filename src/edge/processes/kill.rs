//! Killing a tree of processes until nothing is left of it.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::identity;
use super::table::{Instance, Stat};

/// How soon a kill is looked after if no event comes first; doubled each time.
const PACE_MIN: Duration = Duration::from_millis(20);
/// The slowest pace of it.
const PACE_MAX: Duration = Duration::from_millis(500);
/// When to say that a tree does not die.
const STUCK_AFTER: Duration = Duration::from_secs(30);
/// The pace after that.
const PACE_STUCK: Duration = Duration::from_secs(5);
/// A tree of more processes is stopped first, for some of it may be forking.
const FEW: usize = 8;
/// How many times a tree is looked through for processes that are not stopped yet.
const FREEZES_MAX: u32 = 16;
/// How many processes a report names.
const NAMED_MAX: usize = 64;

/// How hard a tree was tried so far.
#[derive(Debug)]
enum Effort {
    /// Looked after more and more rarely.
    Pressing { since: Instant, pace: Duration },
    /// It was said that the tree does not die; tried on at leisure.
    Stuck,
}

/// What a look at a dying tree led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// There may be more by now: look again at once.
    LookAgain,
    /// All that was seen has been killed: wait for it to die.
    Wait,
}

/// A tree that is being killed.
#[derive(Debug)]
pub(super) struct Kill {
    effort: Effort,
    next: Instant,
    /// What was killed at the last blow and had not died yet.
    struck: HashSet<Instance>,
    /// What is stopped, so that it cannot fork while the rest is.
    frozen: HashSet<Instance>,
    freezes: u32,
    blows: u32,
    named: Vec<String>,
    left: Vec<String>,
}

impl Kill {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            effort: Effort::Pressing { since: now, pace: PACE_MIN },
            next: now,
            struck: HashSet::new(),
            frozen: HashSet::new(),
            freezes: 0,
            blows: 0,
            named: Vec::new(),
            left: Vec::new(),
        }
    }

    /// When to look at the tree again, whatever happens.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// True if nothing was tried yet, or so long ago that it is time to look again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        self.blows == 0 || self.next <= now
    }

    /// Notes what the latest look found, for the report that the tree does not die.
    pub(super) fn note_left(&mut self, left: impl Iterator<Item = String>) {
        self.left.clear();
        self.left.extend(left.take(NAMED_MAX));
    }

    /// What was killed beside the root, as `pid name`.
    pub(super) fn into_named(self) -> Vec<String> {
        self.named
    }

    /// Kills what is alive of a tree.
    ///
    /// Where there are many processes, or new ones appeared since the last blow, something forks, and killing
    /// one by one loses the race: all are stopped first, until a look finds none that is not. Stopped
    /// processes also hold on to the process limit that a fork bomb would fill again.
    pub(super) fn strike(&mut self, root: Option<Instance>, living: &[&Stat]) -> Next {
        self.struck.retain(|struck| living.iter().any(|stat| stat.instance == *struck));
        let fresh = living.iter().filter(|stat| !self.struck.contains(&stat.instance)).count();
        let forks = fresh > 0 && (self.blows > 0 || living.len() > FEW);
        if (forks || !self.frozen.is_empty()) && self.freezes < FREEZES_MAX {
            let moving = living.iter().filter(|stat| !self.frozen.contains(&stat.instance));
            let moving: Vec<Instance> = moving.map(|stat| stat.instance).collect();
            if !moving.is_empty() {
                self.freezes += 1;
                for instance in moving {
                    send(instance, Signal::STOP);
                    self.frozen.insert(instance);
                }
                return Next::LookAgain;
            }
        }
        for stat in living {
            send(stat.instance, Signal::KILL);
            let fresh = self.struck.insert(stat.instance);
            if fresh && Some(stat.instance) != root && self.named.len() < NAMED_MAX {
                self.named.push(stat.label());
            }
        }
        self.frozen.clear();
        self.freezes = 0;
        self.blows += 1;
        Next::Wait
    }

    /// Sets the time of the next look after one that found the tree not gone. Gives what is left, as
    /// `pid name (state)`, if it has been dying for too long; once.
    pub(super) fn look_later(&mut self, now: Instant) -> Option<Vec<String>> {
        match &mut self.effort {
            Effort::Pressing { since, .. } if now.duration_since(*since) >= STUCK_AFTER => {
                self.effort = Effort::Stuck;
                self.next = now + PACE_STUCK;
                return Some(self.left.clone());
            }
            // A look that an event caused leaves the timer as it is.
            Effort::Pressing { .. } | Effort::Stuck if now < self.next => {}
            Effort::Pressing { pace, .. } => {
                self.next = now + *pace;
                *pace = (*pace * 2).min(PACE_MAX);
            }
            Effort::Stuck => self.next = now + PACE_STUCK,
        }
        None
    }
}

fn send(instance: Instance, signal: Signal) {
    if let Err(error) = identity::signal(instance, signal) {
        log::warn!("cannot kill process {}: {error}", instance.pid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_that_does_not_die_is_reported_once() {
        let begun = Instant::now();
        let mut kill = Kill::new(begun);
        assert_eq!(kill.next(), begun, "the first look is at once");
        kill.note_left(["1 x (D)".to_owned()].into_iter());
        let mut now = begun;
        let mut looks = 0;
        let told = loop {
            if let Some(told) = kill.look_later(now) {
                break told;
            }
            assert!(kill.next() > now && kill.next() <= now + PACE_MAX);
            now = kill.next();
            looks += 1;
        };
        assert_eq!(told, ["1 x (D)"]);
        assert!((60..80).contains(&looks), "{looks} looks");
        assert!(now >= begun + STUCK_AFTER && now <= begun + STUCK_AFTER + PACE_MAX);
        assert_eq!(kill.look_later(now), None);
        assert_eq!(kill.next(), now + PACE_STUCK);
    }
}
