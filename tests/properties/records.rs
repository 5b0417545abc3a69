//! Records: one JSON object each, versioned, read whole or not at all.

use nightcrew::protocol::holder::Holder;
use nightcrew::protocol::journal::{Applied, Line};
use nightcrew::protocol::ledger::{Entry, Fact};
use nightcrew::protocol::name::Name;
use nightcrew::protocol::process::Ending;
use nightcrew::protocol::record::{RecordError, decode, encode};
use nightcrew::protocol::request::{Answer, Ask, Request};
use nightcrew::protocol::status::{AgentStatus, Alert, CrewStatus, Refusal, RunStatus, Standing};
use nightcrew::protocol::step::{Progress, StepRecord};
use nightcrew::protocol::task::{Attempt, Lock, Made, OnDead, Outcome, Phase, TaskRecord, Verdict, Wishes};
use nightcrew::protocol::tokens::Tokens;
use nightcrew::protocol::update::{Operation, Update};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

use super::any::{bytes, identity, key, name, text, value, wall};

/// Reads a record and writes it again.
type Again = fn(&[u8]) -> Result<Vec<u8>, RecordError>;

fn again<T: DeserializeOwned + Serialize>(bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
    decode::<T>(bytes).map(|record| encode(&record))
}

/// Every kind of record there is.
const KINDS: [(&str, Again); 14] = [
    ("task", again::<TaskRecord>),
    ("lock", again::<Lock>),
    ("outcome", again::<Outcome>),
    ("update", again::<Update>),
    ("journal line", again::<Line>),
    ("applied", again::<Applied>),
    ("request", again::<Request>),
    ("answer", again::<Answer>),
    ("holder", again::<Holder>),
    ("tokens", again::<Tokens>),
    ("step", again::<StepRecord>),
    ("agent status", again::<AgentStatus>),
    ("crew status", again::<CrewStatus>),
    ("alert", again::<Alert>),
];

/// A record as its writer wrote it.
#[derive(Debug, Clone)]
struct Written {
    kind: &'static str,
    line: String,
}

impl Written {
    fn of<T: Serialize>(kind: &'static str, record: &T) -> Self {
        Self { kind, line: String::from_utf8(encode(record)).expect("JSON is UTF-8") }
    }

    fn read(&self, bytes: &[u8]) -> Result<Vec<u8>, RecordError> {
        let (_, again) = KINDS.iter().find(|(kind, _)| *kind == self.kind).expect("a kind of record");
        again(bytes)
    }

    /// The record with more fields before its own.
    fn with(&self, fields: &str) -> String {
        self.line.replacen('{', &format!("{{{fields},"), 1)
    }
}

fn task() -> impl Strategy<Value = Written> {
    let states = select(
        [
            Phase::New,
            Phase::Ready,
            Phase::Waiting,
            Phase::Blocked,
            Phase::Gated,
            Phase::Review,
            Phase::Done,
            Phase::Dead,
        ]
        .as_slice(),
    );
    let attempt =
        (name(), name(), any::<u64>(), wall(), text()).prop_map(|(agent, run, token, at, error)| Attempt {
            agent,
            run: Some(run),
            token,
            began: Some(at),
            at,
            output: error.clone(),
            peak_memory: Some(token),
            error,
        });
    let head = (name(), any::<u64>(), text(), name(), states, any::<u32>(), any::<u32>(), wall());
    let rest =
        (text(), option::of(wall()), option::of(wall()), vec(text(), 0..3), vec(attempt, 0..3), value());
    (head, rest, wishes(), any::<(u32, u32)>(), option::of(made())).prop_map(
        |(head, rest, wishes, counts, made)| {
            let (id, token, nonce, kind, state, failures, deferrals, at) = head;
            let (by, not_before, ended, decided, attempts, payload) = rest;
            let payload = to_raw_value(&payload).expect("JSON");
            let slot = "a@2026-11-20T04:00Z".parse().ok().filter(|_| ended.is_some());
            let record = TaskRecord {
                slot,
                v: 1,
                id,
                token,
                nonce,
                kind,
                state,
                failures,
                deferrals,
                at,
                by,
                deaths: counts.0,
                replays: counts.1,
                wishes: Wishes { not_before, ..wishes },
                unique_until: made.as_ref().map(|_| at),
                reason: made.as_ref().map(|_| "why".to_owned()),
                made,
                ended,
                decided,
                attempts,
                payload,
            };
            Written::of("task", &record)
        },
    )
}

