//! What an agent declares of itself: TOML in a comment block of its script, or in `NAME.toml`.
//!
//! Three things decide what holds for an agent, the first that says anything of a key winning: its
//! manifest, the `[defaults]` of nightcrew.toml, and what is built in. `env` and `pass_env` add up
//! instead. A key that is unknown, or that only a later version has, is refused and never passed over.

mod block;
mod keys;
mod report;
mod section;
mod size;
#[cfg(test)]
mod tests;
mod triggers;
mod values;

use std::collections::BTreeMap;

pub use block::BLOCK_SEARCH_LEN;
pub(crate) use keys::{COMMON, OWN, RESERVED};
pub(crate) use report::line_feeds;
pub use report::{ERRORS_MAX, ManifestError};
pub use section::DECLARATION_LEN_MAX;
pub(crate) use section::{Section, Vocabulary, decode, read};
pub use size::parse_size;
pub(crate) use triggers::timezone;
pub use triggers::{CATCH_UP_WINDOW_MS_DEFAULT, CatchUp, Overlap, Throttle, Triggers, triggers_from_toml};
pub(crate) use values::{OWN_VARIABLES, count, duration, is_variable, search_path};

use super::name::{AgentName, Kind, Name};

/// How often an agent beats, where nothing else is declared: 5 minutes.
pub const HEARTBEAT_MS_DEFAULT: u64 = 300_000;
/// How long a handler may work on a task, where nothing else is declared: 30 minutes.
pub const TIMEOUT_MS_DEFAULT: u64 = 30 * 60_000;
/// How long a process has between its stop signal and being killed: 10 seconds.
pub const STOP_GRACE_MS_DEFAULT: u64 = 10_000;
/// What asks a process to stop, where nothing else is declared: TERM.
pub const STOP_SIGNAL_DEFAULT: i32 = 15;
/// The most processes that one handler may have at once.
pub const CONCURRENCY_MAX: u32 = 256;
/// How often a failed task is tried again, where nothing else is declared.
pub const RETRIES_DEFAULT: u32 = 3;
/// The most tries that may be allowed.
pub const RETRIES_MAX: u32 = 1_000;
/// The bounds of the waits before the second, third, fourth … try, in milliseconds; the last serves all after it.
pub const BACKOFF_MS_DEFAULT: [u64; 4] = [1_000, 4_000, 16_000, 60_000];

/// When a service whose process ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Restart {
    /// Unless it exited with 0, which finishes it.
    #[default]
    OnFailure,
    /// However it ended.
    Always,
    /// However it ended: not.
    Never,
}

impl Restart {
    /// As it stands in a manifest.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnFailure => "on-failure",
            Self::Always => "always",
            Self::Never => "never",
        }
    }
}

/// How an agent's beats are judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Heartbeat {
    /// Not declared: every 5 minutes, from a run's first beat on; who never beats is left alone.
    #[default]
    Default,
    /// Declared: every so many milliseconds, from the start of a run on.
    Every(u64),
    /// Not judged.
    Off,
}

/// How a task that failed is tried again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// How often, after the first try.
    pub retries: u32,
    /// The bounds of the waits before each of them (full jitter), in milliseconds; the last serves all after it.
    pub backoff_ms: Vec<u64>,
    /// If set, only these exit codes are worth another try.
    pub retry_on: Option<Vec<i32>>,
    /// These exit codes are not.
    pub no_retry_on: Vec<i32>,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            retries: RETRIES_DEFAULT,
            backoff_ms: BACKOFF_MS_DEFAULT.to_vec(),
            retry_on: None,
            no_retry_on: Vec::new(),
        }
    }
}

impl Retry {
    /// The longest wait before the next try of a task that failed so often (at least once), in milliseconds;
    /// `None` if there is none.
    #[must_use]
    pub fn wait_ms(&self, failures: u32) -> Option<u64> {
        let step = failures.checked_sub(1)? as usize;
        let bound = || self.backoff_ms.get(step).or(self.backoff_ms.last()).copied().unwrap_or(0);
        (failures <= self.retries).then(bound)
    }

    /// Whether this exit code, by which the task failed, is worth another try.
    #[must_use]
    pub fn is_worth_it(&self, code: i32) -> bool {
        self.retry_on.as_ref().is_none_or(|codes| codes.contains(&code)) && !self.no_retry_on.contains(&code)
    }
}

