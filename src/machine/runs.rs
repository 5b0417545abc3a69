//! Runs: from the order to start a process to the proof that nothing of it is left.

use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, RunId};
use crate::protocol::process::{Ending, Identity};
use crate::protocol::time::{Mono, Now, show_duration};

use super::agents::HEALTHY_MS;
use super::conclusion::concluded;
use super::state::{Cause, Conclusion, Owner, Role, Run, RunState, State};
use super::{Effect, Out};

/// What a survivor of an earlier supervisor gets, whose manifest we may not know.
const SURVIVOR_GRACE_MS: u64 = 10_000;
const SIGTERM: i32 = 15;

impl Cause {
    pub(super) fn words(&self) -> String {
        match self {
            Self::Own => "by itself".into(),
            Self::Replaced => "its file changed".into(),
            Self::Restarted => "an operator asked for a restart".into(),
            Self::Cancelled(why) => format!("its task was cancelled: {why}"),
            Self::Unwanted(why) | Self::NotStarted(why) | Self::Memory(why) | Self::Timeout(why) => {
                why.clone()
            }
            Self::Drained => "the supervisor ends".into(),
            Self::Busy => "its file was being written".into(),
            Self::Silent => "it stayed silent after it was isolated".into(),
            Self::Survivor => "an earlier supervisor had started it".into(),
        }
    }
}

impl State {
    /// A process that an earlier supervisor left behind is stopped; its agent starts anew after that.
    pub(super) fn survivor_found(
        &mut self,
        now: Now,
        run: RunId,
        agent: AgentName,
        root: Identity,
        out: &mut Out,
    ) {
        out.push(Effect::TakeOver(run.clone(), root.clone()));
        out.push(Effect::Signal(run.clone(), SIGTERM));
        self.agent_mut(now, &agent).runs.push(run.clone());
        let kill_at = now.mono.plus(SURVIVOR_GRACE_MS);
        let state = RunState::Stopping { kill_at };
        let fresh = Run::new(now, agent, Role::Survivor);
        let record = Run { process: Some(root), state, cause: Cause::Survivor, ..fresh };
        self.runs.insert(run, record);
    }

    pub(super) fn spawned(&mut self, now: Now, id: &RunId, process: Identity, out: &mut Out) {
        let Some(run) = self.runs.get_mut(id) else { return };
        run.process = Some(process.clone());
        run.started = now;
        match run.state {
            RunState::Starting => run.state = RunState::Running,
            RunState::Running
            | RunState::Isolated { .. }
            | RunState::Stopping { .. }
            | RunState::Killing
            | RunState::Ending(_)
            | RunState::Stuck(_) => {}
        }
        let (agent, task) = (run.agent.clone(), run.task().cloned());
        self.agent_mut(now, &agent).held_up = None;
        if let Some(task) = &task {
            self.name_owner(task, id, &process, out);
            // Of a handler only starts that fail count, and this one did not.
            self.agent_mut(now, &agent).failures = 0;
        }
        self.touch(&agent);
        out.push(Effect::Note(Fact::Started { agent, run: id.clone(), process, task }));
        out.push(Effect::Watch);
    }

    pub(super) fn spawn_failed(&mut self, now: Now, id: &RunId, error: &str, busy: bool, out: &mut Out) {
        let Some(run) = self.runs.get_mut(id) else { return };
        let name = run.agent.clone();
        // A stop that arrived meanwhile keeps its own cause.
        if run.cause == Cause::Own {
            run.cause = if busy { Cause::Busy } else { Cause::NotStarted(error.into()) };
        }
        let agent = self.agent_mut(now, &name);
        let held_up = busy.then(|| error.to_owned());
        // A file may be held open for days, and is tried every few seconds: that is told once.
        if !busy || agent.held_up != held_up {
            let (agent, run, error) = (name.clone(), id.clone(), error.to_owned());
            out.push(Effect::Note(Fact::StartFailed { agent, run, error }));
        }
        if !busy {
            agent.last_exit = Some(format!("not started: {error}"));
        }
        agent.held_up = held_up;
        let why = format!("{name} could not be started: {error}");
        self.run_is_gone(now, id, Ending::Unseen, Some(&Conclusion::Returned { why, died: false }), "", out);
    }

    /// The lock or payload of a handler's run could not be laid out: no process was made.
    pub(super) fn dispatch_failed(&mut self, now: Now, id: &RunId, why: &str, out: &mut Out) {
        let Some(run) = self.runs.remove(id) else { return };
        let error = why.to_owned();
        out.push(Effect::Note(Fact::StartFailed { agent: run.agent.clone(), run: id.clone(), error }));
        out.push(Effect::CloseRun(id.clone(), run.agent.clone()));
        for task in &run.holds {
            self.hand_back(now, task, id, out);
        }
        let agent = self.agent_mut(now, &run.agent);
        agent.runs.retain(|other| other != id);
        agent.held_up = Some(why.to_owned());
        self.pause(now, &run.agent);
        self.forget_if_gone(&run.agent, out);
    }

