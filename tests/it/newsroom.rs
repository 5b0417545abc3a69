//! The example crew does its job, and what happens to it when its language model is down, leaks or costs money.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nightcrew::protocol::layout::Shelf;
use nightcrew::protocol::ledger::Fact;
use nightcrew::protocol::name::TaskId;
use nightcrew::protocol::task::TaskRecord;

use crate::crew::{Crew, text_of};

const DOCUMENTS: [&str; 3] = ["README.md", "LICENSE-APACHE", "LICENSE-MIT"];
const PAGES: [&str; 3] = ["readme", "license-apache", "license-mit"];

/// Answers, counts its calls in the crew's file `calls`, and is down while there is a file `down`.
const MODEL: &str = "#!/bin/sh\ncat >/dev/null\n[ ! -e down ] || exit 1\necho call >>calls\n\
                     echo 'What somebody paid for. It is short, and says what matters.'\n";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The example crew with these documents in its inbox, and a model.
fn newsroom(documents: &[&str]) -> Crew {
    let crew = Crew::new();
    for part in ["agents", "gates"] {
        let copied =
            Command::new("cp").arg("-R").arg(repository().join(part)).arg(crew.layout.crew()).status();
        assert!(copied.expect("cp").success(), "{part} is copied");
    }
    fs::create_dir(crew.path("inbox")).expect("a directory");
    for document in documents {
        fs::copy(repository().join(document), crew.path("inbox").join(document)).expect("copied");
    }
    crew.put(&crew.path("model"), MODEL, 0o755);
    // Nobody waits for a retry here that is to fail as well.
    crew.put(&crew.path("nightcrew.toml"), "[defaults]\nbackoff = \"50ms\"\n", 0o644);
    crew
}

/// Runs the crew until nothing is left to do.
fn run(crew: &mut Crew, model: &str) {
    crew.spawn_supervisor(&["--until-idle"], &[("NEWSROOM_LLM", model)]);
    let status: ExitStatus = crew.supervisors_end();
    assert!(status.success(), "{status}\n{}", crew.told());
    crew.leaves_nothing();
}

fn page(crew: &Crew, name: &str) -> String {
    text_of(&crew.path(&format!("site/{name}.html")))
}

/// The tasks of a kind on a shelf.
fn ended(crew: &Crew, shelf: Shelf, kind: &str) -> Vec<(TaskId, TaskRecord)> {
    let ids = fs::read_dir(crew.layout.shelf(shelf)).expect("a directory").filter_map(|entry| {
        let path = entry.expect("an entry").path();
        path.file_name()?.to_str()?.strip_suffix(".json")?.parse::<TaskId>().ok()
    });
    let records = ids.map(|id| {
        let record = fs::read(crew.layout.ended(shelf, &id)).expect("a record");
        (id, serde_json::from_slice::<TaskRecord>(&record).expect("JSON"))
    });
    records.filter(|(_, record)| record.kind.as_str() == kind).collect()
}

#[test]
fn the_newsroom_makes_pages_of_what_is_dropped_in_and_ends_when_idle() {
    let mut crew = newsroom(&DOCUMENTS);
    run(&mut crew, "");
    for name in PAGES {
        let page = page(&crew, name);
        assert!(page.contains(", in its own sentences</footer>"), "{name}: {page}\n{}", crew.told());
    }
    assert!(text_of(&crew.path("site/index.html")).contains("3 pages"));
    for kind in ["edit", "facts", "publish"] {
        assert_eq!(ended(&crew, Shelf::Done, kind).len(), 3, "{kind}");
    }
    assert!(ended(&crew, Shelf::Done, "publish").iter().all(|(_, record)| record.wishes.needs.len() == 2));
}

#[test]
fn what_the_model_answers_is_paid_for_once_also_when_all_is_replayed() {
    let mut crew = newsroom(&DOCUMENTS[..1]);
    run(&mut crew, "./model");
    let before = page(&crew, "readme");
    assert!(before.contains("What somebody paid for."), "{}", crew.told());
    assert_eq!(text_of(&crew.path("calls")).lines().count(), 1);
    for kind in ["edit", "facts", "publish"] {
        for (id, _) in ended(&crew, Shelf::Done, kind) {
            fs::rename(crew.layout.ended(Shelf::Done, &id), crew.layout.new_task(&id)).expect("moved");
        }
    }
    fs::remove_dir_all(crew.path("site")).expect("removed");
    run(&mut crew, "./model");
    assert_eq!(page(&crew, "readme"), before, "publishing again makes the same page");
    assert_eq!(text_of(&crew.path("calls")).lines().count(), 1);
}

