//! The claim protocol (docs/protocol.md, "Tasks"), searched: every order in which agents, the supervisor's loop and
//! its writer can take their file-system steps, with agents that die or wake late, a supervisor that is killed, and
//! a power cut that takes back what nothing made durable. One task, two or three claims, and few faults: the bounds
//! are in each test.
//!
//! The protocol must pass. With one thing done differently, which seems harmless, it must fail: those tests are the
//! controls, and say which harm the search finds.
//!
//! What is left out: waiting after a failure (a failed task is ready again at once), outputs, operators who move
//! records, and what agents do that break the protocol. A lock whose data was never synced may be torn by a power
//! cut; records are whole or not there.
//!
//! What is not promised: after a power cut that took a claim's lock, its outcome is accepted only if nobody claims
//! the task before the supervisor has decided for it, durably. Agents are started after it has looked, so only
//! somebody outside, or a supervisor that is killed once more just then, can come between.

#![expect(clippy::expect_used, reason = "a test fails by panicking")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a check looks for one thing among many")]

mod agent;
mod files;
mod supervisor;
mod world;
mod writer;

use stateright::{Checker, HasDiscoveries, Model, Path};

use agent::Kind::{self, Handler, Outside, Puller};
use files::Verdict::{self, Done, Failed};
use world::{Action, Rules, Variant, World};

const IS_DONE: &str = "the task gets done";
const ZOMBIE: &str = "a zombie is refused";
const OLD_LOCK: &str = "an old lock outlives its token";
const SAID_BEFORE: &str = "what was accepted before a crash is carried out";
const LOST_LOCK: &str = "a claim whose lock was lost is accepted";

/// How often which fault may happen.
struct Faults {
    kills: u8,
    crashes: u8,
    cuts: u8,
}

fn rules(variant: Variant, agents: &[Kind], verdicts: &[Verdict], faults: &Faults) -> Rules {
    let Faults { kills, crashes, cuts } = *faults;
    let (agents, verdicts) = (agents.to_vec(), verdicts.to_vec());
    Rules { variant, agents, verdicts, kills, crashes, cuts, early: variant == Variant::AnyNonce }
}

fn steps(path: Path<World, Action>) -> Vec<String> {
    path.into_actions().into_iter().map(|action| format!("{action:?}")).collect()
}

