//! The process thread, simulated: it obeys the same orders and owes the same reports as the real one, over the
//! simulated table.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::rc::Rc;

use nightcrew::edge::processes::{Launch, Order, Processes, Report, Survivor};
use nightcrew::protocol::name::{AgentName, RunId};
use nightcrew::protocol::process::{Ending, Identity, Presence};
use serde_json::Value;

use crate::agents;
use crate::disk::Handle;
use crate::kernel::{KILL, Kernel, Life, NS};
use crate::world::World;

/// When a tree that does not die is told of, and how often it is struck.
const STUCK_AFTER_MS: u64 = 30_000;
const STRIKE_MS: u64 = 500;

/// What the supervisor holds of it.
pub(crate) struct SimProcesses {
    pub(crate) orders: Rc<RefCell<VecDeque<Order>>>,
    pub(crate) handle: Handle,
}

impl Processes for SimProcesses {
    fn order(&self, order: Order) {
        if !self.handle.is_dead() {
            self.orders.borrow_mut().push_back(order);
        }
    }
    fn is_being_written(&self, _: &Path) -> bool {
        false
    }
    fn close_run(&self, _: &AgentName, _: &RunId) -> bool {
        true
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Origin {
    Ours,
    Earlier,
}

struct Kill {
    since: u64,
    next: u64,
    told: bool,
    killed: Vec<String>,
}

struct Known {
    root: Option<Identity>,
    origin: Origin,
    ended: bool,
    kill: Option<Kill>,
}

/// The thread.
pub(crate) struct Thread {
    orders: Rc<RefCell<VecDeque<Order>>>,
    runs: BTreeMap<RunId, Known>,
}

impl Thread {
    pub(crate) fn new(orders: &Rc<RefCell<VecDeque<Order>>>) -> Self {
        Self { orders: Rc::clone(orders), runs: BTreeMap::new() }
    }

    /// True if a turn would do something now.
    pub(crate) fn is_ready(&self, world: &World) -> bool {
        let kernel = world.kernel.borrow();
        !self.orders.borrow().is_empty()
            || kernel.has_zombies()
            || self.runs.values().any(|known| known.has_ended_unseen(&kernel))
            || self.next_strike().is_some_and(|at| at <= world.time.ms())
    }

    /// When it does something though nothing happens.
    pub(crate) fn next_strike(&self) -> Option<u64> {
        self.runs.values().filter_map(|known| known.kill.as_ref()).map(|kill| kill.next).min()
    }

    /// One turn: some orders, then the dead, then those that are to die.
    pub(crate) fn turn(&mut self, world: &World) -> Vec<Report> {
        let mut reports = Vec::new();
        let count = 1 + world.below(4);
        for _ in 0..count {
            let Some(order) = self.orders.borrow_mut().pop_front() else { break };
            world.tell(|| match &order {
                Order::Spawn(launch) => format!("spawn {} {}", launch.agent, launch.run),
                order => format!("{order:?}"),
            });
            self.obey(world, order, &mut reports);
        }
        self.reap(world, &mut reports);
        self.check_adopted(world, &mut reports);
        self.pursue(world, &mut reports);
        for report in &reports {
            world.tell(|| format!("{report:?}"));
        }
        reports
    }

    fn obey(&mut self, world: &World, order: Order, reports: &mut Vec<Report>) {
        match order {
            Order::Spawn(launch) => self.spawn(world, &launch, reports),
            Order::Adopt { run, root } => {
                let ended = world.kernel.borrow().presence(&root) == Presence::Gone;
                if ended {
                    reports.push(Report::Exited { run: run.clone(), ending: Ending::Unseen });
                }
                self.runs.insert(run, Known { root: Some(root), origin: Origin::Earlier, ended, kill: None });
            }
            Order::Release { run } => {
                self.runs
                    .retain(|id, known| *id != run || known.kill.is_some() || known.origin == Origin::Ours);
            }
            Order::Signal { run, signal } => self.signal(world, &run, signal),
            Order::KillTree { run } => {
                let unknown = Known { root: None, origin: Origin::Earlier, ended: true, kill: None };
                let known = self.runs.entry(run).or_insert(unknown);
                known.kill.get_or_insert_with(|| Kill::new(world.time.ms()));
            }
            Order::Seen { .. } => {}
            Order::Examine { run } => reports.push(Report::Evidence { run, evidence: Value::Null }),
        }
    }

    fn spawn(&mut self, world: &World, launch: &Launch, reports: &mut Vec<Report>) {
        let run = launch.run.clone();
        if !world.is_calm() && world.chance(world.options.spawn_fails) {
            let error = "Resource temporarily unavailable".to_owned();
            reports.push(Report::SpawnFailed { run, error, busy: world.chance(0.3) });
            return;
        }
        let process = agents::launch(world, launch);
        let known = Known { root: Some(process.clone()), origin: Origin::Ours, ended: false, kill: None };
        self.runs.insert(run.clone(), known);
        reports.push(Report::Spawned { run, process });
    }

    fn signal(&self, world: &World, run: &RunId, signal: i32) {
        let Some(known) = self.runs.get(run).filter(|known| !known.ended) else { return };
        let mut kernel = world.kernel.borrow_mut();
        match (&known.root, known.origin) {
            // Not reaped yet, so its pid is nobody else's.
            (Some(root), Origin::Ours) => kernel.signal(run, root.pid, signal),
            (Some(root), Origin::Earlier) if kernel.presence(root) == Presence::Here => {
                kernel.signal(run, root.pid, signal);
            }
            (Some(_) | None, _) => {}
        }
    }

    fn reap(&mut self, world: &World, reports: &mut Vec<Report>) {
        let dead = world.kernel.borrow_mut().reap();
        for (pid, start, ending) in dead {
            let root = self.runs.iter_mut().find(|(_, known)| {
                !known.ended && known.root.as_ref().is_some_and(|root| root.pid == pid && root.start == start)
            });
            let Some((run, known)) = root else { continue };
            known.ended = true;
            if known.origin == Origin::Ours {
                known.kill.get_or_insert_with(|| Kill::new(world.time.ms()));
            }
            reports.push(Report::Exited { run: run.clone(), ending });
        }
    }

    fn check_adopted(&mut self, world: &World, reports: &mut Vec<Report>) {
        let kernel = world.kernel.borrow();
        for (run, known) in &mut self.runs {
            if known.has_ended_unseen(&kernel) {
                known.ended = true;
                reports.push(Report::Exited { run: run.clone(), ending: Ending::Unseen });
            }
        }
    }

    /// Kills what is alive of the dying runs, or finds that nothing is left of them.
    fn pursue(&mut self, world: &World, reports: &mut Vec<Report>) {
        let now = world.time.ms();
        let mut kernel = world.kernel.borrow_mut();
        let mut gone = Vec::new();
        for (run, known) in &mut self.runs {
            let Some(kill) = &mut known.kill else { continue };
            let mut targets: Vec<u32> = kernel.living(run).collect();
            // An adopted root is struck by its identity, whatever became of its mark.
            if let (Some(root), Origin::Earlier) = (&known.root, known.origin)
                && kernel.presence(root) == Presence::Here
                && !targets.contains(&root.pid)
            {
                targets.push(root.pid);
            }
            for pid in targets {
                kernel.signal(run, pid, KILL);
                kill.killed.push(format!("{pid} simulated"));
            }
            kill.killed.truncate(8);
            if kernel.living(run).next().is_none() && known.ended {
                reports.push(Report::TreeGone { run: run.clone(), killed: std::mem::take(&mut kill.killed) });
                gone.push(run.clone());
                continue;
            }
            kill.next = now + STRIKE_MS;
            if !kill.told && now >= kill.since + STUCK_AFTER_MS {
                kill.told = true;
                let left = kernel.living(run).map(|pid| format!("{pid} simulated (D)")).collect();
                reports.push(Report::TreeStuck { run: run.clone(), left });
            }
            if kill.told {
                kill.next = now + 10 * STRIKE_MS;
            }
        }
        for run in gone {
            self.runs.remove(&run);
        }
    }
}

impl Kill {
    fn new(now: u64) -> Self {
        Self { since: now, next: now, told: false, killed: Vec::new() }
    }
}

impl Known {
    fn has_ended_unseen(&self, kernel: &Kernel) -> bool {
        let gone = |root: &Identity| kernel.presence(root) == Presence::Gone;
        !self.ended && self.origin == Origin::Earlier && self.root.as_ref().is_some_and(gone)
    }
}

impl Kernel {
    /// What the real thread would find of a process: the very same comparison, over this table.
    pub(crate) fn presence(&self, identity: &Identity) -> Presence {
        let found = self.procs.get(&identity.pid).filter(|process| process.life == Life::Running);
        identity.presence(&self.boot_id(), NS, found.map(|process| process.start))
    }

    /// What an earlier supervisor left behind: the eldest marked process of each run.
    pub(crate) fn survivors(&self) -> Vec<Survivor> {
        let mut eldest: BTreeMap<RunId, Survivor> = BTreeMap::new();
        for (pid, process) in &self.procs {
            let (Some((agent, run)), Life::Running) = (&process.mark, process.life) else { continue };
            let root = Identity { pid: *pid, start: process.start, boot: self.boot_id(), ns: NS };
            let found = Survivor { run: run.clone(), agent: agent.clone(), root };
            let known = eldest.entry(run.clone()).or_insert_with(|| found.clone());
            if found.root.start < known.root.start {
                *known = found;
            }
        }
        eldest.into_values().collect()
    }
}
