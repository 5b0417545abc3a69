//! What the machine wants written, as jobs for the writer.
//!
//! A job is done later than it was decided. What it takes away is still the file that was looked at, because only
//! jobs take files away from where others publish them, and a file has at most one such job at a time: a task has
//! one ticket, and for all else there is [`Leaving`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::Store;
use crate::edge::writer::{Change, Job, Ticket};
use crate::machine::Event;
use crate::machine::effect::RecordChange;
use crate::protocol::layout::Layout;
use crate::protocol::ledger::{Entry, Fact};
use crate::protocol::name::{AgentName, Name, TaskId};
use crate::protocol::record::{self, OUTPUT_LEN_MAX, SMALL_LEN_MAX, VERSION};
use crate::protocol::request::Answer;
use crate::protocol::status::Alert;
use crate::protocol::task::{ATTEMPTS_KEPT_MAX, Phase};
use crate::protocol::time::Now;
use crate::protocol::tokens::Tokens;

use super::perform::say;
use super::{Helpers, Sight, Supervisor};

/// How many decided claims a record names; older ones bear older tokens and are refused for that.
const DECIDED_KEPT_MAX: usize = 16;
/// How many of one name are put aside; from then on the last is replaced.
const COPIES_MAX: u32 = 100;
/// Tickets of jobs that the machine knows nothing of; its own are far below.
const OURS: u64 = 1 << 63;

/// Files that a job is about to take away. Until it has, they are not looked at again: a second job for the same
/// name could take away what somebody published there after the first.
#[derive(Debug, Default)]
pub(super) struct Leaving {
    serial: u64,
    by_ticket: BTreeMap<u64, PathBuf>,
    paths: BTreeSet<PathBuf>,
}

impl Leaving {
    /// A ticket for the job that takes this file away; none if another one does already.
    fn begin(&mut self, path: &Path) -> Option<Ticket> {
        if !self.paths.insert(path.into()) {
            return None;
        }
        self.serial += 1;
        self.by_ticket.insert(OURS | self.serial, path.into());
        Some(Ticket(OURS | self.serial))
    }

    /// The file whose job has ended, if the ticket is one of these.
    pub(super) fn end(&mut self, ticket: Ticket) -> Option<PathBuf> {
        let path = self.by_ticket.remove(&ticket.0)?;
        self.paths.remove(&path);
        Some(path)
    }

    pub(super) fn contains(&self, path: &Path) -> bool {
        self.paths.contains(path)
    }
}

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// Hands over a job that takes away a file which others publish, unless one does already.
    pub(super) fn take_away(&mut self, path: &Path, job: Job) {
        if let Some(ticket) = self.leaving.begin(path) {
            self.helpers.write(Job { ticket: Some(ticket), ..job });
        }
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
        let is_taken = |path: &PathBuf| self.is_there(path);
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
        let (path, bytes) =
            (self.options.layout.tokens(), record::encode(&Tokens { v: VERSION, reserved: up_to }));
        self.helpers.write(Job { before: vec![Change::Write { path, bytes }], ..Job::default() });
    }

    pub(super) fn admit(&mut self, now: Now, ticket: u64, task: &TaskId, token: u64, fact: Fact) {
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

    fn is_there(&self, path: &Path) -> bool {
        // What cannot be looked at may be there.
        self.store.stat(path).map_or(true, |found| found.is_some())
    }

    /// Changes a record: output kept, facts recorded, record written, and only then the lock removed.
    pub(super) fn record(
        &mut self,
        now: Now,
        ticket: u64,
        change: RecordChange,
        events: &mut VecDeque<Event>,
    ) {
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
            let to = layout.result(&change.task);
            if self.is_there(&from) {
                job.before.push(Change::Copy { from, to, max: OUTPUT_LEN_MAX });
            } else if self.is_there(&to) {
                // Of an earlier life of the task, or of a try that a crash cut short.
                job.before.push(Change::Remove { path: to });
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
            // A lock that was lost has no removal either: it would take away the next owner's.
            let lock = layout.lock(&change.task);
            if self.is_there(&lock) {
                // Without a nonce it could not be read, and may be no file at all.
                let aside = nonce.is_empty();
                job.last.push(if aside {
                    self.lock_aside(&change.task)
                } else {
                    Change::Remove { path: lock }
                });
            }
            // What nobody decided, because it came too late to be looked at, is refused and told.
            if change.decided.is_some() {
                job.last.push(Change::Remove { path: layout.outcome(agent, &change.task, *token, nonce) });
            }
            job.last.push(Change::Remove { path: layout.output(agent, &change.task, *token) });
        }
        for fact in change.facts {
            say(&fact);
            job.entries.push(Entry { at: now.wall, fact });
        }
        self.helpers.write(job);
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
        say(&fact);
        let to = self.place_aside(&self.options.layout.refused_outcomes(), &from);
        let mut job = aside(now, &from, &to, reason, fact);
        // While the task bears that token, the output is that of the claim which holds it.
        if self.read_task(task).map_or(true, |record| record.token != token) {
            job.last.push(Change::Remove { path: output });
        }
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
        let first = leaving.begin(a).unwrap();
        assert!(leaving.begin(a).is_none() && leaving.contains(a) && !leaving.contains(b));
        let other = leaving.begin(b).unwrap();
        assert_eq!(leaving.end(first).as_deref(), Some(a));
        assert_eq!(leaving.end(first), None);
        assert!(!leaving.contains(a) && leaving.contains(b));
        let again = leaving.begin(a).unwrap();
        assert!(again != first && again != other);
        assert_eq!(leaving.end(Ticket(1)), None, "one of the machine's");
    }
}
