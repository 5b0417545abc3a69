//! Which instants a schedule means in a time zone. Pure: the zone's rules are handed in, as data.
//!
//! # When the clock is put forward or back
//!
//! An offset from UTC lasts for a *stretch* of time. Within a stretch, local and real time run together, and between
//! two of them the local clock jumps: forward over a gap, which no clock shows, or back, so that it shows the
//! same times twice. What then holds is what Debian's cron does:
//!
//! - What [keeps its pace](Cron::keeps_pace) fires wherever a clock shows a time that matches: in both passes
//!   of what is repeated, and not for what is left out.
//! - What names times of day fires once for each. Of a time that is repeated, the first pass counts. Times that
//!   are left out come together as one at the end of the gap, with what is due then anyway. However large the gap
//!   is: where a whole day was left out, the month's run is late, and not lost.
//! - `at` is such a time of day. `every` knows of no zone.

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::protocol::schedule::{Civil, Cron, Entry, Slot, in_words};
use crate::protocol::time::Wall;

/// How far a search goes: 41 years. A leap day falls on each weekday at least every 40.
const SEARCH_S_MAX: i64 = 41 * 366 * 86_400;
/// The most changes of offset that a search passes: a zone has some four a year at the most.
const STRETCHES_MAX: usize = 1_000;

/// A schedule and the zone that it is read in.
#[derive(Debug, Clone, PartialEq)]
pub struct Timetable {
    entries: Vec<Entry>,
    zone: TimeZone,
}

/// What an entry matches on the local calendar, and how it takes a clock that jumps.
#[derive(Clone, Copy)]
enum Local<'e> {
    Cron(&'e Cron),
    Once(Civil),
}

/// A time with one offset, from `start` until before `end`, in seconds since 1970-01-01T00:00Z.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    start: i64,
    end: i64,
    /// What is added to UTC, in seconds.
    offset: i64,
    /// What was added before `start`.
    before: i64,
}

impl Timetable {
    /// The times of all `entries`, read in `zone`.
    #[must_use]
    pub fn new(entries: Vec<Entry>, zone: TimeZone) -> Self {
        Self { entries, zone }
    }

    /// What it was declared as, with the zone: of a schedule that was declared otherwise, nothing is known.
    #[must_use]
    pub fn declared(&self) -> String {
        let entries: Vec<String> = self.entries.iter().map(Entry::to_string).collect();
        format!("{} ({})", entries.join("; "), self.zone.iana_name().unwrap_or("the zone of this host"))
    }

    /// A slot as clocks in the schedule's zone show it, with the offset and the zone (RFC 9557).
    #[must_use]
    pub fn local(&self, slot: Slot) -> Zoned {
        Timestamp::from_second(slot.second()).unwrap_or_default().to_zoned(self.zone.clone())
    }

