//! What has ended is not kept for ever: records on the shelves, with their results, and what was put aside.
//!
//! Removing files that were synced takes up to milliseconds each, so it happens in a thread of its own, and only so
//! many at a time. Age is told by a file's last change; a count holds whatever the clock says.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, TrySendError};

use crate::edge::store::{Signature, Store};
use crate::edge::thread;
use crate::protocol::crewfile::Keep;
use crate::protocol::layout::{Layout, RECORD_EXT, Shelf};
use crate::protocol::name::TaskId;
use crate::protocol::time::Wall;

/// The most files of one directory that are looked at; of more, some are looked at next time.
const LISTED_MAX: usize = 400_000;
/// The most files that are removed at a time.
const REMOVED_MAX: usize = 2_000;

/// What is to be tidied.
#[derive(Debug, Clone)]
pub struct Order {
    /// How long, and how much.
    pub keep: Keep,
    /// Tasks that others still need: they stay.
    pub needed: BTreeSet<TaskId>,
    /// What time it is.
    pub now: Wall,
}

/// The thread that tidies. Dropping it ends it, once what it is at is done.
#[derive(Debug)]
pub struct Tidier {
    orders: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

impl Tidier {
    /// Starts the thread.
    ///
    /// # Errors
    /// Those of `clone(2)`.
    pub fn start<S: Store + Send + 'static>(store: S, layout: Layout) -> io::Result<Self> {
        let (sender, orders) = crossbeam_channel::bounded::<Order>(1);
        let thread = thread::spawn("tidier", move || {
            while let Ok(order) = orders.recv() {
                match tidy(&store, &layout, &order) {
                    Ok(0) => {}
                    Ok(removed) => log::info!("{removed} files of tasks that ended long ago were removed"),
                    Err(error) => log::warn!("cannot tidy: {error}"),
                }
            }
        })?;
        Ok(Self { orders: Some(sender), thread: Some(thread) })
    }

    /// Has it tidy, unless it still does.
    pub fn tidy(&self, order: Order) {
        match self.orders.as_ref().map(|orders| orders.try_send(order)) {
            Some(Err(TrySendError::Disconnected(_))) => log::error!("the tidier is gone; nothing is tidied"),
            Some(Ok(()) | Err(TrySendError::Full(_))) | None => {}
        }
    }
}

impl Drop for Tidier {
    fn drop(&mut self) {
        self.orders = None;
        thread::join(&mut self.thread);
    }
}

/// Removes what is older, or more, than is kept; how many files that were.
///
/// # Errors
/// If a directory cannot be listed, with its path. A file that cannot be removed is tried again the next time.
pub fn tidy<S: Store>(store: &S, layout: &Layout, order: &Order) -> Result<usize, String> {
    let keep = &order.keep;
    let shelves = [Shelf::Done, Shelf::Dead, Shelf::Review].map(|shelf| {
        let age = if shelf == Shelf::Done { keep.done_ms } else { keep.dead_ms };
        (layout.shelf(shelf), age, true)
    });
    let others = [layout.rejected_tasks(), layout.refused_outcomes(), layout.steps_of(None)];
    let places = shelves.into_iter().chain(others.map(|dir| (dir, keep.done_ms, false)));
    let mut removed = 0;
    for (dir, age_ms, is_shelf) in places {
        let surplus =
            surplus(store, &dir, age_ms, order).map_err(|error| format!("{}: {error}", dir.display()))?;
        removed += remove_all(store, layout, surplus, is_shelf, REMOVED_MAX.saturating_sub(removed));
    }
    Ok(removed)
}

