//! Submitting many tasks in one call: looked at as a whole, and durable with one barrier.
//!
//! Nothing is written before every line has been looked at, and nothing is told before all of it is durable. A crash
//! in between leaves some of the tasks submitted, those that are needed before those that need them; the same call
//! again submits the rest.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::path::PathBuf;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::edge::store::{Store, parent};
use crate::protocol::layout::Shelf;
use crate::protocol::name::{Kind, Name, TaskId};
use crate::protocol::record::RECORD_LEN_MAX;
use crate::protocol::task::{OnDead, Wishes};
use crate::protocol::time::Wall;

use super::finish::Held;
use super::lookup::{LISTED_MAX, Standing};
use super::submit::{Order, Payload, Sameness, When, check_wishes};
use super::{Client, ClientError};

/// The most lines of a batch.
pub const LINES_MAX: usize = 100_000;
/// The longest batch, in bytes: it is held in memory until all of it has been looked at.
pub const BATCH_LEN_MAX: u64 = 256 * 1024 * 1024;
/// How much of a cycle of needs an error tells.
const CYCLE_TOLD_MAX: usize = 8;

/// What a line of a batch asks for, and where it stood.
#[derive(Debug)]
pub struct Ordered {
    /// Its line, from 1.
    pub line: usize,
    /// What it asks for.
    pub order: Order,
}

/// What became of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settled {
    /// Its kind.
    pub kind: Kind,
    /// The task.
    pub task: TaskId,
    /// Where the task stands that makes it a duplicate; none if it was accepted.
    pub duplicate_of: Option<Standing>,
}

/// A line as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    kind: Kind,
    #[serde(default)]
    payload: Option<Box<RawValue>>,
    #[serde(default)]
    key: Option<String>,
    #[serde(default)]
    id: Option<TaskId>,
    #[serde(default)]
    new: bool,
    #[serde(default)]
    needs: Option<Vec<TaskId>>,
    #[serde(default)]
    on_dead: Option<OnDead>,
    #[serde(default)]
    priority: Option<i8>,
    #[serde(default)]
    not_before: Option<Wall>,
    #[serde(default)]
    delay: Option<When>,
    #[serde(default)]
    expires: Option<When>,
    #[serde(default)]
    group: Option<Name>,
}

impl<'de> Deserialize<'de> for When {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads JSON Lines, one task each; what a line does not say of its wishes is as in `otherwise`. Empty lines are
/// passed over.
///
/// # Errors
/// [`ClientError::Line`] for the first line that is refused, [`ClientError::Refused`] for too many of them.
pub fn parse(bytes: &[u8], otherwise: &Wishes, now: Wall) -> Result<Vec<Ordered>, ClientError> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let mut ordered = Vec::new();
    for (index, text) in lines.filter(|(_, text)| !text.trim_ascii().is_empty()) {
        if ordered.len() == LINES_MAX {
            let why = format!("more than {LINES_MAX} lines: hand them in with several calls");
            return Err(ClientError::Refused(why));
        }
        let line = index + 1;
        let order = parse_line(text, otherwise, now).map_err(at(line))?;
        ordered.push(Ordered { line, order });
    }
    Ok(ordered)
}

fn at(line: usize) -> impl Fn(ClientError) -> ClientError {
    move |error| ClientError::Line { line, error: Box::new(error) }
}

fn parse_line(text: &[u8], otherwise: &Wishes, now: Wall) -> Result<Order, ClientError> {
    let size = text.len() as u64;
    if size > RECORD_LEN_MAX {
        let why = format!("{size} bytes, where {RECORD_LEN_MAX} are allowed: put what is large into a file");
        return Err(ClientError::Refused(why));
    }
    let line: Line = serde_json::from_slice(text).map_err(|error| {
        let place = format!(" at line {} column {}", error.line(), error.column());
        let words = error.to_string().replace(&place, "");
        let column = error.column();
        ClientError::Refused(format!(
            "column {column}: {words}; a line is {{\"kind\":\"…\",\"payload\":…}}, and what `submit` has options for"
        ))
    })?;
    let same = match (line.key, line.id, line.new) {
        (None, None, false) => Sameness::Payload,
        (Some(key), None, false) => Sameness::Key(key),
        (None, Some(id), false) => Sameness::Id(id),
        (None, None, true) => Sameness::New,
        (Some(_), _, true) | (_, Some(_), true) | (Some(_), Some(_), _) => {
            return Err(ClientError::Refused("key, id and new exclude each other: keep one".into()));
        }
    };
    let begins = match (line.not_before, line.delay) {
        (None, None) => otherwise.not_before,
        (Some(at), None) => Some(at),
        (None, Some(delay @ When::In(_))) => Some(delay.wall(now)),
        (None, Some(When::At(_))) => {
            return Err(ClientError::Refused("a delay is a length of time; not_before takes a time".into()));
        }
        (Some(_), Some(_)) => {
            return Err(ClientError::Refused("not_before and delay exclude each other: keep one".into()));
        }
    };
    let wishes = Wishes {
        priority: line.priority.unwrap_or(otherwise.priority),
        not_before: begins,
        expires: line.expires.map(|when| when.wall(now)).or(otherwise.expires),
        group: line.group.or_else(|| otherwise.group.clone()),
        needs: line.needs.unwrap_or_else(|| otherwise.needs.clone()),
        on_dead: line.on_dead.unwrap_or(otherwise.on_dead),
    };
    let payload = Payload::parse(line.payload.map_or_else(|| "null".into(), Box::<str>::from).as_bytes())?;
    Ok(Order { kind: line.kind, payload, same, wishes })
}

