//! Agents: which version counts, whether it is wanted, and starting what is wanted and rests.

use std::sync::Arc;

use crate::protocol::ledger::Fact;
use crate::protocol::manifest::Restart;
use crate::protocol::name::{AgentName, Name};
use crate::protocol::process::Ending;
use crate::protocol::status::Refusal;
use crate::protocol::time::{Mono, Now, Wall};

use super::event::Version;
use super::state::{Agent, Cause, Course, Health, Liveness, Pending, Rest, Role, Run, State};
use super::{Effect, Out};

/// How long a changed file must be left alone before the change counts: a `git pull` is one change.
pub(super) const QUIET_MS: u64 = 2_000;
/// A run this long is healthy, and makes forget the failures before it.
pub(super) const HEALTHY_MS: u64 = 60_000;
/// Failures in a row after which a person is told and the tries become rare.
const FAILURES_TOLERATED: u32 = 5;
/// The bounds of the wait (full jitter) after the first, second … end in a row. The last is for what keeps
/// ending well; what keeps failing is tried rarely by then.
const BACKOFF_MS: [u64; FAILURES_TOLERATED as usize] = [0, 1_000, 4_000, 16_000, 60_000];
/// The wait after the last tolerated failure; it doubles with each further one.
const RARE_MS: u64 = 600_000;
const RARE_MS_MAX: u64 = 6 * 3_600_000;

impl Agent {
    fn new(now: Now) -> Self {
        Self {
            accepted: None,
            pending: None,
            refusal: None,
            runs: Vec::new(),
            rest: Rest::Ready,
            failures: 0,
            health: Health::default(),
            finished: None,
            restarts: 0,
            last_exit: None,
            held_up: None,
            since: now.wall,
        }
    }

    /// Sets it to be tried again after `wait` milliseconds; returns when that is.
    fn rest_for(&mut self, now: Now, wait: u64) -> Wall {
        let until = now.mono.plus(wait);
        let next = now.wall_at(until);
        self.rest = Rest::Backoff { until, next };
        next
    }

    pub(super) fn is_handler(&self) -> bool {
        self.accepted.as_ref().is_some_and(|version| version.manifest.is_handler())
    }
}

impl State {
    pub(super) fn agent_mut(&mut self, now: Now, name: &AgentName) -> &mut Agent {
        self.touch(name);
        self.agents.entry(name.clone()).or_insert_with(|| Agent::new(now))
    }

    pub(super) fn offered(&mut self, now: Now, name: &AgentName, version: Arc<Version>, out: &mut Out) {
        let agent = self.agent_mut(now, name);
        agent.refusal = None;
        match &agent.accepted {
            None => {
                agent.pending = None;
                self.adopt(now, name, version, out);
            }
            Some(current) if current.digest == version.digest => agent.pending = None,
            // Told again of the same change: its quiet goes on.
            Some(_) if matches!(&agent.pending, Some(Pending::Adopt(due, _)) if due.digest == version.digest) =>
                {}
            Some(_) => agent.pending = Some(Pending::Adopt(version, now.mono.plus(QUIET_MS))),
        }
    }

    pub(super) fn agent_refused(&mut self, now: Now, name: &AgentName, refusal: Refusal, out: &mut Out) {
        let agent = self.agent_mut(now, name);
        if agent.refusal.as_ref() == Some(&refusal) {
            return;
        }
        out.push(Effect::Note(Fact::Refused {
            file: refusal.file.clone(),
            reason: refusal.reason.clone(),
            remedy: refusal.remedy.clone(),
        }));
        agent.refusal = Some(refusal);
        // What is there now cannot run: neither does what was pending before it. The version that was
        // accepted goes on.
        agent.pending = None;
    }

    pub(super) fn agent_gone(&mut self, now: Now, name: &AgentName, out: &mut Out) {
        let Some(agent) = self.agents.get_mut(name) else { return };
        agent.refusal = None;
        if matches!(agent.pending, Some(Pending::Remove(_))) {
            return;
        }
        if agent.accepted.is_some() {
            agent.pending = Some(Pending::Remove(now.mono.plus(QUIET_MS)));
            self.touch(name);
        } else {
            self.forget_if_gone(name, out);
        }
    }

