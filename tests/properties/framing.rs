//! The framing of logs: whatever a disk does to one, what is believed is what was committed, and what is not
//! believed is told exactly.

use nightcrew::protocol::framing::{Body, Damage, Start, Tail, commit_lines, header_line, scan};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Map, Value};

use super::any::{text, value};

/// The header or one commit, as it stands in its log.
#[derive(Debug, Clone)]
struct Part {
    from: usize,
    to: usize,
    /// Where its last line begins: a commit's commit line.
    last_line: usize,
    entries: Vec<(u64, String)>,
}

/// A whole segment.
#[derive(Debug, Clone)]
pub(super) struct Segment {
    bytes: Vec<u8>,
    parts: Vec<Part>,
}

fn last_line(bytes: &[u8]) -> usize {
    bytes[..bytes.len() - 1].iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
}

impl Segment {
    /// The segment that these commits make.
    pub(super) fn of(commits: &[Vec<Body>]) -> Self {
        let bytes = header_line(1, 0, 0);
        let mut parts = vec![Part { from: 0, to: bytes.len(), last_line: 0, entries: Vec::new() }];
        let mut segment = Self { bytes, parts: Vec::new() };
        let mut seq = 2;
        for bodies in commits {
            let (lines, next) = commit_lines(seq, bodies);
            let from = segment.bytes.len();
            let entries = (seq..).zip(bodies).map(|(seq, body)| (seq, body.as_str().to_owned())).collect();
            parts.push(Part { from, to: from + lines.len(), last_line: from + last_line(&lines), entries });
            segment.bytes.extend(lines);
            seq = next;
        }
        Self { parts, ..segment }
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What may be believed of the segment once it reads as `damaged`. A line counts only from the newline before
    /// it to its own, and a commit only with all of its lines.
    pub(super) fn expected(&self, damaged: &[u8]) -> Expected {
        let whole = |from: usize, to: usize| {
            let from = from.saturating_sub(1);
            damaged.get(from..to) == self.bytes.get(from..to)
        };
        let (mut entries, mut damage, mut end, mut first_stray) = (Vec::new(), Vec::new(), 0, None);
        for part in &self.parts {
            if whole(part.from, part.to) {
                if end != part.from {
                    damage.push(Damage { from: end, to: part.from });
                }
                (end, first_stray) = (part.to, None);
                entries.extend(part.entries.iter().cloned());
            } else if part.last_line > 0 && whole(part.last_line, part.to) {
                first_stray = first_stray.or(Some(part.to));
            }
        }
        let tail = match first_stray {
            None if end == damaged.len() => Tail::Clean,
            Some(stray) if stray < damaged.len() => Tail::Damaged,
            None | Some(_) => Tail::Torn,
        };
        Expected { entries, damage, valid_len: end, tail }
    }
}

/// What is to be found in a damaged segment.
#[derive(Debug, PartialEq)]
pub(super) struct Expected {
    pub(super) entries: Vec<(u64, String)>,
    pub(super) damage: Vec<Damage>,
    pub(super) valid_len: usize,
    pub(super) tail: Tail,
}

fn found(bytes: &[u8], start: Start) -> Expected {
    let found = scan(bytes, start);
    let entries = found.entries.iter().map(|entry| (entry.seq, entry.body())).collect();
    Expected { entries, damage: found.damage, valid_len: found.valid_len, tail: found.tail }
}

fn body() -> impl Strategy<Value = Body> {
    btree_map(text(), value(), 0..4).prop_filter_map("a body of its own", |fields| {
        Body::of(&Value::from(fields.into_iter().collect::<Map<_, _>>())).ok()
    })
}

pub(super) fn segment() -> impl Strategy<Value = Segment> {
    vec(vec(body(), 1..4), 0..7).prop_map(|commits| Segment::of(&commits))
}

/// One thing that a disk does.
#[derive(Debug, Clone)]
pub(super) enum Harm {
    Flip(Index, u8),
    /// A block of so many bytes reads as zeros.
    Zero(Index, usize),
    Cut(Index),
}

pub(super) fn harm() -> impl Strategy<Value = Harm> {
    prop_oneof![
        4 => (any::<Index>(), 0u8..8).prop_map(|(at, bit)| Harm::Flip(at, bit)),
        4 => (any::<Index>(), prop::sample::select(vec![1usize, 16, 64, 512]))
            .prop_map(|(block, len)| Harm::Zero(block, len)),
        1 => any::<Index>().prop_map(Harm::Cut),
    ]
}

impl Harm {
    pub(super) fn done_to(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        match self {
            Self::Flip(at, bit) => {
                let at = at.index(bytes.len());
                bytes[at] ^= 1 << bit;
            }
            Self::Zero(block, len) => {
                let from = block.index(bytes.len()) / len * len;
                let to = (from + len).min(bytes.len());
                bytes[from..to].fill(0);
            }
            Self::Cut(at) => bytes.truncate(at.index(bytes.len())),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_object_comes_back_from_its_frame_byte_for_byte(segment in segment()) {
        let expected = segment.expected(segment.bytes());
        prop_assert_eq!((expected.valid_len, expected.tail), (segment.bytes.len(), Tail::Clean));
        prop_assert_eq!(found(segment.bytes(), Start::Segment), expected);
    }

    #[test]
    fn what_harm_is_done_costs_what_it_touches_and_is_told(segment in segment(), harms in vec(harm(), 1..4)) {
        let mut damaged = segment.bytes.clone();
        for harm in &harms {
            harm.done_to(&mut damaged);
        }
        prop_assert_eq!(found(&damaged, Start::Segment), segment.expected(&damaged));
    }

    #[test]
    fn a_log_read_in_pieces_is_the_log_read_at_once(segment in segment(), harm in harm(), at in any::<Index>()) {
        let cut = segment.parts[at.index(segment.parts.len())].to;
        let mut damaged = segment.bytes.clone();
        harm.done_to(&mut damaged);
        let Some((before, _)) = damaged.split_at_checked(cut) else { return Ok(()) };
        let first = scan(before, Start::Segment);
        let Some(committed) = first.committed.filter(|_| first.valid_len == cut) else { return Ok(()) };
        let mut pieces = found(before, Start::Segment);
        let rest = found(&damaged[cut..], Start::Next(committed + 1));
        pieces.entries.extend(rest.entries);
        let moved = |damage: &Damage| Damage { from: damage.from + cut, to: damage.to + cut };
        pieces.damage.extend(rest.damage.iter().map(moved));
        pieces.valid_len += rest.valid_len;
        pieces.tail = rest.tail;
        prop_assert_eq!(pieces, found(&damaged, Start::Segment));
    }

    /// Blocks of another log in this one: of each commit, either all or nothing, and of one log alone.
    #[test]
    fn lines_of_two_logs_never_make_one_commit(
        mine in vec(vec(body(), 1..4), 1..5), theirs in vec(vec(body(), 1..4), 1..5),
        picks in vec((any::<bool>(), any::<Index>()), 0..40), in_order in any::<bool>(),
    ) {
        let (mine, theirs) = (Segment::of(&mine), Segment::of(&theirs));
        let lines = |segment: &Segment| -> Vec<Vec<u8>> {
            segment.bytes.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect()
        };
        let (of_mine, of_theirs) = (lines(&mine), lines(&theirs));
        let mut mixed = Vec::new();
        for (place, (own, index)) in picks.iter().enumerate() {
            let from = if *own { &of_mine } else { &of_theirs };
            let at = if in_order { place } else { index.index(from.len()) };
            mixed.extend(from.get(at).into_iter().flatten());
        }
        for start in [Start::Segment, Start::Next(2), Start::Anywhere] {
            let mut rest = &found(&mixed, start).entries[..];
            while let Some(first) = rest.first() {
                let commits = mine.parts.iter().chain(&theirs.parts).filter(|part| part.entries.first() == Some(first));
                let taken = commits.filter(|part| rest.starts_with(&part.entries)).map(|part| part.entries.len()).max();
                prop_assert!(taken.is_some(), "{:?} is no commit of either", rest);
                rest = &rest[taken.unwrap_or(rest.len())..];
            }
        }
    }
}
