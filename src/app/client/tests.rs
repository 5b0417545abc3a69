//! The calls over the real file system, with the supervisor's part played by hand.

mod batch;
mod bound;
mod dead;
mod history;
mod wishes;

use std::path::Path;

use tempfile::TempDir;

use super::claim::{Claim, Try};
use super::control::{Switched, nearest};
use super::finish::{Held, Output};
use super::lookup::Standing;
use super::submit::{Order, Payload, Sameness, Submitted};
use super::*;
use crate::app::world::{Disk, randomness};
use crate::protocol::heartbeat::Beat;
use crate::protocol::layout::Shelf;
use crate::protocol::name::Name;
use crate::protocol::process::Identity;
use crate::protocol::record::{RECORD_LEN_MAX, decode, encode};
use crate::protocol::request::{Answer, Ask};
use crate::protocol::task::{Lock, Outcome, Phase, TaskRecord, Verdict, Wishes};
use crate::protocol::time::Wall;

pub(in crate::app) const NOW: Wall = Wall(1_795_143_600_000);

pub(in crate::app) struct Crew {
    dir: TempDir,
    pub(in crate::app) store: Disk,
    pub(in crate::app) layout: Layout,
}

impl Crew {
    pub(in crate::app) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path());
        let store = Disk::for_crew(dir.path()).unwrap();
        store.create_dir(&layout.agents()).unwrap();
        Self { dir, store, layout }
    }

    fn client(&self, caller: Caller) -> Client<Disk> {
        Client::new(self.store.clone(), self.layout.clone(), caller, std::process::id(), randomness())
    }

    pub(in crate::app) fn operator(&self) -> Client<Disk> {
        self.client(Caller::Operator)
    }

    pub(in crate::app) fn run(&self, agent: &str, run: &str) -> Client<Disk> {
        self.client(Caller::Run { agent: name(agent), run: name(run) })
    }

    /// What a supervisor makes of a submission: admits it with this token, and lists it as ready.
    fn admit(&self, id: &TaskId, token: u64) {
        let mut record: TaskRecord = self.read(&self.layout.new_task(id));
        (record.token, record.state) = (token, Phase::Ready);
        self.write(&self.layout.task(id), &encode(&record));
        self.store.unlink(&self.layout.new_task(id)).unwrap();
        let ready = self.layout.ready(&record.kind);
        self.store.create_dir(parent(&ready)).unwrap();
        let (mut file, _) = self.store.open_append(&ready).unwrap();
        self.store.append(&mut file, format!("{id}\n").as_bytes()).unwrap();
    }

    pub(in crate::app) fn ready_task(&self, key: &str, token: u64) -> TaskId {
        let id = accepted(self.operator().submit(order("write", "1", &key_of(key)), None, NOW));
        self.admit(&id, token);
        id
    }

    fn write(&self, path: &Path, bytes: &[u8]) {
        let mut writer = self.operator();
        writer.publish(path, bytes).unwrap();
    }

    pub(in crate::app) fn read<T: DeserializeOwned>(&self, path: &Path) -> T {
        decode(&self.store.read(path, RECORD_LEN_MAX).unwrap().bytes).unwrap()
    }

    pub(in crate::app) fn has(&self, path: &Path) -> bool {
        self.store.stat(path).unwrap().is_some()
    }

    pub(in crate::app) fn change_token(&self, id: &TaskId, token: u64) {
        let mut record: TaskRecord = self.read(&self.layout.task(id));
        record.token = token;
        self.write(&self.layout.task(id), &encode(&record));
    }
}

pub(in crate::app) fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn payload(json: &str) -> Payload {
    Payload::parse(json.as_bytes()).unwrap()
}

fn order(kind: &str, json: &str, same: &Sameness) -> Order {
    Order { kind: name(kind), payload: payload(json), same: same.clone(), wishes: Wishes::default() }
}

fn key_of(key: &str) -> Sameness {
    Sameness::Key(key.into())
}

fn accepted(submitted: Result<Submitted, ClientError>) -> TaskId {
    match submitted.unwrap() {
        Submitted::Accepted(id) => id,
        Submitted::Duplicate(found) => panic!("a duplicate of {}", found.record.id),
    }
}

fn standing_of_duplicate(submitted: Result<Submitted, ClientError>) -> Standing {
    match submitted.unwrap() {
        Submitted::Accepted(id) => panic!("{id} was accepted"),
        Submitted::Duplicate(found) => found.standing,
    }
}

pub(in crate::app) fn owner() -> Identity {
    Identity { pid: 7, start: 8, boot: "boot".into(), ns: 9 }
}

