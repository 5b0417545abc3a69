//! A supervisor in the real world: takes the crew, starts the helper threads, turns until it is over.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};

use crate::app::catalog::Catalog;
use crate::app::steward::thread::{StewardReport, StewardThread};
use crate::app::survey::{Survey, SurveyError};
use crate::app::tidying::{self, Tidier};
use crate::app::world::Environment;
use crate::edge::clock::{Clock, SystemClock};
use crate::edge::environment as own;
use crate::edge::files::{FsStore, free_space};
use crate::edge::flock::{CrewLock, LockError};
use crate::edge::processes::{
    Config, Order, ProcessThread, Processes, Report, is_vacant, own_identity, survivors,
};
use crate::edge::pump::Pump;
use crate::edge::signals::{Signals, outlive_file_size_limit};
use crate::edge::watchdog::{Assignment, Watchdog};
use crate::edge::watches::{Area, Hint, Scope};
use crate::edge::writer::Job;
use crate::edge::writer_thread::{Unfinished, WriterThread};
use crate::machine::Setup;
use crate::protocol::holder::Holder;
use crate::protocol::layout::Layout;
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, RunId};

use super::eyes::{Eyes, WatchOrder};
use super::leftovers::{clear_files_of_commands, tmp_of_commands};
use super::opening::{Opening, OpeningError};
use super::{BATCH_MAX, Helpers, Message, Options, Supervisor};

/// How long the writer may take to flush at the end.
const FLUSH: Duration = Duration::from_mins(1);
/// How long the steward may take to apply what is queued at the end.
const STEWARD_FLUSH: Duration = Duration::from_secs(30);

/// Why a supervisor did not run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Another one holds the crew, or it cannot be locked.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The crew cannot be looked at.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// It ended in order, but for what the disk did not take.
    #[error("not everything could be made durable: {0}")]
    Unfinished(Unfinished),
    /// The crew's files cannot be opened.
    #[error(transparent)]
    Opening(#[from] OpeningError),
    /// Something that is needed could not be had.
    #[error("{what}: {why}")]
    Start {
        /// What.
        what: &'static str,
        /// Why, with the path.
        why: String,
    },
}

fn start<T>(what: &'static str, result: Result<T, impl std::fmt::Display>) -> Result<T, RunError> {
    result.map_err(|why| RunError::Start { what, why: why.to_string() })
}

/// The processes of the real world: the process thread, with each run's output pumped to its log.
struct RealProcesses {
    thread: ProcessThread,
    pump: Arc<Pump>,
    reports: Sender<Message>,
    store: FsStore,
    layout: Layout,
}

impl Processes for RealProcesses {
    fn order(&self, order: Order) {
        if let Order::Spawn(launch) = &order
            && let Err(error) = self.pump.open(&launch.agent, &launch.run)
        {
            // A process whose pipe nobody empties would hang as soon as that is full.
            let error = format!("its output cannot be read: {error}");
            let failed = Report::SpawnFailed { run: launch.run.clone(), error, busy: false };
            // The loop is gone only when the whole process is about to end.
            let _ = self.reports.send(Message::Process(failed));
            return;
        }
        self.thread.order(order);
    }
    fn is_being_written(&self, path: &Path) -> bool {
        self.thread.is_being_written(path)
    }
    fn close_run(&self, agent: &AgentName, run: &RunId) -> bool {
        self.pump.close(agent, run);
        // A command that was killed with the run.
        clear_files_of_commands(&self.store, &self.layout.tmp(agent), is_vacant);
        false
    }
}

/// The helper threads of the real world.
struct RealHelpers {
    writer: WriterThread,
    steward: StewardThread,
    watchdog: Watchdog,
    watch_orders: Sender<WatchOrder>,
    tidier: Tidier,
    layout: Layout,
}

impl Helpers for RealHelpers {
    fn write(&self, job: Job) {
        if self.writer.push(job).is_err() {
            log::error!("the writer's queue is full: a record is lost");
        }
    }
    fn remember(&self, agent: Option<&AgentName>) {
        match agent {
            Some(agent) => self.steward.hint(agent.clone()),
            None => self.steward.rescan(),
        }
    }
    fn watch(&self, assignment: Assignment) {
        self.watchdog.assign(assignment);
    }
    fn free_space(&self) -> Option<u64> {
        free_space(self.layout.crew()).ok()
    }
    fn rewatch(&self) {
        let _ = self.watch_orders.send(WatchOrder::Again);
    }
    fn tidy(&self, order: tidying::Order) {
        self.tidier.tidy(order);
    }
    fn watch_extra(&self, paths: BTreeSet<(PathBuf, Area, Scope)>) {
        let _ = self.watch_orders.send(WatchOrder::Extra(paths));
    }
}

