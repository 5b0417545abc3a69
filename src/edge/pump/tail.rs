//! The last lines of a log, for a person.

use std::io;
use std::path::Path;

use crate::edge::store::Store;
use crate::protocol::display;

/// How much of a log's end is read, in bytes.
const TAIL_LEN_MAX: u64 = 64 * 1024;

/// The last lines of a log, at most `count` and as many as stand in its last 64 KiB, cleaned for a
/// screen. None if there is no log.
///
/// # Errors
/// Those of [`Store::stat`] and [`Store::read_at`].
pub fn last_lines<S: Store>(store: &S, path: &Path, count: usize) -> io::Result<Vec<String>> {
    let Some(signature) = store.stat(path)? else { return Ok(Vec::new()) };
    if !signature.is_regular() {
        return Ok(Vec::new());
    }
    let from = signature.size.saturating_sub(TAIL_LEN_MAX);
    let bytes = store.read_at(path, from, usize::try_from(signature.size - from).unwrap_or(usize::MAX))?;
    let whole = match bytes.iter().position(|b| *b == b'\n') {
        // What begins in the middle of a line is left out, if there is a whole line behind it.
        Some(end) if from > 0 && end + 1 < bytes.len() => &bytes[end + 1..],
        Some(_) | None => &bytes[..],
    };
    let text = whole.strip_suffix(b"\n").unwrap_or(whole);
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let mut lines: Vec<String> = text.rsplit(|b| *b == b'\n').take(count).map(display::clean).collect();
    lines.reverse();
    Ok(lines)
}
