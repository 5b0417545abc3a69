use crossbeam_channel::unbounded;
use rustix::io::Errno;

use super::*;
use crate::edge::faulty::Faulty;
use crate::edge::writer::Change;
use crate::protocol::layout::Layout;
use crate::protocol::ledger::{Entry, Fact};
use crate::protocol::time::Wall;

const PATIENCE: Duration = Duration::from_secs(30);

struct World {
    root: tempfile::TempDir,
    store: Faulty,
    thread: WriterThread,
    reports: Receiver<WriterReport>,
}

fn world() -> World {
    let root = tempfile::tempdir().unwrap();
    let store = Faulty::new(root.path());
    let (writer, _) = Writer::open(store.clone(), &Layout::new(root.path()), 1).unwrap();
    let (report, reports) = unbounded();
    let deliver = move |what| report.send(what).unwrap_or_default();
    let thread = WriterThread::start_retrying(writer, deliver, Duration::from_millis(20)).unwrap();
    World { root, store, thread, reports }
}

fn job(n: u64) -> Job {
    let fact = Fact::Removed { agent: "a".parse().unwrap() };
    Job { entries: vec![Entry { at: Wall(0), fact }], ticket: Some(Ticket(n)), ..Job::default() }
}

fn stored(n: u64) -> WriterReport {
    WriterReport::Done(Done::Stored(Ticket(n)))
}

#[test]
fn all_that_was_handed_over_is_stored_in_order_before_the_end() {
    let world = world();
    for n in 0..1000 {
        world.thread.push(job(n)).unwrap();
    }
    world.thread.finish(PATIENCE).unwrap();
    let reports: Vec<_> = world.reports.iter().collect();
    assert_eq!(reports, (0..1000).map(stored).collect::<Vec<_>>());
}

#[test]
fn a_full_disk_is_waited_out() {
    let world = world();
    for _ in 0..3 {
        world.store.fail_next("append", ".jsonl", Errno::NOSPC);
    }
    world.thread.push(job(1)).unwrap();
    let next = || world.reports.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(next(), WriterReport::Full(_)));
    assert_eq!(next(), stored(1));
    assert_eq!(next(), WriterReport::Recovered);
    world.thread.push(job(2)).unwrap();
    assert_eq!(next(), stored(2));
    world.thread.finish(PATIENCE).unwrap();
}

#[test]
fn a_disk_that_stays_full_does_not_hold_up_the_end() {
    let world = world();
    for _ in 0..100_000 {
        world.store.fail_next("append", ".jsonl", Errno::NOSPC);
    }
    world.thread.push(job(1)).unwrap();
    assert!(matches!(world.reports.recv_timeout(PATIENCE).unwrap(), WriterReport::Full(_)));
    world.thread.push(job(2)).unwrap();
    assert!(matches!(world.thread.finish(PATIENCE), Err(Unfinished::Refused(_))), "and that is told");
    let failed: Vec<_> = world.reports.iter().collect();
    for (report, n) in failed.iter().zip([1, 2]) {
        assert!(matches!(report, WriterReport::Failed { ticket: Ticket(t), .. } if *t == n), "{report:?}");
    }
    assert_eq!(failed.len(), 2);
}

#[test]
fn after_the_disk_failed_every_ticket_is_answered() {
    let world = world();
    world.store.fail_next("sync", ".jsonl", Errno::IO);
    world.thread.push(job(1)).unwrap();
    let next = || world.reports.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(next(), WriterReport::Broken(why) if why.contains("fdatasync")));
    assert!(matches!(next(), WriterReport::Failed { ticket: Ticket(1), .. }));
    world.thread.push(job(2)).unwrap();
    assert!(matches!(next(), WriterReport::Failed { ticket: Ticket(2), .. }));
    assert!(
        matches!(world.thread.finish(PATIENCE), Err(Unfinished::Refused(why)) if why.contains("fdatasync"))
    );
}

#[test]
fn more_than_may_wait_is_given_back() {
    let world = world();
    for _ in 0..100_000 {
        world.store.fail_next("append", ".jsonl", Errno::NOSPC);
    }
    world.thread.push(job(0)).unwrap();
    assert!(matches!(world.reports.recv_timeout(PATIENCE).unwrap(), WriterReport::Full(_)));
    let note = || Job { ticket: None, ..job(0) };
    let refused = (0..=QUEUE_LEN_MAX).filter_map(|_| world.thread.push(note()).err());
    assert_eq!(refused.collect::<Vec<_>>(), [note()]);
    world.thread.push(job(1)).expect("somebody waits for it");
    let change = Change::Write { path: world.root.path().join("tokens"), bytes: Vec::new() };
    world.thread.push(Job { before: vec![change], ..Job::default() }).expect("others build on it");
    world.thread.finish(PATIENCE).unwrap_err();
}

#[test]
fn a_refused_job_without_a_ticket_is_reported_too() {
    let world = world();
    let missing = Change::Copy { from: "/nowhere/a".into(), to: "/nowhere/b".into(), max: 1 };
    world.thread.push(Job { before: vec![missing], ..Job::default() }).unwrap();
    let report = world.reports.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(report, WriterReport::Done(Done::Refused { ticket: None, .. })), "{report:?}");
    world.thread.finish(PATIENCE).unwrap();
}
