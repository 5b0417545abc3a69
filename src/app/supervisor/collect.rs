//! Messages made into events. What a message only points at is looked at later in the turn, in
//! [`look`](super::look) and [`inbox`](super::inbox).

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::app::logview;
use crate::app::steward::thread::StewardReport;
use crate::edge::clock::Clock;
use crate::edge::processes::{Order, Processes, Report};
use crate::edge::pump::{PumpReport, last_lines};
use crate::edge::signals::SignalEvent;
use crate::edge::store::Store;
use crate::edge::watchdog::{Sighting, Subject};
use crate::edge::watches::{Area, Hint, Touch};
use crate::edge::writer::Done;
use crate::edge::writer_thread::WriterReport;
use crate::machine::Event;
use crate::protocol::layout::RECORD_EXT;
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, RunId};
use crate::protocol::task::OUTPUT_KEPT_LEN_MAX;
use crate::protocol::time::Now;

use super::inbox::{lock_of, stem_of};
use super::look::writing_warning;
use super::opening::make_directories;
use super::{AGENTS_PACE_MS, EXTRA_PACE_MS, Helpers, Message, Place, Sight, Supervisor, WATCHES};

/// How many of its last lines of output are evidence.
const EVIDENCE_LINES: usize = 20;

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    pub(super) fn collect(&mut self, now: Now, message: Message) {
        match message {
            Message::Process(report) => self.collect_process(now, report),
            // What lies where state/ was is nobody's: it is neither looked at nor judged by, nor made anew.
            Message::Hint(_) | Message::Sighting(_) if self.sight == Sight::Blind => {}
            Message::Hint(hint) => self.collect_hint(now, hint),
            Message::Sighting(sighting) => self.collect_sighting(now, sighting),
            Message::Writer(report) => self.collect_writer(now, report),
            Message::Steward(report) => self.collect_steward(now, report),
            Message::Pump(PumpReport::Drained { run, .. }) => self.tree_gone(now, &run),
            Message::Pump(PumpReport::Trouble { agent, error }) => {
                log::warn!("the output of {agent} is being dropped: {error}");
            }
            Message::Pump(PumpReport::Recovered { agent, dropped }) => {
                log::info!("the output of {agent} is kept again; {dropped} bytes were dropped");
            }
            Message::Signal(SignalEvent::Stop) => {
                self.step(now, Event::StopAsked("a signal asked for it".into()));
            }
            Message::Signal(SignalEvent::Rescan) => self.look_at_everything(),
        }
    }

    fn collect_process(&mut self, now: Now, report: Report) {
        let event = match report {
            Report::Spawned { run, process } => Event::Spawned(run, process),
            Report::SpawnFailed { run, error, busy } => {
                if let Some(agent) = self.state.agent_of(&run).cloned() {
                    self.processes.close_run(&agent, &run);
                }
                Event::SpawnFailed { run, error, busy }
            }
            Report::Exited { run, ending } => Event::Exited(run, ending),
            Report::TreeGone { run, killed } => {
                let Some(agent) = self.state.agent_of(&run).cloned() else { return };
                if self.sight == Sight::Blind {
                    // What lies where state/ was is nobody's: no log is written or read.
                    return self.step(now, Event::TreeGone(run, killed, String::new()));
                }
                // The run is over once all that it printed is in its log: the last of it may be kept.
                self.closing.insert(run.clone(), killed);
                if self.processes.close_run(&agent, &run) {
                    self.tree_gone(now, &run);
                }
                return;
            }
            Report::TreeStuck { run, left } => Event::TreeStuck(run, left),
            Report::Evidence { run, evidence } => {
                let evidence = self.with_last_lines(&run, evidence);
                Event::EvidenceSeen(run, evidence)
            }
        };
        self.step(now, event);
    }

    fn tree_gone(&mut self, now: Now, run: &RunId) {
        let Some(killed) = self.closing.remove(run) else { return };
        let words = if self.state.wants_words(run) { self.last_words(run) } else { String::new() };
        self.step(now, Event::TreeGone(run.clone(), killed, words));
    }

    /// The last that a run printed, fit for a screen.
    pub(super) fn last_words(&self, run: &RunId) -> String {
        let Some(agent) = self.state.agent_of(run) else { return String::new() };
        let words = logview::last_words(&self.store, &self.options.layout, agent, run, OUTPUT_KEPT_LEN_MAX);
        words.unwrap_or_else(|error| format!("(its log cannot be read: {error})"))
    }

    fn with_last_lines(&self, run: &RunId, evidence: Value) -> Value {
        let agent = self.state.agent_of(run);
        let lines = agent
            .and_then(|agent| last_lines(&self.store, &self.options.layout.log(agent), EVIDENCE_LINES).ok())
            .unwrap_or_default();
        match evidence {
            Value::Object(mut map) => {
                map.insert("last_lines".into(), lines.into());
                Value::Object(map)
            }
            other
            @ (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_)) => {
                serde_json::json!({ "process": other, "last_lines": lines })
            }
        }
    }

    fn collect_hint(&mut self, now: Now, hint: Hint) {
        let look = &mut self.to_look_at;
        match hint {
            Hint::Rescan => {
                log::info!("watches: more changed at once than could be told; everything is looked at");
                self.look_at_everything();
            }
            // Where `state/` is somebody else's by now, nothing is made in it, nor watched.
            Hint::Lost { .. } if self.sight == Sight::Blind => {}
            Hint::Lost { path, .. } => {
                log::warn!("{}: the watched directory was replaced or removed", path.display());
                self.mend_directories();
                self.watch_again();
                self.look_at_everything();
            }
            Hint::Failed(why) => {
                if self.watch_trouble.as_ref() != Some(&why) {
                    log::warn!("watches: {why}; everything is looked at every 30 s instead");
                    self.watch_trouble = Some(why.clone());
                }
                self.warnings.insert(WATCHES.into(), why);
            }
            Hint::Touched { area: Area::Agents, path, touch } => self.agent_file_touched(now, &path, touch),
            Hint::Touched { area, path, touch } => match area {
                Area::Agents | Area::Extra => self.agents_due_in(now, EXTRA_PACE_MS),
                Area::Watched => self.watched_touched(now, &path, touch),
                Area::CrewFile => drop(look.places.insert(Place::CrewFile)),
                Area::State | Area::Stopped => drop(look.places.insert(Place::Switches)),
                Area::Requests if touch == Touch::Gone => {
                    if let Some(id) = stem_of(&path, RECORD_EXT) {
                        self.request_gone(now, id);
                    }
                }
                _ if touch == Touch::Gone => {}
                Area::Requests => drop(look.requests.insert(path)),
                Area::NewTasks => drop(look.new_tasks.insert(path)),
                // A new directory of an agent's, which may have been filled before it was watched.
                Area::Outcomes if path.parent() == Some(self.options.layout.outcomes().as_path()) => {
                    look.places.insert(Place::Outcomes);
                }
                Area::Outcomes => drop(look.outcomes.insert(path)),
                Area::Tasks => look.locks.extend(lock_of(&path)),
                Area::Queue => self.queue_touched(&path),
            },
        }
    }

    /// Has everything looked at that others change, the queues of memory too.
    pub(super) fn look_at_everything(&mut self) {
        self.find_what_was_removed();
        self.to_look_at.look_everywhere();
        self.helpers.remember(None);
    }

    /// Watches all there is to watch, anew. What cannot be watched is told again by a hint.
    pub(super) fn watch_again(&mut self) {
        self.warnings.remove(WATCHES);
        self.helpers.rewatch();
    }

    /// That a directory is gone may not have been told, where more changed at once than could be.
    fn find_what_was_removed(&mut self) {
        let is_gone = |dir: &PathBuf| matches!(self.store.stat(dir), Ok(None));
        if self.options.layout.directories().iter().any(is_gone) {
            self.mend_directories();
            self.watch_again();
        }
    }

    /// Directories of ours that somebody removed are made again; what was in them is found by looking.
    fn mend_directories(&self) {
        if let Err(error) = make_directories(&self.store, &self.options.layout.directories()) {
            log::error!("{error}");
        }
    }

    fn queue_touched(&self, path: &Path) {
        // A new directory of an agent's may have been filled before it was watched: then nothing else is heard.
        let queues = self.options.layout.queues();
        let queue = if path.parent() == Some(&queues) { Some(path) } else { path.parent() };
        let name = queue.and_then(Path::file_name).and_then(|name| name.to_str());
        self.helpers.remember(name.and_then(|name| name.parse().ok()).as_ref());
    }

    /// Has `agents/` looked at: now, or so long after the last look.
    fn agents_due_in(&mut self, now: Now, pace_ms: u64) {
        let due = self.agents_looked.plus(pace_ms).max(now.mono);
        self.agents_due = Some(self.agents_due.map_or(due, |at| at.min(due)));
    }

    fn agent_file_touched(&mut self, now: Now, path: &Path, touch: Touch) {
        self.agents_due_in(now, AGENTS_PACE_MS);
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let Some(agent) = stem.and_then(|stem| stem.parse::<AgentName>().ok()) else { return };
        match touch {
            Touch::Begun => drop(self.being_written.insert(agent, (now.mono, path.into()))),
            Touch::Whole | Touch::Gone => {
                self.warnings.remove(&writing_warning(&agent));
                self.being_written.remove(&agent);
            }
        }
    }

    fn collect_sighting(&mut self, now: Now, sighting: Sighting) {
        let event = match sighting {
            // The first look is a baseline: a file left by an earlier run is no sign of life of this one. (The time
            // of modification is whatever somebody set it to; that of the inode's change is the kernel's.)
            Sighting::Changed { first: true, signature, subject: Subject::Beat(run) } => {
                match self.state.started_at(&run) {
                    Some(started) if signature.ctime_ns > i128::from(started.0) * 1_000_000 => {
                        Event::Beat(run)
                    }
                    _ => return,
                }
            }
            Sighting::Changed { first: true, .. } => return,
            Sighting::Changed { subject: Subject::Beat(run), .. } => Event::Beat(run),
            Sighting::Changed { subject: Subject::Output(run), .. } => Event::Printed(run),
            Sighting::Changed { subject: Subject::Lock(task), .. } => Event::Renewed(task),
            Sighting::Round { canary_alive } => {
                self.expect_round(now);
                let why = "the watchdog cannot see its own beat: no silence is judged";
                if canary_alive {
                    self.warnings.remove("watchdog");
                } else if self.warnings.insert("watchdog".into(), why.into()).is_none() {
                    log::warn!("{why}");
                }
                Event::Round(canary_alive)
            }
            Sighting::Memory { run, bytes, exact, members, .. } => {
                self.processes.order(Order::Seen { run: run.clone(), members });
                Event::Memory { run, bytes, exact }
            }
        };
        self.step(now, event);
    }

    fn collect_writer(&mut self, now: Now, report: WriterReport) {
        match report {
            WriterReport::Done(Done::Stored(ticket)) => {
                if let Some(leaver) = self.leaving.end(ticket) {
                    return self.has_left(now, leaver);
                }
                self.submit_what_counts(now, ticket.0);
                self.step(now, Event::Stored(ticket.0));
            }
            WriterReport::Done(Done::Refused { ticket: Some(ticket), reason }) => {
                match self.leaving.end(ticket) {
                    // It stays, and the next scan finds it.
                    Some(_) => log::error!("not recorded: {reason}"),
                    None => self.step(now, Event::NotStored(ticket.0, reason)),
                }
            }
            WriterReport::Done(Done::Refused { ticket: None, reason }) => {
                log::error!("not recorded: {reason}");
            }
            WriterReport::Failed { ticket, reason } => self.step(now, Event::NotStored(ticket.0, reason)),
            WriterReport::Full(why) => {
                log::error!("there is no room, nothing is acknowledged until there is: {why}");
                self.warnings.insert("disk".into(), format!("there is no room: {why}"));
                self.step(now, Event::StoreFull(true));
            }
            WriterReport::Recovered => {
                log::info!("the disk takes records again");
                self.warnings.remove("disk");
                self.step(now, Event::StoreFull(false));
                // Submissions were left where they are.
                self.to_look_at.places.insert(Place::NewTasks);
            }
            WriterReport::Broken(why) => {
                log::error!("storage failed, nothing more is acknowledged until a restart: {why}");
                self.step(now, Event::StoreBroken(why));
            }
        }
    }

    fn collect_steward(&mut self, now: Now, report: StewardReport) {
        match report {
            StewardReport::Turn { facts, queue_empty, .. } => {
                for fact in facts {
                    if let Fact::UpdateRejected { .. } | Fact::UpdateGap { .. } = fact {
                        log::warn!("{fact}");
                    }
                    self.note(now.wall, fact);
                }
                self.warnings.remove("memory");
                self.step(now, Event::MemoryQueue { empty: queue_empty });
            }
            // Told only at the end, where it is awaited.
            StewardReport::Stopped => {}
            StewardReport::Full(why) => {
                log::error!("memory: updates wait, there is no room: {why}");
                self.warnings.insert("memory".into(), format!("updates wait, there is no room: {why}"));
            }
            StewardReport::Broken(why) => {
                log::error!("memory: storage failed, no update is applied until a restart: {why}");
                self.alert(now, "memory".into(), format!("no update of memory is applied any more: {why}"));
                self.warnings.insert("memory".into(), format!("storage failed: {why}"));
            }
        }
    }
}
