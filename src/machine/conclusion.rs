//! How a claim concluded, and what that makes of the task: done, judged, dead, ready again, or waiting.

use crate::protocol::ledger::{Fact, done_so_long, next_try};
use crate::protocol::manifest::Manifest;
use crate::protocol::name::{Kind, TaskId};
use crate::protocol::process::{Ending, Meaning};
use crate::protocol::record::cut;
use crate::protocol::task::{Attempt, ERROR_LEN_MAX, Made, Outcome, Phase, RETRY_AFTER_MS_MAX, Verdict};
use crate::protocol::time::Now;

use super::Out;
use super::agents::full_jitter;
use super::claims::WAIT_MS_MAX;
use super::effect::{Bound, BoundFate, Output, RecordChange};
use super::event::Next;
use super::state::{Cause, Claim, Conclusion, End, Health, Owner, Run, State, Task, Then, Writing};
use super::waits::wait_until;

/// The wait of a task that was put off without a failure.
const LATER_MS: u64 = 60_000;
/// A task that was put off this often is dead.
const DEFERRALS_MAX: u16 = 100;
/// A task whose owners died holding it this often is poison, and dead.
const DEATHS_MAX: u8 = 5;
/// An agent that failed so often in a row, at more than one task, leaves its tasks to its fallback for so long.
const AILING_FAILURES: u32 = 3;
const AILING_MS: u64 = 600_000;
/// The longest error that the ledger tells, in characters.
const ERROR_TOLD_MAX: usize = 512;

/// Whether the ledger knows of a conclusion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// It is recorded now, in the same commit.
    Now,
    /// The ledger has it since before a crash, with what follows.
    Already(Next),
}

/// What an outcome says of the task.
pub(super) fn conclusion_of(outcome: &Outcome) -> Conclusion {
    let error = || outcome.error.clone().unwrap_or_else(|| "no reason was given".into());
    let after = outcome.retry_after_ms;
    match outcome.status {
        Verdict::Done => Conclusion::Done,
        Verdict::Failed => {
            Conclusion::Failed { error: error(), permanent: outcome.permanent, code: None, after }
        }
        Verdict::Retry => Conclusion::Later { error: error(), after },
        Verdict::Released => {
            let why = outcome.error.clone().unwrap_or_else(|| "released".into());
            Conclusion::Returned { why, died: false }
        }
    }
}

/// What the end of a handler's process says of the task it was started for.
pub(super) fn concluded(run: &Run, ending: Ending) -> Conclusion {
    let failed = |error: String, permanent: bool, code: Option<i32>| Conclusion::Failed {
        error,
        permanent,
        code,
        after: None,
    };
    match (&run.cause, ending.meaning()) {
        (Cause::Own, Meaning::Later) => Conclusion::Later { error: ending.to_string(), after: None },
        (Cause::Own, Meaning::Permanent) => failed(ending.to_string(), true, None),
        (Cause::Own, Meaning::Failed) => match ending {
            Ending::Code(code) => failed(ending.to_string(), false, Some(code)),
            Ending::Signal(_) => failed(ending.to_string(), false, None),
            Ending::Unseen => Conclusion::Returned { why: ending.to_string(), died: true },
        },
        (Cause::Own, Meaning::Done) => Conclusion::Done,
        (Cause::Own, Meaning::NothingToDo) => Conclusion::Nothing,
        (Cause::Silent | Cause::Memory(_) | Cause::Timeout(_), _) => failed(run.cause.words(), false, None),
        (Cause::Cancelled(why), _) => Conclusion::Cancelled { why: why.clone() },
        // It may be what killed the supervisor too.
        (Cause::Survivor, _) => Conclusion::Returned { why: run.cause.words(), died: true },
        // Whatever its code: many a script's trap says `exit 0`, done or not. One that knows hands in "done".
        (
            Cause::Drained
            | Cause::Unwanted(_)
            | Cause::Replaced
            | Cause::Restarted
            | Cause::Busy
            | Cause::NotStarted(_),
            _,
        ) => Conclusion::Returned { why: run.cause.words(), died: false },
    }
}