    pub(super) fn finished_before(&mut self, now: Now, name: &AgentName, digest: String) {
        self.agent_mut(now, name).finished = Some(digest);
    }

    fn adopt(&mut self, now: Now, name: &AgentName, version: Arc<Version>, out: &mut Out) {
        out.push(Effect::Note(Fact::Accepted { agent: name.clone(), digest: version.digest.clone() }));
        out.push(Effect::Adopt(name.clone(), version.digest.clone()));
        let agent = self.agent_mut(now, name);
        // A new version starts with a clean slate; one that ended well under an earlier supervisor stays ended.
        // Once another has been adopted that end is past: the file changed, even if it changes back.
        if agent.finished.as_ref() == Some(&version.digest) {
            agent.rest = Rest::Finished;
        } else {
            agent.rest = Rest::Ready;
            if agent.finished.take().is_some() {
                out.push(Effect::Finished(name.clone(), None));
            }
        }
        agent.failures = 0;
        agent.health = Health::default();
        agent.since = now.wall;
        let kinds = version.manifest.handles.clone();
        let before = agent.accepted.replace(version);
        for kind in before.iter().flat_map(|version| &version.manifest.handles).cloned().chain(kinds) {
            out.push(Effect::ShowReady(kind));
        }
        self.schedule(now, name, out);
        self.stop_what_is_outdated(now, name, out);
    }

    fn stop_what_is_outdated(&mut self, now: Now, name: &AgentName, out: &mut Out) {
        let Some(agent) = self.agents.get(name) else { return };
        let Some(version) = agent.accepted.clone() else { return };
        for run in agent.runs.clone() {
            let outdated = self.runs.get(&run).is_some_and(|run| {
                // A handler's run finishes its task; the next one takes the new version.
                run.is_service() && run.version.as_ref().is_none_or(|old| old.digest != version.digest)
            });
            if outdated {
                self.stop(now, &run, Cause::Replaced, out);
            }
        }
    }

    fn remove(&mut self, now: Now, name: &AgentName, out: &mut Out) {
        let agent = self.agent_mut(now, name);
        let version = agent.accepted.take();
        agent.since = now.wall;
        self.unschedule(name);
        out.push(Effect::Note(Fact::Removed { agent: name.clone() }));
        for kind in version.iter().flat_map(|version| &version.manifest.handles) {
            out.push(Effect::ShowReady(kind.clone()));
        }
        for run in self.agents.get(name).map(|agent| agent.runs.clone()).unwrap_or_default() {
            if self.runs.get(&run).is_some_and(Run::is_service) {
                self.stop(now, &run, Cause::Unwanted("its file was removed".into()), out);
            }
        }
        self.forget_if_gone(name, out);
    }

    /// An agent without a file, a refusal and a run is none.
    pub(super) fn forget_if_gone(&mut self, name: &AgentName, out: &mut Out) {
        let gone = self.agents.get(name).is_some_and(|agent| {
            agent.accepted.is_none() && agent.refusal.is_none() && agent.runs.is_empty()
        });
        if gone {
            self.agents.remove(name);
            self.changed.remove(name);
            out.push(Effect::Forget(name.clone()));
        }
    }

    /// Lets pending changes count whose quiet time is over.
    pub(super) fn settle_due(&mut self, now: Now, out: &mut Out) {
        let due: Vec<(AgentName, Pending)> = self
            .agents
            .iter()
            .filter_map(|(name, agent)| Some((name.clone(), agent.pending.clone()?)))
            .filter(|(_, pending)| due_at(pending) <= now.mono)
            .collect();
        for (name, pending) in due {
            self.agent_mut(now, &name).pending = None;
            match pending {
                Pending::Adopt(version, _) => self.adopt(now, &name, version, out),
                Pending::Remove(_) => self.remove(now, &name, out),
            }
        }
    }

    pub(super) fn next_settling(&self) -> Option<Mono> {
        let pending = self.agents.values().filter_map(|agent| agent.pending.as_ref()).map(due_at);
        let backoff = self.agents.values().filter_map(|agent| match agent.rest {
            Rest::Backoff { until, .. } => Some(until),
            Rest::Ready | Rest::Finished | Rest::Over(_) => None,
        });
        let ailing = self.agents.values().filter_map(|agent| agent.health.ailing_until);
        pending.chain(backoff).chain(ailing).min()
    }

