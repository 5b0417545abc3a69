//! The machine's rules, each told as a short story: what happens, and what is to be done then.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one thing among many")]

mod bounds;
mod claims;
mod control;
mod gates;
mod jobs;
mod liveness;
mod random;
mod services;
mod stirred;
mod tasks;
mod waits;

use std::sync::Arc;

use super::effect::{Grant, RecordChange};
use super::event::{HandedIn, Submission, Version};
use super::timetable::Timetable;
use super::*;
use crate::protocol::ledger::Fact;
use crate::protocol::manifest::Manifest;
use crate::protocol::name::{Name, RunId, TaskId};
use crate::protocol::process::{Ending, Identity};
use crate::protocol::request::{Ask, Request};
use crate::protocol::status::{AgentStatus, Standing};
use crate::protocol::task::{Lock, Outcome, Phase, Verdict, Wishes};
use crate::protocol::time::Wall;

const BOOT: &str = "boot";
const NS: u64 = 7;
/// A million milliseconds later it is 2023-11-14T22:30:00Z.
const EPOCH: i64 = 1_700_000_000_000;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn identity(pid: u32) -> Identity {
    Identity { pid, start: 1, boot: BOOT.into(), ns: NS }
}

fn setup() -> Setup {
    Setup { boot: BOOT.into(), ns: NS, tasks_at_once: 4, token_floor: 0, until_idle: false, seed: 1 }
}

fn version(digest: &str, manifest: Manifest) -> Arc<Version> {
    let clock = manifest.triggers.clock.clone();
    let table = (!clock.is_empty()).then(|| Timetable::new(clock, jiff::tz::TimeZone::UTC));
    Arc::new(Version { file: "agents/x".into(), digest: digest.into(), manifest, table })
}

fn service() -> Manifest {
    Manifest::default()
}

fn handler(kind: &str) -> Manifest {
    Manifest { handles: vec![name(kind)], ..Manifest::default() }
}

/// A machine, its time, and what it wanted done.
struct Story {
    state: State,
    at: u64,
    /// What the wall clock showed when that was nothing.
    epoch: i64,
    /// What the last call brought about.
    news: Vec<Effect>,
    pids: u32,
}

impl Story {
    fn new() -> Self {
        Self::with(setup())
    }

    fn with(setup: Setup) -> Self {
        let mut story =
            Self { state: State::new(setup), at: 1_000_000, epoch: EPOCH, news: Vec::new(), pids: 1 };
        story.tell(Event::AgentsLooked).tell(Event::Tick);
        story
    }

    /// One that has looked at nothing yet.
    fn unbegun() -> Self {
        Self { state: State::new(setup()), ..Self::new() }
    }

    fn now(&self) -> Now {
        Now { mono: Mono(self.at), wall: Wall(self.epoch + i64::try_from(self.at).unwrap()) }
    }

    fn tell(&mut self, event: Event) -> &mut Self {
        self.news = self.state.step(self.now(), event);
        self
    }

    /// Lets time pass, stepping whenever the machine wants to; fails if that brings it nowhere.
    fn wait(&mut self, ms: u64) -> &mut Self {
        let until = self.at + ms;
        let mut news = Vec::new();
        let mut turns = 0;
        while let Some(Mono(due)) = self.state.next_deadline().filter(|due| due.0 <= until) {
            turns = if due > self.at { 0 } else { turns + 1 };
            assert!(turns < 50, "the machine spins: it is due at {due} and never done");
            self.at = self.at.max(due);
            news.extend(self.state.step(self.now(), Event::Tick));
        }
        self.at = until;
        news.extend(self.state.step(self.now(), Event::Tick));
        self.news = news;
        self
    }

    fn offer(&mut self, agent: &str, digest: &str, manifest: Manifest) -> &mut Self {
        self.tell(Event::Offered(name(agent), version(digest, manifest)))
    }

    fn launches(&self) -> Vec<(RunId, String, Option<Grant>)> {
        let launch = |effect: &Effect| match effect {
            Effect::Launch { run, digest, grant, .. } => {
                Some((run.clone(), digest.clone(), grant.as_deref().cloned()))
            }
            _ => None,
        };
        self.news.iter().filter_map(launch).collect()
    }

    /// The one run that was just launched, and is up now.
    fn up(&mut self) -> RunId {
        let launches = self.launches();
        let [(run, ..)] = &launches[..] else { panic!("one launch expected: {:?}", self.news) };
        self.pids += 1;
        let process = identity(self.pids);
        self.tell(Event::Spawned(run.clone(), process));
        run.clone()
    }

