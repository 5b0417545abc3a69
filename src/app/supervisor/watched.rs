//! What jobs watch: which files are others than those that they have handled, and what a run is told of them.
//!
//! Nothing hangs on a hint: whatever differs from what was given to a run that ended well is a change, however long
//! ago it came and whoever supervised then.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::app::reach::Reach;
use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::{ReadError, Store};
use crate::edge::watches::{Area, Scope, Touch};
use crate::edge::writer::{Change as Write, Job};
use crate::machine::event::Event;
use crate::protocol::layout::{Layout, Shelf};
use crate::protocol::manifest::Manifest;
use crate::protocol::name::{AgentName, TaskId};
use crate::protocol::record::{self, VERSION};
use crate::protocol::task::{TaskRecord, WATCH, Wishes, id_from_key};
use crate::protocol::time::{Mono, Now};
use crate::protocol::trigger::{Change, Changed, Changes, HandledFiles};

use super::{Helpers, Supervisor};

/// The most bytes that a firing's payload takes; what is told of in the next run does not count.
const PAYLOAD_LEN_MAX: usize = 512 * 1024;
/// How long a file that is being written is left alone, if nobody says that it is whole.
const WRITING_MS: u64 = 1_000;
/// How long it is between two looks at what one job watches, at least.
const PACE_MS: u64 = 100;

/// What one job watches.
#[derive(Debug)]
pub(super) struct Watched {
    reach: Reach,
    /// What was given to runs which ended well.
    handled: HandledFiles,
    /// The changes that the machine was told of last.
    told: Vec<Changed>,
    looked: Mono,
    /// When to look again.
    pub(super) due: Option<Mono>,
}

impl Watched {
    fn changes(&self, store: &impl Store, layout: &Layout) -> Result<Vec<Changed>, String> {
        let found = self.reach.files(store, layout).map_err(|problem| problem.reason)?;
        // What no text names cannot be told of.
        let found: BTreeMap<String, String> =
            found.into_iter().filter_map(|(path, is)| Some((path.to_str()?.to_owned(), is))).collect();
        let new = found.iter().filter_map(|(path, version)| {
            let change = match self.handled.files.get(path) {
                None => Change::Created,
                Some(before) if before != version => Change::Changed,
                Some(_) => return None,
            };
            Some(Changed { path: path.clone(), change, version: Some(version.clone()) })
        });
        let gone = self.handled.files.keys().filter(|path| !found.contains_key(*path));
        let gone = gone.map(|path| Changed { path: path.clone(), change: Change::Removed, version: None });
        Ok(new.chain(gone).collect())
    }

