//! Tasks that survive: retries as declared, dead letters that tell all, gates, what is handed on, needs, fallbacks.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nightcrew::protocol::layout::Shelf;
use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::task::{Phase, TaskRecord};
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::crew::{Crew, name, text_of};

/// The record of a task on a shelf.
pub(crate) fn ended(crew: &Crew, shelf: Shelf, id: &TaskId) -> Option<TaskRecord> {
    serde_json::from_slice(&fs::read(crew.layout.ended(shelf, id)).ok()?).ok()
}

/// A gate that judges what it reads by this script.
pub(crate) fn gate(crew: &Crew, name: &str, script: &str) {
    fs::create_dir_all(crew.layout.gates()).expect("gates/");
    let path = crew.layout.gates().join(name);
    crew.put(&path, &format!("#!/bin/sh\n{script}\n"), 0o755);
    assert_eq!(fs::metadata(path).expect("it is there").permissions().mode() & 0o777, 0o755);
}

/// Submits by writing a record, as any script may: `more` goes before the payload.
fn hand_in(crew: &Crew, id: &str, kind: &str, more: &str, payload: &str) -> TaskId {
    let record = format!(
        r#"{{"v":1,"id":"{id}","nonce":"n-{id}","kind":"{kind}","at":"2026-11-20T03:00:00Z",{more}"payload":{payload}}}"#
    );
    crew.put(&crew.layout.new_task(&name(id)), &record, 0o600);
    name(id)
}

const ECHO: &str =
    "#!/bin/sh\n# /// agent\n# handles = [\"echo\"]\n# MORE\n# ///\ncat > \"$NIGHTCREW_OUTPUT\"\n";

fn echo(more: &str) -> String {
    let more = more.lines().fold(String::new(), |all, line| all + "# " + line + "\n");
    ECHO.replace("# MORE\n", &more)
}

#[test]
fn a_dead_letter_tells_every_attempt_with_what_it_printed() {
    let mut crew = Crew::new();
    let script = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# retries = 2\n# backoff = \"1ms\"\n# ///\n\
                  echo \"try $NIGHTCREW_FAILURES fails\"\nexit 3\n";
    crew.agent("worker.sh", script);
    crew.start();
    let task = crew.submit("work", "1");
    crew.eventually("it is dead", || ended(&crew, Shelf::Dead, &task).is_some());
    let record = ended(&crew, Shelf::Dead, &task).expect("it is");
    assert_eq!((record.failures, record.attempts.len()), (3, 3));
    for (at, attempt) in record.attempts.iter().enumerate() {
        assert_eq!((attempt.error.as_str(), attempt.agent.as_str()), ("exit 3", "worker"));
        assert_eq!(attempt.output, format!("try {at} fails"), "all that it printed is there by then");
        assert!(attempt.run.is_some() && attempt.began.is_some_and(|began| began <= attempt.at));
    }
    assert_eq!(record.reason.as_deref(), Some("exit 3"));
    // Replayed by moving it: the id stays, the history too, and tokens go on.
    let token = record.token;
    fs::rename(crew.layout.ended(Shelf::Dead, &task), crew.layout.new_task(&task)).expect("moved");
    crew.eventually("it is dead again", || ended(&crew, Shelf::Dead, &task).is_some());
    let again = ended(&crew, Shelf::Dead, &task).expect("it is");
    assert!(again.token > token && again.replays == 1 && again.attempts.len() == 6, "{again:?}");
    crew.ends_well();
}

