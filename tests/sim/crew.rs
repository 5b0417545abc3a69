//! One supervisor process, simulated: the real loop, writer, steward and watchdog, each driven turn by turn where the
//! real ones have threads. Its death drops all of it; what it did to the disk stays.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeSet, VecDeque};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::rc::Rc;

use nightcrew::app::catalog::{Catalog, Owners, Terms};
use nightcrew::app::steward::Steward;
use nightcrew::app::steward::thread::{RESCAN_MS, StewardReport, Telling};
use nightcrew::app::supervisor::eyes::watched;
use nightcrew::app::supervisor::opening::Opening;
use nightcrew::app::supervisor::{BATCH_MAX, Helpers, Message, Options, Supervisor};
use nightcrew::edge::log::Fault;
use nightcrew::edge::processes::Order;
use nightcrew::edge::signals::SignalEvent;
use nightcrew::edge::watchdog::files::Files;
use nightcrew::edge::watchdog::{Assignment, Sighting};
use nightcrew::edge::watches::{Area, Hint, Route, Scope};
use nightcrew::edge::writer::{Job, Writer};
use nightcrew::edge::writer_thread::{Attempt, BATCH_LEN_MAX, Storing, WriterReport};
use nightcrew::machine::Setup;
use nightcrew::protocol::crewfile::CrewFile;
use nightcrew::protocol::name::AgentName;
use nightcrew::protocol::process::Identity;
use nightcrew::protocol::time::Mono;

use crate::disk::{Change, ChangeKind, Handle};
use crate::kernel::NS;
use crate::processes::{SimProcesses, Thread};
use crate::time::SimClock;
use crate::world::{World, touch_of};

/// How long the writer waits for room.
const RETRY_MS: u64 = 2_000;
/// How many turns an orderly end may take.
const FLUSH_TURNS_MAX: u32 = 1_000;

/// Whom the steward was told of.
#[derive(Default)]
struct Wake {
    agents: BTreeSet<AgentName>,
    everything: bool,
}

/// The ends of the helper threads that the loop holds.
struct SimHelpers {
    handle: Handle,
    jobs: Rc<RefCell<VecDeque<Job>>>,
    wake: Rc<RefCell<Wake>>,
    assigned: Rc<RefCell<Option<Assignment>>>,
    rewatch: Rc<Cell<bool>>,
}

impl Helpers for SimHelpers {
    fn write(&self, job: Job) {
        if !self.handle.is_dead() {
            self.jobs.borrow_mut().push_back(job);
        }
    }
    fn remember(&self, agent: Option<&AgentName>) {
        let mut wake = self.wake.borrow_mut();
        match agent {
            Some(agent) => drop(wake.agents.insert(agent.clone())),
            None => wake.everything = true,
        }
    }
    fn watch(&self, assignment: Assignment) {
        *self.assigned.borrow_mut() = Some(assignment);
    }
    fn free_space(&self) -> Option<u64> {
        None
    }
    fn rewatch(&self) {
        self.rewatch.set(true);
    }
    fn tidy(&self, _: nightcrew::app::tidying::Order) {}
    fn watch_extra(&self, _: BTreeSet<(PathBuf, Area, Scope)>) {}
}

type SimSupervisor = Supervisor<Handle, SimClock, SimProcesses, SimHelpers>;

struct Loop {
    supervisor: SimSupervisor,
    wake_at: u64,
}

struct Writing {
    writer: Writer<Handle>,
    storing: Option<Storing>,
    retry_at: u64,
    broken: Option<String>,
}

struct Remembering {
    steward: Steward<Handle>,
    telling: Telling,
    clock: SimClock,
    next_at: u64,
    rescan_at: u64,
    broken: bool,
}

struct Watching {
    files: Files<Handle>,
    assignment: Assignment,
    due: u64,
}

/// What of a supervisor can do something now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Loop,
    Writer,
    Steward,
    Watchdog,
    Processes,
    Hints,
}

/// How a start ended.
pub(crate) enum Start {
    Up(Rc<Crew>),
    /// The files could not be opened, and it said why.
    Refused(String),
    /// It was killed meanwhile.
    Killed,
}

/// A supervisor process.
pub(crate) struct Crew {
    pub(crate) handle: Handle,
    turning: RefCell<Loop>,
    writing: RefCell<Writing>,
    remembering: RefCell<Remembering>,
    watching: RefCell<Watching>,
    thread: RefCell<Thread>,
    inbox: RefCell<VecDeque<Message>>,
    hints: RefCell<VecDeque<Hint>>,
    routes: Vec<Route>,
    jobs: Rc<RefCell<VecDeque<Job>>>,
    wake: Rc<RefCell<Wake>>,
    assigned: Rc<RefCell<Option<Assignment>>>,
    rewatch: Rc<Cell<bool>>,
}

