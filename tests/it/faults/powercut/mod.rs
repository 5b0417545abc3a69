//! Power cuts on real file systems.
//!
//! A crew works on a file system whose disk is a file that keeps every write and flush (`recorder`), and each
//! promise is noted with the place of the tape at which it was given (`workload`). Then the power is cut, hundreds
//! of times, at any place: what the disk may hold then (`disk`) is mounted, which replays the file system's
//! journal, and what is found is held against all that was promised before (`check`). On some of these disks
//! nightcrew is started again, and must bring everything to its end, once (`converge`).
//!
//! That such a test would notice is itself tested: with every fsync and fdatasync of nightcrew and its agents made
//! to lie, promises must break.
//!
//! It needs root. `NIGHTCREW_SWEEP=all` makes it cut more often, and `NIGHTCREW_SEED` chooses the same places of a
//! tape; but no two tapes are the same, so the first image that breaks a promise is kept.

mod check;
mod converge;
mod disk;
mod ground;
mod recorder;
mod workload;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use disk::{Replay, cuts};
use ground::{Ground, Kind, Mounted, apart};
use recorder::Step;
use workload::{CREW, Recording, record};

use super::needs;

/// Power cuts for each file system, and with `NIGHTCREW_SWEEP=all`.
const CUTS: usize = 60;
const CUTS_OF_SWEEP: usize = 320;
/// Power cuts for each control.
const CUTS_OF_CONTROL: usize = 24;
/// Of so many cuts one is followed by a start.
const ONE_IN: usize = 16;
/// A lock that the cut emptied makes a start wait for ten seconds to be sure of it: seen so often on each.
const SLOW_STARTS_MAX: usize = 1;
/// Of so many images that broke a promise all is told.
const TOLD_MAX: usize = 3;
/// Makes every fsync below it do nothing and succeed.
const LIAR: [&str; 10] = [
    "strace",
    "-f",
    "--seccomp-bpf",
    "-qq",
    "-o",
    "/dev/null",
    "-e",
    "trace=fsync,fdatasync",
    "-e",
    "inject=fsync,fdatasync:retval=0",
];

/// What came of some power cuts.
#[derive(Default)]
struct Tally {
    images: usize,
    started: usize,
    /// What was broken, for each image that broke a promise.
    lost: Vec<String>,
}

/// Lets the crew work, `under` a liar or none, then cuts the power so many times and looks at what is left. On some
/// of what an honest disk left nightcrew is started.
fn cut_power(ground: &Ground, kind: Kind, under: &[&str], count: usize) -> Result<Tally, String> {
    let honest = under.is_empty();
    let Recording { base, tape, history } = record(ground, kind, under)?;
    let seed = std::env::var("NIGHTCREW_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let marks: Vec<usize> = history.acks.iter().map(|ack| ack.at).collect();
    let (at, image) = (ground.place("cut"), ground.path("cut.img"));
    let mut replay = Replay::new(base, &tape);
    let mut tally = Tally::default();
    let (mut due, mut slow) = (false, 0);
    for (n, cut) in cuts(seed, &marks, tape.len(), count).iter().enumerate() {
        replay.image(cut, &image);
        due |= honest && n % ONE_IN == 0;
        let mounted = Mounted::new(kind, &image, &at).unwrap_or_else(|error| panic!("{cut:?}: {error}"));
        let root = at.join(CREW);
        let mut broken = check::broken(&root, &history, cut.at);
        let is_slow = check::has_emptied_lock(&root);
        if due && (!is_slow || slow < SLOW_STARTS_MAX) {
            broken.extend(converge::unfinished(&root, &history, cut.at));
            tally.started += 1;
            slow += usize::from(is_slow);
            due = false;
        }
        mounted.unmount();
        if !broken.is_empty() {
            let told = format!("{}, seed {seed}, {cut:?}:\n{}", kind.name(), broken.join("\n"));
            if honest && tally.lost.is_empty() {
                replay.image(cut, &kept(kind));
                fs::write(kept(kind).with_extension("txt"), &told).expect("a file");
            }
            tally.lost.push(told);
        }
        tally.images += 1;
    }
    let flushes = tape.iter().filter(|step| matches!(step, Step::Flush)).count();
    tell(&format!(
        "power cut, {}{}: {} of {} images broke a promise, {} were started on; {} promises, {} steps, {flushes} flushes, seed {seed}",
        kind.name(),
        if honest { "" } else { ", lying fsync" },
        tally.lost.len(),
        tally.images,
        tally.started,
        marks.len(),
        tape.len(),
    ));
    Ok(tally)
}

/// Where the first image that broke a promise is kept, to be mounted and looked at.
fn kept(kind: Kind) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("powercut-{}.img", kind.name()))
}