    fn service_up(&mut self, agent: &str, manifest: Manifest) -> RunId {
        self.offer(agent, "1", manifest).up()
    }

    /// The root ends and nothing of its tree is left.
    fn ends(&mut self, run: &RunId, ending: Ending) -> &mut Self {
        self.tell(Event::Exited(run.clone(), ending));
        let first = std::mem::take(&mut self.news);
        self.tell(Event::TreeGone(run.clone(), Vec::new(), String::new()));
        self.news.splice(0..0, first);
        self
    }

    fn fails(&mut self, run: &RunId) -> &mut Self {
        self.ends(run, Ending::Code(1))
    }

    /// Answers every ticket that is open.
    fn stored(&mut self) -> &mut Self {
        let mut news = Vec::new();
        for ticket in self.state.tickets.keys().copied().collect::<Vec<_>>() {
            news.extend(self.state.step(self.now(), Event::Stored(ticket)));
        }
        self.news = news;
        self
    }

    fn submission(id: &str, kind: &str) -> Submission {
        Submission {
            id: name(id),
            nonce: format!("of-{id}"),
            kind: name(kind),
            by: "operator".into(),
            at: Wall(0),
            wishes: Wishes::default(),
            needs: Vec::new(),
            replayed: None,
            ended: None,
            told: None,
        }
    }

    /// Submitted, admitted, durable.
    fn admitted(&mut self, id: &str, kind: &str) -> &mut Self {
        self.tell(Event::Submitted(Self::submission(id, kind))).stored()
    }

    /// A lock that an agent made by itself.
    fn lock(&self, task: &str, agent: &str, run: Option<&RunId>, owner: Option<Identity>) -> Lock {
        Lock {
            v: 1,
            task: name(task),
            token: self.state.tasks[&name(task)].token,
            nonce: format!("claim-of-{agent}"),
            agent: name(agent),
            run: run.cloned(),
            owner,
            at: Wall(0),
        }
    }

    fn locked(&mut self, lock: Lock) -> &mut Self {
        self.tell(Event::LockSeen(lock.task.clone(), Ok(lock)))
    }

    /// An outcome by the claim of this lock.
    fn handed_in(lock: &Lock, status: Verdict) -> HandedIn {
        let outcome = Outcome::new(lock.task.clone(), lock.token, lock.nonce.clone(), status, None);
        HandedIn { agent: lock.agent.clone(), outcome, decided: false, words: String::new() }
    }

    fn looked(&mut self, task: &str) -> &mut Self {
        self.tell(Event::OutcomesLooked(name(task)))
    }

    /// The one change of a record that was just asked for.
    fn change(&self) -> RecordChange {
        let [change] = &self.changes()[..] else { panic!("one record expected: {:?}", self.news) };
        change.clone()
    }

    /// All changes of records that were just asked for.
    fn changes(&self) -> Vec<RecordChange> {
        let change = |effect: &Effect| match effect {
            Effect::Record(_, change) => Some(RecordChange::clone(change)),
            _ => None,
        };
        self.news.iter().filter_map(change).collect()
    }

    fn wants(&self, effect: &Effect) -> bool {
        self.news.contains(effect)
    }

    /// Which requests were just answered, and whether by "yes".
    fn answers(&self) -> Vec<(Name, bool)> {
        let answer = |effect: &Effect| match effect {
            Effect::Answer(id, yes, _) => Some((id.clone(), *yes)),
            _ => None,
        };
        self.news.iter().filter_map(answer).collect()
    }

    fn alerts(&self) -> Vec<String> {
        let alert =
            |effect: &Effect| if let Effect::Alert(key, _) = effect { Some(key.clone()) } else { None };
        self.news.iter().filter_map(alert).collect()
    }

    fn facts(&self) -> Vec<Fact> {
        let fact = |effect: &Effect| if let Effect::Note(fact) = effect { Some(fact.clone()) } else { None };
        self.news.iter().filter_map(fact).collect()
    }

    fn status(&self, agent: &str) -> AgentStatus {
        self.state.agent_status(&name(agent)).unwrap()
    }

    fn standing(&self, agent: &str) -> Standing {
        self.status(agent).state
    }

    /// In the order in which they are given out.
    fn ready(&self, kind: &str) -> Vec<TaskId> {
        self.state.ready.get(&name(kind)).into_iter().flatten().map(|(_, _, id)| id.clone()).collect()
    }
}
