//! Gates, reviews, retries by policy, poison, and fallbacks.

use super::*;
use crate::machine::effect::{BoundFate, Mode, Output};
use crate::machine::event::{Accepted, Found, Next};
use crate::protocol::manifest::{Defaults, from_toml};
use crate::protocol::status::Refusal;
use crate::protocol::task::Made;

fn manifest(text: &str) -> Manifest {
    from_toml("h.toml", format!("handles = [\"k\"]\ncommand = [\"x\"]\n{text}"), &Defaults::default())
        .unwrap()
}

/// A crew whose handler has this manifest, with task `t` at work.
fn at_work(text: &str) -> (Story, RunId) {
    let mut s = Story::new();
    s.offer("h", "1", manifest(text)).admitted("t", "k");
    let run = s.up();
    (s, run)
}

fn exits(s: &mut Story, run: &RunId, ending: Ending) -> RecordChange {
    s.ends(run, ending);
    s.looked("t").change()
}

/// The gate's run, and that it is asked about `t`.
fn judge(s: &Story) -> RunId {
    let found = s.news.iter().find_map(|effect| match effect {
        Effect::Judge { run, task, .. } if *task == name("t") => Some(run.clone()),
        _ => None,
    });
    found.unwrap_or_else(|| panic!("{:?}", s.news))
}

#[test]
fn a_result_that_passes_its_gate_is_done_and_handed_on() {
    let (mut s, run) = at_work("gate = \"g\"\nthen = \"publish\"");
    let change = exits(&mut s, &run, Ending::Code(0));
    let (token, (.., nonce)) = (change.token, change.settled.unwrap());
    assert_eq!(change.phase, Phase::Gated);
    assert_eq!(change.output, Some(Output::HandedIn(name("h"), token)));
    assert_eq!(change.bound, None, "what was submitted within it waits for the judgement");
    s.stored();
    let gate = judge(&s);
    s.tell(Event::Spawned(gate.clone(), identity(9))).ends(&gate, Ending::Code(0));
    let change = s.change();
    assert_eq!((change.phase, change.token, &change.output), (Phase::Done, token, &Some(Output::Judged)));
    let bound = change.bound.unwrap();
    assert_eq!((bound.agent, bound.token), (Some(name("h")), token));
    assert_eq!(bound.fate, submitted(&nonce, "publish"));
    s.stored();
    assert!(!s.state.is_open(&name("t")));
}

#[test]
fn a_result_that_does_not_pass_goes_to_review_with_the_gates_words() {
    for (ending, words, reason) in [
        (Ending::Code(1), "too short\n", "too short"),
        (Ending::Signal(11), "", "the gate said nothing: killed by signal 11"),
    ] {
        let (mut s, run) = at_work("gate = \"g\"");
        exits(&mut s, &run, Ending::Code(0));
        s.stored();
        let gate = judge(&s);
        s.tell(Event::Spawned(gate.clone(), identity(9))).tell(Event::Exited(gate.clone(), ending));
        assert!(s.state.wants_words(&gate));
        s.tell(Event::TreeGone(gate, Vec::new(), words.into()));
        let change = s.change();
        assert_eq!((change.phase, change.reason.as_deref()), (Phase::Review, Some(reason)));
        assert_eq!(change.bound, None, "a person may still approve it");
    }
}

#[test]
fn a_gate_that_cannot_be_run_or_takes_too_long_passes_nothing() {
    let (mut s, run) = at_work("gate = \"g\"");
    exits(&mut s, &run, Ending::Code(0));
    s.stored();
    let gate = judge(&s);
    s.tell(Event::SpawnFailed { run: gate, error: "there is no gates/g".into(), busy: false });
    assert_eq!(s.change().reason.as_deref(), Some("the gate cannot be run: there is no gates/g"));

    let (mut s, run) = at_work("gate = \"g\"");
    exits(&mut s, &run, Ending::Code(0));
    s.stored();
    let gate = judge(&s);
    s.tell(Event::Spawned(gate.clone(), identity(9))).wait(60_000);
    assert!(s.wants(&Effect::Signal(gate.clone(), 15)));
    s.ends(&gate, Ending::Signal(15));
    assert_eq!(
        (s.change().phase, s.change().reason.as_deref()),
        (Phase::Review, Some("the gate took longer than 1m"))
    );
}

