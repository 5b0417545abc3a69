//! What a seed decides beforehand: which misfortunes there are, and how often.

use fastrand::Rng;

use crate::cast::Cast;

/// One mix of misfortunes. Chances are per step, unless they say otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    /// Steps before it becomes calm.
    pub(crate) steps: u32,
    /// How often others act between two primitives of whoever acts.
    pub(crate) interleaving: f64,
    /// Pids there are.
    pub(crate) pids: u32,
    /// A new process gets the pid of the one that ended last; per process.
    pub(crate) pids_reused: f64,
    /// How many runs, in a hundred, are honest whatever the rest.
    pub(crate) honest: f64,
    /// The supervisor is killed with KILL.
    pub(crate) kills: f64,
    /// ... at its start, at some primitive; per start.
    pub(crate) kills_at_start: f64,
    /// The power goes.
    pub(crate) power_cuts: f64,
    /// ... just after somebody handed in an outcome; per outcome.
    pub(crate) cuts_at_hand_in: f64,
    /// ... soon after a supervisor started; per start.
    pub(crate) cuts_after_start: f64,
    /// The supervisor is killed in a sync of a directory, and the power goes soon after the next start.
    pub(crate) syncs_interrupted: f64,
    /// The supervisor is asked to end.
    pub(crate) terms: f64,
    /// Agents are killed from outside.
    pub(crate) agent_kills: f64,
    /// Commands are killed; per command.
    pub(crate) commands_killed: f64,
    /// The disk has a bout of one sort of fault.
    pub(crate) disk_faults: f64,
    /// Starting a process fails; per start.
    pub(crate) spawn_fails: f64,
    /// Nothing goes wrong for some minutes, in which graces end, waits are over and claims grow old.
    pub(crate) lulls: f64,
    /// The machine stands still for a while.
    pub(crate) pauses: f64,
    /// Somebody sets the wall clock.
    pub(crate) wall_jumps: f64,
    /// A change is not told by the watches; per change.
    pub(crate) hints_lost: f64,
    /// How many hints may wait before they are one.
    pub(crate) hints_max: usize,
    /// People do something.
    pub(crate) people: f64,
    /// After a crash, recovering twice is compared with recovering once; per crash.
    pub(crate) recoveries_compared: f64,
    /// What the handlers declare of the ends of their tasks.
    pub(crate) cast: Cast,
    /// A gate refuses what it judges, crashes, or takes too long; per result.
    pub(crate) gates_refuse: f64,
    /// A handler submits tasks within its own; per task.
    pub(crate) within: f64,
    /// The power goes while the supervisor makes durable what was submitted so.
    pub(crate) cuts_at_publishing: f64,
    /// What is submitted needs other tasks; per submission.
    pub(crate) needs: f64,
    /// ... is to wait, or expires; per submission.
    pub(crate) terms_of_time: f64,
    /// People decide about single tasks: they cancel, approve, reject.
    pub(crate) decisions: f64,
}

impl Options {
    /// Each seed draws its own mix: most misfortunes are absent in most, so that none hides behind another.
    pub(crate) fn draw(rng: &mut Rng) -> Self {
        let mut some = |often: f64, least: f64, most: f64| {
            if rng.f64() < often { least + rng.f64() * (most - least) } else { 0.0 }
        };
        Self {
            interleaving: some(0.7, 0.0, 0.12),
            honest: some(0.8, 0.2, 0.9),
            kills: some(0.5, 0.005, 0.03),
            kills_at_start: some(0.3, 0.1, 0.6),
            power_cuts: some(0.4, 0.003, 0.02),
            cuts_at_hand_in: some(0.5, 0.2, 0.9),
            cuts_after_start: some(0.3, 0.1, 0.6),
            syncs_interrupted: some(0.4, 0.01, 0.05),
            terms: some(0.2, 0.002, 0.01),
            agent_kills: some(0.3, 0.005, 0.05),
            commands_killed: some(0.3, 0.05, 0.4),
            disk_faults: some(0.3, 0.005, 0.03),
            spawn_fails: some(0.2, 0.05, 0.5),
            lulls: some(0.4, 0.005, 0.03),
            pauses: some(0.2, 0.002, 0.02),
            wall_jumps: some(0.2, 0.002, 0.02),
            hints_lost: some(0.3, 0.01, 0.5),
            people: some(1.0, 0.05, 0.3),
            recoveries_compared: some(0.1, 0.2, 1.0),
            gates_refuse: some(0.7, 0.1, 0.6),
            within: some(0.5, 0.1, 0.9),
            cuts_at_publishing: some(0.3, 0.005, 0.03),
            needs: some(0.4, 0.1, 0.6),
            terms_of_time: some(0.3, 0.1, 0.5),
            decisions: some(0.4, 0.02, 0.15),
            cast: Cast::draw(rng),
            hints_max: if rng.bool() { 1_000 } else { rng.usize(1..8) },
            steps: rng.u32(40..220),
            pids: rng.u32(40..400),
            pids_reused: if rng.u8(..3) == 0 { 0.2 + 0.8 * rng.f64() } else { 0.0 },
        }
    }
}
