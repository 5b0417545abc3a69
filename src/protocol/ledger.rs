//! What the ledger records: one [`Entry`] a line, framed by [`super::framing`].

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::{AgentName, Key, Kind, RunId, TaskId};
use super::process::{Ending, Identity};
use super::schedule::SlotId;
use super::time::{Wall, show_duration};

/// One line of the ledger, without its frame.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was decided, by the supervisor's wall clock.
    pub at: Wall,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What `next` of an outcome says before the time of the next try.
const AGAIN_AT: &str = "again at ";

/// `next` of an outcome whose task is tried again at this time.
#[must_use]
pub fn next_try(at: Wall) -> String {
    format!("{AGAIN_AT}{at}")
}

/// When the task is tried again, if `next` of an outcome says so.
#[must_use]
pub fn again_at(next: &str) -> Option<Wall> {
    next.strip_prefix(AGAIN_AT)?.parse().ok()
}

/// What `next` of an outcome says before the time until which the id stays the task's.
const DONE_UNTIL: &str = "done, unique until ";

/// `next` of an outcome whose task is done and keeps others of its id out until then.
#[must_use]
pub fn done_so_long(until: Wall) -> String {
    format!("{DONE_UNTIL}{until}")
}

/// Until when a task that is done keeps others of its id out, if `next` of an outcome says so.
#[must_use]
pub fn done_until(next: &str) -> Option<Wall> {
    next.strip_prefix(DONE_UNTIL)?.parse().ok()
}

/// All that can happen, on one screen. The tag is the line's `event`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "a field says what it is: who, which, why")]
pub enum Fact {
    /// A supervisor took the crew.
    SupervisorStarted { pid: u32, version: String },
    /// A supervisor gave the crew up in good order.
    SupervisorStopped { why: String },
    /// The loop stood still (machine paused, supervisor stopped): deadlines moved by so much.
    SupervisorPaused { gap_ms: u64 },
    /// A signal, a kill switch or a command changed what may run.
    Control { what: String, why: String },

    /// A process of an agent runs.
    Started {
        agent: AgentName,
        run: RunId,
        process: Identity,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        task: Option<TaskId>,
    },
    /// A process could not be started.
    StartFailed { agent: AgentName, run: RunId, error: String },
    /// A run's root process ended.
    Exited { agent: AgentName, run: RunId, ending: Ending, lived_ms: u64, why: String },
    /// What a run left behind at its exit was killed.
    RemnantsKilled { agent: AgentName, run: RunId, processes: Vec<String> },
    /// A run was told to stop, or its tree was killed.
    Killed { agent: AgentName, run: RunId, how: String, why: String },
    /// A tree could not be proved gone in time.
    Unkillable { agent: AgentName, run: RunId, processes: Vec<String> },
    /// A run missed its heartbeats and is withheld; the evidence is what was seen of it.
    Isolated { agent: AgentName, run: RunId, why: String, evidence: serde_json::Value },
    /// It beat again.
    Reinstated { agent: AgentName, run: RunId },
    /// An agent keeps failing: the next try is at `next`.
    Failing { agent: AgentName, failures: u32, next: Wall },
    /// A file in `agents/` cannot or must not run.
    Refused { file: String, reason: String, remedy: String },
    /// An agent is new, or a new version of it counts from now on.
    Accepted { agent: AgentName, digest: String },
    /// An agent's file is gone.
    Removed { agent: AgentName },

    /// A task was admitted; `nonce` is the submission's, by which the next supervisor knows what it finds half done.
    Submitted {
        task: TaskId,
        kind: Kind,
        token: u64,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        nonce: String,
        by: String,
    },
    /// A submission repeats an id that is known.
    Duplicate { task: TaskId, of: String },
    /// A task that had ended was submitted again, by moving its record.
    Replayed {
        task: TaskId,
        kind: Kind,
        token: u64,
        #[serde(default, skip_serializing_if = "String::is_empty")]
        nonce: String,
    },
    /// A slot of a job came, and is not fired.
    SlotSkipped { slot: SlotId, why: String },
    /// Slots of a job came while nobody was there to fire them, and stay missed.
    SlotsMissed { first: SlotId, last: SlotId, count: usize },
    /// Something an agent or operator handed in was refused.
    Rejected { what: String, name: String, reason: String },
    /// A run holds a task.
    Claimed {
        task: TaskId,
        token: u64,
        agent: AgentName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        run: Option<RunId>,
    },
    /// An outcome was accepted.
    Outcome {
        task: TaskId,
        token: u64,
        nonce: String,
        agent: AgentName,
        status: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
        next: String,
    },
    /// A task became a dead letter while nobody held it: it expired, was cancelled, or needs one that is dead.
    GivenUp { task: TaskId, token: u64, why: String },
    /// A gate, or a person in its stead, judged a task's result.
    Judged {
        task: TaskId,
        token: u64,
        by: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        words: Option<String>,
        next: String,
    },
    /// An outcome came too late, or bears a claim that is not the task's.
    OutcomeRefused { task: TaskId, token: u64, agent: AgentName, reason: String },
    /// A lock was taken away from its owner.
    Vacated { task: TaskId, token: u64, next_token: u64, agent: AgentName, why: String },