#[test]
fn a_gate_that_was_drained_or_never_asked_is_asked_again() {
    let (mut s, run) = at_work("gate = \"g\"");
    exits(&mut s, &run, Ending::Code(0));
    s.stored();
    let gate = judge(&s);
    s.tell(Event::Spawned(gate.clone(), identity(9))).tell(Event::StopAsked("TERM".into()));
    s.ends(&gate, Ending::Signal(15));
    assert!(s.changes().is_empty(), "nothing was judged: {:?}", s.news);

    let mut s = Story::new();
    let made = Some(Made { agent: name("h"), nonce: "n1".into(), gate: name("g"), then: None });
    s.tell(Event::TaskFound(Box::new(Found { made, ..found(Phase::Gated) })));
    judge(&s);
}

#[test]
fn what_was_handed_in_is_not_decided_before_it_is_known_what_its_agent_declares() {
    for refused in [false, true] {
        let mut s = Story::unbegun();
        let lock = Lock { token: 40, ..s_lock() };
        let handed_in = || Story::handed_in(&lock, Verdict::Done);
        s.tell(Event::TaskFound(Box::new(Found { handed_in: vec![handed_in()], ..found(Phase::Ready) })));
        if refused {
            let refusal = Refusal { file: "h.toml".into(), reason: "x".into(), remedy: "y".into() };
            s.tell(Event::AgentRefused(name("h"), refusal)).tell(Event::AgentsLooked);
            s.tell(Event::OutcomeSeen(handed_in()));
        }
        assert!(s.changes().is_empty() && s.ready("k").is_empty(), "its agent may have a gate");
        s.looked("t");
        assert!(s.changes().is_empty(), "nor is it given to anybody else");
        s.offer("h", "1", manifest("gate = \"g\""));
        assert_eq!(
            s.tell(Event::OutcomeSeen(handed_in())).change().phase,
            Phase::Gated,
            "refused: {refused}"
        );
    }
}

/// What was submitted within its claim counts, and its result is handed on as this kind.
fn submitted(nonce: &str, then: &str) -> BoundFate {
    BoundFate::Submitted { nonce: nonce.into(), then: then.parse().ok() }
}

fn s_lock() -> Lock {
    let (task, agent) = (name("t"), name("h"));
    Lock { v: 1, task, token: 0, nonce: "n1".into(), agent, run: None, owner: None, at: Wall(0) }
}

#[test]
fn what_the_ledger_accepted_has_its_result_where_it_belongs() {
    let mut s = Story::new();
    s.offer("h", "1", manifest("then = \"p\""));
    let HandedIn { agent, outcome, .. } = Story::handed_in(&Lock { token: 40, ..s_lock() }, Verdict::Done);
    let accepted = Some(Accepted { agent, outcome, next: Next::Done(None) });
    s.tell(Event::TaskFound(Box::new(Found { accepted, ..found(Phase::Ready) })));
    let change = s.change();
    assert_eq!((change.phase, change.output), (Phase::Done, None), "a power cut may have spoiled its source");
    assert_eq!(change.bound.unwrap().fate, submitted("n1", ""), "it was handed on before");
}

#[test]
fn a_void_lock_beside_a_gate_at_work_holds_up_no_drain() {
    let (mut s, run) = at_work("gate = \"g\"");
    exits(&mut s, &run, Ending::Code(0));
    s.stored();
    let gate = judge(&s);
    s.tell(Event::Spawned(gate.clone(), identity(9))).locked(Lock { token: 1, ..s_lock() });
    s.tell(Event::StopAsked("TERM".into())).ends(&gate, Ending::Signal(15));
    assert!(s.wants(&Effect::Exit), "{:?}", s.state.tickets);
}

pub(super) fn found(phase: Phase) -> Found {
    Found {
        id: name("t"),
        kind: name("k"),
        nonce: "n".into(),
        token: 40,
        phase,
        at: Wall(0),
        failures: 0,
        deferrals: 0,
        deaths: 0,
        wishes: Wishes::default(),
        needs: Vec::new(),
        made: None,
        accepted: None,
        handed_in: Vec::new(),
        lock: None,
    }
}

