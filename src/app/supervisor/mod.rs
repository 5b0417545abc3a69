//! The supervisor's loop: collect what happened, let the machine decide, perform what it decided.
//!
//! One thread owns everything here. Helper threads send [`Message`]s into one queue; each turn takes
//! a bounded number of them, looks at what they point to (`collect`, `look`, `inbox`), steps the machine, and
//! performs its effects (`perform`). Nothing here waits for a disk: records go to the writer, whose
//! answers come back as messages. What only people read (status, ready lists) is written at the end of
//! the turn, once, however often it changed within it (`publish`).
//!
//! [`Supervisor`] is generic over the store, the clock, the processes and the helper threads, so that a
//! simulator can stand in for all of them.

mod collect;
pub mod eyes;
pub mod firing;
mod inbox;
mod jobs;
mod launch;
mod leftovers;
mod look;
pub mod opening;
mod perform;
mod publish;
mod recover;
mod requests;
mod results;
pub mod run;
mod shelves;
#[cfg(test)]
mod tests;
mod tokens;
mod watched;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;

use crate::app::catalog::{Catalog, Finding, Offer, Owners, Terms};
use crate::app::steward::thread::StewardReport;
use crate::app::tidying;
use crate::edge::clock::Clock;
use crate::edge::processes::{Processes, Report};
use crate::edge::pump::PumpReport;
use crate::edge::signals::SignalEvent;
use crate::edge::store::{Store, temp_name};
use crate::edge::watchdog::{Assignment, Sighting};
use crate::edge::watches::{Area, Hint, Scope};
use crate::edge::writer::Job;
use crate::edge::writer_thread::WriterReport;
use crate::machine::effect::RecordChange;
use crate::machine::event::Accepted;
use crate::machine::{Event, Setup, State};
use crate::protocol::layout::{BoundName, Layout};
use crate::protocol::ledger::{Entry, Fact};
use crate::protocol::name::{AgentName, Kind, Name, RunId, TaskId};
use crate::protocol::process::Identity;
use crate::protocol::status::{Alert, CrewStatus, Refusal};
use crate::protocol::task::TaskRecord;
use crate::protocol::time::{Mono, Now, Wall};

/// At least this often everything is looked at, hint or not.
const SCAN_MS: u64 = 30_000;
/// The most messages in one turn.
pub const BATCH_MAX: usize = 256;
/// So often what ended long ago is removed.
const TIDYING_MS: u64 = 600_000;
/// The loop was stopped, or the machine paused, if it wakes so much later than it wanted to.
const STALL_MS: u64 = 1_000;
/// However often files in `agents/` change, they are looked at again after this at the earliest.
const AGENTS_PACE_MS: u64 = 50;
/// Likewise where files of agents change that lie elsewhere: there may be many, and much may happen there.
const EXTRA_PACE_MS: u64 = 250;
/// Less free space than this, in bytes, is told.
const FREE_SPACE_LOW: u64 = 256 * 1024 * 1024;
/// A file in `agents/` that was touched and not closed may be being written for so long without asking.
const WRITING_MS: u64 = 2_000;
/// A record that ends in the middle is looked at once more after this.
const SECOND_LOOK_MS: u64 = 1_000;

/// All that can reach the loop.
#[derive(Debug)]
pub enum Message {
    /// From the process thread.
    Process(Report),
    /// From the watches.
    Hint(Hint),
    /// From the watchdog.
    Sighting(Sighting),
    /// From the writer.
    Writer(WriterReport),
    /// From the steward.
    Steward(StewardReport),
    /// From the log pump.
    Pump(PumpReport),
    /// From the signals.
    Signal(SignalEvent),
}

/// The helper threads that are told something and answer, if at all, by messages.
pub trait Helpers {
    /// Makes changes durable.
    fn write(&self, job: Job);
    /// Updates of this agent's memory queue may have arrived; of any, if none is named.
    fn remember(&self, agent: Option<&AgentName>);
    /// What is to be watched from now on.
    fn watch(&self, assignment: Assignment);
    /// How many bytes can still be written to the crew's file system, if that can be told.
    fn free_space(&self) -> Option<u64>;
    /// A watched directory was replaced.
    fn rewatch(&self);
    /// What ended long ago is to be removed.
    fn tidy(&self, order: tidying::Order);
    /// Files outside `agents/` that belong to agents, or that they watch, are to be watched.
    fn watch_extra(&self, paths: BTreeSet<(PathBuf, Area, Scope)>);
}

