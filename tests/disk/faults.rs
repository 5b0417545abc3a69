//! Faults of the simulated disk, what it tells of changes, and that it is the same again from the same seed.

use std::collections::BTreeMap;
use std::io;

use fastrand::Rng;
use nightcrew::edge::store::{ReadError, Store};
use rustix::io::Errno;

use crate::crashes::{at, fresh, text};
use crate::disk::{Change, ChangeKind, Disk, Faults};

const ALWAYS: u32 = 65_536;

fn errno<T>(done: io::Result<T>) -> Option<Errno> {
    Errno::from_io_error(&done.err()?)
}

#[test]
fn a_failed_sync_is_told_once_and_its_bytes_are_never_durable() {
    let mut read_back = [false; 2];
    for seed in 0..50 {
        let (disk, process) = fresh(seed);
        process.publish(at("/d/t"), at("/d/log"), b"kept ").expect("no faults");
        let (mut file, _) = process.open_append(at("/d/log")).expect("opened");
        process.append(&mut file, b"lost ").expect("written");
        disk.set_faults(Faults { sync_error: ALWAYS, ..Faults::default() });
        assert_eq!(errno(process.sync(&file)), Some(Errno::IO));
        disk.set_faults(Faults::default());
        let seen = text(&disk, "/d/log").expect("it is there");
        read_back[usize::from(seen == "kept lost ")] = true;
        process.sync(&file).expect("the second sync lies");
        disk.power_cut(&mut Rng::with_seed(seed));
        assert_eq!(text(&disk, "/d/log").as_deref(), Some("kept \0\0\0\0\0"));
    }
    assert_eq!(read_back, [true, true], "what is read after that may be either");
}

#[test]
fn what_a_failed_sync_dropped_is_durable_once_it_was_written_over_itself() {
    for seed in 0..50 {
        let (disk, process) = fresh(seed);
        process.publish(at("/d/t"), at("/d/log"), b"kept ").expect("no faults");
        let (mut file, _) = process.open_append(at("/d/log")).expect("opened");
        process.append(&mut file, b"lost ").expect("written");
        disk.set_faults(Faults { sync_error: ALWAYS, ..Faults::default() });
        assert_eq!(errno(process.sync(&file)), Some(Errno::IO));
        disk.set_faults(Faults::default());
        let seen = process.read(at("/d/log"), 99).expect("it is there").bytes;
        process.rewrite(at("/d/log"), 3, &seen[3..]).expect("written over itself");
        let mut cut = Rng::with_seed(seed);
        let early = disk.fork();
        early.power_cut(&mut cut);
        assert!(
            text(&early, "/d/log").is_some_and(|left| left.starts_with("kept ")),
            "it was durable before"
        );
        process.sync(&file).expect("no faults");
        disk.power_cut(&mut cut);
        assert_eq!(disk.text(at("/d/log")), Some(seen));
    }
}

#[test]
fn after_a_failed_sync_of_a_directory_nothing_changes_until_the_power_comes_back() {
    let mut kept = [false, false];
    for seed in 0..50 {
        let (disk, process) = fresh(seed);
        process.publish(at("/d/t"), at("/d/x"), b"old").expect("no faults");
        disk.set_faults(Faults { sync_dir_error: ALWAYS, ..Faults::default() });
        assert_eq!(errno(process.publish(at("/d/t"), at("/d/x"), b"new")), Some(Errno::IO));
        disk.set_faults(Faults::default());
        assert!(disk.is_aborted());
        assert_eq!(text(&disk, "/d/x").as_deref(), Some("new"));
        assert_eq!(errno(process.sync_dir(at("/d"))), Some(Errno::IO));
        assert_eq!(errno(process.publish(at("/d/t"), at("/d/y"), b"later")), Some(Errno::ROFS));
        disk.power_cut(&mut Rng::with_seed(seed));
        let left = text(&disk, "/d/x");
        assert!(matches!(left.as_deref(), Some("old" | "new")), "{left:?}");
        kept[usize::from(left.as_deref() == Some("new"))] = true;
        disk.process().publish(at("/d/u"), at("/d/y"), b"later").expect("mounted anew");
    }
    assert_eq!(kept, [true, true], "what was pending may be there or not");
}

