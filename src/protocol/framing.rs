//! The framing of append-only logs: the ledger and the memory journal.
//!
//! A log is a directory of segments, each a file of lines, each line one JSON object:
//!
//! ```text
//! {"seq":1,"segment":{"v":1,"previous":0,"committed":0},"crc":"4cd31279"}
//! {"seq":2,"at":"2026-11-20T03:00:00.000Z","event":"removed","agent":"a","crc":"…"}
//! {"seq":3,"at":"2026-11-20T03:00:00.000Z","event":"removed","agent":"b","crc":"…"}
//! {"seq":4,"commit":2,"sum":"…","crc":"…"}
//! ```
//!
//! - `seq` is first and rises by one from line to line, through all segments, whatever the line is.
//! - `crc` is last, eight lower-case hex digits: the CRC-32 of zlib and PNG over the bytes of the line
//!   from its `{` up to, and without, the comma before `"crc"`. In Python, with `line` a `bytes` without
//!   its newline: `zlib.crc32(line[:-18]) == int(line[-10:-2], 16)`.
//! - A segment's first line is its header. `previous` is the first `seq` of the segment before (0 if
//!   there was none) and `committed` the last that was committed there: what lies beyond it in that
//!   segment was never acknowledged, or is damaged, and is ignored.
//! - A commit is one or more entries and a commit line, written at once. `commit` is the `seq` of its
//!   first entry and `sum` the CRC-32 over all bytes of its entries' lines, newlines included.
//!   An entry counts only once its commit line stands behind it.
//!
//! [`scan`] believes nothing else. Two commits are never in flight together, so bytes behind the last
//! whole commit are one torn write, unless another commit line lies within them: then they were
//! acknowledged once, and are damaged.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of the format that this build writes.
pub const VERSION: u32 = 1;

/// `,"crc":"` and eight digits and `"}`.
const TRAILER_LEN: usize = 18;

/// The content of an entry: one JSON object on one line.
///
/// Its own fields must not be named `seq` or `crc`, and its first not `commit` or `segment`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Body(String);

/// Why a value cannot be an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BodyError {
    /// It cannot be written as JSON.
    #[error("cannot be written as JSON: {0}")]
    Unwritable(String),
    /// Its JSON is not an object on one line, or begins like a line of the frame.
    #[error("not one line with one JSON object of its own: {0}")]
    NotAnObject(String),
}

impl Body {
    /// The value as an entry's content.
    ///
    /// # Errors
    /// [`BodyError`], if it is not an object, holds a raw newline or begins with a word of the frame.
    pub fn of<T: Serialize>(value: &T) -> Result<Self, BodyError> {
        let text = serde_json::to_string(value).map_err(|e| BodyError::Unwritable(e.to_string()))?;
        let object = text.starts_with('{') && text.ends_with('}') && !text.contains('\n');
        let framed = ["{\"seq\":", "{\"crc\":", "{\"commit\":", "{\"segment\":"]
            .iter()
            .any(|reserved| text.starts_with(reserved));
        if object && !framed {
            Ok(Self(text))
        } else {
            Err(BodyError::NotAnObject(text.chars().take(80).collect()))
        }
    }

    /// The JSON object.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What stands between the braces.
    fn fields(&self) -> &str {
        &self.0[1..self.0.len() - 1]
    }
}

/// What the first line of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The version of the format.
    pub v: u32,
    /// The first `seq` of the segment before; 0 if there was none.
    pub previous: u64,
    /// The last committed `seq` of the segment before; 0 if there was none.
    pub committed: u64,
}

