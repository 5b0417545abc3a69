//! A schedule in words, for people.

use super::{Civil, Entry};
use crate::protocol::time::show_duration;

/// What a schedule says, in English, with the zone that it is read in: `at 04:00; every 10m (Europe/Berlin)`.
#[must_use]
pub fn in_words(entries: &[Entry], zone: &str) -> String {
    let all: Vec<String> = entries.iter().map(words).collect();
    format!("{} ({zone})", all.join("; "))
}

fn words(entry: &Entry) -> String {
    match entry {
        Entry::Cron(cron) => cron.words().to_owned(),
        Entry::Every(seconds) => format!("every {}", show_duration(seconds.saturating_mul(1000))),
        Entry::At(at) => format!("once, on {}", civil(*at).replace('T', " at ")),
    }
}

/// A point of the local calendar, as it is written in a manifest.
pub(super) fn civil(civil: Civil) -> String {
    // A day without changes of offset is one of UTC.
    let at = jiff::Timestamp::from_second(civil.0).unwrap_or_default();
    let format = if civil.0 % 60 == 0 { "%Y-%m-%dT%H:%M" } else { "%Y-%m-%dT%H:%M:%S" };
    at.strftime(format).to_string()
}
