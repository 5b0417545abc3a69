//! What was promised, remembered outside the code under test: who was granted what, and what was acknowledged.
//!
//! A broken promise that shows at once is a violation at once; what shows only in the end is in [`crate::verdict`].

use std::collections::BTreeMap;

pub(crate) use nightcrew::app::client::finish::Held;
use nightcrew::edge::writer::Job;
use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::{Key, Kind, RunId, TaskId};
use nightcrew::protocol::process::{Ending, Identity, Meaning};
use nightcrew::protocol::task::Verdict;

use crate::cast;
use crate::kernel::Kernel;
use crate::promises::Promises;
use crate::world::World;

/// A task that somebody submitted.
#[derive(Default)]
pub(crate) struct Submission {
    /// What was submitted under this id: kinds and payloads.
    pub(crate) tried: Vec<(Kind, String)>,
    pub(crate) acknowledged: bool,
}

/// One grant of a task to an owner.
pub(crate) struct Grant {
    pub(crate) token: u64,
    pub(crate) nonce: String,
    run: Option<RunId>,
    owner: Identity,
    /// The owner claimed it, and does other work too.
    by_itself: bool,
    since: u64,
    /// It began to hand the task back.
    over: bool,
    /// ... as done, or with the words that there was nothing to do.
    said: Option<Meaning>,
}

impl Grant {
    /// True if its owner said that the task is done.
    pub(crate) fn said_done(&self) -> bool {
        self.said.is_some()
    }

    /// True if no power cut came since: then its lock was there until somebody decided about it.
    pub(crate) fn is_of_this_boot(&self, boot: &str) -> bool {
        self.owner.boot == boot
    }
}

/// An outcome that a command said it took, from an owner that had every right.
pub(crate) struct Handed {
    pub(crate) held: Held,
    pub(crate) verdict: Verdict,
}

/// An entry of the ledger: its line, by which it is known again without being taken apart, and what it tells.
pub(crate) struct Told {
    pub(crate) line: String,
    pub(crate) fact: Fact,
}

/// All that was promised.
#[derive(Default)]
pub(crate) struct Oracle {
    pub(crate) submissions: BTreeMap<TaskId, Submission>,
    pub(crate) grants: BTreeMap<TaskId, Vec<Grant>>,
    pub(crate) handed: Vec<Handed>,
    /// Values that were to be appended, by key: true if that was acknowledged.
    pub(crate) values: BTreeMap<Key, BTreeMap<String, bool>>,
    /// Entries whose commit was reported, and those that are being committed.
    pub(crate) ledger: Vec<Told>,
    committing: Vec<Told>,
    pub(crate) promises: Promises,
    pub(crate) violations: Vec<String>,
    serial: u32,
}

impl Oracle {
    /// An id: a new one, or (for a low `dice`) one that was used before.
    pub(crate) fn id_to_submit(&mut self, dice: usize) -> TaskId {
        if dice == 0
            && let Some(id) = self.submissions.keys().next_back()
        {
            return id.clone();
        }
        self.serial += 1;
        format!("t{}", self.serial).parse().expect("a name")
    }

    /// The number of the last id.
    pub(crate) fn serial(&self) -> u32 {
        self.serial
    }

    pub(crate) fn submitting(&mut self, id: &TaskId, kind: &Kind, payload: &str) {
        self.promises.lives_again(id);
        let submission = self.submissions.entry(id.clone()).or_default();
        submission.tried.push((kind.clone(), payload.to_owned()));
    }

    pub(crate) fn submitted(&mut self, id: &TaskId) {
        self.submissions.entry(id.clone()).or_default().acknowledged = true;
    }

    /// Somebody moved a dead task back, durably: it must come to its end once more.
    pub(crate) fn replayed(&mut self, id: &TaskId) {
        if let Some(submission) = self.submissions.get_mut(id) {
            submission.acknowledged = true;
        }
    }

    /// Somebody owns a task from now on. Nobody else may, and its token is one that nobody had before.
    pub(crate) fn granted(&mut self, world: &World, held: &Held, run: Option<&RunId>, owner: &Identity) {
        self.begun(world, &held.task);
        let grants = self.grants.entry(held.task.clone()).or_default();
        // A lock is not synced: a power cut may take it, with its owner, and the token is given out once more.
        if let Some(before) = grants.last()
            && (before.token > held.token || before.token == held.token && before.owner.boot == owner.boot)
        {
            self.violations.push(format!(
                "task {} was granted with token {} after token {}",
                held.task, held.token, before.token
            ));
        }
        let kernel = world.kernel.borrow();
        // Who claimed by himself goes on when his task is cancelled, or expires at that moment: it is only taken from him.
        let fenced = self.promises.was_cancelled(&held.task) || self.promises.expires(&held.task);
        for before in grants.iter().filter(|grant| !(grant.over || fenced && grant.by_itself)) {
            let alive = match &before.run {
                Some(run) => kernel.boot_id() == before.owner.boot && kernel.living(run).next().is_some(),
                None => false,
            };
            if alive {
                self.violations.push(format!(
                    "task {} was granted with token {} while a process of the run that had token {} lives",
                    held.task, held.token, before.token
                ));
            }
        }
        grants.push(Grant {
            token: held.token,
            nonce: held.nonce.clone(),
            run: run.cloned(),
            owner: owner.clone(),
            by_itself: !cast::is_handler(held.agent.as_str()),
            since: world.time.ms(),
            over: false,
            said: None,
        });
    }

