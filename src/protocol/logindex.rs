//! `logs/NAME.idx`: which part of an agent's log is from when, and of which run.
//!
//! Text, one mark a line: `OFFSET TIME RUN`, such as
//!
//! ```text
//! 0 2026-11-20T03:00:00.123Z 01JD4Q2Z6Q8M3T9W1X5Y7B0C2D
//! ```
//!
//! From byte `OFFSET` of the log on (to the next mark) stands what the run printed, first seen at
//! `TIME`. Offsets never fall. A mark is written before the bytes it is of, so that the last marks
//! may point past the end of a log whose writer was killed.

use std::fmt;

use super::name::RunId;
use super::time::Wall;

/// One line of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// Where in the log, in bytes.
    pub offset: u64,
    /// When these bytes were seen.
    pub at: Wall,
    /// Which run printed them.
    pub run: RunId,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {} {}", self.offset, self.at, self.run)
    }
}

/// Reads an index or a part of one.
///
/// A line that is no mark (the rest of one that was cut, a last one without its newline) or that
/// falls behind the one before it is passed over: the log itself is not lost for it.
#[must_use]
pub fn parse(bytes: &[u8]) -> Vec<Mark> {
    let mut marks: Vec<Mark> = Vec::new();
    for line in bytes.split_inclusive(|b| *b == b'\n') {
        let Some(mark) = line.strip_suffix(b"\n").and_then(parse_line) else { continue };
        if marks.last().is_none_or(|last| last.offset <= mark.offset) {
            marks.push(mark);
        }
    }
    marks
}

fn parse_line(line: &[u8]) -> Option<Mark> {
    let mut fields = std::str::from_utf8(line).ok()?.split(' ');
    let offset = fields.next()?.parse().ok()?;
    let at: jiff::Timestamp = fields.next()?.parse().ok()?;
    let run = fields.next()?.parse().ok()?;
    fields.next().is_none().then_some(Mark { offset, at: Wall(at.as_millisecond()), run })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(offset: u64, run: &str) -> Mark {
        Mark { offset, at: Wall(1_795_143_600_123), run: run.parse().unwrap() }
    }

    #[test]
    fn a_mark_is_one_line_both_ways() {
        assert_eq!(mark(12, "R1").to_string(), "12 2026-11-20T03:00:00.123Z R1\n");
        let written: String =
            [mark(0, "R1"), mark(12, "R2"), mark(12, "R3")].iter().map(Mark::to_string).collect();
        assert_eq!(parse(written.as_bytes()), [mark(0, "R1"), mark(12, "R2"), mark(12, "R3")]);
    }

    #[test]
    fn what_is_no_mark_is_passed_over() {
        let at = "2026-11-20T03:00:00.123Z";
        let text = format!(
            "0 {at} R1\n5 {at}\n\n\u{fffd}\n7 later R1\n9 {at} ../R1\n-1 {at} R1\n9 {at} R1 more\n9 {at} R2\n3 {at} R1\n11 {at} R3"
        );
        assert_eq!(parse(text.as_bytes()), [mark(0, "R1"), mark(9, "R2")]);
        assert_eq!(parse(b"\xff\xfe\n"), []);
    }
}
