//! What commands ask of the supervisor. Who submitted or handed in before somebody asked comes before whoever asks: so
//! requests are read first in a turn, and carried out last.

use crate::edge::clock::Clock;
use crate::edge::processes::Processes;
use crate::edge::store::Store;
use crate::machine::Event;
use crate::protocol::layout::RECORD_EXT;
use crate::protocol::name::Name;
use crate::protocol::record::SMALL_LEN_MAX;
use crate::protocol::request::{Ask, Request};
use crate::protocol::time::Now;

use super::inbox::{Reading, stem_of};
use super::shelves::found_of;
use super::{Helpers, Place, Supervisor};

/// A request waits for what may have been there before it for so long at most: a flood may go on for ever.
const BEFORE_MS_MAX: u64 = 10_000;

impl<S: Store, C: Clock, P: Processes, H: Helpers> Supervisor<S, C, P, H> {
    /// The requests that lie there. What bears on a new one to cancel tasks is looked at in this turn, also where no
    /// hint told of it.
    pub(super) fn read_requests(&mut self, now: Now) -> Vec<Request> {
        let all = self.to_look_at.places.remove(&Place::Requests);
        let mut hinted = std::mem::take(&mut self.to_look_at.requests);
        let dir = self.options.layout.requests();
        let mut requests = Vec::new();
        for path in self.files(all, &dir, &mut hinted) {
            if path.parent() != Some(dir.as_path()) || path == self.options.layout.answers() {
                continue;
            }
            let name = stem_of(&path, RECORD_EXT);
            match self.read_record::<Request>(now, &path, SMALL_LEN_MAX) {
                Reading::Whole(request) if Some(&request.id) == name.as_ref() => requests.push(request),
                Reading::Whole(_) => self.reject(now, &path, "request", "its id is not its file's name"),
                Reading::Nothing => {}
                Reading::Bad(why) => self.reject(now, &path, "request", &why),
            }
        }
        self.to_look_at.requests.append(&mut hinted);
        for request in requests.iter().filter(|request| matches!(request.ask, Ask::Cancel { .. })) {
            if !self.put_last.contains_key(&request.id) {
                self.put_last.insert(request.id.clone(), now.mono);
                self.to_look_at.locks.extend(self.state.meant_by(&request.ask));
                self.to_look_at.places.extend([Place::Outcomes, Place::NewTasks]);
            }
        }
        requests
    }

    /// Carries out what was read, but for what waits for others to be looked at.
    pub(super) fn carry_out(&mut self, now: Now, requests: Vec<Request>) {
        for request in requests {
            let path = self.options.layout.request(&request.id);
            let since = self.put_last.get(&request.id);
            if self.to_look_at.is_behind()
                && since.is_some_and(|since| now.mono.since(*since) < BEFORE_MS_MAX)
            {
                self.to_look_at.requests.insert(path);
            } else {
                self.asked(now, request);
            }
        }
        let (layout, waiting) = (&self.options.layout, &self.to_look_at.requests);
        self.put_last.retain(|id, _| waiting.contains(&layout.request(id)));
    }

    fn asked(&mut self, now: Now, request: Request) {
        let (Ask::Approve { task } | Ask::Reject { task, .. }) = &request.ask else {
            return self.step(now, Event::Asked(request));
        };
        let found = match self.in_review(task) {
            Ok(record) => record.map(|record| Box::new(found_of(record, Vec::new()))),
            Err(why) => return log::error!("{why}; request {} is looked at again", request.id),
        };
        self.step(now, Event::Reviewed(request, found));
    }

    /// A request is gone, if it is: whoever asked waits no longer.
    pub(super) fn request_gone(&mut self, now: Now, id: Name) {
        if self.state.carries_out(&id) && !self.is_there(&self.options.layout.request(&id)) {
            self.step(now, Event::Withdrawn(id));
        }
    }

    /// Finds requests that are gone though nobody told.
    pub(super) fn look_for_withdrawn(&mut self, now: Now) {
        for id in self.state.carried_out() {
            self.request_gone(now, id);
        }
    }
}
