//! What a power cut, or the end of a process, may leave, and what it must.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use fastrand::Rng;
use nightcrew::edge::store::Store;

use crate::disk::{Disk, File, Handle};

const DIR: &str = "/d";
const TEMP: &str = "/d/temp";
const NAME: &str = "/d/name";

pub(crate) fn at(path: &str) -> &Path {
    Path::new(path)
}

/// A disk with a durable, empty directory `/d`, and a process.
pub(crate) fn fresh(seed: u64) -> (Disk, Handle) {
    let disk = Disk::new(seed);
    disk.mkdir(at(DIR));
    disk.settle();
    let process = disk.process();
    (disk, process)
}

pub(crate) fn text(disk: &Disk, path: &str) -> Option<String> {
    disk.text(at(path)).map(|bytes| String::from_utf8(bytes).expect("text"))
}

fn cut(disk: &Disk, seed: u64) {
    disk.power_cut(&mut Rng::with_seed(seed));
}

/// What `look` sees after `act` and a power cut, in each of many worlds.
fn outcomes<T: Ord>(act: impl Fn(&Handle) -> io::Result<()>, look: impl Fn(&Disk) -> T) -> BTreeSet<T> {
    let seen = (0..400).map(|seed| {
        let (disk, process) = fresh(seed);
        act(&process).expect("no faults");
        cut(&disk, seed);
        let looked = look(&disk);
        let digest = disk.digest(|_| false);
        cut(&disk, !seed);
        assert_eq!(digest, disk.digest(|_| false), "what survived one cut is durable");
        looked
    });
    seen.collect()
}

fn set<T: Ord>(expected: impl IntoIterator<Item = T>) -> BTreeSet<T> {
    expected.into_iter().collect()
}

fn names(disk: &Disk) -> Vec<String> {
    disk.names(at(DIR))
}

#[test]
fn a_rename_is_done_or_not_until_its_directory_is_synced() {
    let prepare = |process: &Handle| {
        process.write_new(at(TEMP), b"new", true)?;
        process.sync_dir(at(DIR))?;
        process.rename(at(TEMP), at(NAME))
    };
    let owned = |name: &str| vec![name.to_owned()];
    assert_eq!(outcomes(prepare, names), set([owned("temp"), owned("name")]));
    let synced = outcomes(|process| prepare(process).and_then(|()| process.sync_dir(at(DIR))), names);
    assert_eq!(synced, set([owned("name")]));
}

#[test]
fn a_record_replaced_is_the_old_or_the_new_one_whole() {
    let replace = |process: &Handle| {
        process.publish(at(TEMP), at(NAME), b"old")?;
        process.write_new(at(TEMP), b"new", true)?;
        process.rename(at(TEMP), at(NAME))
    };
    let seen = outcomes(replace, |disk| text(disk, NAME).expect("a record"));
    assert_eq!(seen, set(["old".to_owned(), "new".to_owned()]));
}

#[test]
fn a_rename_between_directories_is_one_operation_that_either_sync_completes() {
    let look = |disk: &Disk| (text(disk, "/d/a/x").is_some(), text(disk, "/d/b/x").is_some());
    let prepare = |process: &Handle| {
        process.create_dir(at("/d/a"))?;
        process.create_dir(at("/d/b"))?;
        process.write_new(at("/d/a/x"), b"x", true)?;
        process.sync_dir(at("/d/a"))?;
        process.sync_dir(at("/d/b"))?;
        process.rename(at("/d/a/x"), at("/d/b/x"))
    };
    assert_eq!(outcomes(prepare, look), set([(true, false), (false, true)]));
    for dir in ["/d/a", "/d/b"] {
        let seen = outcomes(|process| prepare(process).and_then(|()| process.sync_dir(at(dir))), look);
        assert_eq!(seen, set([(false, true)]), "{dir}");
    }
}

#[test]
fn a_directory_that_is_synced_is_there_itself() {
    let act = |process: &Handle| {
        process.create_dir(at("/d/a/b"))?;
        process.publish(at("/d/a/b/t"), at("/d/a/b/x"), b"x")
    };
    assert_eq!(outcomes(act, |disk| text(disk, "/d/a/b/x")), set([Some("x".to_owned())]));
    let empty = |process: &Handle| {
        process.create_dir(at("/d/a"))?;
        process.sync_dir(at("/d/a"))
    };
    assert_eq!(outcomes(empty, names), set([vec!["a".to_owned()]]));
}

