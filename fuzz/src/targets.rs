//! What each fuzz target does with its bytes: one function a family of formats, which panics if a promise of the
//! parser does not hold.
//!
//! `tests/fuzz_corpus.rs` includes this file and hands it the kept corpora, so neither can rot.

use nightcrew::machine::memory::{self, Stored};
use nightcrew::protocol::display::clean;
use nightcrew::protocol::framing::{Body, Committed, Scan, Start, Tail, commit_lines, scan};
use nightcrew::protocol::heartbeat::{self, Beat, NOTE_LEN_MAX};
use nightcrew::protocol::holder::Holder;
use nightcrew::protocol::journal::{Applied, Line};
use nightcrew::protocol::layout::Layout;
use nightcrew::protocol::ledger::Entry;
use nightcrew::protocol::manifest::{Defaults, ERRORS_MAX, from_script, from_toml};
use nightcrew::protocol::name::{Key, Name};
use nightcrew::protocol::record::{RecordError, cut, decode, encode};
use nightcrew::protocol::request::{Answer, Request};
use nightcrew::protocol::status::{AgentStatus, Alert, CrewStatus};
use nightcrew::protocol::step::{self, StepRecord, encode_begun, encode_done};
use nightcrew::protocol::task::{Lock, Outcome, TaskRecord, parse_outcome_name};
use nightcrew::protocol::tokens::Tokens;
use nightcrew::protocol::update::{Update, VALUE_LEN_MAX};
use nightcrew::protocol::{crewfile, envfile, logindex};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A record that was read is written in a form that is read as the same, and one with more behind it is refused.
fn record<T: DeserializeOwned + Serialize>(bytes: &[u8]) {
    let again = |bytes: &[u8]| decode::<T>(bytes).map(|record| encode(&record));
    if let Ok(line) = again(bytes) {
        assert_eq!(again(&line).as_ref(), Ok(&line), "what is written is read as the same");
        let trailing = again(&[bytes, b" 0"].concat());
        assert!(matches!(trailing, Err(RecordError::Malformed(_))), "trailing bytes are taken: {trailing:?}");
    }
}

/// Tasks, locks, outcomes and steps.
pub fn records(data: &[u8]) {
    record::<TaskRecord>(data);
    record::<Lock>(data);
    record::<Outcome>(data);
    record::<StepRecord>(data);
    steps(data);
}

/// A step that is believed is one that could have been recorded, and what it is believed to have printed is the same
/// when it is recorded again.
fn steps(data: &[u8]) {
    let Ok((record, _)) = step::decode_line(data) else { return };
    let id = record.id();
    let Ok((record, output)) = step::decode(data, &id) else { return };
    let (key, at) = (record.key.as_deref(), record.at);
    let again = match record.state {
        step::Progress::Begun => encode_begun(&id, key, at),
        step::Progress::Done { .. } => encode_done(&id, key, output, at),
    };
    assert_eq!(step::decode(&again, &id).map(|(_, output)| output), Ok(output));
}

/// Updates of the memory and the steward's own records of them.
pub fn update(data: &[u8]) {
    record::<Update>(data);
    record::<Line>(data);
    record::<Applied>(data);
    let Ok(update) = decode::<Update>(data) else { return };
    if memory::validate(&update, 1, 0).is_err() {
        return;
    }
    let held = [&b"[1]"[..], b"{\"a\":{\"b\":[]}}", b"0.1"].map(|bytes| Stored::from_bytes(bytes.to_vec()));
    for stored in held.iter().chain([&Stored::Absent]) {
        if let Ok(Stored::Held { bytes, value }) = memory::apply(stored, update.op, update.value.as_ref()) {
            assert!(bytes.len() <= VALUE_LEN_MAX, "{} bytes", bytes.len());
            let read = Stored::from_bytes(bytes.clone());
            assert_eq!(
                read,
                Stored::Held { bytes, value },
                "the store's file is read as the value that was meant"
            );
        }
    }
}

