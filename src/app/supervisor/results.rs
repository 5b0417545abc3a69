//! Results: kept where they belong, handed on as tasks, and with them the tasks that an owner submitted within its own.

use std::collections::BTreeSet;
use std::io;

use serde_json::Value;

use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::{ReadError, Store};
use crate::edge::writer::{Change, Job};
use crate::machine::effect::{Bound, BoundFate, Output, RecordChange};
use crate::protocol::layout::{BoundName, Shelf};
use crate::protocol::name::{AgentName, Kind, TaskId};
use crate::protocol::record::{self, OUTPUT_LEN_MAX};
use crate::protocol::task::{Phase, TaskRecord, Wishes, id_from_key};
use crate::protocol::time::Now;

use super::inbox::LISTED_MAX;
use super::{Helpers, Supervisor};

/// The longest result that a task's payload can hold, in bytes.
const HANDED_ON_LEN_MAX: u64 = 512 * 1024;

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// Has the result of a task copied to where it belongs.
    pub(super) fn keep_result(&self, change: &RecordChange, job: &mut Job) {
        let (layout, task) = (&self.options.layout, &change.task);
        let shelf = match change.phase {
            Phase::Gated | Phase::Review => Shelf::Review,
            Phase::Dead => Shelf::Dead,
            Phase::New | Phase::Ready | Phase::Waiting | Phase::Blocked | Phase::Done => Shelf::Done,
        };
        let to = layout.result_on(shelf, task);
        let from = match &change.output {
            None => return,
            Some(Output::HandedIn(agent, token)) => layout.output(agent, task, *token),
            Some(Output::Judged) => {
                let from = layout.result_on(Shelf::Review, task);
                job.last.push(Change::Remove { path: from.clone() });
                from
            }
        };
        if self.is_there(&from) {
            job.before.push(Change::Copy { from, to, max: OUTPUT_LEN_MAX });
        } else if self.is_there(&to) {
            // Of an earlier life of the task, or of a try that a crash cut short.
            job.before.push(Change::Remove { path: to });
        }
    }

    /// Has the tasks submitted, or dropped, that an owner of this one submitted within it.
    pub(super) fn settle_what_was_bound(
        &self,
        now: Now,
        record: &TaskRecord,
        change: &RecordChange,
        job: &mut Job,
    ) {
        let Some(Bound { agent: owner, others, token, fate }) = &change.bound else { return };
        let layout = &self.options.layout;
        let others = if *others { self.agents_with_bound() } else { Vec::new() };
        for agent in others.iter().chain(owner).collect::<BTreeSet<_>>() {
            let mut bound = self.bound_to(agent, &change.task, *token);
            if let BoundFate::Submitted { nonce, then: Some(kind) } = fate
                && owner.as_ref() == Some(agent)
            {
                let next = self.handed_on(now, record, change, kind, agent);
                let (task, nonce, new) = (change.task.clone(), nonce.clone(), next.id.clone());
                let name = BoundName { task, token: *token, nonce, new };
                let path = layout.bound(agent, &name);
                job.before.push(Change::Write { path, bytes: record::encode(&next) });
                bound.insert(name);
            }
            for name in bound {
                let from = layout.bound(agent, &name);
                match fate {
                    BoundFate::Kept(nonce) if *nonce == name.nonce => continue,
                    BoundFate::Submitted { nonce, .. } if *nonce == name.nonce => {
                        // After the record, which says whether it is to be done, also to a next supervisor.
                        let part = if mutant!(BoundPublishedEarly) { &mut job.before } else { &mut job.then };
                        part.push(Change::Link { from: from.clone(), to: layout.new_task(&name.new) });
                    }
                    // That of another claim, whose lock a power cut took, goes.
                    BoundFate::Kept(_) | BoundFate::Submitted { .. } | BoundFate::Dropped => {}
                }
                job.last.push(Change::Remove { path: from });
            }
        }
    }

    /// Who has submitted anything within tasks.
    fn agents_with_bound(&self) -> Vec<AgentName> {
        let found = self.store.list(&self.options.layout.bound_dir(), LISTED_MAX).unwrap_or_default();
        found.iter().filter_map(|entry| entry.name.parse().ok()).collect()
    }

    /// The tasks that were submitted within one by owners with this token.
    pub(super) fn bound_to(&self, agent: &AgentName, task: &TaskId, token: u64) -> BTreeSet<BoundName> {
        let found = self.store.list(&self.options.layout.bound_of(agent), LISTED_MAX);
        let found = found.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                log::error!("{}: {error}", self.options.layout.bound_of(agent).display());
            }
            Vec::new()
        });
        let names = found.iter().filter_map(|entry| BoundName::parse(&entry.name));
        names.filter(|name| name.task == *task && name.token == token).collect()
    }

    /// The task as which a result is handed on.
    fn handed_on(
        &self,
        now: Now,
        record: &TaskRecord,
        change: &RecordChange,
        kind: &Kind,
        by: &AgentName,
    ) -> TaskRecord {
        let layout = &self.options.layout;
        let from = match &change.output {
            Some(Output::HandedIn(agent, token)) => layout.output(agent, &record.id, *token),
            Some(Output::Judged) | None => layout.result_on(Shelf::Review, &record.id),
        };
        let bytes = self.store.read(&from, HANDED_ON_LEN_MAX).map(|blob| blob.bytes);
        let as_json = |bytes: &[u8]| {
            let text = std::str::from_utf8(bytes).ok()?;
            let value = serde_json::from_str::<Value>(text).unwrap_or_else(|_| Value::from(text));
            serde_json::value::to_raw_value(&value).ok()
        };
        let payload = match bytes {
            Ok(bytes) => as_json(&bytes),
            Err(ReadError::Missing) => Some(Box::default()),
            Err(_) => None,
        };
        // What is no text, or too long for a record, is told by its place.
        let place = || {
            let file = layout.result(&record.id).display().to_string();
            serde_json::value::to_raw_value(&serde_json::json!({ "output_file": file })).unwrap_or_default()
        };
        let id = id_from_key(kind, &format!("then {} {}", record.id, record.nonce));
        let nonce = format!("{}-then", record.nonce);
        let wishes = Wishes {
            priority: record.wishes.priority,
            group: record.wishes.group.clone(),
            ..Wishes::default()
        };
        TaskRecord::submission(
            id,
            nonce,
            kind.clone(),
            now.wall,
            by.to_string(),
            payload.unwrap_or_else(place),
            wishes,
        )
    }

    /// Decides about the tasks that owners submitted within theirs, where a crash came before that was done: those of
    /// a task that is done are submitted, those of a claim that came to nothing are dropped.
    pub(super) fn settle_all_bound(&mut self) {
        for agent in self.agents_with_bound() {
            let found =
                self.store.list(&self.options.layout.bound_of(&agent), LISTED_MAX).unwrap_or_default();
            let names = found.iter().filter_map(|entry| BoundName::parse(&entry.name));
            self.unsettled.extend(names.map(|name| (agent.clone(), name)));
        }
        self.settle_bound();
    }

    /// Decides about those that are left, as far as the disk tells.
    pub(super) fn settle_bound(&mut self) {
        for (agent, name) in std::mem::take(&mut self.unsettled) {
            match self.fate_of(&name) {
                // Whoever ends the claim decides about it.
                Ok(Settled::Waits) => {}
                Ok(Settled::Counts) => self.settle_one(&agent, &name, true),
                Ok(Settled::Dropped) => self.settle_one(&agent, &name, false),
                Err(why) => {
                    log::error!("{why}; task {}, submitted within {}, waits", name.new, name.task);
                    self.unsettled.insert((agent, name));
                }
            }
        }
    }

    fn settle_one(&self, agent: &AgentName, name: &BoundName, counts: bool) {
        let from = self.options.layout.bound(agent, name);
        let link = Change::Link { from: from.clone(), to: self.options.layout.new_task(&name.new) };
        let then = Vec::from_iter(counts.then_some(link));
        self.helpers.write(Job { then, last: vec![Change::Remove { path: from }], ..Job::default() });
    }

    /// What becomes of a task that was submitted within another; why, if that cannot be told for the moment.
    fn fate_of(&self, name: &BoundName) -> Result<Settled, String> {
        let done = self.read_ended(Shelf::Done, &name.task)?;
        let by_it = |record: TaskRecord| record.token == name.token && record.decided.contains(&name.nonce);
        if done.is_some_and(by_it) && !mutant!(BoundDropped) {
            return Ok(Settled::Counts);
        }
        if self.unread.contains_key(&name.task) {
            return Err("its record cannot be read".into());
        }
        let reviewed = self.in_review(&name.task)?.and_then(|record| record.made);
        let lock = self.read_lock(&name.task).map_err(|error| format!("its lock: {error}"))?;
        // What nobody can read may be its own, and is decided about as such.
        let its_lock = lock.is_some_and(|lock| lock.map_or(true, |lock| lock.nonce == name.nonce));
        let waits = its_lock && self.state.token_of(&name.task) == Some(name.token)
            || self.state.may_count(&name.task, name.token, &name.nonce)
            || reviewed.is_some_and(|made| made.nonce == name.nonce);
        Ok(if waits { Settled::Waits } else { Settled::Dropped })
    }
}

/// What becomes of a task that was submitted within another.
enum Settled {
    /// It is submitted.
    Counts,
    /// It goes.
    Dropped,
    /// Its claim is decided about later.
    Waits,
}