/// A line that is no duplicate.
struct Draft {
    /// Which of the lines.
    index: usize,
    line: usize,
    id: TaskId,
    order: Order,
}

impl<S: Store> Client<S> {
    /// Submits many tasks, within the task that the caller holds if that is named. When this returns, all are durable,
    /// or known already; what became of each is told in their order.
    ///
    /// # Errors
    /// As for [`Client::submit`], in a [`ClientError::Line`]; then nothing was submitted. After a
    /// [`ClientError::Io`] some may have been: submitting all again is safe.
    pub fn submit_all(
        &mut self,
        ordered: Vec<Ordered>,
        within: Option<&Held>,
        now: Wall,
    ) -> Result<Vec<Settled>, ClientError> {
        if let Some(held) = within {
            self.still_holds(held)?;
        }
        let (mut settled, drafts) = self.sort_out(ordered, within, now)?;
        self.check_drafts(&drafts, within, now)?;
        let sequence = needed_first(&drafts)?;
        let lines = drafts.into_iter().map(|draft| {
            let line = self.line_of(&draft.id, draft.order, now).map_err(at(draft.line))?;
            Ok((draft.index, line))
        });
        let lines: Vec<(usize, Vec<u8>)> = lines.collect::<Result<_, ClientError>>()?;
        self.publish_all(lines, &sequence, &mut settled, within)?;
        Ok(settled)
    }

    /// Tells duplicates, of what is known or of a line before, from what is to be submitted.
    fn sort_out(
        &mut self,
        ordered: Vec<Ordered>,
        within: Option<&Held>,
        now: Wall,
    ) -> Result<(Vec<Settled>, Vec<Draft>), ClientError> {
        let (mut settled, mut drafts) = (Vec::with_capacity(ordered.len()), Vec::new());
        let mut seen: BTreeMap<TaskId, Standing> = BTreeMap::new();
        let begins = if within.is_some() { Standing::Bound } else { Standing::New };
        let listed = self.listed_ids(within)?;
        for (index, Ordered { line, order }) in ordered.into_iter().enumerate() {
            let id = self.id_of(&order);
            let duplicate_of = match seen.get(&id) {
                Some(standing) => Some(*standing),
                None if listed.as_ref().is_some_and(|listed| !listed.contains(id.as_str())) => None,
                None => self.rival(&id, within, now).map_err(at(line))?.map(|found| found.standing),
            };
            seen.entry(id.clone()).or_insert(duplicate_of.unwrap_or(begins));
            settled.push(Settled { kind: order.kind.clone(), task: id.clone(), duplicate_of });
            if duplicate_of.is_none() {
                drafts.push(Draft { index, line, id, order });
            }
        }
        Ok((settled, drafts))
    }

    /// The ids of all tasks there are: asking for each by its name would take far longer. `None` if there are more
    /// than can be listed.
    fn listed_ids(&self, within: Option<&Held>) -> Result<Option<BTreeSet<String>>, ClientError> {
        let mut dirs = vec![self.layout.new_tasks(), self.layout.tasks()];
        // In the order in which records move: one that moves on meanwhile is met again.
        dirs.extend([Shelf::Review, Shelf::Done, Shelf::Dead].map(|shelf| self.layout.shelf(shelf)));
        let mut ids = BTreeSet::new();
        for dir in dirs {
            let entries = self.store.list(&dir, LISTED_MAX);
            let entries = entries.map_err(|error| ClientError::Io { path: dir, error })?;
            if entries.len() == LISTED_MAX {
                return Ok(None);
            }
            let names =
                entries.into_iter().filter_map(|entry| entry.name.split_once('.').map(|it| it.0.into()));
            ids.extend::<Vec<String>>(names.collect());
        }
        if let Some(held) = within {
            let bound = self.bound_to(&held.task)?.into_iter();
            ids.extend(bound.map(|found| found.record.id.to_string()));
        }
        Ok(Some(ids))
    }

    fn check_drafts(&self, drafts: &[Draft], within: Option<&Held>, now: Wall) -> Result<(), ClientError> {
        let mut known: BTreeSet<&TaskId> = drafts.iter().map(|draft| &draft.id).collect();
        for Draft { line, id, order, .. } in drafts {
            check_wishes(id, &order.wishes, now).map_err(at(*line))?;
            for need in &order.wishes.needs {
                if !known.contains(need) {
                    if !self.can_be_needed(need, within)? {
                        return Err(at(*line)(ClientError::UnknownNeed(need.clone())));
                    }
                    known.insert(need);
                }
            }
        }
        Ok(())
    }

