//! The whole as one model: what can happen next, and what must never be.

use stateright::{Model, Property};

use crate::agent::{Agent, Kind, Stand};
use crate::files::{Disk, Lock, Nonce, Nonces, Verdict};
use crate::supervisor::{At, Conclusion, Stage, Supervisor, Turn};

/// The protocol as it is, or with one thing done differently: each of these must be caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Variant {
    Protocol,
    /// An agent that finds a dead owner's lock unlinks it.
    UnlinkIfStale,
    /// It reads the lock once more before that.
    RereadThenUnlink,
    /// It renames the lock aside, looks what it got, and puts it back if that was another.
    RenameVerifyRestore,
    /// The supervisor removes the lock before the new token is written.
    BumpAfterUnlink,
    /// An outcome is accepted whatever claim it is of, if only its token is the task's.
    AnyNonce,
    /// A dead owner's task is given away before its outcome is looked for.
    VacateBeforeLooking,
    /// After a power cut agents are given work before outcomes are looked at.
    AgentsBeforeOutcomes,
    /// A lock that a power cut tore keeps the outcome of its claim from being accepted.
    TornLockRefuses,
    /// So does an old lock that a power cut brought back.
    VoidLockRefuses,
    /// Of two records that a crash left, only the open one is asked whether a claim is decided.
    OpenRecordDecides,
    /// Tokens are counted from what the records show, and not reserved.
    TokensForgotten,
    /// What an earlier supervisor renamed is taken for durable, unsynced.
    TrustUnsynced,
}

/// What is played.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) variant: Variant,
    pub(crate) agents: Vec<Kind>,
    /// How work may end.
    pub(crate) verdicts: Vec<Verdict>,
    /// How many agents may die, how often the supervisor, how often the power may fail.
    pub(crate) kills: u8,
    pub(crate) crashes: u8,
    pub(crate) cuts: u8,
    /// After a power cut agents may claim before the supervisor has looked: an operator who is quick.
    pub(crate) early: bool,
}

/// What must never be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Flaw {
    AcceptedTwice,
    StaleAccepted,
    TokenShared,
    OwnerRobbed,
    AcknowledgedLost,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct World {
    pub(crate) disk: Disk,
    pub(crate) agents: Vec<Agent>,
    pub(crate) supervisor: Option<Supervisor>,
    /// Agents are started by the supervisor: none claims before it has looked at what a power cut left.
    pub(crate) open_to_claims: bool,
    pub(crate) kills: u8,
    pub(crate) crashes: u8,
    pub(crate) cuts: u8,
    /// Claims that were given up while their owners may live.
    pub(crate) fenced: Nonces,
    /// Claims whose lock a power cut took or tore.
    pub(crate) lost: Nonces,
    /// Claims made while the outcome of a lost one, with the same token, was already decided on.
    pub(crate) late: Nonces,
    /// Claims may have been made before the supervisor looked at what a power cut left.
    pub(crate) claimed_early: bool,
    pub(crate) flaw: Option<Flaw>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    Agent(usize),
    Finish(usize, Verdict),
    Kill(usize),
    Supervisor(Turn),
    Write,
    Crash,
    Restart,
    PowerCut(usize),
}

impl World {
    pub(crate) fn flaw(&mut self, flaw: Flaw) {
        self.flaw.get_or_insert(flaw);
    }

    /// A claim whose lock was lost, and whose outcome is being decided on.
    fn deciding(&self) -> Option<Nonce> {
        let accepted = self.disk.ledger.last().filter(|it| Some(it.token) == self.disk.token());
        let it = self.supervisor.as_ref();
        let at = it.and_then(|it| match it.at {
            At::Judging(nonce, _) | At::Filing(Some(nonce), ..) => Some(nonce),
            _ => None,
        });
        let (ends, waits) = match it.map(|it| it.stage) {
            Some(Stage::Pending { ends, waits, .. }) => (ends, waits),
            _ => (None, None),
        };
        let all = [accepted.map(|it| it.nonce), at, ends, waits];
        all.into_iter().flatten().find(|nonce| self.lost.contains(*nonce))
    }