/// Removes files by their stems, those of tasks with their steps, until so many are removed; how many those were.
fn remove_all<S: Store>(
    store: &S,
    layout: &Layout,
    surplus: Vec<(String, Vec<Listed>)>,
    is_shelf: bool,
    most: usize,
) -> usize {
    let mut removed = 0;
    for (stem, files) in surplus {
        if removed >= most {
            return removed;
        }
        // To list and to remove takes long: whatever changed meanwhile is of another life of the task, replayed
        // or done anew.
        if !files.iter().all(|file| file.is_as_listed(store)) {
            continue;
        }
        let task = stem.parse::<TaskId>().ok().filter(|_| is_shelf);
        let steps = task.map(|task| layout.steps_of(Some(&task)));
        let listed = steps.iter().flat_map(|dir| {
            let found = store.list(dir, LISTED_MAX).unwrap_or_default();
            found.into_iter().map(|entry| dir.join(entry.file_name))
        });
        for path in listed {
            removed += remove(store, &path);
        }
        // The record last: by it all else is found again, should this be cut short.
        let (records, others): (Vec<_>, Vec<_>) = files.into_iter().partition(Listed::is_record);
        for file in others.into_iter().chain(records).filter(|file| file.is_as_listed(store)) {
            removed += remove(store, &file.path);
        }
        if let Some(Err(error)) = steps.map(|dir| store.remove_dir(&dir)) {
            log::warn!("the steps of task {stem}: {error}");
        }
    }
    removed
}

/// A file, and what it was when it was listed.
struct Listed {
    path: PathBuf,
    was: Signature,
}

impl Listed {
    fn is_as_listed<S: Store>(&self, store: &S) -> bool {
        store.stat(&self.path).is_ok_and(|is| is == Some(self.was))
    }

    fn is_record(&self) -> bool {
        self.path.extension().is_some_and(|ending| ending == RECORD_EXT)
    }
}

/// Removes a file; how many that were.
fn remove<S: Store>(store: &S, path: &Path) -> usize {
    match store.unlink(path) {
        Ok(()) => 1,
        Err(error) => {
            log::warn!("{}: {error}", path.display());
            0
        }
    }
}

/// The files of a directory that are too many or too old, by the stems of their names, oldest first.
fn surplus<S: Store>(
    store: &S,
    dir: &Path,
    age_ms: Option<u64>,
    order: &Order,
) -> io::Result<Vec<(String, Vec<Listed>)>> {
    let mut by_stem: BTreeMap<String, (i128, Vec<Listed>)> = BTreeMap::new();
    for entry in store.list(dir, LISTED_MAX)?.into_iter().filter(|entry| entry.is_file) {
        let stem = entry.name.rsplit_once('.').map_or(entry.name.as_str(), |(stem, _)| stem).to_owned();
        if stem.parse::<TaskId>().is_ok_and(|id| order.needed.contains(&id)) {
            continue;
        }
        let path = dir.join(&entry.file_name);
        let Some(signature) = store.stat(&path)? else { continue };
        let (changed, files) = by_stem.entry(stem).or_insert((i128::MIN, Vec::new()));
        *changed = signature.mtime_ns.max(*changed);
        files.push(Listed { path, was: signature });
    }
    let mut all: Vec<(i128, String, Vec<Listed>)> =
        by_stem.into_iter().map(|(stem, (changed, files))| (changed, stem, files)).collect();
    all.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    let oldest = age_ms.map(|age| (i128::from(order.now.0) - i128::from(age)) * 1_000_000);
    let too_many = all.len().saturating_sub(order.keep.count as usize);
    let is_due = |at: usize, changed: i128| at < too_many || oldest.is_some_and(|oldest| changed < oldest);
    let due = all.into_iter().enumerate().filter(|(at, (changed, ..))| is_due(*at, *changed));
    Ok(due.map(|(_, (_, stem, files))| (stem, files)).collect())
}

#[cfg(test)]
mod tests {
    use nix::fcntl::AT_FDCWD;
    use nix::sys::stat::{UtimensatFlags, utimensat};
    use nix::sys::time::TimeSpec;

    use super::*;
    use crate::edge::files::FsStore;

    struct Crew {
        _dir: tempfile::TempDir,
        layout: Layout,
        store: FsStore,
    }

    impl Crew {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let layout = Layout::new(dir.path());
            let store = FsStore::new(Vec::new());
            for dir in layout.directories() {
                store.create_dir(&dir).unwrap();
            }
            Self { _dir: dir, layout, store }
        }

        /// A file that was changed so many seconds ago.
        fn put(&self, path: &Path, age: i64) {
            self.store.write_new(path, b"{}", false).unwrap();
            let at = TimeSpec::new(1_000_000 - age, 0);
            utimensat(AT_FDCWD, path, &at, &at, UtimensatFlags::FollowSymlink).unwrap();
        }

