//! Watches: the kernel's word that something changed in a directory.
//!
//! A hint only. It wakes the scan that establishes what is there; hints may be lost, doubled or late,
//! and nothing is wrong then but the time it takes until the next periodic scan.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender};
use notify::event::{AccessKind, AccessMode, CreateKind, ModifyKind, RenameMode};
use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};

use super::store::parent;
use crate::protocol::layout::LOCK_EXT;

/// What part of the crew a watch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Area {
    /// `agents/`
    Agents,
    /// `state/` itself: the kill switch.
    State,
    /// `state/stopped/`
    Stopped,
    /// `state/requests/`
    Requests,
    /// `state/tasks/new/`
    NewTasks,
    /// `state/tasks/`; of it, only locks give hints.
    Tasks,
    /// `state/tasks/outcome/` and what is below it.
    Outcomes,
    /// `state/memory/queue/` and what is below it.
    Queue,
    /// `nightcrew.toml` and the environment files.
    CrewFile,
    /// What an agent's manifest names in `reload_on`.
    Extra,
    /// What a job's manifest names in `watch`.
    Watched,
}

/// How much of what lies at a path is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// The entries of the directory.
    Entries,
    /// The directory and all below it. Of what is made in a new directory below, the first entries may
    /// give no hint; the directory itself does.
    Tree,
    /// This one file, which need not exist. (Its directory is watched, so that a replacement is seen.)
    File,
}

/// What happened to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// It was made or changed, and may be half written. Of a file that was published by `link(2)`, this
    /// is all that is ever seen.
    Begun,
    /// It was closed by its writer, renamed to this name, or its mode or owner changed.
    Whole,
    /// It was removed or renamed away.
    Gone,
}

/// What the watches report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hint {
    /// Something happened to a file.
    Touched {
        /// In which area.
        area: Area,
        /// Which.
        path: PathBuf,
        /// What.
        touch: Touch,
    },
    /// Hints were lost, because there were too many: everything must be looked at.
    Rescan,
    /// The watched directory was removed or replaced; call [`Watches::watch`] again.
    Lost {
        /// Which area it was for.
        area: Area,
        /// The path that was given to [`Watches::watch`].
        path: PathBuf,
    },
    /// Some hints will not come, with what to do about it; the periodic scan stands in for them.
    Failed(String),
}

/// Why a directory cannot be watched. The periodic scan stands in for the watch.
#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    /// No inotify instance is to be had.
    #[error(
        "no inotify instance: {0}; raise it with `sysctl fs.inotify.max_user_instances=1024` (or raise the limit of open files)"
    )]
    NoInstance(notify::Error),
    /// No thread is to be had.
    #[error("no thread to watch with; raise the limit of processes, then start again")]
    NoThread,
    /// The user's limit of watches is reached.
    #[error(
        "cannot watch {}: the limit of watches is reached; raise it with `sysctl fs.inotify.max_user_watches=524288`", .0.display()
    )]
    TooMany(PathBuf),
    /// Anything else; most often it is not there.
    #[error("cannot watch {path}: {source}")]
    Other {
        /// What.
        path: PathBuf,
        /// Why.
        source: notify::Error,
    },
}

/// One thing that is watched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The directory or file.
    pub path: PathBuf,
    /// What it is for.
    pub area: Area,
    /// How much of it.
    pub scope: Scope,
}

impl Route {
    /// The directory that the kernel watches for this route.
    fn dir(&self) -> &Path {
        match self.scope {
            Scope::Entries | Scope::Tree => &self.path,
            Scope::File => parent(&self.path),
        }
    }

    fn covers(&self, path: &Path) -> bool {
        let within = match self.scope {
            Scope::Entries => path.parent() == Some(&self.path),
            Scope::Tree => path != self.path && path.starts_with(&self.path),
            Scope::File => path == self.path,
        };
        within && (self.area != Area::Tasks || path.extension().is_some_and(|ext| ext == LOCK_EXT))
    }

