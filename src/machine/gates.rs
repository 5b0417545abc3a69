//! Gates: programs that judge the result of a task before it counts, and the people who do so in their stead.
//!
//! A gate judges a result that is durable, of a task that nobody holds: whatever is killed meanwhile, it is asked
//! again.

use crate::protocol::ledger::Fact;
use crate::protocol::name::TaskId;
use crate::protocol::process::Ending;
use crate::protocol::record::cut;
use crate::protocol::request::{Ask, Request};
use crate::protocol::task::{ERROR_LEN_MAX, Made, Phase};
use crate::protocol::time::{Now, show_duration};

use super::agents::QUIET_MS;
use super::conclusion::told;
use super::effect::{Bound, BoundFate, Output, RecordChange};
use super::event::Found;
use super::state::{Cause, End, Role, Run, Stage, State, Then, Writing};
use super::{Effect, Out};

/// How long a gate may take.
const GATE_MS_MAX: u64 = 60_000;

/// What a gate says.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Judgement {
    Passed,
    /// Not, and its words.
    Refused(String),
    /// It did not come to an end, through no fault of its own.
    None,
}

impl State {
    /// Starts the gate for a task's result.
    pub(super) fn judge(&mut self, now: Now, id: &TaskId, out: &mut Out) {
        let run = self.fresh_run(now);
        let Some(task) = self.tasks.get_mut(id) else { return };
        let (Stage::Gated { run: slot }, Some(made)) =
            (&mut task.stage, task.more.as_ref().and_then(|more| more.made.clone()))
        else {
            return;
        };
        *slot = Some(run.clone());
        out.push(Effect::Judge { run: run.clone(), task: id.clone(), made: made.clone() });
        let timeout = now.mono.plus(GATE_MS_MAX);
        self.agent_mut(now, &made.agent).runs.push(run.clone());
        let record = Run { timeout_at: Some(timeout), ..Run::new(now, made.agent, Role::Gate(id.clone())) };
        self.runs.insert(run, record);
    }

    /// The gate's process is gone.
    pub(super) fn judged(
        &mut self,
        now: Now,
        id: &TaskId,
        run: &Run,
        ending: Ending,
        words: &str,
        out: &mut Out,
    ) {
        let Some(task) = self.tasks.get_mut(id) else { return };
        let Some(made) = task.made().cloned() else { return };
        task.stage = Stage::Gated { run: None };
        let gate = format!("gate {}", made.gate);
        match (judgement(&run.cause, ending, words), self.cancelling.remove(id)) {
            (Judgement::Passed, _) => self.pass(now, id, made, gate, out),
            (_, Some(why)) => self.give_up(id, &format!("cancelled: {why}"), out),
            (Judgement::Refused(words), None) => self.send_to_review(id, gate, &words, out),
            (Judgement::None, None) => {
                if run.cause == Cause::Busy {
                    self.judge_from = now.mono.plus(QUIET_MS);
                }
                self.to_judge.push_back(id.clone());
            }
        }
    }

    fn pass(&mut self, now: Now, id: &TaskId, made: Made, by: String, out: &mut Out) {
        let Some(task) = self.tasks.get(id) else { return };
        let token = task.token;
        let mut change = RecordChange::of(id, task);
        change.phase = Phase::Done;
        let version = self.agents.get(&made.agent).and_then(|agent| agent.accepted.as_ref());
        let unique_for = version.and_then(|version| version.manifest.unique_for_ms);
        change.unique_until = unique_for.map(|ms| now.wall_at(now.mono.plus(ms)));
        change.output = Some(Output::Judged);
        let fate = BoundFate::Submitted { nonce: made.nonce, then: made.then };
        change.bound = Some(Bound { agent: Some(made.agent), others: false, token, fate });
        change.facts.push(Fact::Judged { task: id.clone(), token, by, words: None, next: "done".into() });
        self.decide(id, change, Writing::Decision, Then::Gone(End::Done), out);
    }

    fn send_to_review(&mut self, id: &TaskId, by: String, words: &str, out: &mut Out) {
        let Some(task) = self.tasks.get(id) else { return };
        let mut change = RecordChange::of(id, task);
        change.phase = Phase::Review;
        change.made = task.made().cloned();
        change.reason = Some(words.to_owned());
        let (task, token) = (id.clone(), task.token);
        change.facts.push(Fact::Judged { task, token, by, words: Some(told(words)), next: "review".into() });
        self.decide(id, change, Writing::Decision, Then::Gone(End::Review), out);
    }

    /// An operator decides about a task in review.
    pub(super) fn reviewed(&mut self, now: Now, request: Request, found: Option<Found>, out: &mut Out) {
        let (Ask::Approve { task: id } | Ask::Reject { task: id, .. }) = &request.ask else { return };
        let id = id.clone();
        if !self.can_begin(&request) {
            return;
        }
        let Some((made, found)) = found.and_then(|found| Some((found.made.clone()?, found))) else {
            let text = format!("task {id} is not in review");
            return out.push(Effect::Answer(request.id, false, text));
        };
        if self.tasks.contains_key(&id) || !self.takes_work() {
            let text = format!("task {id} cannot be decided about now; ask again");
            return out.push(Effect::Answer(request.id, false, text));
        }
        let task = self.task_of(found);
        self.tasks.insert(id.clone(), task);
        let text = match request.ask {
            Ask::Reject { why, .. } => {
                self.give_up(&id, &format!("rejected in review: {why}"), out);
                format!("task {id} is a dead letter now")
            }
            Ask::Approve { .. } | Ask::Restart { .. } | Ask::Cancel { .. } => {
                self.pass(now, &id, made, "an operator".into(), out);
                format!("task {id} is done")
            }
        };
        self.answer_later(request.id, &id, text);
    }
}

fn judgement(cause: &Cause, ending: Ending, words: &str) -> Judgement {
    let said = |how: String| {
        let words = words.trim();
        Judgement::Refused(cut(if words.is_empty() { &how } else { words }, ERROR_LEN_MAX).to_owned())
    };
    match (cause, ending) {
        (Cause::Own, _) if mutant!(GateBelieved) => Judgement::Passed,
        (Cause::Own, Ending::Code(0)) => Judgement::Passed,
        (Cause::Own, Ending::Code(_) | Ending::Signal(_)) => said(format!("the gate said nothing: {ending}")),
        (Cause::Timeout(_), _) => {
            Judgement::Refused(format!("the gate took longer than {}", show_duration(GATE_MS_MAX)))
        }
        (Cause::NotStarted(why), _) => Judgement::Refused(format!("the gate cannot be run: {why}")),
        (Cause::Memory(why), _) => Judgement::Refused(why.clone()),
        (
            Cause::Own
            | Cause::Replaced
            | Cause::Restarted
            | Cause::Unwanted(_)
            | Cause::Cancelled(_)
            | Cause::Drained
            | Cause::Silent
            | Cause::Survivor
            | Cause::Busy,
            _,
        ) => Judgement::None,
    }
}
