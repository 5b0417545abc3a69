use proptest::prelude::*;
use serde_json::json;

use super::*;

fn body(n: u64) -> Body {
    Body::of(&json!({ "n": n, "text": "a\nb" })).unwrap()
}

/// A segment of commits with the given numbers of entries, and the end of each commit.
fn segment(sizes: &[u64]) -> (Vec<u8>, Vec<usize>, Vec<(u64, String)>) {
    let mut bytes = header_line(1, 0, 0);
    let (mut seq, mut ends, mut written) = (2, vec![bytes.len()], Vec::new());
    for size in sizes {
        let bodies: Vec<Body> = (0..*size).map(|n| body(seq * 100 + n)).collect();
        written.extend(bodies.iter().zip(seq..).map(|(body, seq)| (seq, body.as_str().to_owned())));
        let (lines, next) = commit_lines(seq, &bodies);
        bytes.extend(lines);
        ends.push(bytes.len());
        seq = next;
    }
    (bytes, ends, written)
}

fn entries(found: &Scan<'_>) -> Vec<(u64, String)> {
    found.entries.iter().map(|entry| (entry.seq, entry.body())).collect()
}

/// The values were computed with Python's `zlib.crc32`.
#[test]
fn the_format_is_this_byte_for_byte() {
    let header = String::from_utf8(header_line(9, 1, 8)).unwrap();
    assert_eq!(
        header,
        "{\"seq\":9,\"segment\":{\"v\":1,\"previous\":1,\"committed\":8},\"crc\":\"62ccd9fa\"}\n"
    );
    let bodies = [Body::of(&json!({ "a": 1 })).unwrap(), Body::of(&json!({})).unwrap()];
    let (lines, next) = commit_lines(10, &bodies);
    let expected = "{\"seq\":10,\"a\":1,\"crc\":\"bdea4f33\"}\n\
                    {\"seq\":11,\"crc\":\"dae3b1d6\"}\n\
                    {\"seq\":12,\"commit\":10,\"sum\":\"4b0914b1\",\"crc\":\"4bd7b75f\"}\n";
    assert_eq!(String::from_utf8(lines).unwrap(), expected);
    assert_eq!(next, 13);
}

#[test]
fn what_was_written_is_read_back() {
    let (bytes, _, written) = segment(&[1, 3, 2]);
    let found = scan(&bytes, Start::Segment);
    assert_eq!(entries(&found), written);
    assert_eq!(found.header, Some(Header { v: 1, previous: 0, committed: 0 }));
    assert_eq!((found.valid_len, found.tail), (bytes.len(), Tail::Clean));
    assert_eq!((found.committed, found.highest), (Some(10), Some(10)));
    assert!(found.damage.is_empty());
}

#[test]
fn a_body_is_one_object_that_is_not_taken_for_a_frame() {
    for bad in [json!(1), json!([1]), json!({"seq": 1}), json!({"commit": 1}), json!({"segment": {}})] {
        assert!(Body::of(&bad).is_err(), "{bad}");
    }
    let raw = serde_json::value::RawValue::from_string("{\n}".to_owned()).unwrap();
    assert!(Body::of(&raw).is_err());
}

#[test]
fn a_line_that_no_log_writes_is_none_though_its_checksum_fits() {
    let line = |head: &str| format!("{head},\"crc\":\"{:08x}\"}}\n", crc32fast::hash(head.as_bytes()));
    assert!(parse_line(line("{\"seq\":2").as_bytes()).is_some());
    for head in ["{\"seq\":02", "{\"seq\":+2", "{\"seq\":2,", "{\"seq\":3,\"commit\":02,\"sum\":\"00000000\""]
    {
        assert!(parse_line(line(head).as_bytes()).is_none(), "{head}");
    }
}

#[test]
fn damage_in_the_middle_costs_its_commit_alone() {
    let (mut bytes, ends, written) = segment(&[2, 2, 2]);
    bytes[ends[1] + 12] ^= 1;
    let found = scan(&bytes, Start::Segment);
    let kept: Vec<_> = written[..2].iter().chain(&written[4..]).cloned().collect();
    assert_eq!(entries(&found), kept);
    assert_eq!(found.damage, [Damage { from: ends[1], to: ends[2] }]);
    assert_eq!(found.tail, Tail::Clean);
}

#[test]
fn a_missing_commit_and_a_repeated_one_are_damage() {
    let (bytes, ends, written) = segment(&[1, 1, 1]);
    let mut without = bytes[..ends[1]].to_vec();
    without.extend(&bytes[ends[2]..]);
    let found = scan(&without, Start::Segment);
    assert_eq!(entries(&found), [written[0].clone(), written[2].clone()]);
    assert_eq!(found.damage, [Damage { from: ends[1], to: ends[1] }]);

    let mut twice = bytes.clone();
    twice.extend(&bytes[ends[0]..]);
    let found = scan(&twice, Start::Segment);
    assert_eq!(entries(&found), written);
    assert_eq!(found.tail, Tail::Damaged);
}

