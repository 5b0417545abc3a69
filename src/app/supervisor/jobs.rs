//! What the machine wants written, as jobs for the writer.
//!
//! A job is done later than it was decided. What it takes away is still the file that was looked at, because only
//! jobs take files away from where others publish them, and a file has at most one such job at a time: a task has
//! one ticket, and for all else there is [`Leaving`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::{Signature, Store};
use crate::edge::writer::{Change, Job, Ticket};
use crate::machine::Event;
use crate::machine::effect::RecordChange;
use crate::protocol::layout::{Layout, Shelf};
use crate::protocol::ledger::{Entry, Fact};
use crate::protocol::name::{AgentName, Name, TaskId};
use crate::protocol::record::{self, SMALL_LEN_MAX, VERSION};
use crate::protocol::request::Answer;
use crate::protocol::status::Alert;
use crate::protocol::task::{ATTEMPTS_KEPT_MAX, Lock, Phase, TaskRecord};
use crate::protocol::time::{Mono, Now};
use crate::protocol::tokens::Tokens;

use super::perform::{Unread, say};
use super::{Helpers, Sight, Supervisor};

/// How many decided claims a record names; older ones bear older tokens and are refused for that.
const DECIDED_KEPT_MAX: usize = 16;
/// How many of one name are put aside; from then on the last is replaced.
const COPIES_MAX: u32 = 100;
/// How soon a record is read again that could not be read for the moment.
const POSTPONED_MS: u64 = 2_000;
/// How many files may be on their way out before the rest is put off.
const LEAVING_MAX: usize = 1024;
/// How many files that cannot be taken away are remembered; any more are found again by each scan.
const STAYING_MAX: usize = 4096;
/// After so long one that could not be taken away is tried once more: it may have been the disk's fault.
const STAYING_MS: u64 = 3_600_000;
/// Tickets of jobs that the machine knows nothing of; its own are far below.
const OURS: u64 = 1 << 63;

/// Files that a job is about to take away. Until it has, they are not looked at again: a second job for the same
/// name could take away what somebody published there after the first.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    serial: u64,
    by_ticket: BTreeMap<u64, Leaver>,
    paths: BTreeSet<PathBuf>,
    /// The places that jobs under way put files at: each is free still, and for one only.
    promised: BTreeSet<PathBuf>,
    /// What could not be taken away, as it was then: it is passed over until it changes.
    staying: BTreeMap<PathBuf, (Signature, Mono)>,
}

/// A file that is being taken away, and what it was when that began.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Leaver {
    path: PathBuf,
    was: Option<Signature>,
    /// Where it is put.
    to: Option<PathBuf>,
}

impl Leaving {
    /// A ticket for the job that takes this file away; none if another one does already.
    fn begin(&mut self, path: &Path, was: Option<Signature>, to: Option<PathBuf>) -> Option<Ticket> {
        if !self.paths.insert(path.into()) {
            return None;
        }
        self.serial += 1;
        self.promised.extend(to.clone());
        self.by_ticket.insert(OURS | self.serial, Leaver { path: path.into(), was, to });
        Some(Ticket(OURS | self.serial))
    }

    /// Whether so little is on its way that more may be taken up.
    pub(super) fn has_room(&self) -> bool {
        self.paths.len() <= LEAVING_MAX / 2
    }

    /// Whether so much is on its way that the rest waits where it is: in memory it would take far more room.
    pub(super) fn is_full(&self) -> bool {
        self.paths.len() >= LEAVING_MAX
    }

    /// The file whose job has ended, if the ticket is one of these.
    pub(super) fn end(&mut self, ticket: Ticket) -> Option<Leaver> {
        let leaver = self.by_ticket.remove(&ticket.0)?;
        self.paths.remove(&leaver.path);
        if let Some(to) = &leaver.to {
            self.promised.remove(to);
        }
        Some(leaver)
    }
}

