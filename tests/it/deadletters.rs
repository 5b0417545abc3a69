//! Dead letters, from a terminal; and tasks that are cancelled.

use nightcrew::protocol::layout::Shelf;
use serde_json::Value;

use crate::crew::{Crew, is_alive, name, text_of};
use crate::survives::ended;

/// Prints what it is given, and fails for good unless that holds "good".
const PICKY: &str = "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\n\
                     cat >seen; cat seen; echo; grep -q good seen && cp seen \"$NIGHTCREW_OUTPUT\" || exit 65\n";

fn dead(crew: &Crew, id: &str) -> bool {
    ended(crew, Shelf::Dead, &name(id)).is_some()
}

#[test]
fn dead_letters_are_listed_shown_replayed_edited_and_dropped() {
    let mut crew = Crew::new();
    crew.agent("picky.sh", PICKY);
    crew.start();
    for id in ["one", "two", "three"] {
        crew.ok(&[
            "submit",
            "work",
            &format!("{{\"is\":\"bad\",\"n\":\"{id}\"}}"),
            "--id",
            id,
            "--group",
            id,
        ]);
        crew.eventually("it is dead", || dead(&crew, id));
    }
    let count = |args: &[&str]| crew.ok(&[&["dead", "list", "--json"], args].concat()).lines().count();
    assert_eq!((count(&[]), count(&["--kind", "work"]), count(&["--where", "error~exit 65"])), (3, 3, 3));
    assert_eq!((count(&["--where", "group=two"]), count(&["--agent", "nobody"])), (1, 0));

    let shown = crew.ok(&["dead", "show", "two"]);
    assert!(shown.contains("| {\"is\":\"bad\",\"n\":\"two\"}"), "what it printed: {shown}");
    assert!(shown.contains("picky started on task two") && shown.contains("now dead"), "{shown}");
    let shown: Value = serde_json::from_str(&crew.ok(&["dead", "show", "two", "--json"])).expect("JSON");
    assert_eq!((&shown["state"], &shown["record"]["failures"]), (&"dead".into(), &1.into()));
    assert_eq!(shown["history"][0]["entry"]["event"], "submitted");

    crew.ok(&["dead", "replay", "--where", "group=one"]);
    crew.eventually("it is dead once more", || {
        ended(&crew, Shelf::Dead, &name("one")).is_some_and(|record| record.replays == 1)
    });
    let edits = crew
        .nightcrew_under(&["env", "EDITOR=sed -i s/bad/good/"], &["dead", "replay", "--edit", "one", "two"]);
    assert!(edits.status.success(), "{edits:?}");
    crew.eventually("both are done", || crew.is_done(&name("one")) && crew.is_done(&name("two")));
    assert_eq!(text_of(&crew.layout.result(&name("two"))), "{\"is\":\"good\",\"n\":\"two\"}");
    assert_eq!(ended(&crew, Shelf::Done, &name("one")).map(|record| record.attempts.len()), Some(2));

    assert_eq!(crew.nightcrew(&["dead", "drop", "--all"]).status.code(), Some(2), "without --yes");
    assert!(dead(&crew, "three"));
    assert_eq!(crew.ok(&["dead", "drop", "--all", "--yes"]), "removed three");
    assert!(!dead(&crew, "three"));
    assert_eq!(crew.ok(&["dead", "list"]), "no dead letters");
    assert_eq!(crew.nightcrew(&["dead", "replay", "three"]).status.code(), Some(66));
    crew.ends_well();
}

#[test]
fn what_an_editor_makes_no_json_of_is_refused_and_kept() {
    let mut crew = Crew::new();
    crew.agent("picky.sh", PICKY);
    crew.start();
    let task = crew.submit("work", "\"bad\"");
    crew.eventually("it is dead", || dead(&crew, task.as_str()));
    let edit = |editor: &str| {
        let editor = format!("EDITOR={editor}");
        let output = crew.nightcrew_under(&["env", &editor], &["dead", "replay", "--edit", task.as_str()]);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, error) = edit("sed -i s/bad/good\\\",/");
    assert_eq!(code, Some(65), "{error}");
    let kept = error.split("your text is in ").nth(1).expect("where it is").trim();
    assert_eq!(text_of(kept.as_ref()), "\"good\",\"\n");
    assert_eq!(edit("false").0, Some(1));
    assert_eq!(ended(&crew, Shelf::Dead, &task).map(|record| record.replays), Some(0), "it is as it was");
    crew.ends_well();
}

