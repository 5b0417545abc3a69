//! What an agent is given to live in.

use std::collections::BTreeMap;
use std::path::Path;

use crate::crew::{Crew, text_of};

const TELLER: &str = r#"#!/bin/sh
# /// agent
# pass_env = ["WANTED"]
# restart = "never"
# [env]
# OWN = "mine"
# ///
pwd >"$NIGHTCREW_SCRATCH/pwd"
env >"$NIGHTCREW_TMP/env"
mv "$NIGHTCREW_TMP/env" "$NIGHTCREW_SCRATCH/env"
"#;

fn variables(path: &Path) -> BTreeMap<String, String> {
    let text = text_of(path);
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

#[test]
fn an_agents_environment_is_made_from_nothing() {
    let mut crew = Crew::new();
    crew.agent("teller.sh", TELLER);
    crew.put(&crew.path(".env"), "FROM_FILE='a value'\n", 0o600);
    let given = [("SECRET", "s"), ("WANTED", "w"), ("LC_ALL", "C"), ("NIGHTCREW_MODE", "x")];
    crew.spawn_supervisor(&[], &given);
    let told = crew.scratch("teller", "env");
    crew.eventually("it tells", || told.exists());
    let env = variables(&told);
    let dir = crew.layout.crew().display().to_string();
    let state = format!("{dir}/state");
    for (name, value) in [
        ("WANTED", "w".to_owned()),
        ("LC_ALL", "C".to_owned()),
        ("OWN", "mine".to_owned()),
        ("FROM_FILE", "a value".to_owned()),
        ("PYTHONUNBUFFERED", "1".to_owned()),
        ("NIGHTCREW_DIR", dir.clone()),
        ("NIGHTCREW_AGENT", "teller".to_owned()),
        ("NIGHTCREW_HEARTBEAT", format!("{state}/status/teller.heartbeat")),
        ("NIGHTCREW_SCRATCH", format!("{state}/scratch/teller")),
        ("NIGHTCREW_TMP", format!("{state}/tmp/teller")),
        ("NIGHTCREW_QUEUE", format!("{state}/memory/queue/teller")),
        ("NIGHTCREW_MEMORY", format!("{state}/memory/store")),
        ("NIGHTCREW_MODE", "normal".to_owned()),
    ] {
        assert_eq!(env.get(name), Some(&value), "{name} in {env:?}");
    }
    assert!(env.contains_key("NIGHTCREW_RUN") && env.contains_key("NIGHTCREW_USAGE"), "{env:?}");
    for name in ["SECRET", "RUST_LOG", "NIGHTCREW_TASK", "CARGO_MANIFEST_DIR"] {
        assert!(!env.contains_key(name), "{name} is nobody's business");
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_nightcrew")).parent().expect("a directory");
    assert!(std::env::split_paths(&env["PATH"]).any(|dir| dir == binary), "{}", env["PATH"]);
    assert_eq!(text_of(&crew.scratch("teller", "pwd")).trim(), dir);
    crew.ends_well();
}

#[test]
fn a_handler_is_told_of_its_task() {
    let mut crew = Crew::new();
    crew.agent(
        "worker.sh",
        "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\n\
         env >\"$NIGHTCREW_OUTPUT\"; echo \"stdin=$(cat)\" >>\"$NIGHTCREW_OUTPUT\"\n\
         echo \"file=$(cat \"$NIGHTCREW_TASK_FILE\")\" >>\"$NIGHTCREW_OUTPUT\"\n",
    );
    crew.start();
    let task = crew.submit("work", r#"{"n": 1}"#);
    crew.eventually("it is done", || crew.is_done(&task));
    let env = variables(&crew.layout.result(&task));
    assert_eq!(env["NIGHTCREW_TASK"], task.as_str());
    assert_eq!((env["stdin"].as_str(), env["file"].as_str()), (r#"{"n": 1}"#, r#"{"n": 1}"#));
    assert_eq!(env["NIGHTCREW_FAILURES"], "0");
    assert!(env["NIGHTCREW_TOKEN"].parse::<u64>().is_ok_and(|token| token > 0));
    assert!(!env["NIGHTCREW_NONCE"].is_empty());
    crew.ends_well();
}
