//! A log on a disk that did harm to it: opened, read, written on, opened again.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use nightcrew::edge::files::FsStore;
use nightcrew::edge::log::{Recovery, SegmentedLog};
use nightcrew::protocol::framing::{Body, Tail};
use nightcrew::protocol::layout::{Kept, Layout};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::framing::{Harm, Segment, harm, segment};

fn opened(dir: &Path) -> (SegmentedLog<FsStore>, Recovery) {
    let store = FsStore::for_crew(dir.parent().expect("a parent")).expect("a store");
    SegmentedLog::open(store, dir).expect("a damaged log is opened all the same")
}

/// The numbers of the lines of a log that are left whole of it.
fn numbers(log: &[u8], left: &[u8]) -> impl Iterator<Item = u64> {
    let lines: BTreeSet<&[u8]> = log.split_inclusive(|byte| *byte == b'\n').collect();
    left.split_inclusive(|byte| *byte == b'\n').filter(move |line| lines.contains(line)).map(|line| {
        let line: Value = serde_json::from_slice(line).expect("a line is JSON");
        line["seq"].as_u64().expect("a line has its number")
    })
}

fn check(segment: &Segment, harms: &[Harm]) -> Result<(), TestCaseError> {
    let root = tempfile::tempdir().expect("a directory");
    let dir = root.path().join("log");
    fs::create_dir(&dir).expect("a directory");
    let mut damaged = segment.bytes().to_vec();
    for harm in harms {
        harm.done_to(&mut damaged);
    }
    fs::write(Layout::segment(&dir, 1), &damaged).expect("a segment");
    let expected = segment.expected(&damaged);

    let (mut log, recovery) = opened(&dir);
    prop_assert_eq!(&log.tail(u64::MAX).expect("a tail"), &expected.entries);
    // Nothing is thrown away: what is not believed lies beside the log, byte for byte.
    for aside in &recovery.aside {
        let (from, len) =
            (usize::try_from(aside.from).expect("small"), usize::try_from(aside.len).expect("small"));
        prop_assert_eq!(&fs::read(&aside.path).expect("kept"), &damaged[from..from + len]);
    }
    let mut lost: Vec<_> = expected.damage.iter().map(|damage| (damage.from, damage.to)).collect();
    if expected.tail != Tail::Clean || expected.valid_len == 0 {
        lost.push((expected.valid_len, damaged.len()));
    }
    let kept: Vec<_> = recovery.aside.iter().map(|aside| (aside.from, aside.from + aside.len)).collect();
    let lost: Vec<_> = lost.into_iter().map(|(from, to)| (from as u64, to as u64)).collect();
    prop_assert_eq!(kept, lost);
    let torn = expected.damage.is_empty() && expected.tail == Tail::Torn && expected.valid_len > 0;
    prop_assert!(recovery.aside.iter().all(|aside| (aside.why == Kept::Torn) == torn));

    let body = Body::of(&json!({ "n": 1 })).expect("a body");
    let seq = log.append_commit(std::slice::from_ref(&body)).expect("it is written on");
    prop_assert!(expected.entries.iter().all(|(known, _)| *known < seq), "no number is used twice");
    // Nor one that stands in what is not believed, but for the commit that was being written.
    let told = numbers(segment.bytes(), &damaged).max();
    prop_assert!(torn || told < Some(seq), "{} is used again, though {:?} was", seq, told);
    drop(log);
    let (log, recovery) = opened(&dir);
    prop_assert!(recovery.aside.is_empty(), "what was mended stays mended: {:?}", recovery);
    let mut all = expected.entries;
    all.push((seq, body.as_str().to_owned()));
    prop_assert_eq!(log.tail(u64::MAX).expect("a tail"), all);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_damaged_log_keeps_what_was_committed_and_goes_on(segment in segment(), harms in vec(harm(), 0..4)) {
        check(&segment, &harms)?;
    }
}
