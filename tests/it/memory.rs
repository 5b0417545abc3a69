//! Shared memory, and the protocol as a shell speaks it.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::crew::{Crew, text_of};

/// Queues its updates by the protocol, as fast as it can. Nothing is made durable: nothing loses power here.
const WRITER: &str = r#"#!/usr/bin/env python3
# /// agent
# restart = "never"
# ///
import json, os
agent, queue, tmp = (os.environ["NIGHTCREW_" + name] for name in ("AGENT", "QUEUE", "TMP"))
for n in range(1, 501):
    temp = tmp + "/update"
    with open(temp, "w") as file:
        update = dict(v=1, id="%s-%d" % (agent, n), op="append", key="all", value=1000 * int(agent[-1]) + n)
        file.write(json.dumps(update, separators=(",", ":")) + "\n")
    os.link(temp, "%s/%d.json" % (queue, n))
    os.unlink(temp)
"#;

#[test]
fn eight_agents_lose_none_of_five_hundred_updates_each_to_one_key() {
    let mut crew = Crew::new();
    let writers: Vec<String> = (1..=8).map(|n| format!("writer-{n}")).collect();
    for writer in &writers {
        crew.agent(&format!("{writer}.py"), WRITER);
    }
    crew.start();
    crew.eventually("all updates are applied", || {
        crew.value("all").and_then(|all| Some(all.as_array()?.len())).unwrap_or(0) >= 4000
    });
    let all = crew.value("all").expect("a value");
    let all = all.as_array().expect("a list");
    assert_eq!(all.len(), 4000, "none twice");
    let all: Vec<u64> = all.iter().filter_map(serde_json::Value::as_u64).collect();
    for writer in 1..=8 {
        let own: Vec<u64> = all.iter().copied().filter(|value| value / 1000 == writer).collect();
        let queued: Vec<u64> = (1..=500).map(|n| 1000 * writer + n).collect();
        assert_eq!(own, queued, "those of writer {writer}, in order");
    }
    crew.ends_well();
}

#[test]
fn commands_remember_and_recall() {
    let mut crew = Crew::new();
    crew.start();
    crew.ok(&["remember", "--wait", "set", "a/b", r#"{"x":1}"#]);
    crew.ok(&["remember", "--wait", "merge", "a/b", r#"{"x":null,"y":2}"#]);
    assert_eq!(crew.ok(&["recall", "a/b"]), r#"{"y":2}"#);
    crew.ok(&["remember", "set", "list", "1"]);
    let refused = crew.nightcrew(&["remember", "--wait", "append", "list", "2"]);
    assert!(!refused.status.success(), "a number takes no elements");
    crew.ok(&["remember", "--wait", "delete", "a/b"]);
    assert_eq!(crew.nightcrew(&["recall", "a/b"]).status.code(), Some(66));
    assert_eq!(crew.value("list"), Some(json!(1)));
    crew.ends_well();
}

#[test]
fn a_shell_with_coreutils_alone_speaks_the_protocol() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sh/protocol.sh");
    let mut crew = Crew::new();
    crew.agent("probe.sh", &fs::read_to_string(script).expect("the script"));
    crew.start();
    let result = crew.scratch("probe", "result");
    crew.eventually("the probe comes to its end", || result.exists());
    let told = text_of(&result);
    assert!(told.ends_with("\npass\n"), "{told}\n{}", crew.told());
    crew.ends_well();
}