#[test]
fn a_person_decides_what_the_gate_did_not_pass() {
    let made = Some(Made { agent: name("h"), nonce: "n1".into(), gate: name("g"), then: Some(name("p")) });
    let reviewed = || Some(Box::new(Found { made: made.clone(), ..found(Phase::Review) }));
    let ask = |ask: Ask| Request { v: 1, id: name("r"), ask };
    let approve = || ask(Ask::Approve { task: name("t") });

    let mut s = Story::new();
    s.tell(Event::Reviewed(approve(), reviewed()));
    let change = s.change();
    assert!(change.reviewed && change.phase == Phase::Done && change.token == 40);
    assert_eq!(change.bound.unwrap().fate, submitted("n1", "p"));
    assert!(s.answers().is_empty(), "it is not durable yet");
    s.tell(Event::Reviewed(approve(), reviewed()));
    assert!(s.changes().is_empty() && s.answers().is_empty(), "it is being decided about");
    assert_eq!(s.stored().answers(), [(name("r"), true)]);

    let mut s = Story::new();
    s.tell(Event::Reviewed(ask(Ask::Reject { task: name("t"), why: "no".into() }), reviewed()));
    let change = s.change();
    assert!(change.reviewed && change.phase == Phase::Dead && change.token > 40);
    assert_eq!(change.reason.as_deref(), Some("rejected in review: no"));
    assert_eq!(change.bound.unwrap().fate, BoundFate::Dropped);

    s.stored().tell(Event::Reviewed(approve(), None));
    assert!(s.wants(&Effect::Answer(name("r"), false, "task t is not in review".into())));
}

#[test]
fn what_was_submitted_within_a_task_shares_its_fate() {
    for (text, code, then) in [
        ("", 0, Some("")),
        ("then = \"publish\"", 0, Some("publish")),
        ("then = \"publish\"", 1, None),
        ("", 75, None),
        ("", 65, None),
    ] {
        let (mut s, run) = at_work(text);
        let change = exits(&mut s, &run, Ending::Code(code));
        let (.., nonce) = change.settled.unwrap();
        let fate = then.map_or(BoundFate::Dropped, |then| submitted(&nonce, then));
        assert_eq!(change.bound.unwrap().fate, fate, "{text} {code}");
    }
}

#[test]
fn a_failed_task_is_retried_as_its_handler_declares() {
    for (text, code, phases) in [
        ("retries = 0", 1, &[Phase::Dead][..]),
        ("retries = 2\nbackoff = \"1s\"", 1, &[Phase::Waiting, Phase::Waiting, Phase::Dead]),
        ("retry_on = [7]", 1, &[Phase::Dead]),
        ("retry_on = [7]", 7, &[Phase::Waiting]),
        ("no_retry_on = [7]", 7, &[Phase::Dead]),
    ] {
        let (mut s, mut run) = at_work(text);
        for (at, phase) in phases.iter().enumerate() {
            let change = exits(&mut s, &run, Ending::Code(code));
            assert_eq!(change.phase, *phase, "{text}, try {at}");
            s.stored();
            if *phase == Phase::Waiting && at + 1 < phases.len() {
                s.wait(1_000).stored();
                run = s.up();
            }
        }
    }
}

#[test]
fn each_wait_stays_below_its_bound_and_the_last_bound_serves_all_after_it() {
    let retry = manifest("retries = 7\nbackoff = [\"1s\", \"4s\"]").retry;
    let bounds: Vec<_> = (0..=8).map(|failures| retry.wait_ms(failures)).collect();
    let (one, four) = (Some(1_000), Some(4_000));
    assert_eq!(bounds, [None, one, four, four, four, four, four, four, None]);
    let default = Manifest::default().retry;
    let bounds: Vec<_> = (1..=5).map(|failures| default.wait_ms(failures)).collect();
    assert_eq!(bounds, [Some(1_000), Some(4_000), Some(16_000), None, None]);
}

#[test]
fn what_a_failed_try_printed_last_is_kept_with_it() {
    let (mut s, run) = at_work("");
    s.tell(Event::Exited(run.clone(), Ending::Code(1)));
    assert!(s.state.wants_words(&run));
    s.tell(Event::TreeGone(run.clone(), Vec::new(), "no such file\n".into()));
    let attempt = s.looked("t").change().attempt.unwrap();
    assert_eq!((attempt.error.as_str(), attempt.output.as_str()), ("exit 1", "no such file\n"));
    assert_eq!((attempt.agent, attempt.run), (name("h"), Some(run)));
    assert!(attempt.began.is_some());
}

#[test]
fn a_task_whose_owners_keep_dying_is_poison() {
    let mut s = Story::new();
    s.admitted("t", "k");
    for death in 1..=5 {
        let lock = s.lock("t", "agent", None, Some(identity(77)));
        s.locked(lock.clone()).tell(Event::Exited(name(&lock.nonce), Ending::Unseen));
        let change = s.looked("t").change();
        assert_eq!(change.deaths, death);
        let dead = death == 5;
        assert_eq!((change.phase == Phase::Dead, change.failures), (dead, 0), "{death}");
        assert_eq!(change.reason.is_some(), dead);
        s.stored();
    }
}

