//! The watchdog's judgement: heartbeats and memory.
//!
//! Intervals are judged on our own monotonic clock since a change was last *observed*, in the round
//! in which the watchdog has just looked at every file. The watchdog looks at least four times an
//! interval, so a verdict is at most a quarter of an interval late, and never early.

use serde_json::Value;

use crate::protocol::ledger::Fact;
use crate::protocol::manifest::{HEARTBEAT_MS_DEFAULT, Heartbeat, Manifest};
use crate::protocol::name::{AgentName, RunId, TaskId};
use crate::protocol::process::Identity;
use crate::protocol::time::{Mono, Now, show_duration};

use super::state::{Cause, Claim, Conclusion, Lapse, Liveness, Owner, RunState, State};
use super::{Effect, Out};

/// Two missed intervals isolate.
const MISSES: u64 = 2;
/// The watchdog looks this often in an interval.
const LOOKS_AN_INTERVAL: u64 = 4;
const PACE_MS_MIN: u64 = 50;
const PACE_MS_MAX: u64 = 30_000;

impl Lapse {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Silent { ms, interval_ms } => {
                let (ms, interval) = (show_duration(*ms), show_duration(*interval_ms));
                format!("no sign of life for {ms}, where one is due every {interval}")
            }
            Self::Lock(task) => format!("it let its lock of task {task} expire"),
        }
    }
}

/// How the signs of life of a new service run are judged.
pub(super) fn at_start(manifest: &Manifest, now: Mono) -> Liveness {
    match (manifest.silence_ms, manifest.heartbeat) {
        (Some(interval), _) | (None, Heartbeat::Every(interval)) => Liveness::Armed { interval, last: now },
        (None, Heartbeat::Default) => Liveness::Unarmed { interval: HEARTBEAT_MS_DEFAULT },
        (None, Heartbeat::Off) => Liveness::Off,
    }
}

/// One run as the watchdog should watch it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Watched {
    /// The run.
    pub run: RunId,
    /// Its agent.
    pub agent: AgentName,
    /// Its root process, once it is known.
    pub process: Option<Identity>,
    /// True if its heartbeat file is looked at.
    pub beats: bool,
    /// True if its output counts as a sign of life.
    pub output: bool,
    /// Its limit of memory in bytes.
    pub max_rss: Option<u64>,
}

impl State {
    /// A heartbeat (`beat`) or output was seen.
    pub(super) fn sign_of_life(&mut self, now: Now, id: &RunId, beat: bool, out: &mut Out) {
        let Some(run) = self.runs.get_mut(id) else { return };
        let silence = run.version.as_ref().and_then(|version| version.manifest.silence_ms);
        if !beat && silence.is_none() {
            return;
        }
        run.beaten |= beat;
        let first = beat && matches!(run.liveness, Liveness::Unarmed { .. });
        run.liveness = match run.liveness {
            Liveness::Off => Liveness::Off,
            Liveness::Unarmed { interval } | Liveness::Armed { interval, .. } => {
                Liveness::Armed { interval, last: now.mono }
            }
        };
        if first {
            // The watchdog may have to look more often from now on, and the status says that silence is judged.
            out.push(Effect::Watch);
            let agent = run.agent.clone();
            self.touch(&agent);
        }
        self.reinstate(id, out);
    }

    fn reinstate(&mut self, id: &RunId, out: &mut Out) {
        let Some(run) = self.runs.get_mut(id) else { return };
        if let RunState::Isolated { .. } = run.state {
            run.state = RunState::Running;
            let agent = run.agent.clone();
            out.push(Effect::Note(Fact::Reinstated { agent: agent.clone(), run: id.clone() }));
            self.touch(&agent);
        }
    }

    /// The owner of a task renewed its lock: had it been isolated for letting it grow old, it is back.
    pub(super) fn lock_renewed(&mut self, id: &RunId, task: &TaskId, out: &mut Out) {
        if self.runs.get(id).is_some_and(|run| run.lapse.as_ref() == Some(&Lapse::Lock(task.clone()))) {
            self.reinstate(id, out);
        }
    }

    /// The watchdog has looked at everything: what is silent now has been silent since it was last seen.
    pub(super) fn round(&mut self, now: Now, canary_alive: bool, out: &mut Out) {
        if !canary_alive {
            // We could not have seen a beat: the silence may be our own fault.
            return;
        }
        let mut silent = Vec::new();
        let mut over = Vec::new();
        for (id, run) in &self.runs {
            match (&run.state, run.liveness) {
                (RunState::Running, Liveness::Armed { interval, last })
                    if now.mono.since(last) > interval.saturating_mul(MISSES) =>
                {
                    let ms = now.mono.since(last);
                    silent.push((id.clone(), Lapse::Silent { ms, interval_ms: interval }));
                }
                (RunState::Isolated { until }, _) if *until <= now.mono => over.push(id.clone()),
                (
                    RunState::Starting
                    | RunState::Running
                    | RunState::Isolated { .. }
                    | RunState::Stopping { .. }
                    | RunState::Killing
                    | RunState::Ending(_)
                    | RunState::Stuck(_),
                    _,
                ) => {}
            }
        }
        for (id, lapse) in silent {
            self.isolate(now, &id, lapse, out);
        }
        for id in over {
            self.kill(&id, Some(Cause::Silent), out);
        }
    }

