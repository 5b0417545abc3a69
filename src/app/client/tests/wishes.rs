//! What a submitter asks for beside kind and payload.

use super::*;
use crate::app::client::submit::When;

fn wishing(change: impl FnOnce(&mut Wishes)) -> Order {
    let mut order = order("write", "1", &key_of("wishing"));
    change(&mut order.wishes);
    order
}

#[test]
fn what_is_asked_for_stands_in_the_record() {
    let crew = Crew::new();
    let first = accepted(crew.operator().submit(order("write", "1", &key_of("a")), None, NOW));
    let asked = wishing(|wishes| {
        wishes.needs = vec![first.clone()];
        wishes.priority = -3;
        wishes.group = Some(name("nightly"));
        wishes.expires = Some(Wall(NOW.0 + 10));
        wishes.not_before = Some(Wall(NOW.0 + 9));
    });
    let wishes = asked.wishes.clone();
    let id = accepted(crew.operator().submit(asked, None, NOW));
    assert_eq!(crew.read::<TaskRecord>(&crew.layout.new_task(&id)).wishes, wishes);
}

#[test]
fn a_need_is_a_task_that_somebody_knows_wherever_it_stands() {
    let crew = Crew::new();
    let need = |id: &TaskId| {
        let id = id.clone();
        let told = crew.operator().submit(wishing(|wishes| wishes.needs = vec![id]), None, NOW);
        if let Ok(Submitted::Accepted(id)) = &told {
            crew.store.unlink(&crew.layout.new_task(id)).unwrap();
        }
        told
    };
    let id = accepted(crew.operator().submit(order("write", "1", &key_of("a")), None, NOW));
    accepted(need(&id));
    crew.admit(&id, 3);
    accepted(need(&id));
    let record: TaskRecord = crew.read(&crew.layout.task(&id));
    crew.store.unlink(&crew.layout.task(&id)).unwrap();
    assert!(matches!(need(&id), Err(ClientError::UnknownNeed(unknown)) if unknown == id));
    for shelf in Shelf::ALL {
        crew.write(&crew.layout.ended(shelf, &id), &encode(&record));
        accepted(need(&id));
        crew.store.unlink(&crew.layout.ended(shelf, &id)).unwrap();
    }
}

#[test]
fn what_could_never_be_done_is_refused() {
    let crew = Crew::new();
    let refused = |change: fn(&mut Wishes)| {
        let error = crew.operator().submit(wishing(change), None, NOW).unwrap_err();
        assert!(matches!(error, ClientError::Refused(_)), "{error}");
        error.to_string()
    };
    assert!(refused(|wishes| wishes.expires = Some(NOW)).contains("past"));
    let never = refused(|wishes| {
        (wishes.expires, wishes.not_before) = (Some(Wall(NOW.0 + 5)), Some(Wall(NOW.0 + 5)));
    });
    assert!(never.contains("later time"), "{never}");
    assert!(
        refused(|wishes| wishes.needs = (0..257).map(|n| name(&format!("t{n}"))).collect())
            .contains("256 are allowed")
    );
    let itself = refused(|wishes| {
        wishes.needs = vec![crate::protocol::task::id_from_key(&name("write"), "wishing")];
    });
    assert!(itself.contains("itself"), "{itself}");
    assert!(crew.store.list(&crew.layout.new_tasks(), 10).unwrap().is_empty());
}

#[test]
fn a_time_is_named_as_such_or_by_how_far_off_it_is() {
    let at = |text: &str| text.parse::<When>().map(|when| when.wall(Wall(1000)));
    assert_eq!(at("2026-11-20T03:00:00Z"), Ok(NOW));
    assert_eq!(at("10m"), Ok(Wall(601_000)));
    let error = at("tomorrow").unwrap_err();
    assert!(error.contains("2026-11-20T03:00:00Z") && error.contains("10m"), "{error}");
}

#[test]
fn a_task_that_is_done_keeps_others_of_its_id_out_as_long_as_it_says() {
    let crew = Crew::new();
    let id = accepted(crew.operator().submit(order("write", "1", &key_of("a")), None, NOW));
    let mut record: TaskRecord = crew.read(&crew.layout.new_task(&id));
    crew.store.unlink(&crew.layout.new_task(&id)).unwrap();
    record.unique_until = Some(Wall(NOW.0 + 1));
    crew.write(&crew.layout.ended(Shelf::Done, &id), &encode(&record));
    let again = || crew.operator();
    let told = again().submit(order("write", "1", &key_of("a")), None, NOW);
    assert_eq!(standing_of_duplicate(told), Standing::Done);
    accepted(again().submit(order("write", "1", &key_of("a")), None, Wall(NOW.0 + 1)));
}
