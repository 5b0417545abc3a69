//! Text that is read line by line: heartbeats, and the index of a log.

use nightcrew::protocol::heartbeat::{self, Beat, LINE_LEN_MAX, NOTE_LEN_MAX};
use nightcrew::protocol::logindex::{self, Mark};
use nightcrew::protocol::record::cut;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::Index;

use super::any::{bytes, name, text, wall};

/// A hundred years: the longest silence that can be announced.
const SILENCE_MS_MAX: u64 = 100 * 366 * 86_400_000;

fn beat() -> impl Strategy<Value = Beat> {
    let silence = prop_oneof![0..=SILENCE_MS_MAX, 0..100_000u64, Just(SILENCE_MS_MAX)];
    let note = vec(text(), 0..60).prop_map(|texts| texts.concat());
    (wall(), option::of(any::<u64>()), option::of(name()), option::of(silence), option::of(note))
        .prop_map(|(at, progress, task, busy_for_ms, note)| Beat { at, progress, task, busy_for_ms, note })
}

fn marks() -> impl Strategy<Value = Vec<Mark>> {
    vec((any::<u64>(), wall(), name()), 0..12).prop_map(|all| {
        let mut marks: Vec<_> = all.into_iter().map(|(offset, at, run)| Mark { offset, at, run }).collect();
        marks.sort_by_key(|mark| mark.offset);
        marks
    })
}

fn written(marks: &[Mark]) -> String {
    marks.iter().map(ToString::to_string).collect()
}

proptest! {
    #[test]
    fn any_beat_is_read_as_it_was_written_but_for_a_long_note(beat in beat()) {
        let line = beat.to_string();
        prop_assert!(line.len() <= LINE_LEN_MAX && !line.contains('\n'));
        let note = beat.note.as_deref().map(|note| cut(note, NOTE_LEN_MAX).to_owned());
        prop_assert_eq!(heartbeat::parse(&line), Some(Beat { note, ..beat }));
    }

    #[test]
    fn words_of_a_later_build_are_passed_over(beat in beat(), word in "[a-z]{0,4}[A-Z]{1,3}", value in "[^ \"=][^ =]{0,8}") {
        let beat = Beat { note: None, ..beat };
        let line = beat.to_string().replace(' ', &format!(" {word} {word}={value} "));
        prop_assert_eq!(heartbeat::parse(&line), Some(beat));
    }

    #[test]
    fn marks_are_read_as_they_were_written(marks in marks()) {
        prop_assert_eq!(logindex::parse(written(&marks).as_bytes()), marks);
    }

    #[test]
    fn of_a_cut_index_whole_lines_are_read(marks in marks(), at in any::<Index>()) {
        let text = written(&marks);
        let half = &text[..at.index(text.len() + 1)];
        let whole = half.matches('\n').count();
        prop_assert_eq!(logindex::parse(half.as_bytes()), &marks[..whole]);
    }

    #[test]
    fn a_line_that_is_no_mark_costs_no_other(marks in marks(), at in any::<Index>(), junk in bytes(6)) {
        prop_assume!(logindex::parse(&[&junk[..], b"\n"].concat()).is_empty());
        let at = at.index(marks.len() + 1);
        let text = [written(&marks[..at]).as_bytes(), &junk, b"\n", written(&marks[at..]).as_bytes()].concat();
        prop_assert_eq!(logindex::parse(&text), marks);
    }

    #[test]
    fn offsets_never_fall(junk in vec((0u64..9, name()), 0..20)) {
        let line = |(offset, run)| format!("{offset} 2026-11-20T03:00:00Z {run}\n");
        let text = junk.into_iter().map(line).collect::<Vec<String>>().concat();
        prop_assert!(logindex::parse(text.as_bytes()).is_sorted_by_key(|mark| mark.offset));
    }
}