/// What both a manifest and the `[defaults]` of nightcrew.toml may declare.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Defaults {
    /// `restart`
    pub restart: Option<Restart>,
    /// `env_file`: relative to the crew, or absolute.
    pub env_file: Option<String>,
    /// `heartbeat`
    pub heartbeat: Option<Heartbeat>,
    /// `silence`, in milliseconds.
    pub silence_ms: Option<u64>,
    /// `isolation_grace`, in milliseconds.
    pub isolation_grace_ms: Option<u64>,
    /// `timeout`, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// `stop_grace`, in milliseconds.
    pub stop_grace_ms: Option<u64>,
    /// `stop_signal`, as its number.
    pub stop_signal: Option<i32>,
    /// `max_rss`, in bytes.
    pub max_rss_bytes: Option<u64>,
    /// `retries`
    pub retries: Option<u32>,
    /// `backoff`, in milliseconds.
    pub backoff_ms: Option<Vec<u64>>,
    /// `unique_for`, in milliseconds.
    pub unique_for_ms: Option<u64>,
    /// `env`
    pub env: BTreeMap<String, String>,
    /// `pass_env`
    pub pass_env: Vec<String>,
}

/// What holds for an agent, all defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// What it is for, in one line; empty if it does not say.
    pub about: String,
    /// False: it does not run.
    pub enabled: bool,
    /// The kinds of tasks it handles, one process a task; empty for a service.
    pub handles: Vec<Kind>,
    /// How many tasks it handles at once (a handler's).
    pub concurrency: u32,
    /// When it is started again (a service's).
    pub restart: Restart,
    /// Program and arguments, in place of a script. With a slash in it, the program is relative to
    /// `workdir`; without, it is looked for on the agent's PATH.
    pub command: Option<Vec<String>>,
    /// Where it runs: relative to the crew, or absolute. The crew if absent.
    pub workdir: Option<String>,
    /// A file of variables: relative to the crew, or absolute.
    pub env_file: Option<String>,
    /// Globs, relative to the crew, of files that belong to it: it restarts when one changes.
    pub reload_on: Vec<String>,
    /// How its beats are judged (a service's).
    pub heartbeat: Heartbeat,
    /// If set, output counts as beats, and they are due this often (a service's), in milliseconds.
    pub silence_ms: Option<u64>,
    /// How long it may stay silent once isolated, if declared: see [`Manifest::grace_ms`].
    pub isolation_grace_ms: Option<u64>,
    /// How long it may work on one task (a handler's), in milliseconds.
    pub timeout_ms: u64,
    /// How long it has between `stop_signal` and being killed, in milliseconds.
    pub stop_grace_ms: u64,
    /// The number of the signal that asks it to stop.
    pub stop_signal: i32,
    /// How much memory its whole tree may hold, in bytes.
    pub max_rss_bytes: Option<u64>,
    /// Variables of its environment.
    pub env: BTreeMap<String, String>,
    /// Names of variables that it is handed from the supervisor's own environment.
    pub pass_env: Vec<String>,
    /// Arguments for the script, or further ones for `command`.
    pub args: Vec<String>,
    /// How its failed tasks are tried again (a handler's).
    pub retry: Retry,
    /// For how long a task that is done keeps others of the same id out (a handler's), in milliseconds; as long as
    /// its record is kept, if absent.
    pub unique_for_ms: Option<u64>,
    /// What judges its results: `gates/NAME` (a handler's).
    pub gate: Option<Name>,
    /// The kind of task that its results are handed on as (a handler's).
    pub then: Option<Kind>,
    /// Who takes its tasks while it keeps failing (a handler's).
    pub fallback: Option<AgentName>,
    /// What starts it (a job's).
    pub triggers: Triggers,
}

impl Default for Manifest {
    fn default() -> Self {
        Self::over(&Defaults::default(), Own::default(), Defaults::default())
    }
}

impl Manifest {
    /// True if it gets one process a task; else it is a service.
    #[must_use]
    pub fn is_handler(&self) -> bool {
        !self.handles.is_empty()
    }

    /// True if it gets one process a firing. Each firing is a task, of a kind that is called like the agent.
    #[must_use]
    pub fn is_job(&self) -> bool {
        self.triggers.are_any()
    }

