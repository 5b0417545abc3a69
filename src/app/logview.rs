//! Reading agents' logs: the last lines of several, merged by time, and what is added to them.
//!
//! A log is raw bytes; its index says which part is from when and of which run. Lines are cleaned for
//! the screen here, so that no command can forget to.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::edge::store::{Signature, Store};
use crate::protocol::display;
use crate::protocol::layout::Layout;
use crate::protocol::logindex::{self, Mark};
use crate::protocol::name::{AgentName, RunId};
use crate::protocol::time::Wall;

/// The most lines that are shown at once.
pub const LINES_MAX: usize = 100_000;
/// How many rotated logs there are beside the current one.
const GENERATIONS: u32 = 3;
/// The most that is read of one log for its last lines, in bytes.
const TAIL_LEN_MAX: u64 = 16 * 1024 * 1024;
/// How far back in a log, and in its index, the last words of a run are looked for, in bytes.
const WORDS_WITHIN_LEN: u64 = 64 * 1024;
/// How much is read at a time.
const BLOCK_LEN: u64 = 64 * 1024;
/// The most that is read of the end of an index, in bytes.
const INDEX_LEN_MAX: u64 = 4 * 1024 * 1024;
/// The most entries of the directory that are looked at for logs.
const ENTRIES_MAX: usize = 100_000;
/// The longest line shown, in bytes; what is longer is cut into several.
const LINE_LEN_MAX: usize = 16 * 1024;

/// One line that an agent printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When it was seen; absent where the index does not reach.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<Wall>,
    /// Who printed it.
    pub agent: AgentName,
    /// In which run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// What it says, fit for a screen.
    pub text: String,
}

/// The agents that have a log.
///
/// # Errors
/// If the directory cannot be listed.
pub fn agents(store: &impl Store, layout: &Layout) -> io::Result<Vec<AgentName>> {
    let entries = store.list(&layout.logs(), ENTRIES_MAX)?;
    let mut agents: Vec<AgentName> = entries
        .iter()
        .filter(|entry| entry.is_file)
        .filter_map(|entry| Layout::log_owner(&entry.name))
        .collect();
    agents.sort_unstable();
    Ok(agents)
}

/// The last `count` lines of these agents together, in the order of time; those of one agent keep theirs.
///
/// # Errors
/// If a log is there and cannot be read.
pub fn last(
    store: &impl Store,
    layout: &Layout,
    agents: &[AgentName],
    count: usize,
) -> io::Result<Vec<Line>> {
    let mut lines = Vec::new();
    for agent in agents {
        lines.extend(last_of(store, layout, agent, count, None)?);
    }
    Ok(merge(lines, count))
}

/// The last that one run printed: whole lines as far as there are any, at most `len_max` bytes, fit for a screen.
/// What stands further back in its agent's log than `WORDS_WITHIN_LEN` is not looked for.
///
/// # Errors
/// If the log is there and cannot be read.
pub fn last_words(
    store: &impl Store,
    layout: &Layout,
    agent: &AgentName,
    run: &RunId,
    len_max: usize,
) -> io::Result<String> {
    let log = layout.log(agent);
    let Some(Signature { size, .. }) = store.stat(&log)? else { return Ok(String::new()) };
    let from = size.saturating_sub(WORDS_WITHIN_LEN);
    let bytes = read(store, &log, from, size - from)?;
    let index = layout.log_index(agent);
    let marks = match store.stat(&index)? {
        None => Vec::new(),
        Some(Signature { size, .. }) => {
            let from = size.saturating_sub(WORDS_WITHIN_LEN);
            logindex::parse(&read(store, &index, from, size - from)?)
        }
    };
    let mut lines: Vec<String> = Vec::new();
    let mut len = 0;
    for line in
        split(agent, &marks, from, &bytes).into_iter().rev().filter(|line| line.run.as_ref() == Some(run))
    {
        len += line.text.len() + 1;
        if len > len_max {
            if lines.is_empty() {
                lines.push(crate::protocol::record::cut(&line.text, len_max).to_owned());
            }
            break;
        }
        lines.push(line.text);
    }
    lines.reverse();
    Ok(lines.join("\n"))
}

