//! How bytes that an agent printed are made fit for a screen.
//!
//! Logs are kept raw. What is shown of them must not move the cursor, retitle the terminal, answer
//! a query on somebody's keyboard, or reverse the reading order of what stands beside it.

use std::fmt::Write as _;

/// What of a sequence was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// Plain text.
    Text,
    /// Behind an escape character.
    Escape,
    /// Inside a control sequence (`ESC [`), until its final character.
    Control,
    /// Inside a string (`ESC ]`, `ESC P` …), until its terminator.
    Quoted,
}

/// One line of output as plain text: no escape sequences, no control characters but the tab, no
/// invalid UTF-8, nothing that changes the direction of writing. A carriage return with text behind
/// it becomes a space.
#[must_use]
pub fn clean(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    let mut place = Place::Text;
    let mut returned = false;
    for c in bytes.utf8_chunks().flat_map(|chunk| chunk.valid().chars()) {
        place = match (place, c) {
            (_, '\u{1b}') | (Place::Escape, ' '..='/') => Place::Escape,
            (Place::Escape, '[') | (_, '\u{9b}') | (Place::Control, ' '..='?') => Place::Control,
            (Place::Escape, ']' | 'P' | 'X' | '^' | '_') | (_, '\u{90}' | '\u{98}' | '\u{9d}'..='\u{9f}') => {
                Place::Quoted
            }
            // A string that is never ended must not swallow what comes after a control character.
            (Place::Quoted, c) if !c.is_control() => Place::Quoted,
            (Place::Escape | Place::Control, c) if !c.is_control() => Place::Text,
            (_, '\r') => {
                returned = true;
                Place::Text
            }
            (_, c) if (c.is_control() && c != '\t') || turns_text(c) => Place::Text,
            (_, c) => {
                if returned && !shown.is_empty() {
                    shown.push(' ');
                }
                returned = false;
                shown.push(c);
                Place::Text
            }
        };
    }
    shown
}

/// A text that is JSON as JSON that means the same, with nothing in it that [`clean`] would take away: JSON itself
/// only sees to the control characters of seven bits.
#[must_use]
pub fn harmless_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        // Outside of its strings JSON has no such character, and none of these is beyond 16 bits.
        if c >= '\u{7f}' && (c.is_control() || turns_text(c)) {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\u{:04x}", u32::from(c));
        } else {
            shown.push(c);
        }
    }
    shown
}

/// Marks that reorder the text around them, and the separators that break lines without being a newline.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{61c}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_text_is_left() {
        for (raw, text) in [
            (&b"plain \ttext"[..], "plain \ttext"),
            (b"\x1b[1;31mred\x1b[0m!", "red!"),
            (b"\x1b]0;title\x07after", "after"),
            (b"\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
            (b"\x1bPq#0\x1b\\x", "x"),
            (b"\x1b(Bascii\x1b7", "ascii"),
            (b"\xc2\x9b31mred", "red"),
            (b"caf\xc3\xa9 \xff\xfe!", "café !"),
            (b"10%\r20%\r", "10% 20%"),
            (b"bell\x07\x00\x08", "bell"),
            ("a\u{202e}b\u{2066}".as_bytes(), "ab"),
            (b"\x1b]never ended\nnext", "next"),
            (b"cut\x1b[3", "cut"),
            (b"", ""),
        ] {
            assert_eq!(clean(raw), text, "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn no_control_character_but_the_tab_remains(bytes in proptest::collection::vec(
            prop_oneof![any::<u8>(), Just(0x1b), Just(b'['), Just(b']'), Just(0xc2), Just(0x9b), Just(b'\r')], 0..200)) {
            let shown = clean(&bytes);
            prop_assert!(!shown.chars().any(|c| c.is_control() && c != '\t'), "{:?}", shown);
        }

        #[test]
        fn json_keeps_its_meaning_and_loses_what_a_terminal_would_obey(text in any::<String>(), odd in "[\u{7f}-\u{9f}\u{202e}\u{2066}]{0,5}") {
            let value = serde_json::json!({ "said": [format!("{text}{odd}"), odd] });
            let shown = harmless_json(&value.to_string());
            prop_assert_eq!(&serde_json::from_str::<serde_json::Value>(&shown).expect("JSON"), &value);
            prop_assert!(!shown.chars().any(|c| c.is_control() || turns_text(c)), "{:?}", shown);
        }

        #[test]
        fn printable_text_is_left_as_it_is(text in "[ -~äöü€\t]{0,80}") {
            prop_assert_eq!(clean(text.as_bytes()), text);
        }
    }
}