#[test]
fn what_a_handler_printed_is_kept_though_it_says_that_it_failed_and_runs_on() {
    let mut crew = Crew::new();
    let script = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# max_rss = \"1GiB\"\n# ///\n\
                  echo 'no such page'\nuntil [ -s \"$NIGHTCREW_DIR/state/logs/worker.log\" ]; do sleep 0.05; done\n\
                  nightcrew fail --permanent gone\nexec sleep 1000\n";
    crew.agent("worker.sh", script);
    crew.start();
    let task = crew.submit("work", "1");
    crew.eventually("it is dead", || ended(&crew, Shelf::Dead, &task).is_some());
    let record = ended(&crew, Shelf::Dead, &task).expect("it is");
    let [attempt] = &record.attempts[..] else { panic!("{:?}", record.attempts) };
    assert_eq!(attempt.error, "gone");
    assert!(attempt.output.starts_with("no such page"), "{attempt:?}");
    crew.ends_well();
}

#[test]
fn exit_codes_decide_as_the_manifest_says() {
    let mut crew = Crew::new();
    let script = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# backoff = \"1ms\"\n# no_retry_on = [7]\n# ///\n\
                  exit \"$(cat)\"\n";
    crew.agent("worker.sh", script);
    crew.start();
    for (code, failures) in [("7", 1), ("65", 1), ("9", 4)] {
        let task = crew.submit("work", code);
        crew.eventually("it is dead", || ended(&crew, Shelf::Dead, &task).is_some());
        assert_eq!(ended(&crew, Shelf::Dead, &task).expect("it is").failures, failures, "exit {code}");
    }
    crew.ends_well();
}

#[test]
fn a_result_that_passes_its_gate_is_done_and_handed_on_and_one_that_does_not_waits_for_a_person() {
    let mut crew = Crew::new();
    gate(&crew, "no-oops", "if grep -q oops; then echo 'it says oops'; exit 1; fi");
    crew.agent("echo.sh", &echo("gate = \"no-oops\"\nthen = \"publish\""));
    crew.agent("publisher.sh", &echo("").replace("\"echo\"", "\"publish\""));
    crew.start();
    let good = crew.submit("echo", r#"{"text":"fine"}"#);
    crew.eventually("it is done", || crew.is_done(&good));
    assert_eq!(text_of(&crew.layout.result(&good)), r#"{"text":"fine"}"#);
    let published = crew.fact("it is handed on", |fact| match fact {
        Fact::Submitted { task, kind, .. } if kind.as_str() == "publish" => Some(task.clone()),
        _ => None,
    });
    crew.eventually("that is done too", || crew.is_done(&published));
    assert_eq!(text_of(&crew.layout.result(&published)), r#"{"text":"fine"}"#);

    let bad = crew.submit("echo", r#""oops""#);
    crew.eventually("it is to be reviewed", || ended(&crew, Shelf::Review, &bad).is_some());
    let record = ended(&crew, Shelf::Review, &bad).expect("it is");
    assert_eq!((record.state, record.reason.as_deref()), (Phase::Review, Some("it says oops")));
    assert_eq!(text_of(&crew.layout.result_on(Shelf::Review, &bad)), r#""oops""#);
    assert!(!crew.layout.result(&bad).exists());
    let submitted = |fact: &Fact| matches!(fact, Fact::Submitted { kind, .. } if kind.as_str() == "publish");
    assert_eq!(crew.count(submitted), 1);
    crew.ends_well();
}

#[test]
fn a_gate_that_is_missing_passes_nothing_and_says_so() {
    let mut crew = Crew::new();
    crew.agent("echo.sh", &echo("gate = \"absent\""));
    crew.start();
    let task = crew.submit("echo", "1");
    crew.eventually("it is to be reviewed", || ended(&crew, Shelf::Review, &task).is_some());
    let reason = ended(&crew, Shelf::Review, &task).and_then(|record| record.reason).unwrap_or_default();
    assert!(reason.contains("there is no gates/absent"), "{reason}");
    crew.ends_well();
}

#[test]
fn a_gate_that_was_killed_with_its_supervisor_is_asked_again() {
    let mut crew = Crew::new();
    gate(&crew, "slow", "echo asked >> gate-asked; while [ ! -e go ]; do sleep 0.05; done");
    crew.agent("echo.sh", &echo("gate = \"slow\""));
    crew.start();
    let task = crew.submit("echo", "1");
    crew.eventually("the gate is asked", || text_of(&crew.path("gate-asked")).lines().count() == 1);
    crew.signal_supervisor(Signal::SIGKILL);
    crew.supervisors_end();
    crew.start();
    crew.eventually("it is asked again", || text_of(&crew.path("gate-asked")).lines().count() == 2);
    fs::write(crew.path("go"), "").expect("written");
    crew.eventually("it is done", || crew.is_done(&task));
    let done = |fact: &Fact| matches!(fact, Fact::Outcome { status, .. } if status == "done");
    assert_eq!(crew.count(done), 1, "the handler worked once");
    crew.ends_well();
}

#[test]
fn a_task_waits_for_what_it_needs_and_gets_their_results() {
    let mut crew = Crew::new();
    crew.agent("echo.sh", &echo(""));
    let join = "#!/bin/sh\n# /// agent\n# handles = [\"join\"]\n# ///\n\
                cat \"$NIGHTCREW_NEEDS\" > \"$NIGHTCREW_OUTPUT\"\n";
    crew.agent("join.sh", join);
    crew.start();
    let joined = hand_in(&crew, "joined", "join", r#""needs":["a","b"],"#, "null");
    crew.eventually("it is admitted", || crew.layout.task(&joined).exists());
    hand_in(&crew, "a", "echo", "", "1");
    crew.eventually("one is done", || crew.is_done(&name("a")));
    assert!(!crew.is_done(&joined));
    hand_in(&crew, "b", "echo", "", "2");
    crew.eventually("it is done", || crew.is_done(&joined));
    let told: Value = serde_json::from_str(&text_of(&crew.layout.result(&joined))).expect("JSON");
    for (id, result) in [("a", "1"), ("b", "2")] {
        assert_eq!(told[id]["state"], "done");
        let path = told[id]["output"].as_str().expect("a path");
        assert_eq!(text_of(path.as_ref()), result);
    }
    crew.ends_well();
}

#[test]
fn what_needs_a_dead_letter_is_one_too_unless_it_says_otherwise_and_a_cycle_is_refused() {
    let mut crew = Crew::new();
    crew.agent("echo.sh", &echo(""));
    crew.agent("fails.sh", "#!/bin/sh\n# /// agent\n# handles = [\"fail\"]\n# ///\nexit 65\n");
    crew.start();
    hand_in(&crew, "bad", "fail", "", "1");
    let follows = hand_in(&crew, "follows", "echo", r#""needs":["bad"],"#, "1");
    let runs = hand_in(&crew, "runs", "echo", r#""needs":["bad"],"on_dead":"run","#, "1");
    crew.eventually("it runs nevertheless", || crew.is_done(&runs));
    crew.eventually("it is dead", || ended(&crew, Shelf::Dead, &follows).is_some());
    let reason = ended(&crew, Shelf::Dead, &follows).and_then(|record| record.reason).unwrap_or_default();
    assert_eq!(reason, "task bad, which it needs, is a dead letter");

    hand_in(&crew, "chicken", "echo", r#""needs":["egg"],"#, "1");
    crew.eventually("one waits", || crew.layout.task(&name("chicken")).exists());
    hand_in(&crew, "egg", "echo", r#""needs":["chicken"],"#, "1");
    let rejected = crew.layout.rejected_tasks().join("egg.json");
    crew.eventually("the other is refused", || rejected.exists());
    let reason = text_of(&crew.layout.rejected_tasks().join("egg.reason"));
    assert!(reason.contains("lead back to it"), "{reason}");
    crew.ends_well();
}

#[test]
fn while_a_handler_keeps_failing_its_fallback_works_in_its_stead() {
    let mut crew = Crew::new();
    let ill = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# retries = 0\n# fallback = \"lite\"\n# ///\nexit 1\n";
    crew.agent("ill.sh", ill);
    let lite = "#!/bin/sh\n# /// agent\n# handles = [\"lite\"]\n# ///\nprintf %s \"$NIGHTCREW_MODE\" > \"$NIGHTCREW_OUTPUT\"\n";
    crew.agent("lite.sh", lite);
    crew.start();
    for task in ["1", "2", "3"] {
        let task = crew.submit("work", task);
        crew.eventually("it is dead", || ended(&crew, Shelf::Dead, &task).is_some());
    }
    let task = crew.submit("work", "4");
    crew.eventually("the other does it", || crew.is_done(&task));
    assert_eq!(text_of(&crew.layout.result(&task)), "fallback");
    crew.ends_well();
}
