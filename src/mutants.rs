//! Mutants: small wrong decisions, each of which the simulator must notice. They are its controls: a simulator that
//! finds nothing wrong proves something only if it finds these.
//!
//! They exist under the feature `mutants`, which is for `tests/sim` alone; without it `mutant!` is `false`, and
//! nothing of them is compiled. With it one of them is chosen for a thread, and everything else decides as always.

/// True if this wrong decision is to be made here.
#[cfg(not(feature = "mutants"))]
macro_rules! mutant {
    ($name:ident) => {
        false
    };
}

/// True if this wrong decision is to be made here.
#[cfg(feature = "mutants")]
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutants::is($crate::mutants::Mutant::$name)
    };
}

#[cfg(feature = "mutants")]
mod choice {
    use std::cell::Cell;

    /// Makes the enum, and the names by which its members are called.
    macro_rules! mutants {
        ($($(#[$doc:meta])+ $name:ident $text:literal,)+) => {
            /// A wrong decision.
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum Mutant {
                $($(#[$doc])+ $name,)+
            }

            impl Mutant {
                /// All there are.
                pub const ALL: &[Self] = &[$(Self::$name,)+];

                /// What it is called.
                #[must_use]
                pub fn name(self) -> &'static str {
                    match self {
                        $(Self::$name => $text,)+
                    }
                }
            }
        };
    }

    mutants! {
        /// An update's file is removed from its queue before the journal has it.
        UpdateRemovedFirst "update-removed-first",
        /// What a command, or the maker of a log's segment, published is not made durable as a name.
        NoDirectorySync "no-directory-sync",
        /// The writer makes no name durable.
        NoDirectorySyncByWriter "no-directory-sync-by-writer",
        /// The steward makes no name durable.
        NoDirectorySyncBySteward "no-directory-sync-by-steward",
        /// A file is given its name before its content is durable.
        NoFileSync "no-file-sync",
        /// A commit of a log is written, and not made durable.
        NoLogSync "no-log-sync",
        /// A log's failed fdatasync is taken for one that worked.
        FailedSyncBelieved "failed-sync-believed",
        /// A lock is removed before the task's next token is durable.
        LockBeforeToken "lock-before-token",
        /// A task that is given away keeps its token.
        TokenKept "token-kept",
        /// An outcome counts whatever its nonce.
        NonceUnchecked "nonce-unchecked",
        /// A process is told by its pid alone.
        PidAlone "pid-alone",
        /// A dead owner's task is given away before its outcome is looked for.
        VacatedUnlooked "vacated-unlooked",
        /// An isolated agent's task is given away while its tree lives.
        GivenAwayAlive "given-away-alive",
        /// A job is acknowledged before it is durable.
        AcknowledgedFirst "acknowledged-first",
        /// A recovery applies the journal's last commit whatever the store shows.
        RedoneUnlooked "redone-unlooked",
        /// A dead task that somebody moved back is judged a duplicate.
        ReplayIsDuplicate "replay-is-duplicate",
        /// A start gives work out before it decides on what was handed in.
        WorkBeforeOutcomes "work-before-outcomes",
        /// A start does not carry out what the ledger accepted and no record shows.
        AcceptedForgotten "accepted-forgotten",
        /// A start overlooks what an earlier supervisor left running.
        SurvivorsOverlooked "survivors-overlooked",
        /// What a survivor leaves behind is not killed once somebody else had asked for its end too.
        RemnantsLeft "remnants-left",
        /// A start builds on names that an earlier supervisor may not have made durable.
        NamesBelieved "names-believed",
        /// What an owner submitted within a task is submitted before the task's outcome is committed.
        BoundPublishedEarly "bound-published-early",
        /// A start drops what owners submitted within tasks that are done.
        BoundDropped "bound-dropped",
        /// A gate's result passes whatever the gate's exit code.
        GateBelieved "gate-believed",
        /// A need that is to be reviewed is taken for one that ended.
        ReviewedNeedEnded "reviewed-need-ended",
    }

    thread_local! {
        static CHOSEN: Cell<Option<Mutant>> = const { Cell::new(None) };
    }

    /// From now on this thread makes this wrong decision, or none.
    pub fn choose(mutant: Option<Mutant>) {
        CHOSEN.set(mutant);
    }

    /// True if this thread makes this wrong decision.
    #[must_use]
    pub fn is(mutant: Mutant) -> bool {
        CHOSEN.get() == Some(mutant)
    }
}

#[cfg(feature = "mutants")]
pub use choice::{Mutant, choose, is};
