use rustix::io::Errno;

use super::*;
use crate::edge::faulty::Faulty;
use crate::protocol::ledger::Fact;
use crate::protocol::time::Wall;

struct World {
    root: tempfile::TempDir,
    store: Faulty,
    writer: Writer<Faulty>,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Faulty::new(root.path());
        let (writer, _) = Writer::open(store.clone(), &Layout::new(root.path()), 1).unwrap();
        store.create_dir(&root.path().join("records")).unwrap();
        store.create_dir(&root.path().join("inbox")).unwrap();
        store.take_calls();
        Self { root, store, writer }
    }

    fn at(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn put(&self, path: &str, text: &str) {
        std::fs::write(self.at(path), text).unwrap();
    }

    fn text(&self, path: &str) -> Option<String> {
        std::fs::read_to_string(self.at(path)).ok()
    }

    fn commit(&mut self, jobs: Vec<Job>) -> Result<Vec<Done>, Fault> {
        self.writer.commit(&mut Batch::new(jobs))
    }

    fn write(&self, path: &str, text: &str) -> Change {
        Change::Write { path: self.at(path), bytes: text.into() }
    }

    fn copy(&self, from: &str, to: &str) -> Change {
        Change::Copy { from: self.at(from), to: self.at(to), max: 100 }
    }

    fn rename(&self, from: &str, to: &str) -> Change {
        Change::Rename { from: self.at(from), to: self.at(to) }
    }

    fn remove(&self, path: &str) -> Change {
        Change::Remove { path: self.at(path) }
    }

    /// How many entries the ledger holds.
    fn told(&self) -> usize {
        self.writer.tail(u64::MAX).unwrap().len()
    }

    fn temps(&self) -> usize {
        std::fs::read_dir(Layout::new(self.root.path()).tmp_of_writer()).unwrap().count()
    }
}

fn entry() -> Entry {
    Entry { at: Wall(0), fact: Fact::Removed { agent: "a".parse().unwrap() } }
}

fn job(n: u64) -> Job {
    Job { entries: vec![entry()], ticket: Some(Ticket(n)), ..Job::default() }
}

#[test]
fn each_thing_is_durable_before_what_builds_on_it() {
    let mut world = World::new();
    world.put("inbox/out", "result");
    world.put("records/lock", "");
    let job = Job {
        before: vec![world.copy("inbox/out", "records/result"), world.write("records/first", "1")],
        then: vec![world.write("records/task", "done"), world.rename("records/task", "inbox/task")],
        last: vec![world.remove("records/lock")],
        ..job(7)
    };
    assert_eq!(world.commit(vec![job]), Ok(vec![Done::Stored(Ticket(7))]));
    let expected = [
        // The copy is made durable within `copy_durably`.
        "copy_durably out",
        "rename result",
        "create 1.2.tmp",
        "append 1.2.tmp",
        "sync 1.2.tmp",
        "rename first",
        "sync_dir records",
        "append 0000000000000001.jsonl",
        "sync 0000000000000001.jsonl",
        "create 1.3.tmp",
        "append 1.3.tmp",
        "sync 1.3.tmp",
        "rename task",
        "rename task",
        "sync_dir inbox",
        "sync_dir records",
        "unlink lock",
    ];
    assert_eq!(world.store.take_calls(), expected);
    assert_eq!(world.text("records/result").as_deref(), Some("result"));
    assert_eq!(world.text("inbox/task").as_deref(), Some("done"));
    assert_eq!((world.text("records/lock"), world.temps()), (None, 0));
}

#[test]
fn a_hundred_jobs_share_one_fdatasync_and_one_fsync_of_the_directory() {
    let mut world = World::new();
    let jobs: Vec<Job> =
        (0..100).map(|n| Job { before: vec![world.write(&format!("records/{n}"), "x")], ..job(n) }).collect();
    let done = world.commit(jobs).unwrap();
    assert_eq!(done, (0..100).map(|n| Done::Stored(Ticket(n))).collect::<Vec<_>>());
    let calls = world.store.take_calls();
    let count = |call: &str| calls.iter().filter(|made| *made == call).count();
    assert_eq!(count("sync 0000000000000001.jsonl"), 1);
    assert_eq!(count("sync_dir records"), 1);
    assert_eq!(world.told(), 100);
}

#[test]
fn of_two_writes_to_one_path_the_later_stays() {
    let mut world = World::new();
    let first = Job { before: vec![world.write("records/a", "1"), world.write("records/a", "2")], ..job(1) };
    let second = Job { before: vec![world.write("records/a", "3")], ..job(2) };
    world.commit(vec![first, second]).unwrap();
    assert_eq!(world.text("records/a").as_deref(), Some("3"));
}

#[test]
fn what_a_job_tidies_away_is_not_what_a_later_job_puts_there() {
    let mut world = World::new();
    world.put("records/a", "old");
    let tidy = |world: &World| Job { last: vec![world.remove("records/a")], ..job(1) };
    let put = |world: &World| Job { then: vec![world.write("records/a", "new")], ..job(2) };
    let jobs = vec![tidy(&world), put(&world)];
    world.commit(jobs).unwrap();
    assert_eq!(world.text("records/a").as_deref(), Some("new"));
    let jobs = vec![put(&world), tidy(&world)];
    world.commit(jobs).unwrap();
    assert_eq!(world.text("records/a"), None);
}

