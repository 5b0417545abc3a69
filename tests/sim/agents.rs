//! Simulated agents: they do what agents do, well or badly, through the commands' own code.

mod ends;

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nightcrew::app::client::claim::Claim;
use nightcrew::app::client::finish::{Held, Output};
use nightcrew::app::client::submit::Payload;
use nightcrew::app::client::{Caller, Client};
use nightcrew::edge::processes::Launch;
use nightcrew::edge::store::Store;
use nightcrew::protocol::heartbeat::Beat;
use nightcrew::protocol::layout::LOCK_EXT;
use nightcrew::protocol::name::{AgentName, Kind, RunId, TaskId};
use nightcrew::protocol::process::{Ending, Identity};
use nightcrew::protocol::task::Verdict;
use nightcrew::protocol::update::Operation;
use nightcrew::protocol::variables::{ENV_HEARTBEAT, ENV_NONCE, ENV_OUTPUT, ENV_TASK, ENV_TOKEN};

use crate::cast;
use crate::disk::Handle;
use crate::kernel::{INIT, Life, Manners};
use crate::world::World;

pub(crate) use ends::Gate;

/// How an agent behaves in one run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Temper {
    Honest,
    /// Takes longer than it may.
    Slow,
    /// Stops doing anything, and perhaps goes on much later.
    Frozen,
    Failing,
    /// Dies in the midst of whatever it does.
    Crashing,
    /// Writes what it should not, where it should not.
    Rogue,
}

const TEMPERS: [Temper; 6] =
    [Temper::Honest, Temper::Slow, Temper::Frozen, Temper::Failing, Temper::Crashing, Temper::Rogue];

/// What a process does.
pub(crate) enum Program {
    /// Works on the task that it was started for.
    Handler { job: Job, temper: Temper, stage: u32 },
    /// Judges the result of a task.
    Gate(Gate),
    /// Claims tasks by itself, remembers things, beats.
    Worker { me: Me, temper: Temper, held: Option<Claim>, rounds: u32 },
    /// Claims a task from outside any run, and takes its time.
    Outsider { held: Option<Claim> },
    /// Only exists.
    Bystander,
}

/// Who a process of a run is.
#[derive(Clone)]
pub(crate) struct Me {
    agent: AgentName,
    run: RunId,
    heartbeat: PathBuf,
}

/// What a handler was given.
#[derive(Clone)]
pub(crate) struct Job {
    me: Me,
    held: Held,
    output: PathBuf,
}

/// What a process does next.
enum Next {
    Wait(u64),
    Exit(Ending),
}

fn variable<'a>(launch: &'a Launch, name: &str) -> Option<&'a str> {
    let found = launch.env.iter().find(|(key, _)| key == OsStr::new(name));
    found.and_then(|(_, value)| value.to_str())
}

/// Starts what an order names.
pub(crate) fn launch(world: &World, launch: &Launch) -> Identity {
    let heartbeat = PathBuf::from(variable(launch, ENV_HEARTBEAT).unwrap_or_default());
    let me = Me { agent: launch.agent.clone(), run: launch.run.clone(), heartbeat };
    let temper = temper(world, &launch.agent);
    let task = variable(launch, ENV_TASK).and_then(|task| task.parse::<TaskId>().ok());
    let mark = Some((launch.agent.clone(), launch.run.clone()));
    let is_gate = cast::is_gate(&world.layout, Path::new(&launch.argv[0]));
    let manners = if is_gate { Manners::Civil } else { manners(world, temper) };
    let handle = world.disk.process();
    let supervisor = world.kernel.borrow().supervisor.unwrap_or(INIT);
    let (program, granted) = match task {
        _ if is_gate => (ends::gate(world, launch), None),
        None => (Program::Worker { me, temper, held: None, rounds: 0 }, None),
        Some(task) => {
            let token = variable(launch, ENV_TOKEN).and_then(|token| token.parse().ok()).unwrap_or(0);
            let nonce = variable(launch, ENV_NONCE).unwrap_or_default().to_owned();
            let held = Held { task, token, nonce, agent: launch.agent.clone() };
            let output = PathBuf::from(variable(launch, ENV_OUTPUT).unwrap_or_default());
            let job = Job { me, held: held.clone(), output };
            (Program::Handler { job, temper, stage: 0 }, Some(held))
        }
    };
    let wake_in = world.below(50) as u64;
    let process = world.kernel.borrow_mut().spawn(supervisor, mark, manners, handle, program, wake_in);
    if let Some(held) = granted {
        world.oracle.borrow_mut().granted(world, &held, Some(&launch.run), &process);
    }
    process
}