    /// Publishes the records, whose contents become durable together and then their names; `sequence` says in which
    /// order they get those.
    fn publish_all(
        &mut self,
        lines: Vec<(usize, Vec<u8>)>,
        sequence: &[usize],
        settled: &mut [Settled],
        within: Option<&Held>,
    ) -> Result<(), ClientError> {
        let mut unsettled: BTreeSet<PathBuf> = BTreeSet::new();
        let mut indices = Vec::with_capacity(lines.len());
        let mut files = Vec::with_capacity(lines.len());
        for (index, line) in lines {
            indices.push(index);
            files.push((self.temp()?, line));
        }
        if !files.is_empty() {
            let dir =
                within.map_or_else(|| self.layout.new_tasks(), |held| self.layout.bound_of(&held.agent));
            self.ensure_dir(&dir)?;
            unsettled.insert(dir);
        }
        if let Err(error) = self.write_and_name(&files, &indices, sequence, settled, within) {
            // The first error is the one to tell; a leftover temp file is cleared at the next start.
            for (temp, _) in &files {
                let _ = self.remove(temp);
            }
            return Err(error);
        }
        let known = settled.iter().filter_map(|settled| settled.duplicate_of).collect::<BTreeSet<_>>();
        unsettled.extend(known.into_iter().flat_map(|standing| self.unsettled(standing, within)));
        unsettled.into_iter().try_for_each(|dir| self.sync_dir(dir))
    }

    fn write_and_name(
        &self,
        files: &[(PathBuf, Vec<u8>)],
        indices: &[usize],
        sequence: &[usize],
        settled: &mut [Settled],
        within: Option<&Held>,
    ) -> Result<(), ClientError> {
        let Some((first, _)) = files.first() else { return Ok(()) };
        self.store
            .write_all_new(files)
            .map_err(|error| ClientError::Io { path: parent(first).into(), error })?;
        for &nth in sequence {
            let settled = &mut settled[indices[nth]];
            let path = self.place_of(&settled.task, within);
            match self.store.rename_new(&files[nth].0, &path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                    self.remove(&files[nth].0)?;
                    // Somebody else submitted it since we looked; if it has moved on, it is admitted by now.
                    let id = &settled.task;
                    let refused =
                        || ClientError::Payload(format!("another submission of {id} was just refused"));
                    settled.duplicate_of = Some(self.known(id, within)?.ok_or_else(refused)?.standing);
                }
                Err(error) => return Err(ClientError::Io { path, error }),
            }
        }
        Ok(())
    }
}

/// An order in which what is needed comes before what needs it.
fn needed_first(drafts: &[Draft]) -> Result<Vec<usize>, ClientError> {
    let by_id: BTreeMap<&TaskId, usize> =
        drafts.iter().enumerate().map(|(nth, draft)| (&draft.id, nth)).collect();
    let needs = |nth: usize| {
        let needs: BTreeSet<usize> =
            drafts[nth].order.wishes.needs.iter().filter_map(|need| by_id.get(need).copied()).collect();
        needs
    };
    let mut waits_for: Vec<usize> = Vec::with_capacity(drafts.len());
    let mut needed_by: Vec<Vec<usize>> = vec![Vec::new(); drafts.len()];
    for nth in 0..drafts.len() {
        let needs = needs(nth);
        waits_for.push(needs.len());
        for need in needs {
            needed_by[need].push(nth);
        }
    }
    let mut free: VecDeque<usize> = (0..drafts.len()).filter(|nth| waits_for[*nth] == 0).collect();
    let mut sequence = Vec::with_capacity(drafts.len());
    while let Some(nth) = free.pop_front() {
        sequence.push(nth);
        for &waiting in &needed_by[nth] {
            waits_for[waiting] -= 1;
            if waits_for[waiting] == 0 {
                free.push_back(waiting);
            }
        }
    }
    let Some(stuck) = (0..drafts.len()).find(|nth| waits_for[*nth] > 0) else { return Ok(sequence) };
    // Each of those left needs another of them, so going from need to need leads round.
    let mut way = vec![stuck];
    let (mut met, mut here) = (BTreeSet::from([stuck]), stuck);
    while let Some(next) = needs(here).into_iter().find(|need| waits_for[*need] > 0) {
        way.push(next);
        here = next;
        if !met.insert(next) {
            break;
        }
    }
    let begin = way.iter().position(|nth| *nth == here).unwrap_or(0);
    let told: Vec<&str> =
        way[begin..].iter().map(|nth| drafts[*nth].id.as_str()).take(CYCLE_TOLD_MAX).collect();
    let why = format!("its needs lead back to it ({}): none of these could ever run", told.join(" needs "));
    Err(at(drafts[here].line)(ClientError::Refused(why)))
}