    /// Ends the waits that are over, whether or not anything can be started then: a deadline that stayed
    /// in the past would make the loop spin.
    pub(super) fn rests_over(&mut self, now: Now) {
        let over: Vec<AgentName> = self
            .agents
            .iter()
            .filter(|(_, agent)| matches!(agent.rest, Rest::Backoff { until, .. } if until <= now.mono))
            .map(|(name, _)| name.clone())
            .collect();
        for name in over {
            self.agent_mut(now, &name).rest = Rest::Ready;
        }
        for agent in self.agents.values_mut() {
            agent.health.ailing_until.take_if(|until| *until <= now.mono);
        }
    }

    /// Why nothing of this agent should be started; `None` if it may be.
    pub(super) fn unwanted(&self, name: &AgentName) -> Option<String> {
        let manifest = self.agents.get(name).and_then(|agent| agent.accepted.as_ref()).map(|v| &v.manifest);
        match (&self.course, manifest, &self.halt, self.stopped.get(name)) {
            (Course::Draining { why }, ..) => Some(format!("the supervisor ends: {why}")),
            (Course::Over, ..) => Some("the supervisor ends".into()),
            (Course::Working, None, ..) => Some("it has no file that can run".into()),
            (Course::Working, Some(_), Some(why), _) => Some(format!("halted: {why}")),
            (Course::Working, Some(_), None, Some(why)) => Some(format!("stopped: {why}")),
            (Course::Working, Some(manifest), None, None) if !manifest.enabled => {
                Some("its manifest says enabled = false".into())
            }
            (Course::Working, Some(_), None, None) => None,
        }
    }

