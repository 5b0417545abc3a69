//! Effects performed: the only place where what the machine wants becomes orders, jobs and files.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use crate::edge::clock::Clock;
use crate::edge::processes::{Order, Processes};
use crate::edge::store::{ReadError, Store};
use crate::edge::writer::{Change, Job, Ticket};
use crate::machine::effect::{Grant, RecordChange};
use crate::machine::{Effect, Event};
use crate::protocol::layout::Layout;
use crate::protocol::ledger::{Entry, Fact};
use crate::protocol::name::{AgentName, Name, RunId, TaskId};
use crate::protocol::record::{self, OUTPUT_LEN_MAX, RECORD_LEN_MAX, SMALL_LEN_MAX, VERSION};
use crate::protocol::request::Answer;
use crate::protocol::status::Alert;
use crate::protocol::task::{ATTEMPTS_KEPT_MAX, Lock, Phase, TaskRecord};
use crate::protocol::time::Now;
use crate::protocol::tokens::Tokens;

use super::inbox::LISTED_MAX;
use super::{Helpers, Sight, Supervisor};

/// How many decided claims a record names; older ones bear older tokens and are refused for that.
const DECIDED_KEPT_MAX: usize = 16;
/// How many of one name are put aside; from then on the last is replaced.
const COPIES_MAX: u32 = 100;

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    pub(super) fn perform(&mut self, now: Now, effect: Effect, events: &mut VecDeque<Event>) {
        match self.sight {
            Sight::Clear => self.perform_seeing(now, effect, events),
            Sight::Blind => self.perform_blind(effect, events),
        }
    }

    /// Without its state directory a supervisor only ends what runs.
    fn perform_blind(&mut self, effect: Effect, events: &mut VecDeque<Event>) {
        match effect {
            Effect::Signal(run, signal) => self.processes.order(Order::Signal { run, signal }),
            Effect::KillTree(run) => self.processes.order(Order::KillTree { run }),
            Effect::Launch { run, .. } => {
                let error = "state/ was removed or replaced".to_owned();
                events.push_back(Event::SpawnFailed { run, error, busy: false });
            }
            Effect::LookForOutcomes(task, _) => events.push_back(Event::OutcomesLooked(task)),
            Effect::Exit => self.ended = true,
            Effect::Note(fact) => say(&fact),
            Effect::Adopt(..)
            | Effect::Forget(_)
            | Effect::TakeOver(..)
            | Effect::Examine(_)
            | Effect::CloseRun(..)
            | Effect::ReserveTokens(_)
            | Effect::Admit { .. }
            | Effect::DropSubmission(..)
            | Effect::Record(..)
            | Effect::NameOwner(_)
            | Effect::RemoveLock(..)
            | Effect::RefuseOutcome { .. }
            | Effect::DropOutcome(..)
            | Effect::ShowReady(_)
            | Effect::Alert(..)
            | Effect::Answer(..)
            | Effect::Finished(..)
            | Effect::Watch => {}
        }
    }

    fn perform_seeing(&mut self, now: Now, effect: Effect, events: &mut VecDeque<Event>) {
        match effect {
            Effect::Launch { run, agent, digest, grant } => {
                self.launch(run, &agent, digest, grant.as_deref(), events);
            }
            Effect::Adopt(agent, digest) => {
                self.offers.retain(|(name, of), _| *name != agent || *of == digest);
                self.shown.extra_changed = true;
            }
            Effect::Forget(agent) => {
                self.offers.retain(|(name, _), _| *name != agent);
                self.shown.forgotten.insert(agent);
            }
            Effect::TakeOver(run, root) => self.processes.order(Order::Adopt { run, root }),
            Effect::Signal(run, signal) => self.processes.order(Order::Signal { run, signal }),
            Effect::KillTree(run) => self.processes.order(Order::KillTree { run }),
            Effect::Examine(run) => self.processes.order(Order::Examine { run }),
            Effect::CloseRun(run, agent) => self.close_run(&run, &agent),
            Effect::ReserveTokens(up_to) => self.reserve_tokens(up_to),
            Effect::Admit { ticket, task, token, fact } => self.admit(now, ticket, &task, token, fact),
            Effect::DropSubmission(task, fact) => {
                let layout = &self.options.layout;
                let last = vec![Change::Remove { path: layout.new_task(&task) }];
                self.helpers.write(Job { entries: entries(now, fact), last, ..Job::default() });
            }
            Effect::Record(ticket, change) => self.record(now, ticket, *change, events),
            Effect::NameOwner(lock) => self.name_owner(&lock),
            Effect::RemoveLock(ticket, task) => {
                let last = vec![self.lock_aside(&task)];
                self.helpers.write(Job { last, ticket: ticket.map(Ticket), ..Job::default() });
            }
            Effect::LookForOutcomes(task, agent) => self.look_for_outcomes(&task, &agent, events),
            Effect::RefuseOutcome { agent, task, token, nonce, reason } => {
                self.refuse_outcome(now, &agent, &task, token, &nonce, &reason);
            }
            Effect::DropOutcome(agent, task, token, nonce) => {
                let path = self.options.layout.outcome(&agent, &task, token, &nonce);
                self.helpers.write(Job { last: vec![Change::Remove { path }], ..Job::default() });
            }
            Effect::ShowReady(kind) => {
                self.shown.ready_changed.insert(kind);
            }
            Effect::Note(fact) => {
                say(&fact);
                self.note(now.wall, fact);
            }
            Effect::Alert(key, text) => self.alert(now, key, text),
            Effect::Answer(id, ok, text) => self.answer(id, ok, text),
            Effect::Finished(agent, digest) => self.finished(&agent, digest),
            Effect::Watch => self.shown.watch_changed = true,
            Effect::Exit => self.ended = true,
        }
    }

    fn launch(
        &mut self,
        run: RunId,
        agent: &AgentName,
        digest: String,
        grant: Option<&Grant>,
        events: &mut VecDeque<Event>,
    ) {
        let Some(offer) = self.offers.get(&(agent.clone(), digest)).cloned() else {
            let error = "the version that was to be started is not known any more".to_owned();
            events.push_back(Event::SpawnFailed { run, error, busy: false });
            return;
        };
        for dir in self.options.layout.directories_of(agent) {
            if let Err(error) = self.store.create_dir(&dir) {
                let error = format!("{}: {error}", dir.display());
                events.push_back(Event::SpawnFailed { run, error, busy: false });
                return;
            }
        }
        if let Some(grant) = grant
            && !self.lay_out_task(&run, agent, grant, events)
        {
            return;
        }
        let launch = self.launch_of(&run, &offer, grant);
        self.processes.order(Order::Spawn(Box::new(launch)));
    }

    /// Lays out the payload and publishes the lock, in this order, before the process is made.
    fn lay_out_task(
        &mut self,
        run: &RunId,
        agent: &AgentName,
        grant: &Grant,
        events: &mut VecDeque<Event>,
    ) -> bool {
        let task = grant.lock.task.clone();
        let record = match self.read_task(&task) {
            Ok(record) => record,
            Err(why) => {
                events.push_back(Event::TaskLost(task, why.clone()));
                events.push_back(Event::DispatchFailed(run.clone(), why));
                return false;
            }
        };
        let payload = self.options.layout.payload(agent, run);
        let written = self.store.write_new(&payload, record.payload.get().as_bytes(), false);
        let linked = written.and_then(|()| self.publish_lock(&grant.lock));
        if let Err(error) = linked {
            let why = format!("cannot lay out task {task}: {error}");
            events.push_back(Event::DispatchFailed(run.clone(), why));
            if error.kind() == io::ErrorKind::AlreadyExists {
                self.to_look_at.locks.insert(task);
            }
            return false;
        }
        true
    }

    /// A lock is found by its name, and a power cut that takes it takes its owner too: it is not synced.
    fn publish_lock(&mut self, lock: &Lock) -> io::Result<()> {
        let temp = self.temp();
        self.store.write_new(&temp, &record::encode(lock), false)?;
        let linked = self.store.link(&temp, &self.options.layout.lock(&lock.task));
        self.store.unlink(&temp)?;
        linked
    }

    /// A lock that gives no right to its task is kept, to be looked at: it may be anything.
    fn lock_aside(&self, task: &TaskId) -> Change {
        let layout = &self.options.layout;
        let from = layout.lock(task);
        let to = self.place_aside(&layout.refused_outcomes(), &from);
        Change::Rename { from, to }
    }

    /// Where a file is put aside: under its own name, or one made of it where that is taken or too long. (A
    /// directory that is not empty can be replaced by nothing, and what was put aside before is evidence too.)
    pub(super) fn place_aside(&self, dir: &Path, from: &Path) -> PathBuf {
        let is_taken = |path: &PathBuf| self.store.stat(path).is_ok_and(|found| found.is_some());
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        let places = (1..=COPIES_MAX).map(|copy| dir.join(Layout::aside_name(&name, copy)));
        let mut last = dir.join(Layout::aside_name(&name, 1));
        for place in places {
            if !is_taken(&place) {
                return place;
            }
            last = place;
        }
        last
    }

    /// Replaces a lock of ours by one that names the process. Nobody else can hold it meanwhile: only
    /// this thread lets go of it.
    fn name_owner(&mut self, lock: &Lock) {
        let temp = self.temp();
        let path = self.options.layout.lock(&lock.task);
        if let Err(error) = self.store.publish_volatile(&temp, &path, &record::encode(lock)) {
            // The lock stands without it; the run's marker in the environment says the same.
            log::warn!("{}: cannot name the process: {error}", path.display());
        }
    }

    fn close_run(&mut self, run: &RunId, agent: &AgentName) {
        self.processes.run_closed(agent, run);
        for path in
            [self.options.layout.payload(agent, run), self.options.layout.heartbeat_of_run(agent, run)]
        {
            if let Err(error) = self.store.unlink(&path) {
                log::warn!("{}: {error}", path.display());
            }
        }
    }

    fn reserve_tokens(&self, up_to: u64) {
        let (path, bytes) =
            (self.options.layout.tokens(), record::encode(&Tokens { v: VERSION, reserved: up_to }));
        self.helpers.write(Job { before: vec![Change::Write { path, bytes }], ..Job::default() });
    }

    fn admit(&mut self, now: Now, ticket: u64, task: &TaskId, token: u64, fact: Fact) {
        let Some(mut record) = self.incoming.remove(task) else { return };
        record.token = token;
        record.state = Phase::Ready;
        record.failures = 0;
        record.deferrals = 0;
        record.not_before = None;
        record.ended = None;
        let layout = &self.options.layout;
        let (path, bytes) = (layout.task(task), record::encode(&record));
        say(&fact);
        self.helpers.write(Job {
            entries: entries(now, Some(fact)),
            then: vec![Change::Write { path, bytes }],
            last: vec![Change::Remove { path: layout.new_task(task) }],
            ticket: Some(Ticket(ticket)),
            ..Job::default()
        });
    }

    /// Changes a record: output kept, facts recorded, record written, and only then the lock removed.
    fn record(&mut self, now: Now, ticket: u64, change: RecordChange, events: &mut VecDeque<Event>) {
        let mut record = match self.read_task(&change.task) {
            Ok(record) => record,
            Err(why) => {
                events.push_back(Event::TaskLost(change.task, why));
                return;
            }
        };
        record.token = change.token;
        record.state = change.phase;
        record.failures = change.failures;
        record.deferrals = change.deferrals;
        record.not_before = change.not_before;
        keep_last(&mut record.decided, change.decided.clone(), DECIDED_KEPT_MAX);
        keep_last(&mut record.attempts, change.attempt.clone(), ATTEMPTS_KEPT_MAX);
        let layout = &self.options.layout;
        let open = layout.task(&change.task);
        let mut job = Job { ticket: Some(Ticket(ticket)), ..Job::default() };
        if let Some((agent, token)) = &change.output {
            let from = layout.output(agent, &change.task, *token);
            if self.store.stat(&from).is_ok_and(|found| found.is_some()) {
                job.before.push(Change::Copy { from, to: layout.result(&change.task), max: OUTPUT_LEN_MAX });
            }
        }
        let target = match change.shelf() {
            Some(shelf) => {
                record.ended = Some(now.wall);
                job.last.push(Change::Remove { path: open });
                layout.ended(shelf, &change.task)
            }
            None => open,
        };
        job.then.push(Change::Write { path: target, bytes: record::encode(&record) });
        if let Some((agent, token, nonce)) = &change.settled {
            // Without a nonce it could not be read, and may be no file at all.
            job.last.push(if nonce.is_empty() {
                self.lock_aside(&change.task)
            } else {
                Change::Remove { path: layout.lock(&change.task) }
            });
            job.last.push(Change::Remove { path: layout.outcome(agent, &change.task, *token, nonce) });
            job.last.push(Change::Remove { path: layout.output(agent, &change.task, *token) });
        }
        for fact in change.facts {
            say(&fact);
            job.entries.push(Entry { at: now.wall, fact });
        }
        self.helpers.write(job);
    }

    /// The record of an open task.
    pub(super) fn read_task(&self, task: &TaskId) -> Result<TaskRecord, String> {
        let path = self.options.layout.task(task);
        let blob = self
            .store
            .read(&path, RECORD_LEN_MAX * 2)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        record::decode(&blob.bytes).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn refuse_outcome(
        &mut self,
        now: Now,
        agent: &AgentName,
        task: &TaskId,
        token: u64,
        nonce: &str,
        reason: &str,
    ) {
        let from = self.options.layout.outcome(agent, task, token, nonce);
        let output = self.options.layout.output(agent, task, token);
        let fact = Fact::OutcomeRefused {
            task: task.clone(),
            token,
            agent: agent.clone(),
            reason: reason.to_owned(),
        };
        say(&fact);
        let to = self.place_aside(&self.options.layout.refused_outcomes(), &from);
        let mut job = aside(now, &from, &to, reason, fact);
        job.last.push(Change::Remove { path: output });
        self.helpers.write(job);
    }

    pub(super) fn alert(&mut self, now: Now, key: String, text: String) {
        log::warn!("{text}");
        if self.sight == Sight::Blind {
            return;
        }
        let path = self.options.layout.alerts().join(format!("{key}.json"));
        let known = self.alerts.remove(&key).or_else(|| {
            let blob = self.store.read(&path, SMALL_LEN_MAX).ok()?;
            record::decode::<Alert>(&blob.bytes).ok()
        });
        let mut alert = known.unwrap_or_else(|| Alert {
            v: VERSION,
            key: key.clone(),
            opened: now.wall,
            updated: now.wall,
            count: 0,
            text: String::new(),
        });
        alert.updated = now.wall;
        alert.count += 1;
        alert.text.clone_from(&text);
        self.helpers.write(Job {
            entries: entries(now, Some(Fact::Alert { key: key.clone(), text })),
            then: vec![Change::Write { path, bytes: record::encode(&alert) }],
            ..Job::default()
        });
        self.alerts.insert(key, alert);
    }

    fn answer(&self, id: Name, ok: bool, text: String) {
        let layout = &self.options.layout;
        let (path, request) = (layout.answer(&id), layout.request(&id));
        let bytes = record::encode(&Answer { v: VERSION, id, ok, text });
        self.helpers.write(Job {
            then: vec![Change::Write { path, bytes }],
            last: vec![Change::Remove { path: request }],
            ..Job::default()
        });
    }

    fn finished(&self, agent: &AgentName, digest: Option<String>) {
        let path = self.options.layout.finished(agent);
        let mut job = Job::default();
        match digest {
            Some(digest) => job.then.push(Change::Write { path, bytes: format!("{digest}\n").into_bytes() }),
            None => job.last.push(Change::Remove { path }),
        }
        self.helpers.write(job);
    }

    /// Reports every outcome on disk for this task, then that there are no more.
    fn look_for_outcomes(&mut self, task: &TaskId, agent: &AgentName, events: &mut VecDeque<Event>) {
        match self.outcomes_on_disk(task, agent) {
            Ok(found) => {
                events.extend(found);
                events.push_back(Event::OutcomesLooked(task.clone()));
            }
            // Without having looked nothing may be given away; the next scan tries again.
            Err(error) => {
                log::error!("task {task}: cannot look for outcomes of {agent}: {error}");
                self.unlooked.insert((task.clone(), agent.clone()));
            }
        }
    }

    fn outcomes_on_disk(&self, task: &TaskId, agent: &AgentName) -> io::Result<Vec<Event>> {
        let dir = self.options.layout.outcomes_of(agent);
        let prefix = format!("{task}.");
        let mut events = Vec::new();
        for entry in self.store.list(&dir, LISTED_MAX)?.iter().filter(|entry| entry.name.starts_with(&prefix))
        {
            events.extend(self.read_outcome(agent, &dir.join(&entry.name))?);
        }
        Ok(events)
    }
}

