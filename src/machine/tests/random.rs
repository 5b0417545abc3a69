//! Whatever happens, in whatever order: what must always hold does.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::machine::state::{Course, RunState, Stage};
use crate::protocol::manifest::{Heartbeat, Restart};
use crate::protocol::request::{Ask, Request};

const AGENTS: [&str; 4] = ["a", "b", "h", "i"];

/// What happens next; numbers choose among what there is.
#[derive(Debug, Clone, Copy)]
enum Move {
    Offer(usize, u8),
    Gone(usize),
    Refused(usize),
    Halt(bool),
    Stop(usize, bool),
    Restart(usize),
    Submit(u8, u8),
    Lock { task: usize, run: usize, how: u8 },
    Outcome { task: usize, right: bool, status: u8 },
    Lost(usize),
    DispatchFailed(usize),
    SpawnFailed(usize, bool),
    Spawned(usize),
    Exited(usize, i32),
    TreeGone(usize),
    TreeStuck(usize),
    Beat(usize),
    Renewed(usize),
    Round(bool),
    Memory(usize),
    Answer(usize, bool),
    Looked(usize),
    Broken,
    Survivor(usize),
    StopAsked,
    Wait(u64),
}

fn moves() -> impl Strategy<Value = Move> {
    let n = || 0..8_usize;
    let at = || 0..AGENTS.len();
    prop_oneof![
        4 => (at(), 0..4_u8).prop_map(|(a, v)| Move::Offer(a, v)),
        1 => at().prop_map(Move::Gone),
        1 => at().prop_map(Move::Refused),
        1 => any::<bool>().prop_map(Move::Halt),
        1 => (at(), any::<bool>()).prop_map(|(a, on)| Move::Stop(a, on)),
        1 => at().prop_map(Move::Restart),
        6 => (0..6_u8, 0..3_u8).prop_map(|(id, kind)| Move::Submit(id, kind)),
        3 => (n(), n(), 0..6_u8).prop_map(|(task, run, how)| Move::Lock { task, run, how }),
        3 => (n(), any::<bool>(), 0..4_u8).prop_map(|(task, right, status)| Move::Outcome { task, right, status }),
        1 => n().prop_map(Move::Lost),
        1 => n().prop_map(Move::DispatchFailed),
        1 => (n(), any::<bool>()).prop_map(|(run, busy)| Move::SpawnFailed(run, busy)),
        8 => n().prop_map(Move::Spawned),
        5 => (n(), prop_oneof![Just(0), Just(1), Just(65), Just(75)]).prop_map(|(run, code)| Move::Exited(run, code)),
        6 => n().prop_map(Move::TreeGone),
        1 => n().prop_map(Move::TreeStuck),
        2 => n().prop_map(Move::Beat),
        1 => n().prop_map(Move::Renewed),
        3 => any::<bool>().prop_map(Move::Round),
        1 => n().prop_map(Move::Memory),
        10 => (n(), prop::bool::weighted(0.9)).prop_map(|(ticket, well)| Move::Answer(ticket, well)),
        6 => n().prop_map(Move::Looked),
        1 => prop::bool::weighted(0.05).prop_map(|broken| if broken { Move::Broken } else { Move::Wait(0) }),
        1 => at().prop_map(Move::Survivor),
        1 => prop::bool::weighted(0.2).prop_map(|stop| if stop { Move::StopAsked } else { Move::Wait(1) }),
        8 => prop_oneof![0..3_000_u64, 0..2_000_000_u64].prop_map(Move::Wait),
    ]
}

fn manifest(agent: usize, variant: u8) -> Manifest {
    let base = if agent < 2 { service() } else { handler(["k0", "k1"][agent - 2]) };
    match variant {
        0 => base,
        1 => Manifest { heartbeat: Heartbeat::Every(1_000), concurrency: 3, ..base },
        2 => Manifest { restart: Restart::Always, max_rss_bytes: Some(1), stop_grace_ms: 0, ..base },
        _ => Manifest { enabled: false, ..base },
    }
}

/// What is true of the world, and what was seen of the machine.
struct World {
    s: Story,
    /// The highest token that was reserved, and that of each task.
    reserved: u64,
    tokens: BTreeMap<TaskId, u64>,
    given_out: BTreeSet<u64>,
    exits: usize,
}

impl World {
    fn new(until_idle: bool, seed: u64) -> Self {
        let s = Story::with(Setup { until_idle, seed, ..setup() });
        Self { s, reserved: 0, tokens: BTreeMap::new(), given_out: BTreeSet::new(), exits: 0 }
    }

    fn run(&self, n: usize, fits: impl Fn(&RunState) -> bool) -> Option<RunId> {
        let runs: Vec<_> = self.s.state.runs.iter().filter(|(_, run)| fits(&run.state)).collect();
        (!runs.is_empty()).then(|| runs[n % runs.len()].0.clone())
    }

