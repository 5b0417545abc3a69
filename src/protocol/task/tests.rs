//! The three records, as they stand on the disk.

use super::*;
use crate::protocol::record::{decode, encode};

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn line<T: Serialize>(record: &T) -> String {
    String::from_utf8(encode(record)).unwrap()
}

fn lock(owner: Option<Identity>) -> Lock {
    let run = owner.as_ref().map(|_| name("R1"));
    Lock { v: 1, task: name("t"), token: 3, nonce: "n".into(), agent: name("a"), run, owner, at: Wall(0) }
}

#[test]
fn a_task_is_this_line_and_keeps_its_payload_byte_for_byte() {
    let payload = RawValue::from_string(r#"{"b": 1,  "a":1e999}"#.to_owned()).unwrap();
    let mut task = TaskRecord::submission(
        name("t"),
        "n".into(),
        name("k"),
        Wall(0),
        OPERATOR.into(),
        payload,
        Wishes::default(),
    );
    let new = r#"{"v":1,"id":"t","token":0,"nonce":"n","kind":"k","state":"new","failures":0,"at":"1970-01-01T00:00:00.000Z","by":"operator","payload":{"b": 1,  "a":1e999}}"#;
    assert_eq!(line(&task), format!("{new}\n"));
    task.token = u64::MAX;
    task.state = Phase::Waiting;
    task.failures = 1;
    task.wishes.not_before = Some(Wall(1000));
    task.decided = vec!["m".into()];
    let error = "no\n".to_owned();
    task.attempts = vec![Attempt {
        agent: name("a"),
        run: Some(name("R1")),
        token: 2,
        began: None,
        at: Wall(1),
        error,
        output: String::new(),
        peak_memory: None,
    }];
    let full = r#"{"v":1,"id":"t","token":18446744073709551615,"nonce":"n","kind":"k","state":"waiting","failures":1,"at":"1970-01-01T00:00:00.000Z","by":"operator","not_before":"1970-01-01T00:00:01.000Z","decided":["m"],"attempts":[{"agent":"a","run":"R1","token":2,"at":"1970-01-01T00:00:00.001Z","error":"no\n"}],"payload":{"b": 1,  "a":1e999}}"#;
    assert_eq!(line(&task), format!("{full}\n"));
    let again: TaskRecord = decode(full.as_bytes()).unwrap();
    assert_eq!(line(&again), format!("{full}\n"));
}

#[test]
fn a_submission_from_a_shell_needs_few_fields() {
    let text = r#"{"v":1,"id":"t","nonce":"n","kind":"k","at":"2026-11-20T03:00:00Z","payload":null}"#;
    let task: TaskRecord = decode(text.as_bytes()).unwrap();
    assert_eq!((task.token, task.state, task.failures, task.by.as_str()), (0, Phase::New, 0, ""));
}

#[test]
fn a_lock_is_this_line_with_and_without_its_process() {
    let bare = lock(None);
    let text = r#"{"v":1,"task":"t","token":3,"nonce":"n","agent":"a","at":"1970-01-01T00:00:00.000Z"}"#;
    assert_eq!(line(&bare), format!("{text}\n"));
    assert_eq!(decode::<Lock>(text.as_bytes()).unwrap(), bare);
    let owned = lock(Some(Identity { pid: 7, start: u64::MAX, boot: "b".into(), ns: 4 }));
    let text = r#"{"v":1,"task":"t","token":3,"nonce":"n","agent":"a","run":"R1","pid":7,"start":18446744073709551615,"boot":"b","ns":4,"at":"1970-01-01T00:00:00.000Z"}"#;
    assert_eq!(line(&owned), format!("{text}\n"));
    assert_eq!(decode::<Lock>(text.as_bytes()).unwrap(), owned);
}

#[test]
fn a_process_told_in_part_is_refused() {
    let text = line(&lock(Some(Identity { pid: 7, start: 8, boot: "b".into(), ns: 4 })));
    for (part, other) in [
        ("\"pid\":7,", ""),
        ("\"start\":8,", ""),
        ("\"boot\":\"b\",", ""),
        ("\"ns\":4,", ""),
        ("\"pid\":7", "\"pid\":\"7\""),
        ("\"pid\":7", "\"pid\":-7"),
        ("\"pid\":7", "\"pid\":7,\"pid\":8"),
    ] {
        let changed = text.replace(part, other);
        assert_ne!(changed, text);
        assert!(decode::<Lock>(changed.as_bytes()).is_err(), "{changed}");
    }
}

#[test]
fn a_lock_whose_nonce_is_no_name_is_refused() {
    for nonce in ["", "../../../x", "/x", "a.b", "a b", &"n".repeat(65)] {
        let text = line(&Lock { nonce: nonce.to_owned(), ..lock(None) });
        assert!(decode::<Lock>(text.as_bytes()).is_err(), "{text}");
    }
}

#[test]
fn an_outcome_is_this_line() {
    let mut outcome = Outcome::new(name("t"), 3, "n".into(), Verdict::Done, None);
    let text = r#"{"v":1,"task":"t","token":3,"nonce":"n","status":"done"}"#;
    assert_eq!(line(&outcome), format!("{text}\n"));
    assert_eq!(decode::<Outcome>(text.as_bytes()).unwrap(), outcome);
    outcome.status = Verdict::Failed;
    outcome.error = Some("why".into());
    let text = r#"{"v":1,"task":"t","token":3,"nonce":"n","status":"failed","error":"why"}"#;
    assert_eq!(line(&outcome), format!("{text}\n"));
    assert_eq!(decode::<Outcome>(text.as_bytes()).unwrap(), outcome);
    (outcome.permanent, outcome.retry_after_ms) = (true, Some(90_000));
    let text = r#"{"v":1,"task":"t","token":3,"nonce":"n","status":"failed","error":"why","permanent":true,"retry_after_ms":90000}"#;
    assert_eq!(line(&outcome), format!("{text}\n"));
    assert_eq!(decode::<Outcome>(text.as_bytes()).unwrap(), outcome);
}

#[test]
fn the_name_of_an_outcome_is_read_or_refused() {
    assert_eq!(parse_outcome_name("t.3.n.json"), Some((name("t"), 3, "n")));
    for bad in [
        "t.3.json",
        "t.3.n",
        "t.3.n.x.json",
        "t.x.n.json",
        "t.+3.n.json",
        "t.03.n.json",
        "t.3..json",
        "..3.n.json",
        "t/u.3.n.json",
    ] {
        assert_eq!(parse_outcome_name(bad), None, "{bad}");
    }
}

/// The same as `printf 'k\0k\0key' | sha256sum | cut -c 1-16`.
#[test]
fn an_id_can_be_computed_by_anyone() {
    assert_eq!(id_from_key(&name("k"), "key").as_str(), "a3b7b39a86855bc1");
    assert_eq!(id_from_payload(&name("k"), b"key").as_str(), "1526294dfc8c9ff4");
}
