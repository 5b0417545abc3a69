//! How a claim concluded, and what that makes of the task: done, dead, ready again, or waiting.

use crate::protocol::ledger::{Fact, next_try};
use crate::protocol::process::{Ending, Meaning};
use crate::protocol::task::{ERROR_LEN_MAX, Outcome, Phase, RETRY_AFTER_MS_MAX, Verdict};
use crate::protocol::time::Now;

use super::agents::full_jitter;
use super::effect::RecordChange;
use super::state::{Cause, Claim, Conclusion, Run, Then};

/// How often a failed task is tried again, and the bounds of the waits before (full jitter).
const RETRY_MS: [u64; 3] = [1_000, 4_000, 16_000];
/// The wait of a task that was put off without a failure.
const LATER_MS: u64 = 60_000;
/// A task that was put off this often is dead.
const DEFERRALS_MAX: u32 = 100;
/// Whether the ledger knows of a conclusion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// It is recorded now, in the same commit.
    Now,
    /// The ledger has it since before a crash.
    Already,
}

/// The longest error that the ledger tells, in characters.
const ERROR_TOLD_MAX: usize = 512;

/// What an outcome says of the task.
pub(super) fn conclusion_of(outcome: &Outcome) -> Conclusion {
    let error = || outcome.error.clone().unwrap_or_else(|| "no reason was given".into());
    let wait_ms = outcome.retry_after_ms.unwrap_or(0);
    match outcome.status {
        Verdict::Done => Conclusion::Done,
        Verdict::Failed => Conclusion::Failed { error: error(), permanent: outcome.permanent, wait_ms },
        Verdict::Retry => Conclusion::Later { error: error(), wait_ms },
        Verdict::Released => {
            Conclusion::Returned { why: outcome.error.clone().unwrap_or_else(|| "released".into()) }
        }
    }
}

/// What the end of a handler's process says of the task it was started for.
pub(super) fn concluded(run: &Run, ending: Ending) -> Conclusion {
    match (&run.cause, ending.meaning()) {
        (Cause::Own, Meaning::Later) => Conclusion::Later { error: ending.to_string(), wait_ms: 0 },
        (Cause::Own, Meaning::Permanent) => {
            Conclusion::Failed { error: ending.to_string(), permanent: true, wait_ms: 0 }
        }
        (Cause::Own, Meaning::Failed) => match ending {
            Ending::Code(_) | Ending::Signal(_) => {
                Conclusion::Failed { error: ending.to_string(), permanent: false, wait_ms: 0 }
            }
            Ending::Unseen => Conclusion::Returned { why: ending.to_string() },
        },
        (Cause::Own, Meaning::Done | Meaning::NothingToDo) => Conclusion::Done,
        (Cause::Silent | Cause::Memory(_) | Cause::Timeout(_), _) => {
            Conclusion::Failed { error: run.cause.words(), permanent: false, wait_ms: 0 }
        }
        // Whatever its code: many a script's trap says `exit 0`, done or not. One that knows hands in "done".
        (
            Cause::Drained
            | Cause::Unwanted(_)
            | Cause::Replaced
            | Cause::Restarted
            | Cause::Survivor
            | Cause::Busy
            | Cause::NotStarted(_),
            _,
        ) => Conclusion::Returned { why: run.cause.words() },
    }
}

/// What a conclusion makes of the record; returns what follows and the error, if it went badly.
pub(super) fn follow(
    now: Now,
    conclusion: &Conclusion,
    jitter: f64,
    change: &mut RecordChange,
) -> (Then, Option<String>) {
    let cut = |text: &str| text.chars().take(ERROR_LEN_MAX).collect::<String>();
    match conclusion {
        Conclusion::Done => {
            change.phase = Phase::Done;
            (Then::Gone, None)
        }
        Conclusion::Returned { .. } => (Then::Ready, None),
        Conclusion::Failed { error, permanent, .. } => {
            change.failures += 1;
            let bound = RETRY_MS.get(change.failures as usize - 1).filter(|_| !permanent);
            (wait_or_die(now, bound.map(|bound| full_jitter(*bound, jitter)), change), Some(cut(error)))
        }
        Conclusion::Later { error, .. } => {
            change.deferrals += 1;
            let wait = (change.deferrals < DEFERRALS_MAX).then_some(LATER_MS);
            (wait_or_die(now, wait, change), Some(cut(error)))
        }
    }
}

fn wait_or_die(now: Now, wait: Option<u64>, change: &mut RecordChange) -> Then {
    match wait {
        None => {
            change.phase = Phase::Dead;
            Then::Gone
        }
        Some(wait) => {
            let until = now.mono.plus(wait);
            change.phase = Phase::Waiting;
            change.not_before = Some(now.wall_at(until));
            Then::Waiting(until)
        }
    }
}

/// A task that is tried again waits for at least as long as its owner asked.
pub(super) fn no_sooner(now: Now, conclusion: &Conclusion, then: Then, change: &mut RecordChange) -> Then {
    let asked_ms = match conclusion {
        Conclusion::Failed { wait_ms, .. } | Conclusion::Later { wait_ms, .. } => {
            (*wait_ms).min(RETRY_AFTER_MS_MAX)
        }
        Conclusion::Done | Conclusion::Returned { .. } => 0,
    };
    match then {
        Then::Waiting(until) if until < now.mono.plus(asked_ms) => wait_or_die(now, Some(asked_ms), change),
        Then::Waiting(_) | Then::Ready | Then::Gone => then,
    }
}

/// The ledger's line: an accepted outcome, or a lock that was taken away.
pub(super) fn fact_of(
    conclusion: &Conclusion,
    claim: &Claim,
    change: &RecordChange,
    error: Option<String>,
) -> Fact {
    let (task, token, agent) = (change.task.clone(), claim.token, claim.agent.clone());
    let status = match conclusion {
        Conclusion::Returned { why } => {
            return Fact::Vacated { task, token, next_token: change.token, agent, why: why.clone() };
        }
        Conclusion::Done => "done",
        Conclusion::Failed { .. } => "failed",
        Conclusion::Later { .. } => "retry",
    };
    // The whole of it is in the record. What one commit holds must stay within what a recovery reads back.
    let error = error.map(|text| text.chars().take(ERROR_TOLD_MAX).collect());
    let next = match change.phase {
        Phase::Done => "done".to_owned(),
        Phase::Dead => "dead".to_owned(),
        Phase::New | Phase::Ready => "ready".to_owned(),
        Phase::Waiting => change.not_before.map_or_else(|| "waiting".to_owned(), next_try),
    };
    Fact::Outcome { task, token, nonce: claim.nonce.clone(), agent, status: status.into(), error, next }
}
