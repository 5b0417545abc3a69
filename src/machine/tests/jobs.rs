//! Jobs: slots that come, are fired, skipped or missed.

use super::*;
use crate::machine::state::Course;
use crate::protocol::manifest::{Defaults, from_toml};
use crate::protocol::schedule::SlotId;
use crate::protocol::trigger::TriggerRecord;

const MINUTE: u64 = 60_000;
const HOUR: u64 = 60 * MINUTE;

pub(super) fn job(text: &str) -> Manifest {
    let text = format!("command = [\"x\"]\n{text}");
    from_toml("j.toml", text, &Defaults::default()).unwrap().of(&name("j"))
}

fn slot(text: &str) -> SlotId {
    text.parse().unwrap()
}

impl Story {
    fn with_job(text: &str) -> Self {
        let mut s = Self::new();
        s.offer("j", "1", job(text));
        s
    }

    /// The slots that were to be fired, and not before when.
    fn fired(&self) -> Vec<(String, Option<Wall>)> {
        let fired = |effect: &Effect| match effect {
            Effect::Fire(slot, not_before) => Some((slot.to_string(), *not_before)),
            _ => None,
        };
        self.news.iter().filter_map(fired).collect()
    }

    /// Submits the one firing, whose record is durable then.
    fn fire(&mut self) -> &mut Self {
        let fired = self.fired();
        let [(id, not_before)] = &fired[..] else { panic!("one firing expected: {:?}", self.news) };
        let wishes = Wishes { not_before: *not_before, ..Wishes::default() };
        let task = slot(id).task();
        self.tell(Event::Submitted(Submission { wishes, ..Self::submission(task.as_str(), "j") })).stored()
    }

    fn kept(&self) -> Option<&TriggerRecord> {
        self.news.iter().rev().find_map(|effect| match effect {
            Effect::KeepTrigger(_, record) => Some(record),
            _ => None,
        })
    }

    fn decided(&self) -> Option<String> {
        self.kept().map(|record| record.decided.map(|slot| slot.to_string()).unwrap_or_default())
    }

    fn skipped(&self) -> Vec<(String, String)> {
        let skipped = |fact: &Fact| match fact {
            Fact::SlotSkipped { slot, why } => Some((slot.to_string(), why.clone())),
            _ => None,
        };
        self.facts().iter().filter_map(skipped).collect()
    }

    fn missed(&self) -> Vec<(String, String, usize)> {
        let missed = |fact: &Fact| match fact {
            Fact::SlotsMissed { first, last, count } => Some((first.to_string(), last.to_string(), *count)),
            _ => None,
        };
        self.facts().iter().filter_map(missed).collect()
    }
}

#[test]
fn a_slot_is_fired_once_when_it_comes_and_decided_once_that_is_durable() {
    let mut s = Story::with_job("schedule = \"45 * * * *\"");
    assert_eq!(s.decided().as_deref(), Some(""), "it was seen for the first time");
    s.wait(15 * MINUTE - 1);
    assert!(s.fired().is_empty());
    s.wait(1);
    assert_eq!(s.fired(), [("j@2023-11-14T22:45Z".into(), None)]);
    assert_eq!(s.kept(), None, "a crash now must fire it again");
    s.fire();
    assert_eq!(s.decided().as_deref(), Some("2023-11-14T22:45Z"));
    let run = s.up();
    s.ends(&run, Ending::Code(0)).looked("j-2023-11-14T22-45Z").stored().wait(45 * MINUTE);
    assert!(s.fired().is_empty());
    s.wait(15 * MINUTE);
    assert_eq!(s.fired(), [("j@2023-11-14T23:45Z".into(), None)]);
}

