//! The kept corpora of the fuzz targets, run through what the targets do: see fuzz/README.md.

#![expect(
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a test touches the world, and fails by panicking"
)]

use std::fs;
use std::ops::RangeInclusive;
use std::path::Path;

#[expect(unreachable_pub, reason = "the crate of the fuzz targets reaches it")]
#[path = "../fuzz/src/targets.rs"]
mod targets;

/// What is kept of a corpus: some dozen small files, so that the sources stay small.
const FILES: RangeInclusive<usize> = 12..=48;
const FILE_LEN_MAX: usize = 1024;

fn replay(target: &str, run: fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut files = 0;
    for entry in fs::read_dir(&dir).expect("a corpus") {
        let path = entry.expect("an entry").path();
        let bytes = fs::read(&path).expect("a file");
        assert!(
            bytes.len() <= FILE_LEN_MAX,
            "{}: {} bytes are too many to keep",
            path.display(),
            bytes.len()
        );
        // Should it panic, this is the file.
        println!("{}", path.display());
        run(&bytes);
        files += 1;
    }
    assert!(FILES.contains(&files), "{}: {files} files", dir.display());
}

#[test]
fn records() {
    replay("records", targets::records);
}

#[test]
fn update() {
    replay("update", targets::update);
}

#[test]
fn framing() {
    replay("framing", targets::framing);
}

#[test]
fn heartbeat() {
    replay("heartbeat", targets::heartbeat);
}

#[test]
fn manifest() {
    replay("manifest", targets::manifest);
}

#[test]
fn request() {
    replay("request", targets::request);
}

#[test]
fn display() {
    replay("display", targets::display);
}