    /// What it is, in one word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match (self.is_job(), self.is_handler()) {
            (true, _) => "job",
            (false, true) => "handler",
            (false, false) => "service",
        }
    }

    /// What holds for the agent of this name: a job handles its own firings.
    #[must_use]
    pub fn of(mut self, agent: &AgentName) -> Self {
        if self.is_job() {
            self.handles = vec![agent.clone()];
            self.concurrency = if self.triggers.overlap == Overlap::Parallel { CONCURRENCY_MAX } else { 1 };
        }
        self
    }

    /// How often a sign of life is due, in milliseconds; `None` if that is not judged. Missing two
    /// isolates.
    #[must_use]
    pub fn interval_ms(&self) -> Option<u64> {
        match (self.silence_ms, self.heartbeat) {
            (Some(ms), _) | (None, Heartbeat::Every(ms)) => Some(ms),
            (None, Heartbeat::Default) => Some(HEARTBEAT_MS_DEFAULT),
            (None, Heartbeat::Off) => None,
        }
    }

    /// How long the agent may stay silent once it is isolated, before its tree is killed, in
    /// milliseconds: `isolation_grace`, else one interval.
    #[must_use]
    pub fn grace_ms(&self) -> u64 {
        self.isolation_grace_ms.or(self.interval_ms()).unwrap_or(HEARTBEAT_MS_DEFAULT)
    }

    fn over(defaults: &Defaults, own: Own, declared: Defaults) -> Self {
        // `heartbeat` and `silence` are two answers to one question: an agent that gives its own
        // does not inherit the other.
        let judged = if declared.heartbeat.is_some() || declared.silence_ms.is_some() {
            (declared.heartbeat, declared.silence_ms)
        } else {
            (defaults.heartbeat, defaults.silence_ms)
        };
        let mut env = defaults.env.clone();
        env.extend(declared.env);
        let mut pass_env = defaults.pass_env.clone();
        pass_env.extend(declared.pass_env);
        pass_env.sort_unstable();
        pass_env.dedup();
        Self {
            about: own.about.unwrap_or_default(),
            enabled: own.enabled.unwrap_or(true),
            handles: own.handles.unwrap_or_default(),
            concurrency: own.concurrency.unwrap_or(1),
            restart: declared.restart.or(defaults.restart).unwrap_or_default(),
            command: own.command,
            workdir: own.workdir,
            env_file: declared.env_file.or_else(|| defaults.env_file.clone()),
            reload_on: own.reload_on.unwrap_or_default(),
            heartbeat: judged.0.unwrap_or_default(),
            silence_ms: judged.1,
            isolation_grace_ms: declared.isolation_grace_ms.or(defaults.isolation_grace_ms),
            timeout_ms: declared.timeout_ms.or(defaults.timeout_ms).unwrap_or(TIMEOUT_MS_DEFAULT),
            stop_grace_ms: declared.stop_grace_ms.or(defaults.stop_grace_ms).unwrap_or(STOP_GRACE_MS_DEFAULT),
            stop_signal: declared.stop_signal.or(defaults.stop_signal).unwrap_or(STOP_SIGNAL_DEFAULT),
            max_rss_bytes: declared.max_rss_bytes.or(defaults.max_rss_bytes),
            env,
            pass_env,
            args: own.args.unwrap_or_default(),
            retry: Retry {
                // A job comes again by itself.
                retries: if own.triggers.are_any() {
                    declared.retries.unwrap_or(0)
                } else {
                    declared.retries.or(defaults.retries).unwrap_or(RETRIES_DEFAULT)
                },
                backoff_ms: declared
                    .backoff_ms
                    .or_else(|| defaults.backoff_ms.clone())
                    .unwrap_or_else(|| BACKOFF_MS_DEFAULT.to_vec()),
                retry_on: own.retry_on,
                no_retry_on: own.no_retry_on.unwrap_or_default(),
            },
            unique_for_ms: declared.unique_for_ms.or(defaults.unique_for_ms),
            gate: own.gate,
            then: own.then,
            fallback: own.fallback,
            triggers: own.triggers,
        }
    }
}

/// The manifest in the comment block of a script, `file` being what errors call it.
///
/// Without a block, what nightcrew.toml and nightcrew itself have for every agent.
///
/// # Errors
/// All that is wrong, at most [`ERRORS_MAX`], by line.
pub fn from_script(file: &str, bytes: &[u8], defaults: &Defaults) -> Result<Manifest, Vec<ManifestError>> {
    let (text, first_line) = match block::find(bytes) {
        Ok(Some(found)) => (found.toml, found.first_line),
        Ok(None) => (String::new(), 1),
        Err(block::BlockError { line, message, remedy }) => {
            return Err(vec![ManifestError { file: file.to_owned(), line, key: None, message, remedy }]);
        }
    };
    read(file, &text, first_line, |section| {
        let remedy = "use `args`, or move it to NAME.toml and the script out of agents/";
        section.refuse("command", "a script is its own command", remedy);
        manifest(section, defaults)
    })
}

/// The manifest in `NAME.toml`, `file` being what errors call it.
///
/// Whether it needs `command` depends on whether a script of that name lies beside it, which the
/// caller knows.
///
/// # Errors
/// All that is wrong, at most [`ERRORS_MAX`], by line.
pub fn from_toml(
    file: &str,
    bytes: impl AsRef<[u8]>,
    defaults: &Defaults,
) -> Result<Manifest, Vec<ManifestError>> {
    let text = decode(file, bytes.as_ref())?;
    read(file, text, 1, |section| manifest(section, defaults))
}

