use rustix::io::Errno;
use serde_json::json;

use super::*;
use crate::edge::faulty::Faulty;

type Log = SegmentedLog<Faulty>;

struct World {
    root: tempfile::TempDir,
    dir: PathBuf,
    store: Faulty,
}

impl World {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let store = Faulty::new(root.path());
        Self { dir: root.path().join("log"), store, root }
    }

    fn open(&self) -> (Log, Recovery) {
        SegmentedLog::open(self.store.clone(), &self.dir).unwrap()
    }

    fn segment(&self, first: u64) -> PathBuf {
        Layout::segment(&self.dir, first)
    }

    fn edit(&self, first: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let mut bytes = std::fs::read(self.segment(first)).unwrap();
        change(&mut bytes);
        std::fs::write(self.segment(first), bytes).unwrap();
    }
}

const SYNC: &str = "sync 0000000000000001.jsonl";
const REWRITE: &str = "rewrite 0000000000000001.jsonl";

fn root_name(world: &World) -> String {
    world.root.path().file_name().unwrap().to_string_lossy().into_owned()
}

fn bodies(ns: std::ops::Range<u64>) -> Vec<Body> {
    ns.map(|n| Body::of(&json!({ "n": n })).unwrap()).collect()
}

fn ns(log: &Log) -> Vec<u64> {
    let parse = |(_, body): &(u64, String)| serde_json::from_str::<serde_json::Value>(body).unwrap();
    log.tail(u64::MAX).unwrap().iter().map(|line| parse(line)["n"].as_u64().unwrap()).collect()
}

#[test]
fn a_log_goes_on_where_it_stood() {
    let world = World::new();
    let (mut log, recovery) = world.open();
    assert_eq!(recovery, Recovery::default());
    assert_eq!(log.append_commit(&bodies(0..3)), Ok(2));
    assert_eq!(log.append_commit(&bodies(3..4)), Ok(6));
    drop(log);
    world.store.take_calls();
    let (mut log, recovery) = world.open();
    let above = format!("sync_dir {}", root_name(&world));
    let [dir, rewritten, synced] = ["sync_dir log", REWRITE, SYNC].map(str::to_owned);
    let synced = ["create_dir log".to_owned(), above, dir, rewritten, synced];
    assert_eq!(world.store.take_calls(), synced, "the tail and its name are durable before they are trusted");
    assert_eq!(recovery, Recovery { committed: 7, aside: Vec::new() });
    assert_eq!(log.append_commit(&bodies(4..5)), Ok(8));
    assert_eq!(ns(&log), [0, 1, 2, 3, 4]);
}

#[test]
fn one_commit_is_one_write_and_one_fdatasync() {
    let world = World::new();
    let (mut log, _) = world.open();
    world.store.take_calls();
    log.append_commit(&bodies(0..100)).unwrap();
    let name = "0000000000000001.jsonl";
    assert_eq!(world.store.take_calls(), [format!("append {name}"), format!("sync {name}")]);
}

#[test]
fn a_torn_tail_is_kept_aside_and_cut() {
    let world = World::new();
    let (mut log, _) = world.open();
    log.append_commit(&bodies(0..2)).unwrap();
    log.append_commit(&bodies(2..4)).unwrap();
    drop(log);
    world.edit(1, |bytes| bytes.truncate(bytes.len() - 5));
    let (mut log, recovery) = world.open();
    let [aside] = &recovery.aside[..] else { panic!("{recovery:?}") };
    assert_eq!((aside.why, recovery.committed), (Kept::Torn, 4));
    assert_eq!(std::fs::read(&aside.path).unwrap().len() as u64, aside.len);
    assert!(aside.path.to_string_lossy().ends_with(".jsonl.torn-1"));
    assert_eq!(ns(&log), [0, 1]);
    log.append_commit(&bodies(9..10)).unwrap();
    drop(log);
    let (log, recovery) = world.open();
    assert!(recovery.aside.is_empty());
    assert_eq!(ns(&log), [0, 1, 9]);
}