fn claim(client: &mut Client<Disk>) -> Option<Claim> {
    client.claim(&[], &owner(), NOW).unwrap()
}

#[test]
fn a_submission_is_one_whole_line_and_leaves_no_temp_file() {
    let crew = Crew::new();
    let mut operator = crew.operator();
    let text = " {\"a\":\n [1.0, \"\\n\"]}\n";
    let id = accepted(operator.submit(order("write", text, &Sameness::Payload), None, NOW));
    let bytes = crew.store.read(&crew.layout.new_task(&id), 1000).unwrap().bytes;
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.lines().count(), 1);
    assert!(text.starts_with(&format!("{{\"v\":1,\"id\":\"{id}\",\"token\":0,\"nonce\":\"")), "{text}");
    assert!(text.ends_with("\"payload\":{\"a\":  [1.0, \"\\n\"]}}\n"), "{text}");
    assert!(text.contains("\"by\":\"operator\""), "{text}");
    assert!(crew.store.list(&crew.layout.tmp_of_operator(), 10).unwrap().is_empty());
    assert_eq!(id, crate::protocol::task::id_from_payload(&name("write"), b"{\"a\":  [1.0, \"\\n\"]}"));
}

#[test]
fn the_same_task_again_is_a_duplicate_wherever_it_stands() {
    let crew = Crew::new();
    let mut client = crew.run("intake", "R1");
    let id = accepted(client.submit(order("write", "1", &key_of("k")), None, NOW));
    let mut again =
        |same: &Sameness| standing_of_duplicate(client.submit(order("write", "2", same), None, NOW));
    assert_eq!(again(&key_of("k")), Standing::New);
    crew.admit(&id, 5);
    assert_eq!(again(&key_of("k")), Standing::Ready);
    assert_eq!(again(&Sameness::Id(id.clone())), Standing::Ready);
    for (shelf, standing) in [(Shelf::Done, Standing::Done), (Shelf::Review, Standing::Review)] {
        let record: TaskRecord = crew.read(&crew.layout.task(&id));
        crew.write(&crew.layout.ended(shelf, &id), &encode(&record));
        crew.store.unlink(&crew.layout.task(&id)).unwrap();
        assert_eq!(again(&key_of("k")), standing);
        crew.write(&crew.layout.task(&id), &encode(&record));
        crew.store.unlink(&crew.layout.ended(shelf, &id)).unwrap();
    }
    let one = accepted(client.submit(order("write", "2", &Sameness::New), None, NOW));
    let two = accepted(client.submit(order("write", "2", &Sameness::New), None, NOW));
    assert_ne!(one, two);
    assert_eq!(crew.read::<TaskRecord>(&crew.layout.new_task(&one)).by, "intake");
}

#[test]
fn a_payload_that_is_none_is_refused_with_its_place() {
    let refused = |bytes: &[u8]| Payload::parse(bytes).unwrap_err().to_string();
    assert!(refused(b"{\"a\": nope}").contains("line 1 column 8"), "{}", refused(b"{\"a\": nope}"));
    assert!(refused(b"").contains("EOF"), "{}", refused(b""));
    assert!(refused(b"1 2").contains("column 3"), "{}", refused(b"1 2"));
    assert!(refused(b"\"a\xff\"").contains("byte 3 is not UTF-8"));
    assert!(
        refused("[".repeat(200).as_bytes()).contains("recursion"),
        "{}",
        refused("[".repeat(200).as_bytes())
    );
    let large = format!("\"{}\"", "x".repeat(1024 * 1024));
    assert!(refused(large.as_bytes()).contains("1048576 are allowed"));
    let just_too_large = format!("\"{}\"", "x".repeat(1024 * 1024 - 10));
    let crew = Crew::new();
    let error = crew.operator().submit(order("k", &just_too_large, &Sameness::New), None, NOW).unwrap_err();
    assert!(matches!(error, ClientError::Payload(_)), "{error}");
    assert!(crew.store.list(&crew.layout.new_tasks(), 10).unwrap().is_empty());
}

