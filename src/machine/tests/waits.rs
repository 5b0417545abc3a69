//! Needs, priorities, times and cancelling.

use super::*;
use crate::machine::event::{Ended, Found, Need};
use crate::protocol::layout::Shelf;
use crate::protocol::task::OnDead;

fn with_handler() -> Story {
    let mut s = Story::new();
    s.offer("h", "1", handler("k"));
    s
}

fn wishing(id: &str, wishes: Wishes, needs: &[(&str, Need)]) -> Submission {
    let needs: Vec<_> = needs.iter().map(|(id, need)| (name(id), *need)).collect();
    let wishes = Wishes { needs: needs.iter().map(|(id, _)| id.clone()).collect(), ..wishes };
    Submission { wishes, needs, ..Story::submission(id, "k") }
}

fn needing(id: &str, needs: &[(&str, Need)]) -> Submission {
    wishing(id, Wishes::default(), needs)
}

/// The phase with which the submission is admitted.
fn admitted_as(s: &mut Story, new: Submission) -> Phase {
    s.tell(Event::Submitted(new));
    let admitted = s.news.iter().find_map(|effect| match effect {
        Effect::Admit { phase, .. } => Some(*phase),
        _ => None,
    });
    admitted.unwrap_or_else(|| panic!("{:?}", s.news))
}

#[test]
fn a_task_waits_for_all_that_it_needs_and_then_runs() {
    let mut s = Story::new();
    s.admitted("a", "other").admitted("b", "other");
    let new = needing("t", &[("a", Need::Open), ("b", Need::Open), ("c", Need::Done)]);
    assert_eq!(admitted_as(&mut s, new), Phase::Blocked);
    s.stored();
    for (need, phase) in [("a", None), ("b", Some(Phase::Ready))] {
        let lock = s.lock(need, "agent", None, Some(identity(77)));
        s.locked(lock.clone()).tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done)));
        s.stored();
        let changes = s.changes();
        assert_eq!(changes.first().map(|change| change.phase), phase, "after {need}");
    }
    s.stored();
    assert_eq!(s.ready("k"), [name("t")]);
}

#[test]
fn what_needs_a_dead_letter_becomes_one_unless_it_is_to_run_nevertheless() {
    let mut s = Story::new();
    assert_eq!(admitted_as(&mut s, needing("t", &[("a", Need::Dead)])), Phase::Blocked);
    let change = s.stored().change();
    assert_eq!(change.phase, Phase::Dead);
    assert_eq!(change.reason.as_deref(), Some("task a, which it needs, is a dead letter"));

    let mut s = Story::new();
    let run = Wishes { on_dead: OnDead::Run, ..Wishes::default() };
    assert_eq!(admitted_as(&mut s, wishing("t", run, &[("a", Need::Dead)])), Phase::Ready);

    let mut s = Story::new();
    s.admitted("a", "k");
    admitted_as(&mut s, needing("t", &[("a", Need::Open)]));
    s.stored().tell(Event::Asked(cancel(&["a"], None))).stored();
    assert_eq!(s.change().task, name("t"), "its need was cancelled");
    assert_eq!(s.change().phase, Phase::Dead);
}

#[test]
fn what_it_waited_for_may_have_ended_before_a_crash() {
    for (need, phase) in
        [(Need::Done, Some(Phase::Ready)), (Need::Dead, Some(Phase::Dead)), (Need::Open, None)]
    {
        let mut s = Story::new();
        let Submission { wishes, needs, .. } = needing("t", &[("a", need)]);
        let found = Found { wishes, needs, ..gates::found(Phase::Blocked) };
        s.tell(Event::TaskFound(Box::new(found)));
        assert_eq!(s.changes().first().map(|change| change.phase), phase, "{need:?}");
    }
}

#[test]
fn a_need_that_is_not_known_yet_is_waited_for_and_a_cycle_is_refused() {
    let mut s = Story::new();
    assert_eq!(admitted_as(&mut s, needing("t", &[("u", Need::Open)])), Phase::Blocked);
    s.stored();
    assert_eq!(admitted_as(&mut s, needing("u", &[("v", Need::Open)])), Phase::Blocked);
    s.stored().tell(Event::Submitted(needing("v", &[("t", Need::Open)])));
    let refused = |effect: &Effect| matches!(effect, Effect::RejectSubmission(id, _) if *id == name("v"));
    assert!(s.news.iter().any(refused), "{:?}", s.news);
    s.tell(Event::Submitted(needing("w", &[("w", Need::Open)])));
    assert!(s.news.iter().any(|effect| matches!(effect, Effect::RejectSubmission(..))), "itself");
}

#[test]
fn the_higher_priority_goes_first_then_the_older() {
    let mut s = Story::new();
    let of = |id: &str, priority: i8, at: i64| Submission {
        at: Wall(at),
        ..wishing(id, Wishes { priority, ..Wishes::default() }, &[])
    };
    for new in [of("low", -1, 1), of("late", 0, 3), of("early", 0, 2), of("high", 5, 9)] {
        s.tell(Event::Submitted(new)).stored();
    }
    assert_eq!(s.ready("k"), ["high", "early", "late", "low"].map(name));
}