#[test]
fn what_comes_while_the_one_before_is_open_goes_by_overlap() {
    for (overlap, fires, skips, stops) in
        [("skip", 0, 1, 0), ("queue", 1, 0, 0), ("parallel", 1, 0, 0), ("replace", 1, 0, 1)]
    {
        let mut s = Story::with_job(&format!("every = \"10m\"\noverlap = \"{overlap}\""));
        s.wait(10 * MINUTE).fire();
        let first = s.up();
        s.wait(10 * MINUTE);
        assert_eq!((s.fired().len(), s.skipped().len()), (fires, skips), "{overlap}");
        let stopped = s.news.iter().filter(|e| matches!(e, Effect::Signal(run, _) if *run == first)).count();
        assert_eq!(stopped, stops, "{overlap}");
        if fires > 0 {
            s.fire();
            assert_eq!(s.launches().len(), usize::from(overlap == "parallel"), "{overlap}");
        } else {
            assert_eq!(s.decided().as_deref(), Some("2023-11-14T22:50Z"), "nothing is to be fired of it");
        }
    }
}

#[test]
fn a_slot_of_what_is_stopped_halted_or_throttled_is_skipped_and_says_why() {
    for (text, told, why) in [
        ("", Some(Event::HaltSeen(Some("no".into()))), "halted: no"),
        ("enabled = false", None, "its manifest says enabled = false"),
        ("throttle = \"1/1h\"", None, "its throttle lets nothing through yet"),
    ] {
        let mut s = Story::with_job(&format!("every = \"10m\"\n{text}"));
        if let Some(told) = told {
            s.tell(told);
        }
        s.wait(10 * MINUTE);
        if text.starts_with("throttle") {
            s.fire();
            let run = s.up();
            s.ends(&run, Ending::Code(0)).looked("j-2023-11-14T22-40Z").stored().wait(10 * MINUTE);
        }
        let skipped = s.skipped();
        let [(_, found)] = &skipped[..] else { panic!("{why}: {:?}", s.news) };
        assert_eq!(found, why);
        assert!(s.fired().is_empty() && s.kept().is_some());
    }
}

#[test]
fn what_was_missed_while_nobody_was_there_is_caught_up_as_declared() {
    let now = EPOCH + 1_000_000;
    for (catch_up, fires, missed) in [("none", 0, 3), ("last", 1, 2), ("all", 3, 0)] {
        let text = format!("schedule = \"15 * * * *\"\ncatch_up = \"{catch_up}\"");
        let mut s = Story::new();
        // Four slots ago: 18:15. Now it is 22:30.
        let clock = "15 * * * * (UTC)".to_owned();
        let decided = "2023-11-14T19:15Z".parse().ok();
        let record = TriggerRecord { decided, ..TriggerRecord::new(clock, Wall(now - 86_400_000)) };
        s.tell(Event::TriggerFound(name("j"), record)).offer("j", "1", job(&text));
        let fired = s.fired();
        assert_eq!(fired.len(), fires, "{catch_up}");
        assert_eq!(s.missed().iter().map(|(.., count)| count).sum::<usize>(), missed, "{catch_up}");
        assert!(fired.iter().all(|(_, at)| at.is_none_or(|at| (at.0 - now) <= 60_000)), "spread, {fired:?}");
        assert_eq!(fired.last().map(|(id, _)| id.as_str()), (fires > 0).then_some("j@2023-11-14T22:15Z"));
    }
}

#[test]
fn nothing_is_caught_up_from_before_the_schedule_was_seen_as_it_is_now() {
    let mut s = Story::new();
    let record = TriggerRecord {
        decided: "2023-11-14T18:15Z".parse().ok(),
        ..TriggerRecord::new("15 * * * * (UTC)".into(), Wall(0))
    };
    s.tell(Event::TriggerFound(name("j"), record)).offer("j", "1", job("schedule = \"20 * * * *\""));
    assert!(s.fired().is_empty() && s.missed().is_empty());
    assert_eq!(
        s.kept().map(|record| (record.clock.as_str(), record.decided)),
        Some(("20 * * * * (UTC)", None))
    );
}

