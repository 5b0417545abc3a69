//! Points in time and lengths of time, as they stand in files.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A point on the wall clock: milliseconds since 1970-01-01 UTC, written as RFC 3339.
///
/// For people and for records only. No interval is ever judged by it: see [`Mono`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Wall(pub i64);

/// A point on this process's monotonic clock, in milliseconds since an arbitrary start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mono(pub u64);

impl Mono {
    /// The point `ms` milliseconds later (at most the end of time).
    #[must_use]
    pub fn plus(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; zero if that is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Both clocks, read once at the start of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Now {
    /// What intervals are judged on.
    pub mono: Mono,
    /// What records are stamped with.
    pub wall: Wall,
}

impl Now {
    /// The wall time at which the monotonic clock will (or did) show `at`.
    #[must_use]
    pub fn wall_at(&self, at: Mono) -> Wall {
        let ahead = i64::try_from(at.since(self.mono)).unwrap_or(i64::MAX);
        let behind = i64::try_from(self.mono.since(at)).unwrap_or(i64::MAX);
        Wall(self.wall.0.saturating_add(ahead).saturating_sub(behind))
    }
}

impl fmt::Display for Wall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Beyond what RFC 3339 can name in every zone, the last time that it can: a record must stay readable.
        let outermost = if self.0 < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        write!(f, "{:.3}", jiff::Timestamp::from_millisecond(self.0).unwrap_or(outermost))
    }
}

impl Serialize for Wall {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Wall {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for Wall {
    type Err = jiff::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let at: jiff::Timestamp = text.parse()?;
        Ok(Self(at.as_millisecond()))
    }
}

/// Reads a length of time such as `90s`, `5m`, `1h 30m` or `250ms`, into milliseconds.
///
/// # Errors
/// A sentence saying what was expected, if `text` is none or is longer than a hundred years.
pub fn parse_duration(text: &str) -> Result<u64, String> {
    let expected = || format!("{text:?} is not a length of time: write it like 90s, 5m, 1h30m or 2d");
    let bare_number = text.trim().bytes().all(|b| b.is_ascii_digit());
    if bare_number {
        return Err(expected());
    }
    let in_days = text.replace('d', "d ");
    let span: jiff::Span = in_days.trim().parse().map_err(|_| expected())?;
    let length = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours()).map_err(|_| expected())?;
    match u64::try_from(length.as_millis()) {
        Ok(ms) if ms <= 100 * 366 * 86_400_000 => Ok(ms),
        _ => Err(expected()),
    }
}

/// Writes a length of time for people: `950ms`, `42s`, `3m12s`, `5h2m`, `12d3h`.
#[must_use]
pub fn show_duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0 => format!("{ms}ms"),
        1..60 => format!("{s}s"),
        60..3600 => pair(s / 60, "m", s % 60, "s"),
        3600..86_400 => pair(s / 3600, "h", s % 3600 / 60, "m"),
        _ => pair(s / 86_400, "d", s % 86_400 / 3600, "h"),
    }
}

fn pair(big: u64, big_unit: &str, small: u64, small_unit: &str) -> String {
    if small == 0 { format!("{big}{big_unit}") } else { format!("{big}{big_unit}{small}{small_unit}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_and_shown() {
        for (text, ms) in [
            ("250ms", 250),
            ("90s", 90_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("2d", 172_800_000),
            ("0s", 0),
        ] {
            assert_eq!(parse_duration(text), Ok(ms), "{text}");
        }
        for bad in ["", "5", "5x", "-5m", "soon", "1e9d", "99999999999999999999s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        for (ms, text) in
            [(950, "950ms"), (42_000, "42s"), (192_000, "3m12s"), (18_120_000, "5h2m"), (86_400_000, "1d")]
        {
            assert_eq!(show_duration(ms), text);
        }
    }

    #[test]
    fn wall_time_is_rfc_3339_both_ways() {
        let json = serde_json::to_string(&Wall(1_795_143_600_123)).unwrap();
        assert_eq!(json, "\"2026-11-20T03:00:00.123Z\"");
        assert_eq!(serde_json::from_str::<Wall>(&json).unwrap(), Wall(1_795_143_600_123));
        for (ms, text) in [(i64::MAX, "9999-12-30T22:00:00.999Z"), (i64::MIN, "-009999-01-02T01:59:59.000Z")]
        {
            let json = serde_json::to_string(&Wall(ms)).unwrap();
            assert_eq!(json, format!("\"{text}\""));
            assert!(serde_json::from_str::<Wall>(&json).is_ok());
        }
    }
}
