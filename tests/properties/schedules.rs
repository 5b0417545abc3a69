//! Schedules: what others say that they come to, and what holds for any of them in any zone.
//!
//! `tests/schedules/table.tsv` is written by `generate.py` beside it, which has no code in common with this crate:
//! the rules of Debian's cron, in Python, and what cronsim and croniter answer.

use std::collections::BTreeMap;

use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use nightcrew::machine::timetable::Timetable;
use nightcrew::protocol::schedule::{Civil, Cron, Entry, Slot};
use nightcrew::protocol::time::Wall;
use proptest::prelude::*;
use proptest::sample::select;
use rustix::time::{ClockId, clock_gettime};

const TABLE: &str = include_str!("../schedules/table.tsv");

const ZONES: [&str; 12] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "America/Sao_Paulo",
    "Africa/Casablanca",
    "Pacific/Apia",
    "Africa/Cairo",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Kolkata",
    "UTC",
];

/// Those rules that came with this build, whatever the machine has.
fn zone(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).expect("a zone")
}

fn cron(text: &str) -> Entry {
    Entry::Cron(Box::new(Cron::parse(text).map_err(|why| (text.to_owned(), why)).expect("a schedule")))
}

fn times(slots: &[Slot]) -> String {
    let time = |slot: &Slot| Timestamp::from_second(slot.second()).expect("a time").to_string();
    slots.iter().map(time).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_times_are_those_that_others_say() {
    let end = Wall(Timestamp::MAX.as_millisecond());
    let (mut cases, mut wrong, mut said_by) = (0, Vec::new(), BTreeMap::<&str, u32>::new());
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let fields: Vec<&str> = line.split('\t').collect();
        let [expression, name, asked, expected, by] = fields[..] else { panic!("{line:?}") };
        let table = Timetable::new(vec![cron(expression)], zone(name));
        let asked: Wall = asked.parse().expect("a time");
        let count = expected.split(' ').count();
        let slots = table.slots(asked, end, count);
        cases += 1;
        *said_by.entry(by).or_default() += 1;
        if times(&slots) != expected {
            wrong.push(format!("{line}\n  but {}", times(&slots)));
        }
        // And backwards.
        let last = slots.last().expect("a slot").wall();
        assert_eq!(table.latest_slots(asked, last, count), slots, "{line}");
    }
    assert!(wrong.is_empty(), "{} of {cases}:\n{}", wrong.len(), wrong.join("\n"));
    assert!(cases >= 900, "{cases} cases");
    let confirmed = said_by.iter().filter(|(by, _)| by.contains("cron")).map(|(_, count)| count).sum::<u32>();
    assert!(confirmed * 100 > cases * 95, "{said_by:?}");
}

/// Every local day has its run, once: whatever clocks do, for twenty years.
#[test]
fn a_time_of_day_comes_once_every_day() {
    let first = jiff::civil::date(2020, 1, 1);
    for name in ZONES {
        let zone = zone(name);
        let midnight = first.to_zoned(zone.clone()).expect("a time").timestamp();
        for expression in
            ["0 0 * * *", "30 2 * * *", "15 1 * * *", "59 23 * * *", "0 3 * * *", "5 30 2 * * *"]
        {
            let table = Timetable::new(vec![cron(expression)], zone.clone());
            let mut at = Wall(midnight.as_millisecond() - 1);
            for day in first.series(jiff::Span::new().days(1)).take_while(|day| day.year() <= 2040) {
                at = table.next(at).expect("a slot").wall();
                let local = Timestamp::from_millisecond(at.0).expect("a time").to_zoned(zone.clone());
                assert_eq!(local.date(), day, "{expression} in {name}: {local}");
            }
        }
    }
}