#[test]
fn a_drain_is_nobodys_death() {
    let (mut s, run) = at_work("");
    s.tell(Event::StopAsked("TERM".into()));
    let change = exits(&mut s, &run, Ending::Signal(15));
    assert_eq!((change.phase, change.deaths, change.failures), (Phase::Ready, 0, 0));
}

/// A task of the handler fails; which one is given out next, to whom and how.
fn fails_next(s: &mut Story, id: &str) {
    let [(_, _, Some(grant))] = &s.launches()[..] else { panic!("{:?}", s.news) };
    assert_eq!(grant.lock.task, name(id));
    let run = s.up();
    s.ends(&run, Ending::Code(1)).looked(id).stored();
}

#[test]
fn while_a_handler_keeps_failing_its_fallback_takes_its_tasks() {
    let mut s = Story::new();
    let lite = from_toml("l.toml", "handles = [\"lite\"]\ncommand = [\"x\"]", &Defaults::default()).unwrap();
    s.offer("h", "1", manifest("fallback = \"l\"\nretries = 0")).offer("l", "1", lite);
    for id in ["a", "b", "c"] {
        s.admitted(id, "k");
        fails_next(&mut s, id);
    }
    s.admitted("d", "k");
    let [(_, _, Some(grant))] = &s.launches()[..] else { panic!("{:?}", s.news) };
    assert_eq!((grant.lock.agent.as_str(), grant.mode), ("l", Mode::Fallback));
    let run = s.up();
    s.ends(&run, Ending::Code(0)).looked("d").stored();
    s.wait(600_000).admitted("e", "k");
    let [(_, _, Some(grant))] = &s.launches()[..] else { panic!("{:?}", s.news) };
    assert_eq!(
        (grant.lock.agent.as_str(), grant.mode),
        ("h", Mode::Normal),
        "it is tried again after a while"
    );
}

#[test]
fn one_bad_document_condemns_no_handler() {
    let mut s = Story::new();
    let lite = from_toml("l.toml", "handles = [\"lite\"]\ncommand = [\"x\"]", &Defaults::default()).unwrap();
    s.offer("h", "1", manifest("fallback = \"l\"\nbackoff = \"1ms\""))
        .offer("l", "1", lite)
        .admitted("t", "k");
    for _ in 0..3 {
        fails_next(&mut s, "t");
        s.wait(1).stored();
    }
    let [(_, _, Some(grant))] = &s.launches()[..] else { panic!("{:?}", s.news) };
    assert_eq!((grant.lock.agent.as_str(), grant.mode), ("h", Mode::Normal));
}

#[test]
fn where_there_was_nothing_to_do_no_gate_is_asked_and_nothing_handed_on() {
    let (mut s, run) = at_work("gate = \"g\"\nthen = \"p\"");
    let change = exits(&mut s, &run, Ending::Code(66));
    assert_eq!((change.phase, change.made, change.output), (Phase::Done, None, None));
    let (.., nonce) = change.settled.unwrap();
    assert_eq!(change.bound.unwrap().fate, submitted(&nonce, ""), "what no gate has seen goes no further");
    s.stored();
    assert!(!s.state.is_open(&name("t")));
}

#[test]
fn how_long_an_id_is_kept_survives_a_crash_between_ledger_and_record() {
    let (mut s, run) = at_work("unique_for = \"1h\"");
    let change = exits(&mut s, &run, Ending::Code(0));
    let until = Wall(s.now().wall.0 + 3_600_000);
    assert_eq!(change.unique_until, Some(until));
    let [Fact::Outcome { next, .. }] = &change.facts[..] else { panic!("{:?}", change.facts) };
    assert_eq!(Next::parse(next, &name("h"), "n1"), Next::Done(Some(until)));

    // The next supervisor reads that, later and of an agent that it does not know yet.
    let outcome = Outcome::new(name("t"), 40, "c".into(), Verdict::Done, None);
    let accepted = Some(Accepted { agent: name("h"), outcome, next: Next::parse(next, &name("h"), "n1") });
    let mut s = Story::unbegun();
    s.tell(Event::TaskFound(Box::new(Found { accepted, ..found(Phase::Ready) })));
    assert_eq!(s.change().unique_until, Some(until));
}