/// Logs, as they may be damaged or forged, and the entries of the ledger.
pub fn framing(data: &[u8]) {
    let forged = with_checksums(data);
    for start in [Start::Segment, Start::Next(2), Start::Anywhere] {
        scanned(data, start);
        scanned(&forged, start);
    }
    if let Ok(entry) = serde_json::from_slice::<Entry>(data) {
        let body = Body::of(&entry);
        assert!(body.is_ok(), "an entry that was read cannot be written: {body:?}");
        let Ok(body) = body else { return };
        assert!(!entry.fact.to_string().is_empty() || body.as_str().contains("\"\""));
        let (lines, _) = commit_lines(2, std::slice::from_ref(&body));
        let found: Vec<String> = scan(&lines, Start::Next(2)).entries.iter().map(Committed::body).collect();
        assert_eq!(found, [body.as_str()]);
        let again = serde_json::from_str::<Entry>(body.as_str());
        assert_eq!(again.ok().and_then(|again| Body::of(&again).ok()), Some(body));
    }
}

/// What a scan promises of any bytes.
fn scanned(bytes: &[u8], start: Start) {
    let found = scan(bytes, start);
    let Scan { entries, valid_len, committed, highest, damage, tail, .. } = &found;
    let believed = bytes.get(..*valid_len).unwrap_or_default();
    assert!(believed.len() == *valid_len && (believed.is_empty() || believed.ends_with(b"\n")));
    assert!(entries.is_sorted_by(|one, next| one.seq < next.seq));
    assert!(entries.iter().all(|entry| Some(entry.seq) < *committed) && committed <= highest);
    assert!(damage.iter().all(|stretch| stretch.from <= stretch.to && stretch.to <= *valid_len));
    assert!(damage.is_sorted_by(|one, next| one.to <= next.from));
    assert_eq!(*tail == Tail::Clean, *valid_len == bytes.len());
    let kept = scan(believed, start);
    assert_eq!(
        (&kept.entries, kept.tail, &kept.damage),
        (entries, Tail::Clean, damage),
        "cutting the tail changes it"
    );
    for entry in entries {
        let body = entry.body();
        let fields = body.trim_start_matches('{');
        let comma = if fields == "}" { "" } else { "," };
        let line = format!("{{\"seq\":{}{comma}{}", entry.seq, fields.strip_suffix('}').unwrap_or_default());
        let stands = believed
            .split(|byte| *byte == b'\n')
            .any(|found| found.len() == line.len() + 18 && found.starts_with(line.as_bytes()));
        assert!(stands, "no line is {line:?}");
    }
}

/// The same lines with the checksums that they should bear, for a fuzzer cannot guess them.
fn with_checksums(data: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = Vec::with_capacity(data.len());
    // Where the entries begin that the next commit line may close.
    let mut begin = 0;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        let from = out.len();
        out.extend_from_slice(line);
        let Some(text) = line.strip_suffix(b"\"}\n") else { continue };
        let Some(head) = text.len().checked_sub(16) else { continue };
        if text.get(head..head + 8) != Some(b",\"crc\":\"") {
            continue;
        }
        let sum_at = head
            .checked_sub(9)
            .filter(|at| at.checked_sub(8).and_then(|n| line.get(n..*at)) == Some(b",\"sum\":\""));
        if let Some(at) = sum_at {
            let sum = crc32fast::hash(&out[begin..from]);
            out[from + at..from + at + 8].copy_from_slice(format!("{sum:08x}").as_bytes());
        }
        if sum_at.is_some() || line.windows(11).any(|part| part == b"\"segment\":{") {
            begin = from + line.len();
        }
        let crc = crc32fast::hash(&out[from..from + head]);
        out[from + head + 8..from + head + 16].copy_from_slice(format!("{crc:08x}").as_bytes());
    }
    out
}

/// Heartbeats and the index of a log.
pub fn heartbeat(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for line in [text.as_ref(), &format!("2026-11-20T03:00:00Z {text}")] {
        if let Some(beat) = heartbeat::parse(line) {
            let note = beat.note.as_deref().map(|note| cut(note, NOTE_LEN_MAX).to_owned());
            assert_eq!(heartbeat::parse(&beat.to_string()), Some(Beat { note, ..beat }));
        }
    }
    let marks = logindex::parse(data);
    assert!(marks.is_sorted_by_key(|mark| mark.offset));
    let written: String = marks.iter().map(ToString::to_string).collect();
    assert_eq!(logindex::parse(written.as_bytes()), marks);
}

