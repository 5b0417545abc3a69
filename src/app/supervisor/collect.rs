//! What happened, made into events: messages taken, and the files they point to looked at.
//!
//! Directories are level-triggered: a hint only says where to look. What agents wrote is read under the
//! store's rules for files of others; what is malformed goes aside with its reason, what merely ends in
//! the middle gets one second look first.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;

use crate::app::catalog::Finding;
use crate::app::steward::thread::StewardReport;
use crate::edge::clock::Clock;
use crate::edge::processes::{Processes, Report};
use crate::edge::pump::{PumpReport, last_lines};
use crate::edge::signals::SignalEvent;
use crate::edge::store::Store;
use crate::edge::watchdog::{Sighting, Subject};
use crate::edge::watches::{Area, Hint, Touch};
use crate::edge::writer::Done;
use crate::edge::writer_thread::WriterReport;
use crate::machine::Event;
use crate::machine::event::{Ended, HandedIn, Submission, Version};
use crate::protocol::layout::{LOCK_EXT, RECORD_EXT, Shelf};
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, Name, RunId, TaskId};
use crate::protocol::record::{self, RECORD_LEN_MAX, RecordError, SMALL_LEN_MAX};
use crate::protocol::request::Request;
use crate::protocol::task::{Lock, Outcome, Phase, TaskRecord, parse_outcome_name};
use crate::protocol::time::Now;

use super::perform::unreadable;
use super::{Helpers, Message, SECOND_LOOK_MS, Supervisor, ToLookAt};

/// The most entries of one directory that are listed at a time.
pub(super) const LISTED_MAX: usize = 200_000;
/// The most files that one turn reads of each kind; the rest waits for the next turn.
const READ_MAX: usize = 256;
/// How many of its last lines of output are evidence.
const EVIDENCE_LINES: usize = 20;