fn wishes() -> impl Strategy<Value = Wishes> {
    let on_dead = select([OnDead::Fail, OnDead::Run].as_slice());
    let all = (any::<i8>(), option::of(wall()), option::of(name()), vec(name(), 0..3), on_dead);
    all.prop_map(|(priority, expires, group, needs, on_dead)| Wishes {
        priority,
        not_before: None,
        expires,
        group,
        needs,
        on_dead,
    })
}

fn made() -> impl Strategy<Value = Made> {
    (name(), name(), option::of(name())).prop_map(|(agent, gate, then)| {
        let nonce = "n".to_owned();
        Made { agent, nonce, gate, then }
    })
}

fn lock_or_outcome() -> impl Strategy<Value = Written> {
    let verdicts = select([Verdict::Done, Verdict::Failed, Verdict::Retry, Verdict::Released].as_slice());
    let lock = (name(), any::<u64>(), name(), name(), option::of(name()), option::of(identity()), wall());
    let lock = lock.prop_map(|(task, token, nonce, agent, run, owner, at)| {
        Written::of("lock", &Lock { v: 1, task, token, nonce: nonce.to_string(), agent, run, owner, at })
    });
    let again = (any::<bool>(), option::of(any::<u64>()));
    let outcome = (name(), any::<u64>(), text(), verdicts, option::of(text()), again);
    let outcome = outcome.prop_map(|(task, token, nonce, status, error, (permanent, retry_after_ms))| {
        let outcome = Outcome::new(task, token, nonce, status, error);
        Written::of("outcome", &Outcome { permanent, retry_after_ms, ..outcome })
    });
    prop_oneof![lock, outcome]
}

fn of_memory() -> impl Strategy<Value = Written> {
    let operations = [Operation::Set, Operation::Merge, Operation::Append, Operation::Delete];
    let operations = || select(operations.to_vec());
    let update = (text(), operations(), key(), option::of(value()))
        .prop_map(|(id, op, key, value)| Written::of("update", &Update { v: 1, id, op, key, value }));
    let head = (name(), any::<u64>(), text(), any::<usize>(), operations());
    let line =
        (head, key(), option::of(value()), text(), text()).prop_map(|(head, key, value, before, after)| {
            let (agent, update, id, left, op) = head;
            Written::of(
                "journal line",
                &Line { v: 1, agent, update, id, left, op, key, value, before, after },
            )
        });
    let applied = (any::<u64>(), vec(text(), 0..4))
        .prop_map(|(seq, ids)| Written::of("applied", &Applied { v: 1, seq, ids }));
    prop_oneof![update, line, applied]
}

fn small() -> impl Strategy<Value = Written> {
    let request = (name(), vec(name(), 0..3))
        .prop_map(|(id, agents)| Written::of("request", &Request { v: 1, id, ask: Ask::Restart { agents } }));
    let answer = (name(), any::<bool>(), text())
        .prop_map(|(id, ok, text)| Written::of("answer", &Answer { v: 1, id, ok, text }));
    let holder =
        (identity(), wall()).prop_map(|(process, since)| Written::of("holder", &Holder::new(process, since)));
    let tokens = any::<u64>().prop_map(|reserved| Written::of("tokens", &Tokens::reserved(reserved)));
    let alert =
        (text(), wall(), wall(), any::<u64>(), text()).prop_map(|(key, opened, updated, count, text)| {
            Written::of("alert", &Alert { v: 1, key, opened, updated, count, text })
        });
    prop_oneof![request, answer, holder, tokens, alert]
}

fn refusal() -> impl Strategy<Value = Refusal> {
    (text(), text(), text()).prop_map(|(file, reason, remedy)| Refusal { file, reason, remedy })
}

