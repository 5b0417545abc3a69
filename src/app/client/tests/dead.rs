//! Dead letters, and results in review.

use super::*;
use crate::app::client::dead::Condition;
use crate::protocol::task::Attempt;

/// A dead letter, as a supervisor leaves it.
fn dead_letter(crew: &Crew, key: &str, agent: &str, error: &str) -> TaskId {
    let id = crew.ready_task(key, 5);
    let mut record: TaskRecord = crew.read(&crew.layout.task(&id));
    record.state = Phase::Dead;
    record.wishes.group = Some(name(key));
    record.attempts = vec![Attempt {
        agent: name(agent),
        run: None,
        token: 5,
        began: None,
        at: NOW,
        error: error.into(),
        output: String::new(),
        peak_memory: None,
    }];
    crew.write(&crew.layout.ended(Shelf::Dead, &id), &encode(&record));
    crew.store.unlink(&crew.layout.task(&id)).unwrap();
    id
}

#[test]
fn dead_letters_are_found_by_what_they_have_in_common() {
    let crew = Crew::new();
    let one = dead_letter(&crew, "a", "editor", "exit 1");
    let two = dead_letter(&crew, "b", "writer", "its output was refused");
    let found = |conditions: &[&str]| {
        let conditions: Vec<Condition> = conditions.iter().map(|text| text.parse().unwrap()).collect();
        let listing = crew.operator().dead(&conditions).unwrap();
        listing.tasks.into_iter().map(|found| found.record.id).collect::<Vec<_>>()
    };
    let mut both = vec![one.clone(), two.clone()];
    both.sort();
    assert_eq!(found(&[]), both);
    assert_eq!(found(&["kind=write"]), both);
    assert_eq!(found(&["agent=editor"]), std::slice::from_ref(&one));
    assert_eq!(found(&["error~output was"]), std::slice::from_ref(&two));
    assert_eq!(found(&["group=a", "kind=write"]), [one]);
    assert!(found(&["group=a", "agent=writer"]).is_empty());
    for bad in ["kind", "kind~x", "error=x", "error~", "colour=red", "kind=a/b"] {
        assert!(bad.parse::<Condition>().is_err(), "{bad}");
    }
}

#[test]
fn a_replay_moves_the_record_as_it_is_and_an_edit_changes_the_payload_alone() {
    let crew = Crew::new();
    let id = dead_letter(&crew, "a", "editor", "exit 1");
    let before: TaskRecord = crew.read(&crew.layout.ended(Shelf::Dead, &id));
    crew.operator().replay(&id, None, NOW).unwrap();
    assert!(!crew.has(&crew.layout.ended(Shelf::Dead, &id)));
    let after: TaskRecord = crew.read(&crew.layout.new_task(&id));
    assert_eq!(encode(&after), encode(&before));
    assert!(matches!(crew.operator().replay(&id, None, NOW), Err(ClientError::NoSuchTask { .. })));

    let id = dead_letter(&crew, "b", "editor", "exit 1");
    crew.operator().replay(&id, Some(payload("{\"better\":true}")), NOW).unwrap();
    let after: TaskRecord = crew.read(&crew.layout.new_task(&id));
    assert_eq!(after.payload.get(), "{\"better\":true}");
    assert_eq!((after.id, after.token, after.attempts.len()), (id, 5, 1));
}

#[test]
fn a_replay_is_never_in_the_way_of_what_was_submitted_anew() {
    let crew = Crew::new();
    let id = dead_letter(&crew, "a", "editor", "exit 1");
    accepted(crew.operator().submit(order("write", "2", &key_of("a")), None, NOW));
    let anew: TaskRecord = crew.read(&crew.layout.new_task(&id));
    let told = crew.operator().replay(&id, Some(payload("3")), NOW);
    assert!(matches!(told, Err(ClientError::InTheWay { .. })));
    assert_eq!(crew.read::<TaskRecord>(&crew.layout.new_task(&id)).nonce, anew.nonce);
    crew.admit(&id, 6);
    assert!(matches!(crew.operator().replay(&id, None, NOW), Err(ClientError::InTheWay { .. })));
    assert_eq!(crew.read::<TaskRecord>(&crew.layout.ended(Shelf::Dead, &id)).payload.get(), "1");
}