#[test]
fn bad_input_costs_its_own_job_alone() {
    let mut world = World::new();
    std::os::unix::fs::symlink("/etc/passwd", world.at("inbox/evil")).unwrap();
    world.put("inbox/huge", &"x".repeat(101));
    std::fs::create_dir(world.at("records/directory")).unwrap();
    let bad = [
        world.copy("inbox/evil", "records/e"),
        world.copy("inbox/huge", "records/h"),
        world.copy("inbox/missing", "records/m"),
        world.write("records/directory", "x"),
    ];
    let mut jobs: Vec<Job> = (10..)
        .zip(bad)
        .map(|(n, change)| Job {
            before: vec![change, world.write("records/later", "x")],
            last: vec![world.remove("inbox/huge")],
            ..job(n)
        })
        .collect();
    jobs.push(job(1));
    let done = world.commit(jobs).unwrap();
    assert_eq!(done.last(), Some(&Done::Stored(Ticket(1))));
    for (done, word) in done.iter().zip(["symlink", "101 bytes", "missing", "records/directory"]) {
        let Done::Refused { ticket: Some(_), reason } = done else { panic!("{done:?}") };
        assert!(reason.contains(word), "{reason}");
    }
    assert_eq!(world.told(), 1);
    assert_eq!((world.text("records/later"), world.temps()), (None, 0));
    assert!(world.text("inbox/huge").is_some());
}

#[test]
fn what_is_gone_already_is_no_error_and_a_missing_directory_is_made() {
    let mut world = World::new();
    world.put("inbox/a", "1");
    let job = Job {
        before: vec![
            world.rename("inbox/missing", "records/b"),
            world.remove("inbox/missing"),
            world.rename("inbox/a", "records/deep/er/a"),
            world.write("records/deep/c", "2"),
        ],
        ..job(1)
    };
    assert_eq!(world.commit(vec![job]), Ok(vec![Done::Stored(Ticket(1))]));
    assert_eq!(world.text("records/deep/er/a").as_deref(), Some("1"));
    assert_eq!(world.text("records/deep/c").as_deref(), Some("2"));
    let calls = world.store.take_calls();
    for dir in ["records", "deep", "er", "inbox"] {
        assert!(calls.contains(&format!("sync_dir {dir}")), "{dir}: {calls:?}");
    }
}

/// Wherever the disk is full, the same batch committed again does all of it, once.
#[test]
fn a_batch_that_found_no_room_is_finished_later_and_nothing_happens_twice() {
    let faults = [
        ("append", ".1.tmp"),
        ("sync", ".2.tmp"),
        ("append", ".jsonl"),
        ("copy_durably", "out"),
        ("append", ".4.tmp"),
    ];
    for (primitive, ending) in faults {
        let mut world = World::new();
        world.put("inbox/out", "result");
        let job = Job {
            before: vec![
                world.write("records/a", "1"),
                world.write("records/b", "2"),
                world.copy("inbox/out", "records/c"),
                world.remove("inbox/out"),
            ],
            then: vec![world.write("records/a", "3")],
            ..job(1)
        };
        let mut batch = Batch::new(vec![job]);
        world.store.fail_next(primitive, ending, Errno::NOSPC);
        let fault = world.writer.commit(&mut batch).unwrap_err();
        assert!(matches!(fault, Fault::Full(_)), "{primitive} {ending}: {fault}");
        assert_eq!(
            world.writer.commit(&mut batch),
            Ok(vec![Done::Stored(Ticket(1))]),
            "{primitive} {ending}"
        );
        assert_eq!(world.text("records/a").as_deref(), Some("3"));
        assert_eq!(world.text("records/c").as_deref(), Some("result"));
        assert_eq!((world.told(), world.temps()), (1, 0), "{primitive} {ending}");
    }
}

#[test]
fn after_a_failed_fsync_nothing_is_acknowledged_any_more() {
    for (primitive, ending) in [("sync", ".tmp"), ("sync_dir", "records"), ("sync", ".jsonl")] {
        let mut world = World::new();
        let with_change = |n| Job { before: vec![world.write("records/a", "1")], ..job(n) };
        let (first, second) = (with_change(1), with_change(2));
        world.store.fail_next(primitive, ending, Errno::IO);
        let fault = world.commit(vec![first]).unwrap_err();
        assert!(matches!(&fault, Fault::Broken(_)), "{primitive} {ending}");
        world.store.take_calls();
        assert_eq!(world.commit(vec![second]), Err(fault));
        assert!(world.store.take_calls().is_empty(), "nothing is tried again");
    }
}

#[test]
fn leftover_temp_files_are_cleared_at_the_start() {
    let World { root, store, writer } = World::new();
    drop(writer);
    let layout = Layout::new(root.path());
    store.write_new(&layout.tmp_of_writer().join("1.1.tmp"), b"half", false).unwrap();
    let (writer, _) = Writer::open(store.clone(), &layout, 1).unwrap();
    let world = World { root, store, writer };
    assert_eq!(world.temps(), 0);
}