#[test]
fn an_answer_that_leaks_waits_for_a_person_and_the_page_for_it() {
    let mut crew = newsroom(&DOCUMENTS[..1]);
    crew.put(&crew.path("leaky"), "#!/bin/sh\necho 'As an AI language model, I cannot read.'\n", 0o755);
    run(&mut crew, "./leaky");
    let review = ended(&crew, Shelf::Review, "edit");
    let reasons: Vec<_> = review.iter().filter_map(|(_, record)| record.reason.as_deref()).collect();
    assert_eq!(reasons, ["no-prompt-leak: it says 'as an ai language model'"], "{}", crew.told());
    assert!(text_of(&crew.layout.result_on(Shelf::Review, &review[0].0)).contains("As an AI"));
    assert!(!crew.path("site/readme.html").exists());
    assert!(
        ended(&crew, Shelf::Dead, "publish").is_empty() && ended(&crew, Shelf::Done, "publish").is_empty()
    );
}

#[test]
fn while_the_model_is_down_there_are_plain_pages_rather_than_none() {
    let mut crew = newsroom(&DOCUMENTS[..2]);
    // One text alone must not use up its tries before the other is there: that would be the text's fault.
    crew.put(&crew.path("nightcrew.toml"), "[defaults]\nbackoff = \"1s\"\n", 0o644);
    let stopped = crew.path("state/stopped/editor");
    fs::create_dir_all(crew.path("state/stopped")).expect("a directory");
    fs::write(&stopped, "until both texts are there").expect("written");
    crew.spawn_supervisor(&[], &[("NEWSROOM_LLM", "false")]);
    let submitted = |fact: &Fact| matches!(fact, Fact::Submitted { kind, .. } if kind.as_str() == "publish");
    crew.eventually("both are submitted", || crew.count(submitted) == 2);
    fs::remove_file(&stopped).expect("it was there");
    for name in &PAGES[..2] {
        let plain = || page(&crew, name).contains("because the editor was not available");
        crew.eventually("there is a plain page", plain);
    }
    let log = text_of(&crew.layout.log(&"excerpt".parse().expect("a name")));
    assert_eq!(log.matches("(mode fallback)").count(), 2, "{log}");
    crew.ends_well();
}

#[test]
fn a_text_that_alone_fails_is_a_dead_letter_and_replayed_by_moving_it() {
    dead_and_replayed(|crew, edit, publish| {
        for id in [edit, publish] {
            fs::rename(crew.layout.ended(Shelf::Dead, id), crew.layout.new_task(id)).expect("moved");
        }
    });
}

#[test]
fn a_text_that_alone_fails_is_a_dead_letter_and_replayed_by_a_command() {
    dead_and_replayed(|crew, edit, publish| {
        crew.ok(&["dead", "replay", edit.as_str(), publish.as_str()]);
    });
}

fn dead_and_replayed(replay: impl Fn(&Crew, &TaskId, &TaskId)) {
    let mut crew = newsroom(&DOCUMENTS[..1]);
    fs::write(crew.path("down"), "").expect("written");
    run(&mut crew, "./model");
    let (edit, publish) = (ended(&crew, Shelf::Dead, "edit"), ended(&crew, Shelf::Dead, "publish"));
    assert_eq!((edit.len(), publish.len()), (1, 1), "{}", crew.told());
    assert_eq!(edit[0].1.attempts.len(), 4);
    assert!(
        edit[0].1.attempts[0].output.contains("$NEWSROOM_LLM gave no answer"),
        "{:?}",
        edit[0].1.attempts
    );
    assert_eq!(
        publish[0].1.reason.as_deref(),
        Some(&*format!("task {}, which it needs, is a dead letter", edit[0].0))
    );
    fs::remove_file(crew.path("down")).expect("removed");
    replay(&crew, &edit[0].0, &publish[0].0);
    run(&mut crew, "./model");
    assert!(page(&crew, "readme").contains("What somebody paid for."), "{}", crew.told());
    assert_eq!(text_of(&crew.path("calls")).lines().count(), 1);
}