    /// Starts every service that is wanted and rests.
    pub(super) fn start_due(&mut self, now: Now, out: &mut Out) {
        let due: Vec<AgentName> = self
            .agents
            .iter()
            .filter(|(_, agent)| agent.runs.is_empty() && !agent.is_handler())
            .filter(|(_, agent)| agent.rest == Rest::Ready)
            .filter(|(name, _)| self.unwanted(name).is_none())
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.launch(now, &name, None, out);
        }
    }

    /// Begins a run of the accepted version. For a handler, `task` is what it is started for.
    pub(super) fn launch(
        &mut self,
        now: Now,
        name: &AgentName,
        task: Option<(Box<super::effect::Grant>, Name)>,
        out: &mut Out,
    ) {
        let Some(version) = self.agents.get(name).and_then(|agent| agent.accepted.clone()) else { return };
        let (grant, run) = match task {
            Some((grant, run)) => (Some(grant), run),
            None => (None, self.fresh_run(now)),
        };
        let task = grant.as_ref().map(|grant| grant.lock.task.clone());
        let liveness = if task.is_some() {
            Liveness::Off
        } else {
            super::liveness::at_start(&version.manifest, now.mono)
        };
        out.push(Effect::Launch {
            run: run.clone(),
            agent: name.clone(),
            digest: version.digest.clone(),
            grant,
        });
        let timeout_at = task.as_ref().map(|_| now.mono.plus(version.manifest.timeout_ms));
        let agent = self.agent_mut(now, name);
        agent.rest = Rest::Ready;
        if task.is_none() && agent.last_exit.is_some() {
            agent.restarts += 1;
        }
        agent.runs.push(run.clone());
        agent.since = now.wall;
        let holds = task.iter().cloned().collect();
        let role = task.map_or(Role::Service, Role::Handler);
        let fresh = Run::new(now, name.clone(), role);
        let record = Run { version: Some(version), liveness, timeout_at, holds, ..fresh };
        self.runs.insert(run, record);
    }

    pub(super) fn fresh_run(&mut self, now: Now) -> Name {
        let random = self.rng.u128(..);
        Name::of_run(now.wall, random)
    }

    /// A service's run is gone: decides whether and when the next one starts.
    pub(super) fn service_ended(
        &mut self,
        now: Now,
        name: &AgentName,
        run: &Run,
        ending: Ending,
        out: &mut Out,
    ) {
        let restart = run.version.as_ref().map_or(Restart::OnFailure, |version| version.manifest.restart);
        let current = self.agents.get(name).and_then(|agent| agent.accepted.clone());
        let same = match (&run.version, &current) {
            (Some(old), Some(new)) => old.digest == new.digest,
            (None, _) | (_, None) => false,
        };
        let agent = self.agent_mut(now, name);
        agent.since = now.wall;
        match (&run.cause, ending, restart) {
            (
                Cause::Replaced
                | Cause::Restarted
                | Cause::Unwanted(_)
                | Cause::Cancelled(_)
                | Cause::Drained
                | Cause::Survivor,
                ..,
            ) => {
                agent.rest = Rest::Ready;
            }
            // The file changed while it ended: the end was the old version's.
            (
                Cause::Own | Cause::Silent | Cause::Memory(_) | Cause::Timeout(_) | Cause::NotStarted(_),
                ..,
            ) if !same => {
                agent.rest = Rest::Ready;
            }
            (Cause::Busy, ..) => self.pause(now, name),
            (Cause::Own, Ending::Code(0), Restart::OnFailure) => {
                agent.rest = Rest::Finished;
                agent.finished = current.map(|version| version.digest.clone());
                out.push(Effect::Finished(name.clone(), agent.finished.clone()));
            }
            (Cause::Own, Ending::Code(0), Restart::Always) => self.ended_well(now, name),
            (Cause::Own, ending, Restart::Never) => {
                agent.rest = Rest::Over(format!("{ending}, and its manifest says restart = \"never\""));
            }
            (Cause::Silent | Cause::Memory(_) | Cause::Timeout(_), _, Restart::Never) => {
                let why = run.cause.words();
                agent.rest = Rest::Over(format!("{why}, and its manifest says restart = \"never\""));
            }
            (
                Cause::Own | Cause::Silent | Cause::Memory(_) | Cause::Timeout(_) | Cause::NotStarted(_),
                ..,
            ) => {
                self.failed(now, name, out);
            }
        }
    }

    /// Nothing the agent did kept a process from being made: it is tried again after a quiet time.
    pub(super) fn pause(&mut self, now: Now, name: &AgentName) {
        let until = now.mono.plus(QUIET_MS);
        self.agent_mut(now, name).rest = Rest::Backoff { until, next: now.wall_at(until) };
    }

    /// It ended well and is to be started again: no failure, but one that ends at once must not spin either.
    fn ended_well(&mut self, now: Now, name: &AgentName) {
        let jitter = self.rng.f64();
        let agent = self.agent_mut(now, name);
        agent.failures = agent.failures.saturating_add(1).min(FAILURES_TOLERATED);
        let bound = BACKOFF_MS[(agent.failures as usize - 1).min(BACKOFF_MS.len() - 1)];
        agent.rest_for(now, full_jitter(bound, jitter));
    }

    /// Counts a failure and sets when the agent is tried next.
    pub(super) fn failed(&mut self, now: Now, name: &AgentName, out: &mut Out) {
        let jitter = self.rng.f64();
        let agent = self.agent_mut(now, name);
        agent.failures = agent.failures.saturating_add(1);
        let failures = agent.failures;
        let wait = if failures < FAILURES_TOLERATED {
            full_jitter(BACKOFF_MS[failures as usize - 1], jitter)
        } else {
            let doublings = (failures - FAILURES_TOLERATED).min(16);
            (RARE_MS << doublings).min(RARE_MS_MAX)
        };
        let next = agent.rest_for(now, wait);
        let last = agent.last_exit.clone().unwrap_or_default();
        out.push(Effect::Note(Fact::Failing { agent: name.clone(), failures, next }));
        if failures >= FAILURES_TOLERATED {
            out.push(Effect::Alert(
                format!("failing-{name}"),
                format!("{name} failed {failures} times in a row ({last}); the next try is at {next}"),
            ));
        }
    }
}

fn due_at(pending: &Pending) -> Mono {
    match pending {
        Pending::Adopt(_, due) | Pending::Remove(due) => *due,
    }
}

/// A wait between nothing and `bound_ms`, for a `random` in 0..1 ("full jitter", as in the AWS
/// Architecture Blog's "Exponential Backoff And Jitter", 2015).
pub(super) fn full_jitter(bound_ms: u64, random: f64) -> u64 {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "bounds are far below 2^52 and the factor is within 0..1"
    )]
    let wait = (bound_ms as f64 * random) as u64;
    wait
}