fn status() -> impl Strategy<Value = Written> {
    let states = select([Standing::Running, Standing::Idle, Standing::Backoff, Standing::Refused].as_slice());
    let run = (name(), option::of(identity()), wall(), option::of(name()))
        .prop_map(|(run, process, since, task)| RunStatus { run, process, since, task });
    let head = (name(), states, text(), wall(), text(), text(), vec(name(), 0..3), text());
    let rest = (option::of(wall()), vec(run, 0..3), any::<u64>(), option::of(text()), option::of(refusal()));
    let agent = (head, rest).prop_map(|(head, rest)| {
        let (agent, state, why, since, kind, about, handles, liveness) = head;
        let (next, runs, restarts, last_exit, refusal) = rest;
        let status = AgentStatus {
            v: 1,
            agent,
            state,
            why,
            since,
            kind,
            about,
            handles,
            liveness,
            next,
            runs,
            restarts,
            last_exit,
            refusal,
        };
        Written::of("agent status", &status)
    });
    let crew = (identity(), text(), wall(), text(), vec(text(), 0..3), vec(refusal(), 0..2), any::<u64>());
    let crew = crew.prop_map(|(supervisor, version, since, state, warnings, refusals, tasks_open)| {
        let status = CrewStatus { v: 1, supervisor, version, since, state, warnings, refusals, tasks_open };
        Written::of("crew status", &status)
    });
    prop_oneof![agent, crew]
}

fn step() -> impl Strategy<Value = Written> {
    let done = (any::<u64>(), text()).prop_map(|(bytes, sha256)| Progress::Done { bytes, sha256 });
    let state = prop_oneof![Just(Progress::Begun), done];
    let record = (option::of(name()), name(), option::of(name()), option::of(text()), state, wall());
    record.prop_map(|(task, step, hash, key, state, at)| {
        Written::of("step", &StepRecord { v: 1, task, step, hash, key, state, at })
    })
}

fn record() -> impl Strategy<Value = Written> {
    prop_oneof![task(), lock_or_outcome(), of_memory(), small(), status(), step()]
}