#[test]
fn a_text_that_is_empty_or_gone_is_no_failure() {
    let mut crew = newsroom(&[]);
    crew.agent("intake.sh", "#!/bin/sh\n# /// agent\n# enabled = false\n# ///\n");
    let text = r#"{"file":"inbox/gone","title":"gone"}"#;
    let record = |id: &str, kind: &str, more: &str, payload: &str| {
        let at = "2026-11-20T03:00:00Z";
        let record = format!(
            r#"{{"v":1,"id":"{id}","nonce":"n","kind":"{kind}","at":"{at}",{more}"payload":{payload}}}"#
        );
        let id: TaskId = id.parse().expect("a name");
        fs::create_dir_all(crew.path("state/tasks/new")).expect("a directory");
        crew.put(&crew.layout.new_task(&id), &record, 0o600);
    };
    record("e", "edit", "", text);
    record("f", "facts", "", text);
    record("p", "publish", r#""needs":["e","f"],"#, r#"{"summary":"e","facts":"f"}"#);
    run(&mut crew, "");
    for kind in ["edit", "facts", "publish"] {
        assert_eq!(ended(&crew, Shelf::Done, kind).len(), 1, "{kind}\n{}", crew.told());
    }
}

#[test]
fn a_page_is_not_joined_of_two_versions_of_a_text() {
    let crew = newsroom(&[]);
    let publish = |content: &str| {
        let edit = r#"{"file":"inbox/a","content":"1","summary":["s"],"method":"luhn"}"#;
        let facts = format!(
            r#"{{"file":"inbox/a","content":"{content}","title":"A","keywords":[],"words":1,"minutes":1,"changed":""}}"#
        );
        fs::write(crew.path("edit"), edit).expect("written");
        fs::write(crew.path("facts"), facts).expect("written");
        let need = |file: &str| format!(r#"{{"state":"done","output":"{}"}}"#, crew.path(file).display());
        let needs = format!(r#"{{"e":{},"f":{}}}"#, need("edit"), need("facts"));
        fs::write(crew.path("needs"), needs).expect("written");
        fs::write(crew.path("payload"), r#"{"summary":"e","facts":"f"}"#).expect("written");
        let script = "exec python3 agents/publisher.py <payload";
        let mut command = crew.awaiting(script);
        command.env("NIGHTCREW_NEEDS", crew.path("needs")).env("NIGHTCREW_OUTPUT", crew.path("output"));
        command.output().expect("it runs").status.code()
    };
    assert_eq!(publish("2"), Some(66));
    assert!(!crew.path("site/a.html").exists());
    assert_eq!(publish("1"), Some(0));
    assert!(crew.path("site/a.html").exists());
}

#[test]
fn a_text_that_is_dropped_in_later_is_published_and_told_of_by_the_digest() {
    let mut crew = newsroom(&DOCUMENTS[1..2]);
    crew.start();
    crew.eventually("there is a page", || !page(&crew, "license-apache").is_empty());
    // Left alone: a name like this is an editor's, and one that begins with a dot a hidden file's.
    for name in ["b.txt~", ".b.txt"] {
        fs::write(crew.path("inbox").join(name), "No text to publish.\n").expect("written");
    }
    fs::write(crew.path("inbox/b \"2\".txt"), "Good morning. This is a text.\n").expect("written");
    crew.eventually("there is another", || !page(&crew, "b-2").is_empty());
    crew.ok(&["start", "digest", "--now"]);
    let digest = || {
        let digests = fs::read_dir(crew.path("site/digests")).ok()?.next()?;
        Some(text_of(&digests.expect("an entry").path())).filter(|text| !text.is_empty())
    };
    crew.eventually("there is a digest", || digest().is_some());
    let digest = digest().expect("it is there");
    for link in ["(../license-apache.html)", "(../b-2.html)"] {
        assert!(digest.contains(link), "{digest}");
    }
    assert_eq!(ended(&crew, Shelf::Done, "publish").len(), 2);
    let next = crew.ok(&["next", "digest", "-n", "1"]);
    assert!(next.contains(" 07:00:00 "), "{next}");
    crew.ends_well();
}