    /// An agent links its lock. If the outcome of a lost claim is being decided on just now, it comes too late.
    pub(crate) fn link_lock(&mut self, token: u8, nonce: Nonce) {
        if self.deciding().is_some() {
            self.late.insert(nonce);
        }
        self.put_lock(Some(Lock::Whole { token, nonce }));
    }

    fn power_cut(&mut self, choice: usize, rules: &Rules) {
        let holder = self.disk.lock.get().and_then(Lock::nonce);
        self.disk = self.disk.after_power_cut(choice);
        if let Some(holder) = holder.filter(|_| self.disk.lock.get().and_then(Lock::nonce) != holder) {
            self.lost.insert(holder);
        }
        self.cuts -= 1;
        self.lose_supervisor();
        self.open_to_claims = rules.early;
        self.claimed_early = rules.early;
        for agent in &mut self.agents {
            if agent.stand != Stand::Idle {
                agent.stand = Stand::Dead;
            }
        }
        if self.cuts == 0 {
            self.disk.sync(crate::files::Shelf::Open);
        }
    }

    /// Its memory is gone. A claim that it gave up still stands if no record says so.
    fn lose_supervisor(&mut self) {
        let (current, holder) = (self.disk.token(), self.disk.holder());
        for (nonce, outcome) in (0..).zip(&self.disk.outcomes) {
            let token = outcome.get().map(|outcome| outcome.token);
            if holder == Some(nonce) || token.is_some() && token == current {
                self.fenced.remove(nonce);
            }
        }
        // Agents run on. If it had decided for a lost claim, and that was not recorded, one of them may claim now,
        // in time: nothing tells the next supervisor that the outcome of the lost claim came first.
        if self.deciding().is_some() && !self.accepted(|nonce| self.lost.contains(nonce)) {
            self.late = Nonces::default();
            self.claimed_early = true;
        }
        self.supervisor = None;
    }

    fn faults(&self, actions: &mut Vec<Action>) {
        if self.kills > 0 {
            let alive = |agent: &Agent| agent.stand != Stand::Idle && !agent.is_gone();
            let alive = self.agents.iter().enumerate().filter(|(_, agent)| alive(agent));
            actions.extend(alive.map(|(agent, _)| Action::Kill(agent)));
        }
        if self.crashes > 0 && self.supervisor.is_some() {
            actions.push(Action::Crash);
        }
        if self.cuts > 0 && self.agents.iter().any(|agent| agent.stand != Stand::Idle) {
            actions.extend((0..self.disk.power_cuts()).map(Action::PowerCut));
        }
    }

    /// What goes on without anything going wrong.
    fn progress(&self, rules: &Rules, actions: &mut Vec<Action>) {
        for (number, agent) in self.agents.iter().enumerate() {
            if self.agent_goes_on(number) {
                actions.push(Action::Agent(number));
            }
            if agent.works_with().is_some() {
                actions.extend(rules.verdicts.iter().map(|verdict| Action::Finish(number, *verdict)));
            }
        }
        let mut turns = Vec::new();
        self.turns(&mut turns);
        actions.extend(turns.into_iter().map(Action::Supervisor));
        match &self.supervisor {
            None => actions.push(Action::Restart),
            Some(it) if it.writer.has_work() => actions.push(Action::Write),
            Some(_) => {}
        }
    }

    fn perform(&mut self, rules: &Rules, action: Action) {
        match action {
            Action::Agent(agent) => self.agent_step(rules, agent),
            Action::Finish(agent, verdict) => {
                if let Some(token) = self.agents[agent].works_with() {
                    self.agent_finishes(agent, token, verdict);
                }
            }
            Action::Kill(agent) => {
                self.kills -= 1;
                self.agents[agent].stand = Stand::Dead;
            }
            Action::Supervisor(turn) => self.take_turn(rules, turn),
            Action::Write => self.writer_step(rules),
            Action::Crash => {
                self.crashes -= 1;
                self.lose_supervisor();
            }
            Action::Restart => self.supervisor = Some(Supervisor::started()),
            Action::PowerCut(choice) => self.power_cut(choice, rules),
        }
    }

    fn holders(&self) -> usize {
        let token = self.disk.token();
        self.agents.iter().filter(|agent| token.is_some() && agent.works_with() == token).count()
    }

