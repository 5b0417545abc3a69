//! The exit codes, which agents and scripts may rely on. They follow sysexits where agents need to tell.

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// It did what was asked.
    Ok,
    /// It failed; the message says how.
    Failed,
    /// The command line makes no sense.
    Usage,
    /// What was handed in is refused: not JSON, too large, too deep, a need that nobody knows.
    BadInput,
    /// There is nothing: no task to claim, no such task, no value under the key.
    NothingThere,
    /// There is no crew, or no supervisor where one is needed.
    Unavailable,
    /// Not now: busy, halted, stopped, or not answered in time.
    TryAgain,
    /// The code of an agent or a command that was run in the foreground.
    Theirs(u8),
}

/// It did what was asked.
pub(crate) const OK: u8 = 0;
/// It failed.
pub(crate) const FAILED: u8 = 1;
/// The command line makes no sense.
pub(crate) const USAGE: u8 = 2;
/// `EX_DATAERR`
pub(crate) const BAD_INPUT: u8 = 65;
/// `EX_NOINPUT`
pub(crate) const NOTHING_THERE: u8 = 66;
/// `EX_UNAVAILABLE`
pub(crate) const UNAVAILABLE: u8 = 69;
/// `EX_TEMPFAIL`
pub(crate) const TRY_AGAIN: u8 = 75;

impl Exit {
    /// The number that the process ends with.
    pub(crate) fn code(self) -> u8 {
        match self {
            Self::Ok => OK,
            Self::Failed => FAILED,
            Self::Usage => USAGE,
            Self::BadInput => BAD_INPUT,
            Self::NothingThere => NOTHING_THERE,
            Self::Unavailable => UNAVAILABLE,
            Self::TryAgain => TRY_AGAIN,
            Self::Theirs(code) => code,
        }
    }
}

/// What `nightcrew --help` says of the codes.
pub(crate) const TOLD: &str = "\
Exit codes:
   0  done (a repeated submission is done too)
   1  failed; the message says how (of `wait`: not all are done)
   2  the command line makes no sense
  65  what was handed in is refused: not JSON, too large, too deep, a need that nobody knows
  66  nothing there: no task to claim, no such task, no value under the key
  69  unavailable: no crew found, or no supervisor where one is needed
  75  try again later: halted, stopped, busy, or not answered in time
`try` ends with the code of the agent that it ran, `step` with that of a COMMAND that failed.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_told() {
        let all = [OK, FAILED, USAGE, BAD_INPUT, NOTHING_THERE, UNAVAILABLE, TRY_AGAIN];
        for code in all {
            assert!(TOLD.lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))), "{code}");
        }
    }
}