/// A job that puts a file aside, its reason beside it.
pub(super) fn aside(now: Now, from: &Path, to: &Path, reason: &str, fact: Fact) -> Job {
    Job {
        entries: entries(now, Some(fact)),
        then: vec![Change::Write {
            path: Layout::reason_beside(to),
            bytes: format!("{reason}\n").into_bytes(),
        }],
        last: vec![Change::Rename { from: from.into(), to: to.into() }],
        ..Job::default()
    }
}

fn entries(now: Now, fact: Option<Fact>) -> Vec<Entry> {
    fact.into_iter().map(|fact| Entry { at: now.wall, fact }).collect()
}

fn keep_last<T>(list: &mut Vec<T>, new: Option<T>, most: usize) {
    list.extend(new);
    let surplus = list.len().saturating_sub(most);
    list.drain(..surplus);
}

/// What happened, in the supervisor's own log.
fn say(fact: &Fact) {
    match fact {
        Fact::Claimed { .. } | Fact::Submitted { .. } | Fact::Duplicate { .. } => log::debug!("{fact}"),
        Fact::Refused { .. }
        | Fact::StartFailed { .. }
        | Fact::Failing { .. }
        | Fact::Rejected { .. }
        | Fact::OutcomeRefused { .. }
        | Fact::UpdateRejected { .. }
        | Fact::UpdateGap { .. }
        | Fact::RemnantsKilled { .. }
        | Fact::Isolated { .. } => log::warn!("{fact}"),
        // An alert is said where it is opened.
        Fact::Alert { .. } => {}
        Fact::Unkillable { .. } => log::error!("{fact}"),
        Fact::SupervisorStarted { .. }
        | Fact::SupervisorStopped { .. }
        | Fact::SupervisorPaused { .. }
        | Fact::Control { .. }
        | Fact::Started { .. }
        | Fact::Exited { .. }
        | Fact::Killed { .. }
        | Fact::Reinstated { .. }
        | Fact::Accepted { .. }
        | Fact::Removed { .. }
        | Fact::Replayed { .. }
        | Fact::Outcome { .. }
        | Fact::Vacated { .. }
        | Fact::Updated { .. } => log::info!("{fact}"),
    }
}

/// Why a file of somebody else's was not read, unless it is simply not there.
pub(super) fn unreadable(error: ReadError) -> Option<String> {
    match error {
        ReadError::Missing => None,
        error @ (ReadError::NotRegular(_)
        | ReadError::TooLarge { .. }
        | ReadError::Foreign(_)
        | ReadError::Io(_)) => Some(error.to_string()),
    }
}
