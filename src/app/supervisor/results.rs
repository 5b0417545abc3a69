//! Results: kept where they belong, handed on as tasks, and with them the tasks that an owner submitted within its own.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use serde_json::value::RawValue;

use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::{Entry, ReadError, Store};
use crate::edge::writer::{Change, Job};
use crate::machine::effect::{Bound, BoundFate, Output, RecordChange};
use crate::protocol::layout::{Layout, Shelf};
use crate::protocol::name::{AgentName, Kind, TaskId};
use crate::protocol::record::{self, OUTPUT_LEN_MAX, RECORD_LEN_MAX, one_line_json};
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
    ///
    /// # Errors
    /// If it cannot be told for the moment which those are: nothing may be decided without them.
    pub(super) fn settle_what_was_bound(
        &self,
        now: Now,
        record: &TaskRecord,
        change: &RecordChange,
        job: &mut Job,
    ) -> io::Result<()> {
        let Some(Bound { agent, token, fate }) = &change.bound else { return Ok(()) };
        let layout = &self.options.layout;
        let agents =
            agent.as_ref().map_or_else(|| self.agents_with_bound(), |agent| Ok(vec![agent.clone()]))?;
        for agent in &agents {
            let mut bound = self.bound_to(agent, &change.task, *token)?;
            if let BoundFate::Submitted(Some(kind)) = fate {
                let next = self.handed_on(now, record, change, kind, agent)?;
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
        Ok(())
    }

    /// Who has submitted anything within tasks.
    fn agents_with_bound(&self) -> io::Result<Vec<AgentName>> {
        let found = self.list_if_any(&self.options.layout.bound_dir())?;
        Ok(found.iter().filter_map(|entry| entry.name.parse().ok()).collect())
    }

    /// The tasks that were submitted within one by the owner with this token.
    ///
    /// # Errors
    /// With the directory, if it cannot be listed for the moment: that there are none is not known then.
    pub(super) fn bound_to(
        &self,
        agent: &AgentName,
        task: &TaskId,
        token: u64,
    ) -> io::Result<BTreeSet<TaskId>> {
        let found = self.list_if_any(&self.options.layout.bound_of(agent))?;
        let names = found.iter().filter_map(|entry| Layout::bound_name(&entry.name));
        Ok(names.filter(|(of, with, _)| of == task && *with == token).map(|(.., new)| new).collect())
    }

    /// The entries of a directory that an agent may have made anything of: what is none, or is closed to us, holds
    /// nothing.
    fn list_if_any(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let is_none = [io::ErrorKind::NotADirectory, io::ErrorKind::PermissionDenied];
        self.store.list(dir, LISTED_MAX).or_else(|error| {
            let why = format!("{}: {error}", dir.display());
            if is_none.contains(&error.kind()) {
                log::error!("{why}; nothing is taken from it");
                return Ok(Vec::new());
            }
            Err(io::Error::new(error.kind(), why))
        })
    }

    /// The task as which a result is handed on.
    ///
    /// # Errors
    /// If the result cannot be read for the moment.
    fn handed_on(
        &self,
        now: Now,
        record: &TaskRecord,
        change: &RecordChange,
        kind: &Kind,
        by: &AgentName,
    ) -> io::Result<TaskRecord> {
        let layout = &self.options.layout;
        let from = match &change.output {
            Some(Output::HandedIn(agent, token)) => layout.output(agent, &record.id, *token),
            Some(Output::Judged) | None => layout.result_on(Shelf::Review, &record.id),
        };
        let payload = match self.store.read(&from, HANDED_ON_LEN_MAX) {
            Ok(blob) => payload_of(&blob.bytes),
            Err(ReadError::Missing) => Some(Box::default()),
            Err(ReadError::Io(error)) if error.kind() != io::ErrorKind::PermissionDenied => {
                return Err(error);
            }
            Err(_) => None,
        };
        let id = id_from_key(kind, &format!("then {} {}", record.id, record.nonce));
        let nonce = format!("{}-then", record.nonce);
        let wishes = Wishes {
            priority: record.wishes.priority,
            group: record.wishes.group.clone(),
            ..Wishes::default()
        };
        let with = |payload| {
            let (id, nonce, wishes) = (id.clone(), nonce.clone(), wishes.clone());
            TaskRecord::submission(id, nonce, kind.clone(), now.wall, by.to_string(), payload, wishes)
        };
        let whole = payload.map(with).filter(|next| record::encode(next).len() as u64 <= RECORD_LEN_MAX);
        // What is no text, or too long for a record, is told by its place.
        Ok(whole.unwrap_or_else(|| {
            let file = layout.result(&record.id).display().to_string();
            let place = serde_json::value::to_raw_value(&serde_json::json!({ "output_file": file }));
            with(place.unwrap_or_default())
        }))
    }

    /// Decides about the tasks that owners submitted within theirs, where a crash came before that was done: those of
    /// a task that is done are submitted, those of a claim that came to nothing are dropped.
    ///
    /// # Errors
    /// If it cannot be told for the moment which there are.
    pub(super) fn settle_bound(&self) -> io::Result<()> {
        let layout = &self.options.layout;
        for agent in self.agents_with_bound()? {
            for file in self.list_if_any(&layout.bound_of(&agent))? {
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
        Ok(())
    }
}

/// A result as a task's payload: as it is, byte for byte, if it is JSON, and else the text; nothing if it is neither.
fn payload_of(bytes: &[u8]) -> Option<Box<RawValue>> {
    let text = std::str::from_utf8(bytes).ok()?;
    one_line_json(text).or_else(|_| serde_json::value::to_raw_value(text)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_handed_on_byte_for_byte_and_other_text_as_a_string() {
        let payload = |bytes: &[u8]| payload_of(bytes).map(|raw| raw.get().to_owned());
        let precise = r#"{"b": 1.10, "a":123456789012345678901234567890,"a":"\u00e9"}"#;
        assert_eq!(payload(format!("\n{precise}\n").as_bytes()).as_deref(), Some(precise));
        assert_eq!(payload(b"[1,\n 2]").as_deref(), Some("[1,  2]"), "a record is one line");
        assert_eq!(payload(b"two\nlines").as_deref(), Some(r#""two\nlines""#));
        assert_eq!(payload(b"\xff"), None);
        let deep = "[".repeat(200) + &"]".repeat(200);
        assert_eq!(payload(deep.as_bytes()), Some(format!("\"{deep}\"")), "no parser takes that");
    }
}