#[test]
fn a_full_disk_takes_what_fits_and_gives_back_what_is_removed() {
    let (disk, process) = fresh(0);
    disk.put(at("/d/old"), &[b'x'; 10]);
    disk.set_faults(Faults { space: Some(4), ..Faults::default() });
    let mut file = process.create_new(at("/d/log")).expect("a name needs no space");
    assert_eq!(errno(process.append(&mut file, b"123456")), Some(Errno::NOSPC));
    assert_eq!(text(&disk, "/d/log").as_deref(), Some("1234"));
    assert_eq!(errno(process.set_len(&file, 5)), Some(Errno::NOSPC));
    process.unlink(at("/d/old")).expect("removed");
    process.append(&mut file, b"567").expect("there is room again");
    process.set_len(&file, 0).expect("cut");
    process.append(&mut file, &[b'y'; 14]).expect("all of it is free");
    assert!(process.append(&mut file, b"z").is_err());
    process.unlink(at("/d/log")).expect("removed");
    assert!(process.write_new(at("/d/new"), b"z", false).is_err(), "it is still open");
    drop(file);
    process.write_new(at("/d/new"), &[b'z'; 14], false).expect("it is closed");
    disk.set_faults(Faults { inodes: Some(1), ..Faults::default() });
    process.create_dir(at("/d/1")).expect("the last one");
    assert_eq!(errno(process.create_dir(at("/d/2"))), Some(Errno::NOSPC));
    assert_eq!(errno(process.create_new(at("/d/2"))), Some(Errno::NOSPC));
    process.unlink(at("/d/new")).expect("removed");
    process.create_new(at("/d/2")).expect("one came back");
}

#[test]
fn a_file_that_a_power_cut_brings_back_gives_its_space_back_when_it_is_removed() {
    for seed in 0..20 {
        let (disk, process) = fresh(seed);
        process.publish(at("/d/t"), at("/d/x"), &[b'x'; 10]).expect("no faults");
        process.unlink(at("/d/x")).expect("removed");
        disk.power_cut(&mut Rng::with_seed(seed));
        let left = text(&disk, "/d/x").map_or(0, |text| text.len() as u64);
        disk.set_faults(Faults { space: Some(10 - left), ..Faults::default() });
        let process = disk.process();
        process.unlink(at("/d/x")).expect("removed, or gone already");
        process.write_new(at("/d/y"), &[b'y'; 10], false).expect("all ten bytes are free");
        assert!(process.write_new(at("/d/z"), b"z", false).is_err(), "no more than ten");
    }
}

#[test]
fn a_read_only_disk_and_one_that_cannot_be_opened_say_so() {
    let (disk, process) = fresh(0);
    disk.put(at("/d/x"), b"text");
    let mut file = process.open_append(at("/d/x")).expect("opened").0;
    disk.set_faults(Faults { read_only: true, ..Faults::default() });
    let refused = [
        errno(process.create_new(at("/d/y"))),
        errno(process.open_append(at("/d/x"))),
        errno(process.append(&mut file, b"x")),
        errno(process.set_len(&file, 0)),
        errno(process.rewrite(at("/d/x"), 0, b"text")),
        errno(process.rename(at("/d/x"), at("/d/y"))),
        errno(process.link(at("/d/x"), at("/d/y"))),
        errno(process.unlink(at("/d/x"))),
        errno(process.create_dir(at("/d/y"))),
        errno(process.touch(at("/d/x"))),
        errno(process.set_mode(at("/d/x"), 0o600)),
    ];
    assert_eq!(refused, [Some(Errno::ROFS); 11]);
    assert_eq!(process.read(at("/d/x"), 10).expect("read").bytes, b"text");
    let failing = [
        (Faults { open_files: Some(1), ..Faults::default() }, Errno::MFILE),
        (Faults { open_error: ALWAYS, ..Faults::default() }, Errno::MFILE),
        (Faults { io_error: ALWAYS, ..Faults::default() }, Errno::IO),
    ];
    for (faults, expected) in failing {
        disk.set_faults(faults);
        let read = process.read(at("/d/x"), 10).err();
        assert!(matches!(read, Some(ReadError::Io(error)) if Errno::from_io_error(&error) == Some(expected)));
        assert_eq!(errno(process.read_at(at("/d/x"), 0, 4)), Some(expected));
        assert_eq!(errno(process.list(at("/d"), 9)), Some(expected));
    }
    assert_eq!(errno(process.append(&mut file, b"more")), Some(Errno::IO));
    disk.set_faults(Faults { open_files: Some(1), ..Faults::default() });
    drop(file);
    process.open_append(at("/d/x")).expect("one may be open");
}