#[test]
fn a_claim_holds_the_task_until_it_is_handed_in_without_naming_it() {
    let crew = Crew::new();
    let id = crew.ready_task("a", 5);
    let mut client = crew.run("writer", "R1");
    let claim = claim(&mut client).unwrap();
    assert_eq!(claim.record.id, id);
    let mut other = crew.run("writer", "R2");
    let lock: Lock = crew.read(&crew.layout.lock(&id));
    assert_eq!(lock, claim.lock);
    assert_eq!((lock.token, lock.run.clone(), lock.owner.clone()), (5, Some(name("R1")), Some(owner())));
    assert!(other.claim(&[], &owner(), NOW).unwrap().is_none(), "it is taken");
    assert!(matches!(crew.run("writer", "R2").held(None, None), Err(ClientError::NoClaim)));
    assert!(matches!(crew.run("writer", "R2").held(Some(&id), None), Err(ClientError::NotHeld { .. })));

    let held = client.held(None, None).unwrap();
    client.finish(&held, Verdict::Done, None, Some(Output::Bytes(b"text"))).unwrap();
    let outcome: Outcome = crew.read(&crew.layout.outcome(&name("writer"), &id, 5, &lock.nonce));
    assert_eq!((outcome.status, outcome.token, outcome.nonce), (Verdict::Done, 5, lock.nonce));
    let output = crew.store.read(&crew.layout.output(&name("writer"), &id, 5), 100).unwrap().bytes;
    assert_eq!(output, b"text");
    assert!(crew.has(&crew.layout.lock(&id)), "only the supervisor unlinks a lock");
    assert!(matches!(client.held(None, None), Err(ClientError::NoClaim)), "it is forgotten");
    assert!(crew.store.list(&crew.layout.tmp(&name("writer")), 10).unwrap().is_empty());
}

#[test]
fn eight_racers_claim_each_task_once() {
    let crew = Crew::new();
    let tasks: Vec<TaskId> = (1..=40).map(|n| crew.ready_task(&n.to_string(), n)).collect();
    let mut claimed: Vec<TaskId> = std::thread::scope(|scope| {
        let racers: Vec<_> = (0..8)
            .map(|n| {
                let mut client = crew.run("writer", &format!("R{n}"));
                scope.spawn(move || {
                    std::iter::from_fn(|| claim(&mut client)).map(|claim| claim.record.id).collect::<Vec<_>>()
                })
            })
            .collect();
        racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect()
    });
    claimed.sort();
    let mut all = tasks;
    all.sort();
    assert_eq!(claimed, all);
}

#[test]
fn processes_of_one_run_do_not_forget_each_others_claims() {
    let crew = Crew::new();
    for n in 1..=40 {
        crew.ready_task(&n.to_string(), n);
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            let mut client = crew.run("writer", "R1");
            scope.spawn(move || while claim(&mut client).is_some() {});
        }
    });
    assert_eq!(crew.run("writer", "R1").notes().unwrap().len(), 40);
}

#[test]
fn a_claim_that_became_void_while_it_was_made_is_handed_back() {
    let crew = Crew::new();
    let id = crew.ready_task("a", 5);
    let mut client = crew.run("writer", "R1");
    let lock = Lock {
        v: 1,
        task: id.clone(),
        token: 5,
        nonce: "n1".into(),
        agent: name("writer"),
        run: Some(name("R1")),
        owner: Some(owner()),
        at: NOW,
    };
    let record: TaskRecord = crew.read(&crew.layout.task(&id));
    client.note(&lock).unwrap();
    assert!(client.link_lock(&lock).unwrap());
    crew.change_token(&id, 6);
    let tried = client.verify(Claim { record: record.clone(), lock: lock.clone() }).unwrap();
    assert!(matches!(tried, Try::Next));
    let outcome: Outcome = crew.read(&crew.layout.outcome(&name("writer"), &id, 5, "n1"));
    assert_eq!(outcome.status, Verdict::Released);
    assert!(matches!(client.held(None, None), Err(ClientError::NoClaim)));

    crew.change_token(&id, 5);
    crew.operator().halt("tea").unwrap();
    let halted = client.verify(Claim { record, lock: Lock { nonce: "n1".into(), ..lock } }).unwrap_err();
    assert!(matches!(halted, ClientError::Halted(why) if why == "tea"));
}

#[test]
fn nothing_is_claimed_while_halted_or_stopped_or_of_another_kind() {
    let crew = Crew::new();
    let id = crew.ready_task("a", 5);
    let mut client = crew.run("writer", "R1");
    let mut operator = crew.operator();
    assert_eq!(operator.halt("tea").unwrap(), Switched::Now);
    assert_eq!(operator.halt("cake").unwrap(), Switched::Already("tea".into()));
    assert!(matches!(client.claim(&[], &owner(), NOW), Err(ClientError::Halted(_))));
    assert_eq!(operator.resume().unwrap().as_deref(), Some("tea"));
    assert_eq!(operator.resume().unwrap(), None);
    operator.stop(&name("writer"), "noisy").unwrap();
    assert!(matches!(client.claim(&[], &owner(), NOW), Err(ClientError::Stopped { .. })));
    assert_eq!(operator.start(&name("writer")).unwrap().as_deref(), Some("noisy"));
    assert!(client.claim(&[name("other")], &owner(), NOW).unwrap().is_none());
    assert!(!crew.has(&crew.layout.lock(&id)));
    assert!(claim(&mut client).is_some());
}

