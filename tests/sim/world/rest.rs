//! Whether all is done that is to be done.

use nightcrew::protocol::layout::{RECORD_EXT, Shelf};
use nightcrew::protocol::name::{AgentName, TaskId};
use nightcrew::protocol::record;
use nightcrew::protocol::task::{Phase, TaskRecord};

use super::World;
use crate::cast::AGENTS;

impl World {
    pub(super) fn is_settled(&self) -> bool {
        self.crew().is_some_and(|crew| crew.is_at_rest()) && self.unfinished().is_none()
    }

    /// Something that is still to be done.
    pub(super) fn unfinished(&self) -> Option<String> {
        let open = self.disk.names(&self.layout.tasks());
        let undone = |name: &&String| name.contains('.') && !self.waits_for_others(name);
        if let Some(name) = open.iter().find(undone) {
            return Some(format!("tasks/{name}"));
        }
        let layout = &self.layout;
        for agent in AGENTS {
            let agent: AgentName = agent.parse().expect("a name");
            for dir in [layout.queue(&agent), layout.outcomes_of(&agent)] {
                if let Some(name) = self.disk.names(&dir).first() {
                    return Some(format!("{}/{name}", dir.display()));
                }
            }
        }
        if let Some(name) = self.disk.names(&layout.new_tasks()).first() {
            return Some(format!("tasks/new/{name}"));
        }
        let asked = self.disk.names(&layout.requests());
        asked.iter().find(|name| name.contains('.')).map(|name| format!("requests/{name}"))
    }

    /// True for the record of a task that rightly waits for another: one that has not ended, or is not known.
    fn waits_for_others(&self, name: &str) -> bool {
        let id = name.strip_suffix(RECORD_EXT).and_then(|stem| stem.strip_suffix('.'));
        let Some(id) = id.and_then(|id| id.parse::<TaskId>().ok()) else { return false };
        let record = self.disk.text(&self.layout.task(&id));
        let Some(record) = record.and_then(|bytes| record::decode::<TaskRecord>(&bytes).ok()) else {
            return false;
        };
        let has_ended = |need: &TaskId| self.shelf_of(need).is_some_and(|shelf| shelf != Shelf::Review);
        record.state == Phase::Blocked && record.wishes.needs.iter().any(|need| !has_ended(need))
    }

    /// On which shelf a task's record lies.
    pub(crate) fn shelf_of(&self, id: &TaskId) -> Option<Shelf> {
        Shelf::ALL.into_iter().find(|shelf| self.disk.text(&self.layout.ended(*shelf, id)).is_some())
    }
}
