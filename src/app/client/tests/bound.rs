//! Submitting within a task.

use super::*;

/// A run that has claimed a task, with its claim.
fn at_work(crew: &Crew, key: &str, token: u64, run: &str) -> (Client<Disk>, Held) {
    crew.ready_task(key, token);
    let mut client = crew.run("writer", run);
    claim(&mut client).unwrap();
    let held = client.within(None).unwrap().unwrap();
    (client, held)
}

#[test]
fn a_follow_up_lies_with_its_task_and_nowhere_else() {
    let crew = Crew::new();
    let (mut client, held) = at_work(&crew, "a", 5, "R1");
    let id = accepted(client.submit(order("next", "1", &key_of("n")), Some(&held), NOW));
    let place = crew.layout.bound(&name("writer"), &held.bound(&id));
    assert_eq!(crew.read::<TaskRecord>(&place).by, "writer");
    assert!(!crew.has(&crew.layout.new_task(&id)));
    let again = client.submit(order("next", "1", &key_of("n")), Some(&held), NOW);
    assert_eq!(standing_of_duplicate(again), Standing::Bound);
    let listing = client.tasks(&Standing::ALL).unwrap();
    let bound: Vec<_> = listing.tasks.iter().filter(|found| found.standing == Standing::Bound).collect();
    assert_eq!(bound.len(), 1);
    assert_eq!(bound[0].line().within, Some(held.task.clone()));
    assert_eq!(client.bound_to(&held.task).unwrap().len(), 1);
    assert_eq!(client.task(&id).unwrap().within, Some(held.task));
    assert!(client.find(&id).unwrap().is_none(), "it is no task yet");
}

#[test]
fn a_follow_up_that_is_known_elsewhere_is_a_duplicate_and_one_may_need_another() {
    let crew = Crew::new();
    let (mut client, held) = at_work(&crew, "a", 5, "R1");
    let known = accepted(crew.operator().submit(order("next", "1", &key_of("n")), None, NOW));
    let same = client.submit(order("next", "1", &key_of("n")), Some(&held), NOW);
    assert_eq!(standing_of_duplicate(same), Standing::New);
    let first = accepted(client.submit(order("next", "2", &Sameness::Payload), Some(&held), NOW));
    let mut second = order("next", "3", &Sameness::Payload);
    second.wishes.needs = vec![first.clone(), known, held.task.clone()];
    accepted(client.submit(second, Some(&held), NOW));
    let mut stranger = order("next", "4", &Sameness::Payload);
    stranger.wishes.needs = vec![first];
    let told = crew.operator().submit(stranger, None, NOW);
    assert!(matches!(told, Err(ClientError::UnknownNeed(_))), "nobody else can know of it");
}

#[test]
fn nothing_is_submitted_within_a_task_that_was_handed_in_or_taken_away() {
    let crew = Crew::new();
    let (mut client, held) = at_work(&crew, "a", 5, "R1");
    client.finish(&held, Verdict::Done, None, None).unwrap();
    let told = client.submit(order("next", "1", &key_of("n")), Some(&held), NOW);
    assert!(matches!(told, Err(ClientError::Over { .. })));
    let (mut client, held) = at_work(&crew, "b", 6, "R2");
    crew.change_token(&held.task, 7);
    let told = client.submit(order("next", "1", &key_of("n")), Some(&held), NOW);
    assert!(matches!(told, Err(ClientError::Over { .. })));
}

#[test]
fn the_task_meant_is_the_processs_own_else_the_only_one_that_its_run_holds() {
    let crew = Crew::new();
    let (mut client, held) = at_work(&crew, "a", 5, "R1");
    let own = Held { task: name("own"), token: 4, nonce: "n".into(), agent: name("writer") };
    assert_eq!(client.within(Some(own.clone())).unwrap(), Some(own.clone()));
    let of_a_trial = Held { token: 0, ..own };
    assert_eq!(client.within(Some(of_a_trial)).unwrap(), None);
    assert_eq!(client.within(None).unwrap(), Some(held));
    assert_eq!(crew.run("writer", "R2").within(None).unwrap(), None);
    assert_eq!(crew.operator().within(None).unwrap(), None);
    crew.ready_task("b", 6);
    claim(&mut client).unwrap();
    assert!(matches!(client.within(None), Err(ClientError::SeveralClaims(_))));
}