#[test]
fn a_kill_switch_that_cannot_be_read_is_set_all_the_same() {
    let crew = Crew::new();
    crew.store.create_dir(&crew.layout.halt()).unwrap();
    assert!(crew.operator().halted().unwrap().unwrap().contains("directory"));
}

#[test]
fn a_task_whose_owner_handed_it_in_is_nobody_elses_though_a_power_cut_took_the_lock() {
    let crew = Crew::new();
    let task = crew.ready_task("a", 3);
    let mut client = crew.operator();
    assert!(claim(&mut client).is_some());
    let held = client.held(Some(&task), None).unwrap();
    client.finish(&held, Verdict::Done, None, None).unwrap();
    crew.store.unlink(&crew.layout.lock(&task)).unwrap();
    assert!(claim(&mut client).is_none());
    let mut record: TaskRecord = crew.read(&crew.layout.task(&task));
    record.token = 4;
    crew.write(&crew.layout.task(&task), &encode(&record));
    assert!(claim(&mut client).is_some(), "that outcome was of an earlier claim");
}

#[test]
fn a_late_owner_learns_it_and_its_outcome_is_on_record() {
    let crew = Crew::new();
    let id = crew.ready_task("a", 5);
    let mut client = crew.run("writer", "R1");
    let nonce = claim(&mut client).unwrap().lock.nonce;
    crew.change_token(&id, 6);
    crew.store.unlink(&crew.layout.lock(&id)).unwrap();
    let held = client.held(None, None).unwrap();
    let vacated = client.finish(&held, Verdict::Done, None, None).unwrap_err();
    assert!(matches!(vacated, ClientError::TooLate { .. }), "{vacated}");
    claim(&mut crew.run("writer", "R2")).unwrap();
    let late = client.finish(&held, Verdict::Done, None, None).unwrap_err();
    assert!(matches!(late, ClientError::TooLate { .. }), "{late}");
    assert!(crew.has(&crew.layout.outcome(&name("writer"), &id, 5, &nonce)));
}

#[test]
fn several_claims_must_be_told_apart_and_a_handlers_own_counts() {
    let crew = Crew::new();
    let ids = [crew.ready_task("a", 5), crew.ready_task("b", 6)];
    let mut client = crew.run("writer", "R1");
    let given = Held { task: name("own"), token: 4, nonce: "n".into(), agent: name("writer") };
    assert_eq!(client.held(None, Some(given.clone())).unwrap(), given);
    claim(&mut client).unwrap();
    assert!(matches!(client.held(None, Some(given)), Err(ClientError::SeveralClaims(_))));
    claim(&mut client).unwrap();
    assert!(matches!(client.held(None, None), Err(ClientError::SeveralClaims(held)) if held.len() == 2));
    assert_eq!(client.held(Some(&ids[1]), None).unwrap().token, 6);
}

#[test]
fn a_note_whose_claim_never_came_to_be_is_passed_over() {
    let crew = Crew::new();
    let id = crew.ready_task("a", 5);
    let mut loser = crew.run("writer", "R1");
    let won = claim(&mut crew.run("writer", "R2")).unwrap().lock;
    loser.note(&Lock { nonce: "other".into(), run: Some(name("R1")), ..won }).unwrap();
    assert!(loser.notes().unwrap().is_empty(), "another holds it");
    crew.store.unlink(&crew.layout.lock(&id)).unwrap();
    assert!(loser.notes().unwrap().is_empty(), "nobody holds it");
}

#[test]
fn a_beat_adds_a_line_and_renews_what_the_run_holds() {
    let crew = Crew::new();
    let id = crew.ready_task("a", 5);
    let mut client = crew.run("writer", "R1");
    claim(&mut client).unwrap();
    let before = crew.store.stat(&crew.layout.lock(&id)).unwrap().unwrap();
    let heartbeat = crew.layout.heartbeat(&name("writer"));
    crew.store.create_dir(&crew.layout.status_dir()).unwrap();
    let beat = Beat { at: NOW, progress: Some(1), ..Beat::default() };
    // The file system's clock ticks coarsely: beat until it shows, which is what the supervisor sees.
    let renewed = (0..100_000).any(|_| {
        client.beat(&heartbeat, &beat).unwrap();
        let after = crew.store.stat(&crew.layout.lock(&id)).unwrap().unwrap();
        assert_eq!((after.ino, after.size), (before.ino, before.size));
        after.mtime_ns > before.mtime_ns
    });
    assert!(renewed);
    let text = crew.store.read_at(&heartbeat, 0, 36).unwrap();
    assert_eq!(text, format!("{beat}\n").into_bytes());
    assert!(!crew.store.touch(&crew.layout.lock(&name("none"))).unwrap());
    assert!(!crew.has(&crew.layout.lock(&name("none"))), "a touch makes no lock");
}