/// Facts of every shape of field there is: texts, numbers, processes, lists, JSON, what may be missing.
fn entry() -> impl Strategy<Value = Entry> {
    let endings = prop_oneof![
        any::<i32>().prop_map(Ending::Code),
        any::<i32>().prop_map(Ending::Signal),
        Just(Ending::Unseen),
    ];
    let fact =
        prop_oneof![
            (name(), name(), identity(), option::of(name()))
                .prop_map(|(agent, run, process, task)| Fact::Started { agent, run, process, task }),
            (name(), name(), endings, any::<u64>(), text()).prop_map(
                |(agent, run, ending, lived_ms, why)| Fact::Exited { agent, run, ending, lived_ms, why }
            ),
            (name(), name(), vec(text(), 0..3)).prop_map(|(agent, run, processes)| Fact::RemnantsKilled {
                agent,
                run,
                processes
            }),
            (name(), name(), text(), value()).prop_map(|(agent, run, why, evidence)| Fact::Isolated {
                agent,
                run,
                why,
                evidence
            }),
            (name(), any::<u32>(), wall()).prop_map(|(agent, failures, next)| Fact::Failing {
                agent,
                failures,
                next
            }),
            (name(), any::<u64>(), text(), name(), text(), option::of(text()), text()).prop_map(
                |(task, token, nonce, agent, status, error, next)| Fact::Outcome {
                    task,
                    token,
                    nonce,
                    agent,
                    status,
                    error,
                    next,
                }
            ),
            (name(), any::<u64>(), text(), text(), key())
                .prop_map(|(agent, seq, id, op, key)| Fact::Updated { agent, seq, id, op, key }),
            (text(), text()).prop_map(|(key, text)| Fact::Alert { key, text }),
        ];
    (wall(), fact).prop_map(|(at, fact)| Entry { at, fact })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn what_is_written_is_one_line_and_read_as_the_same(written in record()) {
        prop_assert_eq!(written.line.matches('\n').count(), 1);
        prop_assert_eq!(written.read(written.line.as_bytes()), Ok(written.line.clone().into_bytes()));
    }

    #[test]
    fn a_fact_is_read_from_the_ledger_as_it_was_written(entry in entry()) {
        let line = serde_json::to_string(&entry).expect("JSON");
        prop_assert_eq!(serde_json::from_str::<Entry>(&line).ok(), Some(entry));
    }

    #[test]
    fn half_a_record_is_incomplete_and_more_than_one_is_none(written in record(), at in any::<Index>(), more in text()) {
        let half = &written.line.as_bytes()[..at.index(written.line.len() - 1)];
        let got = written.read(half);
        prop_assert!(matches!(got, Err(RecordError::Incomplete(_))), "{:?}", got);
        let more = format!("{}{}", written.line, more.trim());
        let got = written.read(more.as_bytes());
        prop_assert!(got.is_ok() == (more == written.line), "{:?}", got);
    }

    #[test]
    fn a_record_of_another_version_is_refused(written in record(), later in 2u64.., shape in value()) {
        let newer = written.line.replacen("\"v\":1", &format!("\"v\":{later}"), 1);
        prop_assert_eq!(written.read(newer.as_bytes()), Err(RecordError::Newer(later)));
        let newer = format!("{{\"shape\":{shape},\"v\":{later}}}");
        prop_assert_eq!(written.read(newer.as_bytes()), Err(RecordError::Newer(later)));
        for none in ["0", "-1", "\"1\"", "1.0", "null", "18446744073709551616", "1e400"] {
            let other = written.line.replacen("\"v\":1", &format!("\"v\":{none}"), 1);
            prop_assert!(matches!(written.read(other.as_bytes()), Err(RecordError::Malformed(_))), "{}", other);
        }
        let without = written.line.replacen("\"v\":1,", "", 1);
        prop_assert!(matches!(written.read(without.as_bytes()), Err(RecordError::Malformed(_))));
    }

    #[test]
    fn a_field_that_stands_twice_is_refused(written in record(), at in any::<Index>()) {
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&written.line).expect("an object");
        let (name, value) = fields.iter().nth(at.index(fields.len())).expect("a field");
        let twice = written.with(&format!("\"{name}\":{value}"));
        prop_assert!(matches!(written.read(twice.as_bytes()), Err(RecordError::Malformed(_))), "{}", twice);
    }

    #[test]
    fn a_field_of_a_later_build_is_passed_over(written in record(), extra in value()) {
        let more = written.with(&format!("\"of_a_later_build\":{extra}"));
        prop_assert_eq!(written.read(more.as_bytes()), Ok(written.line.clone().into_bytes()));
    }

    #[test]
    fn what_junk_leaves_of_a_record_is_read_as_it_is_written_or_not_at_all(
        written in record(), at in any::<Index>(), gone in 0usize..12, junk in bytes(4),
    ) {
        let mut bytes = written.line.clone().into_bytes();
        let at = at.index(bytes.len());
        let end = (at + gone).min(bytes.len());
        bytes.splice(at..end, junk);
        for (kind, again) in KINDS {
            if let Ok(line) = again(&bytes) {
                prop_assert_eq!(again(&line), Ok(line), "{}", kind);
            }
        }
    }

    #[test]
    fn a_byte_order_mark_a_nul_and_half_a_surrogate_are_refused(written in record()) {
        let line = written.line.trim_end();
        for odd in [format!("\u{feff}{line}"), format!("{line}\0"), format!("\0{line}"), format!("[{line}]")] {
            prop_assert!(matches!(written.read(odd.as_bytes()), Err(RecordError::Malformed(_))), "{:?}", odd);
        }
        prop_assert!(written.read(format!("\r\n {line}\r\n").as_bytes()).is_ok(), "white space is none");
        let strings = line.match_indices(":\"").map(|(at, _)| at + 2);
        for at in strings.filter(|at| !line[*at..].starts_with('\\')).take(4) {
            let odd = format!("{}\\ud800{}", &line[..at], &line[at..]);
            if written.kind != "task" && serde_json::from_str::<serde_json::Value>(&odd).is_err() {
                prop_assert!(written.read(odd.as_bytes()).is_err(), "{}", odd);
            }
        }
    }
}

