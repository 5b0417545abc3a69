//! Jobs that are given what changed: after a pause, one run at a time, again after a failure.

use super::*;
use crate::machine::tests::jobs::job;
use crate::protocol::trigger::TriggerRecord;

const SECOND: u64 = 1_000;

impl Story {
    fn watching(text: &str) -> Self {
        let mut s = Self::new();
        s.offer("j", "1", job(&format!("watch = [\"inbox/*\"]\n{text}")));
        s
    }

    fn changed(&mut self) -> &mut Self {
        self.tell(Event::FilesChanged(name("j")))
    }

    /// How often changes were to be given to a run.
    fn given(&self) -> usize {
        self.news.iter().filter(|effect| matches!(effect, Effect::FireChanges(_))).count()
    }

    /// The firing with this id is submitted, and its run is up.
    fn begun(&mut self, id: &str) -> RunId {
        self.tell(Event::Submitted(Self::submission(id, "j"))).stored().up()
    }

    fn is_dirty(&self) -> Option<bool> {
        self.news.iter().rev().find_map(|effect| match effect {
            Effect::KeepTrigger(_, record) => Some(record.dirty.is_some()),
            _ => None,
        })
    }
}

#[test]
fn a_change_is_given_to_a_run_at_once_and_what_comes_meanwhile_to_one_more() {
    let mut s = Story::watching("");
    assert_eq!(s.changed().given(), 1);
    let run = s.begun("a");
    assert_eq!(s.changed().given() + s.changed().given() + s.wait(60 * SECOND).given(), 0, "it is at work");
    s.ends(&run, Ending::Code(0)).looked("a").stored();
    assert!(s.wants(&Effect::FiringEnded(name("j"), name("a"), true)));
    assert_eq!(s.given(), 1, "both changes are given to one run");
}

#[test]
fn a_pause_begins_anew_with_each_change_up_to_a_limit_and_outlives_the_supervisor() {
    let mut s = Story::watching("debounce = \"90s\"\nmax_wait = \"3m\"");
    assert_eq!(s.changed().is_dirty(), Some(true), "it is remembered");
    for _ in 0..2 {
        assert_eq!(s.wait(60 * SECOND).changed().given(), 0);
    }
    assert_eq!(s.wait(59 * SECOND).given(), 0);
    assert_eq!(s.wait(SECOND).given(), 1, "three minutes are over");

    let mut s = Story::new();
    let dirty = Some(Wall(s.now().wall.0 - 170_000));
    let record = TriggerRecord { dirty, ..TriggerRecord::new(String::new(), Wall(0)) };
    let text = "watch = [\"inbox/*\"]\ndebounce = \"90s\"\nmax_wait = \"3m\"";
    s.tell(Event::TriggerFound(name("j"), record)).offer("j", "1", job(text));
    assert_eq!(s.wait(9 * SECOND).given(), 0);
    assert_eq!(s.wait(SECOND).given(), 1, "ten seconds were left of three minutes");
}

#[test]
fn what_changes_back_and_what_is_stopped_is_given_to_nobody() {
    let mut s = Story::watching("debounce = \"5s\"");
    s.changed().tell(Event::FilesSettled(name("j")));
    assert_eq!(s.is_dirty(), Some(false));
    assert_eq!(s.wait(60 * SECOND).given(), 0);
    s.changed().tell(Event::StoppedSeen([(name("j"), "no".to_owned())].into()));
    assert_eq!(s.wait(60 * SECOND).given(), 0);
    assert_eq!(s.tell(Event::StoppedSeen([].into())).given(), 1, "what is not handled still is to be");
}

#[test]
fn after_a_failure_changes_wait_and_a_throttle_counts_all_starts() {
    let mut s = Story::watching("");
    s.changed();
    let run = s.begun("a");
    s.ends(&run, Ending::Code(1)).looked("a").stored();
    assert!(s.wants(&Effect::FiringEnded(name("j"), name("a"), false)));
    // The wait is drawn from 0 to 1 s, then 0 to 4 s.
    assert_eq!(s.changed().given(), 0);
    assert_eq!(s.wait(SECOND).given(), 1);

    let mut s = Story::watching("throttle = \"1/10m\"");
    assert_eq!(s.changed().given(), 1);
    let run = s.begun("a");
    s.ends(&run, Ending::Code(0)).looked("a").stored();
    assert_eq!(s.changed().given() + s.wait(599 * SECOND).given(), 0);
    assert_eq!(s.wait(SECOND).given(), 1);
}