#[test]
fn changes_are_told_as_a_watch_would() {
    let (disk, process) = fresh(0);
    disk.put(at("/d/before"), b"");
    disk.watch(true);
    process.publish(at("/d/t"), at("/d/x"), b"text").expect("no faults");
    process.touch(at("/d/x")).expect("touched");
    process.unlink(at("/d/x")).expect("removed");
    disk.put(at("/d/y"), b"");
    let told: Vec<(String, ChangeKind)> = disk
        .take_changes()
        .into_iter()
        .map(|Change { path, kind }| (path.display().to_string(), kind))
        .collect();
    let expected = [
        ("/d/t", ChangeKind::Appeared),
        ("/d/t", ChangeKind::Modified),
        ("/d/t", ChangeKind::Closed),
        ("/d/t", ChangeKind::Removed),
        ("/d/x", ChangeKind::Appeared),
        ("/d/x", ChangeKind::Touched),
        ("/d/x", ChangeKind::Removed),
        ("/d/y", ChangeKind::Appeared),
        ("/d/y", ChangeKind::Closed),
    ];
    assert_eq!(told, expected.map(|(path, kind)| (path.to_owned(), kind)));
    assert!(disk.take_changes().is_empty());
}

#[test]
fn every_change_of_a_file_shows_in_its_signature() {
    let (disk, process) = fresh(0);
    disk.set_clock(1_000_000);
    let mut file = process.create_new(at("/d/x")).expect("made");
    let mut last = process.stat(at("/d/x")).expect("seen").expect("there");
    assert!(last.is_regular() && last.mtime_ns > 1_000_000);
    let mut differs = |what: &str, content: bool| {
        let now = process.stat(at("/d/x")).expect("seen").expect("there");
        assert_eq!((now.ctime_ns > last.ctime_ns, now.mtime_ns > last.mtime_ns), (true, content), "{what}");
        last = now;
    };
    process.append(&mut file, b"x").expect("written");
    differs("append", true);
    process.set_len(&file, 0).expect("cut");
    differs("set_len", true);
    process.touch(at("/d/x")).expect("touched");
    differs("touch", true);
    process.set_mode(at("/d/x"), 0o600).expect("set");
    differs("set_mode", false);
    process.link(at("/d/x"), at("/d/y")).expect("linked");
    differs("link", false);
    process.rename(at("/d/x"), at("/d/z")).expect("renamed");
    process.rename(at("/d/z"), at("/d/x")).expect("renamed");
    differs("rename", false);
    process.unlink(at("/d/y")).expect("removed");
    differs("unlink", false);
}

/// A busy minute under every fault at once, with cuts between.
fn episode(seed: u64) -> (u64, BTreeMap<String, u64>) {
    let mut rng = Rng::with_seed(seed);
    let disk = Disk::new(seed);
    disk.mkdir(at("/d"));
    let rare = ALWAYS / 50;
    for _ in 0..5 {
        let (sync_error, sync_dir_error, io_error, open_error) = (rare, rare, rare, rare);
        disk.set_faults(Faults { sync_error, sync_dir_error, io_error, open_error, ..Faults::default() });
        let process = disk.process();
        process.kill_after(rng.u64(1..300));
        while !process.is_dead() {
            let name = at("/d").join(rng.u8(..9).to_string());
            // Under faults anything may fail; all that counts is that it fails alike.
            let _ = process.publish(&name.with_extension("t"), &name, &[b'x'; 600][..rng.usize(..600)]);
            let _ = process.unlink(&name.with_extension("t"));
            let _ = process.read(&name, 500);
        }
        disk.power_cut(&mut rng);
    }
    (disk.trace(), disk.digest(|_| false))
}

#[test]
fn the_same_seed_gives_the_same_world() {
    for seed in 0..20 {
        assert_eq!(episode(seed), episode(seed), "seed {seed}");
        assert_ne!(episode(seed).0, episode(seed + 100).0, "seed {seed}");
    }
}
