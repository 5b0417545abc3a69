//! What the process thread does, turn by turn.
//!
//! It waits in one place: for its own eventfd, which orders and SIGCHLD raise, and for the pidfds of
//! adopted roots. While nothing is being killed it has no timer. A turn takes all orders that are there and
//! reaps all children that are dead. It reads `/proc` only if a tree is being killed, examined or (an adopted
//! one) signalled, once for all such trees, and again only after something was stopped or reaped.
//!
//! **Why a tree of our own is gone when one reading of `/proc` shows nothing of it.** Let a process of it be
//! alive when the reading begins, and follow its ancestors up to the topmost that is of the run. That one is
//! our child, because the root has been reaped and we are the subreaper; it stays our child until *we* reap
//! it, and we reap on this very thread, not while it reads. So the reading shows it, alive or as a zombie.
//! Zombies therefore count: what shows one is read again after reaping. For the same reason the list of our
//! own children proves it too, if it holds nothing but roots of other runs.
//!
//! Exact as this is, it is so only as far as an orphan can be told to be the run's (see `tree`); one that
//! cannot is warned of. Of a run that an earlier supervisor started, the proof is only that nothing bears
//! its mark.

use std::collections::{BTreeMap, HashSet};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};

use super::identity::{self, Held, Locality};
use super::kill::{Kill, Next};
use super::run::{Root, Run};
use super::table::{self, Instance, Stat};
use super::thread::{ChildWaker, Config, Message};
use super::tree::{self, Found, Marks, Origin};
use super::{Launch, Order, Report, evidence, spawn};

use crate::protocol::name::RunId;
use crate::protocol::process::{Ending, Identity};
use crate::protocol::variables::{ENV_DIR, ENV_RUN};

/// How many orders one turn takes, so that reaping is never held up for long.
const ORDERS_MAX: usize = 256;
/// How often `/proc` is read in one turn, at most.
const LOOKS_MAX: usize = 24;
/// How often a root that cannot be waited for is looked at.
const UNWATCHED_PACE: Duration = Duration::from_secs(5);

/// Whether we have children at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Children {
    Some { reaped: usize },
    None,
}

enum Flow {
    Continue,
    Stop,
}

/// The thread's state. It is nobody else's.
pub(super) struct Worker<D> {
    config: Config,
    deliver: D,
    orders: Receiver<Message>,
    waker: ChildWaker,
    runs: BTreeMap<RunId, Run>,
    /// Runs to be examined at the next reading.
    examined: Vec<RunId>,
    /// Signals to adopted runs, to be sent at the next reading.
    signals: Vec<(RunId, Signal)>,
    /// Orphans that were warned of.
    warned: HashSet<Instance>,
    /// Why `/proc` could not be read the last time: said once, not at every try.
    trouble: Option<String>,
}

impl<D: Fn(Report)> Worker<D> {
    pub(super) fn new(config: Config, deliver: D, orders: Receiver<Message>, waker: ChildWaker) -> Self {
        let (runs, warned) = (BTreeMap::new(), HashSet::new());
        Self {
            config,
            deliver,
            orders,
            waker,
            runs,
            examined: Vec::new(),
            signals: Vec::new(),
            warned,
            trouble: None,
        }
    }

    /// Works until it is told to stop.
    pub(super) fn run(mut self) {
        loop {
            self.wait();
            if matches!(self.take_orders(), Flow::Stop) {
                return;
            }
            let children = self.reap();
            self.check_adopted();
            let dying = self.runs.values().any(|run| run.kill.is_some());
            let event = !matches!(children, Children::Some { reaped: 0 });
            let asked = !self.examined.is_empty() || !self.signals.is_empty();
            if asked || (dying && (event || self.timeout() == Some(Duration::ZERO))) {
                self.look(children);
            }
        }
    }