/// What follows for the task, and the error if it went badly. Counts it.
pub(super) fn follow(
    now: Now,
    conclusion: &Conclusion,
    claim: &Claim,
    manifest: Option<&Manifest>,
    jitter: f64,
    task: &mut Task,
) -> (Next, Option<String>) {
    let again = |wait: Option<u64>| {
        wait.map_or(Next::Dead, |ms| Next::Again(now.wall_at(now.mono.plus(ms.min(WAIT_MS_MAX)))))
    };
    let kept = |text: &str| Some(cut(text, ERROR_LEN_MAX).to_owned());
    match conclusion {
        Conclusion::Done | Conclusion::Nothing => {
            let judged = manifest.filter(|_| *conclusion == Conclusion::Done);
            let gate = judged.and_then(|manifest| manifest.gate.clone());
            let unique_for = manifest.and_then(|manifest| manifest.unique_for_ms);
            let until = unique_for.map(|ms| now.wall_at(now.mono.plus(ms)));
            let then = manifest.and_then(|manifest| manifest.then.clone());
            let made = gate.map(|gate| {
                let (agent, nonce) = (claim.agent.clone(), claim.nonce.clone());
                Made { agent, nonce, gate, then }
            });
            (made.map_or(Next::Done(until), Next::Gated), None)
        }
        // A firing that is known to have begun is not fired again, but for the retries that its job declares.
        Conclusion::Returned { why, .. } if claim.has_begun && manifest.is_some_and(Manifest::is_job) => {
            task.failures = task.failures.saturating_add(1);
            let wait = manifest.and_then(|manifest| manifest.retry.wait_ms(task.failures));
            (again(wait.map(|bound| full_jitter(bound, jitter))), kept(&format!("it was cut short: {why}")))
        }
        Conclusion::Returned { why, died } => {
            task.deaths = task.deaths.saturating_add(u8::from(*died));
            if *died && task.deaths >= DEATHS_MAX {
                let error = format!("its owner died holding it {DEATHS_MAX} times, the last time: {why}");
                (Next::Dead, Some(error))
            } else {
                (Next::Ready, None)
            }
        }
        Conclusion::Failed { error, permanent, code, after } => {
            task.failures = task.failures.saturating_add(1);
            let retry = manifest.map(|manifest| manifest.retry.clone()).unwrap_or_default();
            let worth_it = !permanent && code.is_none_or(|code| retry.is_worth_it(code));
            let bound = retry.wait_ms(task.failures).filter(|_| worth_it);
            let wait = bound.map(|bound| no_sooner(full_jitter(bound, jitter), *after));
            (again(wait), kept(error))
        }
        Conclusion::Later { error, after } => {
            task.deferrals = task.deferrals.saturating_add(1);
            let wait = (task.deferrals < DEFERRALS_MAX).then(|| no_sooner(LATER_MS, *after));
            (again(wait), kept(error))
        }
        Conclusion::Cancelled { why } => (Next::Dead, kept(&format!("cancelled: {why}"))),
    }
}

/// As much of a reason as the ledger tells.
pub(super) fn told(text: &str) -> String {
    text.chars().take(ERROR_TOLD_MAX).collect()
}

/// A wait that is no shorter than its owner asked for.
fn no_sooner(wait_ms: u64, after: Option<u64>) -> u64 {
    wait_ms.max(after.unwrap_or(0).min(RETRY_AFTER_MS_MAX))
}

/// The ledger's line: an accepted outcome, or a lock that was taken away.
pub(super) fn fact_of(
    conclusion: &Conclusion,
    claim: &Claim,
    change: &RecordChange,
    next: &Next,
    error: Option<&String>,
) -> Fact {
    let (task, token, agent) = (change.task.clone(), claim.token, claim.agent.clone());
    let status = match (conclusion, error) {
        (Conclusion::Returned { why, .. }, None) => {
            return Fact::Vacated { task, token, next_token: change.token, agent, why: why.clone() };
        }
        (Conclusion::Done | Conclusion::Nothing, _) => "done",
        (Conclusion::Failed { .. } | Conclusion::Returned { .. }, _) => "failed",
        (Conclusion::Later { .. }, _) => "retry",
        (Conclusion::Cancelled { .. }, _) => "cancelled",
    };
    // The whole of it is in the record. What one commit holds must stay within what a recovery reads back.
    let error = error.map(|text| told(text));
    let next = next.to_string();
    Fact::Outcome { task, token, nonce: claim.nonce.clone(), agent, status: status.into(), error, next }
}