/// The last lines of one agent; where `until` is given, those before that place.
fn last_of(
    store: &impl Store,
    layout: &Layout,
    agent: &AgentName,
    count: usize,
    until: Option<Cursor>,
) -> io::Result<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    for segment in segments(layout, agent) {
        let Some(signature) = store.stat(&segment.log)? else { continue };
        let size = match until {
            Some(cursor) if cursor.ino == signature.ino => cursor.offset.min(signature.size),
            Some(_) | None => signature.size,
        };
        let wanted = count.saturating_sub(lines.len());
        if wanted == 0 {
            break;
        }
        let (offset, bytes) = tail(store, &segment.log, size, wanted)?;
        let marks = segment.marks(store)?;
        let mut older: Vec<Line> = split(agent, &marks, offset, &bytes);
        older.drain(..older.len().saturating_sub(wanted));
        older.append(&mut lines);
        lines = older;
    }
    Ok(lines)
}

/// Sorts lines by time without changing the order of one agent's, and keeps the last `count`.
fn merge(lines: Vec<Line>, count: usize) -> Vec<Line> {
    let mut latest: BTreeMap<AgentName, Wall> = BTreeMap::new();
    let mut timed: Vec<(Wall, Line)> = lines
        .into_iter()
        .map(|line| {
            // A clock that was set back, or a line without a time, must not reorder what one agent said.
            let before = latest.entry(line.agent.clone()).or_insert(Wall(i64::MIN));
            *before = line.at.map_or(*before, |at| at.max(*before));
            (*before, line)
        })
        .collect();
    timed.sort_by_key(|(at, _)| *at);
    timed.drain(..timed.len().saturating_sub(count));
    timed.into_iter().map(|(_, line)| line).collect()
}

/// A log and its index, current or rotated out.
struct Segment {
    log: PathBuf,
    index: PathBuf,
}

/// Newest first.
fn segments(layout: &Layout, agent: &AgentName) -> impl Iterator<Item = Segment> {
    let (log, index) = (layout.log(agent), layout.log_index(agent));
    (0..=GENERATIONS).map(move |generation| match generation {
        0 => Segment { log: log.clone(), index: index.clone() },
        n => Segment { log: Layout::rotated(&log, n), index: Layout::rotated(&index, n) },
    })
}

impl Segment {
    fn marks(&self, store: &impl Store) -> io::Result<Vec<Mark>> {
        let Some(Signature { size, .. }) = store.stat(&self.index)? else { return Ok(Vec::new()) };
        let offset = size.saturating_sub(INDEX_LEN_MAX);
        Ok(logindex::parse(&read(store, &self.index, offset, size - offset)?))
    }
}

fn read(store: &impl Store, path: &Path, offset: u64, len: u64) -> io::Result<Vec<u8>> {
    store.read_at(path, offset, usize::try_from(len).map_err(io::Error::other)?)
}

/// The end of a log that holds its last `wanted` lines, and where that begins.
fn tail(store: &impl Store, log: &Path, size: u64, wanted: usize) -> io::Result<(u64, Vec<u8>)> {
    let floor = size.saturating_sub(TAIL_LEN_MAX);
    let mut start = size;
    let mut blocks: Vec<Vec<u8>> = Vec::new();
    let mut newlines = 0;
    while start > floor && newlines <= wanted {
        let from = start.saturating_sub(BLOCK_LEN).max(floor);
        let block = read(store, log, from, start - from)?;
        newlines += block.split(|byte| *byte == b'\n').count() - 1;
        blocks.push(block);
        start = from;
    }
    blocks.reverse();
    let bytes = blocks.concat();
    if start == 0 {
        return Ok((0, bytes));
    }
    // What stands before the first newline is the rest of a line that began earlier: left out, unless it is all.
    let skip = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    let skip = if skip < bytes.len() { skip } else { 0 };
    let rest = bytes.get(skip..).unwrap_or_default().to_vec();
    Ok((start + u64::try_from(skip).map_err(io::Error::other)?, rest))
}