    /// What is to be told when this happened to `path`, if it concerns this route.
    #[must_use]
    pub fn hint(&self, path: &Path, touch: Touch) -> Option<Hint> {
        if touch == Touch::Gone && path == self.dir() {
            return Some(Hint::Lost { area: self.area, path: self.path.clone() });
        }
        self.covers(path).then(|| Hint::Touched { area: self.area, path: path.to_owned(), touch })
    }
}

#[derive(Debug)]
enum Change {
    Add(Route),
    Remove(Route),
}

/// The watches. Dropping this ends them.
#[derive(Debug)]
pub struct Watches {
    watcher: RecommendedWatcher,
    routes: Vec<Route>,
    // What the callback knows of the routes comes to it by this queue, one item for each call of `watch`
    // or `unwatch`, so that the two threads share nothing.
    changes: Sender<Change>,
}

impl Watches {
    /// Starts watching, at first nothing. `deliver` is called on the watcher's thread and must not
    /// block: while it does, the kernel's queue overflows.
    ///
    /// # Errors
    /// [`WatchError::NoInstance`], with the remedy; [`WatchError::NoThread`].
    pub fn start(deliver: impl FnMut(Hint) + Send + 'static) -> Result<Self, WatchError> {
        let (changes, inbox) = crossbeam_channel::unbounded();
        let mut router = Router { changes: inbox, routes: Vec::new(), deliver };
        let thread = Arc::new(());
        let of_thread = Arc::clone(&thread);
        let watcher = notify::recommended_watcher(move |event| {
            let _ = &of_thread;
            router.handle(event);
        });
        let watcher = watcher.map_err(WatchError::NoInstance)?;
        if Arc::strong_count(&thread) == 1 {
            // Where notify gets no thread it drops the callback and says nothing. Then every use of the watcher
            // panics, its end too.
            std::mem::forget(watcher);
            return Err(WatchError::NoThread);
        }
        Ok(Self { watcher, routes: Vec::new(), changes })
    }

    /// Watches `path` from now on; what happened before must be looked for. Called again for the same
    /// path and area, it watches what lies at that path now.
    ///
    /// # Errors
    /// [`WatchError`]; the watch is not in place then.
    pub fn watch(&mut self, path: &Path, area: Area, scope: Scope) -> Result<(), WatchError> {
        self.unwatch(path, area);
        let route = Route { path: path.to_owned(), area, scope };
        let mode = match scope {
            Scope::Tree => RecursiveMode::Recursive,
            Scope::Entries | Scope::File => RecursiveMode::NonRecursive,
        };
        let _ = self.changes.send(Change::Add(route.clone()));
        self.watcher.watch(route.dir(), mode).map_err(|source| {
            let _ = self.changes.send(Change::Remove(route.clone()));
            explain(path, source)
        })?;
        self.routes.push(route);
        Ok(())
    }

    /// Ends the watch of `path` for `area`, if there is one.
    pub fn unwatch(&mut self, path: &Path, area: Area) {
        let Some(at) = self.routes.iter().position(|route| route.path == path && route.area == area) else {
            return;
        };
        let route = self.routes.swap_remove(at);
        if !self.routes.iter().any(|other| other.dir() == route.dir()) {
            // An error means that the kernel has ended the watch by itself, with its directory.
            let _ = self.watcher.unwatch(route.dir());
        }
        let _ = self.changes.send(Change::Remove(route));
    }
}

fn explain(path: &Path, source: notify::Error) -> WatchError {
    if matches!(source.kind, ErrorKind::MaxFilesWatch) {
        WatchError::TooMany(path.to_owned())
    } else {
        WatchError::Other { path: path.to_owned(), source }
    }
}

/// The callback's side: turns the kernel's events into hints.
struct Router<F> {
    changes: Receiver<Change>,
    routes: Vec<Route>,
    deliver: F,
}