impl State {
    /// Ends a claim: the record says what follows, durable, and then the lock goes.
    pub(super) fn conclude(
        &mut self,
        now: Now,
        id: &TaskId,
        claim: Claim,
        conclusion: &Conclusion,
        told: Told,
        out: &mut Out,
    ) {
        self.let_go(id, &claim, out);
        let jitter = self.rng.f64();
        let version = self.agents.get(&claim.agent).and_then(|agent| agent.accepted.clone());
        let manifest = version.as_ref().map(|version| &version.manifest);
        let Some(task) = self.tasks.get_mut(id) else { return };
        let (decided, error) = follow(now, conclusion, &claim, manifest, jitter, task);
        let (next, tell) = match told {
            Told::Now => (decided, true),
            Told::Already(next) => (next, false),
        };
        // What is done keeps the token that proves whose it is.
        let kept = matches!(next, Next::Done(_) | Next::Gated(_));
        let token = if kept || mutant!(TokenKept) { claim.token } else { self.fresh_token(out) };
        let Some(task) = self.tasks.get_mut(id) else { return };
        let mut change = RecordChange { token, phase: next.phase(), ..RecordChange::of(id, task) };
        // A claim whose owner is gone without a word is not decided by an outcome: one that comes late is refused.
        let unsaid =
            matches!(conclusion, Conclusion::Returned { .. }) && claim.fate.as_ref() == Some(conclusion);
        change.decided = (!unsaid && !claim.nonce.is_empty()).then(|| claim.nonce.clone());
        change.settled = Some((claim.agent.clone(), claim.token, claim.nonce.clone()));
        // Where there was nothing to do, there is no result that a gate could judge, or anybody use.
        let made_something = *conclusion != Conclusion::Nothing;
        // Where the ledger tells of it, its result lies where it belongs, and so does what that is handed on as: a
        // power cut may have spoiled what they were made of.
        change.output =
            (kept && tell && made_something).then(|| Output::HandedIn(claim.agent.clone(), claim.token));
        change.attempt = error.as_ref().map(|error| attempt(now, &claim, error.clone()));
        let handed_on =
            manifest.filter(|_| tell && made_something).and_then(|manifest| manifest.then.clone());
        change.bound = bound(&claim, &next, handed_on);
        if tell {
            change.facts.push(fact_of(conclusion, &claim, &change, &next, error.as_ref()));
        }
        let then = match next {
            Next::Done(until) => {
                change.unique_until = until;
                Then::Gone(End::Done)
            }
            Next::Dead => {
                change.reason = error;
                Then::Gone(End::Dead)
            }
            Next::Ready => Then::Ready,
            Next::Again(at) => {
                change.not_before = Some(at);
                Then::Waiting(now.mono.plus(wait_until(now, at)))
            }
            Next::Gated(made) => {
                change.made = Some(made.clone());
                task.more.get_or_insert_default().made = Some(made);
                Then::Gated
            }
        };
        self.note_health(now, &claim, conclusion, id);
        let claim = Box::new(claim);
        let writing = if kept { Writing::Success(claim) } else { Writing::Setback(claim) };
        self.decide(id, change, writing, then, out);
    }

    /// Counts how the tasks of a handler end, so that its fallback takes them while it keeps failing.
    fn note_health(&mut self, now: Now, claim: &Claim, conclusion: &Conclusion, id: &TaskId) {
        let Some(agent) = self.agents.get_mut(&claim.agent) else { return };
        let health = &mut agent.health;
        match conclusion {
            Conclusion::Done | Conclusion::Nothing => *health = Health::default(),
            Conclusion::Failed { .. } => {
                health.failures = health.failures.saturating_add(1);
                health.several |= health.first.get_or_insert_with(|| id.clone()) != id;
                if health.failures >= AILING_FAILURES && health.several {
                    health.ailing_until = Some(now.mono.plus(AILING_MS));
                }
            }
            Conclusion::Later { .. } | Conclusion::Returned { .. } | Conclusion::Cancelled { .. } => {}
        }
    }
}

impl Next {
    /// The phase that the task is in from then on.
    pub(super) fn phase(&self) -> Phase {
        match self {
            Self::Done(_) => Phase::Done,
            Self::Gated(_) => Phase::Gated,
            Self::Again(_) => Phase::Waiting,
            Self::Ready => Phase::Ready,
            Self::Dead => Phase::Dead,
        }
    }
}

/// As the ledger tells it; [`Next::parse`] reads it again.
impl std::fmt::Display for Next {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Done(None) => f.write_str("done"),
            Self::Done(Some(until)) => f.write_str(&done_so_long(*until)),
            Self::Gated(Made { gate, then: None, .. }) => write!(f, "gate {gate}"),
            Self::Gated(Made { gate, then: Some(then), .. }) => write!(f, "gate {gate}, then {then}"),
            Self::Again(at) => f.write_str(&next_try(*at)),
            Self::Ready => f.write_str("ready"),
            Self::Dead => f.write_str("dead"),
        }
    }
}

fn attempt(now: Now, claim: &Claim, error: String) -> Attempt {
    let run = match &claim.owner {
        Owner::Run(run) => Some(run.clone()),
        Owner::Outside(_) | Owner::Unprovable => None,
    };
    Attempt {
        agent: claim.agent.clone(),
        run,
        token: claim.token,
        began: Some(claim.began),
        at: now.wall,
        error,
        output: claim.words.clone(),
        peak_memory: claim.peak_memory,
    }
}

/// What becomes of the tasks that a claim's owner submitted within it, and of its result.
fn bound(claim: &Claim, next: &Next, then: Option<Kind>) -> Option<Bound> {
    let others = claim.owner == Owner::Unprovable;
    let fate = match next {
        Next::Done(_) => BoundFate::Submitted { nonce: claim.nonce.clone(), then },
        // They wait for the judgement too.
        Next::Gated(_) if others => BoundFate::Kept(claim.nonce.clone()),
        Next::Gated(_) => return None,
        Next::Again(_) | Next::Ready | Next::Dead => BoundFate::Dropped,
    };
    // Whose lock could not be read, nobody knows.
    let agent = (!claim.nonce.is_empty()).then(|| claim.agent.clone());
    Some(Bound { agent, others, token: claim.token, fate })
}
