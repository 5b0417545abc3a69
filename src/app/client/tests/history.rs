//! What is known of one task.

use super::*;
use crate::protocol::framing::{Body, commit_lines, header_line};
use crate::protocol::ledger::{Entry, Fact};
use crate::protocol::process::Ending;

fn write_ledger(crew: &Crew, facts: Vec<Fact>) {
    let dir = crew.layout.ledger();
    crew.store.create_dir(&dir).unwrap();
    let mut bytes = header_line(1, 0, 0);
    let bodies: Vec<Body> =
        facts.into_iter().map(|fact| Body::of(&Entry { at: NOW, fact }).unwrap()).collect();
    bytes.extend(commit_lines(2, &bodies).0);
    // A commit that is being written.
    bytes.extend(b"{\"seq\":99,\"at\":\"2026-11-20T03:00:00Z\",\"event\":\"duplicate\",\"task\":\"t1\"");
    crew.write(&Layout::segment(&dir, 1), &bytes);
}

#[test]
fn the_ledger_tells_of_a_task_and_of_the_processes_started_for_it() {
    let crew = Crew::new();
    let started = |task: &str, run: &str| Fact::Started {
        agent: name("editor"),
        run: name(run),
        process: owner(),
        task: Some(name(task)),
    };
    let exited = |run: &str| Fact::Exited {
        agent: name("editor"),
        run: name(run),
        ending: Ending::Code(3),
        lived_ms: 5,
        why: String::new(),
    };
    let duplicate = |task: &str| Fact::Duplicate { task: name(task), of: "open".into() };
    write_ledger(
        &crew,
        vec![
            duplicate("t2"),
            duplicate("t1"),
            started("t1", "R1"),
            started("t2", "R2"),
            exited("R2"),
            exited("R1"),
        ],
    );
    let history = crew.operator().history(&name("t1")).unwrap();
    let told: Vec<&str> = history.events.iter().map(|event| event.text.as_str()).collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(told[0].contains("submitted again") && told[1].contains("started on task t1"), "{told:?}");
    assert!(told[2].contains("exit 3"), "{told:?}");
    assert!(!history.is_cut);
    assert!(crew.operator().history(&name("t")).unwrap().events.is_empty());
}

#[test]
fn a_task_is_shown_with_what_it_needs() {
    let crew = Crew::new();
    let need = crew.ready_task("a", 1);
    let mut needy = order("write", "1", &key_of("b"));
    needy.wishes.needs = vec![need.clone()];
    let id = accepted(crew.operator().submit(needy, None, NOW));
    let operator = crew.operator();
    let found = operator.task(&id).unwrap();
    assert_eq!(operator.needs_of(&found).unwrap(), [(need.clone(), Some(Standing::Ready))]);
    crew.store.unlink(&crew.layout.task(&need)).unwrap();
    assert_eq!(operator.needs_of(&found).unwrap(), [(need, None)]);
    assert!(matches!(operator.task(&name("none")), Err(ClientError::NoSuchTask { .. })));
    assert!(operator.history(&id).unwrap().events.is_empty(), "nothing was ever supervised here");
}