    fn task(&self, n: usize) -> Option<TaskId> {
        let tasks: Vec<_> = self.s.state.tasks.keys().collect();
        (!tasks.is_empty()).then(|| tasks[n % tasks.len()].clone())
    }

    fn lock(&self, task: &TaskId, run: Option<RunId>, how: u8) -> Result<Lock, String> {
        let token = self.s.state.tasks[task].token;
        let agent = run.as_ref().map_or_else(|| name("operator"), |run| self.s.state.runs[run].agent.clone());
        let owner = match how {
            0 => return Err("garbage".into()),
            1 => None,
            2 => Some(Identity { boot: "before".into(), ..identity(1) }),
            3 => Some(Identity { ns: NS + 1, ..identity(1) }),
            _ => Some(identity(1)),
        };
        let nonce = format!("c{token}");
        let token = if how == 5 { token + 1 } else { token };
        Ok(Lock { v: 1, task: task.clone(), token, nonce, agent, run, owner, at: Wall(0) })
    }

    fn outcome(&self, task: &TaskId, right: bool, status: u8) -> HandedIn {
        let known = &self.s.state.tasks[task];
        let (agent, nonce) = match &known.stage {
            Stage::Held(claim) if right => (claim.agent.clone(), claim.nonce.clone()),
            _ => (name("a"), "guess".to_owned()),
        };
        let status = [Verdict::Done, Verdict::Failed, Verdict::Retry, Verdict::Released][usize::from(status)];
        let outcome = Outcome::new(task.clone(), known.token, nonce, status, None);
        HandedIn { agent, outcome, decided: false, words: String::new() }
    }

    /// The event of a move, where it fits what is.
    #[expect(clippy::too_many_lines, reason = "one arm a move, none of which decides anything")]
    fn event(&self, step: Move) -> Option<Event> {
        let live = |state: &RunState| !matches!(state, RunState::Starting | RunState::Ending(_));
        let starting = |state: &RunState| *state == RunState::Starting;
        Some(match step {
            Move::Offer(a, v) => Event::Offered(name(AGENTS[a]), version(&format!("{v}"), manifest(a, v))),
            Move::Gone(a) => Event::AgentGone(name(AGENTS[a])),
            Move::Refused(a) => {
                let refusal = crate::protocol::status::Refusal {
                    file: "f".into(),
                    reason: "r".into(),
                    remedy: "m".into(),
                };
                Event::AgentRefused(name(AGENTS[a]), refusal)
            }
            Move::Halt(on) => Event::HaltSeen(on.then(|| "x".into())),
            Move::Stop(a, on) => {
                Event::StoppedSeen(on.then(|| (name(AGENTS[a]), "x".into())).into_iter().collect())
            }
            Move::Restart(a) => {
                let ask = Ask::Restart { agents: vec![name(AGENTS[a])] };
                Event::Asked(Request { v: 1, id: name("q"), ask })
            }
            Move::Submit(id, kind) => {
                Event::Submitted(Story::submission(&format!("t{id}"), &format!("k{kind}")))
            }
            Move::Lock { task, run, how } => {
                let task = self.task(task)?;
                let lock = self.lock(&task, self.run(run, live), how);
                Event::LockSeen(task, lock)
            }
            Move::Outcome { task, right, status } => {
                Event::OutcomeSeen(self.outcome(&self.task(task)?, right, status))
            }
            Move::Lost(task) => Event::TaskLost(self.task(task)?, "gone".into()),
            Move::DispatchFailed(n) => {
                let run = self.run(n, starting)?;
                self.s.state.runs[&run].task()?;
                Event::DispatchFailed(run, "no".into())
            }
            Move::SpawnFailed(n, busy) => {
                Event::SpawnFailed { run: self.run(n, starting)?, error: "no".into(), busy }
            }
            Move::Spawned(n) => Event::Spawned(self.run(n, starting)?, identity(1)),
            Move::Exited(n, code) => Event::Exited(self.run(n, live)?, Ending::Code(code)),
            Move::TreeGone(n) => {
                let run = self.run(n, |state| matches!(state, RunState::Ending(_) | RunState::Stuck(_)))?;
                Event::TreeGone(run, Vec::new(), String::new())
            }
            Move::TreeStuck(n) => {
                Event::TreeStuck(self.run(n, |state| matches!(state, RunState::Ending(_)))?, Vec::new())
            }
            Move::Beat(n) => Event::Beat(self.run(n, live)?),
            Move::Renewed(n) => Event::Renewed(self.task(n)?),
            Move::Round(alive) => Event::Round(alive),
            Move::Memory(n) => Event::Memory { run: self.run(n, live)?, bytes: 2, exact: true },
            Move::Answer(n, well) => {
                let tickets: Vec<u64> = self.s.state.tickets.keys().copied().collect();
                let ticket = *tickets.get(n % tickets.len().max(1))?;
                if well { Event::Stored(ticket) } else { Event::NotStored(ticket, "no".into()) }
            }
            Move::Looked(n) => {
                let waits = |stage: &Stage| matches!(stage, Stage::Held(claim) if claim.fate.is_some());
                let waiting: Vec<_> = self
                    .s
                    .state
                    .tasks
                    .iter()
                    .filter(|(_, task)| waits(&task.stage))
                    .map(|(id, _)| id)
                    .collect();
                Event::OutcomesLooked((*waiting.get(n % waiting.len().max(1))?).clone())
            }
            Move::Broken => Event::StoreBroken("EIO".into()),
            Move::Survivor(a) => {
                let id = format!("old{}-{a}-{}", self.s.at, self.s.state.runs.len());
                Event::SurvivorFound(name(&id), name(AGENTS[a]), identity(1))
            }
            Move::StopAsked => Event::StopAsked("TERM".into()),
            Move::Wait(_) => return None,
        })
    }

