//! The simulated machine: one disk, its processes, one supervisor at a time, people, and misfortune.
//!
//! A step lets one of those act that could act now; where none could, time passes until one can. Between two
//! primitives of whoever acts, others may act too, as threads and processes do.

mod misfortune;
mod recovery;
mod rest;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use fastrand::Rng;
use nightcrew::app::client::finish::Held;
use nightcrew::edge::watches::Touch;
use nightcrew::protocol::layout::{Layout, Shelf};
use nightcrew::protocol::name::{AgentName, TaskId};
use nightcrew::protocol::process::{Ending, Identity};
use nightcrew::protocol::record;
use nightcrew::protocol::task::{Lock, TaskRecord};

use crate::agents::{self, Program};
use crate::cast::{self, AGENTS};
use crate::crew::{Crew, Part, Start};
use crate::disk::{ChangeKind, Disk, Faults};
use crate::kernel::{Kernel, Life, Manners, NS};
use crate::options::Options;
use crate::oracle::Oracle;
use crate::people;
use crate::requests;
use crate::time::Time;

/// How deep others may act between the primitives of whoever acts.
const DEPTH_MAX: u32 = 2;
/// Steps and time within which a calm crew must have done all there is to do.
const CALM_STEPS_MAX: u32 = 12_000;
const CALM_MS_MAX: u64 = 12 * 3_600_000;
/// How long a lull is at most.
const LULL_STEPS_MAX: u32 = 200;
const LULL_MS_MAX: usize = 180_000;
/// How often it is looked whether all is done.
const LOOK_STEPS: u32 = 4;
/// How often, once it is calm, the loop turns while others still have something to tell it: turns cost most.
const LOOP_FIRST: f64 = 0.1;
/// What a restart waits for.
const RESTART_MS: usize = 3_000;

/// Something that could act now.
#[derive(Debug, Clone, Copy)]
enum Act {
    Start,
    Crew(Part),
    Agent(u32),
}

/// All there is.
pub(crate) struct World {
    pub(crate) options: Options,
    pub(crate) layout: Layout,
    pub(crate) disk: Disk,
    pub(crate) time: Rc<Time>,
    pub(crate) kernel: RefCell<Kernel>,
    pub(crate) oracle: RefCell<Oracle>,
    rng: RefCell<Rng>,
    crew: RefCell<Option<Rc<Crew>>>,
    restart_at: Cell<u64>,
    power_cut_at_death: Cell<bool>,
    power_cut_now: Cell<bool>,
    power_cut_after_start: Cell<bool>,
    calm: Cell<bool>,
    depth: Cell<u32>,
    acted: Cell<u64>,
    tale: RefCell<Option<Vec<String>>>,
}

impl World {
    pub(crate) fn new(seed: u64, told: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let options = Options::draw(&mut rng);
        let disk = Disk::new(rng.u64(..));
        Self::with(options, disk, rng, told)
    }

    fn with(options: Options, disk: Disk, rng: Rng, told: bool) -> Self {
        let time = Rc::<Time>::default();
        Self {
            layout: Layout::new("/c"),
            kernel: RefCell::new(Kernel::new(&time, options.pids, options.pids_reused)),
            oracle: RefCell::default(),
            crew: RefCell::default(),
            restart_at: Cell::new(0),
            power_cut_at_death: Cell::new(false),
            power_cut_now: Cell::new(false),
            power_cut_after_start: Cell::new(false),
            calm: Cell::new(false),
            depth: Cell::new(0),
            acted: Cell::new(0),
            tale: RefCell::new(told.then(Vec::new)),
            rng: RefCell::new(rng),
            options,
            disk,
            time,
        }
    }

    pub(crate) fn random(&self) -> u64 {
        self.rng.borrow_mut().u64(..)
    }

    /// A number below `bound`; 0 if that is 0.
    pub(crate) fn below(&self, bound: usize) -> usize {
        if bound == 0 { 0 } else { self.rng.borrow_mut().usize(..bound) }
    }

