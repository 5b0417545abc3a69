//! Which days of a month are meant, for every month that the calendar can have.
//!
//! A month is known by its length and the weekday of its first day: there are 28 of them. What the library thinks of
//! a day is asked once for each, when the expression is read; the search for a time never asks again, and so cannot
//! fail, and takes a bounded time for whatever expression.

use croner::errors::CronError;
use croner::{CronPattern, Weekday};
use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::Offset;

use super::DAY_S;

/// The shortest month.
const MONTH_LEN_MIN: usize = 28;
/// Within these years every length meets every weekday.
const YEARS: std::ops::Range<i16> = 2000..2028;

/// For every length of a month and weekday of its first day, the days that match; bit 0 is the 1st.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Days {
    of: [[u32; 7]; 4],
    /// The months that match; bit 1 is January.
    months: u16,
}

/// A month: when it begins, in days since 1970-01-01, and which of its days match.
pub(super) struct Month {
    pub(super) first_day: i64,
    pub(super) len: i64,
    /// Bit 0 is the 1st.
    pub(super) days: u32,
}

impl Days {
    /// Asks the library about each day of each month.
    pub(super) fn tabulate(pattern: &CronPattern) -> Result<Self, CronError> {
        let mut of = [[0; 7]; 4];
        for first in YEARS.flat_map(|year| (1..=12).map(move |month| date(year, month, 1))) {
            let (len, weekday) = place(first);
            if let Some(days) = of.get_mut(len).and_then(|row| row.get_mut(weekday))
                && *days == 0
            {
                *days = matching(pattern, first)?;
            }
        }
        let months = pattern.months.values().iter().fold(0, |set, month| set | 1 << month);
        Ok(Self { of, months })
    }

    /// Whether any day of any year matches.
    pub(super) fn are_any(&self) -> bool {
        // Every month begins on every weekday in some year, and has each of its lengths.
        let some = |len: usize| {
            self.of.get(len - MONTH_LEN_MIN).is_some_and(|row| row.iter().any(|days| *days != 0))
        };
        (1..=12_u16).filter(|month| self.months & 1 << month != 0).any(|month| match month {
            2 => some(28) || some(29),
            4 | 6 | 9 | 11 => some(30),
            _ => some(31),
        })
    }

    /// The month that `day` lies in (days since 1970-01-01), and the day's place in it, from 0; `None` beyond the
    /// years that have a name.
    pub(super) fn month_of(&self, day: i64) -> Option<(Month, u32)> {
        let date = date_of(day)?;
        let (len, weekday) = place(date.first_of_month());
        let allowed = self.months & 1 << date.month() != 0;
        let days = self.of.get(len)?.get(weekday).filter(|_| allowed).copied().unwrap_or(0);
        let place = u32::try_from(date.day() - 1).ok()?;
        let month = Month { first_day: day - i64::from(place), len: i64::from(date.days_in_month()), days };
        Some((month, place))
    }
}

fn date_of(day: i64) -> Option<Date> {
    let midnight = Timestamp::from_second(day.checked_mul(DAY_S)?).ok()?;
    Some(Offset::UTC.to_datetime(midnight).date())
}

/// Where the month that begins on `first` stands in the table.
fn place(first: Date) -> (usize, usize) {
    let len = usize::try_from(first.days_in_month()).unwrap_or(MONTH_LEN_MIN);
    (len - MONTH_LEN_MIN, usize::from(first.weekday().to_sunday_zero_offset().unsigned_abs()))
}

fn matching(pattern: &CronPattern, first: Date) -> Result<u32, CronError> {
    let mut days = 0;
    let (year, month) = (i32::from(first.year()), u32::from(first.month().unsigned_abs()));
    let dates = first.series(jiff::Span::new().days(1)).take_while(|date| date.month() == first.month());
    for (place, date) in dates.enumerate() {
        let day = u32::from(date.day().unsigned_abs());
        if pattern.day_match(year, month, day, weekday(date))? {
            days |= 1 << place;
        }
    }
    Ok(days)
}

fn weekday(date: Date) -> Weekday {
    match date.weekday() {
        jiff::civil::Weekday::Sunday => Weekday::Sunday,
        jiff::civil::Weekday::Monday => Weekday::Monday,
        jiff::civil::Weekday::Tuesday => Weekday::Tuesday,
        jiff::civil::Weekday::Wednesday => Weekday::Wednesday,
        jiff::civil::Weekday::Thursday => Weekday::Thursday,
        jiff::civil::Weekday::Friday => Weekday::Friday,
        jiff::civil::Weekday::Saturday => Weekday::Saturday,
    }
}