    /// Withholds a run: it may come back, and nobody gets what it holds.
    pub(super) fn isolate(&mut self, now: Now, id: &RunId, lapse: Lapse, out: &mut Out) {
        let Some(run) = self.runs.get_mut(id) else { return };
        let grace = run.version.as_ref().map_or(0, |version| version.manifest.grace_ms());
        run.state = RunState::Isolated { until: now.mono.plus(grace) };
        let why = lapse.words();
        run.lapse = Some(lapse);
        let agent = run.agent.clone();
        if mutant!(GivenAwayAlive) {
            for task in run.holds.clone() {
                let fate = Conclusion::Returned { why: why.clone(), died: false };
                self.owner_gone(&task, &Owner::Run(id.clone()), fate, out);
            }
        }
        self.touch(&agent);
        out.push(Effect::Examine(id.clone()));
        out.push(Effect::Alert(format!("isolated-{agent}"), format!("{agent} is isolated: {why}")));
    }

    /// The evidence has been collected: it is recorded before anything is done to the run.
    pub(super) fn evidence_seen(&mut self, id: &RunId, evidence: Value, out: &mut Out) {
        let Some(run) = self.runs.get(id) else { return };
        let why = run.lapse.as_ref().map(Lapse::words).unwrap_or_default();
        out.push(Effect::Note(Fact::Isolated { agent: run.agent.clone(), run: id.clone(), why, evidence }));
    }

    /// A tree's memory; it is judged only where it was measured exactly.
    pub(super) fn memory_measured(&mut self, id: &RunId, bytes: u64, exact: bool, out: &mut Out) {
        let Some(run) = self.runs.get_mut(id) else { return };
        run.peak_memory = run.peak_memory.max(Some(bytes));
        if !exact {
            return;
        }
        let limit = run.version.as_ref().and_then(|version| version.manifest.max_rss_bytes);
        let Some(limit) = limit.filter(|limit| bytes > *limit) else { return };
        if run.is_active() {
            let mib = |bytes: u64| bytes / (1024 * 1024);
            let why = format!("its tree used {} MiB, where max_rss allows {} MiB", mib(bytes), mib(limit));
            out.push(Effect::Alert(format!("memory-{}", run.agent), format!("{}: {why}", run.agent)));
            self.kill(id, Some(Cause::Memory(why)), out);
        }
    }

    /// What the watchdog should watch: the runs that live, and how often to look.
    #[must_use]
    pub fn watched(&self) -> (u64, Vec<Watched>) {
        let mut pace = PACE_MS_MAX;
        let mut watched = Vec::new();
        for (id, run) in &self.runs {
            let manifest = match (&run.version, &run.state) {
                (
                    Some(version),
                    RunState::Running | RunState::Isolated { .. } | RunState::Stopping { .. },
                ) => &version.manifest,
                (_, RunState::Starting | RunState::Killing | RunState::Ending(_) | RunState::Stuck(_))
                | (None, _) => {
                    continue;
                }
            };
            let beats = match run.liveness {
                Liveness::Off => false,
                Liveness::Unarmed { .. } => true,
                Liveness::Armed { interval, .. } => {
                    let grace = manifest.grace_ms().max(PACE_MS_MIN);
                    pace = pace.min(interval.min(grace) / LOOKS_AN_INTERVAL);
                    true
                }
            };
            watched.push(Watched {
                run: id.clone(),
                agent: run.agent.clone(),
                process: run.process.clone(),
                beats,
                output: manifest.silence_ms.is_some(),
                max_rss: manifest.max_rss_bytes,
            });
        }
        (pace.clamp(PACE_MS_MIN, PACE_MS_MAX), watched)
    }

    /// The tasks whose locks age: renewing one is a change of its file.
    #[must_use]
    pub fn watched_locks(&self) -> Vec<TaskId> {
        self.aging.iter().cloned().collect()
    }

    /// True if a claim's owner is isolated.
    pub(super) fn is_withheld(&self, claim: &Claim) -> bool {
        let owner_isolated = match &claim.owner {
            Owner::Run(run) => {
                self.runs.get(run).is_some_and(|run| matches!(run.state, RunState::Isolated { .. }))
            }
            Owner::Outside(_) | Owner::Unprovable => false,
        };
        owner_isolated || self.halt.is_some() || self.stopped.contains_key(&claim.agent)
    }

    /// Whose a run is.
    #[must_use]
    pub fn agent_of(&self, run: &RunId) -> Option<&AgentName> {
        self.runs.get(run).map(|run| &run.agent)
    }

    /// When a run's process was started, by the wall clock.
    #[must_use]
    pub fn started_at(&self, run: &RunId) -> Option<crate::protocol::time::Wall> {
        self.runs.get(run).map(|run| run.started.wall)
    }
}