/// Nothing that is nested deeper than a stack is kept, and none of it is followed to its end.
#[test]
fn nesting_of_a_hundred_thousand_is_refused_or_passed_over() {
    let nested = |open: &str, close: &str| format!("{}0{}", open.repeat(100_000), close.repeat(100_000));
    for deep in [nested("{\"v\":", "}"), "[".repeat(100_000), "{\"a\":".repeat(100_000)] {
        assert!(KINDS.iter().all(|(_, again)| again(deep.as_bytes()).is_err()));
        assert!(serde_json::from_str::<Entry>(&deep).is_err());
    }
    let deep = nested("[", "]");
    for field in ["v", "id", "token", "agents", "pid", "value", "runs", "of_a_later_build"] {
        let inside = format!("{{\"v\":1,\"{field}\":{deep}}}");
        assert!(KINDS.iter().all(|(_, again)| again(inside.as_bytes()).is_err()), "{field}");
    }
    let fields = "\"at\":\"2026-11-20T03:00:00Z\",\"event\":\"alert\",\"key\":\"k\",\"text\":\"t\"";
    assert!(serde_json::from_str::<Entry>(&format!("{{{fields},\"of_a_later_build\":{deep}}}")).is_err());
}

/// What is no number of the field's size is refused, never wrapped or rounded.
#[test]
fn numbers_that_do_not_fit_are_refused() {
    let tokens = |number: &str| decode::<Tokens>(format!("{{\"v\":1,\"reserved\":{number}}}").as_bytes());
    assert_eq!(tokens("18446744073709551615"), Ok(Tokens { v: 1, reserved: u64::MAX, crc: None }));
    let digits = "9".repeat(100_000);
    for bad in [
        "18446744073709551616",
        "-1",
        "1.0",
        "1e3",
        "1e999999999",
        "01",
        "+1",
        "0x1",
        "\"1\"",
        "NaN",
        &digits,
    ] {
        assert!(matches!(tokens(bad), Err(RecordError::Malformed(_))), "{bad}");
    }
}

/// A name that would climb out of its directory is refused in every field that becomes a path.
#[test]
fn no_field_that_becomes_a_path_takes_more_than_a_name() {
    let long = "x".repeat(65);
    for bad in ["", ".", "..", "../x", "/etc/passwd", "a/b", "a.b", "a\\u0000", "a b", "ä", &long] {
        assert!(bad.parse::<Name>().is_err());
        for line in [
            format!(
                r#"{{"v":1,"id":"{bad}","nonce":"n","kind":"k","at":"2026-11-20T03:00:00Z","payload":null}}"#
            ),
            format!(
                r#"{{"v":1,"id":"t","nonce":"n","kind":"{bad}","at":"2026-11-20T03:00:00Z","payload":null}}"#
            ),
            format!(
                r#"{{"v":1,"task":"t","token":1,"nonce":"{bad}","agent":"a","at":"2026-11-20T03:00:00Z"}}"#
            ),
            format!(
                r#"{{"v":1,"task":"t","token":1,"nonce":"n","agent":"{bad}","at":"2026-11-20T03:00:00Z"}}"#
            ),
            format!(r#"{{"v":1,"task":"{bad}","token":1,"nonce":"n","status":"done"}}"#),
            format!(r#"{{"v":1,"id":"{bad}","ask":"restart","agents":[]}}"#),
            format!(r#"{{"v":1,"id":"q","ask":"restart","agents":["{bad}"]}}"#),
            format!(r#"{{"v":1,"id":"u","op":"delete","key":"k/{bad}/l"}}"#).replace("a/b", "a//b"),
        ] {
            assert!(KINDS.iter().all(|(_, again)| again(line.as_bytes()).is_err()), "{line}");
        }
    }
}

/// A payload is the submitter's own: not one byte of it changes.
#[test]
fn a_payload_is_kept_byte_for_byte() {
    for payload in
        ["1e999", "[ 1 ,\t2 ]", r#"{"a":1,"a":2}"#, r#""\ud800""#, "-0", "123456789012345678901234567890"]
    {
        let raw = RawValue::from_string(payload.to_owned()).expect("JSON");
        let (name, at) = ("t".parse::<Name>().expect("a name"), nightcrew::protocol::time::Wall(0));
        let task =
            TaskRecord::submission(name.clone(), "n".into(), name, at, String::new(), raw, Wishes::default());
        let read = decode::<TaskRecord>(&encode(&task)).expect("a task");
        assert_eq!(read.payload.get(), payload);
    }
}
