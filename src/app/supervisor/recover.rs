//! What an earlier supervisor left: looked at once, before the first turn.
//!
//! The order matters. Survivors come before locks, so that a lock whose run still lives is not taken for
//! a dead one's. Locks and outcomes come before agents, to whom tasks are given. The ledger's tail comes before the tasks: an outcome that it accepted, but that the
//! record does not show, is carried out, not repeated.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use crate::edge::clock::Clock;
use crate::edge::log::Recovery;
use crate::edge::processes::{Processes, Survivor};
use crate::edge::store::Store;
use crate::machine::Event;
use crate::machine::event::{Accepted, Found, Next};
use crate::protocol::layout::{Kept, Layout, RECORD_EXT, Shelf};
use crate::protocol::ledger::Fact;
use crate::protocol::name::{AgentName, RunId, TaskId};
use crate::protocol::record::SMALL_LEN_MAX;
use crate::protocol::task::{Outcome, TaskRecord, Verdict, parse_outcome_name};
use crate::protocol::time::Now;

use super::inbox::LISTED_MAX;
use super::opening::History;
use super::perform::Unread;
use super::shelves::found_of;
use super::{Helpers, Place, Supervisor, ToLookAt};

/// Outcomes that lie there, by their tasks: whose, and where.
type HandedInByTask = BTreeMap<TaskId, Vec<(AgentName, PathBuf)>>;

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// Takes up what is there: `survivors` is what still runs, `history` what the logs tell.
    ///
    /// # Errors
    /// If it cannot be told for the moment which tasks there are: what is not known might be given out twice.
    pub fn recover(&mut self, survivors: Vec<Survivor>, history: History) -> Result<(), String> {
        let now = self.clock.now();
        let (pid, version) = (self.options.me.pid, env!("CARGO_PKG_VERSION").to_owned());
        self.note(now.wall, Fact::SupervisorStarted { pid, version });
        self.clear_views();
        self.tell_aside(now, "ledger", &history.ledger);
        self.tell_aside(now, "journal", &history.journal);
        if let Some(damage) = history.damage {
            self.alert(now, "tokens".into(), damage);
        }
        self.clear_files_of_runs(&survivors.iter().map(|survivor| survivor.run.clone()).collect());
        for Survivor { run, agent, root } in survivors.into_iter().filter(|_| !mutant!(SurvivorsOverlooked)) {
            log::info!(
                "{agent}: a process of an earlier supervisor runs on (pid {}); it is stopped",
                root.pid
            );
            self.step(now, Event::SurvivorFound(run, agent, root));
        }
        self.recover_finished(now);
        self.recover_triggers(now)?;
        self.look_at_switches(now);
        // Before the tasks, some of which need what lies there.
        self.clear_shelves();
        self.recover_tasks(now, &accepted_in(&history.facts))?;
        self.admissions = admissions_in(&history.facts);
        self.admissions
            .retain(|id, _| self.store.stat(&self.options.layout.new_task(id)).is_ok_and(|at| at.is_some()));
        // Before any agent is known, so that nothing is given out that somebody holds.
        self.to_look_at.places.insert(Place::Locks);
        self.look_at_locks(now);
        while !self.to_look_at.locks.is_empty() {
            self.look_at_locks(now);
        }
        self.clear_outputs();
        self.settle_all_bound().map_err(|error| error.to_string())?;
        // Everything else is found by looking, as in any turn.
        self.to_look_at = ToLookAt::everything();
        for fact in history.unrecorded {
            self.note(now.wall, fact);
        }
        Ok(())
    }

    /// Says what of a log was kept aside when it was opened.
    pub(super) fn tell_aside(&mut self, now: Now, log: &str, found: &Recovery) {
        for aside in &found.aside {
            let text =
                format!("the {log} was not whole: {} bytes are kept in {}", aside.len, aside.path.display());
            match aside.why {
                // The trace of a crash: what was never acknowledged.
                Kept::Torn => log::warn!("{text}"),
                Kept::Damaged => self.alert(now, format!("{log}-damaged"), text),
            }
        }
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

    /// Removes the outputs of claims that are no more: a crash came between the end of one and their removal.
    fn clear_outputs(&self) {
        let outputs = self.options.layout.outputs();
        for agent in self.store.list(&outputs, LISTED_MAX).unwrap_or_default() {
            let dir = outputs.join(agent.name);
            for file in self.store.list(&dir, LISTED_MAX).unwrap_or_default() {
                let Some((task, token)) = Layout::output_of(&file.name) else { continue };
                let is_current = match self.read_task(&task) {
                    _ if self.unread.contains_key(&task) => true,
                    // One that has ended may still be about to be removed.
                    Ok(record) => record.token == token && self.state.is_open(&task),
                    // What cannot be read may say so.
                    Err(_) => self.is_there(&self.options.layout.task(&task)),
                };
                if !is_current && let Err(error) = self.store.unlink(&dir.join(&file.name)) {
                    log::warn!("{}: {error}", dir.join(&file.name).display());
                }
            }
        }
    }

    /// Removes the open record of a task that has ended, if it is still there: a crash came before that, or the
    /// disk would not. It says "ready", and nobody is to believe it.
    pub(super) fn clear_ended(&self, id: &TaskId) {
        if self.state.is_open(id) || self.unread.contains_key(id) {
            return;
        }
        let Ok(Some((_, ended))) = self.ended_record(id) else { return };
        if self.read_task(id).is_ok_and(|open| open.nonce == ended.nonce && open.token <= ended.token) {
            // Its lock is found to be of no open task.
            self.clear(&self.options.layout.task(id));
        }
    }

    pub(super) fn clear(&self, path: &Path) {
        if let Err(error) = self.store.unlink(path) {
            log::warn!("{}: {error}", path.display());
        }
    }

    /// Of a task that lies on more than one shelf, all but the latest is removed: a crash came before that, or a power
    /// cut undid it. Tokens only rise, and what was decided about keeps its own.
    fn clear_shelves(&self) {
        let layout = &self.options.layout;
        let ids = |shelf: Shelf| -> BTreeSet<TaskId> {
            let found = self.store.list(&layout.shelf(shelf), LISTED_MAX).unwrap_or_default();
            let stems =
                found.iter().filter_map(|entry| entry.name.strip_suffix(RECORD_EXT)?.strip_suffix('.'));
            stems.filter_map(|id| id.parse().ok()).collect()
        };
        let [done, dead, review] = [ids(Shelf::Done), ids(Shelf::Dead), ids(Shelf::Review)];
        let ended: BTreeSet<&TaskId> = done.intersection(&dead).collect();
        let reviewed = review.iter().filter(|id| done.contains(*id) || dead.contains(*id));
        for id in ended.into_iter().chain(reviewed).collect::<BTreeSet<_>>() {
            let tokens = [Shelf::Review, Shelf::Dead, Shelf::Done]
                .map(|shelf| (self.read_ended(shelf, id).ok().flatten().map(|record| record.token), shelf));
            let latest = tokens.iter().max_by_key(|(token, _)| *token);
            for (_, shelf) in tokens.iter().filter(|it| it.0.is_some() && Some(*it) != latest) {
                // Here and now: what a batch does last comes after all that others in it write.
                self.clear(&layout.result_on(*shelf, id));
                self.clear(&layout.ended(*shelf, id));
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

    fn recover_tasks(&mut self, now: Now, accepted: &BTreeMap<TaskId, Accepted>) -> Result<(), String> {
        let dir = self.options.layout.tasks();
        let entries = match self.store.list(&dir, LISTED_MAX) {
            Ok(entries) => entries,
            Err(error) => return Err(format!("{}: {error}", dir.display())),
        };
        let ids = entries.iter().filter_map(|entry| {
            entry.name.strip_suffix(RECORD_EXT)?.strip_suffix('.')?.parse::<TaskId>().ok()
        });
        // Until it is taken up, each counts as one that cannot be read: it is there, and nothing is done to it.
        self.unread = ids.map(|id| (id.clone(), accepted.get(&id).cloned())).collect();
        let handed_in = self.handed_in_by_task()?;
        self.take_up_unread(now, &handed_in);
        Ok(())
    }

    /// Takes up the tasks whose records could not be read before, as far as they can be now.
    pub(super) fn recover_unread(&mut self, now: Now) {
        if self.unread.is_empty() {
            return;
        }
        match self.handed_in_by_task() {
            Ok(handed_in) => self.take_up_unread(now, &handed_in),
            Err(why) => log::error!("{why}; {} tasks wait until it can be read", self.unread.len()),
        }
    }

    /// Takes up what is not taken up yet, in two passes: what one of them needs may be open too, whatever lies of that
    /// on a shelf. So which are open is known, and no shelf tells otherwise, before any need is judged.
    fn take_up_unread(&mut self, now: Now, handed_in: &HandedInByTask) {
        let mut open = Vec::new();
        for id in self.unread.keys().cloned().collect::<Vec<_>>() {
            match self.clear_double(now, &id) {
                Ok(None) => open.push(id),
                Ok(Some(shelf)) => {
                    self.unread.remove(&id);
                    // It counted as open until now.
                    self.step(now, Event::EndedBefore(id, shelf));
                }
                Err(why) => log::error!("{why}; task {id} waits until it can be read"),
            }
        }
        for id in open {
            let Some(accepted) = self.unread.remove(&id) else { continue };
            let handed_in = handed_in.get(&id).map_or(&[][..], Vec::as_slice);
            if let Err(why) = self.recover_task(now, &id, accepted.as_ref(), handed_in) {
                log::error!("{why}; task {id} waits until it can be read");
                self.unread.insert(id, accepted);
            }
        }
    }

    /// Of two records for one task removes the earlier: a crash came before that. Tells the shelf on which it lies if
    /// it is not open.
    fn clear_double(&mut self, now: Now, id: &TaskId) -> Result<Option<Shelf>, String> {
        let Some((shelf, ended)) = self.ended_record(id)? else { return Ok(None) };
        let open = match self.named_task(id) {
            Ok(record) => record,
            Err(Unread::ForNow(why)) => return Err(why),
            Err(Unread::Lost(why)) => {
                self.reject(now, &self.options.layout.task(id), "task", &why);
                return Ok(Some(shelf));
            }
        };
        // Tokens only rise, so the shelf's record is the later one if the task was about to end, and the earlier if it
        // was replayed. It goes here and now: what a batch does last comes after all that others in it write.
        if ended.nonce == open.nonce && ended.token >= open.token {
            // Its lock is found to be of no open task.
            self.clear(&self.options.layout.task(id));
            return Ok(Some(shelf));
        }
        if ended.token < open.token {
            self.clear(&self.options.layout.ended(shelf, id));
        }
        Ok(None)
    }

    /// The record of an open task, if it is that of this one.
    fn named_task(&self, id: &TaskId) -> Result<TaskRecord, Unread> {
        let record = self.read_task(id)?;
        if record.id == *id { Ok(record) } else { Err(Unread::Lost("its id is not its file's name".into())) }
    }

    /// The outcomes that lie there, by the tasks that their names tell of.
    fn handed_in_by_task(&self) -> Result<HandedInByTask, String> {
        let layout = &self.options.layout;
        let list = |dir: &Path| {
            self.store.list(dir, LISTED_MAX).map_err(|error| format!("{}: {error}", dir.display()))
        };
        let mut by_task = HandedInByTask::new();
        for agent in list(&layout.outcomes())? {
            let Some(agent) = agent.name.parse::<AgentName>().ok().filter(|_| agent.is_dir) else { continue };
            let dir = layout.outcomes_of(&agent);
            for outcome in list(&dir)? {
                if let Some((task, ..)) = parse_outcome_name(&outcome.name) {
                    by_task.entry(task).or_default().push((agent.clone(), dir.join(&outcome.file_name)));
                }
            }
        }
        Ok(by_task)
    }

    /// Takes up one task, with what was handed in for it: if a power cut took its lock, only the token proves who
    /// held it, and whoever is given the task next bears the same.
    fn recover_task(
        &mut self,
        now: Now,
        id: &TaskId,
        accepted: Option<&Accepted>,
        handed_in: &[(AgentName, PathBuf)],
    ) -> Result<(), String> {
        let record = match self.named_task(id) {
            Ok(record) => record,
            Err(Unread::ForNow(why)) => return Err(why),
            Err(Unread::Lost(why)) => {
                let path = self.options.layout.task(id);
                self.reject(now, &path, "task", &why);
                return Ok(());
            }
        };
        let accepted = accepted.filter(|accepted| {
            !mutant!(AcceptedForgotten)
                && accepted.outcome.token == record.token
                && !record.decided.contains(&accepted.outcome.nonce)
        });
        let mut outcomes = Vec::new();
        let handed_in = if mutant!(WorkBeforeOutcomes) { &[][..] } else { handed_in };
        for (agent, path) in handed_in {
            let outcome = self.read_outcome(agent, path);
            if let Some(Event::OutcomeSeen(seen)) =
                outcome.map_err(|error| format!("{}: {error}", path.display()))?
            {
                outcomes.push(seen);
            }
        }
        // A lock that the disk does not tell of is not one that is gone: it may be somebody else's.
        // Nor is one that expired without a try, if somebody holds it.
        let lock = if outcomes.is_empty() && record.wishes.expires.is_none() {
            None
        } else {
            self.read_lock(id).map_err(|error| format!("the lock of task {id}: {error}"))?
        };
        let needs = self.needs_of(&record)?;
        let accepted = accepted.cloned();
        let found = Found { accepted, lock, handed_in: outcomes, ..found_of(record, needs) };
        self.step(now, Event::TaskFound(Box::new(found)));
        Ok(())
    }
}

/// An admission that the ledger tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Admission {
    pub(super) token: u64,
    /// That of the submission.
    pub(super) nonce: String,
}

/// The tasks of which the ledger's tail tells last that they were admitted.
fn admissions_in(facts: &[Fact]) -> BTreeMap<TaskId, Admission> {
    let mut admitted = BTreeMap::new();
    for fact in facts {
        if let Fact::Submitted { task, token, nonce, .. } | Fact::Replayed { task, token, nonce, .. } = fact {
            admitted.insert(task.clone(), Admission { token: *token, nonce: nonce.clone() });
        } else if let Fact::Claimed { task, .. }
        | Fact::Outcome { task, .. }
        | Fact::GivenUp { task, .. }
        | Fact::Judged { task, .. }
        | Fact::Vacated { task, .. } = fact
        {
            admitted.remove(task);
        }
    }
    admitted
}

/// The outcomes that the ledger's tail accepted, by task; the last of each counts.
fn accepted_in(facts: &[Fact]) -> BTreeMap<TaskId, Accepted> {
    let mut accepted = BTreeMap::new();
    for fact in facts {
        if let Fact::Outcome { task, token, nonce, agent, status, error, next } = fact {
            let status = match status.as_str() {
                "done" => Verdict::Done,
                "retry" => Verdict::Retry,
                _ => Verdict::Failed,
            };
            let next = Next::parse(next, agent, nonce);
            let (nonce, error) = (nonce.clone(), error.clone());
            let outcome = Outcome::new(task.clone(), *token, nonce, status, error);
            accepted.insert(task.clone(), Accepted { agent: agent.clone(), outcome, next });
        }
    }
    accepted
}