#[test]
fn a_whole_line_of_another_commit_does_not_pass_for_one_of_this() {
    let (mut bytes, ends, written) = segment(&[1, 1]);
    let (other, _) = commit_lines(4, &[body(999)]);
    let len = other.iter().position(|byte| *byte == b'\n').unwrap() + 1;
    bytes[ends[1]..ends[1] + len].copy_from_slice(&other[..len]);
    let found = scan(&bytes, Start::Segment);
    assert_eq!(entries(&found), written[..1]);
    assert_eq!(found.tail, Tail::Torn);
}

#[test]
fn two_broken_commits_at_the_end_are_no_torn_write() {
    let (mut bytes, ends, written) = segment(&[1, 1, 1]);
    bytes[ends[1] + 12] ^= 1;
    bytes[ends[2] + 12] ^= 1;
    let found = scan(&bytes, Start::Segment);
    assert_eq!(entries(&found), written[..1]);
    assert_eq!((found.valid_len, found.tail), (ends[1], Tail::Damaged));
    assert_eq!(found.highest, Some(7));
}

#[test]
fn a_lost_header_is_damage_and_costs_no_entry() {
    let (mut bytes, ends, written) = segment(&[1, 1]);
    bytes[3] ^= 4;
    let found = scan(&bytes, Start::Segment);
    assert_eq!(entries(&found), written);
    assert_eq!(found.damage, [Damage { from: 0, to: ends[0] }]);
}

#[test]
fn a_segment_is_read_from_anywhere_and_in_pieces() {
    let (bytes, ends, written) = segment(&[2, 2, 1]);
    let found = scan(&bytes[ends[0] + 5..], Start::Anywhere);
    assert_eq!(entries(&found), written[2..]);
    assert!(found.damage.is_empty());
    let found = scan(&bytes[ends[1]..], Start::Next(5));
    assert_eq!(entries(&found), written[2..]);
    assert!(found.damage.is_empty());
}

proptest! {
    #[test]
    fn any_prefix_yields_its_whole_commits(sizes in prop::collection::vec(1u64..5, 1..8), cut in 0usize..4000) {
        let (bytes, ends, written) = segment(&sizes);
        let cut = cut.min(bytes.len());
        let found = scan(&bytes[..cut], Start::Segment);
        let whole = ends.iter().filter(|end| **end <= cut).max().copied().unwrap_or(0);
        let count: u64 = sizes.iter().zip(&ends[1..]).filter(|(_, end)| **end <= cut).map(|(size, _)| size).sum();
        prop_assert_eq!(found.valid_len, whole);
        prop_assert_eq!(entries(&found), &written[..usize::try_from(count).unwrap()]);
        prop_assert_eq!(found.tail, if whole == cut { Tail::Clean } else { Tail::Torn });
        prop_assert!(found.damage.is_empty());
    }

    #[test]
    fn any_flipped_bit_costs_the_commit_it_is_in(
        sizes in prop::collection::vec(1u64..5, 1..8), at in any::<prop::sample::Index>(), bit in 0u8..8,
    ) {
        let (mut bytes, ends, written) = segment(&sizes);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let found = scan(&bytes, Start::Segment);
        let hit = ends.iter().filter(|end| **end <= at).count();
        // Without the newline between them, two commits have one line that is neither's.
        let joined = ends.contains(&(at + 1));
        let mut kept = Vec::new();
        let mut rest = &written[..];
        for (index, size) in sizes.iter().enumerate() {
            let (commit, later) = rest.split_at(usize::try_from(*size).unwrap());
            if hit != index + 1 && !(joined && hit == index) {
                kept.extend_from_slice(commit);
            }
            rest = later;
        }
        prop_assert_eq!(entries(&found), kept);
        prop_assert!(!found.damage.is_empty() || found.tail != Tail::Clean);
    }

    #[test]
    fn any_overwritten_stretch_yields_only_what_was_written(
        sizes in prop::collection::vec(1u64..5, 1..8), at in any::<prop::sample::Index>(),
        junk in prop::collection::vec(any::<u8>(), 1..200),
    ) {
        let (mut bytes, ends, written) = segment(&sizes);
        let at = at.index(bytes.len());
        let end = (at + junk.len()).min(bytes.len());
        bytes[at..end].copy_from_slice(&junk[..end - at]);
        let found = scan(&bytes, Start::Segment);
        let before: u64 = sizes.iter().zip(&ends[1..]).filter(|(_, end)| **end <= at).map(|(size, _)| size).sum();
        let got = entries(&found);
        prop_assert!(got.iter().all(|entry| written.contains(entry)));
        let before = usize::try_from(before).unwrap();
        prop_assert_eq!(&got[..before], &written[..before]);
    }

    #[test]
    fn arbitrary_bytes_yield_nothing(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        for start in [Start::Segment, Start::Next(7), Start::Anywhere] {
            prop_assert!(scan(&bytes, start).entries.is_empty());
        }
    }
}