/// Cuts what stands at `offset` of a log into lines, each with the time and run that the index tells.
fn split(agent: &AgentName, marks: &[Mark], offset: u64, bytes: &[u8]) -> Vec<Line> {
    let mut at = offset;
    let mut lines = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let next = marks.partition_point(|mark| mark.offset <= at);
        let mark = marks.get(..next).and_then(<[Mark]>::last);
        let line = rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        // What one run printed without a newline is no part of another's line.
        let within = marks.get(next..).unwrap_or_default().iter().map(|later| (later.offset - at, later));
        let mut within = within.take_while(|(from, _)| usize::try_from(*from).is_ok_and(|from| from < line));
        let others = within.find(|(_, later)| mark.is_none_or(|mark| mark.run != later.run));
        let end = others.and_then(|(from, _)| usize::try_from(from).ok()).unwrap_or(line);
        let (raw, behind) = rest.split_at(end);
        rest = behind;
        let text = raw.strip_suffix(b"\n").unwrap_or(raw);
        let pieces: Vec<&[u8]> =
            if text.is_empty() { vec![text] } else { text.chunks(LINE_LEN_MAX).collect() };
        lines.extend(pieces.into_iter().map(|piece| Line {
            at: mark.map(|mark| mark.at),
            agent: agent.clone(),
            run: mark.map(|mark| mark.run.clone()),
            text: display::clean(piece),
        }));
        at = at.saturating_add(u64::try_from(raw.len()).unwrap_or(u64::MAX));
    }
    lines
}

/// How far a log was followed.
#[derive(Debug, Clone, Copy)]
struct Cursor {
    ino: u64,
    offset: u64,
}

/// Follows logs: each look gives what was added since the one before, across rotations.
#[derive(Debug)]
pub struct Follower<S> {
    store: S,
    layout: Layout,
    /// Which agents; none means all, those yet to come too.
    named: Vec<AgentName>,
    cursors: BTreeMap<AgentName, Cursor>,
}

impl<S: Store> Follower<S> {
    /// Follows from the ends of the logs on, as they are now.
    ///
    /// # Errors
    /// If the logs cannot be looked at.
    pub fn new(store: S, layout: Layout, named: Vec<AgentName>) -> io::Result<Self> {
        let mut follower = Self { store, layout, named, cursors: BTreeMap::new() };
        for agent in follower.followed()? {
            let log = follower.layout.log(&agent);
            if let Some(Signature { ino, size, .. }) = follower.store.stat(&log)? {
                // The unfinished last line is shown when it is whole.
                let (start, bytes) = tail(&follower.store, &log, size, 1)?;
                let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
                let offset = start + u64::try_from(whole).map_err(io::Error::other)?;
                follower.cursors.insert(agent, Cursor { ino, offset });
            }
        }
        Ok(follower)
    }