    pub(crate) fn hand_in_begun(&mut self, held: &Held, verdict: Verdict) {
        if let Some(grant) = self.grant_mut(held) {
            grant.over = true;
            if verdict == Verdict::Done {
                grant.said = Some(Meaning::Done);
            }
        }
    }

    /// The process of a handler ended by itself, which says what became of its task.
    pub(crate) fn handler_exits(&mut self, held: &Held, ending: Ending) {
        if let Some(grant) = self.grant_mut(held) {
            let said = Some(ending.meaning());
            grant.said = grant.said.or(said.filter(|it| matches!(it, Meaning::Done | Meaning::NothingToDo)));
        }
    }

    /// True if the claim of this nonce ended with the words that there was nothing to do, which no gate judges.
    pub(crate) fn said_nothing(&self, id: &TaskId, nonce: &str) -> bool {
        let mut grants = self.grants.get(id).into_iter().flatten();
        grants.any(|grant| grant.nonce == nonce && grant.said == Some(Meaning::NothingToDo))
    }

    /// How often owners of a task may have died of themselves.
    pub(crate) fn deaths(&self, kernel: &Kernel, id: &TaskId) -> usize {
        let grants = self.grants.get(id).into_iter().flatten();
        grants.filter(|grant| kernel.is_its_own_death(grant.owner.start)).count()
    }

    fn grant_mut(&mut self, held: &Held) -> Option<&mut Grant> {
        let mut grants = self.grants.get_mut(&held.task)?.iter_mut();
        grants.find(|grant| grant.token == held.token && grant.nonce == held.nonce)
    }

    /// A command said that it took this outcome. It binds if the owner was still the owner.
    pub(crate) fn handed_in(&mut self, world: &World, held: &Held, verdict: Verdict) {
        // One from outside any run can be too late at any moment, once its claim is about to grow old.
        const SURE_MS: u64 = 25 * 60_000;
        let Some(grant) = self.grant_mut(held) else { return };
        let fresh = grant.run.is_some() || world.time.ms() - grant.since < SURE_MS;
        let owns = world.token_on_disk(&held.task) == Some(held.token) && world.lock_bears(held);
        let promises = &self.promises;
        // What somebody wants to be cancelled, or expires while somebody claims it by himself, may be on its way out.
        let expires = promises.expires(&held.task) && !cast::is_handler(held.agent.as_str());
        let stays = !promises.was_cancelled(&held.task) && !expires;
        if fresh && owns && stays {
            self.handed.push(Handed { held: held.clone(), verdict });
        }
    }

    /// A value that nobody appended before, and where.
    pub(crate) fn value_to_append(&mut self, random: u64) -> (Key, String) {
        self.serial += 1;
        let key: Key = ["all", "some/of"][usize::from(random.is_multiple_of(4))].parse().expect("a key");
        let value = format!("value{}", self.serial);
        self.values.entry(key.clone()).or_default().insert(value.clone(), false);
        (key, value)
    }

    pub(crate) fn remembered(&mut self, key: Key, value: String) {
        self.values.entry(key).or_default().insert(value, true);
    }

    pub(crate) fn committing(&mut self, batch: &[Job]) {
        let entries = batch.iter().flat_map(|job| &job.entries);
        let told = entries.map(|entry| Told {
            line: serde_json::to_string(entry).expect("an entry"),
            fact: entry.fact.clone(),
        });
        self.committing = told.collect();
    }

    pub(crate) fn committed(&mut self) {
        self.ledger.append(&mut self.committing);
    }

    /// A supervisor opened the ledger: what was ever committed must be there, in order.
    pub(crate) fn ledger_opened(&mut self, lines: &[(u64, String)]) {
        let mut told = lines.iter().map(|(_, line)| line);
        for (n, Told { line, fact }) in self.ledger.iter().enumerate() {
            if !told.any(|found| found == line) {
                self.violations.push(format!("the ledger lost entry {n} of those committed: {fact}"));
                return;
            }
        }
    }
}
