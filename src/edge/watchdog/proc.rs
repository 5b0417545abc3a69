//! What `/proc/PID` tells beyond the process list: identity, marker, and memory read exactly.

use crate::protocol::variables::ENV_RUN;
use std::fs::File;
use std::io::{self, Read};

/// How much of an environment is searched, in bytes. We set the marker among the first variables.
const ENVIRON_LEN_MAX: u64 = 256 * 1024;
/// How much of any other file is read.
const FILE_LEN_MAX: u64 = 16 * 1024;

fn read(pid: u32, file: &str, len_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/{file}"))?.take(len_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// When a process started, in clock ticks since boot; `None` if it is gone.
pub(super) fn start_of(pid: u32) -> Option<u64> {
    start_in(&read(pid, "stat", FILE_LEN_MAX).ok()?)
}

/// Field 22. The second field, the command's name, may hold anything, also blanks and parentheses.
fn start_in(stat: &[u8]) -> Option<u64> {
    let name_end = stat.iter().rposition(|b| *b == b')')?;
    let text = std::str::from_utf8(&stat[name_end + 1..]).ok()?;
    text.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// The run that a process is marked with in its environment.
pub(super) fn marker_of(pid: u32) -> Option<String> {
    marker_in(&read(pid, "environ", ENVIRON_LEN_MAX).ok()?)
}

fn marker_in(environ: &[u8]) -> Option<String> {
    environ.split(|b| *b == 0).find_map(|variable| {
        let value = variable.strip_prefix(ENV_RUN.as_bytes())?.strip_prefix(b"=")?;
        String::from_utf8(value.to_vec()).ok()
    })
}

/// How the memory of a process was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Share {
    /// Its proportional share: PSS and swapped PSS.
    Exact(u64),
    /// Its own resident and swapped pages, for one that cannot be read closer.
    Estimated(u64),
    /// It is gone.
    Gone,
}

/// What a process really takes, in bytes.
pub(super) fn share_of(pid: u32) -> Share {
    if let Ok(rollup) = read(pid, "smaps_rollup", FILE_LEN_MAX)
        && let Some(pss) = field(&rollup, "Pss:")
    {
        return Share::Exact(pss.saturating_add(field(&rollup, "SwapPss:").unwrap_or(0)));
    }
    match read(pid, "status", FILE_LEN_MAX) {
        // A process without memory of its own, such as one that is ending, has no such field.
        Ok(status) => match field(&status, "RssAnon:") {
            Some(anonymous) => {
                Share::Estimated(anonymous.saturating_add(field(&status, "VmSwap:").unwrap_or(0)))
            }
            None => Share::Gone,
        },
        Err(_) => Share::Gone,
    }
}

/// What of a process is swapped out, in bytes.
pub(super) fn swap_of(pid: u32) -> u64 {
    read(pid, "status", FILE_LEN_MAX).ok().and_then(|status| field(&status, "VmSwap:")).unwrap_or(0)
}

/// A line `NAME:  123 kB`, in bytes.
fn field(text: &[u8], name: &str) -> Option<u64> {
    let line = text.split(|b| *b == b'\n').find_map(|line| line.strip_prefix(name.as_bytes()))?;
    let number = std::str::from_utf8(line).ok()?.trim().strip_suffix("kB")?.trim();
    number.parse::<u64>().ok().map(|kib| kib.saturating_mul(1024))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let stat = b"42 (a) b (c)) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 0 0";
        assert_eq!(start_in(stat), Some(987_654));
        for bad in [&b""[..], b"42", b"42 (x) S 1", b"42 (x) \xff"] {
            assert_eq!(start_in(bad), None);
        }
        assert!(start_of(std::process::id()).is_some());
    }

    #[test]
    fn the_marker_is_a_whole_variable() {
        assert_eq!(marker_in(b"A=1\0NIGHTCREW_RUN=R1\0B=2\0").as_deref(), Some("R1"));
        for none in [&b""[..], b"XNIGHTCREW_RUN=R1\0", b"A=NIGHTCREW_RUN=R1\0", b"NIGHTCREW_RUNS=1\0"] {
            assert_eq!(marker_in(none), None);
        }
    }

    #[test]
    fn memory_fields_are_bytes() {
        let text = b"Rss:  200 kB\nPss:               12 kB\nPss_Anon: 5 kB\nSwapPss:  3 kB\n";
        assert_eq!((field(text, "Pss:"), field(text, "SwapPss:")), (Some(12 * 1024), Some(3 * 1024)));
        assert_eq!(field(text, "VmSwap:"), None);
        assert!(matches!(share_of(std::process::id()), Share::Exact(bytes) if bytes > 0));
        assert_eq!(share_of(u32::MAX), Share::Gone);
    }

    proptest! {
        #[test]
        fn the_start_is_found_behind_any_name_there_can_be(
            name in prop::collection::vec(any::<u8>(), 0..64), fields in prop::collection::vec(any::<i64>(), 18), start: u64,
        ) {
            let fields: Vec<String> = fields.iter().map(ToString::to_string).collect();
            let rest = format!(") S {} {start} 0 (0 0\n", fields.join(" "));
            prop_assert_eq!(start_in(&[b"42 (", &name[..], rest.as_bytes()].concat()), Some(start));
        }

        #[test]
        fn any_amount_is_bytes_or_none(kib: u64, junk in "[ -~\n]{0,20}") {
            let text = format!("{junk}\nPss:   {kib} kB\n");
            prop_assume!(!junk.contains("Pss:"));
            prop_assert_eq!(field(text.as_bytes(), "Pss:"), Some(kib.saturating_mul(1024)));
        }

        #[test]
        fn no_bytes_are_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..200), tail in "[0-9() ]{0,80}") {
            let bytes = [&bytes[..], tail.as_bytes()].concat();
            let _ = (start_in(&bytes), marker_in(&bytes), field(&[b"Pss:", &bytes[..]].concat(), "Pss:"));
            let marked = [&bytes[..], b"\0NIGHTCREW_RUN=R1\0"].concat();
            prop_assert!(marker_in(&marked).is_some());
        }
    }
}