    /// Blocks until there is something to do.
    fn wait(&self) {
        let timeout = self.timeout().map(|duration| Timespec {
            tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: duration.subsec_nanos().into(),
        });
        let adopted = self.runs.values().filter_map(|run| match &run.root {
            Root::Adopted(_, pidfd) => pidfd.as_ref(),
            Root::Child(_)
            | Root::ChildEnded(_)
            | Root::AdoptedEnded(_)
            | Root::Elsewhere(_)
            | Root::Unknown => None,
        });
        let mut fds: Vec<PollFd<'_>> = std::iter::once(self.waker.event())
            .chain(adopted)
            .map(|fd| PollFd::new(fd, PollFlags::IN))
            .collect();
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => {
                log::error!("cannot wait for processes: {errno}");
                // The kernel is out of memory; at least do not make it worse by spinning.
                std::thread::park_timeout(UNWATCHED_PACE);
            }
        }
    }

    /// How long to wait at most; nothing if only an event matters.
    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let kills = self.runs.values().filter_map(|run| run.kill.as_ref());
        let kills = kills.map(|kill| kill.next().saturating_duration_since(now));
        let unwatched = self.runs.values().any(|run| matches!(run.root, Root::Adopted(_, None)));
        kills.chain(unwatched.then_some(UNWATCHED_PACE)).min()
    }

    fn take_orders(&mut self) -> Flow {
        // Cleared before the orders are taken and the dead reaped: what comes after raises it again.
        self.waker.clear();
        for _ in 0..ORDERS_MAX {
            match self.orders.try_recv() {
                Ok(Message::Order(order)) => self.obey(order),
                Ok(Message::Stop) => return Flow::Stop,
                Err(_) => return Flow::Continue,
            }
        }
        // There may be more: come back at once, but reap first.
        self.waker.wake();
        Flow::Continue
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Spawn(launch) => self.spawn(&launch),
            Order::Adopt { run, root } => self.adopt(run, root),
            Order::Release { run } => self.release(&run),
            Order::Signal { run, signal } => self.signal(run, signal),
            Order::KillTree { run } => {
                let run = self.runs.entry(run).or_insert_with(|| Run::new(Root::Unknown));
                run.kill.get_or_insert_with(|| Kill::new(Instant::now()));
            }
            Order::Seen { run, members } => {
                if let Some(run) = self.runs.get_mut(&run) {
                    run.remember(members.iter().filter_map(|member| match identity::locality(member) {
                        Locality::Here(instance) => Some(instance),
                        Locality::EarlierBoot | Locality::OtherNamespace => None,
                    }));
                }
            }
            Order::Examine { run } => self.examined.push(run),
        }
    }

    fn spawn(&mut self, launch: &Launch) {
        let run = launch.run.clone();
        if self.runs.contains_key(&run) {
            let error = format!("run {run} exists already: each start needs an id of its own");
            return (self.deliver)(Report::SpawnFailed { run, error, busy: false });
        }
        let spawned = spawn::spawn(launch, &self.config.launcher)
            .map_err(|error| (error.to_string(), error.is_busy()))
            .and_then(|pid| identify_child(pid).map_err(|error| (error, false)));
        match spawned {
            Ok((instance, process)) => {
                self.runs.insert(run.clone(), Run::new(Root::Child(instance)));
                (self.deliver)(Report::Spawned { run, process });
            }
            Err((error, busy)) => (self.deliver)(Report::SpawnFailed { run, error, busy }),
        }
    }

    fn adopt(&mut self, run: RunId, root: Identity) {
        if self.runs.contains_key(&run) {
            return log::warn!("run {run} is known already and not adopted again");
        }
        let root = match identity::locality(&root) {
            Locality::OtherNamespace => Root::Elsewhere(root),
            Locality::EarlierBoot => Root::Unknown,
            Locality::Here(instance) => match identity::hold(instance) {
                Held::Alive(pidfd) => Root::Adopted(instance, Some(pidfd)),
                Held::Doubtful(_) => Root::Adopted(instance, None),
                Held::Gone => Root::AdoptedEnded(instance),
            },
        };
        let ended = root.has_ended();
        self.runs.insert(run.clone(), Run::new(root));
        if ended {
            (self.deliver)(Report::Exited { run, ending: Ending::Unseen });
        }
    }

    /// Each adopted process holds a descriptor. What is being killed goes on to its end.
    fn release(&mut self, run: &RunId) {
        self.runs
            .retain(|id, known| id != run || known.kill.is_some() || known.root.origin() == Origin::Ours);
    }

    fn signal(&mut self, run: RunId, number: i32) {
        let Some(signal) = Signal::from_named_raw(number) else {
            log::warn!("run {run}: signal {number} cannot be sent: use a named one, such as TERM");
            return;
        };
        match self.runs.get(&run).map(|run| &run.root) {
            // Not reaped yet, so neither the pid nor the group can be anybody else's.
            Some(Root::Child(root)) => {
                kill_group(&run, *root, signal);
                kill_group(&run, *root, Signal::CONT);
            }
            Some(Root::Adopted(..)) => self.signals.push((run, signal)),
            Some(Root::ChildEnded(_) | Root::AdoptedEnded(_) | Root::Elsewhere(_) | Root::Unknown) | None => {
            }
        }
    }

    /// Reaps all children that are dead. Each may be a run's root or an orphan that we inherited.
    fn reap(&mut self) -> Children {
        let mut reaped = 0;
        loop {
            // Not waitid: its safe wrappers either hide whose end it was or refuse real-time signals.
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => {
                    reaped += 1;
                    self.ended(pid, status);
                }
                Ok(None) => return Children::Some { reaped },
                Err(Errno::INTR) => {}
                Err(Errno::CHILD) => return Children::None,
                Err(errno) => {
                    log::error!("cannot reap: {errno}");
                    return Children::Some { reaped };
                }
            }
        }
    }

    fn ended(&mut self, pid: Pid, status: WaitStatus) {
        let pid = pid.as_raw_pid().unsigned_abs();
        // Of several roots with this pid only one can be alive.
        let root = self.runs.iter_mut().find_map(|(run, known)| match known.root {
            Root::Child(root) if root.pid == pid => Some((run, known, Root::ChildEnded(root))),
            Root::Adopted(root, _) if root.pid == pid => Some((run, known, Root::AdoptedEnded(root))),
            Root::Child(_)
            | Root::Adopted(..)
            | Root::ChildEnded(_)
            | Root::AdoptedEnded(_)
            | Root::Elsewhere(_)
            | Root::Unknown => None,
        });
        if let Some((run, known, ended)) = root {
            if matches!(ended, Root::ChildEnded(_)) {
                // What it left behind goes with it, in this same turn where nothing is left.
                known.kill.get_or_insert_with(|| Kill::new(Instant::now()));
            }
            known.root = ended;
            let code = status.exit_status().map(Ending::Code);
            let ending = code.or(status.terminating_signal().map(Ending::Signal)).unwrap_or(Ending::Unseen);
            (self.deliver)(Report::Exited { run: run.clone(), ending });
        }
    }

    fn check_adopted(&mut self) {
        for (run, known) in &mut self.runs {
            let Root::Adopted(root, pidfd) = &mut known.root else { continue };
            if pidfd.is_none() {
                *pidfd = match identity::hold(*root) {
                    Held::Alive(pidfd) => Some(pidfd),
                    Held::Doubtful(_) => None,
                    Held::Gone => {
                        known.root = Root::AdoptedEnded(*root);
                        (self.deliver)(Report::Exited { run: run.clone(), ending: Ending::Unseen });
                        continue;
                    }
                };
            } else if pidfd.as_ref().is_some_and(|pidfd| identity::has_ended(pidfd.as_fd())) {
                known.root = Root::AdoptedEnded(*root);
                (self.deliver)(Report::Exited { run: run.clone(), ending: Ending::Unseen });
            }
        }
    }

    /// Reads `/proc` for all that wait for it, and again as long as that promises progress.
    fn look(&mut self, mut children: Children) {
        for _ in 0..LOOKS_MAX {
            self.finish_without_a_look(children);
            if !self.is_worth_a_look() {
                break;
            }
            let next = match table::scan() {
                Ok(table) => {
                    self.trouble = None;
                    self.act_on(&table)
                }
                Err(error) => {
                    let trouble = format!("cannot read the process table: {error}; nobody's end is proved");
                    if self.trouble.as_ref() != Some(&trouble) {
                        log::error!("{trouble}");
                        self.trouble = Some(trouble);
                    }
                    break;
                }
            };
            children = self.reap();
            self.check_adopted();
            if next == Next::Wait && children == (Children::Some { reaped: 0 }) {
                break;
            }
        }
        let now = Instant::now();
        for (run, known) in &mut self.runs {
            if let Some(left) = known.kill.as_mut().and_then(|kill| kill.look_later(now)) {
                (self.deliver)(Report::TreeStuck { run: run.clone(), left });
            }
        }
    }

    /// A run whose root was struck but has not been reaped cannot be proved gone, so it is not looked for.
    fn is_worth_a_look(&self) -> bool {
        let now = Instant::now();
        let dying = self.runs.values().filter_map(|run| Some((run, run.kill.as_ref()?)));
        let mut dying = dying.filter(|(run, kill)| run.root.has_ended() || kill.is_due(now));
        dying.next().is_some() || !self.examined.is_empty() || !self.signals.is_empty()
    }

    /// Finishes the dying runs of ours whose root has been reaped, if all children that we have are roots of
    /// other runs: by the reasoning at the head of this file, nothing of the dying ones is left then. This
    /// costs a tenth of reading all of `/proc` and is the usual case; where it proves nothing, that follows.
    fn finish_without_a_look(&mut self, children: Children) {
        let dying = self.runs.iter().filter(|(_, run)| {
            run.kill.is_some() && run.root.has_ended() && run.root.origin() == Origin::Ours
        });
        let dying: Vec<RunId> = dying.map(|(run, _)| run.clone()).collect();
        if dying.is_empty() {
            return;
        }
        let is_root = |pid: &u32| {
            self.runs.values().any(|run| matches!(run.root, Root::Child(root) if root.pid == *pid))
        };
        let proved = match children {
            Children::None => true,
            Children::Some { .. } => table::own_children().is_ok_and(|pids| pids.iter().all(is_root)),
        };
        if proved {
            for run in &dying {
                self.finish(run);
            }
        }
    }

    fn finish(&mut self, run: &RunId) {
        if let Some((run, known)) = self.runs.remove_entry(run) {
            let killed = known.kill.map(Kill::into_named).unwrap_or_default();
            (self.deliver)(Report::TreeGone { run, killed });
        }
    }

    fn attribute(&self, table: &[Stat]) -> Found {
        let households: Vec<_> = self.runs.iter().map(|(run, known)| known.household(run)).collect();
        let mut environ = Vec::new();
        tree::attribute(table, std::process::id(), &households, |pid| {
            if table::read_environ(pid, &mut environ).is_err() {
                return Marks::default();
            }
            Marks {
                run: table::variable(&environ, ENV_RUN).map(<[u8]>::to_vec),
                of_this_crew: table::variable(&environ, ENV_DIR)
                    == Some(self.config.crew.as_os_str().as_bytes()),
            }
        })
    }

    fn act_on(&mut self, table: &[Stat]) -> Next {
        let Found { members, unclear } = self.attribute(table);
        let runs: Vec<RunId> = self.runs.keys().cloned().collect();
        let rows = |rows: &[usize]| rows.iter().filter_map(|row| table.get(*row)).collect::<Vec<_>>();
        let unclear = rows(&unclear);
        let mut next = Next::Wait;
        for (run, members) in runs.iter().zip(&members) {
            let members = rows(members);
            self.examine(run, &members);
            self.signal_adopted(run, &members);
            if self.pursue(run, &members, &unclear) == Next::LookAgain {
                next = Next::LookAgain;
            }
            if let Some(known) = self.runs.get_mut(run) {
                known.forget_unless(|seen| exists(table, seen));
                known.remember(members.iter().map(|stat| stat.instance));
            }
        }
        self.signals.clear();
        for run in std::mem::take(&mut self.examined) {
            // Only a run that is not known (any more) is left here.
            let evidence = evidence::gather(None, &[]);
            (self.deliver)(Report::Evidence { run, evidence });
        }
        self.warn_of(&unclear, table);
        next
    }

    fn examine(&mut self, run: &RunId, members: &[&Stat]) {
        let asked = self.examined.len();
        self.examined.retain(|examined| examined != run);
        if self.examined.len() < asked {
            let root = self.runs.get(run).and_then(|known| known.root.instance());
            let evidence = evidence::gather(root, members);
            (self.deliver)(Report::Evidence { run: run.clone(), evidence });
        }
    }

    fn signal_adopted(&self, run: &RunId, members: &[&Stat]) {
        for (_, signal) in self.signals.iter().filter(|(of, _)| of == run) {
            for member in members {
                for signal in [*signal, Signal::CONT] {
                    if let Err(error) = identity::signal(member.instance, signal) {
                        log::warn!("run {run}: cannot signal process {}: {error}", member.instance.pid);
                    }
                }
            }
        }
    }

    /// Kills what is alive of a dying run, or finds that nothing is left of it.
    fn pursue(&mut self, run: &RunId, members: &[&Stat], unclear: &[&Stat]) -> Next {
        let Some(known) = self.runs.get_mut(run) else { return Next::Wait };
        let root = known.root.instance();
        let Some(kill) = known.kill.as_mut() else { return Next::Wait };
        let living: Vec<&Stat> = members.iter().copied().filter(|stat| !stat.is_zombie()).collect();
        kill.note_left(living.iter().map(|stat| stat.label_with_state()));
        if !living.is_empty() {
            if let Root::Child(root) = known.root {
                // One blow for the whole group, which no fork within it escapes. (After the root is reaped,
                // its number could one day be another group's.)
                kill_group(run, root, Signal::KILL);
            }
            return kill.strike(root, &living);
        }
        if let Root::Elsewhere(identity) = &known.root {
            kill.note_left(std::iter::once(format!("{} of another pid namespace (?)", identity.pid)));
        }
        // See the head of this file for why zombies below us must be reaped first, whoever's they are.
        let proved = match known.root.origin() {
            Origin::Ours => members.is_empty() && !unclear.iter().any(|stat| stat.is_zombie()),
            Origin::Earlier => true,
        };
        if proved && known.root.has_ended() {
            self.finish(run);
        }
        Next::Wait
    }

    /// Says once of each orphan that it cannot be told whose it is.
    fn warn_of(&mut self, unclear: &[&Stat], table: &[Stat]) {
        self.warned.retain(|warned| exists(table, warned));
        for stat in unclear.iter().filter(|stat| !stat.is_zombie()) {
            if self.warned.insert(stat.instance) {
                log::warn!(
                    "process {} was left behind, but several runs could own it: it lives until only one can",
                    stat.label()
                );
            }
        }
    }
}

fn exists(table: &[Stat], instance: &Instance) -> bool {
    table::row(table, instance.pid)
        .and_then(|row| table.get(row))
        .is_some_and(|stat| stat.instance == *instance)
}

/// Signals the process group of a root that is our child and not reaped.
fn kill_group(run: &RunId, root: Instance, signal: Signal) {
    let Some(group) = i32::try_from(root.pid).ok().and_then(Pid::from_raw) else { return };
    if let Err(errno) = rustix::process::kill_process_group(group, signal) {
        log::warn!("run {run}: cannot signal its processes: {errno}");
    }
}

/// Who a child is that was just made. It is not reaped yet, so its pid is its own even if it is dead.
fn identify_child(pid: Pid) -> Result<(Instance, Identity), String> {
    let identified = table::read_stat(pid.as_raw_pid().unsigned_abs())
        .and_then(|stat| Ok((stat.instance, identity::identity(stat.instance)?)));
    identified.map_err(|error| {
        // A process that cannot be told from others cannot be supervised.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        format!("it was started, but killed again, because its start time cannot be read: {error}")
    })
}