/// What a list of errors owes to whoever reads it: a line that is there, and nothing that a terminal acts upon.
fn told<T, E: ToString>(data: &[u8], result: &Result<T, Vec<E>>) {
    let Err(errors) = result else { return };
    assert!((1..=ERRORS_MAX).contains(&errors.len()), "{} errors", errors.len());
    let lines = data.split(|byte| *byte == b'\n').count();
    for error in errors {
        let text = error.to_string();
        let line = text.strip_prefix("file:").and_then(|rest| rest.split(':').next()?.parse::<usize>().ok());
        assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{text:?} names no line");
        assert!(!text.chars().any(char::is_control), "{text:?} controls a terminal");
        assert!(text.len() < 2000, "{text:?} is long");
    }
}

/// What operators and agents declare: manifests, nightcrew.toml, files of variables.
pub fn manifest(data: &[u8]) {
    let defaults = Defaults::default();
    let declared = from_toml("file", data, &defaults);
    told(data, &declared);
    told(data, &from_script("file", data, &defaults));
    let block: Vec<u8> =
        data.split(|byte| *byte == b'\n').flat_map(|line| [b"\n# ", line].concat()).collect();
    let script = [b"# /// agent", &block[..], b"\n# ///\n"].concat();
    told(&script, &from_script("file", &script, &defaults));
    told(data, &crewfile::parse("file", data));
    let variables = envfile::parse("file", data);
    told(data, &variables);
    for (name, value) in variables.into_iter().flatten() {
        assert!(!name.contains(['=', '\0']) && !name.is_empty() && !value.contains('\0'));
    }
}

/// What commands ask, what is answered and shown, and the names of files.
pub fn request(data: &[u8]) {
    record::<Request>(data);
    record::<Answer>(data);
    record::<Holder>(data);
    record::<Tokens>(data);
    record::<AgentStatus>(data);
    record::<CrewStatus>(data);
    record::<Alert>(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    names(text);
}

/// A name that is taken for one thing is what that thing would be named.
fn names(text: &str) {
    let layout = Layout::new("/");
    let named = |path: std::path::PathBuf| path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let text_again = Some(text.to_owned());
    if let Ok(name) = text.parse::<Name>() {
        assert!(name.as_str() == text && named(text.into()) == text_again);
    }
    if let Ok(key) = text.parse::<Key>() {
        let path = layout.value(&key);
        assert!(
            path.components().count() == text.split('/').count() + layout.store_dir().components().count()
        );
    }
    if let Some((task, token, nonce)) = parse_outcome_name(text) {
        assert_eq!(named(layout.outcome(&task, &task, token, nonce)), text_again);
    }
    if let Some(seq) = Layout::update_seq(text) {
        assert_eq!(Some(format!("{seq}.json")), text_again);
    }
    if let Some(seq) = Layout::segment_seq(text) {
        assert_eq!(named(Layout::segment("/".as_ref(), seq)), text_again);
    }
    if let Some((agent, run)) = Layout::pipe_owner(text) {
        assert_eq!(named(layout.pipe(&agent, &run)), text_again);
    }
    if let Some(agent) = Layout::log_owner(text) {
        assert_eq!(named(layout.log(&agent)), text_again);
    }
}

/// What an agent printed, as it is shown.
pub fn display(data: &[u8]) {
    let shown = clean(data);
    assert!(!shown.chars().any(|c| c.is_control() && c != '\t'), "{shown:?}");
    let turns = |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    assert!(!shown.contains(turns), "{shown:?}");
    assert!(shown.len() <= data.len());
    assert_eq!(clean(shown.as_bytes()), shown, "clean text is left as it is");
    if data.iter().all(|byte| (b' '..=b'~').contains(byte) || *byte == b'\t') {
        assert_eq!(shown.as_bytes(), data);
    }
}
