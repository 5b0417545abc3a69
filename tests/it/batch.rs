//! Many tasks in one call.

use std::fmt::Write as _;
use std::fs;
use std::process::Output;

use nightcrew::protocol::ledger::Fact;

use crate::crew::{Crew, name};

const HANDLER: &str = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# concurrency = 4\n# ///\nexit 0\n";

/// Hands in these lines.
fn submit(crew: &Crew, lines: &str, more: &[&str]) -> Output {
    crew.put(&crew.path("lines"), lines, 0o600);
    let args: Vec<&str> = ["submit", "-"].iter().chain(more).copied().collect();
    crew.nightcrew_under(&["sh", "-c", "exec \"$@\" <lines", "sh"], &args)
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

#[test]
fn a_batch_is_submitted_once_however_often_it_is_handed_in() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER);
    crew.start();
    let mut lines = String::new();
    for n in 0..60 {
        // Every sixth is a repetition.
        let payload = if n % 6 == 5 { n - 1 } else { n };
        let _ = writeln!(lines, "{{\"kind\":\"work\",\"payload\":{payload}}}");
    }
    lines +=
        "{\"kind\":\"work\",\"id\":\"last\",\"needs\":[\"before\"]}\n{\"kind\":\"work\",\"id\":\"before\"}\n";
    let first = submit(&crew, &lines, &["--group", "batch"]);
    assert!(first.status.success(), "{first:?}");
    assert_eq!(told(&first), "accepted 52, 10 duplicates");
    assert_eq!(told(&submit(&crew, &lines, &[])), "accepted 0, 62 duplicates");
    crew.eventually("all are done", || {
        crew.ok(&["tasks", "--group", "batch", "--state", "done", "--json"]).lines().count() == 52
    });
    let ended: Vec<String> = crew
        .ledger()
        .into_iter()
        .filter_map(|fact| match fact {
            Fact::Outcome { task, status, .. } if status == "done" => Some(task.to_string()),
            _ => None,
        })
        .collect();
    let place = |id: &str| ended.iter().position(|task| task == id);
    assert!(place("before") < place("last"), "{ended:?}");
    let json = told(&submit(&crew, &lines, &["--json"]));
    assert_eq!(json.lines().count(), 62);
    assert!(json.lines().all(|line| line.contains("\"result\":\"duplicate\"")), "{json}");
    crew.ends_well();
}

#[test]
fn one_bad_line_refuses_the_whole_batch() {
    let crew = Crew::new();
    let good = "{\"kind\":\"work\",\"payload\":1}\n";
    for (bad, why) in [
        ("{\"kind\":\"work\",\"payload\":}", "line 2: column 26"),
        ("{\"kind\":\"work\",\"needs\":[\"nobody\"]}", "line 2: it needs task nobody"),
        (
            "{\"kind\":\"work\",\"id\":\"a\",\"needs\":[\"b\"]}\n{\"kind\":\"work\",\"id\":\"b\",\"needs\":[\"a\"]}",
            "line 2: its needs lead back",
        ),
    ] {
        let output = submit(&crew, &format!("{good}{bad}\n{good}"), &[]);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(65), "{error}");
        assert!(error.contains(why) && error.contains("hint: "), "{error}");
        let new = fs::read_dir(crew.layout.new_tasks()).map_or(0, Iterator::count);
        assert_eq!(new, 0, "nothing is submitted");
    }
    assert_eq!(submit(&crew, "", &["--key", "x"]).status.code(), Some(2));
    assert_eq!(
        told(&submit(&crew, "\n", &[])),
        "accepted 0, undecided: no supervisor runs (start it with `nightcrew run`)"
    );
}

#[test]
fn a_need_is_waited_for_and_one_that_nobody_knows_is_refused() {
    let mut crew = Crew::new();
    crew.agent("worker.sh", HANDLER);
    crew.start();
    crew.ok(&["submit", "other", "--id", "first"]);
    crew.ok(&["submit", "work", "--id", "second", "--needs", "first", "--priority", "-5", "--group", "g"]);
    crew.eventually("it waits", || {
        crew.ok(&["tasks", "--state", "blocked", "--json"]).contains("\"second\"")
    });
    let shown = crew.ok(&["tasks", "show", "second"]);
    assert!(shown.contains("needs        first, ready") && shown.contains("priority     -5"), "{shown}");
    let unknown = crew.nightcrew(&["submit", "work", "--needs", "third"]);
    assert_eq!(unknown.status.code(), Some(65));
    crew.agent("other.sh", &HANDLER.replace("work", "other"));
    crew.eventually("it goes on", || crew.is_done(&name("second")));
    let shown = crew.ok(&["tasks", "show", "second"]);
    assert!(shown.contains("task second of kind work was submitted by operator"), "{shown}");
    assert!(shown.contains("done by worker"), "{shown}");
    let late = crew.nightcrew(&["submit", "work", "5", "--expires", "2020-01-01T00:00:00Z"]);
    assert_eq!(late.status.code(), Some(65));
    crew.ok(&["submit", "nobodys", "--id", "shortlived", "--expires", "200ms"]);
    crew.eventually("it expires", || crew.nightcrew(&["dead", "show", "shortlived"]).status.success());
    crew.ok(&["submit", "work", "--id", "delayed", "--delay", "1h"]);
    crew.eventually("it waits", || crew.ok(&["tasks", "--state", "waiting"]).contains("delayed"));
    crew.ends_well();
}
