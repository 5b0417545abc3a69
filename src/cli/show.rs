//! One task, with all that is known of it.

use std::path::PathBuf;

use serde::Serialize;

use crate::app::client::Client;
use crate::app::client::history::Happened;
use crate::app::client::lookup::{Found, Standing};
use crate::app::world::Disk;
use crate::protocol::name::{Kind, TaskId};
use crate::protocol::task::{Lock, OnDead, TaskRecord};
use crate::protocol::time::{Wall, show_duration};

use super::error::CliError;
use super::screen;

/// How much of a payload is shown, in characters.
const PAYLOAD_SHOWN_MAX: usize = 2000;

/// All of it.
#[derive(Serialize)]
struct Shown<'a> {
    task: &'a TaskId,
    state: Standing,
    since: Wall,
    record: &'a TaskRecord,
    #[serde(skip_serializing_if = "Option::is_none")]
    lock: Option<&'a Lock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    within: Option<&'a TaskId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<PathBuf>,
    needs: Vec<Need>,
    bound: Vec<BoundTask>,
    history: Vec<Happened>,
    /// False if the ledger may tell more.
    history_is_whole: bool,
}

#[derive(Serialize)]
struct Need {
    task: TaskId,
    /// Absent if there is no such task any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<Standing>,
}

#[derive(Serialize)]
struct BoundTask {
    task: TaskId,
    kind: Kind,
}

/// Shows a task: as one line of JSON, or for people.
pub(crate) fn show(client: &Client<Disk>, found: &Found, json: bool, now: Wall) -> Result<(), CliError> {
    let id = &found.record.id;
    let result = client.result_of(found)?;
    let needs = client.needs_of(found)?.into_iter().map(|(task, state)| Need { task, state }).collect();
    let bound = client.bound_to(id)?.into_iter();
    let bound = bound.map(|found| BoundTask { task: found.record.id, kind: found.record.kind }).collect();
    let history = client.history(id)?;
    let shown = Shown {
        task: id,
        state: found.standing,
        since: found.line().since,
        record: &found.record,
        lock: found.lock.as_ref(),
        within: found.within.as_ref(),
        result: result.as_ref().map(|(path, _)| path.clone()),
        needs,
        bound,
        history: history.events,
        history_is_whole: !history.is_cut,
    };
    if json {
        return screen::say_json(&shown);
    }
    shown.say(result.map(|(_, size)| size), now)
}

impl Shown<'_> {
    fn say(&self, result_len: Option<u64>, now: Wall) -> Result<(), CliError> {
        let ago =
            u64::try_from(now.0.saturating_sub(self.since.0)).map_or_else(|_| "0s".into(), show_duration);
        screen::say(format_args!(
            "task {}, {}: {} for {ago}",
            self.task,
            self.record.kind,
            self.state.as_str()
        ))?;
        self.say_record(result_len)?;
        for Need { task, state } in &self.needs {
            field("needs", format_args!("{task}, {}", state.map_or("gone", Standing::as_str)))?;
        }
        for BoundTask { task, kind } in &self.bound {
            field("bound to it", format_args!("{task}, {kind}"))?;
        }
        self.say_tries()?;
        if !self.history.is_empty() {
            screen::say("\nhistory")?;
        }
        if !self.history_is_whole {
            screen::say("  (what is older is not shown: look into state/ledger/)")?;
        }
        for Happened { at, text, .. } in &self.history {
            screen::say(format_args!("  {at}  {}", screen::one_line(text)))?;
        }
        Ok(())
    }

    fn say_record(&self, result_len: Option<u64>) -> Result<(), CliError> {
        let (record, wishes) = (self.record, &self.record.wishes);
        field("submitted", format_args!("{} by {}", record.at, screen::one_line(&record.by)))?;
        if let Some(task) = self.within {
            field("bound to", task)?;
        }
        if let Some(lock) = self.lock {
            field("held by", format_args!("{} since {}", lock.agent, lock.at))?;
        }
        for (name, at) in [("not before", wishes.not_before), ("expires", wishes.expires)] {
            at.map_or(Ok(()), |at| field(name, at))?;
        }
        if wishes.priority != 0 {
            field("priority", wishes.priority)?;
        }
        if let Some(group) = &wishes.group {
            field("group", group)?;
        }
        if wishes.on_dead == OnDead::Run {
            field("on dead", "run")?;
        }
        if let Some(made) = &record.made {
            field("made by", format_args!("{}, for gate {}", made.agent, made.gate))?;
        }
        let counts =
            [("failures", record.failures), ("put off", record.deferrals), ("replays", record.replays)];
        for (name, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            field(name, count)?;
        }
        if let Some(reason) = &record.reason {
            field("reason", screen::one_line(reason))?;
        }
        let payload = screen::one_line(record.payload.get());
        match payload.char_indices().nth(PAYLOAD_SHOWN_MAX) {
            None => field("payload", payload)?,
            Some((end, _)) => field("payload", format_args!("{}… (--json shows all)", &payload[..end]))?,
        }
        if let (Some(path), Some(len)) = (&self.result, result_len) {
            field("result", format_args!("{} ({len} bytes)", path.display()))?;
        }
        Ok(())
    }

    fn say_tries(&self) -> Result<(), CliError> {
        if !self.record.attempts.is_empty() {
            screen::say("\ntries that did not end well")?;
        }
        for attempt in &self.record.attempts {
            let mib = |bytes: u64| format!(" (at most {} MiB at once)", bytes.div_ceil(1024 * 1024));
            screen::say(format_args!(
                "  {}  {}: {}{}",
                attempt.at,
                attempt.agent,
                screen::one_line(&attempt.error),
                attempt.peak_memory.map(mib).unwrap_or_default()
            ))?;
            for line in attempt.output.lines() {
                screen::say(format_args!("      | {}", screen::one_line(line)))?;
            }
        }
        Ok(())
    }
}

fn field(name: &str, value: impl std::fmt::Display) -> Result<(), CliError> {
    screen::say(format_args!("  {name:<11}  {value}"))
}
