//! The environment variables that tell a process of an agent who and where it is.

/// The environment variable that names the crew's directory.
pub const ENV_DIR: &str = "NIGHTCREW_DIR";
/// The environment variable that marks every process of a run with the run's id.
pub const ENV_RUN: &str = "NIGHTCREW_RUN";
/// `NIGHTCREW_AGENT`: the agent's name.
pub const ENV_AGENT: &str = "NIGHTCREW_AGENT";
/// `NIGHTCREW_HEARTBEAT`: the file to touch as a sign of life.
pub const ENV_HEARTBEAT: &str = "NIGHTCREW_HEARTBEAT";
/// `NIGHTCREW_SCRATCH`: the agent's own directory, which is kept.
pub const ENV_SCRATCH: &str = "NIGHTCREW_SCRATCH";
/// `NIGHTCREW_TMP`: where files are made that are then renamed into the crew's `state/`.
pub const ENV_TMP: &str = "NIGHTCREW_TMP";
/// `NIGHTCREW_QUEUE`: where the agent's memory updates are queued.
pub const ENV_QUEUE: &str = "NIGHTCREW_QUEUE";
/// `NIGHTCREW_MEMORY`: where shared memory is read.
pub const ENV_MEMORY: &str = "NIGHTCREW_MEMORY";
/// `NIGHTCREW_USAGE`: the file to append to what calls cost.
pub const ENV_USAGE: &str = "NIGHTCREW_USAGE";
/// `NIGHTCREW_MODE`: as what the agent runs.
pub const ENV_MODE: &str = "NIGHTCREW_MODE";
/// The value of [`ENV_MODE`]: as itself.
pub const MODE_NORMAL: &str = "normal";
/// The value of [`ENV_MODE`]: in the place of an agent that keeps failing.
pub const MODE_FALLBACK: &str = "fallback";
/// `NIGHTCREW_SLOT`: the slot of its schedule that a job is fired for, such as `digest@2026-11-20T07:00Z`.
pub const ENV_SLOT: &str = "NIGHTCREW_SLOT";
/// `NIGHTCREW_CHANGED`: the files whose changes a job is fired for, one path a line, as far as they fit.
pub const ENV_CHANGED: &str = "NIGHTCREW_CHANGED";
/// How much `NIGHTCREW_CHANGED` holds, in bytes: the kernel allows 128 KiB in one variable.
pub const ENV_CHANGED_LEN_MAX: usize = 32 * 1024;
/// `NIGHTCREW_NEEDS`: the file that tells of the tasks that this one needed, where there are any.
pub const ENV_NEEDS: &str = "NIGHTCREW_NEEDS";
/// `NIGHTCREW_TASK`: the id of the task that this process is for.
pub const ENV_TASK: &str = "NIGHTCREW_TASK";
/// `NIGHTCREW_TASK_FILE`: the file that holds the task's payload.
pub const ENV_TASK_FILE: &str = "NIGHTCREW_TASK_FILE";
/// `NIGHTCREW_TOKEN`: the fencing token of the claim.
pub const ENV_TOKEN: &str = "NIGHTCREW_TOKEN";
/// `NIGHTCREW_NONCE`: the nonce of the claim.
pub const ENV_NONCE: &str = "NIGHTCREW_NONCE";
/// `NIGHTCREW_FAILURES`: how often the task failed before.
pub const ENV_FAILURES: &str = "NIGHTCREW_FAILURES";
/// `NIGHTCREW_OUTPUT`: the file to write the task's result to.
pub const ENV_OUTPUT: &str = "NIGHTCREW_OUTPUT";
