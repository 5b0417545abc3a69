//! What is shown at the end of a turn: status files, ready lists, what the watchdog watches.
//!
//! None of it is a truth: all is derived from the machine and written anew at the next start. So it is
//! published whole, but not made durable, and only where it changed.

use std::path::Path;

use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::Store;
use crate::edge::watchdog::{Assignment, Subject, Tree};
use crate::edge::watches::Area;
use crate::protocol::record::{self, VERSION};
use crate::protocol::status::CrewStatus;
use crate::protocol::time::Now;

use super::{Helpers, Supervisor};

/// How long a first change waits for others to be shown with it.
const VIEW_DELAY_MS: u64 = 25;
/// How soon what could not be shown is shown again.
const SHOW_RETRY_MS: u64 = 2_000;

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// Shows what changed. What agents wait for is shown at once; what people read, a moment after the first
    /// change, because one change seldom comes alone.
    pub(super) fn publish(&mut self, now: Now) {
        self.publish_ready();
        self.publish_changed(now);
        self.show_what_was_missed(now);
    }

    fn publish_changed(&mut self, now: Now) {
        let crew = self.crew_status();
        let news = self.state.has_changed()
            || self.shown.watch_changed
            || self.shown.extra_changed
            || !self.shown.forgotten.is_empty()
            || self.shown.crew.as_ref() != Some(&crew);
        if !news {
            // What changed has changed back: to wake for it would be for ever.
            self.shown.due = None;
            return;
        }
        let due = *self.shown.due.get_or_insert(now.mono.plus(VIEW_DELAY_MS));
        if due <= now.mono || self.ended {
            self.shown.due = None;
            self.publish_views(now, crew);
        }
    }

    fn publish_views(&mut self, now: Now, crew: CrewStatus) {
        for agent in self.state.take_changed() {
            if let Some(status) = self.state.agent_status(&agent) {
                let path = self.options.layout.status(&agent);
                self.show(&path, &record::encode(&status));
            }
        }
        for agent in std::mem::take(&mut self.shown.forgotten) {
            if self.state.agent_status(&agent).is_some() {
                continue;
            }
            let path = self.options.layout.status(&agent);
            self.shown.missed.remove(&path);
            if let Err(error) = self.store.unlink(&path) {
                log::warn!("status of {agent}: {error}");
            }
        }
        if self.shown.crew.as_ref() != Some(&crew) {
            let path = self.options.layout.crew_status();
            self.show(&path, &record::encode(&crew));
            self.shown.crew = Some(crew);
        }
        if std::mem::take(&mut self.shown.watch_changed) {
            self.assign(now);
        }
        if std::mem::take(&mut self.shown.extra_changed) {
            let extra = self.catalog.watched().into_iter().map(|(path, scope)| (path, Area::Extra, scope));
            self.helpers.watch_extra(extra.chain(self.watched_dirs()).collect());
        }
    }

    fn publish_ready(&mut self) {
        for kind in std::mem::take(&mut self.shown.ready_changed) {
            let list = self.state.ready_list(&kind);
            let path = self.options.layout.ready(&kind);
            if self.shown.ready.get(&kind).map_or(&[][..], Vec::as_slice) == list {
                continue;
            }
            let mut text = String::new();
            for id in &list {
                text.push_str(id.as_str());
                text.push('\n');
            }
            self.show(&path, text.as_bytes());
            if list.is_empty() {
                self.shown.ready.remove(&kind);
            } else {
                self.shown.ready.insert(kind, list);
            }
        }
    }

    fn crew_status(&self) -> CrewStatus {
        let summary = self.state.summary();
        CrewStatus {
            v: VERSION,
            supervisor: self.options.me.clone(),
            version: env!("CARGO_PKG_VERSION").into(),
            since: self.started,
            state: summary.state,
            warnings: self.warnings.values().cloned().chain(summary.warnings).collect(),
            refusals: self.nameless.values().cloned().collect(),
            tasks_open: summary.tasks_open,
        }
    }

    /// What finds no room is kept: it may not change again for days, and nobody should be shown what was
    /// true before.
    fn show(&mut self, path: &Path, bytes: &[u8]) {
        let temp = self.temp();
        match self.store.publish_volatile(&temp, path, bytes) {
            Ok(()) => drop(self.shown.missed.remove(path)),
            Err(error) => {
                if self.shown.missed.insert(path.into(), bytes.into()).is_none() {
                    log::warn!("{}: {error}; what it shows is not true until that is mended", path.display());
                }
            }
        }
    }

    fn show_what_was_missed(&mut self, now: Now) {
        if self.shown.missed.is_empty() {
            self.shown.again = None;
            return;
        }
        let again = *self.shown.again.get_or_insert(now.mono.plus(SHOW_RETRY_MS));
        if again <= now.mono {
            self.shown.again = Some(now.mono.plus(SHOW_RETRY_MS));
            for (path, bytes) in self.shown.missed.clone() {
                self.show(&path, &bytes);
            }
        }
    }

    fn assign(&mut self, now: Now) {
        let layout = &self.options.layout;
        let (pace_ms, watched) = self.state.watched();
        let mut assignment = Assignment { pace_ms, ..Assignment::default() };
        for run in watched {
            if run.beats {
                assignment.files.push((Subject::Beat(run.run.clone()), layout.heartbeat(&run.agent)));
            }
            if run.output {
                assignment.files.push((Subject::Output(run.run.clone()), layout.log(&run.agent)));
            }
            if let (Some(limit), Some(root)) = (run.max_rss, run.process) {
                assignment.trees.push(Tree { run: run.run, root, limit });
            }
        }
        for task in self.state.watched_locks() {
            let path = layout.lock(&task);
            assignment.files.push((Subject::Lock(task), path));
        }
        if assignment != self.shown.assignment {
            self.helpers.watch(assignment.clone());
            self.shown.assignment = assignment;
            self.expect_round(now);
        }
    }

    /// The watchdog's next round is due one pace from now.
    pub(super) fn expect_round(&mut self, now: Now) {
        let Assignment { files, pace_ms, .. } = &self.shown.assignment;
        self.round_due = (!files.is_empty()).then(|| now.mono.plus(*pace_ms));
    }
}
