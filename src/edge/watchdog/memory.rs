//! The memory of process trees.
//!
//! A tree is: its root, all descendants of it and of any other member, what earlier rounds saw in it and
//! what bears the run's marker in its environment. So a process that detached itself, whose
//! parent is no longer of the run, still counts.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use sysinfo::{MemoryRefreshKind, ProcessRefreshKind, ProcessStatus, ProcessesToUpdate, System};

use super::proc::{self, Share};
use super::{Sighting, Tree};
use crate::protocol::process::Identity;

/// How soon to look again: when nothing presses, when a tree grows fast, when one is near its limit or new.
const AT_REST: Duration = Duration::from_secs(10);
const GROWING: Duration = Duration::from_secs(3);
const NEAR: Duration = Duration::from_secs(1);
/// A change that is not worth a report, in bytes.
const NOISE: u64 = 1024 * 1024;

/// Pid and start time of the members of a tree.
type Members = BTreeMap<u32, u64>;

struct Watched {
    tree: Tree,
    members: Members,
    /// The last sample.
    last: Option<(Instant, u64)>,
    /// What was reported last.
    reported: Option<u64>,
}

/// All trees that are watched.
#[derive(Default)]
pub(super) struct Memory {
    watched: Vec<Watched>,
    /// The process list; kept only while there is a tree.
    system: Option<System>,
    /// The marker of each process by pid and start in seconds, so that an environment is read once.
    markers: HashMap<(u32, u64), Option<String>>,
}

impl Memory {
    /// Watches these trees from now on. What is known of those that stay is kept. True if one is new.
    pub(super) fn assign(&mut self, trees: Vec<Tree>) -> bool {
        let mut before = std::mem::take(&mut self.watched);
        let mut any_new = false;
        for tree in trees {
            let stays = before.iter().position(|w| w.tree.run == tree.run && w.tree.root == tree.root);
            any_new |= stays.is_none();
            self.watched.push(match stays {
                Some(at) => Watched { tree, ..before.swap_remove(at) },
                None => Watched { tree, members: Members::new(), last: None, reported: None },
            });
        }
        if self.watched.is_empty() {
            *self = Self::default();
        }
        any_new
    }

    pub(super) fn is_empty(&self) -> bool {
        self.watched.is_empty()
    }

    /// Measures every tree once; gives how soon to do so again.
    pub(super) fn sample(&mut self, now: Instant, deliver: &mut impl FnMut(Sighting)) -> Duration {
        let Some(system) = refreshed(&mut self.system) else { return AT_REST };
        let swapping = system.used_swap() > 0;
        let table = Table::read(system, &mut self.markers);
        let mut soonest = AT_REST;
        for watched in &mut self.watched {
            let members = table.members(watched);
            let sum = members.keys().map(|pid| table.memory_of(*pid, swapping)).sum();
            let pace = watched.judge_pace(now, sum);
            soonest = soonest.min(pace);
            watched.report(members, sum, deliver);
        }
        soonest
    }
}

fn refreshed(system: &mut Option<System>) -> Option<&System> {
    if system.is_none() {
        *system = System::new().inspect_err(|error| log::warn!("memory is not watched: {error}")).ok();
    }
    let system = system.as_mut()?;
    // Threads would be listed as processes, each with all the memory of its process.
    let what = ProcessRefreshKind::nothing().with_memory().without_tasks();
    system.refresh_processes_specifics(ProcessesToUpdate::All, true, what);
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_swap());
    Some(system)
}

/// The process list of one round.
struct Table<'a> {
    system: &'a System,
    children: HashMap<u32, Vec<u32>>,
    markers: &'a HashMap<(u32, u64), Option<String>>,
}

