//! Values of the kinds that records are made of, the odd ones more often than chance would have them.

use nightcrew::protocol::name::{Key, Name};
use nightcrew::protocol::process::Identity;
use nightcrew::protocol::time::Wall;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value};

/// Characters that formats, terminals and shells treat as something else than text.
const ODD: [char; 20] = [
    '\0',
    '\t',
    '\n',
    '\r',
    '\u{1b}',
    '\u{7f}',
    '\u{85}',
    '\u{9b}',
    '\u{2028}',
    '\u{202e}',
    '\u{feff}',
    '\u{fffd}',
    '\u{10ffff}',
    '"',
    '\'',
    '\\',
    '{',
    '}',
    ',',
    '=',
];

pub(super) fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![any::<char>(), select(ODD.as_slice()), proptest::char::range(' ', '~')];
    prop::collection::vec(character, 0..24).prop_map(|all| all.into_iter().collect())
}

/// Bytes that are nearly text.
pub(super) fn bytes(len_max: usize) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![any::<u8>().prop_map(|byte| vec![byte]), text().prop_map(String::into_bytes)];
    prop::collection::vec(piece, 0..len_max).prop_map(|pieces| pieces.concat())
}

pub(super) fn name() -> impl Strategy<Value = Name> {
    "[A-Za-z0-9_-]{1,64}".prop_map(|text| text.parse().expect("a name"))
}

pub(super) fn key() -> impl Strategy<Value = Key> {
    prop::collection::vec(name(), 1..=8).prop_map(|names| {
        let names: Vec<&str> = names.iter().map(Name::as_str).collect();
        names.join("/").parse().expect("a key")
    })
}

/// A time that RFC 3339 can name.
pub(super) fn wall() -> impl Strategy<Value = Wall> {
    let (first, last) = (jiff::Timestamp::MIN.as_millisecond(), jiff::Timestamp::MAX.as_millisecond());
    prop_oneof![first..=last, Just(first), Just(last), -2000..2000_i64].prop_map(Wall)
}

pub(super) fn identity() -> impl Strategy<Value = Identity> {
    (any::<u32>(), any::<u64>(), text(), any::<u64>()).prop_map(|(pid, start, boot, ns)| Identity {
        pid,
        start,
        boot,
        ns,
    })
}

/// Any JSON that nightcrew takes.
pub(super) fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        prop::num::f64::NORMAL.prop_map(Value::from),
        (0.0..1.0).prop_map(Value::from),
        text().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::btree_map(text(), inner, 0..6)
                .prop_map(|map| Value::from(map.into_iter().collect::<Map<_, _>>())),
        ]
    })
}