impl<F: FnMut(Hint)> Router<F> {
    fn handle(&mut self, event: notify::Result<Event>) {
        for change in self.changes.try_iter() {
            match change {
                Change::Add(route) => self.routes.push(route),
                Change::Remove(route) => self.routes.retain(|known| *known != route),
            }
        }
        match event {
            Ok(event) if event.need_rescan() => (self.deliver)(Hint::Rescan),
            Ok(event) => {
                let Some(touch) = touch_of(event.kind) else { return };
                for path in event.paths {
                    self.route(&path, touch);
                }
            }
            Err(error) => {
                let path = error.paths.first().cloned().unwrap_or_default();
                (self.deliver)(Hint::Failed(explain(&path, error).to_string()));
            }
        }
    }

    fn route(&mut self, path: &Path, touch: Touch) {
        self.routes.iter().filter_map(|route| route.hint(path, touch)).for_each(&mut self.deliver);
    }
}

/// What an event says of the file it names; `None` for what our own reading causes.
fn touch_of(kind: EventKind) -> Option<Touch> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Create(CreateKind::Folder)
        | EventKind::Modify(ModifyKind::Name(RenameMode::To) | ModifyKind::Metadata(_)) => Some(Touch::Whole),
        EventKind::Modify(ModifyKind::Name(RenameMode::From)) | EventKind::Remove(_) => Some(Touch::Gone),
        // Said a second time, as From and To, each for its own path.
        EventKind::Modify(ModifyKind::Name(RenameMode::Both)) | EventKind::Access(_) | EventKind::Other => {
            None
        }
        EventKind::Create(_) | EventKind::Modify(_) | EventKind::Any => Some(Touch::Begun),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Duration;

    use super::*;

    struct Seen {
        watches: Watches,
        hints: Receiver<Hint>,
    }

    impl Seen {
        fn new() -> Self {
            let (sender, hints) = crossbeam_channel::unbounded();
            Self {
                watches: Watches::start(move |hint| sender.send(hint).unwrap_or_default()).unwrap(),
                hints,
            }
        }

        /// Waits for the hint; gives what came before it.
        fn wait_for(&self, wanted: &Hint) -> Vec<Hint> {
            let mut before = Vec::new();
            loop {
                let hint = self
                    .hints
                    .recv_timeout(Duration::from_secs(20))
                    .unwrap_or_else(|_| panic!("never saw {wanted:?} but {before:?}"));
                if hint == *wanted {
                    return before;
                }
                before.push(hint);
            }
        }
    }

    fn touched(area: Area, path: &Path, touch: Touch) -> Hint {
        Hint::Touched { area, path: path.to_owned(), touch }
    }

    #[test]
    fn events_become_hints() {
        let dir = tempfile::tempdir().unwrap();
        let (file, renamed) = (dir.path().join("a.sh"), dir.path().join("b.sh"));
        let mut seen = Seen::new();
        seen.watches.watch(dir.path(), Area::Agents, Scope::Entries).unwrap();
        let hint = |path: &Path, touch| touched(Area::Agents, path, touch);

        let mut open = File::create(&file).unwrap();
        assert_eq!(seen.wait_for(&hint(&file, Touch::Begun)), []);
        open.write_all(b"half").unwrap();
        let early = seen.wait_for(&hint(&file, Touch::Begun));
        assert_eq!(early, [], "not whole while its writer has it open");
        drop(open);
        assert_eq!(seen.wait_for(&hint(&file, Touch::Whole)), []);
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(seen.wait_for(&hint(&file, Touch::Whole)), []);
        // Our own reading gives no hint.
        fs::read(&file).unwrap();
        fs::read_dir(dir.path()).unwrap().count();
        fs::rename(&file, &renamed).unwrap();
        assert_eq!(seen.wait_for(&hint(&file, Touch::Gone)), []);
        assert_eq!(seen.wait_for(&hint(&renamed, Touch::Whole)), []);
        fs::remove_file(&renamed).unwrap();
        let before = seen.wait_for(&hint(&renamed, Touch::Gone));
        assert!(before.iter().all(|h| *h == hint(&renamed, Touch::Whole)), "{before:?}");
    }

    #[test]
    fn a_linked_file_is_seen_and_of_tasks_only_locks() {
        let dir = tempfile::tempdir().unwrap();
        let (tasks, temp) = (dir.path().join("tasks"), dir.path().join("temp"));
        fs::create_dir(&tasks).unwrap();
        File::create(&temp).unwrap();
        let mut seen = Seen::new();
        seen.watches.watch(&tasks, Area::Tasks, Scope::Entries).unwrap();
        fs::hard_link(&temp, tasks.join("x.json")).unwrap();
        fs::hard_link(&temp, tasks.join("x.lock")).unwrap();
        assert_eq!(seen.wait_for(&touched(Area::Tasks, &tasks.join("x.lock"), Touch::Begun)), []);
    }

    #[test]
    fn a_tree_is_watched_with_what_is_made_in_it_later() {
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path().join("writer");
        let mut seen = Seen::new();
        seen.watches.watch(dir.path(), Area::Outcomes, Scope::Tree).unwrap();
        fs::create_dir(&below).unwrap();
        seen.wait_for(&touched(Area::Outcomes, &below, Touch::Whole));
        // The new directory is watched some time after its hint, so files are dropped until one is seen.
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        let mut found = false;
        while !found && std::time::Instant::now() < deadline {
            File::create(below.join("x.json")).unwrap();
            let next = seen.hints.recv_timeout(Duration::from_millis(100));
            found = next
                .is_ok_and(|hint| matches!(hint, Hint::Touched { path, .. } if path == below.join("x.json")));
        }
        assert!(found);
    }

    #[test]
    fn one_file_is_watched_for_though_it_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("nightcrew.toml"), dir.path().join(".env"));
        let mut seen = Seen::new();
        seen.watches.watch(&file, Area::CrewFile, Scope::File).unwrap();
        seen.watches.watch(&other, Area::Extra, Scope::File).unwrap();
        File::create(dir.path().join("noise")).unwrap();
        File::create(&file).unwrap();
        assert_eq!(seen.wait_for(&touched(Area::CrewFile, &file, Touch::Begun)), []);
        seen.wait_for(&touched(Area::CrewFile, &file, Touch::Whole));
        seen.watches.unwatch(&file, Area::CrewFile);
        File::create(&file).unwrap();
        File::create(&other).unwrap();
        assert_eq!(seen.wait_for(&touched(Area::Extra, &other, Touch::Begun)), []);
    }

    #[test]
    fn a_directory_that_was_replaced_is_lost_and_can_be_watched_again() {
        let dir = tempfile::tempdir().unwrap();
        let watched = dir.path().join("requests");
        let mut seen = Seen::new();
        for renamed_away in [true, false] {
            fs::create_dir(&watched).unwrap();
            seen.watches.watch(&watched, Area::Requests, Scope::Entries).unwrap();
            File::create(watched.join("a.json")).unwrap();
            seen.wait_for(&touched(Area::Requests, &watched.join("a.json"), Touch::Whole));
            if renamed_away {
                fs::rename(&watched, dir.path().join("old")).unwrap();
            } else {
                fs::remove_dir_all(&watched).unwrap();
            }
            seen.wait_for(&Hint::Lost { area: Area::Requests, path: watched.clone() });
        }
    }

    #[test]
    fn a_flood_that_overflows_the_kernels_queue_asks_for_a_scan() {
        let mut hints = Vec::new();
        let mut router = Router {
            changes: crossbeam_channel::unbounded().1,
            routes: Vec::new(),
            deliver: |h| hints.push(h),
        };
        router.handle(Ok(Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan)));
        router.handle(Err(notify::Error::new(ErrorKind::MaxFilesWatch).add_path("/x".into())));
        assert_eq!(hints[0], Hint::Rescan);
        assert!(matches!(&hints[1], Hint::Failed(text) if text.contains("max_user_watches")), "{hints:?}");
    }

    #[test]
    fn what_is_not_there_cannot_be_watched() {
        let mut seen = Seen::new();
        let error =
            seen.watches.watch(Path::new("/no/such/place"), Area::Agents, Scope::Entries).unwrap_err();
        assert!(error.to_string().contains("/no/such/place"), "{error}");
    }
}
