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
use crate::machine::event::Event;
use crate::protocol::layout::{BoundName, Shelf};
use crate::protocol::name::{AgentName, Kind, TaskId};
use crate::protocol::record::{self, OUTPUT_LEN_MAX, RECORD_LEN_MAX, one_line_json};
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

    /// Has the tasks dropped that an owner of this one submitted within it, but for those that it returns: they are to
    /// be submitted once the record is durable. Before that, a power cut may leave them and not the record.
    ///
    /// # Errors
    /// If it cannot be told for the moment which those are: nothing may be decided without them.
    pub(super) fn settle_what_was_bound(
        &self,
        now: Now,
        record: &TaskRecord,
        change: &RecordChange,
        job: &mut Job,
    ) -> io::Result<Vec<(AgentName, BoundName)>> {
        let mut counting = Vec::new();
        let Some(Bound { agent: owner, others, token, fate }) = &change.bound else { return Ok(counting) };
        let layout = &self.options.layout;
        let others = if *others { self.agents_with_bound()? } else { Vec::new() };
        for agent in others.iter().chain(owner).collect::<BTreeSet<_>>() {
            let mut bound = self.bound_to(agent, &change.task, *token)?;
            if let BoundFate::Submitted { nonce, then: Some(kind) } = fate
                && owner.as_ref() == Some(agent)
            {
                let next = self.handed_on(now, record, change, kind, agent)?;
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
                        if mutant!(BoundPublishedEarly) {
                            job.before.push(Change::Link { from, to: layout.new_task(&name.new) });
                        } else {
                            counting.push((agent.clone(), name));
                        }
                        continue;
                    }
                    // That of another claim, whose lock a power cut took, goes.
                    BoundFate::Kept(_) | BoundFate::Submitted { .. } | BoundFate::Dropped => {}
                }
                job.last.push(Change::Remove { path: from });
            }
        }
        Ok(counting)
    }

    /// A record is durable: the tasks that count with it are submitted.
    pub(super) fn submit_what_counts(&mut self, now: Now, ticket: u64) {
        let Some(names) = self.counting.remove(&ticket) else { return };
        self.step(now, Event::Submitting);
        for (agent, name) in names {
            self.settle_one(&agent, &name, true);
        }
    }

    /// Who has submitted anything within tasks.
    fn agents_with_bound(&self) -> io::Result<Vec<AgentName>> {
        let found = self.list_if_any(&self.options.layout.bound_dir())?;
        Ok(found.iter().filter_map(|entry| entry.name.parse().ok()).collect())
    }

    /// The tasks that were submitted within one by owners with this token.
    ///
    /// # Errors
    /// With the directory, if it cannot be listed for the moment: that there are none is not known then.
    pub(super) fn bound_to(
        &self,
        agent: &AgentName,
        task: &TaskId,
        token: u64,
    ) -> io::Result<BTreeSet<BoundName>> {
        let found = self.list_if_any(&self.options.layout.bound_of(agent))?;
        let names = found.iter().filter_map(|entry| BoundName::parse(&entry.name));
        Ok(names.filter(|name| name.task == *task && name.token == token).collect())
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
    pub(super) fn settle_all_bound(&mut self) -> io::Result<()> {
        for agent in self.agents_with_bound()? {
            let found = self.list_if_any(&self.options.layout.bound_of(&agent))?;
            let names = found.iter().filter_map(|entry| BoundName::parse(&entry.name));
            self.unsettled.extend(names.map(|name| (agent.clone(), name)));
        }
        self.settle_bound();
        Ok(())
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
        let waits = its_lock && self.state.token_to_claim(&name.task) == Some(name.token)
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