/// The header line of a segment whose first `seq` is `seq`.
#[must_use]
pub fn header_line(seq: u64, previous: u64, committed: u64) -> Vec<u8> {
    let mut line = Vec::new();
    let fields = format!(r#""segment":{{"v":{VERSION},"previous":{previous},"committed":{committed}}}"#);
    push_line(&mut line, seq, &fields);
    line
}

/// All lines of one commit whose first entry is `first`, with the `seq` that comes after it.
#[must_use]
pub fn commit_lines(first: u64, bodies: &[Body]) -> (Vec<u8>, u64) {
    let room = bodies.iter().map(|body| body.0.len() + 48).sum::<usize>() + 96;
    let mut lines = Vec::with_capacity(room);
    let mut seq = first;
    for body in bodies {
        push_line(&mut lines, seq, body.fields());
        seq += 1;
    }
    let sum = crc32fast::hash(&lines);
    push_line(&mut lines, seq, &format!(r#""commit":{first},"sum":"{sum:08x}""#));
    (lines, seq + 1)
}

fn push_line(out: &mut Vec<u8>, seq: u64, fields: &str) {
    let start = out.len();
    out.extend_from_slice(format!("{{\"seq\":{seq}").as_bytes());
    if !fields.is_empty() {
        out.push(b',');
        out.extend_from_slice(fields.as_bytes());
    }
    let crc = crc32fast::hash(&out[start..]);
    out.extend_from_slice(format!(",\"crc\":\"{crc:08x}\"}}\n").as_bytes());
}

/// Where the bytes given to [`scan`] begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// At the start of a segment: its header comes first.
    Segment,
    /// Behind a whole commit: this `seq` comes next.
    Next(u64),
    /// Anywhere: what precedes the first whole commit is skipped and is no damage.
    Anywhere,
}

/// One committed entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed<'a> {
    /// Its place in the log.
    pub seq: u64,
    fields: &'a str,
}

impl Committed<'_> {
    /// The JSON object that was appended.
    #[must_use]
    pub fn body(&self) -> String {
        format!("{{{}}}", self.fields)
    }
}

/// A stretch that held something committed and cannot be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Damage {
    /// Its first byte.
    pub from: usize,
    /// Behind its last byte; equal to `from` where whole lines are missing.
    pub to: usize,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bytes {} to {}", self.from, self.to)
    }
}

/// What stands behind the last whole commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    Clean,
    /// One commit that was being written and was never acknowledged.
    Torn,
    /// More than one: something acknowledged is lost there.
    Damaged,
}

/// What [`scan`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan<'a> {
    /// The header, if the bytes began with a whole one.
    pub header: Option<Header>,
    /// All entries of all whole commits, in order.
    pub entries: Vec<Committed<'a>>,
    /// The length up to the end of the last whole commit (or the header).
    pub valid_len: usize,
    /// Where the last whole commit begins, if there is one.
    pub last: Option<usize>,
    /// The `seq` of the last whole commit's (or the header's) line.
    pub committed: Option<u64>,
    /// The highest `seq` that any whole line bears, committed or not.
    pub highest: Option<u64>,
    /// Damage before `valid_len`.
    pub damage: Vec<Damage>,
    /// What lies behind `valid_len`.
    pub tail: Tail,
}

enum Line<'a> {
    Header(Header),
    Entry(&'a str),
    Commit { first: u64, sum: u32 },
}

/// An entry whose commit line has not been seen yet, with the offset of its line.
struct Pending<'a> {
    entry: Committed<'a>,
    start: usize,
}

/// Finds every whole commit in `bytes`, whatever lies between them.
#[must_use]
pub fn scan(bytes: &[u8], start: Start) -> Scan<'_> {
    let mut found = Scan {
        header: None,
        entries: Vec::new(),
        valid_len: 0,
        last: None,
        committed: None,
        highest: None,
        damage: Vec::new(),
        tail: Tail::Clean,
    };
    // Entries with consecutive `seq`, which the next commit line may confirm.
    let mut run: Vec<Pending<'_>> = Vec::new();
    // The end of the first commit line behind `valid_len` that confirmed nothing.
    let mut stray: Option<usize> = None;
    let mut offset = 0;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let (from, to) = (offset, offset + line.len());
        offset = to;
        let Some((seq, content)) = parse_line(line) else {
            run.clear();
            continue;
        };
        found.highest = found.highest.max(Some(seq));
        match content {
            Line::Header(header) => {
                run.clear();
                if from == 0 && start == Start::Segment {
                    found.header = Some(header);
                    found.committed = Some(seq);
                    found.valid_len = to;
                }
            }
            Line::Entry(fields) => {
                if run.last().is_some_and(|last| Some(seq) != last.entry.seq.checked_add(1)) {
                    run.clear();
                }
                run.push(Pending { entry: Committed { seq, fields }, start: from });
            }
            Line::Commit { first, sum } => {
                let whole = confirm(&mut found, start, &run, &Closing { bytes, first, sum, seq, from, to });
                stray = if whole { None } else { stray.or(Some(to)) };
                run.clear();
            }
        }
    }
    found.tail = match stray {
        None if found.valid_len == bytes.len() => Tail::Clean,
        Some(end) if end < bytes.len() => Tail::Damaged,
        None | Some(_) => Tail::Torn,
    };
    found
}