#[test]
fn what_is_left_out_or_repeated_is_taken_as_documented() {
    let slots = |entry: Entry, name: &str, from: &str, until: &str| {
        let table = Timetable::new(vec![entry], zone(name));
        times(&table.slots(from.parse().expect("a time"), until.parse().expect("a time"), 100))
    };
    let night = ("Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T03:00:00Z");
    // Several times of one gap come together, with what is due at its end.
    for text in ["0,15,30,45 2 * * *", "30 2 * * *", "0-59 2 * * *", "0 2,3 * * *"] {
        let expected = "2026-03-29T01:00:00Z";
        assert_eq!(slots(cron(text), night.0, night.1, night.2), expected, "{text}");
    }
    assert_eq!(slots(cron("*/30 2 * * *"), night.0, night.1, night.2), "");
    let at = |text| Entry::At(Civil::parse(text).expect("a time"));
    assert_eq!(slots(at("2026-03-29T02:30"), night.0, night.1, night.2), "2026-03-29T01:00:00Z");
    assert_eq!(slots(at("2026-03-29T02:30:01"), "UTC", night.1, night.2), "2026-03-29T02:30:01Z");
    let autumn = ("Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-25T12:00:00Z");
    assert_eq!(slots(at("2026-10-25T02:30"), autumn.0, autumn.1, autumn.2), "2026-10-25T00:30:00Z");
    // A month's run on a day that was left out is late, not lost.
    let december = ("Pacific/Apia", "2011-12-01T00:00:00Z", "2012-01-15T00:00:00Z");
    assert_eq!(slots(cron("0 9 30 * *"), december.0, december.1, december.2), "2011-12-30T10:00:00Z");
    // What is every so often knows of no zone, nor of where it began.
    assert_eq!(
        slots(Entry::Every(5400), night.0, "2026-03-28T23:59:59.999Z", night.2),
        "2026-03-29T00:00:00Z 2026-03-29T01:30:00Z 2026-03-29T03:00:00Z"
    );
}

#[test]
fn a_slot_is_found_in_its_own_second_only_backwards() {
    let table = Timetable::new(vec![cron("0 4 * * *")], zone("UTC"));
    let at: Wall = "2026-11-20T04:00:00Z".parse().expect("a time");
    for (ms, next, last) in [(-1, 0, -1), (0, 1, 0), (999, 1, 0)] {
        let day = |days: i64| Slot::at(at.0 / 1000 + days * 86_400);
        assert_eq!(
            (table.next(Wall(at.0 + ms)), table.last(Wall(at.0 + ms))),
            (day(next), day(last)),
            "{ms}"
        );
    }
}

/// An expression of every shape.
fn expression() -> impl Strategy<Value = String> {
    let field = |low: u32, high: u32| {
        prop_oneof![
            3 => Just("*".to_owned()),
            2 => (1..=high).prop_map(|step| format!("*/{step}")),
            4 => (low..=high).prop_map(|value| value.to_string()),
            2 => (low..=high, low..=high).prop_map(|(a, b)| format!("{}-{}", a.min(b), a.max(b))),
            2 => prop::collection::vec(low..=high, 1..5)
                .prop_map(|all| all.iter().map(u32::to_string).collect::<Vec<_>>().join(",")),
        ]
    };
    let day = prop_oneof![3 => field(1, 31), 1 => select(vec!["L", "LW", "31W", "1W", "30,31"]).prop_map(str::to_owned)];
    let weekday = prop_oneof![
        3 => field(0, 7),
        1 => select(vec!["mon-fri", "5L", "1#5", "+mon", "sun"]).prop_map(str::to_owned)
    ];
    let second = prop_oneof![2 => Just(String::new()), 1 => field(0, 59)];
    (second, field(0, 59), field(0, 23), day, field(1, 12), weekday)
        .prop_map(|(s, m, h, dom, month, dow)| format!("{s} {m} {h} {dom} {month} {dow}"))
}

fn entry() -> impl Strategy<Value = Entry> {
    let cron = expression().prop_filter_map("it never comes", |text| {
        Cron::parse(&text).ok().map(|cron| Entry::Cron(Box::new(cron)))
    });
    let every = prop_oneof![1..100_000_u64, Just(u64::MAX), Just(1)].prop_map(Entry::Every);
    let at = (1_400_000_000..3_000_000_000_i64).prop_map(|second| Entry::At(Civil(second)));
    prop_oneof![8 => cron, 1 => every, 1 => at]
}

fn timetable() -> impl Strategy<Value = Timetable> {
    (prop::collection::vec(entry(), 1..4), select(ZONES.as_slice()))
        .prop_map(|(entries, name)| Timetable::new(entries, zone(name)))
}

