//! What the crew declares and what its operator switched, looked at: `nightcrew.toml`, `agents/`, HALT
//! and `stopped/`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::app::catalog::{self, Finding};
use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::Store;
use crate::machine::Event;
use crate::machine::event::Version;
use crate::protocol::display;
use crate::protocol::ledger::Fact;
use crate::protocol::name::AgentName;
use crate::protocol::record::SMALL_LEN_MAX;
use crate::protocol::time::{Mono, Now};

use super::inbox::{LISTED_MAX, READ_MAX, lock_of};
use super::{Helpers, Place, SECOND_LOOK_MS, Supervisor, WRITING_MS};

/// What the warning is filed under that an agent's file is being written.
pub(super) fn writing_warning(agent: &AgentName) -> String {
    format!("writing-{agent}")
}

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// Looks at everything that was pointed at.
    pub(super) fn look(&mut self, now: Now) {
        let due = |first: &Mono| first.plus(SECOND_LOOK_MS) <= now.mono;
        self.point_at_second_looks(due);
        self.take_up();
        if self.to_look_at.places.remove(&Place::CrewFile) {
            self.look_at_crew_file(now);
        }
        if self.to_look_at.places.remove(&Place::Switches) {
            self.look_at_switches(now);
        }
        let pointed_at = self.agents_due.is_some_and(|due| due <= now.mono);
        if self.to_look_at.places.remove(&Place::Agents) || pointed_at || self.writing_is_due(now) {
            self.agents_due = None;
            self.agents_looked = now.mono;
            self.look_at_agents(now);
        }
        self.look_at_watched(now);
        let requests = self.read_requests(now);
        self.look_at_locks(now);
        self.look_at_outcomes(now);
        self.look_at_new_tasks(now);
        self.carry_out(now, requests);
        // Looked at or gone: one that stayed here would be due at once, again and again.
        self.second_looks.retain(|_, first| !due(first));
    }

    /// Has the files looked at whose second look is due, and no others.
    fn point_at_second_looks(&mut self, due: impl Fn(&Mono) -> bool) {
        let paths = self.second_looks.iter().filter(|(_, first)| due(first)).map(|(path, _)| path.clone());
        for path in paths.collect::<Vec<_>>() {
            self.point_at(path);
        }
    }

    /// Whether what was put off can be looked at again: after everything else, so that a flood of what is no
    /// good is read past, and what is good in it or behind it waits for no reason to be written.
    pub(super) fn can_take_up(&self) -> bool {
        !self.to_look_at.put_off.is_empty() && !self.to_look_at.has_files() && self.leaving.has_room()
    }

    fn take_up(&mut self) {
        if !self.can_take_up() {
            return;
        }
        for _ in 0..READ_MAX {
            let Some(path) = self.to_look_at.put_off.pop_first() else { break };
            self.point_at(path);
        }
    }

    /// Has one file looked at that others publish.
    pub(super) fn point_at(&mut self, path: PathBuf) {
        let (layout, look) = (&self.options.layout, &mut self.to_look_at);
        match path.parent() {
            Some(dir) if dir == layout.requests() => drop(look.requests.insert(path)),
            Some(dir) if dir == layout.new_tasks() => drop(look.new_tasks.insert(path)),
            Some(dir) if dir == layout.tasks() => look.locks.extend(lock_of(&path)),
            Some(_) | None => drop(look.outcomes.insert(path)),
        }
    }

    /// What an operator switched: HALT, and which agents are stopped.
    pub(super) fn look_at_switches(&mut self, now: Now) {
        let layout = self.options.layout.clone();
        // Whatever lies there halts, however it was made: it is the name that counts.
        let halt = match self.store.stat(&layout.halt()) {
            Ok(found) => found.map(|_| self.reason_in(&layout.halt())),
            Err(error) => {
                log::error!("{}: {error}", layout.halt().display());
                return;
            }
        };
        self.step(now, Event::HaltSeen(halt));
        match self.store.list(&layout.stopped_dir(), LISTED_MAX) {
            Ok(found) => {
                let names = found.into_iter().filter_map(|entry| entry.name.parse::<AgentName>().ok());
                let stopped: BTreeMap<AgentName, String> =
                    names.map(|name| (name.clone(), self.reason_in(&layout.stopped(&name)))).collect();
                self.step(now, Event::StoppedSeen(stopped));
            }
            Err(error) => log::error!("{}: {error}", layout.stopped_dir().display()),
        }
    }

    fn reason_in(&self, path: &Path) -> String {
        let text = self.store.read(path, SMALL_LEN_MAX).map(|blob| display::clean(&blob.bytes));
        match text.map(|text| text.trim().to_owned()) {
            Ok(text) if !text.is_empty() => text,
            Ok(_) | Err(_) => "no reason was given".into(),
        }
    }

    fn look_at_crew_file(&mut self, now: Now) {
        let parsed = catalog::crew_file(&self.store, &self.options.layout, self.options.owners);
        match parsed {
            Ok(crew_file) => {
                self.warnings.remove("nightcrew.toml");
                if crew_file != self.options.terms.crew_file {
                    self.options.terms.crew_file = crew_file;
                    self.catalog.configure(self.options.terms.clone());
                    self.to_look_at.places.insert(Place::Agents);
                    self.note(
                        now.wall,
                        Fact::Control { what: "nightcrew.toml".into(), why: "it changed".into() },
                    );
                }
            }
            Err(refusal) => {
                let why = format!("{}: {}; {}", refusal.file, refusal.reason, refusal.remedy);
                if self.warnings.insert("nightcrew.toml".into(), why.clone()).as_ref() != Some(&why) {
                    log::warn!("{why}; what it said before is kept");
                }
            }
        }
    }

    /// True if it is time to see whether a touched file is still being written.
    fn writing_is_due(&self, now: Now) -> bool {
        self.writing_check.is_some_and(|at| at <= now.mono)
    }

    /// A file that was touched, but not closed, is still being written if somebody has it open for that.
    /// (A link is never closed. A close that was not seen is found here too, at the latest in the next scan.)
    fn see_who_still_writes(&mut self, now: Now) {
        let Self { being_written, processes, warnings, .. } = self;
        being_written.retain(|agent, (since, path)| {
            let quiet = since.plus(WRITING_MS) <= now.mono;
            let writing = !quiet || processes.is_being_written(path);
            let key = writing_warning(agent);
            if quiet && writing {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                let why = format!(
                    "agents/{file} is still being written: what ran before goes on until it is closed"
                );
                warnings.insert(key, why);
            } else {
                warnings.remove(&key);
            }
            writing
        });
        // Checked once after the quiet; a longer write ends with a hint, or is found by the next scan.
        self.writing_check = self
            .being_written
            .values()
            .map(|(since, _)| since.plus(WRITING_MS))
            .filter(|at| *at > now.mono)
            .min();
    }

    pub(super) fn look_at_agents(&mut self, now: Now) {
        self.see_who_still_writes(now);
        let whole: Vec<AgentName> =
            self.held_back.keys().filter(|agent| !self.being_written.contains_key(*agent)).cloned().collect();
        let mut findings: Vec<Finding> = Vec::new();
        let mut scanned = false;
        for agent in whole {
            findings.extend(self.held_back.remove(&agent).unwrap_or_default());
        }
        match self.catalog.scan() {
            Ok(found) => {
                self.warnings.remove("agents");
                findings.extend(found);
                scanned = true;
            }
            Err(error) => {
                let why = format!("{}: {error}; what runs goes on", self.options.layout.agents().display());
                if self.warnings.insert("agents".into(), why.clone()).as_ref() != Some(&why) {
                    log::error!("{why}");
                }
            }
        }
        for finding in findings {
            self.found(now, finding);
        }
        if scanned && self.held_back.is_empty() {
            self.step(now, Event::AgentsLooked);
        }
    }

    fn found(&mut self, now: Now, finding: Finding) {
        let agent = match &finding {
            Finding::Offer(offer) => Some(offer.agent.clone()),
            Finding::Refused { agent, .. } => agent.clone(),
            Finding::Gone { agent } => Some(agent.clone()),
            Finding::Cleared { .. } => None,
        };
        if let Some(agent) = agent
            && self.being_written.contains_key(&agent)
        {
            // Somebody has it open for writing: what is in it now is not what it will be.
            let kept = self.held_back.entry(agent).or_default();
            match &finding {
                // These withdraw what was told before.
                Finding::Offer(_) | Finding::Gone { .. } => kept.clear(),
                Finding::Refused { .. } | Finding::Cleared { .. } => {}
            }
            if !kept.contains(&finding) {
                kept.push(finding);
            }
            return;
        }
        match finding {
            Finding::Offer(offer) => {
                for warning in &offer.warnings {
                    log::warn!("{}: {warning}", offer.file);
                }
                let (agent, digest) = (offer.agent.clone(), offer.digest.clone());
                let version = Version {
                    file: offer.file.clone(),
                    digest: digest.clone(),
                    manifest: offer.manifest.clone(),
                    table: offer.table.clone(),
                };
                // Of a file that changes again and again only this version can still be adopted.
                let running = self.state.digest_of(&agent);
                self.offers.retain(|(name, of), _| *name != agent || Some(of.as_str()) == running);
                self.offers.insert((agent.clone(), digest), *offer);
                // What it handed in may wait for what it declares.
                self.to_look_at.places.insert(Place::Outcomes);
                self.step(now, Event::Offered(agent, Arc::new(version)));
            }
            Finding::Refused { agent: Some(agent), refusal } => {
                self.step(now, Event::AgentRefused(agent, refusal));
            }
            Finding::Refused { agent: None, refusal } => {
                let (file, reason, remedy) =
                    (refusal.file.clone(), refusal.reason.clone(), refusal.remedy.clone());
                log::warn!("{file} is refused: {reason}; {remedy}");
                self.note(now.wall, Fact::Refused { file: file.clone(), reason, remedy });
                self.nameless.insert(file, refusal);
            }
            Finding::Gone { agent } => {
                self.to_look_at.places.insert(Place::Outcomes);
                self.step(now, Event::AgentGone(agent));
            }
            Finding::Cleared { file } => drop(self.nameless.remove(&file)),
        }
    }
}