#[test]
fn a_clock_that_is_set_neither_repeats_a_slot_nor_leaves_one_out() {
    let mut s = Story::with_job("schedule = \"0 * * * *\"");
    s.wait(30 * MINUTE).fire();
    let run = s.up();
    s.ends(&run, Ending::Code(0)).looked("j-2023-11-14T23-00Z").stored();
    s.epoch -= i64::try_from(HOUR).unwrap();
    s.wait(HOUR + 30 * MINUTE);
    assert!(s.fired().is_empty(), "23:00 came for the second time");
    s.wait(30 * MINUTE);
    assert_eq!(s.fired(), [("j@2023-11-15T00:00Z".into(), None)]);
    s.fire();
    s.epoch += i64::try_from(2 * HOUR + 10 * MINUTE).unwrap();
    s.tell(Event::Tick);
    assert_eq!(s.skipped().len() + s.fired().len(), 1, "02:00, which was leapt over, is caught up");
    assert_eq!(s.missed().len(), 1, "01:00 is not");
}

#[test]
fn a_clock_that_was_far_ahead_is_followed_again_once_it_is_right() {
    const FAR: i64 = 10 * 86_400_000;
    let mut s = Story::with_job("schedule = \"0 * * * *\"");
    s.epoch += FAR;
    s.tell(Event::Tick).fire();
    s.epoch -= FAR;
    let cancel =
        Ask::Cancel { tasks: vec![slot("j@2023-11-24T22:00Z").task()], group: None, why: "no".into() };
    s.tell(Event::Asked(Request { v: 1, id: name("r"), ask: cancel })).stored();
    s.tell(Event::Tick).wait(30 * MINUTE);
    assert_eq!(s.fired(), [("j@2023-11-14T23:00Z".into(), None)]);
}

#[test]
fn jitter_delays_a_firing_and_not_its_slot() {
    let mut s = Story::with_job("every = \"1h\"\njitter = \"5m\"");
    s.wait(30 * MINUTE);
    let fired = s.fired();
    let [(id, Some(at))] = &fired[..] else { panic!("{fired:?}") };
    assert_eq!(id, "j@2023-11-14T23:00Z");
    assert!((1..=300_000).contains(&(at.0 - s.now().wall.0)));
    s.fire();
    assert!(s.launches().is_empty());
    s.wait(5 * MINUTE).stored();
    assert_eq!(s.launches().len(), 1);
}

#[test]
fn a_firing_that_began_is_not_fired_again_unless_its_job_says_so() {
    for (text, begun, phase) in
        [("", true, Phase::Dead), ("", false, Phase::Ready), ("retries = 1", true, Phase::Waiting)]
    {
        let mut s = Story::with_job(&format!("every = \"1h\"\n{text}"));
        s.wait(30 * MINUTE).fire();
        if begun {
            let run = s.up();
            s.tell(Event::StopAsked("TERM".into()))
                .ends(&run, Ending::Signal(15))
                .looked("j-2023-11-14T23-00Z");
        } else {
            let [(run, ..)] = &s.launches()[..] else { panic!("{:?}", s.news) };
            let failed = Event::SpawnFailed { run: run.clone(), error: "EAGAIN".into(), busy: false };
            s.tell(failed);
            s.looked("j-2023-11-14T23-00Z");
        }
        assert_eq!(s.change().phase, phase, "{text} {begun}");
    }
}

#[test]
fn until_idle_waits_for_the_end_of_a_debounce_and_not_for_what_fails() {
    let mut s = Story::with(Setup { until_idle: true, ..setup() });
    s.tell(Event::MemoryQueue { empty: true });
    s.offer("j", "1", job("watch = [\"x/*\"]\ndebounce = \"10s\""));
    let changed = || Event::FilesChanged(name("j"));
    s.tell(changed()).wait(9_999);
    assert!(s.state.course == Course::Working && !s.wants(&Effect::FireChanges(name("j"))), "{:?}", s.news);
    s.wait(1);
    assert!(s.wants(&Effect::FireChanges(name("j"))) && !s.wants(&Effect::Exit), "{:?}", s.news);
    let run = s.admitted("t", "j").up();
    s.ends(&run, Ending::Code(1)).looked("t").stored().tell(changed()).wait(2_000);
    assert!(s.wants(&Effect::Exit), "{:?}", s.news);
}
