//! What an agent printed, as a terminal gets to see it.

use nightcrew::protocol::display::clean;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::any::{bytes, text};

/// Sequences that a terminal acts upon, each whole.
const SEQUENCES: [&str; 14] = [
    "\x1b[31m",
    "\x1b[0;1;38;5;200m",
    "\x1b[2J",
    "\x1b[?1049h",
    "\x1b[6n",
    "\x1b]0;title\x07",
    "\x1b]52;c;c2VjcmV0\x07",
    "\x1b]8;;http://x\x1b\\",
    "\x1bP1$q\x1b\\",
    "\x1b^x\x1b\\",
    "\x1b_x\x1b\\",
    "\x1b(B",
    "\x1bc",
    "\u{9b}31m",
];

proptest! {
    #[test]
    fn nothing_is_left_that_a_terminal_acts_upon(raw in bytes(40)) {
        let shown = clean(&raw);
        let acts = |c: char| (c.is_control() && c != '\t') || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        prop_assert!(!shown.contains(acts), "{:?}", shown);
        prop_assert!(shown.len() <= raw.len());
        prop_assert_eq!(clean(shown.as_bytes()), shown.clone(), "clean text is left as it is");
        // Nothing is made up: what is shown stands in what was printed, in this order.
        let raw = String::from_utf8_lossy(&raw).into_owned();
        let mut printed = raw.chars();
        prop_assert!(shown.chars().all(|c| printed.any(|p| p == c || (p == '\r' && c == ' '))), "{:?}", shown);
    }

    #[test]
    fn whole_sequences_go_and_the_text_between_them_stays(
        parts in vec((select(SEQUENCES.as_slice()), "[ -~äö€\t]{0,12}"), 0..12),
    ) {
        let raw: String = parts.iter().flat_map(|(sequence, text)| [*sequence, text.as_str()]).collect();
        let text: String = parts.iter().map(|(_, text)| text.as_str()).collect();
        prop_assert_eq!(clean(raw.as_bytes()), text);
    }

    #[test]
    fn a_line_break_ends_any_sequence(raw in text(), open in select(vec!["\x1b]0;", "\x1bP", "\x1b[", "\x1b", "\u{9d}"]), rest in "[ -~]{0,20}") {
        let shown = clean(format!("{raw}{open}\n{rest}").as_bytes());
        prop_assert!(shown.ends_with(&rest), "{:?}", shown);
    }
}