#[test]
fn what_is_cancelled_is_a_dead_letter_and_nobody_works_on_it() {
    let mut crew = Crew::new();
    assert_eq!(crew.nightcrew(&["cancel", "a"]).status.code(), Some(69));
    let slow = "#!/bin/sh\n# /// agent\n# handles = [\"slow\"]\n# ///\necho $$ >at-work\nexec sleep 1000\n";
    crew.agent("slow.sh", slow);
    crew.start();
    let task = crew.submit("slow", "1");
    crew.eventually("it is at work", || text_of(&crew.path("at-work")).ends_with('\n'));
    let pid: i32 = text_of(&crew.path("at-work")).trim().parse().expect("a pid");
    for n in ["1", "2"] {
        crew.ok(&["submit", "nobodys", n, "--group", "g"]);
    }
    crew.eventually("they are ready", || {
        crew.ok(&["tasks", "--group", "g", "--state", "ready", "--json"]).lines().count() == 2
    });
    crew.ok(&["cancel", task.as_str(), "--why", "it is in the way"]);
    crew.eventually("it is dead", || dead(&crew, task.as_str()));
    assert!(!is_alive(pid));
    let reason = ended(&crew, Shelf::Dead, &task).and_then(|record| record.reason).unwrap_or_default();
    assert!(reason.contains("it is in the way"), "{reason}");
    crew.ok(&["cancel", "--group", "g"]);
    crew.eventually("all of the group are dead", || {
        crew.ok(&["dead", "list", "--group", "g", "--json"]).lines().count() == 2
    });
    let unknown = crew.nightcrew(&["cancel", "unknown"]);
    assert_eq!(unknown.status.code(), Some(1));
    crew.ends_well();
}

#[test]
fn what_is_replayed_together_waits_for_what_it_needs_and_expires_no_more() {
    let mut crew = Crew::new();
    crew.agent(
        "picky.sh",
        "#!/bin/sh\n# /// agent\n# handles = [\"work\"]\n# ///\n[ -e mended ] || exit 65\n",
    );
    crew.start();
    crew.ok(&["submit", "work", "\"bad\"", "--id", "z-first"]);
    crew.eventually("it is dead", || dead(&crew, "z-first"));
    crew.ok(&["submit", "work", "\"good\"", "--id", "a-second", "--needs", "z-first"]);
    // A script may submit what is past already.
    let late = r#"{"v":1,"id":"late","nonce":"n","kind":"work","at":"2026-01-01T00:00:00Z","expires":"2026-01-02T00:00:00Z","payload":1}"#;
    crew.put(&crew.layout.new_task(&name("late")), late, 0o600);
    crew.eventually("they are dead too", || dead(&crew, "a-second") && dead(&crew, "late"));
    std::fs::write(crew.path("mended"), "").expect("it is mended");
    let told = crew.ok(&["dead", "replay", "--all"]);
    assert!(told.contains("late is done again; it expired at "), "{told}");
    for id in ["z-first", "a-second", "late"] {
        crew.eventually("it is done", || crew.is_done(&name(id)));
    }
    crew.ends_well();
}

#[test]
fn whoever_cancels_is_told_what_came_of_it_though_the_worker_takes_its_grace() {
    let mut crew = Crew::new();
    let deaf = "#!/bin/sh\n# /// agent\n# handles = [\"slow\"]\n# stop_grace = \"6s\"\n# ///\ntrap '' TERM\n\
                echo $$ >at-work\nwhile :; do sleep 1; done\n";
    crew.agent("deaf.sh", deaf);
    crew.start();
    let task = crew.submit("slow", "1");
    crew.eventually("it is at work", || text_of(&crew.path("at-work")).ends_with('\n'));
    let told = crew.ok(&["cancel", task.as_str()]);
    assert!(told.contains("1 tasks are cancelled"), "{told}");
    assert!(dead(&crew, task.as_str()));
    crew.ends_well();
}
