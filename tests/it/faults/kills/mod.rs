//! kill -9 at every call on files that a busy supervisor makes, a supervisor that mends what such a kill left, and
//! each command of an agent or an operator.
//!
//! A recording shows which thread makes which call how often; each of these is a point at which a fresh crew's
//! supervisor is killed. [`judge()`] then says whether the next one kept the promises. `cargo test` draws some points;
//! `NIGHTCREW_SWEEP=all cargo test --release --test it faults::kills -- --nocapture` tries all and prints how many
//! there were. A point that a run did not come to, because no two runs are alike, is told as "not reached".

mod calls;
mod controls;
mod deeds;
pub(super) mod judge;
mod story;
pub(super) mod sweep;
mod tracer;

use std::collections::BTreeMap;

use deeds::Stage;
use judge::judge;
use story::{Story, was_killed};
use sweep::{Figures, choose, dice, is_full, sweep};
use tracer::{Counts, Point};

use super::needs::skipped;

/// How many points of a supervisor's life are drawn where not all are tried.
const SUPERVISORS_DRAWN: usize = 24;
/// How many points of each command are.
const COMMANDS_DRAWN: usize = 1;

#[track_caller]
fn holds(story: &Story) {
    let wrong = judge(&story.crew, &story.acknowledged());
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), story.crew.told());
}

/// What a supervisor does from its start to its orderly end; `None` if nothing can be traced here.
fn recorded(test: &str) -> Option<Counts> {
    let mut story = Story::new();
    let trace = match story.supervise_until(None) {
        Ok(trace) => trace,
        Err(errno) => {
            skipped(test, &format!("no process may trace another here: {errno}"));
            return None;
        }
    };
    assert!(!was_killed(&trace));
    holds(&story);
    Some(trace.counts)
}

/// Kills a supervisor at a point, the next one at another if there is one, and lets a third bring all to its end.
fn kill_supervisor_at(point: &Point, recovery: Option<&Point>) -> bool {
    let mut story = Story::new();
    let killed = was_killed(&story.supervise_until(Some(point)).expect("it can be traced"));
    if killed {
        let again = recovery.map(|point| was_killed(&story.supervise_until(Some(point)).expect("traced")));
        if again != Some(false) {
            story.come_to_rest();
        }
    }
    holds(&story);
    killed
}

/// Nothing acknowledged is lost, nothing is done twice, tokens rise, nothing is left running or lying about:
/// whenever the supervisor is killed, and, every other time, the next one too.
#[test]
fn a_supervisor_killed_at_any_call_loses_nothing_and_does_nothing_twice() {
    let test = "a_supervisor_killed_at_any_call_loses_nothing_and_does_nothing_twice";
    let Some(counts) = recorded(test) else { return };
    let mut dice = dice(test);
    let points = choose(counts.points(), SUPERVISORS_DRAWN, &mut dice);
    let all = counts.points();
    let second: BTreeMap<&Point, &Point> = points
        .iter()
        .filter_map(|point| if dice.bool() { Some((point, dice.choice(&all)?)) } else { None })
        .collect();
    let figures = sweep("supervisor", &points, |point| kill_supervisor_at(point, second.get(point).copied()));
    figures.settle(test);
}

/// What a command was to do is done wholly or not at all, and the same command once more does it; one that only
/// reads changes nothing.
#[test]
fn a_command_killed_at_any_call_leaves_all_of_its_effect_or_none() {
    let test = "a_command_killed_at_any_call_leaves_all_of_its_effect_or_none";
    let stage = match Stage::set() {
        Ok(stage) => stage,
        Err(errno) => {
            skipped(test, &format!("no process may trace another here: {errno}"));
            return;
        }
    };
    let mut dice = dice(test);
    let mut figures = Figures::default();
    for act in stage.acts() {
        let points = choose(act.counts.points(), COMMANDS_DRAWN, &mut dice);
        let of_act = sweep(act.name(), &points, |point| stage.kill_at(&act, point));
        if is_full() {
            eprintln!("{}\n{of_act}", act.name());
        }
        figures.join(of_act);
    }
    figures.settle(test);
}
