//! What agents and commands handed in, looked at: submissions, locks, outcomes.
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
use crate::edge::writer::{Change, Job};
use crate::machine::event::{Ended, HandedIn, Submission};
use crate::machine::{Effect, Event};
use crate::protocol::layout::{LOCK_EXT, RECORD_EXT};
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Name, TaskId};
use crate::protocol::record::{self, RECORD_LEN_MAX, RecordError, SMALL_LEN_MAX, VERSION};
use crate::protocol::request::Answer;
use crate::protocol::task::{Lock, NEEDS_MAX, Outcome, Phase, TaskRecord, parse_outcome_name};
use crate::protocol::time::Now;

use super::jobs::aside;
use super::perform::{Unread, unreadable};
use super::{Helpers, Place, SECOND_LOOK_MS, Supervisor};

/// The most entries of one directory that are listed at a time.
pub(super) const LISTED_MAX: usize = 200_000;
/// The most files that one turn reads of each kind; the rest waits for the next turn.
pub(super) const READ_MAX: usize = 256;

/// What became of reading a file that somebody else wrote.
pub(super) enum Reading<T> {
    Whole(T),
    /// Not there, or to be looked at once more.
    Nothing,
    Bad(String),
}

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// The files to read in this turn: those pointed at, and all there are where that was asked for.
    /// What a job is about to take away is looked at once that has ended.
    pub(super) fn files(&self, all: bool, dir: &Path, hinted: &mut BTreeSet<PathBuf>) -> Vec<PathBuf> {
        if (all || !hinted.is_empty()) && !self.is_directory(dir) {
            hinted.clear();
            return Vec::new();
        }
        if all {
            match self.store.list(dir, LISTED_MAX) {
                Ok(found) => {
                    let found = found.into_iter().filter(|entry| entry.name != "answers");
                    let found = found.map(|entry| dir.join(entry.file_name));
                    hinted.extend(found.filter(|path| !self.to_look_at.put_off.contains(path)));
                }
                Err(error) => log::error!("{}: {error}", dir.display()),
            }
        }
        let mut files = Vec::new();
        while files.len() < READ_MAX
            && let Some(path) = hinted.pop_first()
        {
            if !self.is_leaving(&path) {
                files.push(path);
            }
        }
        files
    }

    /// Whether a directory is one, and no link to somebody else's: what lies behind a link is not ours to put aside.
    fn is_directory(&self, dir: &Path) -> bool {
        match self.store.stat(dir) {
            Ok(Some(found)) if found.is_directory() => true,
            Ok(Some(_)) => {
                log::error!("{}: not a directory; nothing is taken from it", dir.display());
                false
            }
            // What is gone is told by the watch on it, and what lies there by the next scan.
            Ok(None) => false,
            Err(error) => {
                log::error!("{}: {error}", dir.display());
                false
            }
        }
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
            match self.read_record::<TaskRecord>(now, &path, RECORD_LEN_MAX * 2) {
                Reading::Whole(record) if record.id == id => drop(self.submission(now, record)),
                Reading::Whole(_) => self.reject(now, &path, "submission", "its id is not its file's name"),
                Reading::Nothing => {}
                Reading::Bad(why) => self.reject(now, &path, "submission", &why),
            }
        }
        self.to_look_at.new_tasks.append(&mut hinted);
    }

    /// Has a submission decided about.
    /// False if it cannot be told for the moment what its id stands for: the next look asks again.
    pub(super) fn submission(&mut self, now: Now, mut record: TaskRecord) -> bool {
        let id = record.id.clone();
        // The scan finds it, once it is known what its id stands for.
        if self.unread.contains_key(&id) {
            return false;
        }
        let ended = match self.ended_record(&id) {
            Ok(ended) => ended.map(|(shelf, record)| Ended {
                shelf,
                nonce: record.nonce,
                token: record.token,
                unique_until: record.unique_until,
            }),
            // Whether it is a duplicate cannot be told; the next scan asks again.
            Err(why) => {
                log::error!("{why}; task {id} is looked at again");
                return false;
            }
        };
        if record.wishes.needs.len() > NEEDS_MAX {
            let path = self.options.layout.new_task(&id);
            let why = format!("it needs {} tasks, where {NEEDS_MAX} are allowed", record.wishes.needs.len());
            self.reject(now, &path, "submission", &why);
            return true;
        }
        // What nests deeper than any handler's parser goes is refused here, not handed on.
        if let Err(error) = serde_json::from_str::<Value>(record.payload.get()) {
            let path = self.options.layout.new_task(&id);
            self.reject(now, &path, "submission", &format!("its payload: {error}"));
            return true;
        }
        let needs = match self.needs_of(&record) {
            Ok(needs) => needs,
            Err(why) => {
                log::error!("{why}; task {id} is looked at again");
                return false;
            }
        };
        let was_admitted = record.token > 0 || record.state != Phase::New;
        // Whoever moved it back wants it done: it would be a dead letter again at once.
        if let Some(at) = was_admitted.then(|| record.wishes.no_longer_expires(now.wall)).flatten() {
            log::info!("task {id} is replayed; it expired at {at}, and does so no more");
        }
        let told = self
            .admissions
            .remove(&id)
            .filter(|told| told.nonce == record.nonce && told.token > record.token);
        let submission = Submission {
            id: id.clone(),
            nonce: record.nonce.clone(),
            kind: record.kind.clone(),
            by: record.by.clone(),
            at: record.at,
            wishes: record.wishes.clone(),
            needs,
            replayed: was_admitted.then_some(record.token),
            ended,
            told: told.map(|told| told.token),
        };
        self.incoming.insert(id.clone(), record);
        self.step(now, Event::Submitted(submission));
        self.incoming.remove(&id);
        true
    }

    pub(super) fn look_at_locks(&mut self, now: Now) {
        if self.to_look_at.places.remove(&Place::Locks) {
            let dir = self.options.layout.tasks();
            match self.store.list(&dir, LISTED_MAX) {
                Ok(found) => {
                    let names = || found.iter().map(|entry| Path::new(&entry.name));
                    self.to_look_at.locks.extend(names().filter_map(lock_of));
                    for task in names().filter_map(|name| stem_of(name, RECORD_EXT)) {
                        self.clear_ended(&task);
                    }
                }
                Err(error) => log::error!("{}: {error}", dir.display()),
            }
            for (task, agent) in std::mem::take(&mut self.unlooked) {
                self.look_again_for_outcomes(now, &task, &agent);
            }
            self.settle_bound();
        }
        for _ in 0..READ_MAX {
            let Some(task) = self.to_look_at.locks.pop_first() else { break };
            self.look_at_lock(now, &task);
        }
    }

    /// Reads a task's lock, unless the machine knows who holds it. False if the disk does not tell for the moment:
    /// then nobody knows.
    pub(super) fn look_at_lock(&mut self, now: Now, task: &TaskId) -> bool {
        if !self.state.expects_lock(task) || self.unread.contains_key(task) {
            return true;
        }
        let path = self.options.layout.lock(task);
        if self.is_leaving(&path) {
            return true;
        }
        if self.leaving.is_full() && !self.state.is_open(task) {
            self.to_look_at.put_off.insert(path);
            return true;
        }
        let lock = match self.read_lock(task) {
            Ok(Some(lock)) => lock,
            Ok(None) => return true,
            Err(error) => {
                log::error!("{}: {error}; it is looked at again", path.display());
                return false;
            }
        };
        if lock.as_ref().is_ok_and(|lock| self.is_settled(lock)) {
            // A crash came between the end of its task and its removal.
            let last = vec![Change::Remove { path: path.clone() }];
            self.take_away(&path, Job { last, ..Job::default() });
            return true;
        }
        self.step(now, Event::LockSeen(task.clone(), lock));
        true
    }

    /// A task's lock, or why it is none; nothing if there is none, an error if the disk does not tell.
    pub(super) fn read_lock(&self, task: &TaskId) -> io::Result<Option<Result<Lock, String>>> {
        let path = self.options.layout.lock(task);
        match self.store.read(&path, SMALL_LEN_MAX) {
            Ok(blob) => {
                let lock = record::decode::<Lock>(&blob.bytes).map_err(|error| error.to_string());
                Ok(Some(lock.and_then(|lock| {
                    if lock.task == *task { Ok(lock) } else { Err(format!("it names task {}", lock.task)) }
                })))
            }
            Err(ReadError::Io(error)) if error.kind() != io::ErrorKind::PermissionDenied => Err(error),
            Err(error) => Ok(unreadable(&path, error).map(Err)),
        }
    }

    /// True if the claim that made this lock was decided, and the task ended.
    fn is_settled(&self, lock: &Lock) -> bool {
        let ended = || self.ended_record(&lock.task);
        !self.state.is_open(&lock.task)
            && ended()
                .is_ok_and(|ended| ended.is_some_and(|(_, record)| record.decided.contains(&lock.nonce)))
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
                        let found = found.into_iter().map(|entry| dir.join(entry.file_name));
                        let look = &mut self.to_look_at;
                        look.outcomes.extend(found.filter(|path| !look.put_off.contains(path)));
                    }
                    Err(error) => log::error!("{}: {error}", dir.display()),
                }
            }
        }
        for _ in 0..READ_MAX {
            let Some(path) = self.to_look_at.outcomes.pop_first() else { break };
            let agent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
            let Some(agent) = agent else { continue };
            if self.is_leaving(&path) {
                continue;
            }
            if path.parent().and_then(Path::parent) != Some(self.options.layout.outcomes().as_path())
                || !self.is_directory(&self.options.layout.outcomes_of(&agent))
            {
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
        // The next scan finds it, once the task can be read.
        if self.unread.contains_key(&task) {
            return None;
        }
        // The claim comes before its outcome, in whichever order the hints arrived; without a lock the token alone
        // would do. The next scan finds it, once the lock can be read.
        if !self.look_at_lock(now, &task) {
            return None;
        }
        match self.handed_in(agent, outcome) {
            Ok(event) => Some(event),
            Err(why) => {
                log::error!("{why}; {} is looked at again", path.display());
                None
            }
        }
    }

    fn handed_in(&self, agent: &AgentName, outcome: Outcome) -> Result<Event, String> {
        // After a crash there may be two records, of which one is to go.
        let open = match self.read_task(&outcome.task) {
            Ok(record) => Some(record),
            Err(Unread::Lost(_)) => None,
            Err(Unread::ForNow(why)) => return Err(why),
        };
        let ended = self.ended_record(&outcome.task)?.map(|(_, record)| record);
        let mut records = open.into_iter().chain(ended);
        let decided = records.any(|record| record.decided.contains(&outcome.nonce));
        // Its handler may go on for long; what it says later is of no try.
        let handler = self.state.handler_of(&outcome.task).filter(|_| !decided && outcome.tells_of_failure());
        let words = handler.map(|run| self.last_words(run)).unwrap_or_default();
        Ok(Event::OutcomeSeen(HandedIn { agent: agent.clone(), outcome, decided, words }))
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
        outcome.map(|outcome| self.handed_in(agent, outcome).map_err(io::Error::other)).transpose()
    }

    fn look_again_for_outcomes(&mut self, now: Now, task: &TaskId, agent: &AgentName) {
        // Somebody else may hold it by now.
        if !self.look_at_lock(now, task) {
            self.unlooked.insert((task.clone(), agent.clone()));
            return;
        }
        let mut events = VecDeque::new();
        let effect = Effect::LookForOutcomes(task.clone(), agent.clone());
        self.perform(now, effect, &mut events);
        for event in events {
            self.step(now, event);
        }
    }

    /// Reads one record of somebody else's.
    pub(super) fn read_record<T: serde::de::DeserializeOwned>(
        &mut self,
        now: Now,
        path: &Path,
        max: u64,
    ) -> Reading<T> {
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
        // One that was just taken away is pointed at once more, and a name alone, which is judged unread, would be
        // rejected again and again.
        if !self.is_there(path) {
            return;
        }
        // A record is looked at once, at the start; whatever else is put off is pointed at again.
        if self.leaving.is_full() && what != "task" {
            self.to_look_at.put_off.insert(path.into());
            return;
        }
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

pub(super) fn stem_of(path: &Path, ending: &str) -> Option<Name> {
    let right = path.extension().is_some_and(|found| found == ending);
    if right { path.file_stem()?.to_str()?.parse().ok() } else { None }
}

/// The task that a file's name says it is the lock of.
pub(super) fn lock_of(path: &Path) -> Option<TaskId> {
    stem_of(path, LOCK_EXT)
}