#[test]
fn damage_is_kept_aside_and_the_rest_kept() {
    let world = World::new();
    let (mut log, _) = world.open();
    for n in 0..3 {
        log.append_commit(&bodies(n..n + 1)).unwrap();
    }
    drop(log);
    let header_len = framing::header_line(1, 0, 0).len();
    world.edit(1, |bytes| bytes[header_len + 9] ^= 1);
    let (mut log, recovery) = world.open();
    assert_eq!(recovery.aside.iter().map(|aside| aside.why).collect::<Vec<_>>(), [Kept::Damaged]);
    assert_eq!(recovery.committed, 7);
    assert_eq!(ns(&log), [1, 2]);
    // A new segment, so that the damaged one stays as it is and is reported once.
    assert_eq!(log.append_commit(&bodies(3..4)), Ok(9));
    drop(log);
    let (log, recovery) = world.open();
    assert!(recovery.aside.is_empty());
    assert_eq!(ns(&log), [1, 2, 3]);
}

#[test]
fn a_segment_of_garbage_costs_only_itself() {
    let world = World::new();
    let (mut log, _) = world.open();
    log.append_commit(&bodies(0..1)).unwrap();
    drop(log);
    world.edit(1, |bytes| bytes.fill(0));
    let (mut log, recovery) = world.open();
    assert_eq!(recovery.aside.len(), 1);
    log.append_commit(&bodies(1..2)).unwrap();
    assert_eq!(ns(&log), [1]);
    drop(log);
    assert!(world.open().1.aside.is_empty());
}

#[test]
fn a_long_segment_is_followed_by_a_durable_new_one() {
    let world = World::new();
    let (mut log, _) = SegmentedLog::open_sized(world.store.clone(), &world.dir, 200).unwrap();
    log.append_commit(&bodies(0..5)).unwrap();
    world.store.take_calls();
    assert_eq!(log.append_commit(&bodies(5..6)), Ok(9));
    let expected = [
        "unlink .segment.tmp",
        "create .segment.tmp",
        "append .segment.tmp",
        "sync .segment.tmp",
        "rename 0000000000000008.jsonl",
        "sync_dir log",
        "append 0000000000000008.jsonl",
        "sync 0000000000000008.jsonl",
    ];
    assert_eq!(world.store.take_calls(), expected);
    drop(log);
    // What lies beyond the committed end of an older segment is ignored.
    let (lines, _) = framing::commit_lines(8, &bodies(66..67));
    world.edit(1, |bytes| bytes.extend(lines));
    let (log, recovery) = world.open();
    assert_eq!(recovery.committed, 10);
    assert_eq!(ns(&log), [0, 1, 2, 3, 4, 5]);
    let last: Vec<_> = log.tail(1).unwrap();
    assert_eq!(last, [(9, "{\"n\":5}".to_owned())], "the last commit, however long");
    let size = world.store.stat(&world.segment(8)).unwrap().unwrap().size;
    assert_eq!(log.tail(size).unwrap(), [(9, "{\"n\":5}".to_owned())]);
}

#[test]
fn a_full_disk_takes_nothing_and_may_be_tried_again() {
    let world = World::new();
    let (mut log, _) = world.open();
    log.append_commit(&bodies(0..1)).unwrap();
    world.store.fail_next("append", ".jsonl", Errno::NOSPC);
    let fault = log.append_commit(&bodies(1..3)).unwrap_err();
    assert!(matches!(&fault, Fault::Full(why) if why.contains("0000000000000001.jsonl")), "{fault}");
    assert_eq!(log.append_commit(&bodies(1..3)), Ok(4));
    assert_eq!(ns(&log), [0, 1, 2]);
    drop(log);
    assert!(world.open().1.aside.is_empty());
}

