//! Whom `kill -9` meets, and when.

use std::fs;

use nix::libc::pid_t;
use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::crew::Crew;

/// What every process of a run bears.
const RUN: &str = "NIGHTCREW_RUN=";
/// What those of a handler's run bear, and those of a gate's do not: a gate that is killed has not let its result pass.
const TOKEN: &str = "NIGHTCREW_TOKEN=";

/// The command line of what has an effect, and not of the step that runs it.
const IN_EFFECT: &str = "/bin/sh ./deed send";

/// Of whom one is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    Supervisor,
    /// A single process of a handler's.
    Process,
    /// All of a handler's run that is in the midst of an effect.
    Run,
    Submitter,
}

/// How many of each.
const TARGETS: [(usize, Target); 4] =
    [(14, Target::Supervisor), (10, Target::Process), (12, Target::Run), (14, Target::Submitter)];
pub(super) const KILLS: usize = 50;
/// Every so many kills come right after the one before, so that a start is met too.
const CLOSE_EVERY: usize = 4;

/// A kill that is due once so many tasks are acknowledged, and then a moment later.
#[derive(Debug, Clone, Copy)]
pub(super) struct Due {
    pub(super) acknowledged: usize,
    pub(super) moment_ms: u64,
    pub(super) target: Target,
}

/// All kills, the last one first.
pub(super) fn plan(tasks: usize, dice: &mut fastrand::Rng) -> Vec<Due> {
    let mut targets: Vec<Target> =
        TARGETS.iter().flat_map(|(count, target)| std::iter::repeat_n(*target, *count)).collect();
    assert_eq!(targets.len(), KILLS);
    dice.shuffle(&mut targets);
    let mut times: Vec<usize> = (0..KILLS).map(|_| dice.usize(..tasks)).collect();
    times.sort_unstable();
    for close in (CLOSE_EVERY..KILLS).step_by(CLOSE_EVERY) {
        times[close] = times[close - 1];
    }
    let due = |(acknowledged, target)| Due { acknowledged, moment_ms: dice.u64(..40), target };
    let mut plan: Vec<Due> = times.into_iter().zip(targets).map(due).collect();
    plan.reverse();
    plan
}

/// Kills a process of the crew's handlers, or a whole run in the midst of an effect; false if there is none just now.
/// Whose run has many is met more often: it is at a step.
pub(super) fn kill_one(crew: &Crew, whole_run: bool, dice: &mut fastrand::Rng) -> bool {
    let mut all: Vec<Held> =
        crew.processes().into_iter().filter_map(|(pid, _)| Held::of(crew, pid)).collect();
    let wanted = if whole_run { IN_EFFECT } else { "" };
    let met: Vec<usize> = (0..all.len()).filter(|at| all[*at].command().contains(wanted)).collect();
    let Some(at) = dice.choice(met) else { return false };
    let victim = all.swap_remove(at);
    // It stands still from here on, unless it has ended meanwhile: there is no command then.
    if !victim.signal(Signal::STOP) || victim.command().is_empty() {
        return false;
    }
    all.retain(|other| whole_run && other.run == victim.run);
    // One of the others may have ended by itself.
    all.iter().chain([&victim]).filter(|one| one.signal(Signal::KILL)).count() > 0
}

/// A process of a handler's run, held so that no other can be meant.
struct Held {
    pid: pid_t,
    run: String,
    process: OwnedFd,
}

impl Held {
    fn of(crew: &Crew, pid: pid_t) -> Option<Self> {
        let process = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok()?;
        let environment = String::from_utf8(fs::read(format!("/proc/{pid}/environ")).ok()?).ok()?;
        let own = format!("NIGHTCREW_DIR={}", crew.layout.crew().display());
        let variables = || environment.split('\0');
        let is_own = variables().any(|variable| variable == own);
        let is_handlers = variables().any(|variable| variable.starts_with(TOKEN));
        let run = variables().find_map(|variable| variable.strip_prefix(RUN))?.to_owned();
        (is_own && is_handlers).then_some(Self { pid, run, process })
    }

    /// Its words, as they were given; empty once it has ended.
    fn command(&self) -> String {
        let words = fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        String::from_utf8_lossy(&words).replace('\0', " ")
    }

    fn signal(&self, signal: Signal) -> bool {
        pidfd_send_signal(&self.process, signal).is_ok()
    }
}