    /// The slots from now on, one after the other.
    pub fn following(&self, after: Wall) -> impl Iterator<Item = Slot> + '_ {
        std::iter::successors(self.next(after), |slot| self.next(slot.wall()))
    }

    /// What it says, in words, with its zone.
    #[must_use]
    pub fn words(&self) -> String {
        in_words(&self.entries, self.zone.iana_name().unwrap_or("the zone of this host"))
    }

    /// The first slot after `after`; `None` if none comes within 41 years.
    #[must_use]
    pub fn next(&self, after: Wall) -> Option<Slot> {
        let from = after.0.div_euclid(1000).checked_add(1)?;
        self.entries.iter().filter_map(|entry| self.first(entry, from)).min().and_then(Slot::at)
    }

    /// The last slot that is not after `until`; `None` if there was none for 41 years.
    #[must_use]
    pub fn last(&self, until: Wall) -> Option<Slot> {
        let until = until.0.div_euclid(1000);
        self.entries.iter().filter_map(|entry| self.latest(entry, until)).max().and_then(Slot::at)
    }

    /// The slots after `after` and not after `until`, in order; of too many, the first `max`.
    #[must_use]
    pub fn slots(&self, after: Wall, until: Wall, max: usize) -> Vec<Slot> {
        let following = |slot: &Slot| self.next(slot.wall());
        std::iter::successors(self.next(after), following)
            .take_while(|slot| slot.wall() <= until)
            .take(max)
            .collect()
    }

    /// The slots after `after` and not after `until`, in order; of too many, the last `max`.
    #[must_use]
    pub fn latest_slots(&self, after: Wall, until: Wall, max: usize) -> Vec<Slot> {
        let preceding = |slot: &Slot| self.last(Wall(slot.wall().0 - 1));
        let mut slots: Vec<Slot> = std::iter::successors(self.last(until), preceding)
            .take_while(|slot| slot.wall() > after)
            .take(max)
            .collect();
        slots.reverse();
        slots
    }

    /// The first second from `from` on at which the entry fires.
    fn first(&self, entry: &Entry, from: i64) -> Option<i64> {
        let local = match entry {
            Entry::Cron(cron) => Local::Cron(cron),
            Entry::At(civil) => Local::Once(*civil),
            Entry::Every(period) => {
                return multiple(from.checked_sub(1)?, *period)?.checked_add_unsigned(*period);
            }
        };
        let horizon = from.checked_add(SEARCH_S_MAX)?;
        let mut stretch = self.stretch(from, horizon)?;
        for _ in 0..STRETCHES_MAX {
            if let Some(found) = stretch.first(local, from.max(stretch.start)) {
                return Some(found);
            }
            if stretch.end >= horizon {
                return None;
            }
            stretch = self.stretch(stretch.end, horizon)?;
        }
        None
    }

    /// The last second not after `until` at which the entry fired.
    fn latest(&self, entry: &Entry, until: i64) -> Option<i64> {
        let local = match entry {
            Entry::Cron(cron) => Local::Cron(cron),
            Entry::At(civil) => Local::Once(*civil),
            Entry::Every(period) => return multiple(until, *period),
        };
        let horizon = until.checked_sub(SEARCH_S_MAX)?;
        let mut stretch = self.stretch(until, until.checked_add(1)?)?;
        for _ in 0..STRETCHES_MAX {
            let begin = stretch.start.max(horizon);
            if let Some(found) = stretch.latest(local, begin, until.min(stretch.end - 1)) {
                return Some(found);
            }
            if stretch.start <= horizon {
                return None;
            }
            let end = stretch.start;
            stretch = self.stretch(end - 1, end)?;
        }
        None
    }

    /// The stretch that the second `at` lies in, as far as it lies before `horizon`.
    fn stretch(&self, at: i64, horizon: i64) -> Option<Stretch> {
        let offset = |second: i64| {
            Timestamp::from_second(second).ok().map(|at| i64::from(self.zone.to_offset(at).seconds()))
        };
        let start = self.zone.preceding(Timestamp::from_second(at.checked_add(1)?).ok()?).next();
        let start = start.map_or(Timestamp::MIN.as_second(), |begun| begun.timestamp().as_second());
        let end = self.zone.following(Timestamp::from_second(at).ok()?).next();
        let end = end.map_or(horizon, |ends| ends.timestamp().as_second().min(horizon));
        let offset_now = offset(at)?;
        Some(Stretch { start, end, offset: offset_now, before: offset(start - 1).unwrap_or(offset_now) })
    }
}

/// The largest multiple of `period` that is not above `second`.
fn multiple(second: i64, period: u64) -> Option<i64> {
    let period = i64::try_from(period).ok().filter(|period| *period > 0)?;
    Some(second.div_euclid(period) * period)
}

impl Stretch {
    /// The first second of this stretch from `from` on at which the entry fires.
    fn first(self, local: Local<'_>, from: i64) -> Option<i64> {
        if from == self.start && self.owes_the_gap(local) {
            return Some(self.start);
        }
        let begin = Civil((from + self.offset).max(self.first_shown(local)));
        let found = local.first(begin, Civil(self.end + self.offset))?;
        Some(found.0 - self.offset)
    }

    /// The last second of this stretch from `from` on and not after `until` at which the entry fired.
    fn latest(self, local: Local<'_>, from: i64, until: i64) -> Option<i64> {
        let begin = Civil((from + self.offset).max(self.first_shown(local)));
        if let Some(found) = local.last(begin, Civil(until + self.offset)) {
            return Some(found.0 - self.offset);
        }
        (from == self.start && from <= until && self.owes_the_gap(local)).then_some(self.start)
    }

    /// From which local time on this stretch counts for the entry: what was shown already comes once only, unless
    /// the entry keeps its pace.
    fn first_shown(self, local: Local<'_>) -> i64 {
        self.start + if local.keeps_pace() { self.offset } else { self.offset.max(self.before) }
    }

    /// Whether times of the entry were left out just before this stretch.
    fn owes_the_gap(self, local: Local<'_>) -> bool {
        let gap = (Civil(self.start + self.before), Civil(self.start + self.offset));
        !local.keeps_pace() && gap.0 < gap.1 && local.first(gap.0, gap.1).is_some()
    }
}

impl Local<'_> {
    fn keeps_pace(self) -> bool {
        match self {
            Self::Cron(cron) => cron.keeps_pace(),
            Self::Once(_) => false,
        }
    }

    /// The first match that is not before `from` and is before `end`.
    fn first(self, from: Civil, end: Civil) -> Option<Civil> {
        match self {
            Self::Cron(cron) => cron.first(from, end),
            Self::Once(at) => Some(at).filter(|at| from <= *at && *at < end),
        }
    }

    /// The last match that is not after `until` and not before `from`.
    fn last(self, from: Civil, until: Civil) -> Option<Civil> {
        match self {
            Self::Cron(cron) => cron.last(from, until),
            Self::Once(at) => Some(at).filter(|at| from <= *at && *at <= until),
        }
    }
}