impl Crew {
    /// Starts a supervisor, which may be killed on the way.
    pub(crate) fn start(world: &World, handle: Handle) -> Start {
        let me = world.kernel.borrow_mut().take_supervisor();
        let layout = world.layout.clone();
        let opening = match Opening::new(&handle, &layout, me.pid) {
            _ if handle.is_dead() => return Start::Killed,
            Ok(opening) => opening,
            Err(error) => return Start::Refused(error.to_string()),
        };
        world.oracle.borrow_mut().ledger_opened(&opening.history.tail);
        let Opening { writer, steward, token_floor, history } = opening;
        let clock = SimClock::new(&world.time);
        let options = options(world, me, token_floor);
        let (owners, terms) = (options.owners, options.terms.clone());
        let catalog = Catalog::new(handle.clone(), layout.clone(), owners, terms);
        let (jobs, orders) = (Rc::default(), Rc::<RefCell<VecDeque<Order>>>::default());
        let (wake, assigned, rewatch) = (Rc::<RefCell<Wake>>::default(), Rc::default(), Rc::default());
        wake.borrow_mut().everything = true;
        let helpers = SimHelpers {
            handle: handle.clone(),
            jobs: Rc::clone(&jobs),
            wake: Rc::clone(&wake),
            assigned: Rc::clone(&assigned),
            rewatch: Rc::clone(&rewatch),
        };
        let processes = SimProcesses { orders: Rc::clone(&orders), handle: handle.clone() };
        let mut supervisor =
            Supervisor::new(handle.clone(), clock.clone(), processes, helpers, catalog, options);
        world.disk.take_changes();
        let survivors = world.kernel.borrow().survivors();
        if let Err(why) = supervisor.recover(survivors, history) {
            return if handle.is_dead() { Start::Killed } else { Start::Refused(why) };
        }
        supervisor.turn([]);
        if handle.is_dead() {
            return Start::Killed;
        }
        let now = world.time.ms();
        let wake_at = now + supervisor.wait_ms();
        let rescan_at = now + RESCAN_MS;
        Start::Up(Rc::new(Self {
            turning: RefCell::new(Loop { supervisor, wake_at }),
            writing: RefCell::new(Writing { writer, storing: None, retry_at: 0, broken: None }),
            remembering: RefCell::new(Remembering {
                steward,
                telling: Telling::default(),
                clock,
                next_at: now,
                rescan_at,
                broken: false,
            }),
            watching: RefCell::new(Watching {
                files: Files::new(handle.clone(), layout.canary()),
                assignment: Assignment::default(),
                due: u64::MAX,
            }),
            thread: RefCell::new(Thread::new(&orders)),
            inbox: RefCell::default(),
            hints: RefCell::default(),
            routes: watched(&layout),
            handle,
            jobs,
            wake,
            assigned,
            rewatch,
        }))
    }

    /// The parts that have something to do and are not at it already.
    pub(crate) fn ready(&self, world: &World, into: &mut Vec<Part>) {
        let now = world.time.ms();
        if let Ok(turning) = self.turning.try_borrow()
            && (!self.inbox.borrow().is_empty() || turning.wake_at <= now)
        {
            into.push(Part::Loop);
        }
        if let Ok(writing) = self.writing.try_borrow()
            && writing.retry_at <= now
            && (writing.storing.is_some() || !self.jobs.borrow().is_empty())
        {
            into.push(Part::Writer);
        }
        let woken = self.wake.try_borrow().is_ok_and(|wake| wake.everything || !wake.agents.is_empty());
        if let Ok(remembering) = self.remembering.try_borrow()
            && (woken || remembering.next_at <= now)
        {
            into.push(Part::Steward);
        }
        if let Ok(watching) = self.watching.try_borrow()
            && (watching.due <= now || self.assigned.borrow().is_some())
        {
            into.push(Part::Watchdog);
        }
        if self.thread.try_borrow().is_ok_and(|thread| thread.is_ready(world)) {
            into.push(Part::Processes);
        }
        if !self.hints.borrow().is_empty() {
            into.push(Part::Hints);
        }
    }

    /// When something is due though nothing happens.
    pub(crate) fn next_due(&self) -> u64 {
        let writing = self.writing.borrow();
        let retry = if writing.storing.is_some() { writing.retry_at } else { u64::MAX };
        let strike = self.thread.borrow().next_strike().unwrap_or(u64::MAX);
        let steward = self.remembering.borrow().next_at;
        let due = [self.turning.borrow().wake_at, retry, steward, self.watching.borrow().due, strike];
        due.into_iter().min().unwrap_or(u64::MAX)
    }

