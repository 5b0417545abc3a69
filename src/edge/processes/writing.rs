//! Whether somebody has a file open for writing: told from the descriptors of all processes.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The most descriptors of one process that are looked at.
const DESCRIPTORS_MAX: usize = 4096;

/// True if some process whose descriptors we may see has `path` open for writing. What cannot be seen
/// counts as closed.
pub(super) fn is_open_for_writing(path: &Path) -> bool {
    let Ok(wanted) = fs::metadata(path) else { return false };
    let Ok(processes) = fs::read_dir("/proc") else { return false };
    processes.flatten().filter(|process| is_pid(&process.file_name())).any(|process| {
        let process = process.path();
        let Ok(descriptors) = fs::read_dir(process.join("fd")) else { return false };
        descriptors.flatten().take(DESCRIPTORS_MAX).any(|descriptor| {
            let same = fs::metadata(descriptor.path())
                .is_ok_and(|found| (found.dev(), found.ino()) == (wanted.dev(), wanted.ino()));
            same && is_writable(&process.join("fdinfo").join(descriptor.file_name()))
        })
    })
}

fn is_pid(name: &std::ffi::OsStr) -> bool {
    name.to_str().is_some_and(|name| name.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The last two bits of the flags are the access mode, 0 for reading only.
fn is_writable(info: &Path) -> bool {
    flags_of(info).is_some_and(|flags| flags & 0o3 != 0)
}

/// The flags of a descriptor: what stands, in octal, as `flags:` in `/proc/PID/fdinfo/FD`.
pub(super) fn flags_of(info: &Path) -> Option<u32> {
    let text = fs::read_to_string(info).ok()?;
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
    u32::from_str_radix(flags.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_writer_counts() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sh");
        let writer = fs::File::create(&path).unwrap();
        assert!(is_open_for_writing(&path));
        drop(writer);
        let reader = fs::File::open(&path).unwrap();
        assert!(!is_open_for_writing(&path));
        drop(reader);
        assert!(!is_open_for_writing(&dir.path().join("missing")));
    }
}
