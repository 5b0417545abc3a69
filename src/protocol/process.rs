//! Who a process is, and how one ended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A process, told from every other that ever had its pid: pid, start time, boot and pid namespace.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// The process id.
    pub pid: u32,
    /// Its start in clock ticks since boot: field 22 of `/proc/PID/stat`.
    pub start: u64,
    /// `/proc/sys/kernel/random/boot_id`
    pub boot: String,
    /// The pid namespace: the number in `/proc/PID/ns/pid`.
    pub ns: u64,
}

/// What the process table here says of a process that is known by its identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// The process that has its pid is the very one.
    Here,
    /// It has ended: nobody has its pid, or somebody who began later, or the machine was started since.
    Gone,
    /// It is of another pid namespace: nothing can be told, and its pid is somebody else's here.
    Elsewhere,
}

impl Identity {
    /// Judges what was found: `boot` and `ns` are ours, `start` is when the process that has this pid now began,
    /// if one has it.
    #[must_use]
    pub fn presence(&self, boot: &str, ns: u64, start: Option<u64>) -> Presence {
        if self.boot != boot {
            Presence::Gone
        } else if self.ns != ns {
            Presence::Elsewhere
        } else if start.is_some_and(|start| is_same(self.start, start)) {
            Presence::Here
        } else {
            Presence::Gone
        }
    }
}

/// True if a process that has another's pid is that very one: pids are used again, and it began when that one did.
#[must_use]
pub fn is_same(start: u64, found: u64) -> bool {
    start == found || mutant!(PidAlone)
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Ending {
    /// It returned this code.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// It is gone, and nobody saw how.
    Unseen,
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit {code}"),
            Self::Signal(signal) => write!(f, "killed by signal {signal}"),
            Self::Unseen => f.write_str("gone, nobody saw how"),
        }
    }
}

/// What an exit code means for a task. Codes follow sysexits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// 0: done.
    Done,
    /// 66 (NOINPUT): there was nothing to do, which is done too.
    NothingToDo,
    /// 75 (TEMPFAIL), 69 (UNAVAILABLE): later, no failure counted.
    Later,
    /// 65 (DATAERR), 64 (USAGE), 78 (CONFIG): trying again will not help.
    Permanent,
    /// Anything else: failed, tried again.
    Failed,
}

impl Ending {
    /// What this ending of a handler says of its task.
    #[must_use]
    pub fn meaning(self) -> Meaning {
        match self {
            Self::Code(0) => Meaning::Done,
            Self::Code(66) => Meaning::NothingToDo,
            Self::Code(75 | 69) => Meaning::Later,
            Self::Code(64 | 65 | 78) => Meaning::Permanent,
            Self::Code(_) | Self::Signal(_) | Self::Unseen => Meaning::Failed,
        }
    }
}
