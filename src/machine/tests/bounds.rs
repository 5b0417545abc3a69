//! However much is due at once, a step does a bounded part of it, and the next follows at once.

use super::*;
use crate::machine::event::Need;
use crate::machine::waits::DUE_AT_ONCE_MAX;

const MANY: usize = 3 * DUE_AT_ONCE_MAX + 7;

fn ids() -> Vec<TaskId> {
    (0..MANY).map(|n| name(&format!("t{n:05}"))).collect()
}

/// Many tasks that nobody handles.
fn with_many(wishes: &Wishes, needs: &[(TaskId, Need)]) -> Story {
    let mut s = Story::new();
    for id in ids() {
        let (wishes, needs) = (wishes.clone(), needs.to_vec());
        s.tell(Event::Submitted(Submission { wishes, needs, ..Story::submission(id.as_str(), "k") }));
    }
    s.stored();
    s
}

/// Steps until nothing is due any more; the records that each step changed.
fn drained(s: &mut Story) -> Vec<usize> {
    let mut counts = vec![s.changes().len()];
    while s.state.next_deadline().is_some_and(|at| at.0 <= s.at) {
        assert!(counts.len() <= 2 * MANY, "it comes to no end");
        s.tell(Event::Tick);
        counts.push(s.changes().len());
    }
    counts
}

fn assert_in_parts(counts: &[usize]) {
    assert!(counts.iter().all(|count| *count <= DUE_AT_ONCE_MAX), "{counts:?}");
    assert_eq!(counts.iter().sum::<usize>(), MANY);
}

#[test]
fn a_large_group_is_cancelled_in_parts_and_none_of_it_is_given_out_meanwhile() {
    let mut s = with_many(&Wishes { group: Some(name("g")), ..Wishes::default() }, &[]);
    let ask = Ask::Cancel { tasks: Vec::new(), group: Some(name("g")), why: "x".into() };
    s.tell(Event::Asked(Request { v: 1, id: name("r"), ask }));
    let first = s.changes().len();
    assert_eq!(first, DUE_AT_ONCE_MAX);
    s.offer("h", "1", handler("k"));
    assert!(s.launches().is_empty(), "what is about to be cancelled is begun by nobody");
    assert_in_parts(&[vec![first], drained(&mut s)].concat());
    assert!(s.answers().is_empty());
    assert_eq!(s.stored().answers(), [(name("r"), true)]);
}

#[test]
fn of_many_whose_time_has_come_a_part_goes_on_in_each_step() {
    let ahead = |s: &Story| Wall(s.now().wall.0 + 1_000);
    for is_end in [false, true] {
        let at = Some(ahead(&Story::new()));
        let wishes = if is_end {
            Wishes { expires: at, ..Wishes::default() }
        } else {
            Wishes { not_before: at, ..Wishes::default() }
        };
        let mut s = with_many(&wishes, &[]);
        s.at += 1_000;
        s.tell(Event::Tick);
        assert_in_parts(&drained(&mut s));
    }
}

#[test]
fn of_many_that_need_one_task_a_part_is_told_in_each_step() {
    let mut s = with_many(&Wishes::default(), &[(name("one"), Need::Open)]);
    s.admitted("one", "other");
    let lock = s.lock("one", "p", None, Some(identity(77)));
    s.locked(lock.clone()).tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done))).stored();
    assert_in_parts(&drained(&mut s));
    assert_eq!(s.stored().ready("k"), ids());
}

#[test]
fn a_crew_is_not_idle_while_a_part_is_still_to_be_told() {
    let mut s = Story::with(Setup { until_idle: true, ..setup() });
    s.tell(Event::MemoryQueue { empty: true });
    for id in ids() {
        let needs = vec![(name("one"), Need::Open)];
        s.tell(Event::Submitted(Submission { needs, ..Story::submission(id.as_str(), "k") }));
    }
    s.admitted("one", "other").offer("h", "1", handler("k"));
    s.at += 10_000;
    let ask = Ask::Cancel { tasks: vec![name("one")], group: None, why: "x".into() };
    s.tell(Event::Asked(Request { v: 1, id: name("r"), ask })).stored();
    assert!(s.state.has_more_due() && !s.state.is_draining());
    drained(&mut s);
    assert!(!s.state.has_more_due());
}
