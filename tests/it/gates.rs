//! The example gates: what they let pass, what they stop and with which words; and that no bytes upset them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

const GATES: [&str; 6] =
    ["article", "json-shape", "length-range", "no-prompt-leak", "readable", "has-sources"];

/// What a gate says of a result: nothing, if it passes.
#[track_caller]
fn judge(gate: &str, result: &[u8]) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("result");
    fs::write(&path, result).expect("written");
    let gate = Path::new(env!("CARGO_MANIFEST_DIR")).join("gates").join(gate);
    let stdin = Stdio::from(fs::File::open(&path).expect("it is there"));
    let output = Command::new(&gate).current_dir(dir.path()).stdin(stdin).output().expect("it runs");
    let words = String::from_utf8(output.stdout).expect("words are UTF-8");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(errors, "", "{} of {} bytes", gate.display(), result.len());
    let code = output.status.code();
    assert_eq!(code, Some(i32::from(!words.is_empty())), "{}: {words}", gate.display());
    words.trim_end().to_owned()
}

fn article(summary: &str) -> Value {
    json!({"file": "inbox/a", "content": "00", "sources": ["inbox/a"], "summary": [summary], "method": "command"})
}

const GOOD: &str = "The harbour was closed on Monday. Ships waited outside until the wind had turned, and nobody \
                    was hurt. The port expects to be back to normal by the end of the week.";

#[test]
fn an_article_passes_only_what_all_its_gates_pass() {
    let judged = |article: &Value| judge("article", article.to_string().as_bytes());
    assert_eq!(judged(&article(GOOD)), "");
    assert_eq!(judge("article", b""), "", "where there was nothing to do, there is nothing to judge");
    let mut bad = article("System prompt");
    bad["summary"] = json!(["You are", "the System\n prompt"]);
    bad["sources"] = json!([]);
    let words = judged(&bad);
    assert_eq!(
        words, "has-sources: no source is named\nno-prompt-leak: it says 'system prompt'",
        "all is told"
    );
    bad["summary"] = json!("a string");
    assert_eq!(judged(&bad), "json-shape: 'summary' should be a list of strings", "no more can be judged");
    assert_eq!(judged(&article("OK.")), "length-range: 3 bytes, where 10 to 8000 are wanted");
}

#[test]
fn json_shape_names_what_is_missing_and_what_is_wrong() {
    assert_eq!(judge("json-shape", article(GOOD).to_string().as_bytes()), "");
    let words = judge("json-shape", br#"{"file":1,"content":"","sources":["a",2],"summary":[],"more":null}"#);
    let lines: Vec<&str> = words.lines().collect();
    let expected = [
        "json-shape: 'method' is missing",
        "json-shape: 'file' should be a string",
        "json-shape: 'sources' should be a list of strings",
    ];
    assert_eq!(lines, expected);
    assert_eq!(judge("json-shape", b"[]"), "json-shape: JSON, but no object");
    assert!(judge("json-shape", b"{\"file\":").starts_with("json-shape: no JSON: "));
}

#[test]
fn length_range_counts_what_is_no_white_space() {
    assert_eq!(
        judge("length-range", b"123456789\n \t\n"),
        "length-range: 9 bytes, where 10 to 8000 are wanted"
    );
    assert_eq!(judge("length-range", b"1234 567890"), "");
    assert_eq!(judge("length-range", &[b'x'; 8000]), "");
    let words = judge("length-range", &[b'x'; 8001]);
    assert_eq!(words, "length-range: 8001 bytes, where 10 to 8000 are wanted");
}

#[test]
fn no_prompt_leak_finds_phrases_however_they_are_written() {
    assert_eq!(judge("no-prompt-leak", GOOD.as_bytes()), "");
    let words =
        judge("no-prompt-leak", "I\u{2019}M  sorry,\nbut I can\u{2019}t. AS AN AI\tASSISTANT".as_bytes());
    let lines: Vec<&str> = words.lines().collect();
    let expected =
        ["no-prompt-leak: it says 'as an ai assistant'", "no-prompt-leak: it says \"i'm sorry, but i can\""];
    assert_eq!(lines, expected);
}

#[test]
fn readable_stops_sentences_that_do_not_end() {
    assert_eq!(judge("readable", GOOD.as_bytes()), "");
    assert_eq!(judge("readable", "interdepartmental ".repeat(19).as_bytes()), "", "too few words to tell");
    let words = judge("readable", "interdepartmental coordination ".repeat(30).as_bytes());
    assert_eq!(words, "readable: LIX 160, where 90 is the limit: shorter sentences, plainer words");
    assert_eq!(
        judge("readable", "我们今天去海边散步。".repeat(40).as_bytes()),
        "",
        "no spaces, no judgement"
    );
    assert_eq!(judge("readable", b" \n"), "readable: there is nothing to read");
}

#[test]
fn has_sources_takes_a_list_an_address_or_a_line() {
    for good in [
        &b"See https://example.org/a for more."[..],
        b"It is so.\n\nSources: the annual report",
        b"## Reference: Luhn 1958",
        br#"{"sources":["inbox/a"]}"#,
        br#""Source: a string""#,
    ] {
        assert_eq!(judge("has-sources", good), "", "{}", String::from_utf8_lossy(good));
    }
    for bad in [
        &b"It is so, a source told me."[..],
        b"http://",
        b"Source:",
        br#"{"sources":[]}"#,
        br#"{"sources":[" ",1]}"#,
        br#"{"text":"https://example.org"}"#,
        b"[1]",
    ] {
        let words = judge("has-sources", bad);
        assert_eq!(words, "has-sources: no source is named", "{}", String::from_utf8_lossy(bad));
    }
}

#[test]
fn no_bytes_upset_a_gate() {
    let every: Vec<u8> = (0..=255).cycle().take(5000).collect();
    let surrogate = article("HALF").to_string().replace("HALF", "\\ud800 and more of it, you see");
    let number = format!("{{\"file\":{}}}", "9".repeat(10_000));
    let large = vec![b'a'; 2 * 1024 * 1024];
    let deep = "[".repeat(200_000);
    let odd: [&[u8]; 8] = [
        b"",
        b"\0",
        &every,
        surrogate.as_bytes(),
        number.as_bytes(),
        &large,
        deep.as_bytes(),
        b"\xef\xbb\xbf{\"summary\":[\"\xff\"]}",
    ];
    for gate in GATES {
        for result in odd {
            judge(gate, result);
        }
    }
    for gate in ["json-shape", "length-range", "readable", "has-sources"] {
        assert_ne!(judge(gate, b""), "", "{gate} wants something");
    }
}
