//! What an earlier supervisor left, taken up.

use super::*;
use crate::edge::signals::SignalEvent;

#[test]
fn files_made_for_runs_that_are_gone_are_cleared_at_the_start() {
    let mut crew = Crew::new();
    let agent: AgentName = "beater".parse().unwrap();
    let run: RunId = "01JD0000000000000000000000".parse().unwrap();
    let of_run = [
        crew.layout.payload(&agent, &run),
        crew.layout.heartbeat_of_run(&agent, &run),
        crew.layout.claim_note(&agent, &run, &"task".parse().unwrap()),
    ];
    let kept = [crew.layout.heartbeat(&agent), crew.layout.tmp(&agent).join("own.payload")];
    for path in of_run.iter().chain(&kept) {
        crew.supervisor.store.write_new(path, b"", false).unwrap();
    }
    crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
    assert!(of_run.iter().all(|path| !path.exists()));
    assert!(kept.iter().all(|path| path.exists()));
}

#[test]
fn temporary_files_of_commands_that_are_gone_are_removed() {
    let crew = Crew::new();
    let tmp = crew.layout.tmp(&"beater".parse().unwrap());
    let dirs = [&tmp, &crew.layout.tmp_of_operator()];
    let files = |name: &str| dirs.map(|dir| dir.join(name));
    let (gone, alive, own) = (files("7.1.tmp"), files("8.1.tmp"), files("7.of-mine.tmp"));
    for path in gone.iter().chain(&alive).chain(&own) {
        crew.supervisor.store.write_new(path, b"", false).unwrap();
    }
    let store = &crew.supervisor.store;
    for dir in tmp_of_commands(store, &crew.layout) {
        clear_files_of_commands(store, &dir, |pid| pid == 7);
    }
    assert!(gone.iter().all(|path| !path.exists()));
    assert!(alive.iter().chain(&own).all(|path| path.exists()));
}

const SETTLED: &str = "settled";

