//! Firings of jobs: submitted as tasks; and what is known of their schedules, kept and read again.

use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::Store;
use crate::edge::writer::{Change, Job};
use crate::machine::event::Event;
use crate::protocol::layout::RECORD_EXT;
use crate::protocol::name::AgentName;
use crate::protocol::record::{self, SMALL_LEN_MAX};
use crate::protocol::schedule::SlotId;
use crate::protocol::task::{SCHEDULE, TaskRecord, Wishes};
use crate::protocol::time::{Now, Wall};
use crate::protocol::trigger::TriggerRecord;

use super::inbox::LISTED_MAX;
use super::{Helpers, Supervisor};

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// Has a slot fired. Fired again, after a crash, it is the same submission.
    pub(super) fn fire(&mut self, now: Now, slot: &SlotId, not_before: Option<Wall>) {
        let payload =
            serde_json::value::to_raw_value(&serde_json::json!({ "slot": slot })).unwrap_or_default();
        let wishes = Wishes { not_before, ..Wishes::default() };
        let (task, kind) = (slot.task(), slot.agent.clone());
        let nonce = task.as_str().to_owned();
        let by = SCHEDULE.to_owned();
        let record = TaskRecord::submission(task, nonce, kind, now.wall, by, payload, wishes);
        self.fired.push(TaskRecord { slot: Some(slot.clone()), ..record });
    }

    /// Submits what was fired. What cannot be decided about for the moment is tried again.
    pub(super) fn submit_fired(&mut self, now: Now) {
        for record in std::mem::take(&mut self.fired) {
            if !self.submission(now, record.clone()) {
                self.fired.push(record);
            }
        }
    }

    pub(super) fn keep_trigger(&self, agent: &AgentName, record: &TriggerRecord) {
        let (path, bytes) = (self.options.layout.trigger(agent), record::encode(record));
        self.helpers.write(Job { then: vec![Change::Write { path, bytes }], ..Job::default() });
    }

    /// Reads what earlier supervisors decided about schedules.
    ///
    /// # Errors
    /// If it cannot be told: nothing may be fired then that was fired before.
    pub(super) fn recover_triggers(&mut self, now: Now) -> Result<(), String> {
        let dir = self.options.layout.triggers();
        let told = |error: &dyn std::fmt::Display| format!("{}: {error}", dir.display());
        for entry in self.store.list(&dir, LISTED_MAX).map_err(|error| told(&error))? {
            let stem = entry.name.strip_suffix(RECORD_EXT).and_then(|stem| stem.strip_suffix('.'));
            let Some(agent) = stem.and_then(|stem| stem.parse::<AgentName>().ok()) else { continue };
            let path = self.options.layout.trigger(&agent);
            let blob = self
                .store
                .read(&path, SMALL_LEN_MAX)
                .map_err(|error| format!("{}: {error}; mv it away, and start again", path.display()))?;
            match record::decode(&blob.bytes) {
                Ok(record) => self.step(now, Event::TriggerFound(agent, record)),
                // It costs what was missed, and nothing else: no slot that was fired is fired again.
                Err(error) => {
                    let text = format!(
                        "{}: {error}; its schedule counts as seen for the first time",
                        path.display()
                    );
                    self.alert(now, format!("trigger-{agent}"), text);
                }
            }
        }
        Ok(())
    }
}
