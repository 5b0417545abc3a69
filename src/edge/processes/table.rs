//! The process table: `/proc`, read.
//!
//! A listing of `/proc` is no snapshot: processes come and go while it is read. What may still be
//! concluded from one is said where it is concluded, in [`super::tree`] and [`super::worker`].

use std::fs;
use std::io::{self, Read};

use rustix::fs::{Mode, OFlags};

/// The largest environment that is read. Linux allows an agent 6 MiB at the very most.
const ENVIRON_LEN_MAX: u64 = 8 << 20;
/// The longest name of a process; those of kernel threads may be longer and are cut.
const NAME_LEN_MAX: usize = 15;

/// One process among all that ever had its pid on this boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Instance {
    /// The process id.
    pub(super) pid: u32,
    /// Its start in clock ticks since boot.
    pub(super) start: u64,
}

/// What is used of `/proc/PID/stat`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    /// Who it is.
    pub(super) instance: Instance,
    /// Its parent's pid.
    pub(super) parent: u32,
    /// Its session: the pid of the process that began it.
    pub(super) session: u32,
    /// One letter, as `ps` prints it.
    pub(super) state: char,
    /// How many threads it has.
    pub(super) threads: u64,
    /// Time on a processor, in clock ticks, that of children it waited for included.
    pub(super) cpu_ticks: u64,
    /// Resident memory in pages.
    pub(super) rss_pages: u64,
    name: [u8; NAME_LEN_MAX],
}

impl Stat {
    /// True for what is dead and only waits to be reaped. A process whose first thread ended while others run
    /// shows as a zombie too, but lives.
    pub(super) fn is_zombie(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x') && self.threads <= 1
    }

    /// The name of its program, cut to 15 bytes by the kernel; anything but printable ASCII shows as `?`.
    pub(super) fn name(&self) -> String {
        let used = self.name.iter().take_while(|byte| **byte != 0);
        used.map(|byte| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' }).collect()
    }

    /// `pid name`
    pub(super) fn label(&self) -> String {
        format!("{} {}", self.instance.pid, self.name())
    }

    /// `pid name (state)`
    pub(super) fn label_with_state(&self) -> String {
        format!("{} ({})", self.label(), self.state)
    }
}

/// Parses `/proc/PID/stat`. The name stands in parentheses and may itself hold spaces and parentheses, so
/// the fields are counted from the last one.
pub(super) fn parse_stat(text: &[u8]) -> Option<Stat> {
    let opening = text.iter().position(|byte| *byte == b'(')?;
    let closing = text.iter().rposition(|byte| *byte == b')')?;
    let pid = std::str::from_utf8(text.get(..opening)?).ok()?.trim().parse().ok()?;
    let mut name = [0; NAME_LEN_MAX];
    for (to, from) in name.iter_mut().zip(text.get(opening + 1..closing)?) {
        *to = *from;
    }
    // Field 3 of proc_pid_stat(5) comes first in what is left.
    let mut fields = std::str::from_utf8(text.get(closing + 1..)?).ok()?.split_ascii_whitespace();
    let mut skip_to = |skipped: usize| fields.nth(skipped);
    let state = skip_to(0)?.chars().next()?;
    let parent = skip_to(0)?.parse().ok()?;
    let session = skip_to(1)?.parse().ok()?;
    let mut cpu_ticks: u64 = 0;
    for skipped in [7, 0, 0, 0] {
        // Those of children are signed in some kernels and may dip below zero for a moment.
        let ticks: i64 = skip_to(skipped)?.parse().ok()?;
        cpu_ticks = cpu_ticks.saturating_add_signed(ticks.max(0));
    }
    let threads = skip_to(2)?.parse().ok()?;
    let start = skip_to(1)?.parse().ok()?;
    let rss_pages = skip_to(1)?.parse().ok()?;
    let instance = Instance { pid, start };
    Some(Stat { instance, parent, session, state, threads, cpu_ticks, rss_pages, name })
}

/// Reads `/proc/PID/stat` of one process.
///
/// # Errors
/// Those of `open(2)` and `read(2)`: `ENOENT` or `ESRCH` if there is no such process, or none that may be
/// seen.
pub(super) fn read_stat(pid: u32) -> io::Result<Stat> {
    let path = format!("/proc/{pid}/stat");
    let file = rustix::fs::open(path.as_str(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    // The longest possible is about 1,100 bytes; the fields that count stand in its first half.
    let mut text = [0; 1536];
    let len = rustix::io::read(&file, &mut text)?;
    text.get(..len)
        .and_then(parse_stat)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("{path} cannot be parsed")))
}

/// Reads the stat of every process that can be seen, in the order of their pids.
///
/// # Errors
/// Those of listing `/proc` and of opening too many files. A process that ends meanwhile is no error.
pub(super) fn scan() -> io::Result<Vec<Stat>> {
    let mut table = Vec::with_capacity(128);
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        match read_stat(pid) {
            Ok(stat) => table.push(stat),
            // It ended meanwhile, or `hidepid` keeps it from us: then it is another user's.
            Err(error) if is_absent(&error) || error.kind() == io::ErrorKind::PermissionDenied => {}
            Err(error) => return Err(error),
        }
    }
    table.sort_unstable_by_key(|stat| stat.instance.pid);
    Ok(table)
}

