//! The binary as a shell sees it: what it prints where, and the codes it ends with.

#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    reason = "a test plays the world, and fails by panicking"
)]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn crew() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("agents")).unwrap();
    dir
}

/// The command line `nightcrew ARGS…` in a directory, in no run.
fn nightcrew(dir: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nightcrew"));
    command.args(args).current_dir(dir);
    for name in ["DIR", "AGENT", "RUN", "HEARTBEAT", "TASK", "TOKEN", "NONCE"] {
        command.env_remove(format!("NIGHTCREW_{name}"));
    }
    command
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn without_a_crew_a_verb_says_what_to_do_and_the_bare_binary_how_to_begin() {
    let nowhere = tempfile::tempdir().unwrap();
    let verb = nightcrew(nowhere.path(), &["tasks"]).output().unwrap();
    assert_eq!(code(&verb), 69);
    assert!(verb.stdout.is_empty());
    let told = text(&verb.stderr);
    assert!(told.starts_with("error: no crew here") && told.contains("\nhint: "), "{told}");
    let bare = nightcrew(nowhere.path(), &[]).output().unwrap();
    assert_eq!(code(&bare), 0);
    assert!(text(&bare.stdout).contains("nightcrew init"));
    assert_eq!(code(&nightcrew(nowhere.path(), &["frobnicate"]).output().unwrap()), 2);
}

#[test]
fn a_submission_is_accepted_once_and_bad_input_refused() {
    let crew = crew();
    let submit = |payload: &str| {
        let mut child = nightcrew(crew.path(), &["submit", "write", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(payload.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let first = submit("{\"a\": 1}\n");
    assert_eq!(code(&first), 0, "{}", text(&first.stderr));
    assert!(text(&first.stdout).contains("undecided: no supervisor runs"), "{}", text(&first.stdout));
    assert!(text(&first.stderr).contains("no agent says that it handles write"));
    let again = submit("{\"a\": 1}");
    assert_eq!(code(&again), 0);
    assert!(text(&again.stdout).starts_with("duplicate of "), "{}", text(&again.stdout));
    let bad = submit("{\"a\": }");
    assert_eq!(code(&bad), 65);
    assert!(text(&bad.stderr).contains("line 1 column 7"), "{}", text(&bad.stderr));
}

#[test]
fn a_reader_that_has_gone_is_no_error() {
    let crew = crew();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = nightcrew(crew.path(), &["tasks"]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert_eq!((code(&ended), text(&ended.stderr).as_str()), (0, ""));
}

#[test]
fn a_halt_keeps_its_first_reason_and_holds_off_claims() {
    let crew = crew();
    let run = |args: &[&str]| nightcrew(crew.path(), args).output().unwrap();
    assert_eq!(text(&run(&["halt", "the", "feed", "is", "down"]).stdout), "halted: the feed is down\n");
    assert_eq!(text(&run(&["halt", "again"]).stdout), "halted already: the feed is down\n");
    let pid = std::process::id().to_string();
    let claim = run(&["claim", "--owner-pid", &pid]);
    assert_eq!(code(&claim), 75, "{}", text(&claim.stderr));
    assert_eq!(code(&run(&["resume"])), 0);
    let claim = run(&["claim", "--owner-pid", &pid]);
    assert_eq!(code(&claim), 66, "{}", text(&claim.stderr));
    let unknown = run(&["stop", "nobody"]);
    assert_eq!(code(&unknown), 1, "{}", text(&unknown.stderr));
    assert_eq!(code(&run(&["restart", "--all"])), 69);
}