    /// The steward applied an update.
    Updated {
        agent: AgentName,
        /// Named so in the file because `seq` is the line's own.
        #[serde(rename = "update")]
        seq: u64,
        id: String,
        op: String,
        key: Key,
    },
    /// The steward refused an update.
    UpdateRejected {
        agent: AgentName,
        #[serde(rename = "update")]
        seq: u64,
        reason: String,
    },
    /// The order of an agent's updates has a hole that did not fill.
    UpdateGap { agent: AgentName, expected: u64, found: u64 },

    /// An incident that a person should know of; the whole of it is in `alerts/`.
    Alert { key: String, text: String },
}

impl fmt::Display for Fact {
    /// The fact as a sentence, for a log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SupervisorStarted { pid, version } => write!(f, "nightcrew {version} started, pid {pid}"),
            Self::SupervisorStopped { why } => write!(f, "nightcrew ended: {why}"),
            Self::SupervisorPaused { gap_ms } => write!(f, "everything stood still for {gap_ms} ms"),
            Self::Control { what, why } if why.is_empty() => write!(f, "{what}"),
            Self::Control { what, why } => write!(f, "{what}: {why}"),
            Self::Started { agent, process, task: None, .. } => {
                write!(f, "{agent} started, pid {}", process.pid)
            }
            Self::Started { agent, process, task: Some(task), .. } => {
                write!(f, "{agent} started on task {task}, pid {}", process.pid)
            }
            Self::StartFailed { agent, error, .. } => write!(f, "{agent} could not be started: {error}"),
            Self::Exited { agent, ending, lived_ms, .. } => {
                write!(f, "{agent} ended after {}: {ending}", show_duration(*lived_ms))
            }
            Self::RemnantsKilled { agent, processes, .. } => {
                write!(f, "{agent} left processes behind, which were killed: {}", processes.join(", "))
            }
            Self::Killed { agent, how, why, .. } => write!(f, "{agent} is being stopped ({how}): {why}"),
            Self::Unkillable { agent, processes, .. } => {
                write!(f, "processes of {agent} do not die: {}", processes.join(", "))
            }
            Self::Isolated { agent, why, .. } => write!(f, "{agent} is isolated: {why}"),
            Self::Reinstated { agent, .. } => {
                write!(f, "{agent} shows signs of life again and is reinstated")
            }
            Self::Failing { agent, failures, next } => {
                write!(f, "{agent} failed {failures} times in a row; the next try is at {next}")
            }
            Self::Refused { file, reason, remedy } => write!(f, "{file} is refused: {reason}; {remedy}"),
            Self::Accepted { agent, .. } => write!(f, "{agent}: this version of it counts from now on"),
            Self::Removed { agent } => write!(f, "{agent} was removed"),
            Self::Submitted { .. }
            | Self::Duplicate { .. }
            | Self::Replayed { .. }
            | Self::Rejected { .. }
            | Self::Claimed { .. }
            | Self::Outcome { .. }
            | Self::GivenUp { .. }
            | Self::Judged { .. }
            | Self::OutcomeRefused { .. }
            | Self::Vacated { .. } => self.write_of_task(f),
            Self::SlotSkipped { slot, why } => write!(f, "{slot} is skipped: {why}"),
            Self::SlotsMissed { first, count: 1, .. } => write!(f, "{first} was missed"),
            Self::SlotsMissed { first, last, count } => {
                write!(f, "{count} slots from {first} to {last} were missed")
            }
            Self::Updated { agent, op, key, .. } => write!(f, "memory: {op} {key}, by {agent}"),
            Self::UpdateRejected { agent, seq, reason } => {
                write!(f, "memory: update {seq} of {agent} is rejected: {reason}")
            }
            Self::UpdateGap { agent, expected, found } => {
                write!(f, "memory: {agent} skipped from update {expected} to {found}")
            }
            Self::Alert { text, .. } => write!(f, "{text}"),
        }
    }
}