#[test]
fn a_task_waits_for_its_time_however_far_that_is() {
    let mut s = with_handler();
    let in_ten_days = Wall(s.now().wall.0 + 10 * 86_400_000);
    let wishes = Wishes { not_before: Some(in_ten_days), ..Wishes::default() };
    assert_eq!(admitted_as(&mut s, wishing("t", wishes, &[])), Phase::Waiting);
    s.stored().wait(9 * 86_400_000);
    assert!(s.launches().is_empty() && s.changes().is_empty());
    assert_eq!(s.wait(86_400_000).change().phase, Phase::Ready);
    s.stored();
    assert_eq!(s.launches().len(), 1);
}

#[test]
fn what_expires_before_a_try_begins_is_a_dead_letter_and_what_runs_goes_on() {
    let mut s = Story::new();
    let soon = |s: &Story| Wishes { expires: Some(Wall(s.now().wall.0 + 1_000)), ..Wishes::default() };
    let wishes = soon(&s);
    s.tell(Event::Submitted(wishing("t", wishes, &[]))).stored().wait(999);
    assert!(s.changes().is_empty());
    let change = s.wait(1).change();
    assert_eq!((change.phase, change.reason.is_some()), (Phase::Dead, true));
    assert!(
        change.token > s.state.tasks.values().map(|task| task.token).min().unwrap() - 1,
        "a claim is void"
    );

    let mut s = with_handler();
    let wishes = soon(&s);
    s.tell(Event::Submitted(wishing("t", wishes, &[]))).stored();
    let run = s.up();
    s.wait(5_000);
    assert!(s.changes().is_empty(), "it was begun in time");
    s.ends(&run, Ending::Code(1)).looked("t");
    assert_eq!(s.change().phase, Phase::Waiting);
    let change = s.stored().change();
    assert_eq!(change.phase, Phase::Dead, "no other try begins");
}

#[test]
fn a_pause_of_the_machine_puts_off_no_expiry() {
    let mut s = with_handler();
    s.tell(Event::HaltSeen(Some("x".into())));
    let wishes = Wishes { expires: Some(Wall(s.now().wall.0 + 1_000)), ..Wishes::default() };
    s.tell(Event::Submitted(wishing("t", wishes, &[]))).stored();
    let Now { mono, wall } = s.now();
    let later = Now { mono, wall: Wall(wall.0 + 1_000) };
    s.news = s.state.step(later, Event::HaltSeen(None));
    assert_eq!(s.change().phase, Phase::Dead);
    assert!(s.launches().is_empty());
}

#[test]
fn what_somebody_holds_does_not_expire_at_a_start() {
    let mut s = Story::unbegun();
    s.tell(Event::SurvivorFound(name("old"), name("h"), identity(9)));
    let wishes = Wishes { expires: Some(s.now().wall), ..Wishes::default() };
    s.tell(Event::TaskFound(Box::new(Found { wishes, ..gates::found(Phase::Ready) })));
    let lock = s.lock("t", "h", Some(&name("old")), Some(identity(9)));
    s.locked(lock).tell(Event::Tick);
    assert!(s.changes().is_empty(), "it was begun in time");
}

#[test]
fn what_could_not_be_laid_out_may_have_expired_meanwhile() {
    let mut s = with_handler();
    let wishes = Wishes { expires: Some(Wall(s.now().wall.0 + 1_000)), ..Wishes::default() };
    s.tell(Event::Submitted(wishing("t", wishes, &[]))).stored();
    let [(run, ..)] = &s.launches()[..] else { panic!("{:?}", s.news) };
    let run = run.clone();
    s.wait(1_000).tell(Event::DispatchFailed(run, "full".into()));
    assert_eq!(s.change().phase, Phase::Dead);
}

fn cancel(tasks: &[&str], group: Option<&str>) -> Request {
    let (tasks, group) = (tasks.iter().map(|id| name(id)).collect(), group.map(name));
    Request { v: 1, id: name("r"), ask: Ask::Cancel { tasks, group, why: "not wanted".into() } }
}

#[test]
fn a_task_is_cancelled_wherever_it_stands() {
    let mut s = with_handler();
    s.admitted("t", "k");
    let run = s.up();
    s.admitted("u", "other");
    admitted_as(&mut s, wishing("v", Wishes { group: Some(name("g")), ..Wishes::default() }, &[]));
    s.tell(Event::Asked(cancel(&["t", "u"], Some("g"))));
    assert!(s.wants(&Effect::Signal(run.clone(), 15)), "whoever works on it is stopped");
    let given_up = s.changes().into_iter().map(|change| (change.task, change.phase));
    assert_eq!(given_up.collect::<Vec<_>>(), [(name("u"), Phase::Dead)]);
    s.ends(&run, Ending::Code(0)).looked("t");
    let change = s.change();
    assert_eq!((change.phase, change.reason.as_deref()), (Phase::Dead, Some("cancelled: not wanted")));
    s.stored();
    let change = s.changes().into_iter().find(|change| change.task == name("v"));
    assert_eq!(change.map(|change| change.phase), Some(Phase::Dead), "its record was just being written");
    assert_eq!(s.stored().answers(), [(name("r"), true)], "now that all of it is durable");
    s.tell(Event::Asked(cancel(&["x"], None)));
    assert_eq!(s.answers(), [(name("r"), false)], "there is no such task");
}