    /// No random number is drawn for what never happens.
    pub(crate) fn chance(&self, often: f64) -> bool {
        often > 0.0 && self.rng.borrow_mut().f64() < often
    }

    pub(crate) fn is_calm(&self) -> bool {
        self.calm.get()
    }

    /// Notes what happens, if anybody will read it.
    pub(crate) fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(tale) = &mut *self.tale.borrow_mut() {
            tale.extend(self.disk.take_tale().into_iter().map(|done| format!("{:>12} {done}", "")));
            tale.push(format!("{:>9} {}{}", self.time.ms(), "  ".repeat(self.depth.get() as usize), what()));
        }
    }

    /// Notes what lies on the disk.
    pub(crate) fn tell_disk(&self) {
        for path in self.disk.digest(|_| false).keys() {
            let text = self.disk.text(Path::new(path));
            self.tell(|| {
                format!(
                    "{path}: {}",
                    text.map_or("/".into(), |text| String::from_utf8_lossy(&text).into_owned())
                )
            });
        }
    }

    pub(crate) fn tale(&self) -> Vec<String> {
        self.tale.borrow().clone().unwrap_or_default()
    }

    /// What tells one course of events from another.
    pub(crate) fn trace(&self) -> u64 {
        self.disk.trace() ^ self.acted.get().rotate_left(32) ^ self.time.ms()
    }

    /// Lives through it all: misfortune first, then calm.
    pub(crate) fn live(&self) {
        self.found();
        for _ in 0..self.options.steps {
            self.step();
            self.misfortune();
            if self.chance(self.options.lulls) {
                self.lull();
            }
            if self.is_violated() {
                return;
            }
        }
        self.calm_down();
        let begun = self.time.ms();
        for step in 0..CALM_STEPS_MAX {
            self.step();
            if self.is_violated() || (step % LOOK_STEPS == 0 && self.is_settled()) {
                return;
            }
            if self.time.ms() - begun > CALM_MS_MAX {
                break;
            }
        }
        let left = self.unfinished().unwrap_or_else(|| "something goes on and on".into());
        self.tell(|| self.kernel.borrow().describe());
        self.violate(format!("it does not come to rest: {left}"));
    }

    pub(crate) fn violate(&self, what: String) {
        self.tell(|| format!("VIOLATED: {what}"));
        self.oracle.borrow_mut().violations.push(what);
    }

    fn is_violated(&self) -> bool {
        !self.oracle.borrow().violations.is_empty() || !self.kernel.borrow().violations.is_empty()
    }

    /// What was violated, if anything was.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut all = self.kernel.borrow().violations.clone();
        all.extend(self.oracle.borrow().violations.iter().cloned());
        all
    }

    fn found(&self) {
        self.install();
        self.disk.settle();
        self.disk.watch(true);
    }

    /// Puts the agents there, as they should be.
    fn install(&self) {
        for (n, agent) in AGENTS.iter().enumerate() {
            let path = self.layout.agents().join(format!("{agent}.toml"));
            let manifest = self.options.cast.manifest(n);
            if self.disk.text(&path).is_none_or(|text| text != manifest.as_bytes()) {
                self.disk.put(&path, manifest.as_bytes());
            }
        }
        self.put_program(Path::new("/bin/work"));
        self.put_program(&cast::gate(&self.layout));
    }

    fn put_program(&self, program: &Path) {
        use nightcrew::edge::store::Store as _;
        self.disk.put(program, b"#!/bin/sh\n");
        self.disk.process().set_mode(program, 0o755).expect("it is there");
    }

    /// Somebody edits a manifest, as editors do: a new file in place of the old one.
    pub(crate) fn edit_agent(&self) {
        let n = self.below(AGENTS.len());
        let text = format!("{}# {}\n", self.options.cast.manifest(n), self.below(100));
        self.disk.put(&self.layout.agents().join(format!("{}.toml", AGENTS[n])), text.as_bytes());
    }

    /// Somebody acts, or time passes.
    fn step(&self) {
        self.disk.set_clock(u64::try_from(self.time.wall().0).unwrap_or(0) * 1_000_000);
        match self.pick() {
            Some(act) => self.perform(act),
            None => self.pass_time(),
        }
        self.bury();
        if let Some(crew) = self.crew() {
            crew.see(self);
        }
    }

    fn crew(&self) -> Option<Rc<Crew>> {
        self.crew.borrow().clone()
    }

    fn pick(&self) -> Option<Act> {
        let mut acts = Vec::with_capacity(16);
        let now = self.time.ms();
        match self.crew() {
            Some(crew) if !crew.handle.is_dead() => {
                let mut parts = Vec::with_capacity(6);
                crew.ready(self, &mut parts);
                acts.extend(parts.into_iter().map(Act::Crew));
            }
            None if self.depth.get() == 0 && self.restart_at.get() <= now => acts.push(Act::Start),
            Some(_) | None => {}
        }
        let kernel = self.kernel.borrow();
        let ready = kernel.procs.iter().filter(|(_, process)| {
            process.program.is_some() && process.life == Life::Running && process.wake_at <= now
        });
        acts.extend(ready.map(|(pid, _)| Act::Agent(*pid)));
        drop(kernel);
        if self.is_calm() && acts.len() > 1 && !self.chance(LOOP_FIRST) {
            acts.retain(|act| !matches!(act, Act::Crew(Part::Loop)));
        }
        if acts.is_empty() { None } else { Some(acts[self.below(acts.len())]) }
    }

    fn perform(&self, act: Act) {
        self.acted.set(self.acted.get() + 1);
        self.tell(|| format!("{act:?}"));
        match act {
            Act::Start => self.start(),
            Act::Crew(part) => {
                if let Some(crew) = self.crew() {
                    crew.work(self, part);
                }
            }
            Act::Agent(pid) => agents::act(self, pid),
        }
    }

    /// Between two primitives of whoever acts.
    pub(crate) fn interleave(&self) {
        if self.depth.get() >= DEPTH_MAX || !self.chance(self.options.interleaving) {
            return;
        }
        self.depth.set(self.depth.get() + 1);
        if let Some(act) = self.pick() {
            self.perform(act);
        }
        self.depth.set(self.depth.get() - 1);
    }

    fn pass_time(&self) {
        let crew = self.crew().map_or(self.restart_at.get(), |crew| crew.next_due());
        let kernel = self.kernel.borrow();
        let agents = kernel.procs.values().filter(|process| process.program.is_some());
        let next = agents.map(|process| process.wake_at).fold(crew, u64::min);
        let now = self.time.ms();
        // Events do not come on the dot.
        let late = if self.is_calm() { 0 } else { self.below(3) as u64 };
        self.time.advance(next.clamp(now + 1, now + 3_600_000) - now + late);
    }

    fn start(&self) {
        let handle = self.disk.process();
        if !self.is_calm() && self.chance(self.options.kills_at_start) {
            handle.kill_after(self.below(250) as u64);
        }
        let owed = self.power_cut_after_start.take();
        if !self.is_calm() && (owed || self.chance(self.options.cuts_after_start)) {
            self.power_cut_at_death.set(true);
            // By then what it found has been acted on, and little of that has been synced.
            handle.kill_after(30 + self.below(150) as u64);
        }
        match Crew::start(self, handle) {
            Start::Up(crew) => *self.crew.borrow_mut() = Some(crew),
            Start::Killed => {
                self.tell(|| "killed at its start".into());
                self.supervisor_gone();
            }
            Start::Refused(why) => {
                self.tell(|| format!("refused: {why}"));
                if self.is_calm() {
                    self.violate(format!("it does not start, though nothing is wrong any more: {why}"));
                }
                self.supervisor_gone();
            }
        }
    }

    fn supervisor_gone(&self) {
        self.kernel.borrow_mut().drop_supervisor();
        *self.crew.borrow_mut() = None;
        self.restart_at.set(self.time.ms() + self.below(RESTART_MS) as u64);
        if self.power_cut_at_death.take() {
            self.cut_power();
        }
    }

    /// Takes away a supervisor that was killed, or that ended.
    fn bury(&self) {
        let Some(crew) = self.crew() else { return };
        if !crew.handle.is_dead() && crew.has_ended() {
            crew.finish(self);
            let orderly = !crew.handle.is_dead() && !crew.is_broken();
            crew.handle.kill();
            if orderly {
                self.kernel.borrow_mut().has_drained();
                self.leaves_nothing();
            }
        }
        if crew.handle.is_dead() {
            self.tell(|| "the supervisor is gone".into());
            drop(crew);
            self.supervisor_gone();
            if !self.disk.is_aborted() && self.chance(self.options.recoveries_compared) {
                self.compare_recoveries();
            }
        }
    }

    fn leaves_nothing(&self) {
        let kernel = self.kernel.borrow();
        let left = kernel.procs.iter().find(|(_, process)| {
            process.mark.is_some() && process.life == Life::Running && process.manners == Manners::Civil
        });
        if let Some((pid, _)) = left {
            self.violate(format!("it ended in good order and left process {pid} running"));
        }
    }

    /// An outcome is durable, and perhaps its lock is not: a good moment for the power to go.
    pub(crate) fn was_handed_in(&self) {
        if !self.is_calm() && self.chance(self.options.cuts_at_hand_in) {
            self.power_cut_now.set(true);
        }
    }

    fn cut_power(&self) {
        self.tell(|| "THE POWER GOES".into());
        if let Some(crew) = self.crew.borrow_mut().take() {
            crew.handle.kill();
        }
        self.kernel.borrow_mut().power_cut();
        self.disk.power_cut(&mut self.rng.borrow_mut());
        self.restart_at.set(self.time.ms() + self.below(RESTART_MS) as u64);
    }

    /// True if the update that appends this value lies in `rejected/`, because the disk failed to read what it was
    /// for.
    pub(crate) fn is_put_aside(&self, value: &str) -> bool {
        let dir = self.layout.rejected_updates();
        let holds = |path: &Path, text: &str| {
            self.disk.text(path).is_some_and(|bytes| String::from_utf8_lossy(&bytes).contains(text))
        };
        let quoted = format!("\"{value}\"");
        self.disk.names(&dir).iter().filter_map(|name| name.strip_suffix(".json")).any(|name| {
            holds(&dir.join(format!("{name}.json")), &quoted)
                && holds(&dir.join(format!("{name}.reason")), "Input/output error")
        })
    }

    /// The token of a task's record as anybody would read it.
    pub(crate) fn token_on_disk(&self, task: &TaskId) -> Option<u64> {
        let bytes = self.disk.text(&self.layout.task(task))?;
        Some(record::decode::<TaskRecord>(&bytes).ok()?.token)
    }

    /// True if a task's lock is there and bears this claim.
    pub(crate) fn lock_bears(&self, held: &Held) -> bool {
        let lock = self.disk.text(&self.layout.lock(&held.task));
        let lock = lock.and_then(|bytes| record::decode::<Lock>(&bytes).ok());
        lock.is_some_and(|lock| lock.nonce == held.nonce && lock.token == held.token)
    }
}

impl Kernel {
    fn describe(&self) -> String {
        let lines = self.procs.iter().map(|(pid, p)| {
            let mark = p.mark.as_ref().map(|(agent, run)| format!("{agent} {run}"));
            format!("{pid}: {mark:?} parent {} {:?} {:?} wakes at {}", p.parent, p.life, p.manners, p.wake_at)
        });
        lines.collect::<Vec<_>>().join("; ")
    }

    pub(crate) fn identity(&self, pid: u32, start: u64) -> Identity {
        Identity { pid, start, boot: self.boot_id(), ns: NS }
    }
}

/// What the watches call what happened to a name.
pub(crate) fn touch_of(kind: ChangeKind) -> Touch {
    match kind {
        ChangeKind::Appeared | ChangeKind::Modified => Touch::Begun,
        ChangeKind::Closed | ChangeKind::Touched => Touch::Whole,
        ChangeKind::Removed => Touch::Gone,
    }
}