/// The protocol holds in all states, and what makes them worth looking at happens in some.
fn holds(agents: &[Kind], verdicts: &[Verdict], faults: &Faults, happens: &[&'static str]) {
    let rules = rules(Variant::Protocol, agents, verdicts, faults);
    let checker = rules.checker().threads(2).spawn_bfs().join();
    println!("{agents:?}: {} states", checker.unique_state_count());
    for (name, path) in checker.discoveries() {
        let failure = checker.model().property(name).expectation.discovery_is_failure();
        assert!(!failure, "not so: {name}\n{}", steps(path).join("\n"));
    }
    for name in happens {
        assert!(checker.discovery(name).is_some(), "never: {name}");
    }
}

/// Done differently, it fails, and this is the harm.
fn fails(variant: Variant, agents: &[Kind], faults: &Faults, harm: &'static str) {
    let rules = rules(variant, agents, &[Done], faults);
    let checker = rules.checker().finish_when(HasDiscoveries::AnyOf([harm].into())).spawn_bfs().join();
    let path = checker.discovery(harm).expect("a counterexample");
    let (states, steps) = (checker.unique_state_count(), steps(path));
    println!(
        "{variant:?}: {harm}: not so after {} steps ({states} states)\n{}",
        steps.len(),
        steps.join("\n")
    );
}

#[test]
fn holds_with_a_zombie_and_a_supervisor_killed_twice() {
    let faults = Faults { kills: 1, crashes: 2, cuts: 0 };
    holds(&[Puller, Outside], &[Done, Failed], &faults, &[IS_DONE, ZOMBIE, OLD_LOCK, SAID_BEFORE]);
}

#[test]
fn holds_with_three_claims_and_a_supervisor_killed() {
    let faults = Faults { kills: 1, crashes: 1, cuts: 0 };
    holds(&[Puller, Outside, Handler], &[Done], &faults, &[IS_DONE, ZOMBIE, OLD_LOCK, SAID_BEFORE]);
}

#[test]
fn holds_with_a_power_cut() {
    let faults = Faults { kills: 0, crashes: 0, cuts: 1 };
    holds(&[Outside, Handler], &[Done], &faults, &[IS_DONE, ZOMBIE, SAID_BEFORE, LOST_LOCK]);
}

#[test]
fn holds_with_a_power_cut_and_a_supervisor_killed() {
    let faults = Faults { kills: 0, crashes: 1, cuts: 1 };
    holds(&[Puller, Handler], &[Done], &faults, &[IS_DONE, OLD_LOCK, SAID_BEFORE, LOST_LOCK]);
}

const ONE_OWNER: &str = "one owner";
const NOT_DROPPED: &str = "no acknowledged outcome is dropped";
const SETTLED: &str = "what is quiet is settled";
const CURRENT: &str = "what is accepted is the current owner's";

#[test]
fn control_an_agent_unlinks_a_stale_lock() {
    let faults = Faults { kills: 1, crashes: 0, cuts: 0 };
    fails(Variant::UnlinkIfStale, &[Puller, Puller, Puller], &faults, ONE_OWNER);
}

#[test]
fn control_an_agent_rereads_a_stale_lock_and_unlinks_it() {
    let faults = Faults { kills: 1, crashes: 0, cuts: 0 };
    fails(Variant::RereadThenUnlink, &[Puller, Puller, Puller], &faults, ONE_OWNER);
}

#[test]
fn control_an_agent_renames_a_stale_lock_verifies_and_restores() {
    let faults = Faults { kills: 1, crashes: 0, cuts: 0 };
    fails(Variant::RenameVerifyRestore, &[Puller, Puller, Puller, Puller], &faults, ONE_OWNER);
}

#[test]
fn control_the_token_rises_after_the_lock_is_gone() {
    let faults = Faults { kills: 0, crashes: 0, cuts: 0 };
    fails(Variant::BumpAfterUnlink, &[Puller, Outside], &faults, ONE_OWNER);
}

#[test]
fn control_any_nonce_is_accepted() {
    let faults = Faults { kills: 0, crashes: 0, cuts: 1 };
    fails(Variant::AnyNonce, &[Puller, Outside], &faults, CURRENT);
}

#[test]
fn control_a_dead_owners_task_is_vacated_before_its_outcome_is_looked_for() {
    let faults = Faults { kills: 0, crashes: 0, cuts: 0 };
    fails(Variant::VacateBeforeLooking, &[Puller], &faults, NOT_DROPPED);
}

#[test]
fn control_after_a_power_cut_work_is_given_out_before_outcomes_are_looked_at() {
    let faults = Faults { kills: 0, crashes: 0, cuts: 1 };
    fails(Variant::AgentsBeforeOutcomes, &[Puller, Handler], &faults, NOT_DROPPED);
}

#[test]
fn control_a_torn_lock_refuses_the_outcome_of_its_claim() {
    let faults = Faults { kills: 0, crashes: 0, cuts: 1 };
    fails(Variant::TornLockRefuses, &[Puller], &faults, NOT_DROPPED);
}

#[test]
fn control_an_old_lock_that_came_back_refuses_the_outcome_of_the_claim_after_it() {
    let faults = Faults { kills: 0, crashes: 0, cuts: 1 };
    fails(Variant::VoidLockRefuses, &[Puller, Outside], &faults, NOT_DROPPED);
}

#[test]
fn control_of_two_records_only_the_open_one_is_asked_what_is_decided() {
    let faults = Faults { kills: 0, crashes: 1, cuts: 0 };
    fails(Variant::OpenRecordDecides, &[Puller], &faults, NOT_DROPPED);
}

#[test]
fn control_tokens_are_not_reserved() {
    let faults = Faults { kills: 0, crashes: 1, cuts: 1 };
    fails(Variant::TokensForgotten, &[Puller, Puller], &faults, CURRENT);
}

#[test]
fn control_what_a_killed_supervisor_renamed_is_taken_for_durable() {
    let faults = Faults { kills: 0, crashes: 1, cuts: 1 };
    fails(Variant::TrustUnsynced, &[Puller], &faults, SETTLED);
}
