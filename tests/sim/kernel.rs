//! Simulated processes: a table with pids that are reused, parents, marks, and signals.
//!
//! It notes what must never happen: a signal to a process that is not of the run it was meant for.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use fastrand::Rng;
use nightcrew::protocol::name::{AgentName, RunId};
use nightcrew::protocol::process::{Ending, Identity};

use crate::agents::Program;
use crate::disk::Handle;
use crate::time::Time;

/// The pid of what is left when a parent dies.
pub(crate) const INIT: u32 = 1;
const PID_FIRST: u32 = 100;
pub(crate) const NS: u64 = 4_026_531_836;
pub(crate) const KILL: i32 = 9;
pub(crate) const TERM: i32 = 15;

/// What a process does about signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manners {
    /// TERM ends it.
    Civil,
    /// TERM does not.
    Deaf,
    /// Nothing ends it before this time, not even KILL: it hangs in the kernel.
    Stuck(u64),
}

/// Where a process stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Life {
    Running,
    /// Ended, and not reaped by its parent.
    Zombie(Ending),
}

/// One process.
pub(crate) struct Proc {
    pub(crate) start: u64,
    pub(crate) parent: u32,
    /// The run whose mark is in its environment.
    pub(crate) mark: Option<(AgentName, RunId)>,
    pub(crate) life: Life,
    pub(crate) manners: Manners,
    pub(crate) handle: Handle,
    /// What it does; taken out while it does it.
    pub(crate) program: Option<Program>,
    pub(crate) wake_at: u64,
    /// What its tree weighs more than it should.
    pub(crate) bloated: bool,
}

/// All processes but the supervisor, which has a pid and nothing else here.
pub(crate) struct Kernel {
    pub(crate) procs: BTreeMap<u32, Proc>,
    pub(crate) boot: u32,
    /// The pid of the supervisor, while one lives.
    pub(crate) supervisor: Option<u32>,
    pub(crate) violations: Vec<String>,
    /// The supervisor was told to end.
    pub(crate) draining: bool,
    /// Whom a power cut ended, or a supervisor that then ended itself in good order: by the times of their starts.
    blameless: BTreeSet<u64>,
    /// Whom a supervisor ended that is ending itself.
    drained: BTreeSet<u64>,
    pids: u32,
    next_pid: u32,
    /// The pid that became free last.
    freed: Option<u32>,
    reused: f64,
    rng: Rng,
    starts: u64,
    time: Rc<Time>,
}

impl Kernel {
    /// Pids come from a range of `pids`, so that they are used again soon; some, `reused` says how often, at once.
    pub(crate) fn new(time: &Rc<Time>, pids: u32, reused: f64) -> Self {
        Self {
            procs: BTreeMap::new(),
            boot: 1,
            supervisor: None,
            violations: Vec::new(),
            draining: false,
            blameless: BTreeSet::new(),
            drained: BTreeSet::new(),
            pids,
            next_pid: 0,
            freed: None,
            reused,
            rng: Rng::with_seed(u64::from(pids)),
            starts: 0,
            time: Rc::clone(time),
        }
    }

    pub(crate) fn boot_id(&self) -> String {
        format!("boot-{}", self.boot)
    }

    /// True if there are pids enough for a while.
    pub(crate) fn has_room(&self) -> bool {
        self.procs.len() < self.pids as usize / 2
    }

    fn free_pid(&mut self) -> u32 {
        if let Some(pid) = self.freed.take_if(|_| self.rng.f64() < self.reused)
            && !self.procs.contains_key(&pid)
            && self.supervisor != Some(pid)
        {
            return pid;
        }
        loop {
            let pid = PID_FIRST + self.next_pid;
            self.next_pid = (self.next_pid + 1) % self.pids;
            if !self.procs.contains_key(&pid) && self.supervisor != Some(pid) {
                return pid;
            }
        }
    }

    /// A pid for a new supervisor; what it starts is its child.
    pub(crate) fn take_supervisor(&mut self) -> Identity {
        let pid = self.free_pid();
        self.supervisor = Some(pid);
        self.draining = false;
        self.drained.clear();
        self.starts += 1;
        Identity { pid, start: self.starts, boot: self.boot_id(), ns: NS }
    }