/// The pids of our own children, zombies included.
///
/// # Errors
/// Those of reading `/proc/self/task/TID/children`, which not every kernel has.
pub(super) fn own_children() -> io::Result<Vec<u32>> {
    let mut children = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let text = fs::read_to_string(task?.path().join("children"))?;
        children.extend(text.split_ascii_whitespace().filter_map(|pid| pid.parse::<u32>().ok()));
    }
    Ok(children)
}

/// True if the error says that a process is not there.
pub(super) fn is_absent(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::NOENT | rustix::io::Errno::SRCH))
}

/// The row of `pid` in a table made by [`scan`].
pub(super) fn row(table: &[Stat], pid: u32) -> Option<usize> {
    table.binary_search_by_key(&pid, |stat| stat.instance.pid).ok()
}

/// Reads the environment that a process was started with into `buffer`.
///
/// The kernel shows it only of processes that we could trace: those of our own user, or any if we are root.
/// That is why a marker in it may be believed: nobody else's process can bring us to signal it.
///
/// # Errors
/// Those of `open(2)` and `read(2)`; `PermissionDenied` for a process of another user.
pub(super) fn read_environ(pid: u32, buffer: &mut Vec<u8>) -> io::Result<()> {
    buffer.clear();
    fs::File::open(format!("/proc/{pid}/environ"))?.take(ENVIRON_LEN_MAX).read_to_end(buffer)?;
    Ok(())
}

/// The value of a variable in an environment.
pub(super) fn variable<'a>(environ: &'a [u8], name: &str) -> Option<&'a [u8]> {
    environ.split(|byte| *byte == 0).find_map(|entry| {
        let (before, after) = entry.split_at_checked(name.len())?;
        if before == name.as_bytes() { after.strip_prefix(b"=") } else { None }
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_name_may_hold_anything() {
        let text =
            b"4711 (a) R 1 (b c) S 12 4711 4710 0 -1 4194304 90 0 0 0 5 6 7 8 20 0 3 0 987654 4096 77 1";
        let stat = parse_stat(text).expect("it is whole");
        assert_eq!(stat.instance, Instance { pid: 4711, start: 987_654 });
        assert_eq!((stat.parent, stat.session, stat.state), (12, 4710, 'S'));
        assert_eq!((stat.threads, stat.cpu_ticks, stat.rss_pages), (3, 26, 77));
        assert_eq!(stat.label_with_state(), "4711 a) R 1 (b c (S)");
    }

    #[test]
    fn what_is_cut_short_is_no_stat() {
        for text in ["", "1 (x", "1 (x)", "1 (x) S 1 1 1", "x (y) S 12 4711 4710 0 -1 4194304 90"] {
            assert_eq!(parse_stat(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn a_zombie_with_threads_lives() {
        let zombie = |threads: u64| {
            let text = format!("1 (x) Z 1 1 1 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 5 0 0");
            parse_stat(text.as_bytes()).expect("it is whole").is_zombie()
        };
        assert!(zombie(1));
        assert!(!zombie(2));
    }

    #[test]
    fn a_variable_is_matched_whole() {
        let environ = b"XRUN=a\0RUN_2=b\0RUN=c=d\0RUN=e\0";
        assert_eq!(variable(environ, "RUN"), Some(b"c=d".as_slice()));
        assert_eq!(variable(environ, "UN"), None);
        assert_eq!(variable(environ, "RUN_"), None);
    }

    #[test]
    fn we_are_in_the_table() {
        let table = scan().expect("/proc can be listed");
        let own = row(&table, std::process::id()).expect("we are there");
        assert_eq!(read_stat(std::process::id()).expect("readable").instance, table[own].instance);
    }

    proptest! {
        #[test]
        fn any_stat_is_read_behind_any_name(
            pid: u32, parent: u32, session: u32, threads: u32, start: u64, rss: u64, ticks in prop::array::uniform4(any::<i64>()),
            name in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let [one, two, three, four] = ticks;
            let rest = format!(
                ") R {parent} 1 {session} 0 -1 0 0 0 0 0 {one} {two} {three} {four} 20 0 {threads} 0 {start} 0 {rss} 0\n"
            );
            let text = [format!("{pid} (").as_bytes(), &name, rest.as_bytes()].concat();
            let stat = parse_stat(&text).unwrap();
            prop_assert_eq!((stat.instance, stat.parent, stat.session), (Instance { pid, start }, parent, session));
            let sum = ticks.iter().fold(0u64, |sum, ticks| sum.saturating_add_signed((*ticks).max(0)));
            prop_assert_eq!((stat.state, stat.cpu_ticks), ('R', sum));
            prop_assert!(stat.name().bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{:?}", stat.name());
        }

        #[test]
        fn no_bytes_are_too_strange(
            head in "([0-9]{1,12} [(])?", bytes in prop::collection::vec(any::<u8>(), 0..200),
            tail in "([)]( S)?)?[0-9() -]{0,80}",
        ) {
            // Most bytes do not even begin as a stat does, and would be refused for their first.
            let bytes = [head.as_bytes(), &bytes, tail.as_bytes()].concat();
            let _ = (parse_stat(&bytes), variable(&bytes, "NIGHTCREW_RUN"));
        }
    }
}
