//! What the process thread knows of one run.

use std::collections::HashSet;
use std::os::fd::OwnedFd;

use super::kill::Kill;
use super::table::Instance;
use super::tree::{Fate, Household, Origin};
use crate::protocol::name::RunId;
use crate::protocol::process::Identity;

/// How many processes of a tree are remembered to have been seen.
const SEEN_MAX: usize = 4096;

/// A run's root process.
///
/// | state | what may be done with its pid |
/// |---|---|
/// | `Child` | anything: it is not reaped, so nobody else can have its pid |
/// | `ChildEnded` | nothing; sessions and groups it began may live on |
/// | `Adopted` | what goes by an identity that was proved |
/// | `AdoptedEnded` | nothing |
/// | `Elsewhere` | nothing: its pid is of another namespace |
/// | `Unknown` | there is none: what is left of the run is found by its mark |
#[derive(Debug)]
pub(super) enum Root {
    /// We started it, and have not reaped it.
    Child(Instance),
    /// We started it, and reaped it.
    ChildEnded(Instance),
    /// An earlier supervisor started it. The descriptor becomes readable when it ends; without one (we were
    /// short of descriptors) it is looked at from time to time.
    Adopted(Instance, Option<OwnedFd>),
    /// An earlier supervisor started it, and it has ended.
    AdoptedEnded(Instance),
    /// An earlier supervisor in another pid namespace started it.
    Elsewhere(Identity),
    /// Never known.
    Unknown,
}

impl Root {
    pub(super) fn instance(&self) -> Option<Instance> {
        match self {
            Self::Child(instance)
            | Self::ChildEnded(instance)
            | Self::Adopted(instance, _)
            | Self::AdoptedEnded(instance) => Some(*instance),
            Self::Elsewhere(_) | Self::Unknown => None,
        }
    }

    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Child(_) | Self::ChildEnded(_) => Origin::Ours,
            Self::Adopted(..) | Self::AdoptedEnded(_) | Self::Elsewhere(_) | Self::Unknown => Origin::Earlier,
        }
    }

    /// True if no root process can be alive.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::ChildEnded(_) | Self::AdoptedEnded(_) | Self::Unknown => true,
            Self::Child(_) | Self::Adopted(..) | Self::Elsewhere(_) => false,
        }
    }
}

/// One run. It is forgotten when its tree is proved gone.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) root: Root,
    pub(super) kill: Option<Kill>,
    seen: HashSet<Instance>,
}

impl Run {
    pub(super) fn new(root: Root) -> Self {
        Self { root, kill: None, seen: HashSet::new() }
    }

    pub(super) fn household<'a>(&'a self, run: &'a RunId) -> Household<'a> {
        Household {
            run,
            root: self.root.instance(),
            origin: self.root.origin(),
            fate: if self.kill.is_some() { Fate::Dying } else { Fate::Living },
            seen: &self.seen,
        }
    }

    /// Remembers processes as of this run's tree, up to a bound.
    pub(super) fn remember(&mut self, members: impl Iterator<Item = Instance>) {
        for member in members {
            if self.seen.len() >= SEEN_MAX {
                break;
            }
            self.seen.insert(member);
        }
    }

    /// Forgets those that are no more.
    pub(super) fn forget_unless(&mut self, exists: impl Fn(&Instance) -> bool) {
        self.seen.retain(exists);
    }
}
