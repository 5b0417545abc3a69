//! Results that no gate let pass, and the people who decide about them.

use nightcrew::protocol::layout::Shelf;
use nightcrew::protocol::ledger::Fact;
use serde_json::Value;

use crate::crew::{Crew, name, text_of};
use crate::survives::{ended, gate};

/// Submits a follow-up, and gives back what it was given.
const ECHO: &str = "#!/bin/sh\n# /// agent\n# handles = [\"echo\"]\n# gate = \"no-oops\"\n# ///\n\
                    nightcrew submit next \"\\\"$NIGHTCREW_TASK\\\"\"\ncat >\"$NIGHTCREW_OUTPUT\"\n";
const NEXT: &str = "#!/bin/sh\n# /// agent\n# handles = [\"next\"]\n# ///\nexit 0\n";

fn crew_with_reviews(ids: &[&str]) -> Crew {
    let mut crew = Crew::new();
    gate(&crew, "no-oops", "if grep -q oops; then echo 'it says oops'; exit 1; fi");
    crew.agent("echo.sh", ECHO).agent("next.sh", NEXT);
    crew.start();
    for id in ids {
        crew.ok(&["submit", "echo", "{\"text\":\"oops\"}", "--id", id]);
        crew.eventually("it is to be reviewed", || ended(&crew, Shelf::Review, &name(id)).is_some());
    }
    crew
}

fn nexts(crew: &Crew) -> usize {
    crew.count(|fact| matches!(fact, Fact::Submitted { kind, .. } if kind.as_str() == "next"))
}

#[test]
fn what_is_approved_is_done_as_it_lies_there_or_as_it_was_edited() {
    let mut crew = crew_with_reviews(&["one", "two"]);
    let listed = crew.ok(&["review", "list"]);
    assert!(listed.contains("it says oops") && listed.contains("no-oops"), "{listed}");
    let json = crew.ok(&["review", "list", "--json"]);
    let lines: Vec<Value> = json.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!((lines.len(), &lines[0]["agent"], &lines[0]["gate"]), (2, &"echo".into(), &"no-oops".into()));
    let shown = crew.ok(&["review", "show", "one"]);
    assert!(shown.contains("reason       it says oops") && shown.contains("{\"text\":\"oops\"}"), "{shown}");
    assert_eq!(nexts(&crew), 0, "what is bound waits for the judgement");

    crew.ok(&["review", "approve", "one"]);
    crew.eventually("it is done", || crew.is_done(&name("one")));
    assert_eq!(text_of(&crew.layout.result(&name("one"))), "{\"text\":\"oops\"}");
    let edits =
        crew.nightcrew_under(&["env", "VISUAL=sed -i s/oops/fine/"], &["review", "approve", "--edit", "two"]);
    assert!(edits.status.success(), "{edits:?}");
    crew.eventually("it is done", || crew.is_done(&name("two")));
    assert_eq!(text_of(&crew.layout.result(&name("two"))), "{\"text\":\"fine\"}");
    crew.eventually("what was bound to them counts", || nexts(&crew) == 2);
    assert_eq!(crew.ok(&["review", "list"]), "nothing is to be reviewed");
    crew.ends_well();
}

#[test]
fn what_is_rejected_is_a_dead_letter_with_its_reason_and_result() {
    let mut crew = crew_with_reviews(&["one", "two"]);
    let code = |args: &[&str]| crew.nightcrew(args).status.code();
    assert_eq!(code(&["review", "reject", "three"]), Some(66));
    assert_eq!(code(&["review", "reject", "one", "0123456789abcdef"]), Some(66), "a slip is no reason");
    assert_eq!(code(&["review", "approve", "three"]), Some(66));
    crew.ok(&["review", "reject", "one", "two", "invents", "a source"]);
    for id in ["one", "two"] {
        crew.eventually("it is dead", || ended(&crew, Shelf::Dead, &name(id)).is_some());
        let record = ended(&crew, Shelf::Dead, &name(id)).expect("it is");
        assert!(record.reason.as_deref().unwrap_or_default().ends_with("invents a source"), "{record:?}");
        assert_eq!(text_of(&crew.layout.result_on(Shelf::Dead, &name(id))), "{\"text\":\"oops\"}");
    }
    crew.eventually("what was bound is dropped", || {
        crew.ok(&["tasks", "--state", "bound", "--json"]).is_empty()
    });
    assert_eq!(nexts(&crew), 0);
    crew.ends_well();
    assert_eq!(crew.nightcrew(&["review", "approve", "one"]).status.code(), Some(69));
}