#[test]
fn a_review_that_was_decided_before_a_crash_is_not_decided_again() {
    let task: TaskId = "t".parse().unwrap();
    for (shelf, token, goes) in [(Shelf::Done, 3, true), (Shelf::Dead, 4, true), (Shelf::Dead, 2, false)] {
        let mut crew = Crew::new();
        let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
        let put = |path: &Path, text: &str| store.write_new(path, text.as_bytes(), false).unwrap();
        let made = r#""made":{"agent":"beater","nonce":"n","gate":"g"},"at""#;
        let reviewed = record_of(&task, "review", 3).replace(r#""at""#, made);
        put(&layout.ended(Shelf::Review, &task), &reviewed);
        put(&layout.result_on(Shelf::Review, &task), "made");
        put(&layout.ended(shelf, &task), &record_of(&task, shelf.as_str(), token));
        crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
        assert_eq!(!layout.ended(Shelf::Review, &task).exists(), goes, "{shelf:?}, {token}");
        assert_eq!(!layout.result_on(Shelf::Review, &task).exists(), goes);
        assert_eq!(layout.ended(shelf, &task).exists(), goes, "the earlier goes");
        let request = r#"{"v":1,"id":"r","ask":"approve","task":"t"}"#;
        put(&layout.request(&"r".parse().unwrap()), request);
        crew.turn_after(0, vec![Message::Signal(SignalEvent::Rescan)]);
        assert_eq!(crew.tells(|fact| matches!(fact, Fact::Judged { .. })), !goes, "nor before that is done");
    }
}

/// A record that names a claim as decided if it has ended.
pub(super) fn record_of(id: &TaskId, state: &str, token: u64) -> String {
    let head = format!(r#"{{"v":1,"id":"{id}","token":{token},"nonce":"n","kind":"k","state":"{state}""#);
    let decided = if state == "done" { SETTLED } else { "nothing" };
    format!(r#"{head},"at":"2026-11-20T03:00:00Z","decided":["{decided}"],"payload":1}}"#)
}

#[test]
fn a_dead_letter_whose_next_life_is_done_is_removed() {
    let task: TaskId = "t".parse().unwrap();
    let mut crew = Crew::new();
    let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
    for (shelf, token) in [(Shelf::Dead, 2), (Shelf::Done, 3)] {
        let record = record_of(&task, shelf.as_str(), token);
        store.write_new(&layout.ended(shelf, &task), record.as_bytes(), false).unwrap();
    }
    crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
    assert!(!layout.ended(Shelf::Dead, &task).exists());
    assert!(layout.ended(Shelf::Done, &task).exists());
}

#[test]
fn what_was_submitted_within_a_claim_that_a_power_cut_took_goes_with_it() {
    let (task, new): (TaskId, TaskId) = ("t".parse().unwrap(), "new".parse().unwrap());
    let agent: AgentName = "beater".parse().unwrap();
    for (lock, goes) in [(None, true), (Some(""), true), (Some("n"), false), (Some("other"), true)] {
        let mut crew = Crew::new();
        let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
        let put = |path: &Path, text: &str| store.write_new(path, text.as_bytes(), false).unwrap();
        let name = BoundName { task: task.clone(), token: 5, nonce: "n".into(), new: new.clone() };
        let bound = layout.bound(&agent, &name);
        store.create_dir(&layout.bound_of(&agent)).unwrap();
        put(&bound, "{}");
        put(&layout.task(&task), &record_of(&task, "ready", 5));
        let whole =
            r#"{"v":1,"task":"t","token":5,"nonce":"n","agent":"beater","at":"2026-11-20T03:00:00Z"}"#;
        if let Some(nonce) = lock {
            let text = whole.replace(r#""n""#, &format!("\"{nonce}\""));
            put(&layout.lock(&task), if nonce.is_empty() { "" } else { &text });
        }
        crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
        for _ in 0..25 {
            crew.turn_after(500, Vec::new());
        }
        assert_eq!(!bound.exists() || crew.removes(&bound), goes, "{lock:?}");
    }
}

#[test]
fn what_an_end_that_a_crash_cut_short_left_is_removed_without_a_word() {
    let (ended, open): (TaskId, TaskId) = ("ended".parse().unwrap(), "open".parse().unwrap());
    let agent: AgentName = "beater".parse().unwrap();
    for (nonce, is_settled) in [(SETTLED, true), ("another", false)] {
        let mut crew = Crew::new();
        let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
        let put = |path: &Path, text: &str| store.write_new(path, text.as_bytes(), false).unwrap();
        let lock = format!(r#"{{"v":1,"task":"{ended}","token":3,"nonce":"{nonce}","agent":"beater""#);
        put(&layout.lock(&ended), &format!(r#"{lock},"at":"2026-11-20T03:00:00Z"}}"#));
        put(&layout.ended(Shelf::Done, &ended), &record_of(&ended, "done", 3));
        put(&layout.task(&open), &record_of(&open, "ready", 5));
        let outputs =
            [(&ended, 3), (&open, 4), (&open, 5)].map(|(id, token)| layout.output(&agent, id, token));
        store.create_dir(&layout.outputs_of(&agent)).unwrap();
        for path in &outputs {
            put(path, "made");
        }
        crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
        assert_eq!(outputs.map(|path| path.exists()), [false, false, true]);
        assert_eq!(crew.removes(&layout.lock(&ended)), is_settled);
        assert_eq!(crew.tells(|fact| matches!(fact, Fact::Rejected { .. })), !is_settled);
    }
}

#[test]
fn the_lock_of_a_claim_that_was_concluded_is_removed_and_any_other_void_one_kept() {
    let task: TaskId = "t".parse().unwrap();
    for (nonce, is_concluded) in [(SETTLED, true), ("another", false)] {
        let mut crew = Crew::new();
        let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
        let record = record_of(&task, "ready", 5).replace("nothing", SETTLED);
        store.write_new(&layout.task(&task), record.as_bytes(), false).unwrap();
        let lock = format!(r#"{{"v":1,"task":"t","token":3,"nonce":"{nonce}","agent":"beater""#);
        let lock = format!(r#"{lock},"at":"2026-11-20T03:00:00Z"}}"#);
        store.write_new(&layout.lock(&task), lock.as_bytes(), false).unwrap();
        crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
        assert_eq!(crew.removes(&layout.lock(&task)), is_concluded);
        assert_eq!(crew.told.put_aside("t.lock").is_empty(), is_concluded);
    }
}

#[test]
fn an_outcome_that_the_later_of_two_records_names_is_dropped_without_a_word() {
    let task: TaskId = "t".parse().unwrap();
    let agent: AgentName = "beater".parse().unwrap();
    let mut crew = Crew::new();
    let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
    let outcome = layout.outcome(&agent, &task, 3, SETTLED);
    store.create_dir(&layout.outcomes_of(&agent)).unwrap();
    let text = format!(r#"{{"v":1,"task":"t","token":3,"nonce":"{SETTLED}","status":"done"}}"#);
    for (path, text) in [
        (layout.ended(Shelf::Done, &task), record_of(&task, "done", 3)),
        (layout.task(&task), record_of(&task, "ready", 3)),
        (outcome.clone(), text),
    ] {
        store.write_new(&path, text.as_bytes(), false).unwrap();
    }
    crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
    crew.turn_after(0, Vec::new());
    assert!(crew.removes(&outcome));
    assert!(!crew.tells(|fact| matches!(fact, Fact::OutcomeRefused { .. })));
}

#[test]
fn an_admission_that_a_crash_cut_short_is_carried_out_and_not_told_again() {
    let told = |nonce: &str| {
        let entry = r#"{"at":"2026-11-20T03:00:00Z","event":"submitted","task":"t","kind":"k","token":7,"by":"operator","#;
        (2, format!("{entry}\"nonce\":\"{nonce}\"}}"))
    };
    let given_up =
        (3, r#"{"at":"2026-11-20T03:00:00Z","event":"given_up","task":"t","token":8,"why":"x"}"#.to_owned());
    for (nonce, then, expected) in [("n", None, 7), ("other", None, 1), ("n", Some(given_up), 1)] {
        let mut crew = Crew::new();
        let record =
            r#"{"v":1,"id":"t","token":0,"nonce":"n","kind":"k","at":"2026-11-20T03:00:00Z","payload":1}"#;
        let path = crew.layout.new_task(&"t".parse().unwrap());
        crew.supervisor.store.write_new(&path, record.as_bytes(), false).unwrap();
        let told: Vec<_> = [told(nonce)].into_iter().chain(then).collect();
        let history = History { facts: facts_in(&told), ..nothing_before() };
        crew.supervisor.recover(Vec::new(), history).unwrap();
        crew.told.jobs.borrow_mut().clear();
        crew.turn_after(0, Vec::new());
        let jobs = crew.told.jobs.borrow();
        let admits = |job: &&Job| job.last.contains(&Change::Remove { path: path.clone() });
        let job = jobs.iter().find(admits).expect("it is admitted");
        let [Change::Write { bytes, .. }] = &job.then[..] else { panic!("{job:?}") };
        let bytes = String::from_utf8_lossy(bytes);
        assert!(bytes.contains(&format!("\"token\":{expected},")), "{bytes}");
        assert_eq!(job.entries.is_empty(), expected == 7, "{job:?}");
    }
}

#[test]
fn watches_that_are_missing_are_tried_again_at_each_scan() {
    let mut crew = Crew::new();
    crew.turn_after(0, vec![Message::Hint(Hint::Failed("no room".into()))]);
    // The loop wakes to show that; to sleep past it would be a pause of the machine.
    crew.turn_after(25, Vec::new());
    crew.turn_after(SCAN_MS, Vec::new());
    assert_eq!(crew.told.watches.get(), 1);
    crew.turn_after(SCAN_MS, Vec::new());
    assert_eq!(crew.told.watches.get(), 1, "nothing failed since");
}

/// A task that is ready under token 5, and the outcome of a claim to it; no lock.
fn handed_in(crew: &Crew, agent: &str) {
    let (id, agent): (_, AgentName) = ("t".parse().unwrap(), agent.parse().unwrap());
    let record = br#"{"v":1,"id":"t","token":5,"nonce":"n0","kind":"k","at":"2026-11-20T03:00:00Z","by":"x","state":"ready","failures":0,"payload":1}"#;
    let outcome = br#"{"v":1,"task":"t","token":5,"nonce":"n1","status":"done"}"#;
    let store = &crew.supervisor.store;
    store.create_dir(&crew.layout.outcomes_of(&agent)).unwrap();
    store.write_new(&crew.layout.task(&id), record, false).unwrap();
    store.write_new(&crew.layout.outcome(&agent, &id, 5, "n1"), outcome, false).unwrap();
}

#[test]
fn what_was_handed_in_is_looked_at_before_work_is_given_out_anew() {
    let mut crew = Crew::new();
    handed_in(&crew, "worker");
    let manifest = crew.layout.agents().join("worker.toml");
    let worker = b"command = [\"sleep\", \"1000\"]\nhandles = [\"k\"]\n";
    crew.supervisor.store.write_new(&manifest, worker, false).unwrap();
    crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
    crew.supervisor.turn([]);
    let done = crew.layout.ended(Shelf::Done, &"t".parse().unwrap());
    let jobs = crew.told.jobs.borrow();
    let mut written = jobs.iter().flat_map(|job| &job.then);
    assert!(written.any(|change| matches!(change, Change::Write { path, .. } if *path == done)));
    assert_eq!(crew.told.put_aside("t.5.n1.json"), [] as [PathBuf; 0]);
}

#[test]
fn of_two_records_that_a_crash_left_each_says_what_is_decided() {
    let mut crew = Crew::new();
    handed_in(&crew, "worker");
    let done = crew.layout.ended(Shelf::Done, &"t".parse().unwrap());
    let record = br#"{"v":1,"id":"t","token":5,"nonce":"n0","kind":"k","at":"2026-11-20T03:00:00Z","by":"x","state":"done","failures":0,"decided":["n1"],"payload":1}"#;
    crew.supervisor.store.write_new(&done, record, false).unwrap();
    crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
    crew.supervisor.turn([]);
    assert_eq!(crew.told.put_aside("t.5.n1.json"), [] as [PathBuf; 0]);
}

#[test]
fn an_outcome_waits_until_it_can_be_told_who_holds_its_task() {
    let (id, worker): (TaskId, AgentName) = ("t".parse().unwrap(), "worker".parse().unwrap());
    let mut crew = Crew::new();
    let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
    store.write_new(&layout.task(&id), record_of(&id, "ready", 5).as_bytes(), false).unwrap();
    crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
    crew.turn_after(0, Vec::new());
    let lock = br#"{"v":1,"task":"t","token":5,"nonce":"n0","agent":"beater","at":"2026-11-20T03:00:00Z"}"#;
    let outcome = br#"{"v":1,"task":"t","token":5,"nonce":"n1","status":"done"}"#;
    let path = layout.outcome(&worker, &id, 5, "n1");
    store.create_dir(&layout.outcomes_of(&worker)).unwrap();
    store.write_new(&layout.lock(&id), lock, false).unwrap();
    store.write_new(&path, outcome, false).unwrap();
    store.fail_next("read", "t.lock", rustix::io::Errno::MFILE);
    let hint = Hint::Touched { area: Area::Outcomes, path, touch: Touch::Whole };
    crew.turn_after(0, vec![Message::Hint(hint)]);
    assert!(!crew.tells(|fact| matches!(fact, Fact::Outcome { .. } | Fact::OutcomeRefused { .. })));
    crew.turn_after(0, vec![Message::Hint(Hint::Rescan)]);
    assert!(!crew.tells(|fact| matches!(fact, Fact::Outcome { .. })));
    assert_eq!(crew.told.put_aside("t.5.n1.json").len(), 1, "it is not that of the claim");
}

#[test]
fn the_record_of_an_ended_task_that_could_not_be_removed_is_by_the_next_scan() {
    let ids: [TaskId; 4] = ["ended", "renewed", "unended", "known"].map(|id| id.parse().unwrap());
    let mut crew = Crew::new();
    let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
    let put = |path: &Path, text: &str| store.write_new(path, text.as_bytes(), false).unwrap();
    let [ended, renewed, unended, known] = &ids;
    put(&layout.task(known), &record_of(known, "ready", 5));
    crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
    for (id, token) in [(ended, 3), (renewed, 2), (known, 9)] {
        put(&layout.ended(Shelf::Done, id), &record_of(id, "done", token));
    }
    for id in [ended, renewed, unended] {
        put(&layout.task(id), &record_of(id, "ready", 3));
    }
    crew.turn_after(SCAN_MS, Vec::new());
    assert_eq!(ids.map(|id| layout.task(&id).exists()), [false, true, true, true]);
}

#[test]
fn a_stale_record_goes_before_the_task_can_end_where_it_lies() {
    let id: TaskId = "t".parse().unwrap();
    let mut crew = Crew::new();
    let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
    let dead = layout.ended(Shelf::Dead, &id);
    // Replayed, and a power cut took back that its record had left the shelf.
    for (path, state, token) in [(dead.clone(), "dead", 3), (layout.task(&id), "ready", 5)] {
        store.write_new(&path, record_of(&id, state, token).as_bytes(), false).unwrap();
    }
    let told = r#"{"at":"2026-11-20T03:00:00Z","event":"outcome","task":"t","token":5,"nonce":"n1","agent":"beater","status":"failed","error":"no","next":"dead"}"#;
    let history = History { facts: facts_in(&[(2, told.to_owned())]), ..nothing_before() };
    crew.supervisor.recover(Vec::new(), history).unwrap();
    let jobs = crew.told.jobs.borrow();
    let writes = |change: &Change| matches!(change, Change::Write { path, .. } if *path == dead);
    assert!(jobs.iter().flat_map(|job| &job.then).any(writes), "it ends there");
    drop(jobs);
    assert!(!crew.removes(&dead), "what one batch does last would come after that");
    assert!(!dead.exists());
}

/// A task that waits for another.
fn blocked(id: &TaskId, need: &str) -> String {
    record_of(id, "blocked", 4).replace(r#""at""#, &format!(r#""needs":["{need}"],"at""#))
}

#[test]
fn what_a_task_needs_is_open_though_an_earlier_life_of_it_lies_on_a_shelf() {
    let (task, need): (TaskId, TaskId) = ("a".parse().unwrap(), "b".parse().unwrap());
    for shelf in [Shelf::Dead, Shelf::Done] {
        let mut crew = Crew::new();
        let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
        let put = |path: &Path, text: &str| store.write_new(path, text.as_bytes(), false).unwrap();
        // Replayed; a crash came before its record had left the shelf.
        put(&layout.ended(shelf, &need), &record_of(&need, shelf.as_str(), 3));
        put(&layout.task(&need), &record_of(&need, "ready", 5));
        // Listed before what it needs.
        put(&layout.task(&task), &blocked(&task, "b"));
        crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
        crew.turn_after(0, Vec::new());
        let jobs = crew.told.jobs.borrow();
        let changes = jobs.iter().flat_map(|job| &job.then);
        let decided =
            changes.filter(|change| matches!(change, Change::Write { path, .. } if path.ends_with("a.json")));
        assert_eq!(decided.count(), 0, "{shelf:?}: it waits for the next life of that");
    }
}

#[test]
fn what_a_task_needs_may_turn_out_to_have_ended_once_it_can_be_read() {
    let (task, need): (TaskId, TaskId) = ("a".parse().unwrap(), "b".parse().unwrap());
    let mut crew = Crew::new();
    let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
    let put = |path: &Path, text: &str| store.write_new(path, text.as_bytes(), false).unwrap();
    // It ended; a crash came before its open record was removed.
    put(&layout.ended(Shelf::Done, &need), &record_of(&need, "done", 5));
    put(&layout.task(&need), &record_of(&need, "ready", 5));
    put(&layout.task(&task), &blocked(&task, "b"));
    store.fail_next("read", "tasks/b.json", rustix::io::Errno::MFILE);
    crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
    crew.turn_after(0, Vec::new());
    let goes_on = |crew: &Crew| {
        let jobs = crew.told.jobs.borrow();
        let is_its =
            |change: &Change| matches!(change, Change::Write { path, .. } if *path == layout.task(&task));
        jobs.iter().flat_map(|job| &job.then).any(is_its)
    };
    assert!(!goes_on(&crew), "that cannot be told yet");
    // The loop wakes to show what changed; to sleep past it would be a pause of the machine.
    crew.turn_after(25, Vec::new());
    crew.turn_after(SCAN_MS, Vec::new());
    assert!(goes_on(&crew) && !layout.task(&need).exists());
}

#[test]
fn a_record_moved_back_that_expired_does_so_no_more_and_a_submission_does() {
    for (token, state, expires) in [(5, "dead", false), (0, "new", true)] {
        let mut crew = Crew::new();
        let record = record_of(&"t".parse().unwrap(), state, token)
            .replace(r#""at""#, r#""expires":"2020-01-01T00:00:00Z","at""#);
        let (_, hint) = crew.task("t.json", &record);
        crew.turn_after(0, vec![hint]);
        let jobs = crew.told.jobs.take();
        let job = jobs.iter().find(|job| job.ticket.is_some()).expect("it is admitted");
        let [Change::Write { path, bytes }] = &job.then[..] else { panic!("{job:?}") };
        assert_eq!(String::from_utf8_lossy(bytes).contains("expires"), expires);
        crew.supervisor.store.write_new(path, bytes, false).unwrap();
        crew.turn_after(0, vec![Message::Writer(WriterReport::Done(Done::Stored(job.ticket.unwrap())))]);
        assert_eq!(crew.tells(|fact| matches!(fact, Fact::GivenUp { .. })), expires);
    }
}

#[test]
fn a_damaged_note_of_a_schedule_is_told_and_keeps_no_crew_from_starting() {
    for (text, told) in
        [("{\"v\":1,", true), (r#"{"v":1,"clock":"x","since":"2026-11-20T03:00:00Z"}"#, false)]
    {
        let mut crew = Crew::new();
        let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
        store.write_new(&layout.trigger(&"digest".parse().unwrap()), text.as_bytes(), false).unwrap();
        crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
        let alerts = |fact: &Fact| matches!(fact, Fact::Alert { key, .. } if key == "trigger-digest");
        assert_eq!(crew.tells(alerts), told, "{text}");
    }
}