/// Supervises the crew until it is told to stop, or, `until_idle`, until nothing is left to do.
///
/// # Errors
/// [`RunError`]; what could not be done for one agent is in its status, and no error here.
pub fn run(layout: &Layout, environment: &Environment, until_idle: bool) -> Result<(), RunError> {
    let clock = SystemClock::new();
    start("signals", outlive_file_size_limit())?;
    let me = start("this process", own_identity())?;
    let lock = CrewLock::acquire(layout, &Holder::new(me.clone(), clock.now().wall))?;
    let survey = Survey::new(layout.clone(), environment)?;
    let store = survey.store.clone();
    let Opening { writer, steward, token_floor, history } = Opening::new(&store, layout, me.pid)?;
    for dir in tmp_of_commands(&store, layout) {
        clear_files_of_commands(&store, &dir, is_vacant);
    }
    start("the crew's directory", own::enter(layout.crew()))?;

    // Unbounded, because a helper thread that waited for room could wait for a loop that waits for it.
    // Each source is bounded by what it watches: runs, tickets, directories.
    let (sender, messages) = crossbeam_channel::unbounded::<Message>();
    let writer = start("the writer", WriterThread::start(writer, deliver(&sender, Message::Writer)))?;
    let steward =
        start("the steward", StewardThread::start(steward, clock, deliver(&sender, Message::Steward)))?;
    let pump = Arc::new(start("the log pump", Pump::start(layout.clone(), deliver(&sender, Message::Pump)))?);
    let launcher = start("our own binary", own::binary())?;
    let config = Config { crew: layout.crew().to_path_buf(), launcher };
    let (thread, waker) =
        start("the process thread", ProcessThread::start(config, deliver(&sender, Message::Process)))?;
    let signals = Signals::start(deliver(&sender, Message::Signal), move || waker.wake());
    let _signals = start("signals", signals)?;
    let watchdog = Watchdog::start(store.clone(), layout.canary(), deliver(&sender, Message::Sighting));
    let watchdog = start("the watchdog", watchdog)?;
    let (watch_orders, orders) = crossbeam_channel::unbounded();

    let setup = Setup {
        boot: me.boot.clone(),
        ns: me.ns,
        tasks_at_once: tasks_at_once(&survey),
        token_floor,
        until_idle,
        seed: crate::app::world::randomness().u64(..),
    };
    let catalog = Catalog::new(store.clone(), layout.clone(), survey.owners, survey.terms.clone());
    let options = Options { layout: layout.clone(), me, owners: survey.owners, terms: survey.terms, setup };
    let tidier = start("the tidier", Tidier::start(store.clone(), layout.clone()))?;
    let helpers = RealHelpers { writer, steward, watchdog, watch_orders, tidier, layout: layout.clone() };
    let mut eyes = Eyes::open(layout.clone(), orders, &sender);
    let survivors = survivors(layout.crew());
    for (agent, run) in start("the log pump", pump.adopt_leftovers())? {
        // A pipe that no run of ours holds is nobody's output any more.
        if !survivors.iter().any(|survivor| survivor.run == run) {
            pump.close(&agent, &run);
        }
    }
    let reports = sender.clone();
    let processes = RealProcesses { thread, pump, reports, store: store.clone(), layout: layout.clone() };
    let mut supervisor = Supervisor::new(store, clock, processes, helpers, catalog, options);
    start("the tasks", supervisor.recover(survivors, history))?;
    turn_until_over(&mut supervisor, &messages, &mut eyes, &sender, &lock);
    finish(supervisor, &messages).map_err(RunError::Unfinished)
}

pub(super) fn deliver<T: 'static>(
    sender: &Sender<Message>,
    wrap: impl Fn(T) -> Message + Send + 'static,
) -> impl Fn(T) + Send + 'static {
    let sender = sender.clone();
    move |report| {
        // The loop is gone only when the whole process is about to end.
        let _ = sender.send(wrap(report));
    }
}

fn tasks_at_once(survey: &Survey) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    survey.terms.crew_file.host.tasks_at_once.map_or(2 * cores, |count| count as usize)
}

type RealSupervisor = Supervisor<FsStore, SystemClock, RealProcesses, RealHelpers>;

fn turn_until_over(
    supervisor: &mut RealSupervisor,
    messages: &Receiver<Message>,
    eyes: &mut Eyes,
    sender: &Sender<Message>,
    lock: &CrewLock,
) {
    supervisor.turn([]);
    while !supervisor.has_ended() {
        if supervisor.is_draining() {
            // What agents still hand in is looked for when they are gone.
            eyes.close();
        } else {
            eyes.adjust(sender);
        }
        let first = messages.recv_timeout(Duration::from_millis(supervisor.wait_ms())).ok();
        let batch = first.into_iter().chain(messages.try_iter().take(BATCH_MAX));
        let batch: Vec<Message> = batch.flat_map(|message| eyes.admit(message)).collect();
        let concerned = batch.is_empty() || batch.iter().any(may_concern_state) || supervisor.scans_now();
        if concerned && !is_in_sight(lock) {
            supervisor.go_blind();
        }
        supervisor.turn(batch);
    }
}

/// What cannot be told is no reason to end, or to be blind: what fails because of it is told by itself.
fn is_in_sight(lock: &CrewLock) -> bool {
    lock.is_intact().unwrap_or_else(|error| {
        log::error!("cannot see whether state/ is still the one that was locked: {error}");
        true
    })
}

/// True if a message may be the trace of a state directory that is gone.
fn may_concern_state(message: &Message) -> bool {
    matches!(message, Message::Hint(Hint::Lost { .. } | Hint::Rescan))
}

/// Applies what is queued, makes all records durable, and ends the helper threads.
fn finish(mut supervisor: RealSupervisor, messages: &Receiver<Message>) -> Result<(), Unfinished> {
    let now = supervisor.clock.now();
    supervisor.helpers.steward.stop();
    let deadline = now.mono.plus(u64::try_from(STEWARD_FLUSH.as_millis()).unwrap_or(u64::MAX));
    loop {
        let left = deadline.since(supervisor.clock.now().mono);
        match messages.recv_timeout(Duration::from_millis(left)) {
            Ok(Message::Steward(StewardReport::Stopped)) => break,
            Ok(message @ (Message::Steward(_) | Message::Writer(_))) => supervisor.turn([message]),
            Ok(Message::Process(Report::TreeGone { .. }) | _) => {}
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                log::error!("the steward did not end in time; what is queued is applied at the next start");
                break;
            }
        }
    }
    supervisor.note(now.wall, Fact::SupervisorStopped { why: "in order".to_owned() });
    supervisor.helpers.writer.finish(FLUSH)
}