    /// True if no part has anything to do before its next look at everything.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.inbox.borrow().is_empty()
            && self.hints.borrow().is_empty()
            && self.jobs.borrow().is_empty()
            && self.writing.borrow().storing.is_none()
    }

    pub(crate) fn is_broken(&self) -> bool {
        let stopped = self.writing.borrow().broken.is_some() || self.remembering.borrow().broken;
        stopped || self.turning.borrow().supervisor.has_ended()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.turning.try_borrow().is_ok_and(|turning| turning.supervisor.has_ended())
    }

    pub(crate) fn work(&self, world: &World, part: Part) {
        match part {
            Part::Loop => self.turn(world),
            Part::Writer => self.write(world),
            Part::Steward => self.remember(world),
            Part::Watchdog => self.sample(world),
            Part::Processes => self.processes(world),
            Part::Hints => self.deliver_hints(world),
        }
    }

    /// Somebody asks it to end.
    pub(crate) fn stop(&self) {
        self.inbox.borrow_mut().push_back(Message::Signal(SignalEvent::Stop));
    }

    fn turn(&self, world: &World) {
        let Ok(mut turning) = self.turning.try_borrow_mut() else { return };
        let messages: Vec<Message> = {
            let mut inbox = self.inbox.borrow_mut();
            let most = inbox.len().min(BATCH_MAX);
            let all = world.is_calm() || world.chance(0.5);
            let count = if all { most } else { world.below(most + 1) };
            inbox.drain(..count).collect()
        };
        turning.supervisor.turn(messages);
        turning.wake_at = world.time.ms() + turning.supervisor.wait_ms();
    }

    fn write(&self, world: &World) {
        let Ok(mut writing) = self.writing.try_borrow_mut() else { return };
        let Writing { writer, storing, retry_at, broken } = &mut *writing;
        if storing.is_none() {
            let mut jobs = self.jobs.borrow_mut();
            let count = 1 + world.below(jobs.len().min(BATCH_LEN_MAX));
            let batch: Vec<Job> = jobs.drain(..count).collect();
            drop(jobs);
            world.oracle.borrow_mut().committing(&batch);
            *storing = Some(Storing::new(batch));
        }
        let Some(current) = storing else { return };
        // At once, as the thread does: what is told too early can be acted on before the rest is done.
        let tell = |report| self.inbox.borrow_mut().push_back(Message::Writer(report));
        if let Some(why) = broken {
            current.refuse(why, tell);
            *storing = None;
        } else {
            match current.attempt(writer, tell) {
                _ if self.handle.is_dead() => {}
                Attempt::Ended => {
                    world.oracle.borrow_mut().committed();
                    *storing = None;
                }
                Attempt::Full(_) => *retry_at = world.time.ms() + RETRY_MS,
                Attempt::Broken(why) => {
                    current.refuse(&why, tell);
                    *broken = Some(why);
                    *storing = None;
                }
            }
        }
    }

    fn remember(&self, world: &World) {
        let Ok(mut remembering) = self.remembering.try_borrow_mut() else { return };
        let wake = std::mem::take(&mut *self.wake.borrow_mut());
        let ms = world.time.ms();
        let everything = wake.everything || remembering.rescan_at <= ms;
        if everything {
            remembering.rescan_at = ms + RESCAN_MS;
        }
        let agents: Vec<AgentName> = wake.agents.into_iter().collect();
        let hinted = (!everything).then_some(agents.as_slice());
        let now: Mono = nightcrew::edge::clock::Clock::now(&remembering.clock).mono;
        let turn = remembering.steward.turn(now, hinted);
        if self.handle.is_dead() {
            return;
        }
        if let Some(fault) = &turn.fault {
            world.tell(|| format!("steward: {fault:?}"));
        }
        remembering.broken |= matches!(turn.fault, Some(Fault::Broken(_)));
        let soon = turn.look_again_in_ms.map_or(u64::MAX, |wait| ms + wait);
        remembering.next_at = if turn.more { ms } else { soon.min(remembering.rescan_at) };
        let mut told: Vec<StewardReport> = Vec::new();
        remembering.telling.tell(turn, |report| told.push(report));
        self.inbox.borrow_mut().extend(told.into_iter().map(Message::Steward));
    }

    fn sample(&self, world: &World) {
        let Ok(mut watching) = self.watching.try_borrow_mut() else { return };
        let now = world.time.ms();
        if let Some(assignment) = self.assigned.borrow_mut().take() {
            watching.files.assign(assignment.files.clone());
            let next = if watching.due == u64::MAX { now } else { now + assignment.pace_ms.max(10) };
            watching.due = if watching.files.is_empty() { u64::MAX } else { watching.due.min(next) };
            watching.assignment = assignment;
        }
        if watching.due > now {
            return;
        }
        let mut seen = Vec::new();
        watching.files.look(&mut |sighting| seen.push(sighting));
        let kernel = world.kernel.borrow();
        for tree in &watching.assignment.trees {
            let bloated = |pid: &u32| kernel.procs.get(pid).is_some_and(|process| process.bloated);
            if kernel.living(&tree.run).any(|pid| bloated(&pid)) {
                let (run, bytes) = (tree.run.clone(), tree.limit + 1);
                let members = Vec::new();
                seen.push(Sighting::Memory { run, bytes, exact: true, estimated: false, members });
            }
        }
        watching.due = now + watching.assignment.pace_ms.max(10);
        if !self.handle.is_dead() {
            self.inbox.borrow_mut().extend(seen.into_iter().map(Message::Sighting));
        }
    }

    fn processes(&self, world: &World) {
        let Ok(mut thread) = self.thread.try_borrow_mut() else { return };
        let reports = thread.turn(world);
        self.inbox.borrow_mut().extend(reports.into_iter().map(Message::Process));
    }

    /// What changed on the disk, as the watches would tell it: late, in part, or only that there was too much.
    pub(crate) fn see(&self, world: &World) {
        if self.rewatch.take() {
            self.hints.borrow_mut().push_back(Hint::Rescan);
        }
        for change in world.disk.take_changes() {
            if world.chance(world.options.hints_lost) {
                continue;
            }
            let near = self.routes.iter().filter(|route| may_concern(route, &change));
            let told = near.filter_map(|route| route.hint(&change.path, touch_of(change.kind)));
            self.hints.borrow_mut().extend(told);
        }
        if self.hints.borrow().len() > world.options.hints_max {
            let mut hints = self.hints.borrow_mut();
            hints.clear();
            hints.push_back(Hint::Rescan);
        }
    }

    fn deliver_hints(&self, world: &World) {
        let mut hints = self.hints.borrow_mut();
        let count = 1 + world.below(hints.len());
        self.inbox.borrow_mut().extend(hints.drain(..count).map(Message::Hint));
    }

    /// The orderly end after the machine asked for it: memory applied, all records durable.
    pub(crate) fn finish(&self, world: &World) {
        for _ in 0..FLUSH_TURNS_MAX {
            if self.handle.is_dead() {
                return;
            }
            let mut remembering = self.remembering.borrow_mut();
            let now: Mono = nightcrew::edge::clock::Clock::now(&remembering.clock).mono;
            let turn = remembering.steward.turn(now, None);
            let more = turn.more;
            let mut told: Vec<StewardReport> = Vec::new();
            remembering.telling.tell(turn, |report| told.push(report));
            drop(remembering);
            self.turning.borrow_mut().supervisor.turn(told.into_iter().map(Message::Steward));
            if !more {
                break;
            }
        }
        self.inbox.borrow_mut().retain(|message| matches!(message, Message::Writer(WriterReport::Done(_))));
        for _ in 0..FLUSH_TURNS_MAX {
            let waits = self.writing.borrow().storing.is_some() || !self.jobs.borrow().is_empty();
            if self.handle.is_dead() || !waits || self.writing.borrow().broken.is_some() {
                return;
            }
            self.write(world);
        }
    }
}

/// False if a change surely does not concern a route, by the letters of their paths: to take paths apart is slow, and
/// most changes concern none.
fn may_concern(route: &Route, change: &Change) -> bool {
    let (watched, changed) = (route.path.as_os_str().as_bytes(), change.path.as_os_str().as_bytes());
    changed.starts_with(watched) || change.kind == ChangeKind::Removed && watched.starts_with(changed)
}

/// What a supervisor is told at its start.
fn options(world: &World, me: Identity, token_floor: u64) -> Options {
    let setup = Setup {
        boot: me.boot.clone(),
        ns: NS,
        tasks_at_once: 4,
        token_floor,
        until_idle: false,
        seed: world.random(),
    };
    let terms = Terms {
        crew_file: CrewFile::default(),
        inherited: [("PATH".into(), "/bin".into())].into(),
        binary_dir: "/bin".into(),
    };
    Options { layout: world.layout.clone(), me, owners: Owners { us: 0, crew: 0 }, terms, setup }
}
