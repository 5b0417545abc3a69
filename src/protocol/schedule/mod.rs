//! When a job runs by the clock: what stands in a manifest, and the names of the times that come of it.
//!
//! Nothing here knows a time zone or what time it is: [`Cron`] says which points of a calendar without zone match.
//! `machine::timetable` says which instants these are in a zone.

mod cron;
mod days;
mod slot;
mod words;
mod zone;

pub use cron::{CRON_LEN_MAX, Cron};
pub use slot::{Slot, SlotId};
pub use words::in_words;
pub use zone::ZoneName;

use jiff::civil::DateTime;
use jiff::tz::Offset;

/// How many seconds a day without a change of offset has.
pub const DAY_S: i64 = 86_400;

/// A point of the local calendar, whatever the zone: seconds since 1970-01-01T00:00 there, every day having 86,400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Civil(pub i64);

/// One way by which a job's times are given. A job has one or several, and fires at the times of all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// `schedule`: points of the local calendar.
    Cron(Box<Cron>),
    /// `every`, in seconds (at least 1): the instants that are multiples of it since 1970-01-01T00:00Z. So neither
    /// a restart nor a zone shifts them: `every = "1d"` is midnight in UTC.
    Every(u64),
    /// `at`: one point of the local calendar.
    At(Civil),
}

/// As it stands in a manifest.
impl std::fmt::Display for Entry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cron(cron) => f.write_str(cron.as_str()),
            Self::Every(seconds) => write!(f, "every {seconds}s"),
            Self::At(civil) => write!(f, "at {}", words::civil(*civil)),
        }
    }
}

/// What is wrong with a schedule, and what to do about it: fragments of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

impl Refusal {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

impl Civil {
    /// Reads `2026-12-01T09:00`, with or without seconds.
    ///
    /// # Errors
    /// If it is no such time, or has a zone or an offset of its own.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let remedy = "write it like \"2026-12-01T09:00\"; its zone is that of `timezone`";
        // What the parser would take besides: offsets, fractions, dates alone.
        let shaped = matches!(text.len(), 16 | 19) && text.as_bytes().get(10) == Some(&b'T');
        let plain = text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'-' | b':' | b'T'));
        let time = text.parse::<DateTime>().and_then(|time| Offset::UTC.to_timestamp(time));
        match time {
            Ok(time) if shaped && plain => Ok(Self(time.as_second())),
            _ => Err(Refusal::new("is not a date and a time of day", remedy)),
        }
    }

    /// Its day, in days since 1970-01-01, and the second of that day.
    fn split(self) -> (i64, i64) {
        (self.0.div_euclid(DAY_S), self.0.rem_euclid(DAY_S))
    }
}