#[test]
fn tasks_are_listed_by_state_and_what_is_odd_is_named() {
    let crew = Crew::new();
    let operator = crew.operator();
    let ready = crew.ready_task("a", 1);
    let held = crew.ready_task("b", 2);
    let new = accepted(crew.operator().submit(order("write", "1", &key_of("c")), None, NOW));
    crew.run("writer", "R1").claim(&[], &owner(), NOW).unwrap().unwrap();
    crew.write(&crew.layout.task(&name("odd")), b"{\"v\":1");
    crew.write(&crew.layout.task(&name("later")), b"{\"v\":99}\n");
    let listing = operator.tasks(&Standing::ALL).unwrap();
    let standings: Vec<_> = listing.tasks.iter().map(|found| found.standing).collect();
    assert_eq!(standings, [Standing::New, Standing::Ready, Standing::Claimed]);
    assert_eq!(listing.tasks[0].record.id, new);
    assert_eq!(listing.tasks[2].line().owner.as_deref(), Some("writer"));
    assert_eq!(listing.unreadable.len(), 2, "{:?}", listing.unreadable);
    assert!(operator.tasks(&[Standing::Done]).unwrap().tasks.is_empty());
    assert!([&ready, &held].contains(&&listing.tasks[1].record.id));
}

#[test]
fn agents_are_known_by_file_status_or_stop_and_a_near_name_is_found() {
    let crew = Crew::new();
    crew.write(&crew.layout.agents().join("intake.sh"), b"#!/bin/sh\n");
    crew.write(&crew.layout.status(&name("editor")), b"{}");
    crew.operator().stop(&name("gone"), "x").unwrap();
    let agents = crew.operator().agents().unwrap();
    assert_eq!(agents.iter().map(AgentName::as_str).collect::<Vec<_>>(), ["editor", "gone", "intake"]);
    assert_eq!(nearest(&name("intaek"), &agents).map(AgentName::as_str), Some("intake"));
    assert_eq!(nearest(&name("zzz"), &agents), None);
}

#[test]
fn a_request_is_asked_answered_and_cleared_away() {
    let crew = Crew::new();
    let mut operator = crew.operator();
    let (id, answer) = operator.ask(Ask::Restart { agents: vec![name("a")] }).unwrap();
    assert!(crew.has(&crew.layout.request(&id)));
    assert!(operator.take_answer(&id).unwrap().is_none());
    crew.write(&answer, &encode(&Answer { v: 1, id: id.clone(), ok: true, text: "restarting a".into() }));
    assert!(operator.take_answer(&id).unwrap().unwrap().ok);
    assert!(!crew.has(&answer));
    operator.withdraw(&id).unwrap();
    assert!(!crew.has(&crew.layout.request(&id)));
    drop(crew.dir);
}

#[test]
fn an_update_is_queued_in_the_callers_name_in_order() {
    use super::memory::Fate;
    use crate::protocol::update::{Operation, Update};

    let crew = Crew::new();
    let mut client = crew.run("librarian", "R1");
    let key = "reading/list".parse().unwrap();
    let first = client.remember(Operation::Append, &key, Some(&payload("[1]"))).unwrap();
    let second = client.remember(Operation::Delete, &key, None).unwrap();
    assert_eq!((first.seq(), second.seq()), (1, 2));
    let update: Update = crew.read(&crew.layout.update(&name("librarian"), 1));
    assert_eq!((update.op, update.value), (Operation::Append, Some(serde_json::json!([1]))));
    assert_eq!(client.fate(&first).unwrap(), Fate::Pending);
    assert!(client.remember(Operation::Set, &key, None).is_err(), "a set needs a value");
    assert_eq!(client.recall(&key).unwrap(), None);
    crew.write(&crew.layout.value(&key), b"[1]\n");
    assert_eq!(client.recall(&key).unwrap().as_deref(), Some(&b"[1]\n"[..]));
}