/// A commit line and where it stands.
struct Closing<'a> {
    bytes: &'a [u8],
    first: u64,
    sum: u32,
    seq: u64,
    from: usize,
    to: usize,
}

/// Takes over the entries that a commit line closes, if it and they are one whole commit.
fn confirm<'a>(found: &mut Scan<'a>, start: Start, run: &[Pending<'a>], commit: &Closing<'_>) -> bool {
    let Some(index) = run.iter().position(|pending| pending.entry.seq == commit.first) else {
        return false;
    };
    let begin = run[index].start;
    let closes = run.last().and_then(|last| last.entry.seq.checked_add(1)) == Some(commit.seq);
    if !closes || crc32fast::hash(&commit.bytes[begin..commit.from]) != commit.sum {
        return false;
    }
    let expected = match (found.committed, start) {
        (Some(committed), _) => committed.checked_add(1),
        (None, Start::Next(seq)) => Some(seq),
        (None, Start::Segment | Start::Anywhere) => None,
    };
    // What was committed before cannot be committed again: somebody copied lines.
    if expected.is_some_and(|expected| commit.first < expected) {
        return false;
    }
    let skipped_on_purpose = found.committed.is_none() && start == Start::Anywhere;
    let in_place = begin == found.valid_len && expected.is_none_or(|seq| seq == commit.first);
    // A segment without its header has lost at least that.
    let headless = found.committed.is_none() && start == Start::Segment;
    if !skipped_on_purpose && (!in_place || headless) {
        found.damage.push(Damage { from: found.valid_len, to: begin });
    }
    found.entries.extend(run[index..].iter().map(|pending| pending.entry));
    found.committed = Some(commit.seq);
    found.valid_len = commit.to;
    found.last = Some(begin);
    true
}

/// Reads one line with its newline; `None` if it is not exactly what [`push_line`] writes.
fn parse_line(line: &[u8]) -> Option<(u64, Line<'_>)> {
    let text = line.strip_suffix(b"\n")?;
    let covered = text.len().checked_sub(TRAILER_LEN)?;
    let (head, trailer) = text.split_at(covered);
    let crc = trailer.strip_prefix(b",\"crc\":\"")?.strip_suffix(b"\"}")?;
    if parse_hex(std::str::from_utf8(crc).ok()?)? != crc32fast::hash(head) {
        return None;
    }
    let head = std::str::from_utf8(head).ok()?.strip_prefix("{\"seq\":")?;
    let (seq, fields) = match head.split_once(',') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (head, ""),
    };
    let seq = parse_seq(seq)?;
    let content = if fields.starts_with("\"segment\":") {
        Line::Header(serde_json::from_str(fields.strip_prefix("\"segment\":")?).ok()?)
    } else if let Some(commit) = fields.strip_prefix("\"commit\":") {
        let (first, sum) = commit.split_once(",\"sum\":\"")?;
        Line::Commit { first: parse_seq(first)?, sum: parse_hex(sum.strip_suffix('"')?)? }
    } else {
        Line::Entry(fields)
    };
    Some((seq, content))
}

fn parse_seq(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if plain { text.parse().ok() } else { None }
}

fn parse_hex(text: &str) -> Option<u32> {
    let plain = text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if plain { u32::from_str_radix(text, 16).ok() } else { None }
}

#[cfg(test)]
mod tests;