    fn handle(&mut self, changes: Changes) {
        self.handled.firings = self.handled.firings.saturating_add(1);
        for Changed { path, version, .. } in changes.changed {
            match version {
                Some(version) => drop(self.handled.files.insert(path, version)),
                None => drop(self.handled.files.remove(&path)),
            }
        }
    }
}

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// A version of an agent counts from now on: what it watches is watched, and nothing else.
    pub(super) fn watch_for(&mut self, now: Now, agent: &AgentName, manifest: Option<&Manifest>) {
        let before = self.watched.remove(agent);
        let globs = manifest.map_or(&[][..], |manifest| &manifest.triggers.watch);
        if globs.is_empty() {
            return;
        }
        let reach = match Reach::new("watch", globs) {
            Ok(reach) => reach,
            Err(problem) => {
                return self.alert(
                    now,
                    format!("watch-{agent}"),
                    format!("{}; {}", problem.reason, problem.remedy),
                );
            }
        };
        let handled = match before {
            Some(before) => before.handled,
            None => match self.read_handled(agent) {
                Ok(handled) => handled,
                Err(why) => return self.alert(now, format!("watch-{agent}"), why),
            },
        };
        let watched = Watched { reach, handled, told: Vec::new(), looked: now.mono, due: Some(now.mono) };
        self.watched.insert(agent.clone(), watched);
    }

    fn read_handled(&self, agent: &AgentName) -> Result<HandledFiles, String> {
        let path = self.options.layout.handled_files(agent);
        let told = |why: String| {
            format!(
                "{}: {why}; {agent} is told of no changes; mv it away, and all of them count as new",
                path.display()
            )
        };
        match self.store.read(&path, HandledFiles::LEN_MAX) {
            Ok(blob) => record::decode(&blob.bytes).map_err(|error| told(error.to_string())),
            Err(ReadError::Missing) => Ok(HandledFiles { v: VERSION, firings: 0, files: BTreeMap::new() }),
            Err(error) => Err(told(error.to_string())),
        }
    }

    /// The directories that jobs watch.
    pub(super) fn watched_dirs(&self) -> BTreeSet<(PathBuf, Area, Scope)> {
        let layout = &self.options.layout;
        let dirs = self.watched.values().flat_map(|watched| watched.reach.watched(layout));
        dirs.map(|(path, scope)| (path, Area::Watched, scope)).collect()
    }

    /// Something happened to a file that jobs may watch.
    pub(super) fn watched_touched(&mut self, now: Now, path: &Path, touch: Touch) {
        let layout = &self.options.layout;
        let is_below =
            |watched: &Watched| watched.reach.watched(layout).any(|(dir, _)| path.starts_with(dir));
        for watched in self.watched.values_mut().filter(|watched| is_below(watched)) {
            let at = match touch {
                Touch::Whole | Touch::Gone => now.mono.max(watched.looked.plus(PACE_MS)),
                Touch::Begun => now.mono.plus(WRITING_MS),
            };
            watched.due = Some(watched.due.map_or(at, |due| due.min(at)));
        }
    }

    pub(super) fn look_at_all_watched(&mut self, now: Now) {
        self.watched.values_mut().for_each(|watched| watched.due = Some(now.mono));
    }

    /// Looks at what jobs watch, where that is due.
    pub(super) fn look_at_watched(&mut self, now: Now) {
        let is_due = |watched: &Watched| watched.due.is_some_and(|due| due <= now.mono);
        let due = self.watched.iter().filter(|(_, watched)| is_due(watched));
        for agent in due.map(|(agent, _)| agent.clone()).collect::<Vec<_>>() {
            let Some(watched) = self.watched.get_mut(&agent) else { continue };
            (watched.due, watched.looked) = (None, now.mono);
            let changes = match watched.changes(&self.store, &self.options.layout) {
                Ok(changes) => changes,
                Err(why) => {
                    log::error!("{agent}: {why}; it is looked at again");
                    continue;
                }
            };
            if watched.told == changes {
                continue;
            }
            let event = if changes.is_empty() { Event::FilesSettled } else { Event::FilesChanged };
            watched.told = changes;
            self.step(now, event(agent));
        }
    }

    /// Has a firing submitted that is given what changed. Until that is handled, of the same changes it is the same
    /// task.
    pub(super) fn fire_changes(&mut self, now: Now, agent: &AgentName) {
        let Some(watched) = self.watched.get_mut(agent) else { return };
        // What an earlier supervisor left waiting nobody has looked at yet.
        match watched.changes(&self.store, &self.options.layout) {
            Ok(changes) => watched.told = changes,
            Err(why) => {
                watched.told.clear();
                watched.due = Some(now.mono.plus(WRITING_MS));
                return log::error!("{agent}: {why}; it is looked at again");
            }
        }
        if watched.told.is_empty() {
            return;
        }
        let changes = fitting(watched.told.clone());
        let Ok(payload) = serde_json::value::to_raw_value(&changes) else { return };
        let id = id_from_key(agent, &format!("{} {payload}", watched.handled.firings));
        if let Ok(Some(_)) = self.read_ended(Shelf::Done, &id) {
            // A crash came between its end and the note of what it had handled.
            return self.handled(now, agent, changes);
        }
        // After a run that failed it is another submission: the next life of the same task.
        let lives = self.read_ended(Shelf::Dead, &id).ok().flatten().map_or(0, |dead| dead.token);
        let nonce = format!("{id}-{lives}");
        let (kind, by) = (agent.clone(), WATCH.to_owned());
        let record = TaskRecord::submission(id, nonce, kind, now.wall, by, payload, Wishes::default());
        self.fired.push(record);
    }

    /// A firing ended. What it was given is handled, if it ended well.
    pub(super) fn firing_ended(&mut self, now: Now, agent: &AgentName, task: &TaskId, well: bool) {
        let Some(watched) = self.watched.get_mut(agent) else { return };
        watched.told.clear();
        watched.due = Some(now.mono);
        if well
            && let Ok(Some(record)) = self.read_ended(Shelf::Done, task)
            && let Ok(changes) = serde_json::from_str(record.payload.get())
        {
            self.handled(now, agent, changes);
        }
    }

    fn handled(&mut self, now: Now, agent: &AgentName, changes: Changes) {
        let Some(watched) = self.watched.get_mut(agent) else { return };
        watched.handle(changes);
        watched.due = Some(now.mono);
        watched.told.clear();
        let bytes = record::encode(&watched.handled);
        let path = self.options.layout.handled_files(agent);
        self.helpers.write(Job { then: vec![Write::Write { path, bytes }], ..Job::default() });
    }
}

/// As many of the changes as a payload holds.
fn fitting(mut changed: Vec<Changed>) -> Changes {
    let mut room = PAYLOAD_LEN_MAX;
    let len = |change: &Changed| serde_json::to_vec(change).map_or(0, |bytes| bytes.len() + 1);
    let count = changed
        .iter()
        .take_while(|change| {
            let fits = room.checked_sub(len(change));
            room = fits.unwrap_or(0);
            fits.is_some()
        })
        .count();
    let more = changed.len() - count;
    changed.truncate(count);
    Changes { changed, more }
}