impl Fact {
    fn write_of_task(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Submitted { task, kind, by, .. } => {
                write!(f, "task {task} of kind {kind} was submitted by {by}")
            }
            Self::Duplicate { task, of } => write!(f, "task {task} was submitted again; it is {of}"),
            Self::Replayed { task, kind, .. } => write!(f, "task {task} of kind {kind} is replayed"),
            Self::Rejected { what, name, reason } => write!(f, "{what} {name} is rejected: {reason}"),
            Self::Claimed { task, agent, .. } => write!(f, "{agent} holds task {task}"),
            Self::Outcome { task, agent, status, error: None, next, .. } => {
                write!(f, "task {task}: {status} by {agent}; now {next}")
            }
            Self::Outcome { task, agent, status, error: Some(error), next, .. } => {
                write!(f, "task {task}: {status} by {agent} ({error}); now {next}")
            }
            Self::GivenUp { task, why, .. } => write!(f, "task {task} is given up: {why}"),
            Self::Judged { task, by, words: None, next, .. } => {
                write!(f, "the result of task {task} was judged by {by}; now {next}")
            }
            Self::Judged { task, by, words: Some(words), next, .. } => {
                write!(f, "the result of task {task} was judged by {by} ({words}); now {next}")
            }
            Self::OutcomeRefused { task, agent, reason, .. } => {
                write!(f, "an outcome of {agent} for task {task} is refused: {reason}")
            }
            Self::Vacated { task, agent, why, .. } => write!(f, "task {task} was taken from {agent}: {why}"),
            Self::SupervisorStarted { .. }
            | Self::SupervisorStopped { .. }
            | Self::SupervisorPaused { .. }
            | Self::Control { .. }
            | Self::Started { .. }
            | Self::StartFailed { .. }
            | Self::Exited { .. }
            | Self::RemnantsKilled { .. }
            | Self::Killed { .. }
            | Self::Unkillable { .. }
            | Self::Isolated { .. }
            | Self::Reinstated { .. }
            | Self::Failing { .. }
            | Self::Refused { .. }
            | Self::Accepted { .. }
            | Self::Removed { .. }
            | Self::SlotSkipped { .. }
            | Self::SlotsMissed { .. }
            | Self::Updated { .. }
            | Self::UpdateRejected { .. }
            | Self::UpdateGap { .. }
            | Self::Alert { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lines as earlier builds wrote them, without `at`. They are never edited, only added to.
    const GOLDEN: [&str; 38] = [
        r#""event":"supervisor_started","pid":1,"version":"0.1.0""#,
        r#""event":"supervisor_stopped","why":"w""#,
        r#""event":"supervisor_paused","gap_ms":9"#,
        r#""event":"control","what":"halt","why":"w""#,
        r#""event":"started","agent":"a","run":"R1","process":{"pid":7,"start":18446744073709551615,"boot":"b","ns":4}"#,
        r#""event":"started","agent":"a","run":"R1","process":{"pid":7,"start":8,"boot":"b","ns":4},"task":"t""#,
        r#""event":"start_failed","agent":"a","run":"R1","error":"e""#,
        r#""event":"exited","agent":"a","run":"R1","ending":{"code":3},"lived_ms":5,"why":"""#,
        r#""event":"exited","agent":"a","run":"R1","ending":{"signal":9},"lived_ms":5,"why":"""#,
        r#""event":"exited","agent":"a","run":"R1","ending":"unseen","lived_ms":5,"why":"""#,
        r#""event":"remnants_killed","agent":"a","run":"R1","processes":["7 sh"]"#,
        r#""event":"killed","agent":"a","run":"R1","how":"TERM","why":"w""#,
        r#""event":"unkillable","agent":"a","run":"R1","processes":[]"#,
        r#""event":"isolated","agent":"a","run":"R1","why":"w","evidence":{"cpu":1.5,"state":"D"}"#,
        r#""event":"reinstated","agent":"a","run":"R1""#,
        r#""event":"failing","agent":"a","failures":2,"next":"1970-01-01T00:00:00.000Z""#,
        r#""event":"refused","file":"agents/a.sh","reason":"r","remedy":"chmod +x agents/a.sh""#,
        r#""event":"accepted","agent":"a","digest":"d""#,
        r#""event":"removed","agent":"a""#,
        r#""event":"submitted","task":"t","kind":"k","token":3,"by":"operator""#,
        r#""event":"duplicate","task":"t","of":"done""#,
        r#""event":"replayed","task":"t","kind":"k","token":3"#,
        r#""event":"slot_skipped","slot":"a@2026-11-20T04:00Z","why":"w""#,
        r#""event":"slots_missed","first":"a@2026-11-20T04:00Z","last":"a@2026-11-20T05:00Z","count":2"#,
        r#""event":"rejected","what":"task","name":"n","reason":"r""#,
        r#""event":"claimed","task":"t","token":3,"agent":"a""#,
        r#""event":"claimed","task":"t","token":3,"agent":"a","run":"R1""#,
        r#""event":"outcome","task":"t","token":3,"nonce":"n","agent":"a","status":"done","next":"done""#,
        r#""event":"outcome","task":"t","token":3,"nonce":"n","agent":"a","status":"failed","error":"e\n","next":"dead""#,
        r#""event":"given_up","task":"t","token":3,"why":"w""#,
        r#""event":"judged","task":"t","token":3,"by":"gate g","next":"done""#,
        r#""event":"judged","task":"t","token":3,"by":"gate g","words":"no","next":"review""#,
        r#""event":"outcome_refused","task":"t","token":3,"agent":"a","reason":"r""#,
        r#""event":"vacated","task":"t","token":3,"next_token":4,"agent":"a","why":"w""#,
        r#""event":"updated","agent":"a","update":4,"id":"u","op":"set","key":"k/l""#,
        r#""event":"update_rejected","agent":"a","update":4,"reason":"r""#,
        r#""event":"update_gap","agent":"a","expected":1,"found":2"#,
        r#""event":"alert","key":"k","text":"t""#,
    ];

    #[test]
    fn each_line_is_read_and_written_again_byte_for_byte() {
        for fields in GOLDEN {
            let line = format!(r#"{{"at":"2026-11-20T03:00:00.123Z",{fields}}}"#);
            let entry: Entry = serde_json::from_str(&line).unwrap();
            assert_eq!(entry.at, Wall(1_795_143_600_123));
            assert_eq!(serde_json::to_string(&entry).unwrap(), line);
        }
    }

    /// Otherwise a line in its frame would bear a name twice, and `jq` show only the later.
    #[test]
    fn no_field_is_named_like_one_of_the_frame() {
        for fields in GOLDEN {
            let value: serde_json::Value = serde_json::from_str(&format!("{{{fields}}}")).unwrap();
            assert!(["seq", "crc", "commit", "segment"].iter().all(|name| value.get(name).is_none()));
        }
    }

    #[test]
    fn the_time_of_the_next_try_is_told_and_read() {
        assert_eq!(next_try(Wall(1_000)), "again at 1970-01-01T00:00:01.000Z");
        assert_eq!(again_at(&next_try(Wall(1_000))), Some(Wall(1_000)));
        assert_eq!(done_so_long(Wall(1_000)), "done, unique until 1970-01-01T00:00:01.000Z");
        assert_eq!(done_until(&done_so_long(Wall(1_000))), Some(Wall(1_000)));
        for other in
            ["dead", "done", "waiting", "again at ", "again at noon", "done, unique until ", "done, "]
        {
            assert_eq!((again_at(other), done_until(other)), (None, None), "{other}");
        }
    }

    #[test]
    fn numbers_and_words_end_up_in_their_fields() {
        let agent: AgentName = "a".parse().unwrap();
        let fact = Fact::Updated {
            agent: agent.clone(),
            seq: 4,
            id: "u".into(),
            op: "set".into(),
            key: "k/l".parse().unwrap(),
        };
        let line = serde_json::to_string(&Entry { at: Wall(0), fact }).unwrap();
        assert!(line.ends_with(r#""agent":"a","update":4,"id":"u","op":"set","key":"k/l"}"#), "{line}");
        let fact = Fact::UpdateGap { agent, expected: 1, found: 2 };
        let line = serde_json::to_string(&Entry { at: Wall(0), fact }).unwrap();
        assert!(line.ends_with(r#""expected":1,"found":2}"#), "{line}");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = serde_json::from_slice::<Entry>(&bytes);
        }
    }
}