/// Within a day of a jump of some zone's clock, or anywhere from 2011 to 2060.
fn instant() -> impl Strategy<Value = Wall> {
    let jumps: Vec<i64> = ZONES
        .iter()
        .flat_map(|name| {
            let from = "2011-06-01T00:00Z".parse().expect("a time");
            zone(name)
                .following(from)
                .take(60)
                .map(|jump| jump.timestamp().as_millisecond())
                .collect::<Vec<_>>()
        })
        .collect();
    let near = (select(jumps), -86_400_000..86_400_000_i64).prop_map(|(jump, by)| Wall(jump + by));
    let on = |wall: Wall| Wall(wall.0.div_euclid(1000) * 1000);
    prop_oneof![near.clone(), near.prop_map(on), (1_306_900_800_000..2_840_140_800_000_i64).prop_map(Wall)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_comes_next_comes_later(table in timetable(), at in instant()) {
        let mut at = at;
        for _ in 0..20 {
            let Some(next) = table.next(at) else { break };
            prop_assert!(next.wall() > at);
            // Nothing lies in between, and seen from there it is the last.
            prop_assert_eq!(table.last(next.wall()), Some(next));
            let before = table.last(Wall(next.wall().0 - 1));
            prop_assert!(before.is_none_or(|before| before.wall() <= at), "{:?} after {:?}", before, at);
            at = next.wall();
        }
    }

    #[test]
    fn spans_add_up(table in timetable(), at in instant(), first in 0..150_i64, second in 0..150_i64) {
        // As many slots for what comes each second as for what comes each day.
        let begin = table.next(at).map_or(at, Slot::wall);
        let pace = table.next(begin).map_or(1000, |slot| (slot.wall().0 - begin.0).min(86_400_000)) / 1000;
        let (middle, end) = (Wall(at.0 + first * pace), Wall(at.0 + (first + second) * pace));
        let whole = table.slots(at, end, usize::MAX);
        let parts = [table.slots(at, middle, usize::MAX), table.slots(middle, end, usize::MAX)].concat();
        prop_assert_eq!(&whole, &parts);
        prop_assert_eq!(&table.latest_slots(at, end, usize::MAX), &whole);
        let few = table.latest_slots(at, end, 3);
        prop_assert_eq!(&few[..], &whole[whole.len() - few.len()..]);
    }

    #[test]
    fn the_order_of_entries_does_not_matter(entries in prop::collection::vec(entry(), 1..4), at in instant()) {
        let table = |entries: Vec<Entry>| Timetable::new(entries, zone("Europe/Berlin"));
        let mut turned = entries.clone();
        turned.reverse();
        prop_assert_eq!(table(entries.clone()).next(at), table(turned).next(at));
        let each = entries.into_iter().filter_map(|entry| table(vec![entry]).next(at)).min();
        prop_assert!(each.is_none_or(|each| each.wall() > at));
    }

    #[test]
    fn no_text_takes_long_or_makes_it_panic(text in prop_oneof![
        "\\PC{0,40}", expression(), "[0-9*/,L#W+?@a-z -]{0,60}",
    ], at in any::<i64>()) {
        let begun = worked();
        if let Ok(cron) = Cron::parse(&text) {
            for name in ["UTC", "Africa/Casablanca"] {
                let table = Timetable::new(vec![Entry::Cron(Box::new(cron.clone()))], zone(name));
                let _ = (table.next(Wall(at)), table.last(Wall(at)), table.next(Wall(0)));
            }
        }
        prop_assert!(worked() - begun < 500, "{} ms for {:?}", worked() - begun, text);
    }
}

/// How many milliseconds this thread was at work so far: what else a machine does is not in it.
fn worked() -> i64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec * 1000 + time.tv_nsec / 1_000_000
}

/// What comes rarest, and what comes in a gap alone: the search ends, soon.
#[test]
fn the_rarest_is_found_and_what_never_comes_is_given_up() {
    let begun = worked();
    let from: Wall = "2084-03-01T12:00:00Z".parse().expect("a time");
    for name in ZONES {
        for (text, expected) in
            [("0 0 0 29 2 +mon", "2112"), ("59 59 23 29 2 +tue", "2124"), ("0 0 29 2 +thu", "2120")]
        {
            let slot = Timetable::new(vec![cron(text)], zone(name)).next(from).expect("a slot");
            let local = Timestamp::from_second(slot.second()).expect("a time").to_zoned(zone(name));
            assert_eq!(local.year().to_string(), expected, "{text} in {name}");
        }
    }
    // It keeps its pace, and the only hour it has is never shown.
    let never = Timetable::new(vec![cron("*/5 2 * 3 sunL")], zone("Europe/Berlin"));
    assert_eq!(never.next("2026-01-01T00:00:00Z".parse().expect("a time")), None);
    for at in [
        Wall(i64::MIN),
        Wall(i64::MAX),
        Wall(Timestamp::MAX.as_millisecond()),
        Wall(Timestamp::MIN.as_millisecond()),
    ] {
        let _ = (never.next(at), never.last(at));
    }
    assert!(worked() - begun < 5000, "{} ms", worked() - begun);
}