/// What the supervisor is told once, at its start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The crew.
    pub layout: Layout,
    /// This process.
    pub me: Identity,
    /// Whose files are trusted.
    pub owners: Owners,
    /// What holds for every agent.
    pub terms: Terms,
    /// The machine's own settings.
    pub setup: Setup,
}

/// The key of the warning that watches are missing.
const WATCHES: &str = "watches";

/// A place that is looked at as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    CrewFile,
    Switches,
    Agents,
    Requests,
    Locks,
    Outcomes,
    NewTasks,
}

/// What the watches pointed at and nobody looked at yet.
#[derive(Debug, Default)]
struct ToLookAt {
    places: BTreeSet<Place>,
    new_tasks: BTreeSet<PathBuf>,
    outcomes: BTreeSet<PathBuf>,
    requests: BTreeSet<PathBuf>,
    locks: BTreeSet<TaskId>,
    /// What is no good, but cannot be taken away yet because so much is on its way already.
    put_off: BTreeSet<PathBuf>,
}

impl ToLookAt {
    /// True if one turn was not enough.
    fn is_pending(&self) -> bool {
        !self.places.is_empty() || self.has_files()
    }

    fn has_files(&self) -> bool {
        self.is_behind() || !self.requests.is_empty()
    }

    /// True if there is more of what is looked at before requests are carried out.
    fn is_behind(&self) -> bool {
        [&self.new_tasks, &self.outcomes].iter().any(|files| !files.is_empty()) || !self.locks.is_empty()
    }

    /// Has everything looked at, and keeps what is known: a flood that is told of again and again must not have
    /// the look at it begin anew each time.
    fn look_everywhere(&mut self) {
        self.places = Self::everything().places;
    }

    fn everything() -> Self {
        let places = [
            Place::CrewFile,
            Place::Switches,
            Place::Agents,
            Place::Requests,
            Place::Locks,
            Place::Outcomes,
            Place::NewTasks,
        ];
        Self { places: places.into(), ..Self::default() }
    }
}

/// What was shown last, so that only changes are written.
#[derive(Debug, Default)]
struct Shown {
    ready: BTreeMap<Kind, Vec<TaskId>>,
    ready_changed: BTreeSet<Kind>,
    crew: Option<CrewStatus>,
    assignment: Assignment,
    watch_changed: bool,
    /// When what changed is shown.
    due: Option<Mono>,
    extra_changed: bool,
    forgotten: BTreeSet<AgentName>,
    /// What could not be shown, and when that is tried again.
    missed: BTreeMap<PathBuf, Vec<u8>>,
    again: Option<Mono>,
}

/// The supervisor of one crew.
pub struct Supervisor<S: Store, C, P, H> {
    store: S,
    clock: C,
    processes: P,
    helpers: H,
    options: Options,
    state: State,
    catalog: Catalog<S>,
    offers: BTreeMap<(AgentName, String), Offer>,
    /// Findings about files that somebody has open for writing, until they are whole.
    held_back: BTreeMap<AgentName, Vec<Finding>>,
    /// Files in `agents/` that were touched and not closed: since when, and which.
    being_written: BTreeMap<AgentName, (Mono, PathBuf)>,
    /// When `agents/` was looked at last, and when to look again because of a hint.
    agents_looked: Mono,
    agents_due: Option<Mono>,
    /// When to see whether somebody still has one of them open.
    writing_check: Option<Mono>,
    nameless: BTreeMap<String, Refusal>,
    warnings: BTreeMap<String, String>,
    /// What was said last of watches that are missing, so that it is not said every 30 s.
    watch_trouble: Option<String>,
    to_look_at: ToLookAt,
    /// Since when requests wait that come after what was there before them.
    put_last: BTreeMap<Name, Mono>,
    second_looks: BTreeMap<PathBuf, Mono>,
    /// Tasks whose owner is gone and whose outcomes could not be looked for yet.
    unlooked: BTreeSet<(TaskId, AgentName)>,
    /// What jobs watch.
    watched: BTreeMap<AgentName, watched::Watched>,
    /// Firings that are to be submitted.
    fired: Vec<TaskRecord>,
    /// Tasks that were submitted within others, by the ticket of the record that they wait for.
    counting: BTreeMap<u64, Vec<(AgentName, BoundName)>>,
    /// Tasks that were submitted within others before this start, and of which the disk does not tell yet what
    /// becomes of them.
    unsettled: BTreeSet<(AgentName, BoundName)>,
    /// Tasks that are there, but whose records could not be read so far, with what the ledger accepted for them.
    /// Until they can be, nothing is done to them, their locks and what is submitted under their ids.
    unread: BTreeMap<TaskId, Option<Accepted>>,
    /// Submissions that the machine is deciding about.
    incoming: BTreeMap<TaskId, TaskRecord>,
    /// What the end of an earlier supervisor's ledger tells of as admitted, and nothing after that.
    admissions: BTreeMap<TaskId, recover::Admission>,
    leaving: jobs::Leaving,
    /// Runs whose trees are gone, and what had to be killed of them, until all they printed is in their logs.
    closing: BTreeMap<RunId, Vec<String>>,
    /// Changes of records that could not be read for the moment (at most one for a task), and when to try again.
    postponed: Vec<(u64, RecordChange)>,
    postponed_due: Option<Mono>,
    alerts: BTreeMap<String, Alert>,
    shown: Shown,
    next_scan: Mono,
    /// When what ended long ago is removed next.
    next_tidying: Mono,
    /// How long the loop was stopped in all: the machine's clock does not count it.
    stalled_ms: u64,
    wanted_to_wake: Option<Mono>,
    /// When the watchdog should have completed its next round, if it has files to look at.
    round_due: Option<Mono>,
    serial: u64,
    started: Wall,
    /// Whether the state directory is still the one that was locked.
    sight: Sight,
    ended: bool,
}

