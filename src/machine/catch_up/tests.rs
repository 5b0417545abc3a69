use jiff::tz::TimeZone;
use proptest::prelude::*;

use super::*;
use crate::protocol::schedule::{Cron, Entry};

const HOUR: i64 = 3_600_000;
const DAY: u64 = 86_400_000;

fn at(text: &str) -> Wall {
    text.parse().unwrap()
}

fn cron(text: &str) -> Timetable {
    Timetable::new(vec![Entry::Cron(Box::new(Cron::parse(text).unwrap()))], TimeZone::UTC)
}

fn hourly() -> Timetable {
    cron("0 * * * *")
}

fn known(first_seen: &str, decided: Option<&str>) -> Known {
    Known { first_seen: at(first_seen), decided: decided.map(|slot| slot.parse().unwrap()) }
}

/// The slots fired, by their hours; and those passed over.
fn told(plan: &Plan) -> (Vec<String>, Option<(String, String, usize)>) {
    let text = |slot: &Slot| slot.to_string()[5..16].to_owned();
    let passed = plan.passed.map(|passed| (text(&passed.first), text(&passed.last), passed.count));
    (plan.fire.iter().map(text).collect(), passed)
}

fn span(first: &str, last: &str, count: usize) -> (String, String, usize) {
    (first.into(), last.into(), count)
}

#[test]
fn what_was_missed_is_treated_as_declared() {
    let known = known("2026-11-01T00:00:00Z", Some("2026-11-20T04:00Z"));
    let now = at("2026-11-20T08:30:00Z");
    let of = |mode, window_ms| told(&plan(&hourly(), known, now, Policy { mode, window_ms }));
    assert_eq!(of(CatchUp::None, DAY), (vec![], Some(span("11-20T05:00", "11-20T08:00", 4))));
    assert_eq!(
        of(CatchUp::Last, DAY),
        (vec!["11-20T08:00".into()], Some(span("11-20T05:00", "11-20T07:00", 3)))
    );
    let all = ["11-20T05:00", "11-20T06:00", "11-20T07:00", "11-20T08:00"].map(str::to_owned).to_vec();
    assert_eq!(of(CatchUp::All, DAY), (all.clone(), None));
    // The window reaches back two hours and a half: to six o'clock, and that included.
    assert_eq!(of(CatchUp::All, 9_000_000), (all[1..].to_vec(), Some(span("11-20T05:00", "11-20T05:00", 1))));
    assert_eq!(of(CatchUp::Last, 60_000), (vec![], Some(span("11-20T05:00", "11-20T08:00", 4))));
}

#[test]
fn what_has_just_come_is_due_and_not_missed() {
    let known = known("2026-11-01T00:00:00Z", Some("2026-11-20T04:00Z"));
    for mode in [CatchUp::None, CatchUp::Last] {
        let plan = plan(&hourly(), known, at("2026-11-20T07:01:00Z"), Policy { mode, window_ms: DAY });
        assert_eq!(
            told(&plan),
            (vec!["11-20T07:00".into()], Some(span("11-20T05:00", "11-20T06:00", 2))),
            "{mode:?}"
        );
        assert_eq!(plan.decided, Some("2026-11-20T07:00Z".parse().unwrap()));
    }
    let late = plan(
        &hourly(),
        known,
        at("2026-11-20T05:01:00.001Z"),
        Policy { mode: CatchUp::None, window_ms: DAY },
    );
    assert_eq!(told(&late), (vec![], Some(span("11-20T05:00", "11-20T05:00", 1))));
}

#[test]
fn nothing_before_the_first_sight_is_caught_up() {
    let policy = Policy { mode: CatchUp::All, window_ms: 30 * DAY };
    let fresh = known("2026-11-20T06:00:00Z", None);
    assert_eq!(
        told(&plan(&hourly(), fresh, at("2026-11-20T08:30:00Z"), policy)).0,
        ["11-20T07:00", "11-20T08:00"]
    );
    // A schedule that was changed: what was decided by the old one does not count against its first sight.
    let changed = known("2026-11-20T06:00:00Z", Some("2026-11-20T04:00Z"));
    assert_eq!(told(&plan(&hourly(), changed, at("2026-11-20T07:30:00Z"), policy)).0, ["11-20T07:00"]);
    assert_eq!(plan(&hourly(), fresh, at("2026-11-20T06:30:00Z"), policy), Plan::default());
}

#[test]
fn a_jump_of_the_clock_neither_repeats_nor_skips() {
    let policy = Policy { mode: CatchUp::All, window_ms: DAY };
    let known = known("2026-11-01T00:00:00Z", Some("2026-11-20T08:00Z"));
    for back in ["2026-11-20T08:00:00Z", "2026-11-20T03:00:00Z", "2026-11-19T08:00:00Z"] {
        assert_eq!(plan(&hourly(), known, at(back), policy), Plan::default(), "{back}");
    }
    // Further than clocks go wrong by: then it is the decision that lies in a future that never was.
    let far = Known { decided: Some("2031-01-01T00:00Z".parse().unwrap()), ..known };
    assert_eq!(plan(&hourly(), far, at("2026-11-20T07:59:00Z"), policy), Plan::default());
    let right_again = plan(&hourly(), far, at("2026-11-20T08:00:00Z"), policy);
    assert_eq!(told(&right_again), (vec!["11-20T08:00".into()], None));
    assert_eq!(right_again.decided, right_again.fire.last().copied());
}

#[test]
fn a_long_absence_is_no_storm() {
    let every_second = Timetable::new(vec![Entry::Every(1)], TimeZone::UTC);
    let policy = Policy { mode: CatchUp::All, window_ms: 366 * DAY };
    let plan = plan(&every_second, known("2020-01-01T00:00:00Z", None), at("2026-11-20T08:00:00Z"), policy);
    assert_eq!(plan.fire.len(), FIRE_MAX);
    assert_eq!(plan.fire.last(), plan.decided.as_ref());
    assert_eq!(plan.passed.map(|passed| passed.count), Some(COUNT_MAX));
}

proptest! {
    /// However often it is asked, and wherever the supervisor was down in between: no slot is fired twice, those fired
    /// are slots, in order, and each that came is fired or told to be passed over.
    #[test]
    fn every_slot_is_decided_once(
        steps in prop::collection::vec(-2 * HOUR..30 * HOUR, 1..30), mode in 0..3_usize, window in 1..5_i64,
        expression in prop::sample::select(vec!["0 * * * *", "*/20 3 * * *", "15 4 * * 1-5", "0 */5 * * *"]),
    ) {
        let table = cron(expression);
        let first_seen = at("2026-11-01T00:00:00Z");
        let policy = Policy {
            mode: [CatchUp::None, CatchUp::Last, CatchUp::All][mode],
            window_ms: u64::try_from(window * 7 * HOUR).unwrap(),
        };
        let mut known = Known { first_seen, decided: None };
        let (mut now, mut latest, mut fired, mut passed) = (first_seen, first_seen, Vec::new(), 0);
        for step in steps {
            now = Wall(now.0 + step);
            let plan = plan(&table, known, now, policy);
            latest = latest.max(now);
            fired.extend(plan.fire.iter().copied());
            passed += plan.passed.map_or(0, |passed| passed.count);
            known.decided = plan.decided.or(known.decided);
        }
        let all = table.slots(first_seen, latest, usize::MAX);
        prop_assert!(fired.windows(2).all(|pair| pair[0] < pair[1]), "{:?}", fired);
        prop_assert!(fired.iter().all(|slot| all.contains(slot)));
        prop_assert_eq!(fired.len() + passed, all.len());
    }
}