/// The canary never does anything wrong, and once it is calm nobody does.
fn temper(world: &World, agent: &AgentName) -> Temper {
    if world.is_calm() || agent.as_str() == cast::CANARY || world.chance(world.options.honest) {
        return Temper::Honest;
    }
    TEMPERS[world.below(TEMPERS.len())]
}

fn manners(world: &World, temper: Temper) -> Manners {
    if temper == Temper::Honest || !world.chance(0.3) {
        Manners::Civil
    } else if world.chance(0.2) {
        Manners::Stuck(world.time.ms() + world.below(60_000) as u64)
    } else {
        Manners::Deaf
    }
}

/// Lets a process do its next thing.
pub(crate) fn act(world: &World, pid: u32) {
    let (mut program, handle, start) = {
        let mut kernel = world.kernel.borrow_mut();
        let Some(process) = kernel.procs.get_mut(&pid) else { return };
        let Some(program) = process.program.take() else { return };
        (program, process.handle.clone(), process.start)
    };
    let mut hands = Hands { world, handle, identity: world.kernel.borrow().identity(pid, start) };
    let next = match &mut program {
        Program::Handler { job, temper, stage } => hands.handle_task(&job.clone(), *temper, stage),
        Program::Gate(gate) => hands.judge(gate),
        Program::Worker { me, temper, held, rounds } => hands.work(&me.clone(), *temper, held, rounds),
        Program::Outsider { held } => hands.trespass(held),
        Program::Bystander => Next::Wait(3_600_000),
    };
    if let (Program::Handler { job, .. }, Next::Exit(ending)) = (&program, &next) {
        world.oracle.borrow_mut().handler_exits(&job.held, *ending);
    }
    let dead = hands.handle.is_dead();
    let mut kernel = world.kernel.borrow_mut();
    let Some(process) = kernel.procs.get_mut(&pid) else { return };
    if process.start != start || process.life != Life::Running {
        return;
    }
    match next {
        Next::Wait(ms) if !dead => {
            process.wake_at = world.time.ms() + ms;
            process.program = Some(program);
        }
        Next::Wait(_) => kernel.end(pid, Ending::Signal(9)),
        Next::Exit(ending) => kernel.end(pid, if dead { Ending::Signal(9) } else { ending }),
    }
}

/// A process at work.
struct Hands<'a> {
    world: &'a World,
    handle: Handle,
    identity: Identity,
}

