//! What agents and commands handed in, looked at: requests, submissions, locks, outcomes.
//!
//! Directories are level-triggered: a hint only says where to look. What others wrote is read under the
//! store's rules for such files; what is malformed goes aside with its reason, what merely ends in the
//! middle gets one second look first.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::{ReadError, Store};
use crate::edge::writer::Change;
use crate::machine::event::{Ended, HandedIn, Submission};
use crate::machine::{Effect, Event};
use crate::protocol::layout::{LOCK_EXT, RECORD_EXT, Shelf};
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Name, TaskId};
use crate::protocol::record::{self, RECORD_LEN_MAX, RecordError, SMALL_LEN_MAX, VERSION};
use crate::protocol::request::{Answer, Request};
use crate::protocol::task::{Lock, Outcome, Phase, TaskRecord, parse_outcome_name};
use crate::protocol::time::Now;

use super::jobs::aside;
use super::perform::unreadable;
use super::{Helpers, Place, SECOND_LOOK_MS, Supervisor};

/// The most entries of one directory that are listed at a time.
pub(super) const LISTED_MAX: usize = 200_000;
/// The most files that one turn reads of each kind; the rest waits for the next turn.
const READ_MAX: usize = 256;

/// What became of reading a file that somebody else wrote.
enum Reading<T> {
    Whole(T),
    /// Not there, or to be looked at once more.
    Nothing,
    Bad(String),
}

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// The files to read in this turn: those pointed at, and all there are where that was asked for.
    /// What a job is about to take away is looked at once that has ended.
    fn files(&self, all: bool, dir: &Path, hinted: &mut BTreeSet<PathBuf>) -> Vec<PathBuf> {
        if all {
            match self.store.list(dir, LISTED_MAX) {
                Ok(found) => {
                    hinted
                        .extend(found.into_iter().filter(|e| e.name != "answers").map(|e| dir.join(e.name)));
                }
                Err(error) => log::error!("{}: {error}", dir.display()),
            }
        }
        let mut files = Vec::new();
        while files.len() < READ_MAX
            && let Some(path) = hinted.pop_first()
        {
            if !self.leaving.contains(&path) {
                files.push(path);
            }
        }
        files
    }

    pub(super) fn look_at_requests(&mut self, now: Now) {
        let all = self.to_look_at.places.remove(&Place::Requests);
        let mut hinted = std::mem::take(&mut self.to_look_at.requests);
        let dir = self.options.layout.requests();
        for path in self.files(all, &dir, &mut hinted) {
            if path.parent() != Some(dir.as_path()) || path == self.options.layout.answers() {
                continue;
            }
            let name = stem_of(&path, RECORD_EXT);
            match self.read_record::<Request>(now, &path, SMALL_LEN_MAX) {
                Reading::Whole(request) if Some(&request.id) == name.as_ref() => {
                    self.step(now, Event::Asked(request));
                }
                Reading::Whole(_) => self.reject(now, &path, "request", "its id is not its file's name"),
                Reading::Nothing => {}
                Reading::Bad(why) => self.reject(now, &path, "request", &why),
            }
        }
        self.to_look_at.requests.append(&mut hinted);
    }

    pub(super) fn look_at_new_tasks(&mut self, now: Now) {
        let all = self.to_look_at.places.remove(&Place::NewTasks);
        let mut hinted = std::mem::take(&mut self.to_look_at.new_tasks);
        let dir = self.options.layout.new_tasks();
        for path in self.files(all, &dir, &mut hinted) {
            let Some(id) = stem_of(&path, RECORD_EXT) else {
                self.reject(now, &path, "submission", "its name is not ID.json");
                continue;
            };
            match self.read_record::<TaskRecord>(now, &path, RECORD_LEN_MAX) {
                Reading::Whole(record) if record.id == id => self.submission(now, record),
                Reading::Whole(_) => self.reject(now, &path, "submission", "its id is not its file's name"),
                Reading::Nothing => {}
                Reading::Bad(why) => self.reject(now, &path, "submission", &why),
            }
        }
        self.to_look_at.new_tasks.append(&mut hinted);
    }

    fn submission(&mut self, now: Now, record: TaskRecord) {
        let id = record.id.clone();
        // What nests deeper than any handler's parser goes is refused here, not handed on.
        if let Err(error) = serde_json::from_str::<Value>(record.payload.get()) {
            let path = self.options.layout.new_task(&id);
            self.reject(now, &path, "submission", &format!("its payload: {error}"));
            return;
        }
        let replayed = record.token > 0 || record.state != Phase::New;
        let submission = Submission {
            id: id.clone(),
            nonce: record.nonce.clone(),
            kind: record.kind.clone(),
            by: record.by.clone(),
            replayed,
            ended: self.ended(&id),
        };
        self.incoming.insert(id.clone(), record);
        self.step(now, Event::Submitted(submission));
        self.incoming.remove(&id);
    }

    /// The record of a task that ended, if one lies on a shelf.
    pub(super) fn ended_record(&self, id: &TaskId) -> Option<(Shelf, TaskRecord)> {
        [Shelf::Done, Shelf::Dead].into_iter().find_map(|shelf| {
            let blob = self.store.read(&self.options.layout.ended(shelf, id), RECORD_LEN_MAX * 2).ok()?;
            Some((shelf, record::decode(&blob.bytes).ok()?))
        })
    }

    fn ended(&self, id: &TaskId) -> Option<Ended> {
        self.ended_record(id).map(|(shelf, record)| Ended { shelf, nonce: record.nonce, at: record.ended })
    }

    pub(super) fn look_at_locks(&mut self, now: Now) {
        if self.to_look_at.places.remove(&Place::Locks) {
            let dir = self.options.layout.tasks();
            match self.store.list(&dir, LISTED_MAX) {
                Ok(found) => self
                    .to_look_at
                    .locks
                    .extend(found.iter().filter_map(|entry| lock_of(Path::new(&entry.name)))),
                Err(error) => log::error!("{}: {error}", dir.display()),
            }
            for (task, agent) in std::mem::take(&mut self.unlooked) {
                self.look_again_for_outcomes(now, &task, &agent);
            }
        }
        for task in std::mem::take(&mut self.to_look_at.locks) {
            self.look_at_lock(now, &task);
        }
    }

    /// Reads a task's lock, unless the machine knows who holds it.
    pub(super) fn look_at_lock(&mut self, now: Now, task: &TaskId) {
        if !self.state.expects_lock(task) {
            return;
        }
        let path = self.options.layout.lock(task);
        if self.leaving.contains(&path) {
            return;
        }
        let lock = match self.store.read(&path, SMALL_LEN_MAX) {
            Ok(blob) => {
                record::decode::<Lock>(&blob.bytes).map_err(|error| error.to_string()).and_then(|lock| {
                    if lock.task == *task { Ok(lock) } else { Err(format!("it names task {}", lock.task)) }
                })
            }
            Err(error) => match unreadable(&path, error) {
                None => return,
                Some(why) => Err(why),
            },
        };
        self.step(now, Event::LockSeen(task.clone(), lock));
    }

    pub(super) fn look_at_outcomes(&mut self, now: Now) {
        if self.to_look_at.places.remove(&Place::Outcomes) {
            let dir = self.options.layout.outcomes();
            let agents = self.store.list(&dir, LISTED_MAX).unwrap_or_else(|error| {
                log::error!("{}: {error}", dir.display());
                Vec::new()
            });
            for agent in agents.iter().filter(|entry| entry.is_dir) {
                let dir = dir.join(&agent.name);
                match self.store.list(&dir, LISTED_MAX) {
                    Ok(found) => {
                        self.to_look_at.outcomes.extend(found.into_iter().map(|e| dir.join(e.name)));
                    }
                    Err(error) => log::error!("{}: {error}", dir.display()),
                }
            }
        }
        for _ in 0..READ_MAX {
            let Some(path) = self.to_look_at.outcomes.pop_first() else { break };
            let agent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
            let Some(agent) = agent else { continue };
            if self.leaving.contains(&path) {
                continue;
            }
            if path.parent().and_then(Path::parent) != Some(self.options.layout.outcomes().as_path()) {
                continue;
            }
            if let Some(event) = self.look_at_outcome(now, &agent, &path) {
                self.step(now, event);
            }
        }
    }

    fn look_at_outcome(&mut self, now: Now, agent: &AgentName, path: &Path) -> Option<Event> {
        let named = path.file_name().and_then(|name| parse_outcome_name(name.to_str()?));
        let Some((task, token, nonce)) = named.map(|(task, token, nonce)| (task, token, nonce.to_owned()))
        else {
            self.reject(now, path, "outcome", "its name is not ID.TOKEN.NONCE.json");
            return None;
        };
        let outcome = match self.read_record::<Outcome>(now, path, SMALL_LEN_MAX) {
            Reading::Whole(outcome) => outcome,
            Reading::Nothing => return None,
            Reading::Bad(why) => {
                self.reject(now, path, "outcome", &why);
                return None;
            }
        };
        if (&outcome.task, outcome.token, &outcome.nonce) != (&task, token, &nonce) {
            self.reject(now, path, "outcome", "it does not say what its name says");
            return None;
        }
        // The claim comes before its outcome, in whichever order the hints arrived.
        self.look_at_lock(now, &task);
        Some(self.handed_in(agent, outcome))
    }

    fn handed_in(&self, agent: &AgentName, outcome: Outcome) -> Event {
        let record = self.read_task(&outcome.task).ok().or_else(|| Some(self.ended_record(&outcome.task)?.1));
        let decided = record.is_some_and(|record| record.decided.contains(&outcome.nonce));
        Event::OutcomeSeen(HandedIn { agent: agent.clone(), outcome, decided })
    }

    /// Reads an outcome that lies there while its owner is gone: it is whole, or never will be. `None` if it
    /// is no outcome of this task; an error if it cannot be told.
    pub(super) fn read_outcome(&self, agent: &AgentName, path: &Path) -> io::Result<Option<Event>> {
        let named = path.file_name().and_then(|name| parse_outcome_name(name.to_str()?));
        let Some((task, token, nonce)) = named else { return Ok(None) };
        let bytes = match self.store.read(path, SMALL_LEN_MAX) {
            Ok(blob) => blob.bytes,
            Err(ReadError::Io(error)) => return Err(error),
            Err(
                ReadError::Missing
                | ReadError::NotRegular(_)
                | ReadError::TooLarge { .. }
                | ReadError::Foreign(_),
            ) => return Ok(None),
        };
        let outcome = record::decode::<Outcome>(&bytes).ok();
        let outcome = outcome.filter(|outcome| {
            (&outcome.task, outcome.token, outcome.nonce.as_str()) == (&task, token, nonce)
        });
        Ok(outcome.map(|outcome| self.handed_in(agent, outcome)))
    }

    fn look_again_for_outcomes(&mut self, now: Now, task: &TaskId, agent: &AgentName) {
        let mut events = VecDeque::new();
        let effect = Effect::LookForOutcomes(task.clone(), agent.clone());
        self.perform(now, effect, &mut events);
        for event in events {
            self.step(now, event);
        }
    }

    /// Reads one record of somebody else's.
    fn read_record<T: serde::de::DeserializeOwned>(&mut self, now: Now, path: &Path, max: u64) -> Reading<T> {
        let blob = match self.store.read(path, max) {
            Ok(blob) => blob,
            Err(error) => return unreadable(path, error).map_or(Reading::Nothing, Reading::Bad),
        };
        match record::decode(&blob.bytes) {
            Ok(record) => {
                self.second_looks.remove(path);
                Reading::Whole(record)
            }
            Err(RecordError::Incomplete(why)) => {
                let first = *self.second_looks.entry(path.into()).or_insert(now.mono);
                if first.plus(SECOND_LOOK_MS) <= now.mono {
                    self.second_looks.remove(path);
                    Reading::Bad(format!("incomplete, also at a second look: {why}"))
                } else {
                    Reading::Nothing
                }
            }
            Err(error @ (RecordError::Newer(_) | RecordError::Malformed(_))) => {
                Reading::Bad(error.to_string())
            }
        }
    }

    /// Puts a file aside that is not what its place says; it costs nothing else.
    pub(super) fn reject(&mut self, now: Now, path: &Path, what: &str, reason: &str) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let layout = &self.options.layout;
        let dir = if what == "outcome" { layout.refused_outcomes() } else { layout.rejected_tasks() };
        let shown: String = name.chars().filter(|c| !c.is_control()).take(200).collect();
        let fact = Fact::Rejected { what: what.into(), name: shown, reason: reason.into() };
        log::warn!("{fact}");
        let mut job = aside(now, path, &self.place_aside(&dir, path), reason, fact);
        if what == "request"
            && let Some(id) = stem_of(path, RECORD_EXT)
        {
            // Whoever asked waits for an answer.
            let answer = Answer { v: VERSION, id: id.clone(), ok: false, text: reason.into() };
            let (path, bytes) = (self.options.layout.answer(&id), record::encode(&answer));
            job.then.push(Change::Write { path, bytes });
        }
        self.take_away(path, job);
    }
}

fn stem_of(path: &Path, ending: &str) -> Option<Name> {
    let right = path.extension().is_some_and(|found| found == ending);
    if right { path.file_stem()?.to_str()?.parse().ok() } else { None }
}

/// The task that a file's name says it is the lock of.
pub(super) fn lock_of(path: &Path) -> Option<TaskId> {
    stem_of(path, LOCK_EXT)
}