/// Whether what is on disk is what this supervisor knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sight {
    /// It is.
    Clear,
    /// `state/` was removed or replaced: nothing is read or written any more, agents go on.
    Blind,
}

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// A supervisor that has looked at nothing yet; [`Supervisor::recover`] comes first.
    pub fn new(store: S, clock: C, processes: P, helpers: H, catalog: Catalog<S>, options: Options) -> Self {
        let now = clock.now();
        Self {
            state: State::new(options.setup.clone()),
            store,
            clock,
            processes,
            helpers,
            catalog,
            offers: BTreeMap::new(),
            held_back: BTreeMap::new(),
            being_written: BTreeMap::new(),
            agents_looked: Mono(0),
            agents_due: None,
            writing_check: None,
            nameless: BTreeMap::new(),
            warnings: BTreeMap::new(),
            watch_trouble: None,
            to_look_at: ToLookAt::everything(),
            put_last: BTreeMap::new(),
            second_looks: BTreeMap::new(),
            unlooked: BTreeSet::new(),
            watched: BTreeMap::new(),
            fired: Vec::new(),
            counting: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            unread: BTreeMap::new(),
            incoming: BTreeMap::new(),
            admissions: BTreeMap::new(),
            leaving: jobs::Leaving::default(),
            closing: BTreeMap::new(),
            postponed: Vec::new(),
            postponed_due: None,
            alerts: BTreeMap::new(),
            shown: Shown::default(),
            next_scan: now.mono.plus(SCAN_MS),
            next_tidying: now.mono.plus(SCAN_MS),
            stalled_ms: 0,
            wanted_to_wake: None,
            round_due: None,
            serial: 0,
            started: now.wall,
            sight: Sight::Clear,
            ended: false,
            options,
        }
    }

    /// One turn: takes the messages, acts on them and on what is due.
    pub fn turn(&mut self, messages: impl IntoIterator<Item = Message>) {
        let now = self.read_clock();
        for message in messages {
            self.collect(now, message);
        }
        if self.sight == Sight::Blind {
            self.next_scan = now.mono.plus(SCAN_MS);
            self.step(now, Event::Tick);
            return;
        }
        if self.next_scan <= now.mono {
            self.next_scan = now.mono.plus(SCAN_MS);
            if self.warnings.contains_key(WATCHES) {
                self.watch_again();
            }
            self.look_at_everything();
            self.look_at_all_watched(now);
            self.recover_unread(now);
            self.look_for_withdrawn(now);
            self.try_staying_again(now);
            self.warn_of_little_space();
            self.tidy_at_times(now);
        }
        self.record_postponed(now);
        self.look(now);
        self.step(now, Event::Tick);
        self.submit_fired(now);
        self.publish(now);
    }

    fn tidy_at_times(&mut self, now: Now) {
        if self.next_tidying <= now.mono {
            self.next_tidying = now.mono.plus(TIDYING_MS);
            let keep = self.options.terms.crew_file.keep.clone();
            self.helpers.tidy(tidying::Order { keep, needed: self.state.needed(), now: now.wall });
        }
    }

    fn warn_of_little_space(&mut self) {
        match self.helpers.free_space() {
            Some(free) if free < FREE_SPACE_LOW => {
                let mib = free / (1024 * 1024);
                let why =
                    format!("only {mib} MiB are free: make room, or nothing can be acknowledged any more");
                if self.warnings.insert("space".into(), why.clone()).is_none() {
                    log::warn!("{why}");
                }
            }
            Some(_) | None => drop(self.warnings.remove("space")),
        }
    }

    /// When the loop should turn next though no message came, in milliseconds from now.
    pub fn wait_ms(&mut self) -> u64 {
        // A turn in which the machine was paused is found here.
        let now = self.read_clock().mono;
        let mut next = self.state.next_deadline().map_or(self.next_scan, |at| at.min(self.next_scan));
        if self.sight == Sight::Clear {
            if self.to_look_at.is_pending() || self.can_take_up() {
                return 0;
            }
            let second_look = self.second_looks.values().min().map(|first| first.plus(SECOND_LOOK_MS));
            let fresh = self.being_written.values().map(|(since, _)| since.plus(WRITING_MS)).min();
            let writing = self.writing_check.or(fresh.filter(|at| *at > now));
            let postponed = self.postponed_due;
            let watched = self.watched.values().filter_map(|watched| watched.due).min();
            next =
                [second_look, writing, postponed, watched, self.agents_due, self.shown.due, self.shown.again]
                    .into_iter()
                    .flatten()
                    .fold(next, Mono::min);
        }
        // Nothing is to be done at the watchdog's next round, but if it comes late, something stood still.
        self.wanted_to_wake = Some(now.max(self.round_due.map_or(next, |round| round.min(next))));
        next.0.saturating_sub(now.0)
    }

    /// True if the next turn looks at everything.
    #[must_use]
    pub fn scans_now(&self) -> bool {
        self.next_scan.0 <= self.clock.now().mono.0.saturating_sub(self.stalled_ms)
    }

    /// `state/` was removed or replaced: what would be written now would be written into a directory of
    /// somebody else's making. From now on nothing is read or written and nothing is started; agents go on
    /// until a signal ends them and this supervisor.
    pub fn go_blind(&mut self) {
        if self.sight == Sight::Clear {
            let state = self.options.layout.state();
            log::error!(
                "{} was removed or replaced: agents go on, but nothing is recorded or started any more; \
                 end this supervisor (kill -TERM {}) and start it again",
                state.display(),
                self.options.me.pid
            );
            self.sight = Sight::Blind;
            let now = self.read_clock();
            self.step(now, Event::StoreBroken("state/ was removed or replaced".into()));
        }
    }

    /// True once no new work is taken, so that what arrives need not be seen at once.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.state.is_draining()
    }

    /// True once the machine has asked to end.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Reads the clock, at the begin of each turn and at its end. If the loop overslept by far, or a turn took
    /// so long, the whole machine was paused, or our own eyes were closed: the time in between is nobody's
    /// silence and does not count.
    fn read_clock(&mut self) -> Now {
        let real = self.clock.now();
        let mut mono = Mono(real.mono.0.saturating_sub(self.stalled_ms));
        if let Some(wanted) = self.wanted_to_wake.take() {
            let overslept = mono.since(wanted);
            if overslept > STALL_MS {
                self.stalled_ms += overslept;
                mono = wanted;
                log::warn!("the loop stood still for {overslept} ms; deadlines are moved by as much");
                self.note(Wall(real.wall.0), Fact::SupervisorPaused { gap_ms: overslept });
            }
        }
        self.wanted_to_wake = Some(mono);
        Now { mono, wall: real.wall }
    }

    /// Steps the machine and performs what it wants, with what follows from that.
    fn step(&mut self, now: Now, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for effect in self.state.step(now, event) {
                self.perform(now, effect, &mut events);
            }
        }
    }

    /// Records a fact; nothing waits for it.
    fn note(&self, at: Wall, fact: Fact) {
        if self.sight == Sight::Blind {
            return;
        }
        self.helpers.write(Job { entries: vec![Entry { at, fact }], ..Job::default() });
    }

    fn temp(&mut self) -> PathBuf {
        self.serial += 1;
        temp_name(&self.options.layout.tmp_of_supervisor(), self.options.me.pid, self.serial)
    }
}
