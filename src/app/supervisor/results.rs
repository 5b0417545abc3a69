//! Results: kept where they belong, handed on as tasks, and with them the tasks that an owner submitted within its own.

use std::collections::BTreeSet;
use std::io;

use serde_json::Value;

use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::{ReadError, Store};
use crate::edge::writer::{Change, Job};
use crate::machine::effect::{Bound, BoundFate, Output, RecordChange};
use crate::protocol::layout::{Layout, Shelf};
use crate::protocol::name::{AgentName, Kind, TaskId};
use crate::protocol::record::{self, OUTPUT_LEN_MAX};
use crate::protocol::task::{Phase, TaskRecord, Wishes, id_from_key};
use crate::protocol::time::Now;

use super::inbox::LISTED_MAX;
use super::perform::Unread;
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
        let Some(Bound { agent, token, fate }) = &change.bound else { return };
        let layout = &self.options.layout;
        let agents = agent.as_ref().map_or_else(|| self.agents_with_bound(), |agent| vec![agent.clone()]);
        for agent in &agents {
            let mut bound = self.bound_to(agent, &change.task, *token);
            if let BoundFate::Submitted(Some(kind)) = fate {
                let next = self.handed_on(now, record, change, kind, agent);
                let path = layout.bound(agent, &change.task, *token, &next.id);
                job.before.push(Change::Write { path, bytes: record::encode(&next) });
                bound.insert(next.id);
            }
            for new in bound {
                let from = layout.bound(agent, &change.task, *token, &new);
                if let BoundFate::Submitted(_) = fate {
                    // After the record, which says whether it is to be done, also to a next supervisor.
                    let part = if mutant!(BoundPublishedEarly) { &mut job.before } else { &mut job.then };
                    part.push(Change::Link { from: from.clone(), to: layout.new_task(&new) });
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

    /// The tasks that were submitted within one by the owner with this token.
    pub(super) fn bound_to(&self, agent: &AgentName, task: &TaskId, token: u64) -> BTreeSet<TaskId> {
        let found = self.store.list(&self.options.layout.bound_of(agent), LISTED_MAX);
        let found = found.unwrap_or_else(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                log::error!("{}: {error}", self.options.layout.bound_of(agent).display());
            }
            Vec::new()
        });
        let names = found.iter().filter_map(|entry| Layout::bound_name(&entry.name));
        names.filter(|(of, with, _)| of == task && *with == token).map(|(.., new)| new).collect()
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
    pub(super) fn settle_bound(&self) {
        let layout = &self.options.layout;
        for agent in self.agents_with_bound() {
            for file in self.store.list(&layout.bound_of(&agent), LISTED_MAX).unwrap_or_default() {
                let Some((task, token, new)) = Layout::bound_name(&file.name) else { continue };
                let from = layout.bound(&agent, &task, token, &new);
                let is_its = |record: &TaskRecord| record.token == token;
                let open = self.read_task(&task);
                if open.as_ref().is_ok_and(is_its)
                    && self.state.is_free(&task)
                    && !self.is_there(&layout.lock(&task))
                {
                    // A power cut took the lock with its owner. Whoever gets the task next bears the same token, so it
                    // goes at once.
                    if let Err(error) = self.store.unlink(&from) {
                        log::warn!("{}: {error}", from.display());
                    }
                    continue;
                }
                let undecided = self.unread.contains_key(&task)
                    || matches!(&open, Err(Unread::ForNow(_)))
                    || open.is_ok_and(|record| is_its(&record) && self.state.is_open(&task));
                let ended = self.ended_record(&task);
                let job = match ended {
                    _ if undecided => continue,
                    Err(_) => continue,
                    Ok(Some((Shelf::Review, record))) if is_its(&record) => continue,
                    Ok(Some((Shelf::Done, record))) if is_its(&record) && !mutant!(BoundDropped) => Job {
                        then: vec![Change::Link { from: from.clone(), to: layout.new_task(&new) }],
                        last: vec![Change::Remove { path: from }],
                        ..Job::default()
                    },
                    Ok(_) => Job { last: vec![Change::Remove { path: from }], ..Job::default() },
                };
                self.helpers.write(job);
            }
        }
    }
}