/// How a submission is admitted: see [`Effect::Admit`](crate::machine::Effect::Admit).
#[derive(Debug)]
pub(super) struct Admission {
    pub(super) token: u64,
    pub(super) phase: Phase,
    pub(super) replaces: Option<Shelf>,
    pub(super) fact: Option<Fact>,
}

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// Hands over a job that takes away a file which others publish, unless one does already.
    pub(super) fn take_away(&mut self, path: &Path, job: Job) {
        let was = self.signature(path);
        let to = job.last.iter().find_map(|change| match change {
            Change::Rename { to, .. } => Some(to.clone()),
            Change::Write { .. } | Change::Copy { .. } | Change::Link { .. } | Change::Remove { .. } => None,
        });
        if let Some(ticket) = self.leaving.begin(path, was, to) {
            self.helpers.write(Job { ticket: Some(ticket), ..job });
        }
    }

    /// A job that was to take a file away has ended.
    pub(super) fn has_left(&mut self, now: Now, leaver: Leaver) {
        let Leaver { path, was, .. } = leaver;
        match self.signature(&path) {
            // A directory that we may not change, a mount point, an immutable file: to judge it again at once
            // would be for ever.
            Some(is) if was == Some(is) => {
                log::warn!("{} cannot be taken away; it is passed over until it changes", path.display());
                if self.leaving.staying.len() < STAYING_MAX {
                    self.leaving.staying.insert(path, (is, now.mono));
                }
            }
            // Somebody may have published another there by now, and that hint was passed over.
            Some(_) | None => {
                self.leaving.staying.remove(&path);
                self.point_at(path);
            }
        }
    }

    /// Forgets of files that could not be taken away so long ago that they may be able to go by now.
    pub(super) fn try_staying_again(&mut self, now: Now) {
        self.leaving.staying.retain(|_, (_, since)| now.mono.since(*since) < STAYING_MS);
    }

    /// Whether a file is not to be looked at: it is about to go, or cannot be made to.
    pub(super) fn is_leaving(&self, path: &Path) -> bool {
        let stays =
            || self.leaving.staying.get(path).is_some_and(|(was, _)| self.signature(path) == Some(*was));
        self.leaving.paths.contains(path) || stays()
    }

    fn signature(&self, path: &Path) -> Option<Signature> {
        self.store.stat(path).ok().flatten()
    }

    /// True if an open task's record names the claim that its lock is of: a crash came before the lock was removed,
    /// and there is nothing to be looked at.
    pub(super) fn is_concluded(&self, task: &TaskId) -> bool {
        let blob = self.store.read(&self.options.layout.lock(task), SMALL_LEN_MAX).ok();
        let lock = blob.and_then(|blob| record::decode::<Lock>(&blob.bytes).ok());
        let record = self.read_task(task).ok();
        lock.zip(record).is_some_and(|(lock, record)| record.decided.contains(&lock.nonce))
    }

    /// A lock that gives no right to its task is kept, to be looked at: it may be anything.
    pub(super) fn lock_aside(&self, task: &TaskId) -> Change {
        let layout = &self.options.layout;
        let from = layout.lock(task);
        let to = self.place_aside(&layout.refused_outcomes(), &from);
        Change::Rename { from, to }
    }

    /// Where a file is put aside: under its own name, or one made of it where that is taken or too long. (A
    /// directory that is not empty can be replaced by nothing, and what was put aside before is evidence too.)
    pub(super) fn place_aside(&self, dir: &Path, from: &Path) -> PathBuf {
        let is_taken = |path: &PathBuf| self.leaving.promised.contains(path) || self.is_there(path);
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

    pub(super) fn reserve_tokens(&self, up_to: u64) {
        let (path, bytes) = (self.options.layout.tokens(), record::encode(&Tokens::reserved(up_to)));
        self.helpers.write(Job { before: vec![Change::Write { path, bytes }], ..Job::default() });
    }

    pub(super) fn admit(&mut self, now: Now, ticket: u64, task: &TaskId, admission: Admission) {
        let Some(mut record) = self.incoming.remove(task) else { return };
        let Admission { token, phase, replaces, fact } = admission;
        if record.token > 0 || record.state != Phase::New {
            record.replays = record.replays.saturating_add(1);
            record.wishes.not_before = None;
        }
        record.token = token;
        record.state = phase;
        (record.failures, record.deferrals, record.deaths) = (0, 0, 0);
        (record.ended, record.reason, record.made, record.unique_until) = (None, None, None, None);
        let layout = &self.options.layout;
        let mut last = vec![Change::Remove { path: layout.new_task(task) }];
        if let Some(shelf) = replaces {
            // A dead letter's next life remembers those before.
            if let (Shelf::Dead, Ok(Some(dead))) = (shelf, self.read_ended(shelf, task))
                && record.attempts.is_empty()
            {
                record.attempts = dead.attempts;
                record.replays = record.replays.max(dead.replays.saturating_add(1));
            }
            last.push(Change::Remove { path: layout.result_on(shelf, task) });
            last.push(Change::Remove { path: layout.ended(shelf, task) });
        }
        let (path, bytes) = (layout.task(task), record::encode(&record));
        if let Some(fact) = &fact {
            say(fact);
        }
        self.helpers.write(Job {
            entries: entries(now, fact),
            then: vec![Change::Write { path, bytes }],
            last,
            ticket: Some(Ticket(ticket)),
            ..Job::default()
        });
    }

    pub(super) fn is_there(&self, path: &Path) -> bool {
        // What cannot be looked at may be there.
        self.store.stat(path).map_or(true, |found| found.is_some())
    }

    /// The record that a change is of.
    fn record_to_change(&self, change: &RecordChange) -> Result<TaskRecord, Unread> {
        if !change.reviewed {
            return self.read_task(&change.task);
        }
        let missing = || Unread::Lost("it is not in review any more".into());
        let found = self.read_ended(Shelf::Review, &change.task).map_err(Unread::ForNow)?;
        found.ok_or_else(missing)
    }

    /// Changes a record: output kept, facts recorded, record written, and only then the lock removed.
    pub(super) fn record(
        &mut self,
        now: Now,
        ticket: u64,
        change: RecordChange,
        events: &mut VecDeque<Event>,
    ) {
        let mut record = match self.record_to_change(&change) {
            Ok(record) => record,
            Err(Unread::ForNow(why)) => return self.postpone(now, ticket, change, &why),
            Err(Unread::Lost(why)) => {
                events.push_back(Event::TaskLost(change.task, why));
                return;
            }
        };
        record.token = change.token;
        record.state = change.phase;
        record.failures = change.failures;
        record.deferrals = change.deferrals;
        record.deaths = change.deaths;
        record.wishes.not_before = change.not_before;
        record.reason.clone_from(&change.reason);
        record.made.clone_from(&change.made);
        record.unique_until = change.unique_until;
        keep_last(&mut record.decided, change.decided.clone(), DECIDED_KEPT_MAX);
        keep_last(&mut record.attempts, change.attempt.clone(), ATTEMPTS_KEPT_MAX);
        let layout = &self.options.layout;
        let open = if change.reviewed {
            layout.ended(Shelf::Review, &change.task)
        } else {
            layout.task(&change.task)
        };
        let mut job = Job { ticket: Some(Ticket(ticket)), ..Job::default() };
        self.keep_result(&change, &mut job);
        if let Some((agent, token, nonce)) = &change.settled {
            // Before the record and the lock, because after those a crash leaves nothing that tells of these.
            job.last.push(Change::Remove { path: layout.output(agent, &change.task, *token) });
            // What nobody decided, because it came too late to be looked at, is refused and told.
            if change.decided.is_some() {
                job.last.push(Change::Remove { path: layout.outcome(agent, &change.task, *token, nonce) });
            }
        }
        let target = match change.shelf() {
            Some(shelf) => {
                record.ended = Some(now.wall);
                // Before the lock, because a record that says "ready" without one may be claimed.
                job.last.push(Change::Remove { path: open });
                layout.ended(shelf, &change.task)
            }
            None => open,
        };
        job.then.push(Change::Write { path: target, bytes: record::encode(&record) });
        let counting = match self.settle_what_was_bound(now, &record, &change, &mut job) {
            Ok(counting) => counting,
            Err(error) => return self.postpone(now, ticket, change, &error.to_string()),
        };
        if let Some((_, _, nonce)) = &change.settled {
            // A lock that was lost has no removal either: it would take away the next owner's.
            let lock = layout.lock(&change.task);
            if self.is_there(&lock) {
                // Without a nonce it could not be read, and may be no file at all; nor need it be one where an
                // outcome counts although its lock cannot be read.
                let odd = self.store.stat(&lock).is_ok_and(|found| found.is_some_and(|it| !it.is_regular()));
                let part = if mutant!(LockBeforeToken) { &mut job.before } else { &mut job.last };
                part.push(if odd || nonce.is_empty() {
                    self.lock_aside(&change.task)
                } else {
                    Change::Remove { path: lock }
                });
            }
        }
        for fact in change.facts {
            say(&fact);
            job.entries.push(Entry { at: now.wall, fact });
        }
        if !counting.is_empty() {
            self.counting.insert(ticket, counting);
        }
        self.helpers.write(job);
    }

    fn postpone(&mut self, now: Now, ticket: u64, change: RecordChange, why: &str) {
        log::error!("{why}; what is to be recorded waits");
        self.postponed.push((ticket, change));
        self.postponed_due = Some(now.mono.plus(POSTPONED_MS));
    }

    /// Does what could not be done because a record could not be read for the moment.
    pub(super) fn record_postponed(&mut self, now: Now) {
        if self.postponed_due.take_if(|due| *due <= now.mono).is_none() {
            return;
        }
        let mut events = VecDeque::new();
        for (ticket, change) in std::mem::take(&mut self.postponed) {
            self.record(now, ticket, change, &mut events);
        }
        for event in events {
            self.step(now, event);
        }
    }

    pub(super) fn refuse_outcome(
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
        let to = self.place_aside(&self.options.layout.refused_outcomes(), &from);
        let mut job = aside(now, &from, &to, reason, fact.clone());
        // While the task bears that token, the output is that of the claim which holds it.
        let theirs = match self.read_task(task) {
            Ok(record) => record.token != token,
            // In review it bears that token too.
            Err(Unread::Lost(_)) => self
                .ended_record(task)
                .is_ok_and(|ended| ended.is_none_or(|(_, record)| record.token != token)),
            Err(Unread::ForNow(_)) => false,
        };
        if theirs {
            job.last.push(Change::Remove { path: output });
        }
        let bound = match self.bound_to(agent, task, token) {
            Ok(bound) => bound,
            // It stays where it is, and the next scan finds it.
            Err(error) => return log::error!("{error}; {} is looked at again", from.display()),
        };
        for name in bound.into_iter().filter(|name| theirs || name.nonce == nonce) {
            job.last.push(Change::Remove { path: self.options.layout.bound(agent, &name) });
        }
        say(&fact);
        self.take_away(&from, job);
    }

    pub(super) fn alert(&mut self, now: Now, key: String, text: String) {
        log::warn!("{text}");
        if self.sight == Sight::Blind {
            return;
        }
        let path = self.options.layout.alert(&key);
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

    pub(super) fn answer(&mut self, id: Name, ok: bool, text: String) {
        let layout = &self.options.layout;
        let (path, request) = (layout.answer(&id), layout.request(&id));
        let bytes = record::encode(&Answer { v: VERSION, id, ok, text });
        let last = vec![Change::Remove { path: request.clone() }];
        let then = vec![Change::Write { path, bytes }];
        self.take_away(&request, Job { then, last, ..Job::default() });
    }

    pub(super) fn finished(&self, agent: &AgentName, digest: Option<String>) {
        let path = self.options.layout.finished(agent);
        let mut job = Job::default();
        match digest {
            Some(digest) => job.then.push(Change::Write { path, bytes: format!("{digest}\n").into_bytes() }),
            None => job.last.push(Change::Remove { path }),
        }
        self.helpers.write(job);
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

pub(super) fn entries(now: Now, fact: Option<Fact>) -> Vec<Entry> {
    fact.into_iter().map(|fact| Entry { at: now.wall, fact }).collect()
}

fn keep_last<T>(list: &mut Vec<T>, new: Option<T>, most: usize) {
    list.extend(new);
    let surplus = list.len().saturating_sub(most);
    list.drain(..surplus);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_away_by_one_job_at_a_time() {
        let mut leaving = Leaving::default();
        let (a, b) = (Path::new("/new/a.json"), Path::new("/new/b.json"));
        let first = leaving.begin(a, None, None).unwrap();
        assert!(
            leaving.begin(a, None, None).is_none() && leaving.paths.contains(a) && !leaving.paths.contains(b)
        );
        let other = leaving.begin(b, None, None).unwrap();
        assert_eq!(leaving.end(first), Some(Leaver { path: a.into(), was: None, to: None }));
        assert_eq!(leaving.end(first), None);
        assert!(!leaving.paths.contains(a) && leaving.paths.contains(b));
        let again = leaving.begin(a, None, None).unwrap();
        assert!(again != first && again != other);
        assert_eq!(leaving.end(Ticket(1)), None, "one of the machine's");
    }
}