impl<'a> Table<'a> {
    fn read(system: &'a System, markers: &'a mut HashMap<(u32, u64), Option<String>>) -> Self {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        let mut alive = HashSet::new();
        for (pid, process) in system.processes() {
            let pid = pid.as_u32();
            if let Some(parent) = process.parent() {
                children.entry(parent.as_u32()).or_default().push(pid);
            }
            let key = (pid, process.start_time());
            alive.insert(key);
            markers.entry(key).or_insert_with(|| proc::marker_of(pid));
        }
        markers.retain(|key, _| alive.contains(key));
        Self { system, children, markers }
    }

    /// The tree as it is now. Identities are read anew: a pid proves nothing.
    fn members(&self, watched: &Watched) -> Members {
        let root = &watched.tree.root;
        let known = watched.members.iter().map(|(pid, start)| (*pid, Some(*start)));
        let marked = self
            .markers
            .iter()
            .filter(|(_, run)| run.as_deref() == Some(watched.tree.run.as_str()))
            .map(|((pid, _), _)| (*pid, None));
        let mut open: Vec<(u32, Option<u64>)> =
            std::iter::once((root.pid, Some(root.start))).chain(known).chain(marked).collect();
        let mut members = Members::new();
        while let Some((pid, expected)) = open.pop() {
            if members.contains_key(&pid) || !self.is_alive(pid) {
                continue;
            }
            let Some(start) = proc::start_of(pid) else { continue };
            if expected.is_none_or(|expected| expected == start) {
                members.insert(pid, start);
                open.extend(self.children.get(&pid).into_iter().flatten().map(|child| (*child, None)));
            }
        }
        members
    }

    fn is_alive(&self, pid: u32) -> bool {
        let process = self.system.process(sysinfo::Pid::from_u32(pid));
        process.is_some_and(|process| process.status() != ProcessStatus::Zombie)
    }

    fn memory_of(&self, pid: u32, swapping: bool) -> u64 {
        let resident = self.system.process(sysinfo::Pid::from_u32(pid)).map_or(0, sysinfo::Process::memory);
        resident + if swapping { proc::swap_of(pid) } else { 0 }
    }
}

impl Watched {
    /// Near is 70 % of the limit; growing is what would cross it within ten seconds.
    fn is_near(&self, bytes: u64) -> bool {
        bytes >= self.tree.limit / 10 * 7
    }

    fn judge_pace(&mut self, now: Instant, bytes: u64) -> Duration {
        let before = self.last.replace((now, bytes));
        if self.is_near(bytes) {
            return NEAR;
        }
        let grown = before.map_or(0, |(_, before)| bytes.saturating_sub(before));
        let took_ms = before.map_or(0, |(at, _)| now.saturating_duration_since(at).as_millis());
        let ahead = u128::from(grown) * AT_REST.as_millis() / took_ms.max(1);
        if u128::from(bytes) + ahead >= u128::from(self.tree.limit) { GROWING } else { AT_REST }
    }

    /// Reports what is news. Over the limit, pages that several processes share are told apart first: the
    /// sum counts them once for each.
    fn report(&mut self, members: Members, sum: u64, deliver: &mut impl FnMut(Sighting)) {
        let exact = sum > self.tree.limit;
        let (bytes, estimated) = if exact { measure(&members) } else { (sum, false) };
        let moved = self.reported.is_none_or(|reported| reported.abs_diff(bytes) > NOISE);
        let changed = members != self.members;
        self.members = members;
        if !(exact || moved || changed || self.is_near(bytes)) {
            return;
        }
        self.reported = Some(bytes);
        let Identity { boot, ns, .. } = &self.tree.root;
        let members = self
            .members
            .iter()
            .map(|(pid, start)| Identity { pid: *pid, start: *start, boot: boot.clone(), ns: *ns })
            .collect();
        deliver(Sighting::Memory { run: self.tree.run.clone(), bytes, exact, estimated, members });
    }
}

fn measure(members: &Members) -> (u64, bool) {
    members.keys().fold((0, false), |(bytes, estimated), pid| match proc::share_of(*pid) {
        Share::Exact(share) => (bytes + share, estimated),
        Share::Estimated(share) => (bytes + share, true),
        Share::Gone => (bytes, estimated),
    })
}