#[test]
fn nothing_survives_without_what_it_needs() {
    let act = |process: &Handle| {
        process.create_dir(at("/d/a"))?;
        process.write_new(at("/d/a/1"), b"", false)?;
        process.rename(at("/d/a/1"), at("/d/a/2"))?;
        process.link(at("/d/a/2"), at("/d/3"))
    };
    let seen = outcomes(act, |disk| (names(disk).join(" "), disk.names(at("/d/a")).join(" ")));
    // The second name needs no first one: a link names the inode.
    let expected =
        [("", ""), ("a", ""), ("a", "1"), ("a", "2"), ("3", ""), ("3 a", ""), ("3 a", "1"), ("3 a", "2")];
    assert_eq!(seen, set(expected.map(|(d, a)| (d.to_owned(), a.to_owned()))));
}

#[test]
fn a_file_that_is_renamed_on_and_on_has_one_name_at_any_time() {
    let act = |process: &Handle| {
        process.publish(at(TEMP), at("/d/1"), b"x")?;
        process.rename(at("/d/1"), at("/d/2"))?;
        process.rename(at("/d/2"), at("/d/3"))?;
        process.create_dir(at("/d/a"))?;
        process.rename(at("/d/3"), at("/d/a/4"))
    };
    let look = |disk: &Disk| {
        let mut names = [disk.names(at(DIR)), disk.names(at("/d/a"))].concat();
        names.retain(|name| name != "a");
        names.join(" ")
    };
    assert_eq!(outcomes(act, look), set(["1", "2", "3", "4"].map(str::to_owned)));
}

#[test]
fn a_new_name_that_was_acknowledged_is_there_and_its_temp_file_is_not() {
    let seen = outcomes(|process| process.publish_new(at(TEMP), at(NAME), b"x"), names);
    assert_eq!(seen, set([vec!["name".to_owned()]]));
}

#[test]
fn what_was_appended_after_a_sync_may_be_there_in_any_part_but_what_was_before_is_whole() {
    let act = |process: &Handle| {
        process.publish(at(TEMP), at(NAME), &[b'a'; 700])?;
        let (mut file, _) = process.open_append(at(NAME))?;
        process.append(&mut file, &[b'b'; 1300])
    };
    let seen = outcomes(act, |disk| {
        let text = disk.text(at(NAME)).expect("a record");
        assert!(text.len() >= 700 && text[..700] == [b'a'; 700], "what was synced is whole");
        assert!(text[700..].iter().all(|byte| [0, b'b'].contains(byte)));
        let holes = text[700..].split(|byte| *byte == 0).count() - 1;
        (text.len(), holes.min(1), holes % 512)
    });
    let lens: BTreeSet<usize> = seen.iter().map(|seen| seen.0).collect();
    assert_eq!(lens, set([700, 1024, 1536, 2000]), "the old size, the new one, edges between");
    assert!(seen.contains(&(2000, 0, 0)), "all may survive");
    assert!(seen.iter().any(|seen| ![0, 464, 324, 276].contains(&seen.2)), "a block may be torn");
}

#[test]
fn a_cut_of_a_file_is_lost_or_done_until_it_is_synced() {
    let act = |process: &Handle, synced: bool| {
        process.publish(at(TEMP), at(NAME), &[b'a'; 300])?;
        let (file, _) = process.open_append(at(NAME))?;
        process.set_len(&file, 100)?;
        if synced { process.sync(&file) } else { Ok(()) }
    };
    let len = |disk: &Disk| disk.text(at(NAME)).expect("a record").len();
    assert_eq!(outcomes(|process| act(process, false), len), set([100, 300]));
    assert_eq!(outcomes(|process| act(process, true), len), set([100]));
}

#[test]
fn a_file_that_was_never_synced_may_be_empty_under_a_durable_name() {
    let act = |process: &Handle| {
        process.publish_volatile(at(TEMP), at(NAME), b"text")?;
        process.sync_dir(at(DIR))
    };
    let seen = outcomes(act, |disk| text(disk, NAME).expect("the name is durable"));
    assert!(seen.is_superset(&set(["", "text", "\0\0\0\0"].map(str::to_owned))), "{seen:?}");
}