        fn task(&self, shelf: Shelf, id: &str, age: i64) {
            let id: TaskId = id.parse().unwrap();
            self.put(&self.layout.ended(shelf, &id), age);
            self.put(&self.layout.result_on(shelf, &id), age + 1);
        }

        fn left(&self, shelf: Shelf) -> Vec<String> {
            let found = self.store.list(&self.layout.shelf(shelf), 100).unwrap();
            let mut names: Vec<String> = found.into_iter().map(|entry| entry.name).collect();
            names.sort();
            names
        }

        fn tidy(&self, keep: Keep, needed: &[&str]) -> usize {
            let needed = needed.iter().map(|id| id.parse().unwrap()).collect();
            tidy(&self.store, &self.layout, &Order { keep, needed, now: Wall(1_000_000_000) }).unwrap()
        }
    }

    #[test]
    fn what_is_too_old_goes_with_its_result_and_what_is_needed_stays() {
        let crew = Crew::new();
        for (id, age) in [("old", 61), ("needed", 61), ("young", 59)] {
            crew.task(Shelf::Done, id, age);
            crew.task(Shelf::Dead, id, age);
        }
        let keep = Keep { done_ms: Some(60_000), dead_ms: None, count: 100 };
        assert_eq!(crew.tidy(keep, &["needed"]), 2);
        assert_eq!(crew.left(Shelf::Done), ["needed.json", "needed.output", "young.json", "young.output"]);
        assert_eq!(crew.left(Shelf::Dead).len(), 6, "of dead letters no age was given");
    }

    #[test]
    fn the_steps_of_a_task_go_with_it() {
        let crew = Crew::new();
        for (id, age) in [("old", 61), ("young", 59)] {
            crew.task(Shelf::Done, id, age);
            let steps = crew.layout.steps_of(Some(&id.parse().unwrap()));
            crew.store.create_dir(&steps).unwrap();
            crew.put(&steps.join("paid.step"), 1);
        }
        // What was put aside under the name of a task that lives says nothing of it.
        crew.put(&crew.layout.rejected_tasks().join("young.json"), 61);
        crew.tidy(Keep { done_ms: Some(60_000), dead_ms: None, count: 100 }, &[]);
        let left = crew.store.list(&crew.layout.steps_of_tasks(), 10).unwrap();
        assert_eq!(left.iter().map(|entry| entry.name.as_str()).collect::<Vec<_>>(), ["young"]);
        assert!(crew.store.list(&crew.layout.rejected_tasks(), 10).unwrap().is_empty());
    }

    #[test]
    fn what_was_replaced_or_moved_away_since_it_was_listed_stays_with_its_steps() {
        for is_replaced in [true, false] {
            let crew = Crew::new();
            crew.task(Shelf::Done, "old", 61);
            let id: TaskId = "old".parse().unwrap();
            let steps = crew.layout.steps_of(Some(&id));
            crew.store.create_dir(&steps).unwrap();
            crew.put(&steps.join("paid.step"), 61);
            let record = crew.layout.ended(Shelf::Done, &id);
            let order = Order {
                keep: Keep { done_ms: Some(60_000), dead_ms: None, count: 100 },
                needed: BTreeSet::new(),
                now: Wall(1_000_000_000),
            };
            let shelf = crew.layout.shelf(Shelf::Done);
            let listed = surplus(&crew.store, &shelf, order.keep.done_ms, &order).unwrap();
            crew.store.unlink(&record).unwrap();
            if is_replaced {
                crew.put(&record, 61);
            }
            assert_eq!(remove_all(&crew.store, &crew.layout, listed, true, 100), 0);
            assert!(record.exists() == is_replaced && steps.join("paid.step").exists());
            assert!(crew.layout.result_on(Shelf::Done, &id).exists());
        }
    }

    #[test]
    fn of_too_many_the_oldest_go_whatever_the_clock_says() {
        let crew = Crew::new();
        for (id, age) in [("a", 5), ("b", 9), ("c", 1), ("d", 7)] {
            crew.task(Shelf::Dead, id, age);
        }
        crew.tidy(Keep { done_ms: Some(1), dead_ms: None, count: 2 }, &[]);
        assert_eq!(crew.left(Shelf::Dead), ["a.json", "a.output", "c.json", "c.output"]);
    }
}