/// What only an agent's own manifest may declare.
#[derive(Default)]
struct Own {
    about: Option<String>,
    enabled: Option<bool>,
    handles: Option<Vec<Kind>>,
    concurrency: Option<u32>,
    command: Option<Vec<String>>,
    workdir: Option<String>,
    reload_on: Option<Vec<String>>,
    args: Option<Vec<String>>,
    retry_on: Option<Vec<i32>>,
    no_retry_on: Option<Vec<i32>>,
    gate: Option<Name>,
    then: Option<Kind>,
    fallback: Option<AgentName>,
    triggers: Triggers,
}

fn manifest(section: &mut Section<'_, '_>, defaults: &Defaults) -> Manifest {
    let known = [COMMON.as_slice(), OWN.as_slice()].concat();
    section.check_keys(&Vocabulary { known: &known, reserved: &RESERVED, elsewhere: &[] });
    check_combination(section);
    let own = Own {
        about: section.get("about", values::about),
        enabled: section.get("enabled", values::flag),
        handles: section.get("handles", values::kinds),
        concurrency: section.get("concurrency", |value| count(value, CONCURRENCY_MAX)),
        command: section.get("command", values::command),
        workdir: section.get("workdir", values::path),
        reload_on: section.get("reload_on", values::globs),
        args: section.get("args", values::arguments),
        retry_on: section.get("retry_on", values::exit_codes),
        no_retry_on: section.get("no_retry_on", values::exit_codes),
        gate: section.get("gate", |value| values::name(value, "the name of a gate", "\"has-sources\"")),
        then: section.get("then", |value| values::name(value, "a kind of task", "\"publish\"")),
        fallback: section.get("fallback", |value| values::name(value, "an agent", "\"writer-lite\"")),
        triggers: triggers::triggers(section),
    };
    let declared = common(section);
    Manifest::over(defaults, own, declared)
}

/// Reads the keys that a manifest and `[defaults]` share.
pub(crate) fn common(section: &mut Section<'_, '_>) -> Defaults {
    let declared = Defaults {
        restart: section.get("restart", values::restart),
        env_file: section.get("env_file", values::path),
        heartbeat: section.get("heartbeat", values::heartbeat),
        silence_ms: section.get("silence", duration),
        isolation_grace_ms: section.get("isolation_grace", duration),
        timeout_ms: section.get("timeout", duration),
        stop_grace_ms: section.get("stop_grace", duration),
        stop_signal: section.get("stop_signal", values::signal),
        max_rss_bytes: section.get("max_rss", values::size),
        retries: section.get("retries", |value| values::number(value, 0, RETRIES_MAX)),
        backoff_ms: section.get("backoff", values::durations),
        unique_for_ms: section.get("unique_for", duration),
        env: section.get("env", values::environment).unwrap_or_default(),
        pass_env: section.get("pass_env", values::variables).unwrap_or_default(),
    };
    match (declared.heartbeat, declared.silence_ms) {
        (Some(Heartbeat::Every(_) | Heartbeat::Default), Some(_)) => {
            let remedy = "keep one of the two: with `silence`, beats count as well";
            section.refuse("silence", "`heartbeat` sets an interval already", remedy);
        }
        (Some(Heartbeat::Off), None) => {
            let remedy = "remove it, or set an interval by `heartbeat` or `silence`";
            section.refuse("isolation_grace", "with `heartbeat = \"off\"`, silence isolates nobody", remedy);
        }
        (_, None) | (None | Some(Heartbeat::Off), Some(_)) => {}
    }
    declared
}

/// What makes sense only for an agent that gets one process a task.
const HANDLERS_ONLY: [&str; 10] = [
    "concurrency",
    "timeout",
    "retries",
    "backoff",
    "retry_on",
    "no_retry_on",
    "unique_for",
    "gate",
    "then",
    "fallback",
];

/// Refuses a key that would do nothing beside the others: what is declared is meant.
fn check_combination(section: &mut Section<'_, '_>) {
    let is_job = triggers::KINDS.iter().any(|key| section.has(key));
    if is_job {
        let remedy = "remove it: a job is given its firings; or move the work to an agent of its own";
        section.refuse("handles", "only for handlers; an agent with a trigger is a job", remedy);
    }
    let (keys, message, remedy): (&[&str], _, _) = if is_job {
        (
            &["restart", "heartbeat", "silence", "isolation_grace", "concurrency", "unique_for", "fallback"],
            "not for jobs, which have one process a firing",
            "remove it; `timeout` limits a firing, and `overlap` says what becomes of the next one meanwhile",
        )
    } else if section.has("handles") {
        (
            &["restart", "heartbeat", "silence", "isolation_grace"],
            "only for services; an agent with `handles` has one process a task",
            "remove it, and limit a task by `timeout`",
        )
    } else {
        (
            &HANDLERS_ONLY,
            "only for agents with `handles`; this is a service",
            "remove it, or name the kinds of tasks in `handles`",
        )
    };
    for key in keys {
        section.refuse(key, message, remedy);
    }
}