    /// The last lines before where following began.
    ///
    /// # Errors
    /// If a log is there and cannot be read.
    pub fn before(&self, count: usize) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        for agent in self.followed()? {
            if let Some(cursor) = self.cursors.get(&agent) {
                lines.extend(last_of(&self.store, &self.layout, &agent, count, Some(*cursor))?);
            }
        }
        Ok(merge(lines, count))
    }

    fn followed(&self) -> io::Result<Vec<AgentName>> {
        if self.named.is_empty() { agents(&self.store, &self.layout) } else { Ok(self.named.clone()) }
    }

    /// What was added since the last look, in the order of time. At most a part of it where that is much; then
    /// the next look gives more.
    ///
    /// # Errors
    /// If a log is there and cannot be read.
    pub fn look(&mut self) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        for agent in self.followed()? {
            self.look_at(&agent, &mut lines)?;
        }
        Ok(merge(lines, usize::MAX))
    }

    fn look_at(&mut self, agent: &AgentName, lines: &mut Vec<Line>) -> io::Result<()> {
        let present: Vec<(Segment, Signature)> = segments(&self.layout, agent)
            .filter_map(|segment| match self.store.stat(&segment.log) {
                Ok(signature) => signature.map(|signature| Ok((segment, signature))),
                Err(error) => Some(Err(error)),
            })
            .collect::<io::Result<_>>()?;
        // Where we were; a log that is new, or lost, is read from its beginning.
        let place = match self.cursors.get(agent) {
            Some(cursor) => present.iter().position(|(_, signature)| signature.ino == cursor.ino),
            None => None,
        };
        let oldest = place.unwrap_or(0);
        for (generation, (segment, signature)) in present.iter().enumerate().take(oldest + 1).rev() {
            let offset = match self.cursors.get(agent) {
                Some(cursor) if Some(generation) == place && cursor.offset <= signature.size => cursor.offset,
                _ => 0,
            };
            let read_to = self.read_on(agent, segment, signature, offset, generation > 0, lines)?;
            self.cursors.insert(agent.clone(), Cursor { ino: signature.ino, offset: read_to });
            if generation > 0 && read_to < signature.size {
                // The rest of it comes before anything newer.
                break;
            }
        }
        Ok(())
    }

    /// Reads from `offset` to the last whole line (to the end, if the segment is `closed`).
    fn read_on(
        &self,
        agent: &AgentName,
        segment: &Segment,
        signature: &Signature,
        offset: u64,
        closed: bool,
        lines: &mut Vec<Line>,
    ) -> io::Result<u64> {
        if signature.size <= offset {
            return Ok(offset);
        }
        let len = (signature.size - offset).min(TAIL_LEN_MAX);
        let bytes = read(&self.store, &segment.log, offset, len)?;
        let whole = if closed || bytes.len() > LINE_LEN_MAX * 4 && !bytes.contains(&b'\n') {
            bytes.len()
        } else {
            bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
        };
        let bytes = bytes.get(..whole).unwrap_or_default();
        lines.extend(split(agent, &segment.marks(&self.store)?, offset, bytes));
        Ok(offset + u64::try_from(whole).map_err(io::Error::other)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::files::FsStore;

    struct Logs {
        dir: tempfile::TempDir,
        store: FsStore,
    }

    impl Logs {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let store = FsStore::for_crew(dir.path()).unwrap();
            store.create_dir(&Layout::new(dir.path()).logs()).unwrap();
            Self { dir, store }
        }

        fn layout(&self) -> Layout {
            Layout::new(self.dir.path())
        }

        /// Appends to an agent's log what it printed in one go at a time.
        fn print(&self, agent: &str, at: i64, text: &str) {
            let agent = agent.parse().unwrap();
            let (mut log, offset) = self.store.open_append(&self.layout().log(&agent)).unwrap();
            let (mut index, _) = self.store.open_append(&self.layout().log_index(&agent)).unwrap();
            let mark = Mark { offset, at: Wall(at), run: "R1".parse().unwrap() };
            self.store.append(&mut index, mark.to_string().as_bytes()).unwrap();
            self.store.append(&mut log, text.as_bytes()).unwrap();
        }

        fn rotate(&self, agent: &str) {
            let agent = agent.parse().unwrap();
            for path in [self.layout().log(&agent), self.layout().log_index(&agent)] {
                for generation in (1..GENERATIONS).rev() {
                    let from = Layout::rotated(&path, generation);
                    if self.store.stat(&from).unwrap().is_some() {
                        self.store.rename(&from, &Layout::rotated(&path, generation + 1)).unwrap();
                    }
                }
                self.store.rename(&path, &Layout::rotated(&path, 1)).unwrap();
            }
        }

        fn last(&self, count: usize) -> Vec<String> {
            let agents = agents(&self.store, &self.layout()).unwrap();
            texts(&last(&self.store, &self.layout(), &agents, count).unwrap())
        }
    }

    fn texts(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| format!("{}:{}", line.agent, line.text)).collect()
    }

    #[test]
    fn what_a_run_printed_without_a_newline_is_no_part_of_the_next_ones_line() {
        let mark = |offset, run: &str| Mark { offset, at: Wall(0), run: run.parse().unwrap() };
        let agent = "a".parse().unwrap();
        // The second mark is of the same run, a little later.
        let marks = [mark(0, "R1"), mark(2, "R1"), mark(3, "R2"), mark(8, "R3")];
        let lines = split(&agent, &marks, 0, b"onetwo\n3three");
        let told = lines.iter().map(|line| (line.run.as_ref().unwrap().as_str(), line.text.as_str()));
        assert_eq!(told.collect::<Vec<_>>(), [("R1", "one"), ("R2", "two"), ("R2", "3"), ("R3", "three")]);
    }

    #[test]
    fn lines_are_merged_by_time_and_each_agents_keep_their_order() {
        let logs = Logs::new();
        logs.print("a", 1000, "one\ntwo\n");
        logs.print("b", 2000, "\x1b[31mred\x1b[0m\n");
        logs.print("a", 3000, "three\n");
        // The clock was set back: what was printed later stays later.
        logs.print("a", 500, "four\nunfinished");
        logs.print("b", 4000, "last\n");
        let all = ["a:one", "a:two", "b:red", "a:three", "a:four", "a:unfinished", "b:last"];
        assert_eq!(logs.last(100), all);
        assert_eq!(logs.last(3), all[4..]);
        assert_eq!(logs.last(0), [""; 0]);
    }

    #[test]
    fn the_last_lines_reach_back_across_rotations_and_blocks() {
        let logs = Logs::new();
        logs.print("a", 1, "oldest\n");
        logs.rotate("a");
        let long = "x".repeat(1000);
        for n in 0..200 {
            logs.print("a", 2 + n, &format!("{n} {long}\n"));
        }
        logs.rotate("a");
        logs.print("a", 1000, "newest\n");
        let all = logs.last(1000);
        assert_eq!(all.len(), 202);
        assert_eq!((all[0].as_str(), all[201].as_str()), ("a:oldest", "a:newest"));
        assert!(logs.last(150)[0].starts_with("a:51 x"), "{:?}", logs.last(150)[0]);
    }

    #[test]
    fn of_a_line_longer_than_what_is_read_the_end_is_shown() {
        let logs = Logs::new();
        logs.print("a", 1, "before\n");
        logs.rotate("a");
        let endless = "x".repeat(usize::try_from(TAIL_LEN_MAX).unwrap() + 10);
        logs.print("a", 2, &format!("{endless}end\n"));
        let last = logs.last(1);
        assert!(last[0].ends_with("xend"), "{:?}", &last[0][last[0].len() - 10..]);
    }

    #[test]
    fn following_loses_nothing_to_a_rotation_and_repeats_nothing() {
        let logs = Logs::new();
        logs.print("a", 1, "before\nhalf");
        let mut follower = Follower::new(logs.store.clone(), logs.layout(), Vec::new()).unwrap();
        assert_eq!(texts(&follower.before(10).unwrap()), ["a:before"]);
        assert_eq!(follower.look().unwrap(), []);
        logs.print("a", 2, " a line\n");
        assert_eq!(texts(&follower.look().unwrap()), ["a:half a line"]);
        logs.print("a", 3, "rotated\n");
        logs.rotate("a");
        logs.print("a", 4, "fresh\n");
        logs.rotate("a");
        logs.print("a", 5, "newer\n");
        logs.print("b", 4, "an agent that is new\n");
        assert_eq!(
            texts(&follower.look().unwrap()),
            ["a:rotated", "a:fresh", "b:an agent that is new", "a:newer"]
        );
        assert_eq!(follower.look().unwrap(), []);
    }
}
