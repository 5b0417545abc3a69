//! Who a process is: proving that it is the one that is meant, and that it is gone.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::OnceLock;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use super::table::{self, Instance};
use crate::protocol::name::RunId;
use crate::protocol::process::{Identity, is_same};
use crate::protocol::variables::ENV_RUN;

/// How many generations of ancestors are looked at.
const ANCESTORS_MAX: usize = 1024;

/// What makes a pid and a start time comparable: the boot and the pid namespace we live in.
#[derive(Debug)]
struct Here {
    boot: String,
    ns: u64,
}

/// Neither changes while a process lives, so both are read once.
fn here() -> io::Result<&'static Here> {
    static HERE: OnceLock<Here> = OnceLock::new();
    if let Some(here) = HERE.get() {
        return Ok(here);
    }
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned();
    let link = std::fs::read_link("/proc/self/ns/pid")?;
    let ns = link
        .to_str()
        .and_then(|text| text.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok())
        .ok_or_else(|| io::Error::other(format!("/proc/self/ns/pid is {}", link.display())))?;
    Ok(HERE.get_or_init(|| Here { boot, ns }))
}

/// Where a process lives, seen from here.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Locality {
    /// On this boot and in this pid namespace: its pid means something to us.
    Here(Instance),
    /// Before the machine was started last: it is gone.
    EarlierBoot,
    /// In another pid namespace: nothing can be told of it.
    OtherNamespace,
}

/// Says where a process lives. Where we cannot tell where we are ourselves, it counts as elsewhere.
pub(super) fn locality(identity: &Identity) -> Locality {
    match here() {
        Ok(here) if here.boot != identity.boot => Locality::EarlierBoot,
        Ok(here) if here.ns == identity.ns => {
            Locality::Here(Instance { pid: identity.pid, start: identity.start })
        }
        Ok(_) | Err(_) => Locality::OtherNamespace,
    }
}

/// The full identity of a process that lives here.
///
/// # Errors
/// Those of reading the boot id and the pid namespace.
pub(super) fn identity(instance: Instance) -> io::Result<Identity> {
    let here = here()?;
    Ok(Identity { pid: instance.pid, start: instance.start, boot: here.boot.clone(), ns: here.ns })
}

/// Who we are.
///
/// # Errors
/// Those of reading `/proc`.
pub fn own_identity() -> io::Result<Identity> {
    identity(table::read_stat(std::process::id())?.instance)
}

/// Who the process with this pid is; `None` if there is none, or none that may be seen.
#[must_use]
pub fn identity_of(pid: u32) -> Option<Identity> {
    identity(table::read_stat(pid).ok()?.instance).ok()
}

/// True if it is certain that this process has ended.
///
/// That is: no process has its pid, or one does that began at another time, or the machine was started
/// anew since; or it is a zombie, which runs nothing any more. A process that cannot be read may live, and
/// so may one of another pid namespace.
#[must_use]
pub fn is_gone(identity: &Identity) -> bool {
    match locality(identity) {
        Locality::Here(instance) => matches!(hold(instance), Held::Gone),
        Locality::EarlierBoot => true,
        Locality::OtherNamespace => false,
    }
}

/// True if it is certain that no process runs under this pid.
#[must_use]
pub fn is_vacant(pid: u32) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
        Ok(pidfd) => has_ended(pidfd.as_fd()),
        Err(errno) => errno == Errno::SRCH,
    }
}

/// What came of trying to take hold of a process.
#[derive(Debug)]
pub(super) enum Held {
    /// It is the one that was meant, and lives: a signal through this descriptor reaches it or nobody.
    Alive(OwnedFd),
    /// It has ended.
    Gone,
    /// It may live, but it cannot be proved to be the one that was meant: never signal it.
    Doubtful(io::Error),
}

/// Takes hold of a process.
///
/// The descriptor is opened first and the start time compared after: if both were the other way round, the
/// pid could change hands in between.
pub(super) fn hold(instance: Instance) -> Held {
    let Some(pid) = i32::try_from(instance.pid).ok().and_then(Pid::from_raw) else { return Held::Gone };
    let opened = rustix::process::pidfd_open(pid, PidfdFlags::empty());
    if matches!(opened, Err(Errno::SRCH)) {
        return Held::Gone;
    }
    let started = table::read_stat(instance.pid).map(|stat| stat.instance.start);
    match (opened, started) {
        (_, Ok(start)) if !is_same(instance.start, start) => Held::Gone,
        (Ok(pidfd), _) if has_ended(pidfd.as_fd()) => Held::Gone,
        (Ok(pidfd), Ok(_)) => Held::Alive(pidfd),
        (Ok(_), Err(error)) => Held::Doubtful(error),
        (Err(errno), _) => Held::Doubtful(errno.into()),
    }
}

/// True if the process behind a pidfd, all its threads included, has ended.
pub(super) fn has_ended(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(rustix::event::poll(&mut fds, Some(&at_once)), Ok(1..))
}

/// Sends a signal to exactly this process. One that has ended already is no error.
///
/// # Errors
/// What kept it from being proved the right one; those of `pidfd_send_signal(2)`.
pub(super) fn signal(instance: Instance, signal: Signal) -> io::Result<()> {
    match hold(instance) {
        Held::Gone => Ok(()),
        Held::Doubtful(error) => Err(error),
        Held::Alive(pidfd) => match rustix::process::pidfd_send_signal(&pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        },
    }
}

/// The root process of the run that the calling process belongs to: the topmost of its ancestors, or
/// itself, whose environment bears the run's id. `None` if none does.
///
/// An ancestor in between that wrote over its environment (as some do to change what `ps` shows) does not
/// end the search.
#[must_use]
pub fn root_of_run(run: &RunId) -> Option<Identity> {
    let mut environ = Vec::new();
    let mut root = None;
    let mut pid = std::process::id();
    for _ in 0..ANCESTORS_MAX {
        let Ok(stat) = table::read_stat(pid) else { break };
        let marked = table::read_environ(pid, &mut environ).is_ok()
            && table::variable(&environ, ENV_RUN) == Some(run.as_str().as_bytes());
        if marked {
            root = Some(stat.instance);
        }
        if stat.parent <= 1 {
            break;
        }
        pid = stat.parent;
    }
    identity(root?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn we_are_not_gone_but_our_likes_are() {
        let own = own_identity().expect("/proc is readable");
        assert_eq!(identity_of(own.pid).as_ref(), Some(&own));
        assert!(!is_gone(&own));
        assert!(is_gone(&Identity { start: own.start + 1, ..own.clone() }), "another start time");
        assert!(is_gone(&Identity { boot: "before".into(), ..own.clone() }), "an earlier boot");
        assert!(!is_gone(&Identity { ns: own.ns + 1, start: own.start + 1, ..own.clone() }), "elsewhere");
        assert!(is_gone(&Identity { pid: 0, ..own.clone() }), "no pid at all");
        assert!(is_gone(&Identity { pid: u32::MAX, ..own }), "no pid at all");
    }

    #[test]
    fn init_is_alive_to_everyone() {
        let init = identity_of(1).expect("the stat of every process is readable");
        assert!(!is_gone(&init));
    }

    #[test]
    fn a_process_of_another_start_time_is_never_signalled() {
        // If it were, the signal would end this test's own process.
        let own = own_identity().expect("/proc is readable");
        let meant = Instance { pid: own.pid, start: own.start + 1 };
        signal(meant, Signal::KILL).expect("gone is no error");
    }

    #[test]
    fn outside_a_run_there_is_no_root() {
        assert_eq!(root_of_run(&"never-ran".parse().expect("a name")), None);
    }
}