    /// Tells a run to end: its stop signal, and after its grace its whole tree is killed.
    pub(super) fn stop(&mut self, now: Now, id: &RunId, cause: Cause, out: &mut Out) {
        let Some(run) = self.runs.get_mut(id) else { return };
        if !run.is_active() {
            return;
        }
        let (signal, grace) = run
            .version
            .as_ref()
            .map_or((SIGTERM, SURVIVOR_GRACE_MS), |v| (v.manifest.stop_signal, v.manifest.stop_grace_ms));
        run.state = RunState::Stopping { kill_at: now.mono.plus(grace) };
        let why = cause.words();
        run.cause = cause;
        let agent = run.agent.clone();
        self.touch(&agent);
        out.push(Effect::Note(Fact::Killed { agent, run: id.clone(), how: format!("signal {signal}"), why }));
        out.push(Effect::Signal(id.clone(), signal));
    }

    /// Kills a run's whole tree at once.
    pub(super) fn kill(&mut self, id: &RunId, cause: Option<Cause>, out: &mut Out) {
        let Some(run) = self.runs.get_mut(id) else { return };
        match run.state {
            RunState::Killing | RunState::Ending(_) | RunState::Stuck(_) => return,
            RunState::Starting
            | RunState::Running
            | RunState::Isolated { .. }
            | RunState::Stopping { .. } => {}
        }
        run.state = RunState::Killing;
        let why = match cause {
            Some(cause) => {
                run.cause = cause;
                run.cause.words()
            }
            None => format!("{}; its grace is over", run.cause.words()),
        };
        let agent = run.agent.clone();
        self.touch(&agent);
        out.push(Effect::Note(Fact::Killed { agent, run: id.clone(), how: "whole tree".into(), why }));
        out.push(Effect::KillTree(id.clone()));
    }

    pub(super) fn exited(&mut self, now: Now, id: &RunId, ending: Ending, out: &mut Out) {
        let Some(run) = self.runs.get_mut(id) else {
            self.outside_owner_gone(id, out);
            return;
        };
        // Where its tree is being killed already, that goes on by itself; and what a process of our own leaves
        // behind is killed unasked. What an earlier supervisor started is not.
        let (state, ask) = match run.state {
            RunState::Killing => (RunState::Ending(ending), false),
            RunState::Stuck(_) => (RunState::Stuck(ending), false),
            RunState::Starting
            | RunState::Running
            | RunState::Isolated { .. }
            | RunState::Stopping { .. }
            | RunState::Ending(_) => {
                let asked = run.is_survivor() && (!mutant!(RemnantsLeft) || run.cause == Cause::Survivor);
                (RunState::Ending(ending), asked)
            }
        };
        run.state = state;
        let lived_ms = now.mono.since(run.started.mono);
        let (name, why) = (run.agent.clone(), run.cause.words());
        out.push(Effect::Note(Fact::Exited { agent: name.clone(), run: id.clone(), ending, lived_ms, why }));
        if ask {
            out.push(Effect::KillTree(id.clone()));
        }
        out.push(Effect::Watch);
        let agent = self.agent_mut(now, &name);
        agent.last_exit = Some(format!("{ending} after {} at {}", show_duration(lived_ms), now.wall));
        if lived_ms >= HEALTHY_MS {
            agent.failures = 0;
        }
    }

    pub(super) fn tree_gone(
        &mut self,
        now: Now,
        id: &RunId,
        killed: Vec<String>,
        words: &str,
        out: &mut Out,
    ) {
        let Some(run) = self.runs.get(id) else { return };
        let ending = run.state.ending();
        if !killed.is_empty() {
            let (agent, run) = (run.agent.clone(), id.clone());
            out.push(Effect::Note(Fact::RemnantsKilled { agent, run, processes: killed }));
        }
        self.run_is_gone(now, id, ending, None, words, out);
    }

    pub(super) fn tree_stuck(&mut self, id: &RunId, left: Vec<String>, out: &mut Out) {
        let Some(run) = self.runs.get_mut(id) else { return };
        run.state = RunState::Stuck(run.state.ending());
        let agent = run.agent.clone();
        let text =
            format!("processes of {agent} do not die: {}; what it holds stays withheld", left.join(", "));
        out.push(Effect::Alert(format!("unkillable-{agent}"), text));
        out.push(Effect::Note(Fact::Unkillable { agent: agent.clone(), run: id.clone(), processes: left }));
        self.touch(&agent);
    }

