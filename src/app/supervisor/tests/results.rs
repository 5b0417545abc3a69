//! What was handed in: before whom it comes, and what is handed on of it.

use super::starts::record_of;
use super::*;

#[test]
fn who_handed_in_comes_before_whoever_cancels() {
    let task: TaskId = "t".parse().unwrap();
    let mut crew = Crew::new();
    let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
    let put = |path: &Path, text: &str| store.write_new(path, text.as_bytes(), false).unwrap();
    put(&layout.task(&task), &record_of(&task, "ready", 5));
    crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
    crew.turn_after(0, Vec::new());
    let lock = r#"{"v":1,"task":"t","token":5,"nonce":"n1","agent":"beater","at":"2026-11-20T03:00:00Z"}"#;
    put(&layout.lock(&task), lock);
    store.create_dir(&layout.outcomes_of(&"beater".parse().unwrap())).unwrap();
    let outcome = layout.outcome(&"beater".parse().unwrap(), &task, 5, "n1");
    put(&outcome, r#"{"v":1,"task":"t","token":5,"nonce":"n1","status":"done"}"#);
    let request = layout.request(&"r".parse().unwrap());
    put(&request, r#"{"v":1,"id":"r","ask":"cancel","tasks":["t"],"why":"x"}"#);
    let touched = Hint::Touched { area: Area::Requests, path: request, touch: Touch::Whole };
    crew.turn_after(0, vec![Message::Hint(touched)]);
    assert!(crew.tells(|fact| matches!(fact, Fact::Outcome { status, .. } if status == "done")));
}

#[test]
fn what_was_there_comes_before_whoever_cancels_a_group_though_no_hint_told() {
    let mut crew = Crew::new();
    let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
    let put = |path: &Path, text: &str| store.write_new(path, text.as_bytes(), false).unwrap();
    let of_group = |id: &str, state: &str, token: u64| {
        record_of(&id.parse().unwrap(), state, token).replace(r#""at""#, r#""group":"g","at""#)
    };
    let count = inbox::READ_MAX + 1;
    let ids: Vec<TaskId> = (0..count).map(|n| format!("t{n:04}").parse().unwrap()).collect();
    for id in &ids {
        put(&layout.task(id), &of_group(id.as_str(), "ready", 5));
    }
    crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
    for _ in 0..3 {
        crew.turn_after(0, Vec::new());
    }
    // The last of them is claimed and handed in, and another is submitted: more than a turn can look at.
    let (last, agent) = (ids.last().unwrap(), "beater".parse().unwrap());
    let lock = format!(
        r#"{{"v":1,"task":"{last}","token":5,"nonce":"n1","agent":"beater","at":"2026-11-20T03:00:00Z"}}"#
    );
    put(&layout.lock(last), &lock);
    store.create_dir(&layout.outcomes_of(&agent)).unwrap();
    let outcome = format!(r#"{{"v":1,"task":"{last}","token":5,"nonce":"n1","status":"done"}}"#);
    put(&layout.outcome(&agent, last, 5, "n1"), &outcome);
    put(&layout.new_task(&"new".parse().unwrap()), &of_group("new", "new", 0));
    let request = layout.request(&"r".parse().unwrap());
    put(&request, r#"{"v":1,"id":"r","ask":"cancel","tasks":[],"group":"g","why":"x"}"#);
    let touched = Hint::Touched { area: Area::Requests, path: request.clone(), touch: Touch::Whole };
    crew.turn_after(0, vec![Message::Hint(touched)]);
    assert_eq!(crew.supervisor.wait_ms(), 0, "there is more to look at");
    assert!(!crew.tells(|fact| matches!(fact, Fact::Control { .. })));
    crew.turn_after(0, Vec::new());
    assert!(crew.tells(|fact| matches!(fact, Fact::Outcome { status, .. } if status == "done")));
    let what = format!("cancel {} tasks", count + 1);
    assert!(crew.tells(|fact| matches!(fact, Fact::Control { what: told, .. } if *told == what)), "{what}");
    assert!(crew.supervisor.put_last.is_empty());

    // Whoever asked goes away: nobody is answered.
    assert!(crew.supervisor.state.carries_out(&"r".parse().unwrap()));
    store.unlink(&request).unwrap();
    let gone = Hint::Touched { area: Area::Requests, path: request, touch: Touch::Gone };
    crew.turn_after(0, vec![Message::Hint(gone)]);
    assert!(!crew.supervisor.state.carries_out(&"r".parse().unwrap()));
}

/// A task that is done by the claim of an agent with this manifest, of which this is the result; the supervisor has
/// looked at it.
fn done_by(crew: &mut Crew, manifest: &str, result: &[u8]) {
    let (layout, store) = (crew.layout.clone(), crew.supervisor.store.clone());
    let put = |path: &Path, text: &[u8]| store.write_new(path, text, false).unwrap();
    let (task, agent): (TaskId, AgentName) = ("t".parse().unwrap(), "worker".parse().unwrap());
    put(&layout.agents().join("worker.toml"), manifest.as_bytes());
    crew.turn_after(0, vec![Message::Hint(Hint::Rescan)]);
    crew.turn_after(500, Vec::new());
    put(&layout.task(&task), record_of(&task, "ready", 5).as_bytes());
    for dir in layout.directories_of(&agent) {
        store.create_dir(&dir).unwrap();
    }
    put(&layout.output(&agent, &task, 5), result);
    let outcome = br#"{"v":1,"task":"t","token":5,"nonce":"n1","status":"done"}"#;
    put(&layout.outcome(&agent, &task, 5, "n1"), outcome);
    let bound = record_of(&"new".parse().unwrap(), "new", 0);
    let name = BoundName { task, token: 5, nonce: "n1".into(), new: "new".parse().unwrap() };
    put(&layout.bound(&agent, &name), bound.as_bytes());
}

const HANDS_ON: &str = "command = [\"sleep\", \"1\"]\nhandles = [\"k\"]\nthen = \"next\"\n";

/// What is handed on, as it is written.
fn handed_on(crew: &Crew) -> Vec<String> {
    let jobs = crew.told.jobs.borrow();
    let written = jobs.iter().flat_map(|job| &job.before).filter_map(|change| match change {
        Change::Write { path, bytes } if path.starts_with(crew.layout.bound_dir()) => {
            Some(String::from_utf8_lossy(bytes).into_owned())
        }
        Change::Write { .. }
        | Change::Rename { .. }
        | Change::Copy { .. }
        | Change::Link { .. }
        | Change::Remove { .. } => None,
    });
    written.collect()
}

#[test]
fn a_result_is_handed_on_as_it_is_or_by_its_place_where_a_record_cannot_hold_it() {
    let json = r#"{"price":1.10}"#.to_owned();
    // Each of these bytes takes six in JSON.
    let long = "\u{1}".repeat(300_000);
    for (result, payload) in [(json.clone(), json), (long, r#"{"output_file":"#.into())] {
        let mut crew = Crew::new();
        done_by(&mut crew, HANDS_ON, result.as_bytes());
        crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
        let told = handed_on(&crew);
        let [next] = &told[..] else { panic!("{} are handed on", told.len()) };
        assert!(next.contains(&format!(r#""payload":{payload}"#)), "{}", &next[..next.len().min(500)]);
    }
}

#[test]
fn nothing_is_recorded_while_it_cannot_be_told_what_was_submitted_within() {
    let task: TaskId = "t".parse().unwrap();
    let mut crew = Crew::new();
    done_by(&mut crew, HANDS_ON, b"1");
    crew.supervisor.store.fail_next("list", "bound/worker", rustix::io::Errno::MFILE);
    crew.supervisor.recover(Vec::new(), nothing_before()).unwrap();
    let done = crew.layout.ended(Shelf::Done, &task);
    let submitted = crew.layout.new_task(&"new".parse().unwrap());
    let is_done = |crew: &Crew| {
        let jobs = crew.told.jobs.borrow();
        let writes = |change: &Change| matches!(change, Change::Write { path, .. } if *path == done);
        let links = |change: &Change| matches!(change, Change::Link { to, .. } if *to == submitted);
        let then = |is: &dyn Fn(&Change) -> bool| jobs.iter().flat_map(|job| &job.then).any(is);
        (then(&writes), then(&links))
    };
    assert_eq!(is_done(&crew), (false, false));
    for _ in 0..10 {
        crew.turn_after(250, Vec::new());
    }
    assert_eq!(is_done(&crew), (true, false), "before the record is durable, nothing counts");
    let writes = |change: &Change| matches!(change, Change::Write { path, .. } if *path == done);
    let recording = |job: &&Job| job.then.iter().any(writes);
    let ticket = crew.told.jobs.borrow().iter().find(recording).and_then(|job| job.ticket).unwrap();
    crew.turn_after(0, vec![Message::Writer(WriterReport::Done(Done::Stored(ticket)))]);
    assert_eq!(is_done(&crew), (true, true));
}
