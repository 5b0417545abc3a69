//! A line of a heartbeat file, in the full form that a person can follow with `tail -f`:
//!
//! ```text
//! 2026-11-20T03:00:00.000Z progress=12 task=ab12 busy_for=20m note="drafting"
//! ```
//!
//! The time comes first; every word after it may be missing, and unknown words are passed over. Any
//! change of the file is a sign of life, so a line that is not of this form is one too: it just says
//! nothing more.

use std::fmt;

use super::name::TaskId;
use super::record::cut;
use super::time::{Wall, parse_duration};

/// The longest note written, in bytes; a longer one is cut.
pub const NOTE_LEN_MAX: usize = 500;
/// The longest line that is read, in bytes.
pub const LINE_LEN_MAX: usize = 4096;

/// What one line says.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Beat {
    /// When, by the agent's clock.
    pub at: Wall,
    /// How far the work has come; that it stands still while beats go on means "alive, but stuck".
    pub progress: Option<u64>,
    /// The task it is at.
    pub task: Option<TaskId>,
    /// The silence it announces, in milliseconds.
    pub busy_for_ms: Option<u64>,
    /// Anything, for a person.
    pub note: Option<String>,
}

impl fmt::Display for Beat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.at)?;
        if let Some(progress) = self.progress {
            write!(f, " progress={progress}")?;
        }
        if let Some(task) = &self.task {
            write!(f, " task={task}")?;
        }
        if let Some(ms) = self.busy_for_ms {
            match (ms % 60_000, ms % 1000) {
                (0, _) => write!(f, " busy_for={}m", ms / 60_000)?,
                (_, 0) => write!(f, " busy_for={}s", ms / 1000)?,
                _ => write!(f, " busy_for={ms}ms")?,
            }
        }
        if let Some(note) = &self.note {
            write!(f, " note={}", serde_json::Value::from(cut(note, NOTE_LEN_MAX)))?;
        }
        Ok(())
    }
}

/// Reads a line; `None` if it does not begin with a time or is too long.
#[must_use]
pub fn parse(line: &str) -> Option<Beat> {
    if line.len() > LINE_LEN_MAX {
        return None;
    }
    let (at, mut rest) = line.trim().split_once(' ').unwrap_or((line.trim(), ""));
    let at: jiff::Timestamp = at.parse().ok()?;
    let mut beat = Beat { at: Wall(at.as_millisecond()), ..Beat::default() };
    while let Some((name, after)) = rest.trim_start().split_once('=') {
        let (value, left) = split_value(after);
        // A word without `=` is passed over.
        match name.rsplit(' ').next().unwrap_or(name) {
            "progress" => beat.progress = value.parse().ok(),
            "task" => beat.task = value.parse().ok(),
            "busy_for" => beat.busy_for_ms = parse_duration(value).ok(),
            "note" => beat.note = serde_json::from_str(value).ok().or_else(|| Some(value.into())),
            // A word of a later version, or of the agent's own.
            _ => {}
        }
        rest = left;
    }
    Some(beat)
}

/// Splits off a value: a string in quotes as JSON has them, or all up to the next space.
fn split_value(text: &str) -> (&str, &str) {
    if text.starts_with('"') {
        let mut strings = serde_json::Deserializer::from_str(text).into_iter::<String>();
        if let Some(Ok(_)) = strings.next() {
            return text.split_at(strings.byte_offset());
        }
    }
    text.split_at(text.find(' ').unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let full = Beat {
            at: Wall(1_795_143_600_000),
            progress: Some(12),
            task: Some("ab12".parse().unwrap()),
            busy_for_ms: Some(1_200_000),
            note: Some("drafting \"x=1\" now\n".into()),
        };
        let line = full.to_string();
        assert_eq!(
            line,
            r#"2026-11-20T03:00:00.000Z progress=12 task=ab12 busy_for=20m note="drafting \"x=1\" now\n""#
        );
        assert_eq!(parse(&line), Some(full));
        for ms in [0, 1, 1000, 90_000, 60_000] {
            let beat = Beat { busy_for_ms: Some(ms), ..Beat::default() };
            assert_eq!(parse(&beat.to_string()), Some(beat));
        }
    }

    #[test]
    fn a_line_made_by_hand_is_read_as_far_as_it_goes() {
        let beat =
            parse("2026-11-20T03:00:00Z on it colour=red progress=x note=half  and progress=7\n").unwrap();
        assert_eq!((beat.progress, beat.note.as_deref()), (Some(7), Some("half")));
        assert!(parse("2026-11-20T03:00:00Z note=\"unclosed").is_some());
        for bad in ["", "beat", "progress=3", &"2".repeat(LINE_LEN_MAX + 1)] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_long_note_is_cut_between_characters() {
        let beat = Beat { note: Some("ä".repeat(NOTE_LEN_MAX)), ..Beat::default() };
        assert!(beat.to_string().len() < NOTE_LEN_MAX + 60);
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_too_strange(line in ".*") {
            let _ = parse(&line);
            let _ = parse(&format!("2026-11-20T03:00:00Z {line}"));
        }
        #[test]
        fn any_note_survives(note in ".{0,100}") {
            let beat = Beat { note: Some(note), progress: Some(1), ..Beat::default() };
            proptest::prop_assert_eq!(parse(&beat.to_string()), Some(beat));
        }
    }
}