/// Figures are for people, past the capture of the test runner.
fn tell(figures: &str) {
    // Where nobody reads, nobody needs to be told.
    let _ = writeln!(std::io::stderr(), "{figures}");
}

/// False, aloud, where a test cannot be run.
fn can_run(test: &str, kind: Kind) -> bool {
    let fuse = || Path::new("/dev/fuse").exists() || needs::skipped(test, "there is no /dev/fuse");
    needs::root(test) && fuse() && ["mount", kind.mkfs()].iter().all(|program| needs::program(test, program))
}

/// Nothing that a command said it took is lost by a power cut, and a start brings it to its end.
fn keeps_its_promises(test: &str, kind: Kind) {
    if !can_run(test, kind) {
        return;
    }
    let all = std::env::var("NIGHTCREW_SWEEP").is_ok_and(|sweep| sweep == "all");
    let count = if all { CUTS_OF_SWEEP } else { CUTS };
    match apart(|ground| cut_power(ground, kind, &[], count)) {
        Ok(tally) => assert!(
            tally.lost.is_empty(),
            "{} of {} images broke a promise; the first is kept as {}\n{}",
            tally.lost.len(),
            tally.images,
            kept(kind).display(),
            tally.lost.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join("\n")
        ),
        Err(why) => {
            needs::skipped(test, &why);
        }
    }
}

/// The control: these tests would notice a missing fsync.
fn breaks_them_when_fsync_lies(test: &str, kind: Kind) {
    if !can_run(test, kind) || !needs::program(test, LIAR[0]) {
        return;
    }
    let traced = Command::new(LIAR[0]).args(&LIAR[1..]).arg("true").status();
    if !traced.is_ok_and(|status| status.success()) {
        needs::skipped(test, "nothing may be traced here");
        return;
    }
    match apart(|ground| cut_power(ground, kind, &LIAR, CUTS_OF_CONTROL)) {
        Ok(tally) => assert!(!tally.lost.is_empty(), "none of {} images broke a promise", tally.images),
        Err(why) => {
            needs::skipped(test, &why);
        }
    }
}

#[test]
fn a_power_cut_on_ext4_breaks_no_promise() {
    keeps_its_promises("a_power_cut_on_ext4_breaks_no_promise", Kind::Ext4);
}

#[test]
fn a_power_cut_on_xfs_breaks_no_promise() {
    keeps_its_promises("a_power_cut_on_xfs_breaks_no_promise", Kind::Xfs);
}

#[test]
fn a_power_cut_on_btrfs_breaks_no_promise() {
    keeps_its_promises("a_power_cut_on_btrfs_breaks_no_promise", Kind::Btrfs);
}

#[test]
fn a_lying_fsync_is_noticed_on_ext4() {
    breaks_them_when_fsync_lies("a_lying_fsync_is_noticed_on_ext4", Kind::Ext4);
}

#[test]
fn a_lying_fsync_is_noticed_on_xfs() {
    breaks_them_when_fsync_lies("a_lying_fsync_is_noticed_on_xfs", Kind::Xfs);
}

#[test]
fn a_lying_fsync_is_noticed_on_btrfs() {
    breaks_them_when_fsync_lies("a_lying_fsync_is_noticed_on_btrfs", Kind::Btrfs);
}