#[test]
fn what_waits_for_very_long_is_written_back() {
    let act = |process: &Handle| {
        (0..400).try_for_each(|n| process.write_new(&at(DIR).join(format!("{n:03}")), b"", false))
    };
    let seen = outcomes(act, |disk| names(disk).len());
    assert!(seen.first().is_some_and(|least| (128..400).contains(least)), "{seen:?}");
    assert!(seen.contains(&400));
}

#[test]
fn a_fork_lives_its_own_life() {
    let (disk, process) = fresh(1);
    process.publish_volatile(at(TEMP), at(NAME), b"x").expect("written");
    let (one, two) = (disk.fork(), disk.fork());
    cut(&one, 5);
    cut(&two, 5);
    assert_eq!(one.digest(|_| false), two.digest(|_| false), "the same cut of the same disk");
    one.put(at("/d/other"), b"");
    assert_eq!(names(&disk), ["name"]);
    assert_ne!(one.digest(|_| false), two.digest(|_| false));
    assert_eq!(one.digest(|path| path == "/d/other"), two.digest(|path| path == "/d/other"));
    assert!(!process.is_dead(), "the power went elsewhere");
}

/// Some work, of which each primitive is worth dying in.
fn work(process: &Handle) -> io::Result<()> {
    process.create_dir(at("/d/a"))?;
    process.publish(at(TEMP), at(NAME), b"one")?;
    process.publish(at(TEMP), at(NAME), b"two")?;
    process.publish_new(at(TEMP), at("/d/a/new"), b"new")?;
    let (mut file, _) = process.open_append(at(NAME))?;
    process.append(&mut file, b" three")?;
    process.set_len(&file, 3)?;
    process.touch(at(NAME)).map(|_| ())
}

#[test]
fn a_process_dies_in_any_primitive_and_nothing_goes_through_it_after_that() {
    let (_, process) = fresh(0);
    work(&process).expect("no faults");
    let (_, changes) = process.primitives();
    let mut parts = BTreeSet::new();
    for n in 1..=changes {
        for seed in 0..20 {
            let (disk, process) = fresh(seed);
            process.kill_after(n);
            let error = work(&process).expect_err("it was killed");
            assert_eq!((error.kind(), process.is_dead()), (io::ErrorKind::ConnectionAborted, true));
            let left = disk.digest(|_| false);
            assert!(work(&process).is_err() && process.stat(at(DIR)).is_err());
            assert_eq!(disk.digest(|_| false), left, "the dead change nothing");
            let text = text(&disk, NAME).unwrap_or_default();
            assert!(["", "one"].contains(&&*text) || text.starts_with("two"), "{text}");
            parts.insert(text);
            // Whoever comes next finds a disk that works.
            work(&disk.process()).or_else(|error| leftover(&error)).expect("the disk is as good as before");
        }
    }
    assert!(parts.contains("two thr"), "an append may be cut short: {parts:?}");
}

/// The temp file, or the new name, of the one who died may be in the way.
fn leftover(error: &io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(error.kind().into()) }
}

#[test]
fn a_killed_process_closes_its_files_and_another_one_reads_on() {
    let (disk, process) = fresh(0);
    let other = disk.process();
    let mut file: File = process.create_new(at(NAME)).expect("made");
    process.append(&mut file, b"x").expect("written");
    process.unlink(at(NAME)).expect("removed");
    process.append(&mut file, b"y").expect("an unlinked file that is open can be written");
    let ino = |path| other.stat(at(path)).expect("seen").map(|is| is.ino);
    other.write_new(at("/d/1"), b"", false).expect("made");
    process.kill();
    assert!(process.append(&mut file, b"z").is_err());
    disk.settle();
    other.write_new(at("/d/2"), b"", false).expect("made");
    assert_ne!(ino("/d/1"), ino("/d/2"));
    assert_eq!(ino("/d/2"), Some(3), "the inode is used again");
    drop(file);
    assert_eq!(names(&disk), ["1", "2"]);
}