#[test]
fn a_dead_letter_is_dropped_with_its_result() {
    let crew = Crew::new();
    let id = dead_letter(&crew, "a", "editor", "exit 1");
    crew.write(&crew.layout.result_on(Shelf::Dead, &id), b"rejected");
    let steps = crew.layout.steps_of(Some(&id));
    crew.write(&steps.join("paid.step"), b"x");
    let dropped = |id: &TaskId| crew.operator().drop_dead(id, &crew.operator().needed().unwrap());
    assert!(dropped(&id).unwrap());
    assert!(!crew.has(&steps), "another task of this id pays for its own");
    assert!(crew.store.list(&crew.layout.shelf(Shelf::Dead), 10).unwrap().is_empty());
    assert!(matches!(dropped(&id), Err(ClientError::NoSuchTask { .. })));
    let needed = dead_letter(&crew, "b", "editor", "x");
    let mut needy = order("write", "1", &key_of("needy"));
    needy.wishes.needs = vec![needed.clone()];
    let needy = accepted(crew.operator().submit(needy, None, NOW));
    assert!(
        matches!(dropped(&needed), Err(ClientError::InTheWay { .. })),
        "a restart would wait for it for ever"
    );
    crew.store.unlink(&crew.layout.new_task(&needy)).unwrap();
    assert!(!dropped(&needed).unwrap());
}

#[test]
fn a_result_in_review_is_read_and_replaced_while_it_is_there() {
    let crew = Crew::new();
    let id = dead_letter(&crew, "a", "editor", "x");
    let mut operator = crew.operator();
    assert!(matches!(operator.replace_result(&id, b"new"), Err(ClientError::NoSuchTask { .. })));
    let (dead, review) = (crew.layout.ended(Shelf::Dead, &id), crew.layout.ended(Shelf::Review, &id));
    crew.store.create_dir(&crew.layout.shelf(Shelf::Review)).unwrap();
    crew.store.rename(&dead, &review).unwrap();
    assert_eq!(operator.result(Shelf::Review, &id).unwrap(), None);
    operator.replace_result(&id, b"new").unwrap();
    assert_eq!(operator.result(Shelf::Review, &id).unwrap().unwrap(), b"new");
}

#[test]
fn a_replay_of_what_expired_does_not_expire_again() {
    let crew = Crew::new();
    for (key, expires, lifted) in [("past", NOW, Some(NOW)), ("ahead", Wall(NOW.0 + 1), None)] {
        let id = dead_letter(&crew, key, "editor", "exit 1");
        let path = crew.layout.ended(Shelf::Dead, &id);
        let mut record: TaskRecord = crew.read(&path);
        record.wishes.expires = Some(expires);
        crew.write(&path, &encode(&record));
        assert_eq!(crew.operator().replay(&id, None, NOW).unwrap(), lifted);
        let after: TaskRecord = crew.read(&crew.layout.new_task(&id));
        assert_eq!(after.wishes.expires, Some(expires).filter(|_| lifted.is_none()));
    }
}

#[test]
fn what_an_open_task_needs_is_not_dropped_however_far_that_has_come() {
    let crew = Crew::new();
    let needed = dead_letter(&crew, "b", "editor", "x");
    let needy = crew.ready_task("needy", 7);
    let path = crew.layout.task(&needy);
    for state in [Phase::Ready, Phase::Waiting, Phase::Blocked, Phase::Gated] {
        let mut record: TaskRecord = crew.read(&path);
        (record.state, record.wishes.needs) = (state, vec![needed.clone()]);
        crew.write(&path, &encode(&record));
        let found = crew.operator().needed().unwrap();
        assert_eq!(found.get(&needed), Some(&needy), "{state:?}");
    }
}