impl Hands<'_> {
    fn client(&self, me: Option<&Me>) -> Client<Handle> {
        let caller =
            me.map_or(Caller::Operator, |me| Caller::Run { agent: me.agent.clone(), run: me.run.clone() });
        let random = fastrand::Rng::with_seed(self.world.random());
        Client::new(self.handle.clone(), self.world.layout.clone(), caller, self.identity.pid, random)
    }

    fn beat(&self, me: &Me) {
        let at = self.world.time.wall();
        let beat = Beat { at, progress: None, task: None, busy_for_ms: None, note: None };
        // An agent that cannot beat goes on without.
        let _ = self.client(Some(me)).beat(&me.heartbeat, &beat);
    }

    fn handle_task(&mut self, job: &Job, temper: Temper, stage: &mut u32) -> Next {
        let world = self.world;
        *stage += 1;
        if temper == Temper::Crashing && world.chance(0.5) {
            self.handle.kill_after(world.below(12) as u64);
        }
        match *stage {
            1 => {
                if world.chance(0.2) {
                    self.fork(&job.me, temper);
                }
                if temper == Temper::Rogue {
                    self.vandalize(&job.me, Some(&job.held));
                }
                self.beat(&job.me);
                self.pause(temper)
            }
            2 => {
                if temper == Temper::Rogue && world.chance(0.5) {
                    world.kernel.borrow_mut().procs.entry(self.identity.pid).and_modify(|p| p.bloated = true);
                }
                let result = result_of(&job.held);
                // Written as a script does: not synced, perhaps not whole.
                if let Ok(mut file) = self.handle.create_new(&job.output) {
                    let _ = self.handle.append(&mut file, result.as_bytes());
                }
                self.submit_within(&job.me, &job.held);
                if world.chance(0.7) {
                    let handed = self.finish(Some(&job.me), &job.held, self.verdict(temper));
                    return if handed { Next::Exit(Ending::Code(0)) } else { Next::Exit(Ending::Code(1)) };
                }
                Next::Wait(world.below(20) as u64)
            }
            _ => Next::Exit(match temper {
                Temper::Failing | Temper::Rogue => Ending::Code([1, 65, 69, 75, 66][world.below(5)]),
                Temper::Crashing => Ending::Signal(11),
                Temper::Honest | Temper::Slow | Temper::Frozen => Ending::Code(0),
            }),
        }
    }

    fn pause(&self, temper: Temper) -> Next {
        let world = self.world;
        Next::Wait(match temper {
            Temper::Slow => 5_000 + world.below(60_000) as u64,
            Temper::Frozen => 60_000 + world.below(7_200_000) as u64,
            // Some are done before anybody has synced their locks.
            Temper::Honest | Temper::Failing | Temper::Crashing | Temper::Rogue if world.chance(0.3) => 0,
            Temper::Honest | Temper::Failing | Temper::Crashing | Temper::Rogue => world.below(400) as u64,
        })
    }

    fn verdict(&self, temper: Temper) -> Verdict {
        match temper {
            Temper::Honest | Temper::Slow | Temper::Frozen | Temper::Crashing => Verdict::Done,
            Temper::Failing | Temper::Rogue => {
                [Verdict::Failed, Verdict::Retry, Verdict::Released, Verdict::Done][self.world.below(4)]
            }
        }
    }

    /// A child with the run's mark, in a session of its own, which outlives its parent.
    fn fork(&self, me: &Me, temper: Temper) {
        if self.world.is_calm() || !self.world.kernel.borrow().has_room() {
            return;
        }
        let manners = manners(self.world, temper);
        let mark = Some((me.agent.clone(), me.run.clone()));
        let handle = self.world.disk.process();
        let parent = self.identity.pid;
        self.world.kernel.borrow_mut().spawn(parent, mark, manners, handle, Program::Bystander, 3_600_000);
    }

    /// Hands in an outcome; true if it was taken.
    fn finish(&mut self, me: Option<&Me>, held: &Held, verdict: Verdict) -> bool {
        let result = result_of(held);
        self.world.oracle.borrow_mut().hand_in_begun(held, verdict);
        let output = (verdict == Verdict::Done).then_some(Output::Bytes(result.as_bytes()));
        let handed = self.client(me).finish(held, verdict, Some("simulated"), output);
        self.world.tell(|| format!("{verdict:?} of {held:?} is handed in: {handed:?}"));
        if handed.is_ok() {
            self.world.oracle.borrow_mut().handed_in(self.world, held, verdict);
            self.world.was_handed_in();
        }
        handed.is_ok()
    }

    fn work(&mut self, me: &Me, temper: Temper, held: &mut Option<Claim>, rounds: &mut u32) -> Next {
        let world = self.world;
        *rounds += 1;
        // Who did wrong does no more once it is calm, and hands back what it lost sight of.
        let temper = if world.is_calm() { Temper::Honest } else { temper };
        if world.is_calm() && held.is_none() {
            self.hand_back_the_forgotten(me);
        }
        if temper == Temper::Crashing && world.chance(0.2) {
            self.handle.kill_after(world.below(20) as u64);
        }
        if world.is_calm() || world.chance(0.6) {
            self.beat(me);
        }
        if temper == Temper::Rogue && !world.is_calm() && world.chance(0.3) {
            self.vandalize(me, None);
        }
        if let Some(claim) = held.take() {
            let verdict = self.verdict(temper);
            let claim: Held = claim.lock.into();
            // One that went on and forgot what it holds would hold it as long as it beats.
            let handed = self.finish(Some(me), &claim, verdict);
            return if handed { Next::Wait(world.below(200) as u64) } else { Next::Exit(Ending::Code(1)) };
        }
        if world.chance(0.4) && !world.is_calm() {
            self.remember(me);
        }
        *held = self.claim(Some(me));
        if world.chance(0.1) {
            self.fork(me, temper);
        }
        match (temper, held.is_some()) {
            (Temper::Failing, _) if world.chance(0.2) => Next::Exit(Ending::Code(1)),
            (_, true) => self.pause(temper),
            // Once it is calm, looking for work that is not there proves nothing more.
            (_, false) if world.is_calm() => Next::Wait(10_000 + world.below(20_000) as u64),
            (_, false) => Next::Wait(500 + world.below(10_000) as u64),
        }
    }

    /// Releases what a call claimed that failed after it had.
    fn hand_back_the_forgotten(&mut self, me: &Me) {
        for lock in self.client(Some(me)).notes().unwrap_or_default() {
            self.finish(Some(me), &lock.into(), Verdict::Released);
        }
    }

    fn claim(&mut self, me: Option<&Me>) -> Option<Claim> {
        let kinds: [Kind; 1] = [cast::CLAIMED.parse().expect("a name")];
        let claim = self.client(me).claim(&kinds, &self.identity, self.world.time.wall()).ok()??;
        let held: Held = claim.lock.clone().into();
        let run = me.map(|me| &me.run);
        self.world.oracle.borrow_mut().granted(self.world, &held, run, &self.identity);
        Some(claim)
    }

    fn remember(&mut self, me: &Me) {
        let (key, value) = self.world.oracle.borrow_mut().value_to_append(self.world.random());
        let payload = Payload::parse(format!("\"{value}\"").as_bytes()).expect("a string");
        let told = self.client(Some(me)).remember(Operation::Append, &key, Some(&payload));
        self.world.tell(|| format!("{} remembers {value}: {told:?}", me.agent));
        if told.is_ok() {
            self.world.oracle.borrow_mut().remembered(key, value);
        }
    }

    /// What a broken or hostile agent leaves in its own directories.
    fn vandalize(&self, me: &Me, own: Option<&Held>) {
        let world = self.world;
        let layout = &world.layout;
        let junk = |handle: &Handle, path: PathBuf| {
            let text = ["", "{", "null", "{\"v\":1}", "\u{0}\u{1b}[2J", "[[[[[[[["][world.below(6)];
            let _ = handle.write_new(&path, text.as_bytes(), false);
        };
        let n = world.below(1000);
        match world.below(6) {
            0 => junk(&self.handle, layout.outcomes_of(&me.agent).join(format!("x{n}.1.n.json"))),
            1 => junk(&self.handle, layout.queue(&me.agent).join(format!("{n}.json"))),
            2 => junk(&self.handle, layout.new_tasks().join(format!("junk{n}.json"))),
            3 => junk(&self.handle, layout.tasks().join(format!("ghost{n}.lock"))),
            // An outcome for a task of somebody else's, with the right token: it lacks the nonce.
            4 => self.forge(me),
            _ => {
                if let Some(held) = own {
                    let stale = Held { token: held.token.saturating_sub(1), ..held.clone() };
                    let _ = self.client(Some(me)).finish(&stale, Verdict::Done, None, None);
                }
            }
        }
    }

    fn forge(&self, me: &Me) {
        let names = self.world.disk.names(&self.world.layout.tasks());
        let locks: Vec<&String> = names.iter().filter(|name| is_lock(name)).collect();
        if locks.is_empty() {
            return;
        }
        let task = locks[self.world.below(locks.len())].trim_end_matches(".lock");
        let Ok(task) = task.parse::<TaskId>() else { return };
        let Some(token) = self.world.token_on_disk(&task) else { return };
        let forged =
            Held { task, token, nonce: format!("forged{}", self.world.below(9)), agent: me.agent.clone() };
        let _ = self.client(Some(me)).finish(&forged, Verdict::Done, None, None);
    }

    /// Claims, and comes back when it pleases: perhaps long after the claim was taken away.
    fn trespass(&mut self, held: &mut Option<Claim>) -> Next {
        let world = self.world;
        if let Some(claim) = held.take() {
            self.finish(None, &claim.lock.into(), Verdict::Done);
            return Next::Exit(Ending::Code(0));
        }
        *held = self.claim(None);
        match held {
            None => Next::Exit(Ending::Code(1)),
            Some(_) => Next::Wait(world.below(4) as u64 * 1_200_000 + world.below(10_000) as u64),
        }
    }
}

/// What an owner makes of a task: told from what any other owner makes.
pub(crate) fn result_of(held: &Held) -> String {
    format!("{} by {} with {}\n", held.task, held.nonce, held.token)
}

/// True for the name of a task's lock.
fn is_lock(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == LOCK_EXT)
}