    fn act(&mut self, step: Move) {
        self.s.news.clear();
        if let Move::Wait(ms) = step {
            self.s.wait(ms);
        } else if let Some(event) = self.event(step) {
            self.s.tell(event);
        }
        self.check_news();
        self.check_state();
    }

    fn check_news(&mut self) {
        for effect in &self.s.news {
            match effect {
                Effect::ReserveTokens(upto) => {
                    assert!(*upto > self.reserved);
                    self.reserved = *upto;
                }
                Effect::Admit { task, token, .. } => {
                    assert!(*token <= self.reserved && self.given_out.insert(*token), "a token twice");
                    self.tokens.insert(task.clone(), *token);
                }
                Effect::Record(_, change) => {
                    let last = self.tokens.get_mut(&change.task).expect("admitted");
                    let stands = change.phase == Phase::Done || change.settled.is_none();
                    assert!(if stands { change.token == *last } else { change.token > *last }, "{change:?}");
                    assert!(stands || self.given_out.insert(change.token), "a token twice");
                    assert!(change.token <= self.reserved, "not reserved before");
                    *last = change.token;
                }
                Effect::Exit => self.exits += 1,
                _ => {}
            }
        }
    }

    fn check_state(&self) {
        let state = &self.s.state;
        for (id, task) in &state.tasks {
            let listed = self.s.ready(task.kind.as_str()).contains(id);
            assert_eq!(listed, matches!(task.stage, Stage::Ready), "{id} {task:?}");
            let holders: Vec<_> = state.runs.iter().filter(|(_, run)| run.holds.contains(id)).collect();
            assert!(holders.len() <= 1, "two hold {id}");
            if let (Some((run, _)), Stage::Held(claim)) = (holders.first(), &task.stage) {
                assert_eq!(claim.owner, state::Owner::Run((*run).clone()));
            } else {
                assert!(holders.is_empty(), "{id} is held by a run and is {task:?}");
            }
        }
        let listed: usize = state.ready.values().map(BTreeSet::len).sum();
        assert_eq!(listed, state.tasks.values().filter(|task| matches!(task.stage, Stage::Ready)).count());
        for (name, agent) in &state.agents {
            let services = agent.runs.iter().filter(|run| state.runs[*run].is_service());
            let started = services.filter(|run| state.runs[*run].version.is_some()).count();
            assert!(started <= 1, "two runs of the service {name}");
            state.agent_status(name).unwrap();
        }
        assert!(state.runs.values().all(|run| state.agents.contains_key(&run.agent)));
        assert!(self.exits <= 1);
        assert_eq!(self.exits == 1, state.course == Course::Over);
    }

    /// Everything is told to end, and whatever the machine asks for is done.
    fn ends(&mut self) {
        self.act(Move::StopAsked);
        for _ in 0..200 {
            if self.exits > 0 {
                return;
            }
            for step in [
                Move::Wait(10_000),
                Move::Spawned(0),
                Move::Exited(0, 0),
                Move::TreeGone(0),
                Move::Looked(0),
                Move::Answer(0, true),
            ] {
                if self.exits == 0 {
                    self.act(step);
                }
            }
        }
        panic!("it does not end: {:?}", self.s.state);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_must_always_hold_does(
        until_idle in any::<bool>(),
        seed in any::<u64>(),
        story in prop::collection::vec(moves(), 1..120),
    ) {
        let mut world = World::new(until_idle, seed);
        if until_idle {
            world.s.tell(Event::MemoryQueue { empty: true });
        }
        for step in story {
            if world.exits > 0 {
                break;
            }
            world.act(step);
        }
        if world.exits == 0 {
            world.ends();
        }
    }
}
