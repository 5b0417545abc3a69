//! The descriptors that whoever started us left open in us: a lock that a script took, a terminal, a pipe.
//!
//! They are kept, for a lock may be held by them; but agents must not get them. One that outlives us would hold
//! that lock for us, and what it wrote to such a descriptor would end up where nobody meant it to.

use std::fs;
use std::io;
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::OnceLock;

use super::writing::flags_of;

/// What `/proc` shows for a descriptor that no program which is executed gets.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;
/// Up to here they are replaced in every agent.
const STANDARD_ERROR: RawFd = 2;
/// The most descriptors that are looked at.
const LISTED_MAX: usize = 65_536;

/// Those beyond the standard streams. What we open ourselves is close-on-exec, so that they are told by that;
/// they stay the same while we live, so they are looked for once.
pub(super) fn inherited() -> &'static [RawFd] {
    static INHERITED: OnceLock<Vec<RawFd>> = OnceLock::new();
    INHERITED.get_or_init(|| {
        list(Path::new("/proc/self")).unwrap_or_else(|error| {
            log::error!("agents may inherit what we inherited: cannot list our descriptors: {error}");
            Vec::new()
        })
    })
}

fn list(process: &Path) -> io::Result<Vec<RawFd>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(process.join("fd"))?.take(LISTED_MAX) {
        let number = entry?.file_name();
        let Some(fd) = number.to_str().and_then(|text| text.parse().ok()) else { continue };
        // One that is gone by now was another thread's.
        let passed_on =
            flags_of(&process.join("fdinfo").join(&number)).is_some_and(|f| f & CLOSE_ON_EXEC == 0);
        if fd > STANDARD_ERROR && passed_on {
            found.push(fd);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    use super::*;

    #[test]
    fn what_is_passed_on_is_told_from_what_is_not() {
        let ours = fs::File::open("/dev/null").unwrap();
        let passed_on = ours.try_clone().unwrap();
        rustix::io::fcntl_setfd(&passed_on, rustix::io::FdFlags::empty()).unwrap();
        let found = list(Path::new("/proc/self")).unwrap();
        assert!(found.contains(&passed_on.as_raw_fd()) && !found.contains(&ours.as_raw_fd()), "{found:?}");
        assert!(found.iter().all(|fd| *fd > 2), "{found:?}");
    }
}