    /// Done with nothing left over, or to be had by the next who asks.
    fn is_settled(&self) -> bool {
        let clean = self.disk.lock.get().is_none()
            && self.disk.new.get().is_none()
            && self.disk.outcomes.iter().all(|outcome| outcome.get().is_none());
        let stage = self.supervisor.as_ref().map(|it| it.stage);
        let done = self.disk.done.get().is_some() && self.disk.open.get().is_none();
        let claimable = self.disk.done.get().is_none() && self.disk.open.get().is_some();
        clean && (done && stage == Some(Stage::Unknown) || claimable && stage == Some(Stage::Ready))
    }

    /// The supervisor died between the new token and the removal of the old lock.
    fn old_lock_outlived_its_token(&self) -> bool {
        let bears = |lock| if let Lock::Whole { token, .. } = lock { Some(token) } else { None };
        self.supervisor.is_none()
            && self.disk.lock.get().and_then(bears) < self.disk.token()
            && self.disk.lock.get().is_some()
    }

    fn accepted(&self, is: impl Fn(Nonce) -> bool) -> bool {
        self.disk.ledger.iter().any(|accepted| is(accepted.nonce))
    }

    fn said_before(&self) -> bool {
        let at = self.supervisor.as_ref().map(|it| it.at);
        matches!(at, Some(At::Filing(_, Conclusion::SaidBefore(_), _)))
    }

    fn zombie_refused(&self) -> bool {
        (0..).take(self.agents.len()).any(|it| self.fenced.contains(it) && self.disk.refused.contains(it))
    }
}

impl Model for Rules {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            disk: Disk::submitted(self.agents.len()),
            agents: self.agents.iter().map(|kind| Agent { kind: *kind, stand: Stand::Idle }).collect(),
            supervisor: None,
            open_to_claims: false,
            kills: self.kills,
            crashes: self.crashes,
            cuts: self.cuts,
            fenced: Nonces::default(),
            lost: Nonces::default(),
            late: Nonces::default(),
            claimed_early: false,
            flaw: None,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // One flaw is enough.
        if world.flaw.is_none() {
            world.faults(actions);
            world.progress(self, actions);
        }
    }

    fn next_state(&self, world: &World, action: Action) -> Option<World> {
        let mut next = world.clone();
        next.perform(self, action);
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing is accepted twice, nor after the task is done", |_, world: &World| {
                world.flaw != Some(Flaw::AcceptedTwice)
            }),
            Property::always("what is accepted is the current owner's", |_, world: &World| {
                world.flaw != Some(Flaw::StaleAccepted)
            }),
            Property::always("tokens rise", |_, world: &World| world.flaw != Some(Flaw::TokenShared)),
            Property::always("a live owner keeps its lock and its token", |_, world: &World| {
                world.flaw != Some(Flaw::OwnerRobbed)
            }),
            Property::always("no acknowledged outcome is dropped", |_, world: &World| {
                world.flaw != Some(Flaw::AcknowledgedLost)
            }),
            Property::always("one owner", |_, world: &World| world.holders() < 2),
            Property::always("what is quiet is settled", |rules: &Self, world: &World| {
                let quiet = world.supervisor.as_ref().is_some_and(Supervisor::is_idle) && {
                    let mut actions = Vec::new();
                    world.progress(rules, &mut actions);
                    actions.into_iter().all(|action| rules.next_state(world, action).is_none())
                };
                !quiet || world.flaw.is_some() || world.is_settled()
            }),
            Property::sometimes("the task gets done", |_, world: &World| {
                world.disk.done.get().is_some() && world.is_settled()
            }),
            Property::sometimes("a zombie is refused", |_, world: &World| world.zombie_refused()),
            Property::sometimes("an old lock outlives its token", |_, world: &World| {
                world.old_lock_outlived_its_token()
            }),
            Property::sometimes("what was accepted before a crash is carried out", |_, world: &World| {
                world.said_before()
            }),
            Property::sometimes("a claim whose lock was lost is accepted", |_, world: &World| {
                world.accepted(|nonce| world.lost.contains(nonce))
            }),
        ]
    }
}
