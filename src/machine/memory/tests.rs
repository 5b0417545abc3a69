use proptest::prelude::*;
use serde_json::json;

use super::*;

fn stored(value: &Value) -> Stored {
    Stored::from_bytes(format!("{value}\n").into_bytes())
}

#[test]
fn merging_does_what_the_appendix_of_rfc_7396_shows() {
    for (target, patch, result) in [
        (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
        (json!({"a":"b"}), json!({"a":null}), json!({})),
        (json!({"a":"b","b":"c"}), json!({"a":null}), json!({"b":"c"})),
        (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
        (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
        (json!({"a":{"b":"c"}}), json!({"a":{"b":"d","c":null}}), json!({"a":{"b":"d"}})),
        (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
        (json!(["a", "b"]), json!(["c", "d"]), json!(["c", "d"])),
        (json!({"a":"b"}), json!(["c"]), json!(["c"])),
        (json!({"a":"foo"}), json!(null), json!(null)),
        (json!({"a":"foo"}), json!("bar"), json!("bar")),
        (json!({"e":null}), json!({"a":1}), json!({"e":null,"a":1})),
        (json!([1, 2]), json!({"a":"b","c":null}), json!({"a":"b"})),
        (json!({}), json!({"a":{"bb":{"ccc":null}}}), json!({"a":{"bb":{}}})),
    ] {
        assert_eq!(
            apply(&stored(&target), Operation::Merge, Some(&patch)),
            Ok(stored(&result)),
            "{target} {patch}"
        );
    }
    let fresh = apply(&Stored::Absent, Operation::Merge, Some(&json!({"a":1,"b":null})));
    assert_eq!(fresh, Ok(stored(&json!({"a":1}))));
}

#[test]
fn each_operation_takes_what_fits_it_and_refuses_the_rest() {
    let odd = Stored::unreadable("a FIFO".into());
    let one = json!(1);
    let null = json!(null);
    for (current, op, value, result) in [
        (Stored::Absent, Operation::Set, Some(&null), Ok(stored(&json!(null)))),
        (stored(&json!([1])), Operation::Set, Some(&one), Ok(stored(&json!(1)))),
        (odd.clone(), Operation::Set, Some(&one), Ok(stored(&json!(1)))),
        (Stored::Absent, Operation::Set, None, Err(Refusal::NoValue(Operation::Set))),
        (Stored::Absent, Operation::Append, Some(&one), Ok(stored(&json!([1])))),
        (stored(&json!([0])), Operation::Append, Some(&null), Ok(stored(&json!([0, null])))),
        (stored(&json!({})), Operation::Append, Some(&one), Err(Refusal::NotAnArray)),
        (stored(&json!(null)), Operation::Append, Some(&one), Err(Refusal::NotAnArray)),
        (odd.clone(), Operation::Append, Some(&one), Err(Refusal::Unusable("a FIFO".into()))),
        (odd.clone(), Operation::Merge, Some(&one), Err(Refusal::Unusable("a FIFO".into()))),
        (stored(&json!({})), Operation::Merge, None, Err(Refusal::NoValue(Operation::Merge))),
        (stored(&json!(1)), Operation::Delete, None, Ok(Stored::Absent)),
        (Stored::Absent, Operation::Delete, None, Ok(Stored::Absent)),
        (odd, Operation::Delete, None, Ok(Stored::Absent)),
    ] {
        assert_eq!(apply(&current, op, value), result, "{op} {value:?} on {current:?}");
    }
}

#[test]
fn a_value_stays_within_its_size_and_depth() {
    let text = |len: usize| Value::String("x".repeat(len - 2));
    assert!(apply(&Stored::Absent, Operation::Set, Some(&text(VALUE_LEN_MAX))).is_ok());
    let len = VALUE_LEN_MAX + 1;
    let refused = apply(&Stored::Absent, Operation::Set, Some(&text(len)));
    assert_eq!(refused, Err(Refusal::TooLarge { len }));
    let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!([inner]));
    assert!(apply(&Stored::Absent, Operation::Set, Some(&nested(VALUE_NESTING_MAX))).is_ok());
    let deep = nested(VALUE_NESTING_MAX + 1);
    assert_eq!(apply(&Stored::Absent, Operation::Set, Some(&deep)), Err(Refusal::TooDeep));
    let grown = apply(&stored(&json!([])), Operation::Append, Some(&nested(VALUE_NESTING_MAX)));
    assert_eq!(grown, Err(Refusal::TooDeep));
}

#[test]
fn an_update_is_checked_beyond_its_shape() {
    let update = |v, id: &str, op, value| Update { v, id: id.into(), op, key: "k".parse().unwrap(), value };
    assert_eq!(validate(&update(1, "a", Operation::Delete, None), 1, 0), Ok(()));
    assert_eq!(validate(&update(0, "a", Operation::Delete, None), 1, 0), Err(Refusal::Version(0)));
    assert!(matches!(validate(&update(1, "a b", Operation::Delete, None), 1, 0), Err(Refusal::Id(_))));
    let bare = validate(&update(1, "a", Operation::Merge, None), 1, 0);
    assert_eq!(bare, Err(Refusal::NoValue(Operation::Merge)));
    let leap = validate(&update(1, "a", Operation::Delete, None), u64::MAX, 7);
    assert_eq!(leap, Err(Refusal::Leap { last: 7, found: u64::MAX }));
}

#[test]
fn applied_keeps_the_ids_of_two_full_batches_and_never_sinks() {
    let mut applied = Applied::default();
    for n in 1..=(IDS_KEPT_MAX as u64 + 1) {
        raise(&mut applied, n, Some(&format!("id{n}")));
    }
    assert_eq!(applied.ids.len(), IDS_KEPT_MAX);
    assert!(!knows(&applied, "id1") && knows(&applied, "id2"));
    let seq = applied.seq;
    raise(&mut applied, 3, Some("late"));
    assert_eq!(applied.seq, seq);
    assert!(knows(&applied, "late"));
}

#[test]
fn order_tells_holes_and_takes_turns() {
    assert_eq!((gap(4, 5), gap(4, 6), gap(4, 2)), (None, Some(5), None));
    let names = |text: &str| text.split(' ').map(|name| name.parse().unwrap()).collect::<Vec<AgentName>>();
    assert_eq!(rotation(names("c a b"), None), names("a b c"));
    assert_eq!(rotation(names("c a b"), Some(&"a".parse().unwrap())), names("b c a"));
    assert_eq!(rotation(names("c a b"), Some(&"c".parse().unwrap())), names("a b c"));
    assert_eq!(rotation(names("c a"), Some(&"b".parse().unwrap())), names("c a"));
}

/// One commit over one key: what it made of `first`, and its lines.
fn commit(first: &Stored, values: &[Value]) -> (Stored, Vec<Line>) {
    let mut now = first.clone();
    let mut lines = Vec::new();
    for (place, value) in values.iter().enumerate() {
        let next = apply(&now, Operation::Set, Some(value)).unwrap();
        lines.push(Line {
            v: 1,
            agent: "a".parse().unwrap(),
            update: place as u64 + 1,
            id: format!("id{place}"),
            left: values.len() - 1 - place,
            op: Operation::Set,
            key: "k".parse().unwrap(),
            value: Some(value.clone()),
            before: now.hash(),
            after: next.hash(),
        });
        now = next;
    }
    (now, lines)
}

#[test]
fn the_last_commit_is_told_by_what_is_left_of_it() {
    let (_, mut lines) = commit(&Stored::Absent, &[json!(1), json!(2)]);
    let (_, last) = commit(&Stored::Absent, &[json!(1), json!(2), json!(3)]);
    lines.extend(last.clone());
    assert_eq!(last_commit(&lines), last);
    assert_eq!(last_commit(&[]), &[]);
}

proptest! {
    /// Wherever the crash was, and however often the value went there and back, the redo ends where the
    /// commit would have, and touches nothing that somebody else put there.
    #[test]
    fn a_redo_ends_where_the_commit_did(values in proptest::collection::vec(0..3_u8, 1..6), first in 0..3_u8) {
        let first = stored(&json!(first));
        let values: Vec<_> = values.iter().map(|value| json!(value)).collect();
        let (end, lines) = commit(&first, &values);
        let lines: Vec<_> = lines.iter().collect();
        for shown in [&first, &end] {
            prop_assert_eq!(&redo(shown, &lines).unwrap_or_else(|| shown.clone()), &end);
        }
        prop_assert_eq!(redo(&stored(&json!("other")), &lines), None);
    }
}