#[test]
fn a_cancelling_is_answered_once_it_is_durable_however_often_it_is_seen() {
    let mut s = with_handler();
    s.admitted("t", "k");
    let run = s.up();
    s.tell(Event::Asked(cancel(&["t"], None)));
    assert!(s.answers().is_empty());
    s.tell(Event::Asked(cancel(&["t"], None)));
    assert!(s.answers().is_empty() && !s.wants(&Effect::Signal(run.clone(), 15)), "the same request");
    s.ends(&run, Ending::Signal(15)).looked("t");
    assert!(s.answers().is_empty(), "a crash would forget it");
    assert_eq!(s.stored().answers(), [(name("r"), true)]);
}

#[test]
fn who_ends_for_another_reason_already_is_cancelled_nevertheless() {
    let mut s = with_handler();
    s.admitted("t", "k");
    let run = s.up();
    s.tell(Event::Exited(run.clone(), Ending::Code(1))).tell(Event::Asked(cancel(&["t"], None)));
    s.tell(Event::TreeGone(run, Vec::new(), String::new())).looked("t");
    assert_eq!(s.change().phase, Phase::Waiting, "it had failed before");
    assert_eq!(s.stored().change().phase, Phase::Dead);
}

#[test]
fn what_a_survivor_works_on_is_cancelled_once_that_is_gone() {
    let mut s = Story::new();
    s.tell(Event::SurvivorFound(name("old"), name("h"), identity(9)));
    s.tell(Event::TaskFound(Box::new(gates::found(Phase::Ready))));
    let lock = s.lock("t", "h", Some(&name("old")), Some(identity(9)));
    s.locked(lock).tell(Event::Asked(cancel(&["t"], None)));
    assert!(!s.wants(&Effect::LookForOutcomes(name("t"), name("h"))), "it is being stopped");
    s.ends(&name("old"), Ending::Unseen).looked("t").stored();
    assert_eq!(s.change().phase, Phase::Dead);
}

#[test]
fn what_was_handed_in_before_it_was_cancelled_counts() {
    let mut s = Story::new();
    s.admitted("t", "k");
    let lock = s.lock("t", "agent", None, Some(identity(77)));
    s.locked(lock.clone()).tell(Event::Asked(cancel(&["t"], None)));
    assert!(s.wants(&Effect::LookForOutcomes(name("t"), name("agent"))));
    s.tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done)));
    assert_eq!(s.change().phase, Phase::Done);
}

#[test]
fn an_owner_outside_whose_task_is_cancelled_is_fenced() {
    let mut s = Story::new();
    s.admitted("t", "k");
    let lock = s.lock("t", "agent", None, Some(identity(77)));
    s.locked(lock.clone()).tell(Event::Asked(cancel(&["t"], None))).looked("t");
    let change = s.change();
    assert!(change.phase == Phase::Dead && change.token > lock.token);
    s.stored().tell(Event::OutcomeSeen(Story::handed_in(&lock, Verdict::Done)));
    assert!(s.news.iter().any(|effect| matches!(effect, Effect::RefuseOutcome { .. })));
}

#[test]
fn a_dead_letter_keeps_nobody_out_and_what_was_done_only_so_long() {
    let ended = |shelf, token, unique_until| Some(Ended { shelf, nonce: "old".into(), token, unique_until });
    let replaces = |s: &mut Story, new: Submission| {
        s.tell(Event::Submitted(new));
        s.news.iter().find_map(|effect| match effect {
            Effect::Admit { replaces, .. } => Some(*replaces),
            _ => None,
        })
    };
    let mut s = Story::new();
    let now = s.now().wall;
    let new = |id: &str, ended| Submission { ended, ..Story::submission(id, "k") };
    assert_eq!(replaces(&mut s, new("a", ended(Shelf::Dead, 5, None))), Some(Some(Shelf::Dead)));
    assert_eq!(replaces(&mut s, new("b", ended(Shelf::Done, 5, None))), None);
    assert_eq!(replaces(&mut s, new("b", ended(Shelf::Done, 5, Some(Wall(now.0 + 1))))), None);
    assert_eq!(replaces(&mut s, new("b", ended(Shelf::Done, 5, Some(now)))), Some(Some(Shelf::Done)));
    assert_eq!(replaces(&mut s, new("c", ended(Shelf::Review, 5, None))), None);
    // A submission that was replayed, died again, and whose removal a power cut undid.
    let stale = Submission { replayed: Some(4), ..new("d", ended(Shelf::Dead, 5, None)) };
    assert_eq!(replaces(&mut s, stale), None);
    let edited = Submission { replayed: Some(5), ..new("d", ended(Shelf::Dead, 5, None)) };
    assert_eq!(replaces(&mut s, edited), Some(Some(Shelf::Dead)));
}
