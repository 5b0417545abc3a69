use proptest::prelude::*;

use super::*;

#[test]
fn a_pause_begins_anew_with_each_event_but_not_for_ever() {
    let mut debounce = Debounce::new(90, 300);
    assert!(debounce.deadline().is_none() && !debounce.fires(Mono(1000)));
    debounce.event(Mono(1000));
    assert_eq!(debounce.deadline(), Some(Mono(1090)));
    for at in [1080, 1160, 1240] {
        assert!(!debounce.fires(Mono(at)));
        debounce.event(Mono(at));
    }
    assert_eq!(debounce.deadline(), Some(Mono(1300)), "as long as it may take");
    assert!(!debounce.fires(Mono(1299)) && debounce.fires(Mono(1300)) && !debounce.fires(Mono(1301)));
    debounce.event(Mono(1302));
    debounce.clear();
    assert_eq!((debounce.deadline(), debounce.dirty()), (None, None));
}

#[test]
fn what_an_earlier_supervisor_left_runs_at_its_time() {
    let mut before = Debounce::new(90, 300);
    before.event(Mono(1000));
    before.event(Mono(1050));
    let mut after = Debounce::new(90, 300).resumed(before.dirty());
    assert_eq!(after, before);
    assert!(!after.fires(Mono(1139)) && after.fires(Mono(1140)));
}

#[test]
fn so_many_starts_and_no_more() {
    let mut starts = Starts::new(Throttle { count: 2, per_ms: 100 });
    for at in [0, 40] {
        assert!(starts.is_open(Mono(at)));
        starts.started(Mono(at));
    }
    assert!(!starts.is_open(Mono(99)) && starts.is_open(Mono(100)));
    // One by hand counts, whatever the limit says.
    starts.started(Mono(50));
    assert_eq!(starts.open_from(), Some(Mono(140)));
}

proptest! {
    /// Each event leads to a run: not before its pause is over unless the wait is, never later than either, and none
    /// runs without an event.
    #[test]
    fn events_are_merged_and_none_is_lost(
        gaps in prop::collection::vec(0..250_u64, 1..60), pause in 1..120_u64, more in 0..400_u64,
    ) {
        let most = pause + more;
        let mut debounce = Debounce::new(pause, most);
        let mut events: Vec<u64> = Vec::new();
        let mut now = 0;
        let mut last_event = None;
        let ends = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect::<Vec<_>>();
        let mut coming = ends.iter().copied().peekable();
        loop {
            let deadline = debounce.deadline();
            prop_assert_eq!(deadline.is_some(), !events.is_empty());
            match (coming.peek().copied(), deadline) {
                (Some(event), Some(Mono(due))) if due <= event => now = due,
                (Some(event), _) => {
                    now = event;
                    coming.next();
                    debounce.event(Mono(now));
                    events.push(now);
                    last_event = Some(now);
                    continue;
                }
                (None, Some(Mono(due))) => now = due,
                (None, None) => break,
            }
            prop_assert!(now == 0 || !debounce.clone().fires(Mono(now - 1)));
            prop_assert!(debounce.fires(Mono(now)));
            let (first, last) = (events[0], last_event.expect("an event"));
            prop_assert_eq!(now, (last + pause).min(first + most));
            events.clear();
        }
        prop_assert!(events.is_empty(), "{:?} are lost at {}", events, now);
    }

    /// In no span of its length are there more starts than it says, and where there is room it lets one through.
    #[test]
    fn no_span_has_too_many_starts(wishes in prop::collection::vec(0..40_u64, 1..200), count in 1..6_u32, per_ms in 1..200_u64) {
        let mut starts = Starts::new(Throttle { count, per_ms });
        let (mut now, mut started) = (0, Vec::new());
        for gap in wishes {
            now += gap;
            let within = started.iter().filter(|at: &&u64| **at + per_ms > now).count();
            prop_assert_eq!(starts.is_open(Mono(now)), within < count as usize);
            if starts.is_open(Mono(now)) {
                starts.started(Mono(now));
                started.push(now);
            } else {
                let open = starts.open_from().expect("a time").0;
                prop_assert!(open > now && starts.is_open(Mono(open)) && !starts.is_open(Mono(open - 1)));
            }
        }
    }
}
