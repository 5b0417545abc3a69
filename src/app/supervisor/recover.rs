//! What an earlier supervisor left: looked at once, before the first turn.
//!
//! The order matters. Survivors come before locks, so that a lock whose run still lives is not taken for
//! a dead one's. The ledger's tail comes before the tasks: an outcome that it accepted, but that the
//! record does not show, is carried out, not repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::edge::clock::Clock;
use crate::edge::log::Recovery;
use crate::edge::processes::{Processes, Survivor};
use crate::edge::store::{Store, parent};
use crate::edge::writer::{Change, Job};
use crate::machine::Event;
use crate::machine::event::{Accepted, Found};
use crate::protocol::layout::{Kept, Layout, RECORD_EXT};
use crate::protocol::ledger::{Entry, Fact};
use crate::protocol::name::{AgentName, RunId, TaskId};
use crate::protocol::record::{self, SMALL_LEN_MAX, VERSION};
use crate::protocol::task::{Outcome, Verdict};
use crate::protocol::time::Now;
use crate::protocol::tokens::Tokens;

use super::inbox::LISTED_MAX;
use super::{Helpers, Place, Supervisor, ToLookAt};

/// The highest fencing token that may have been given out; 0 in a new crew.
///
/// # Errors
/// If the counter is there and cannot be read: to go on would be to give tokens out again.
pub(super) fn token_floor<S: Store>(store: &S, path: &Path) -> Result<u64, String> {
    if store.stat(path).map_err(|error| format!("{}: {error}", path.display()))?.is_none() {
        return Ok(0);
    }
    let blob = store.read(path, SMALL_LEN_MAX).map_err(|error| format!("{}: {error}", path.display()))?;
    let tokens: Tokens =
        record::decode(&blob.bytes).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(tokens.reserved)
}

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// Takes up what is there: `survivors` is what still runs, `ledger` what was found of the ledger, and
    /// `tail` its end.
    pub fn recover(&mut self, survivors: Vec<Survivor>, ledger: &Recovery, tail: &[(u64, String)]) {
        let now = self.clock.now();
        let (pid, version) = (self.options.me.pid, env!("CARGO_PKG_VERSION").to_owned());
        self.note(now.wall, Fact::SupervisorStarted { pid, version });
        self.clear_views();
        for aside in &ledger.aside {
            let text =
                format!("the ledger was not whole: {} bytes are kept in {}", aside.len, aside.path.display());
            match aside.why {
                // The trace of a crash: what was never acknowledged.
                Kept::Torn => log::warn!("{text}"),
                Kept::Damaged => self.alert(now, "ledger-damaged".into(), text),
            }
        }
        self.clear_files_of_runs(&survivors.iter().map(|survivor| survivor.run.clone()).collect());
        for Survivor { run, agent, root } in survivors {
            log::info!(
                "{agent}: a process of an earlier supervisor runs on (pid {}); it is stopped",
                root.pid
            );
            self.step(now, Event::SurvivorFound(run, agent, root));
        }
        self.recover_finished(now);
        self.look_at_switches(now);
        self.recover_tasks(now, &accepted_in(tail));
        // Before any agent is known, so that nothing is given out that somebody holds.
        self.to_look_at.places.insert(Place::Locks);
        self.look_at_locks(now);
        // Everything else is found by looking, as in any turn.
        self.to_look_at = ToLookAt::everything();
    }

    /// Removes what an earlier supervisor showed. It is derived, and the first turn shows anew what holds; of
    /// what is gone meanwhile, an agent or a ready task, nobody else would take it away.
    fn clear_views(&self) {
        let layout = &self.options.layout;
        let names = |dir: PathBuf| self.store.list(&dir, LISTED_MAX).unwrap_or_default().into_iter();
        let ready =
            names(layout.ready_dir()).filter_map(|entry| Some(layout.ready(&entry.name.parse().ok()?)));
        let status = names(layout.status_dir()).filter_map(|entry| {
            let stem = entry.name.strip_suffix(RECORD_EXT)?.strip_suffix('.')?;
            Some(layout.status(&stem.parse().ok()?))
        });
        for view in ready.chain(status) {
            if let Err(error) = self.store.unlink(&view) {
                log::warn!("{}: {error}", view.display());
            }
        }
    }

    /// Removes the files that were made for runs which are gone, and which nobody was left to remove.
    fn clear_files_of_runs(&self, alive: &BTreeSet<RunId>) {
        let layout = &self.options.layout;
        let agents = self.store.list(&layout.tmp_dir(), LISTED_MAX).unwrap_or_default();
        let agents = agents.into_iter().filter(|entry| entry.name.parse::<AgentName>().is_ok());
        let dirs = agents.map(|entry| layout.tmp_dir().join(entry.name)).chain([layout.status_dir()]);
        for dir in dirs {
            for entry in self.store.list(&dir, LISTED_MAX).unwrap_or_default() {
                if Layout::run_of_file(&entry.name).is_some_and(|run| !alive.contains(&run))
                    && let Err(error) = self.store.unlink(&dir.join(&entry.name))
                {
                    log::warn!("{}: {error}", dir.join(&entry.name).display());
                }
            }
        }
    }

    fn recover_finished(&mut self, now: Now) {
        let dir = self.options.layout.finished_dir();
        for entry in self.store.list(&dir, LISTED_MAX).unwrap_or_default() {
            let Ok(agent) = entry.name.parse::<AgentName>() else { continue };
            let digest = self.store.read(&dir.join(&entry.name), SMALL_LEN_MAX).ok();
            let digest = digest.and_then(|blob| String::from_utf8(blob.bytes).ok());
            if let Some(digest) = digest {
                self.step(now, Event::FinishedBefore(agent, digest.trim().to_owned()));
            }
        }
    }

    fn recover_tasks(&mut self, now: Now, accepted: &BTreeMap<TaskId, Accepted>) {
        let dir = self.options.layout.tasks();
        let entries = match self.store.list(&dir, LISTED_MAX) {
            Ok(entries) => entries,
            Err(error) => {
                log::error!("{}: {error}", dir.display());
                return;
            }
        };
        let ids = entries.iter().filter_map(|entry| {
            entry.name.strip_suffix(RECORD_EXT)?.strip_suffix('.')?.parse::<TaskId>().ok()
        });
        for id in ids {
            self.recover_task(now, &id, accepted.get(&id));
        }
    }

    fn recover_task(&mut self, now: Now, id: &TaskId, accepted: Option<&Accepted>) {
        let record = match self.read_task(id) {
            Ok(record) => record,
            Err(why) => {
                let path = self.options.layout.task(id);
                self.reject(now, &path, "task", &why);
                return;
            }
        };
        if let Some((shelf, ended)) = self.ended_record(id)
            && ended.nonce == record.nonce
        {
            // Two names for one task: a crash came before one was removed. Tokens only rise, so the shelf's
            // record is the later one if the task was about to end, and the earlier if it was replayed.
            let layout = &self.options.layout;
            let shelved = ended.token >= record.token;
            let last = if shelved {
                vec![Change::Remove { path: layout.task(id) }, Change::Remove { path: layout.lock(id) }]
            } else {
                vec![Change::Remove { path: layout.ended(shelf, id) }]
            };
            self.helpers.write(Job { last, ..Job::default() });
            if shelved {
                return;
            }
        }
        let accepted = accepted.filter(|accepted| {
            accepted.outcome.token == record.token && !record.decided.contains(&accepted.outcome.nonce)
        });
        let found = Found {
            id: id.clone(),
            kind: record.kind,
            nonce: record.nonce,
            token: record.token,
            phase: record.state,
            failures: record.failures,
            deferrals: record.deferrals,
            not_before: record.not_before,
            accepted: accepted.cloned(),
        };
        self.step(now, Event::TaskFound(found));
    }
}

