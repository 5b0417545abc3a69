//! A batch of submissions, on a disk and in a process that may end at any moment.

use std::fmt::Write as _;

use fastrand::Rng;
use nightcrew::app::client::batch::{Ordered, Settled, parse};
use nightcrew::app::client::{Caller, Client, ClientError};
use nightcrew::protocol::layout::Layout;
use nightcrew::protocol::record::decode;
use nightcrew::protocol::task::{TaskRecord, Wishes};
use nightcrew::protocol::time::Wall;

use crate::crashes::at;
use crate::disk::{Disk, Faults, Handle};

const COUNT: usize = 8;

/// Each needs the one before it, and they are handed in backwards.
fn lines() -> Vec<Ordered> {
    let mut text = String::new();
    for n in (0..COUNT).rev() {
        let needs = if n == 0 { String::new() } else { format!("\"t{}\"", n - 1) };
        let _ = writeln!(text, "{{\"kind\":\"k\",\"id\":\"t{n}\",\"needs\":[{needs}]}}");
    }
    parse(text.as_bytes(), &Wishes::default(), Wall(0)).expect("lines")
}

fn crew(seed: u64) -> (Disk, Layout) {
    let (disk, layout) = (Disk::new(seed), Layout::new("/crew"));
    for dir in layout.directories() {
        disk.mkdir(&dir);
    }
    disk.settle();
    (disk, layout)
}

fn submit(process: &Handle, layout: &Layout, seed: u64) -> Result<Vec<Settled>, ClientError> {
    let mut client = Client::new(process.clone(), layout.clone(), Caller::Operator, 1, Rng::with_seed(seed));
    client.submit_all(lines(), None, Wall(0))
}

/// The numbers of the tasks that are submitted, each of which must be whole.
fn submitted(disk: &Disk, layout: &Layout) -> Vec<usize> {
    let dir = layout.new_tasks();
    let names = disk.names(&dir);
    let number = |name: &String| {
        let bytes = disk.text(&dir.join(name)).expect("a file");
        let record: TaskRecord = decode(&bytes).expect("a whole record");
        assert_eq!(format!("{}.json", record.id), *name);
        record.id.as_str()[1..].parse().expect("a number")
    };
    let mut numbers: Vec<usize> = names.iter().map(number).collect();
    numbers.sort_unstable();
    numbers
}

#[test]
fn what_is_acknowledged_is_durable_and_what_is_needed_comes_first() {
    let mut acknowledged = 0;
    for changes in 1.. {
        for power_goes in [false, true] {
            let (disk, layout) = crew(changes);
            let process = disk.process();
            process.kill_after(changes);
            let told = submit(&process, &layout, changes);
            if power_goes {
                disk.power_cut(&mut Rng::with_seed(changes));
            }
            let there = submitted(&disk, &layout);
            if told.is_ok() {
                assert_eq!(there.len(), COUNT, "killed after {changes} changes");
                acknowledged += 1;
            } else if !power_goes {
                assert_eq!(there, (0..there.len()).collect::<Vec<_>>(), "killed after {changes} changes");
            }
            // Whoever was not told hands all in again, and loses and doubles nothing.
            let again = submit(&disk.process(), &layout, !changes).expect("the disk is well");
            assert_eq!(again.iter().filter(|it| it.duplicate_of.is_none()).count(), COUNT - there.len());
            assert_eq!(submitted(&disk, &layout).len(), COUNT);
        }
        if acknowledged > 1 {
            assert!(changes > 3 * COUNT as u64, "only {changes} changes were tried");
            return;
        }
    }
}

#[test]
fn nothing_is_acknowledged_that_a_failing_disk_did_not_take() {
    let (mut failed, mut well) = (0, 0);
    for seed in 0..300 {
        let (disk, layout) = crew(seed);
        let faults = Faults { sync_error: 2_000, sync_dir_error: 2_000, io_error: 500, ..Faults::default() };
        disk.set_faults(faults);
        let told = submit(&disk.process(), &layout, seed);
        disk.set_faults(Faults::default());
        disk.power_cut(&mut Rng::with_seed(seed));
        let there = disk.names(&layout.new_tasks());
        if told.is_ok() {
            well += 1;
            assert_eq!(submitted(&disk, &layout).len(), COUNT, "seed {seed}");
        } else {
            failed += 1;
            assert!(there.len() <= COUNT);
        }
        assert!(disk.names(at("/crew/state/tasks")).iter().any(|name| name == "new"));
    }
    assert!(failed > 50 && well > 50, "{failed} failed, {well} did not");
}