/// What became of reading a file that somebody else wrote.
enum Reading<T> {
    Whole(T),
    /// Not there, or to be looked at once more.
    Nothing,
    Bad(String),
}

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    pub(super) fn collect(&mut self, now: Now, message: Message) {
        match message {
            Message::Process(report) => self.collect_process(now, report),
            Message::Hint(hint) => self.collect_hint(hint),
            Message::Sighting(sighting) => self.collect_sighting(now, sighting),
            Message::Writer(report) => self.collect_writer(now, report),
            Message::Steward(report) => self.collect_steward(now, report),
            Message::Pump(PumpReport::Drained { .. }) => {}
            Message::Pump(PumpReport::Trouble { agent, error }) => {
                log::warn!("the output of {agent} is being dropped: {error}");
            }
            Message::Pump(PumpReport::Recovered { agent, dropped }) => {
                log::info!("the output of {agent} is kept again; {dropped} bytes were dropped");
            }
            Message::Signal(SignalEvent::Stop) => {
                self.step(now, Event::StopAsked("a signal asked for it".into()))
            }
            Message::Signal(SignalEvent::Rescan) => self.to_look_at = ToLookAt::everything(),
        }
    }

    fn collect_process(&mut self, now: Now, report: Report) {
        let event = match report {
            Report::Spawned { run, process } => Event::Spawned(run, process),
            Report::SpawnFailed { run, error, busy } => Event::SpawnFailed { run, error, busy },
            Report::Exited { run, ending } => Event::Exited(run, ending),
            Report::TreeGone { run, killed } => Event::TreeGone(run, killed),
            Report::TreeStuck { run, left } => Event::TreeStuck(run, left),
            Report::Evidence { run, evidence } => {
                let evidence = self.with_last_lines(&run, evidence);
                Event::EvidenceSeen(run, evidence)
            }
        };
        self.step(now, event);
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
            other => serde_json::json!({ "process": other, "last_lines": lines }),
        }
    }

    fn collect_hint(&mut self, hint: Hint) {
        let look = &mut self.to_look_at;
        match hint {
            Hint::Rescan => *look = ToLookAt::everything(),
            Hint::Lost { area, path } => {
                log::warn!("{}: the watched directory was replaced or removed", path.display());
                let _ = area;
                *look = ToLookAt::everything();
                self.helpers.rewatch();
            }
            Hint::Failed(why) => {
                log::warn!("watches: {why}; everything is looked at every 30 s instead");
                self.warnings.insert("watches".into(), why);
            }
            Hint::Touched { area: Area::Agents, path, touch } => self.agent_file_touched(&path, touch),
            Hint::Touched { area, path, touch } => match area {
                Area::Agents | Area::Extra => look.agents = true,
                Area::CrewFile => look.crew_file = true,
                Area::State | Area::Stopped => look.switches = true,
                _ if touch == Touch::Gone => {}
                Area::Requests => drop(look.requests.insert(path)),
                Area::NewTasks => drop(look.new_tasks.insert(path)),
                Area::Outcomes => drop(look.outcomes.insert(path)),
                Area::Tasks => look.locks.extend(lock_of(&path)),
                Area::Queue => self.queue_touched(&path),
            },
        }
    }

    fn queue_touched(&self, path: &Path) {
        let parent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        self.helpers.remember(parent.and_then(|name| name.parse().ok()).as_ref());
    }

    fn agent_file_touched(&mut self, path: &Path, touch: Touch) {
        self.to_look_at.agents = true;
        let stem = path.file_stem().and_then(|stem| stem.to_str());
        let Some(agent) = stem.and_then(|stem| stem.parse::<AgentName>().ok()) else { return };
        match touch {
            Touch::Begun => drop(self.being_written.insert(agent)),
            Touch::Whole | Touch::Gone => drop(self.being_written.remove(&agent)),
        }
    }

    fn collect_sighting(&mut self, now: Now, sighting: Sighting) {
        let event = match sighting {
            // The first look is a baseline: a file left by an earlier run is no sign of life of this one.
            Sighting::Changed { first: true, signature, subject: Subject::Beat(run) } => {
                match self.state.started_at(&run) {
                    Some(started) if signature.mtime_ns > i128::from(started.0) * 1_000_000 => {
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
                if !canary_alive {
                    log::warn!("the watchdog cannot see its own beat: no silence is judged");
                }
                Event::Round(canary_alive)
            }
            Sighting::Memory { run, bytes, exact, members, .. } => {
                self.processes.order(crate::edge::processes::Order::Seen { run: run.clone(), members });
                if !exact {
                    return;
                }
                Event::Memory(run, bytes)
            }
        };
        self.step(now, event);
    }

    fn collect_writer(&mut self, now: Now, report: WriterReport) {
        match report {
            WriterReport::Done(Done::Stored(ticket)) => self.step(now, Event::Stored(ticket.0)),
            WriterReport::Done(Done::Refused { ticket: Some(ticket), reason }) => {
                self.step(now, Event::NotStored(ticket.0, reason));
            }
            WriterReport::Done(Done::Refused { ticket: None, reason }) => {
                log::error!("not recorded: {reason}")
            }
            WriterReport::Failed { ticket, reason } => self.step(now, Event::NotStored(ticket.0, reason)),
            WriterReport::Full(why) => {
                log::error!("the disk is full, nothing is acknowledged until there is room: {why}");
                self.warnings.insert("disk".into(), format!("the disk is full: {why}"));
            }
            WriterReport::Recovered => {
                log::info!("the disk takes records again");
                self.warnings.remove("disk");
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
                log::error!("memory: the disk is full: {why}");
                self.warnings.insert("memory".into(), format!("updates wait, the disk is full: {why}"));
            }
            StewardReport::Broken(why) => {
                log::error!("memory: storage failed, no update is applied until a restart: {why}");
                self.alert(now, "memory".into(), format!("no update of memory is applied any more: {why}"));
                self.warnings.insert("memory".into(), format!("storage failed: {why}"));
            }
        }
    }

    /// Looks at everything that was pointed at.
    pub(super) fn look(&mut self, now: Now) {
        let due = |first: &crate::protocol::time::Mono| first.plus(SECOND_LOOK_MS) <= now.mono;
        if self.second_looks.values().any(due) {
            self.to_look_at.all_new_tasks = true;
            self.to_look_at.all_outcomes = true;
            self.to_look_at.all_requests = true;
        }
        if std::mem::take(&mut self.to_look_at.crew_file) {
            self.look_at_crew_file(now);
        }
        if std::mem::take(&mut self.to_look_at.switches) {
            self.look_at_switches(now);
        }
        if std::mem::take(&mut self.to_look_at.agents) {
            self.look_at_agents(now);
        }
        self.look_at_requests(now);
        self.look_at_locks(now);
        self.look_at_outcomes(now);
        self.look_at_new_tasks(now);
        self.second_looks.retain(|_, first| first.plus(2 * SECOND_LOOK_MS) > now.mono);
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
        let text =
            self.store.read(path, SMALL_LEN_MAX).map(|blob| crate::protocol::display::clean(&blob.bytes));
        match text.map(|text| text.trim().to_owned()) {
            Ok(text) if !text.is_empty() => text,
            Ok(_) | Err(_) => "no reason was given".into(),
        }
    }

    fn look_at_crew_file(&mut self, now: Now) {
        let parsed = crate::app::catalog::crew_file(&self.store, &self.options.layout, self.options.owners);
        match parsed {
            Ok(crew_file) => {
                self.warnings.remove("nightcrew.toml");
                if crew_file != self.options.terms.crew_file {
                    self.options.terms.crew_file = crew_file;
                    self.catalog.configure(self.options.terms.clone());
                    self.to_look_at.agents = true;
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

    pub(super) fn look_at_agents(&mut self, now: Now) {
        let whole: Vec<AgentName> =
            self.held_back.keys().filter(|agent| !self.being_written.contains(*agent)).cloned().collect();
        let mut findings: Vec<Finding> = Vec::new();
        for agent in whole {
            findings.extend(self.held_back.remove(&agent).unwrap_or_default());
        }
        match self.catalog.scan() {
            Ok(found) => {
                self.warnings.remove("agents");
                findings.extend(found);
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
    }

    fn found(&mut self, now: Now, finding: Finding) {
        let agent = match &finding {
            Finding::Offer(offer) => Some(offer.agent.clone()),
            Finding::Refused { agent, .. } => agent.clone(),
            Finding::Gone { agent } => Some(agent.clone()),
            Finding::Cleared { .. } => None,
        };
        if let Some(agent) = agent
            && self.being_written.contains(&agent)
        {
            // Somebody has it open for writing: what is in it now is not what it will be.
            self.held_back.entry(agent).or_default().push(finding);
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
                };
                self.offers.insert((agent.clone(), digest), *offer);
                self.step(now, Event::Offered(agent, Arc::new(version)));
            }
            Finding::Refused { agent: Some(agent), refusal } => {
                self.step(now, Event::AgentRefused(agent, refusal))
            }
            Finding::Refused { agent: None, refusal } => {
                let (file, reason, remedy) =
                    (refusal.file.clone(), refusal.reason.clone(), refusal.remedy.clone());
                log::warn!("{file} is refused: {reason}; {remedy}");
                self.note(now.wall, Fact::Refused { file: file.clone(), reason, remedy });
                self.nameless.insert(file, refusal);
            }
            Finding::Gone { agent } => self.step(now, Event::AgentGone(agent)),
            Finding::Cleared { file } => drop(self.nameless.remove(&file)),
        }
    }

    /// The files to read in this turn: those pointed at, and all there are where that was asked for.
    fn files(&self, all: bool, dir: &Path, hinted: &mut std::collections::BTreeSet<PathBuf>) -> Vec<PathBuf> {
        if all {
            match self.store.list(dir, LISTED_MAX) {
                Ok(found) => {
                    hinted.extend(found.into_iter().filter(|e| e.name != "answers").map(|e| dir.join(e.name)))
                }
                Err(error) => log::error!("{}: {error}", dir.display()),
            }
        }
        let mut files = Vec::new();
        while files.len() < READ_MAX
            && let Some(path) = hinted.pop_first()
        {
            files.push(path);
        }
        files
    }

    fn look_at_requests(&mut self, now: Now) {
        let all = std::mem::take(&mut self.to_look_at.all_requests);
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

    fn look_at_new_tasks(&mut self, now: Now) {
        let all = std::mem::take(&mut self.to_look_at.all_new_tasks);
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
    fn ended_record(&self, id: &TaskId) -> Option<(Shelf, TaskRecord)> {
        [Shelf::Done, Shelf::Dead].into_iter().find_map(|shelf| {
            let blob = self.store.read(&self.options.layout.ended(shelf, id), RECORD_LEN_MAX * 2).ok()?;
            Some((shelf, record::decode(&blob.bytes).ok()?))
        })
    }

    pub(super) fn ended(&self, id: &TaskId) -> Option<Ended> {
        self.ended_record(id).map(|(shelf, record)| Ended { shelf, nonce: record.nonce, at: record.ended })
    }

    fn look_at_locks(&mut self, now: Now) {
        if std::mem::take(&mut self.to_look_at.all_locks) {
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
        let lock = match self.store.read(&path, SMALL_LEN_MAX) {
            Ok(blob) => {
                record::decode::<Lock>(&blob.bytes).map_err(|error| error.to_string()).and_then(|lock| {
                    if lock.task == *task { Ok(lock) } else { Err(format!("it names task {}", lock.task)) }
                })
            }
            Err(error) => match unreadable(error) {
                None => return,
                Some(why) => Err(why),
            },
        };
        self.step(now, Event::LockSeen(task.clone(), lock));
    }

    fn look_at_outcomes(&mut self, now: Now) {
        if std::mem::take(&mut self.to_look_at.all_outcomes) {
            let dir = self.options.layout.outcomes();
            let agents = self.store.list(&dir, LISTED_MAX).unwrap_or_else(|error| {
                log::error!("{}: {error}", dir.display());
                Vec::new()
            });
            for agent in agents.iter().filter(|entry| entry.is_dir) {
                let dir = dir.join(&agent.name);
                let mut found = std::collections::BTreeSet::new();
                // One turn's worth is read now; listing again finds the rest.
                let files = self.files(true, &dir, &mut found);
                self.to_look_at.all_outcomes |= !found.is_empty();
                self.to_look_at.outcomes.extend(files);
            }
        }
        for path in std::mem::take(&mut self.to_look_at.outcomes) {
            let agent = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
            let Some(agent) = agent else { continue };
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

    /// Reads an outcome that lies there while its owner is gone: it is whole, or never will be.
    pub(super) fn read_outcome(&self, agent: &AgentName, path: &Path) -> Option<Event> {
        let (task, token, nonce) = parse_outcome_name(path.file_name()?.to_str()?)?;
        let blob = self.store.read(path, SMALL_LEN_MAX).ok()?;
        let outcome: Outcome = record::decode(&blob.bytes).ok()?;
        let same = (&outcome.task, outcome.token, outcome.nonce.as_str()) == (&task, token, nonce);
        same.then(|| self.handed_in(agent, outcome))
    }

    fn look_again_for_outcomes(&mut self, now: Now, task: &TaskId, agent: &AgentName) {
        let mut events = std::collections::VecDeque::new();
        let effect = crate::machine::Effect::LookForOutcomes(task.clone(), agent.clone());
        self.perform(now, effect, &mut events);
        for event in events {
            self.step(now, event);
        }
    }

    /// Reads one record of somebody else's.
    fn read_record<T: serde::de::DeserializeOwned>(&mut self, now: Now, path: &Path, max: u64) -> Reading<T> {
        let blob = match self.store.read(path, max) {
            Ok(blob) => blob,
            Err(error) => return unreadable(error).map_or(Reading::Nothing, Reading::Bad),
        };
        match record::decode(&blob.bytes) {
            Ok(record) => Reading::Whole(record),
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
        let job = self.aside(now, path, &dir.join(&name), reason, fact);
        self.helpers.write(job);
    }
}

fn stem_of(path: &Path, ending: &str) -> Option<Name> {
    let right = path.extension().is_some_and(|found| found == ending);
    if right { path.file_stem()?.to_str()?.parse().ok() } else { None }
}

fn lock_of(path: &Path) -> Option<TaskId> {
    stem_of(path, LOCK_EXT)
}
