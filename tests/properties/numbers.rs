//! Names, times, lengths and amounts, as they stand in files and in the names of files.

use std::path::Path;

use nightcrew::protocol::layout::Layout;
use nightcrew::protocol::manifest::parse_size;
use nightcrew::protocol::name::{Key, Name};
use nightcrew::protocol::task::parse_outcome_name;
use nightcrew::protocol::time::{Mono, Now, Wall, parse_duration, show_duration};
use proptest::prelude::*;

use super::any::{key, name, text};

const YEARS_MS: u64 = 100 * 366 * 86_400_000;

fn file_name(path: &Path) -> String {
    path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned()
}

/// What nearly is the name of a file of nightcrew's own.
fn nearly_a_file_name() -> impl Strategy<Value = String> {
    "[0-9]{0,3}[+-]?0{0,20}[0-9]{0,21}\\.(json|jsonl|log|pipe|lock)?|[a-z+-]{0,3}\\.[+0-9]{0,3}\\.[a-z.]{0,4}\\.?(json|pipe|log)?"
}

proptest! {
    #[test]
    fn any_time_that_is_written_can_be_read(ms in prop_oneof![any::<i64>(), -2_000_000_000_000..2_000_000_000_000_i64]) {
        let json = serde_json::to_string(&Wall(ms)).expect("JSON");
        let read: Wall = serde_json::from_str(&json).expect("a time that was written");
        let (first, last) = (jiff::Timestamp::MIN.as_millisecond(), jiff::Timestamp::MAX.as_millisecond());
        prop_assert_eq!(read.0, ms.clamp(first, last));
    }

    #[test]
    fn the_two_clocks_are_told_apart_without_overflow(mono in any::<u64>(), wall in any::<i64>(), at in any::<u64>()) {
        let now = Now { mono: Mono(mono), wall: Wall(wall) };
        let exact = i128::from(wall) + i128::from(at) - i128::from(mono);
        let told = i128::from(now.wall_at(Mono(at)).0);
        prop_assert!(told == exact || !(i128::from(i64::MIN)..=i128::from(i64::MAX)).contains(&exact)
            || mono.abs_diff(at) > i64::MAX as u64, "{} {}", told, exact);
    }

    #[test]
    fn a_text_is_a_time_only_if_it_names_one(text in text()) {
        let json = serde_json::to_string(&text).expect("JSON");
        if let Ok(wall) = serde_json::from_str::<Wall>(&json) {
            let again = serde_json::to_string(&wall).expect("JSON");
            prop_assert_eq!(serde_json::from_str::<Wall>(&again).ok(), Some(wall));
        }
    }

    #[test]
    fn a_length_that_is_shown_can_be_typed(ms in prop_oneof![0..=YEARS_MS, 0..200_000_000u64]) {
        let read = parse_duration(&show_duration(ms)).expect("a length");
        let unit = match ms { 0..1000 => 1, 1000..3_600_000 => 1000, 3_600_000..86_400_000 => 60_000, _ => 3_600_000 };
        prop_assert!(read <= ms && ms - read < unit, "{} {}", ms, read);
    }

    #[test]
    fn a_length_of_time_is_what_its_parts_add_up_to(d in 0u64..300, h in 0u64..48, m in 0u64..90, s in 0u64..90, ms in 0u64..2000) {
        let sum = (((d * 24 + h) * 60 + m) * 60 + s) * 1000 + ms;
        prop_assert_eq!(parse_duration(&format!("{d}d{h}h{m}m{s}s{ms}ms")), Ok(sum));
        prop_assert_eq!(parse_duration(&format!("{d}d {h}h {m}m {s}s {ms}ms")), Ok(sum));
    }

    #[test]
    fn no_length_is_longer_than_a_hundred_years(text in "[-+]?[0-9]{0,25}(\\.[0-9]{0,12})? ?(ms|s|m|h|d|w|y|ns|PT1H)?.{0,6}") {
        if let Ok(ms) = parse_duration(&text) {
            prop_assert!(ms <= YEARS_MS);
        }
    }

    #[test]
    fn no_text_is_too_strange_for_a_length_or_an_amount(text in text()) {
        let _ = (parse_duration(&text), parse_size(&text));
    }

    #[test]
    fn an_amount_of_memory_is_its_number_times_its_unit(number in 1u64..=1 << 23, unit in 0usize..4, blank in " ?") {
        let (letter, shift) = [("K", 10), ("M", 20), ("G", 30), ("T", 40)][unit];
        let expected = u64::try_from(u128::from(number) << shift).ok().filter(|bytes| i64::try_from(*bytes).is_ok());
        prop_assert_eq!(parse_size(&format!("{number}{blank}{letter}")).ok(), expected);
        prop_assert_eq!(parse_size(&format!("{number}.000{blank}{letter}iB")).ok(), expected);
    }

    #[test]
    fn no_amount_is_more_than_a_machine_has(text in "[0-9]{0,25}(\\.[0-9]{0,12})? ?[KMGT]?(iB)?") {
        if let Ok(bytes) = parse_size(&text) {
            prop_assert!(bytes > 0 && i64::try_from(bytes).is_ok());
        }
    }

    #[test]
    fn a_text_is_a_name_or_a_key_by_the_letters_of_the_rule(text in prop_oneof![text(), "[a-zA-Z0-9_./-]{0,70}", "[a-z/]{0,20}"]) {
        let is_name = |text: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
            !text.is_empty() && text.chars().count() <= 64 && text.chars().all(allowed)
        };
        let parts: Vec<&str> = text.split('/').collect();
        let is_key = parts.len() <= 8 && parts.iter().all(|part| is_name(part));
        let (name, key) = (text.parse::<Name>(), text.parse::<Key>());
        prop_assert_eq!((name.is_ok(), key.is_ok()), (is_name(&text), is_key));
        let json = serde_json::to_string(&text).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Name>(&json).ok(), name.clone().ok());
        for error in [name.err(), key.err()].into_iter().flatten() {
            let told = error.to_string();
            prop_assert!(told.len() < 1200 && !told.chars().any(char::is_control), "{:?}", told);
        }
    }

    #[test]
    fn what_a_file_is_named_for_is_read_from_its_name(
        a in name(), b in name(), c in name(), key in key(), n in any::<u64>(), first in 1u64..,
    ) {
        let layout = Layout::new("/crew");
        let outcome = file_name(&layout.outcome(&a, &b, n, c.as_str()));
        prop_assert_eq!(parse_outcome_name(&outcome), Some((b.clone(), n, c.as_str())));
        prop_assert_eq!(Layout::segment_seq(&file_name(&Layout::segment("/".as_ref(), n))), Some(n));
        prop_assert_eq!(Layout::update_seq(&file_name(&layout.update(&a, first))), Some(first));
        prop_assert_eq!(Layout::log_owner(&file_name(&layout.log(&a))), Some(a.clone()));
        prop_assert_eq!(Layout::pipe_owner(&file_name(&layout.pipe(&a, &b))), Some((a.clone(), b.clone())));
        prop_assert_eq!(Layout::claim_noted(&file_name(&layout.claim_note(&a, &b, &c)), &b), Some(c));
        prop_assert!(layout.value(&key).starts_with(layout.store_dir()));
    }

    /// Two names of one thing would let it be counted, or decided, twice.
    #[test]
    fn no_file_of_another_name_is_taken_for_one(text in nearly_a_file_name()) {
        let layout = Layout::new("/crew");
        if let Some((task, token, nonce)) = parse_outcome_name(&text) {
            prop_assert_eq!(file_name(&layout.outcome(&task, &task, token, nonce)), text.clone());
        }
        if let Some(seq) = Layout::segment_seq(&text) {
            prop_assert_eq!(file_name(&Layout::segment("/".as_ref(), seq)), text.clone());
        }
        if let Some(seq) = Layout::update_seq(&text) {
            prop_assert_eq!(format!("{seq}.json"), text.clone());
        }
        if let Some((agent, run)) = Layout::pipe_owner(&text) {
            prop_assert_eq!(file_name(&layout.pipe(&agent, &run)), text.clone());
        }
        if let Some(agent) = Layout::log_owner(&text) {
            prop_assert_eq!(file_name(&layout.log(&agent)), text);
        }
    }
}