/// The ids of the memory updates that the ledger's tail tells of, and whether that tail is all of the ledger.
pub(super) fn updates_in(tail: &[(u64, String)]) -> (BTreeSet<String>, bool) {
    let id = |line: &String| match serde_json::from_str::<Entry>(line) {
        Ok(Entry { fact: Fact::Updated { id, .. }, .. }) => Some(id),
        Ok(_) | Err(_) => None,
    };
    // The ledger's first line is its header.
    (tail.iter().filter_map(|(_, line)| id(line)).collect(), tail.first().is_none_or(|(seq, _)| *seq <= 2))
}

/// The outcomes that the ledger's tail accepted, by task; the last of each counts.
fn accepted_in(tail: &[(u64, String)]) -> BTreeMap<TaskId, Accepted> {
    let mut accepted = BTreeMap::new();
    for (_, line) in tail {
        let Ok(Entry { fact, .. }) = serde_json::from_str::<Entry>(line) else { continue };
        if let Fact::Outcome { task, token, nonce, agent, status, error, next } = fact {
            let status = match status.as_str() {
                "done" => Verdict::Done,
                "retry" => Verdict::Retry,
                _ => Verdict::Failed,
            };
            let outcome = Outcome { v: VERSION, task: task.clone(), token, nonce, status, error };
            accepted.insert(task, Accepted { agent, outcome, dead: next == "dead" });
        }
    }
    accepted
}

/// Makes every directory of the crew's state, and the names of those that were missing durable.
///
/// # Errors
/// The path and the reason.
pub(super) fn make_directories<S: Store>(store: &S, directories: &[PathBuf]) -> Result<(), String> {
    let mut changed = BTreeSet::new();
    for dir in directories {
        let missing = store.stat(dir).map_err(|error| format!("{}: {error}", dir.display()))?.is_none();
        if missing {
            store.create_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
            changed.insert(parent(dir));
        }
    }
    for dir in changed {
        store.sync_dir(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    }
    Ok(())
}

/// Removes the temporary files of an earlier supervisor. Before any thread of this one makes its own there.
pub(super) fn clear_temporary_files<S: Store>(store: &S, dir: &Path) {
    for entry in store.list(dir, LISTED_MAX).unwrap_or_default() {
        if let Err(error) = store.unlink(&dir.join(&entry.name)) {
            log::warn!("{}: {error}", dir.join(&entry.name).display());
        }
    }
}