    /// Nothing of the run is left: its tasks and its agent go on without it.
    fn run_is_gone(
        &mut self,
        now: Now,
        id: &RunId,
        ending: Ending,
        fate: Option<&Conclusion>,
        words: &str,
        out: &mut Out,
    ) {
        let Some(run) = self.runs.remove(id) else { return };
        let name = run.agent.clone();
        let agent = self.agent_mut(now, &name);
        agent.runs.retain(|other| other != id);
        out.push(Effect::CloseRun(id.clone(), name.clone()));
        out.push(Effect::Watch);
        for task in &run.holds {
            let fate = match (fate, run.task() == Some(task)) {
                (Some(fate), _) => (*fate).clone(),
                (None, true) => concluded(&run, ending),
                // Whoever was told to end is not to blame for the tasks that it claimed by itself.
                (None, false) => Conclusion::Returned {
                    why: format!("its owner is gone: {ending}"),
                    died: matches!(
                        run.cause,
                        Cause::Own | Cause::Silent | Cause::Memory(_) | Cause::Survivor
                    ),
                },
            };
            if let Some(claim) = self.claim_mut(task) {
                words.clone_into(&mut claim.words);
                claim.peak_memory = run.peak_memory;
            }
            self.owner_gone(task, &Owner::Run(id.clone()), fate, out);
        }
        match (&run.role, &run.cause) {
            (Role::Service | Role::Survivor, _) => self.service_ended(now, &name, &run, ending, out),
            (Role::Gate(task), _) => self.judged(now, task, &run, ending, words, out),
            (Role::Handler(_), Cause::NotStarted(_)) => self.failed(now, &name, out),
            (Role::Handler(_), Cause::Busy) => self.pause(now, &name),
            (
                Role::Handler(_),
                Cause::Own
                | Cause::Replaced
                | Cause::Restarted
                | Cause::Unwanted(_)
                | Cause::Cancelled(_)
                | Cause::Drained
                | Cause::Silent
                | Cause::Memory(_)
                | Cause::Timeout(_)
                | Cause::Survivor,
            ) => {}
        }
        self.forget_if_gone(&name, out);
    }

    /// Whether what a run printed last is to be kept, where its tree is gone: of gates, and of tries that failed.
    #[must_use]
    pub fn wants_words(&self, run: &RunId) -> bool {
        self.runs.get(run).is_some_and(|run| match run.role {
            Role::Gate(_) => true,
            Role::Handler(_) => run.cause != Cause::Own || run.state.ending() != Ending::Code(0),
            Role::Service | Role::Survivor => false,
        })
    }

    /// Acts on graces, timeouts and healthy minutes that are over.
    pub(super) fn run_deadlines(&mut self, now: Now, out: &mut Out) {
        let mut kills = Vec::new();
        let mut timeouts = Vec::new();
        let mut healthy = Vec::new();
        for (id, run) in &self.runs {
            match run.state {
                RunState::Stopping { kill_at } if kill_at <= now.mono => kills.push(id.clone()),
                RunState::Running | RunState::Isolated { .. } => {
                    if run.timeout_at.is_some_and(|at| at <= now.mono) {
                        timeouts.push((id.clone(), now.mono.since(run.started.mono)));
                    }
                    if now.mono.since(run.started.mono) >= HEALTHY_MS {
                        healthy.push(run.agent.clone());
                    }
                }
                RunState::Starting
                | RunState::Stopping { .. }
                | RunState::Killing
                | RunState::Ending(_)
                | RunState::Stuck(_) => {}
            }
        }
        for id in kills {
            self.kill(&id, None, out);
        }
        for (id, after) in timeouts {
            let why = format!("it took longer than its timeout: {}", show_duration(after));
            self.stop(now, &id, Cause::Timeout(why), out);
        }
        for name in healthy {
            if let Some(agent) = self.agents.get_mut(&name)
                && agent.failures > 0
            {
                agent.failures = 0;
                self.touch(&name);
            }
        }
    }

    pub(super) fn next_run_deadline(&self) -> Option<Mono> {
        let deadline = |run: &Run| match run.state {
            RunState::Stopping { kill_at } => Some(kill_at),
            RunState::Running | RunState::Isolated { .. } => {
                let failed = self.agents.get(&run.agent).is_some_and(|agent| agent.failures > 0);
                let healthy = failed.then(|| run.started.mono.plus(HEALTHY_MS));
                [run.timeout_at, healthy].into_iter().flatten().min()
            }
            RunState::Starting | RunState::Killing | RunState::Ending(_) | RunState::Stuck(_) => None,
        };
        self.runs.values().filter_map(deadline).min()
    }
}