    /// The supervisor is no more: its children are init's, which reaps at once.
    pub(crate) fn drop_supervisor(&mut self) {
        let Some(pid) = self.supervisor.take() else { return };
        self.orphan(pid);
    }

    pub(crate) fn spawn(
        &mut self,
        parent: u32,
        mark: Option<(AgentName, RunId)>,
        manners: Manners,
        handle: Handle,
        program: Program,
        wake_in: u64,
    ) -> Identity {
        let pid = self.free_pid();
        self.starts += 1;
        let wake_at = self.time.ms() + wake_in;
        let process = Proc {
            start: self.starts,
            parent,
            mark,
            life: Life::Running,
            manners,
            handle,
            program: Some(program),
            wake_at,
            bloated: false,
        };
        self.procs.insert(pid, process);
        Identity { pid, start: self.starts, boot: self.boot_id(), ns: NS }
    }

    /// The living processes that bear a run's mark.
    pub(crate) fn living(&self, run: &RunId) -> impl Iterator<Item = u32> {
        let marked = self.procs.iter().filter(move |(_, process)| {
            process.life == Life::Running && process.mark.as_ref().is_some_and(|(_, of)| of == run)
        });
        marked.map(|(pid, _)| *pid)
    }

    /// Somebody sends a signal for the sake of a run. It must be of that run.
    pub(crate) fn signal(&mut self, run: &RunId, pid: u32, signal: i32) {
        let Some(process) = self.procs.get(&pid) else { return };
        if process.mark.as_ref().is_none_or(|(_, of)| of != run) {
            self.violations
                .push(format!("signal {signal} for run {run} hit process {pid}, which is not of it"));
        }
        let dies = match process.manners {
            Manners::Civil => signal == KILL || signal == TERM,
            Manners::Deaf => signal == KILL,
            Manners::Stuck(until) => signal == KILL && until <= self.time.ms(),
        };
        if dies && process.life == Life::Running {
            if self.draining {
                self.drained.insert(process.start);
            }
            self.end(pid, Ending::Signal(signal));
        }
    }

    /// A process ends: its files close, its children are inherited, and somebody may reap it.
    pub(crate) fn end(&mut self, pid: u32, ending: Ending) {
        let Some(process) = self.procs.get_mut(&pid) else { return };
        process.handle.kill();
        process.program = None;
        process.life = Life::Zombie(ending);
        let waits = self.supervisor == Some(process.parent);
        self.orphan(pid);
        self.freed = Some(pid);
        if !waits {
            self.procs.remove(&pid);
        }
    }

    /// The children of one that died go to the supervisor, which is a subreaper, or to init.
    fn orphan(&mut self, parent: u32) {
        let heir = self.supervisor.unwrap_or(INIT);
        for process in self.procs.values_mut().filter(|process| process.parent == parent) {
            process.parent = heir;
        }
        if heir == INIT {
            self.procs.retain(|_, process| process.parent != INIT || process.life == Life::Running);
        }
    }

    /// What the supervisor's children of this state have come to: pids and endings.
    pub(crate) fn reap(&mut self) -> Vec<(u32, u64, Ending)> {
        let Some(supervisor) = self.supervisor else { return Vec::new() };
        let dead = self.procs.iter().filter(|(_, process)| process.parent == supervisor);
        let dead = dead.filter_map(|(pid, process)| match process.life {
            Life::Zombie(ending) => Some((*pid, process.start, ending)),
            Life::Running => None,
        });
        let dead: Vec<_> = dead.collect();
        for (pid, ..) in &dead {
            self.procs.remove(pid);
        }
        dead
    }

    /// The supervisor has ended in good order: whom it ended is not to blame.
    pub(crate) fn has_drained(&mut self) {
        self.blameless.append(&mut self.drained);
    }

    /// True if neither a power cut nor the end of a supervisor ended the process that started then.
    pub(crate) fn is_its_own_death(&self, start: u64) -> bool {
        !self.blameless.contains(&start)
    }

    pub(crate) fn has_zombies(&self) -> bool {
        self.procs.values().any(|process| process.life != Life::Running)
    }

    /// The power goes: nothing runs any more, and what comes is another boot.
    pub(crate) fn power_cut(&mut self) {
        for process in self.procs.values() {
            process.handle.kill();
            self.blameless.insert(process.start);
        }
        self.procs.clear();
        self.supervisor = None;
        self.boot += 1;
    }
}
