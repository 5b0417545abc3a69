//! Effects performed: the only place where what the machine wants becomes orders, jobs and files.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use crate::edge::clock::Clock;
use crate::edge::processes::{Order, Processes};
use crate::edge::store::{ReadError, Store};
use crate::edge::writer::{Change, Job, Ticket};
use crate::machine::effect::Grant;
use crate::machine::event::Need;
use crate::machine::{Effect, Event};
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, RunId, TaskId};
use crate::protocol::record::{self, RECORD_LEN_MAX};
use crate::protocol::task::{Lock, Made, TaskRecord};
use crate::protocol::time::Now;

use super::inbox::LISTED_MAX;
use super::jobs::{Admission, entries};
use super::{Helpers, Sight, Supervisor};

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
            Effect::Launch { run, .. } | Effect::Judge { run, .. } => {
                let error = "state/ was removed or replaced".to_owned();
                events.push_back(Event::SpawnFailed { run, error, busy: false });
            }
            Effect::LookForOutcomes(task, _) => events.push_back(Event::OutcomesLooked(task)),
            Effect::Exit => self.ended = true,
            Effect::Note(fact) => say(&fact),
            Effect::Adopt(..)
            | Effect::Forget(_)
            | Effect::TakeOver(..)
            | Effect::Release(_)
            | Effect::Examine(_)
            | Effect::CloseRun(..)
            | Effect::ReserveTokens(_)
            | Effect::Admit { .. }
            | Effect::DropSubmission(..)
            | Effect::RejectSubmission(..)
            | Effect::Fire(..)
            | Effect::FireChanges(_)
            | Effect::FiringEnded(..)
            | Effect::KeepTrigger(..)
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
            Effect::Judge { run, task, made } => self.judge(run, &task, &made, events),
            Effect::Adopt(agent, digest) => {
                let offer = self.offers.get(&(agent.clone(), digest.clone()));
                let manifest = offer.map(|offer| offer.manifest.clone());
                self.watch_for(now, &agent, manifest.as_ref());
                self.offers.retain(|(name, of), _| *name != agent || *of == digest);
                self.shown.extra_changed = true;
            }
            Effect::Forget(agent) => {
                self.watch_for(now, &agent, None);
                self.offers.retain(|(name, _), _| *name != agent);
                self.shown.forgotten.insert(agent);
            }
            Effect::TakeOver(run, root) => self.processes.order(Order::Adopt { run, root }),
            Effect::Release(run) => self.processes.order(Order::Release { run }),
            Effect::Signal(run, signal) => self.processes.order(Order::Signal { run, signal }),
            Effect::KillTree(run) => self.processes.order(Order::KillTree { run }),
            Effect::Examine(run) => self.processes.order(Order::Examine { run }),
            Effect::CloseRun(run, agent) => self.close_run(&run, &agent),
            Effect::ReserveTokens(up_to) => self.reserve_tokens(up_to),
            Effect::Admit { ticket, task, token, phase, replaces, fact } => {
                self.admit(now, ticket, &task, Admission { token, phase, replaces, fact });
            }
            Effect::Fire(slot, not_before) => self.fire(now, &slot, not_before),
            Effect::FireChanges(agent) => self.fire_changes(now, &agent),
            Effect::FiringEnded(agent, task, well) => self.firing_ended(now, &agent, &task, well),
            Effect::KeepTrigger(agent, record) => self.keep_trigger(&agent, &record),
            Effect::RejectSubmission(task, why) => {
                let path = self.options.layout.new_task(&task);
                self.reject(now, &path, "submission", &why);
            }
            Effect::DropSubmission(task, fact) => {
                let path = self.options.layout.new_task(&task);
                let last = vec![Change::Remove { path: path.clone() }];
                self.take_away(&path, Job { entries: entries(now, fact), last, ..Job::default() });
            }
            Effect::Record(ticket, change) => self.record(now, ticket, *change, events),
            Effect::NameOwner(lock) => self.name_owner(&lock),
            Effect::RemoveLock(ticket, task) => self.remove_lock(ticket, &task),
            Effect::LookForOutcomes(task, agent) => self.look_for_outcomes(&task, &agent, events),
            Effect::RefuseOutcome { agent, task, token, nonce, reason } => {
                self.refuse_outcome(now, &agent, &task, token, &nonce, &reason);
            }
            Effect::DropOutcome(agent, task, token, nonce) => {
                let path = self.options.layout.outcome(&agent, &task, token, &nonce);
                let last = vec![Change::Remove { path: path.clone() }];
                self.take_away(&path, Job { last, ..Job::default() });
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

    fn remove_lock(&mut self, ticket: Option<u64>, task: &TaskId) {
        let change = if self.is_concluded(task) {
            Change::Remove { path: self.options.layout.lock(task) }
        } else {
            self.lock_aside(task)
        };
        let job = Job { last: vec![change], ..Job::default() };
        match ticket {
            Some(ticket) => self.helpers.write(Job { ticket: Some(Ticket(ticket)), ..job }),
            None => self.take_away(&self.options.layout.lock(task), job),
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
        let mut record = None;
        if let Some(grant) = grant {
            record = self.lay_out_task(&run, agent, grant, events);
            if record.is_none() {
                return;
            }
        }
        let launch = self.launch_of(&run, &offer, grant, record.as_ref());
        self.processes.order(Order::Spawn(Box::new(launch)));
    }

    /// Starts the gate that judges a task's result, with that on its standard input.
    fn judge(&mut self, run: RunId, task: &TaskId, made: &Made, events: &mut VecDeque<Event>) {
        for dir in self.options.layout.directories_of(&made.agent) {
            if let Err(error) = self.store.create_dir(&dir) {
                let error = format!("{}: {error}", dir.display());
                return events.push_back(Event::SpawnFailed { run, error, busy: false });
            }
        }
        match self.gate_of(&run, task, made) {
            Ok(launch) => self.processes.order(Order::Spawn(Box::new(launch))),
            Err(error) => events.push_back(Event::SpawnFailed { run, error, busy: false }),
        }
    }

    /// Lays out the payload and publishes the lock, in this order, before the process is made.
    fn lay_out_task(
        &mut self,
        run: &RunId,
        agent: &AgentName,
        grant: &Grant,
        events: &mut VecDeque<Event>,
    ) -> Option<TaskRecord> {
        let task = grant.lock.task.clone();
        let record = match self.read_task(&task) {
            Ok(record) => record,
            // It is given out again later.
            Err(Unread::ForNow(why)) => {
                events.push_back(Event::DispatchFailed(run.clone(), why));
                return None;
            }
            Err(Unread::Lost(why)) => {
                events.push_back(Event::TaskLost(task, why.clone()));
                events.push_back(Event::DispatchFailed(run.clone(), why));
                return None;
            }
        };
        let payload = self.options.layout.payload(agent, run);
        let written = self.store.write_new(&payload, record.payload.get().as_bytes(), false);
        let needs = written.and_then(|()| self.lay_out_needs(run, agent, &record));
        let linked = needs.and_then(|()| self.publish_lock(&grant.lock));
        if let Err(error) = linked {
            let why = format!("cannot lay out task {task}: {error}");
            events.push_back(Event::DispatchFailed(run.clone(), why));
            if error.kind() == io::ErrorKind::AlreadyExists {
                self.to_look_at.locks.insert(task);
            }
            return None;
        }
        Some(record)
    }

    /// Tells what became of the tasks that one needed: `{"ID":{"state":"done","output":"FILE"},…}`.
    fn lay_out_needs(&self, run: &RunId, agent: &AgentName, record: &TaskRecord) -> io::Result<()> {
        if record.wishes.needs.is_empty() {
            return Ok(());
        }
        let mut told = serde_json::Map::new();
        for (id, need) in self.needs_of(record).map_err(io::Error::other)? {
            let result = self.options.layout.result(&id);
            let (state, output) = match need {
                Need::Done => ("done", self.is_there(&result).then(|| result.display().to_string())),
                Need::Dead => ("dead", None),
                Need::Open => ("open", None),
            };
            told.insert(id.to_string(), serde_json::json!({ "state": state, "output": output }));
        }
        let path = self.options.layout.needs(agent, run);
        self.store.write_new(&path, &record::encode(&told), false)
    }

    /// A lock is found by its name, and a power cut that takes it takes its owner too: it is not synced.
    fn publish_lock(&mut self, lock: &Lock) -> io::Result<()> {
        let temp = self.temp();
        self.store.write_new(&temp, &record::encode(lock), false)?;
        let linked = self.store.link(&temp, &self.options.layout.lock(&lock.task));
        self.store.unlink(&temp)?;
        linked
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
        let layout = &self.options.layout;
        for path in
            [layout.payload(agent, run), layout.needs(agent, run), layout.heartbeat_of_run(agent, run)]
        {
            if let Err(error) = self.store.unlink(&path) {
                log::warn!("{}: {error}", path.display());
            }
        }
    }

    /// The record of an open task.
    pub(super) fn read_task(&self, task: &TaskId) -> Result<TaskRecord, Unread> {
        let path = self.options.layout.task(task);
        let blob =
            self.store.read(&path, RECORD_LEN_MAX * 2).map_err(|error| Unread::because(&path, &error))?;
        record::decode(&blob.bytes).map_err(|error| Unread::Lost(format!("{}: {error}", path.display())))
    }

    /// Reports every outcome on disk for this task, then that there are no more.
    fn look_for_outcomes(&mut self, task: &TaskId, agent: &AgentName, events: &mut VecDeque<Event>) {
        match self.outcomes_on_disk(task, agent) {
            Ok(found) => {
                if mutant!(VacatedUnlooked) {
                    events.push_back(Event::OutcomesLooked(task.clone()));
                }
                events.extend(found);
                events.push_back(Event::OutcomesLooked(task.clone()));
            }
            // Without having looked nothing may be given away; the next scan tries again.
            Err(error) => {
                log::error!("task {task}: cannot look for outcomes of {agent}: {error}");
                self.unlooked.insert((task.clone(), agent.clone()));
                events.push_back(Event::OutcomesUnseen(task.clone()));
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

/// Why a record of ours cannot be read.
#[derive(Debug)]
pub(super) enum Unread {
    /// The disk did not answer, or too many files are open: that says nothing of the record.
    ForNow(String),
    /// It is missing, or is not what it was.
    Lost(String),
}

impl Unread {
    pub(super) fn because(path: &Path, error: &ReadError) -> Self {
        let why = format!("{}: {error}", path.display());
        match error {
            ReadError::Io(_) => Self::ForNow(why),
            ReadError::Missing
            | ReadError::NotRegular(_)
            | ReadError::TooLarge { .. }
            | ReadError::Foreign(_) => Self::Lost(why),
        }
    }
}

/// What happened, in the supervisor's own log.
pub(super) fn say(fact: &Fact) {
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
        | Fact::GivenUp { .. }
        | Fact::SlotSkipped { .. }
        | Fact::SlotsMissed { .. }
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
        | Fact::Judged { .. }
        | Fact::Vacated { .. }
        | Fact::Updated { .. } => log::info!("{fact}"),
    }
}

/// Why a file of somebody else's cannot be read, unless it is simply not there. What says nothing of the file,
/// such as that too many are open, costs nobody his: the next scan looks again.
pub(super) fn unreadable(path: &Path, error: ReadError) -> Option<String> {
    match error {
        ReadError::Missing => None,
        ReadError::Io(error) if error.kind() != io::ErrorKind::PermissionDenied => {
            log::error!("{}: {error}; it is looked at again", path.display());
            None
        }
        error @ (ReadError::NotRegular(_)
        | ReadError::TooLarge { .. }
        | ReadError::Foreign(_)
        | ReadError::Io(_)) => Some(error.to_string()),
    }
}