#[test]
fn a_failed_fdatasync_latches_and_leaves_what_was_acknowledged() {
    let world = World::new();
    let (mut log, _) = world.open();
    log.append_commit(&bodies(0..1)).unwrap();
    world.store.fail_next("sync", ".jsonl", Errno::IO);
    world.store.take_calls();
    assert!(matches!(log.append_commit(&bodies(1..2)), Err(Fault::Broken(_))));
    let marked = world.store.take_calls().pop();
    assert!(
        marked.is_some_and(|call| call.starts_with("rename") && call.ends_with(".suspect")),
        "whole or not"
    );
    assert!(matches!(log.append_commit(&bodies(2..3)), Err(Fault::Broken(_))));
    assert!(world.store.take_calls().is_empty(), "nothing is tried again");
    drop(log);
    let before = world.store.stat(&world.segment(1)).unwrap().unwrap();
    let (mut log, recovery) = world.open();
    let calls = world.store.take_calls();
    let removed = calls.iter().rposition(|call| call.starts_with("unlink") && call.ends_with(".suspect"));
    let durably = calls.iter().rposition(|call| call.starts_with("sync_dir"));
    assert!(
        removed.is_some() && removed < durably,
        "a mark that came back would cut what follows: {calls:?}"
    );
    let after = world.store.stat(&world.segment(1)).unwrap().unwrap();
    assert_ne!(before.ino, after.ino, "the acknowledged prefix was written anew");
    assert_eq!(recovery, Recovery { committed: 3, aside: Vec::new() });
    log.append_commit(&bodies(5..6)).unwrap();
    assert_eq!(ns(&log), [0, 5]);
    drop(log);
    assert_eq!(world.store.stat(&world.segment(1)).unwrap().unwrap().ino, after.ino);
}

#[test]
fn what_a_start_could_not_make_durable_is_written_anew_by_the_next() {
    let world = World::new();
    let (mut log, _) = world.open();
    log.append_commit(&bodies(0..1)).unwrap();
    log.append_commit(&bodies(1..2)).unwrap();
    drop(log);
    let inode = || world.store.stat(&world.segment(1)).unwrap().unwrap().ino;
    let before = inode();
    world.store.fail_next("sync", ".jsonl", Errno::IO);
    let opened = SegmentedLog::open(world.store.clone(), &world.dir);
    assert!(matches!(opened.err(), Some(LogError::Io { .. })));
    let (log, recovery) = world.open();
    assert_ne!(inode(), before, "a sync that works now says nothing of the pages that one before it gave up");
    assert_eq!(recovery, Recovery { committed: 5, aside: Vec::new() });
    assert_eq!(ns(&log), [0, 1]);
    drop(log);
    let anew = inode();
    drop(world.open());
    assert_eq!(inode(), anew, "once");
}

#[test]
fn a_segment_changed_under_us_stops_the_log() {
    for change in ["removed", "edited"] {
        let world = World::new();
        let (mut log, _) = world.open();
        match change {
            "removed" => world.store.unlink(&world.segment(1)).unwrap(),
            _ => world.edit(1, |bytes| bytes.push(b'\n')),
        }
        assert!(matches!(log.append_commit(&bodies(0..1)), Err(Fault::Broken(_))), "{change}");
    }
}

#[test]
fn a_newer_segment_is_left_alone() {
    let world = World::new();
    drop(world.open());
    let text = r#"{"seq":1,"segment":{"v":2,"previous":0,"committed":0}"#;
    let line = format!("{text},\"crc\":\"{:08x}\"}}\n", crc32fast::hash(text.as_bytes()));
    world.edit(1, |bytes| *bytes = line.into_bytes());
    let opened = SegmentedLog::open(world.store.clone(), &world.dir);
    assert!(matches!(opened.err(), Some(LogError::Newer { v: 2, .. })));
}

#[test]
fn a_segment_is_examined_in_pieces() {
    let world = World::new();
    let (mut log, _) = world.open();
    let long = Body::of(&json!({ "n": 0, "text": "x".repeat(CHUNK_LEN * 5 / 2) })).unwrap();
    log.append_commit(&[long]).unwrap();
    for n in 1..20 {
        let body = Body::of(&json!({ "n": n, "text": "x".repeat(CHUNK_LEN / 3) })).unwrap();
        log.append_commit(&[body]).unwrap();
    }
    drop(log);
    world.edit(1, |bytes| bytes[CHUNK_LEN * 5] ^= 1);
    let (log, recovery) = world.open();
    assert_eq!(recovery.aside.len(), 1);
    assert!(recovery.aside[0].len < CHUNK_LEN as u64);
    let found = examine(&world.store, &world.segment(1)).unwrap();
    let (from, last) = found.last.unwrap();
    assert!(
        last.starts_with(b"{\"seq\":40,\"n\":19,"),
        "the last commit is the one that is written over itself"
    );
    assert_eq!(from + last.len() as u64, found.valid_len);
    let len = usize::try_from(found.len).unwrap();
    assert!(std::fs::read(world.segment(1)).unwrap()[..len].ends_with(&last));
    assert_eq!(ns(&log).len(), 19);
}
