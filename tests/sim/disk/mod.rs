//! A file system in memory, which can be killed, lose power, fill up, and lie.
//!
//! It has the errors of the real one ([`nightcrew::edge::files::FsStore`]), which tests/disk.rs holds it against, and
//! it keeps what processes see apart from what a power cut would leave: content once synced, names once their
//! directory is. Equal seeds and equal calls give equal worlds.
//!
//! `content` has bytes, `state` inodes and names, `names` what is done by path, `primitives` what is done to
//! open files, `crash` what survives, `handle` the view of one process.

mod content;
mod crash;
mod handle;
mod names;
mod primitives;
mod state;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;

pub(crate) use handle::{File, Handle};

use content::Content;
use state::{Edit, Ino, Kind, Name, Op, ROOT, State};

type Shared = Arc<Mutex<State>>;

thread_local! {
    static BETWEEN: RefCell<Option<Rc<dyn Fn()>>> = const { RefCell::new(None) };
}

/// Has this called before each primitive on this thread, whichever disk's: somebody else may act there.
pub(crate) fn between_primitives(hook: Option<Rc<dyn Fn()>>) {
    BETWEEN.set(hook);
}

fn between() {
    if let Some(hook) = BETWEEN.with_borrow(Option::clone) {
        hook();
    }
}

/// What goes wrong. A chance is so many times in 65,536.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Faults {
    /// A sync of a file fails once, with `EIO`: what was not written back is lost, and the next sync says nothing.
    pub(crate) sync_error: u32,
    /// A sync of a directory fails, and with it the journal: nothing can be changed any more until the power goes.
    pub(crate) sync_dir_error: u32,
    /// Reading and writing content fails with `EIO`; a part may have been written.
    pub(crate) io_error: u32,
    /// Opening anything fails with `EMFILE`.
    pub(crate) open_error: u32,
    /// So many bytes are left for content, then `ENOSPC`.
    pub(crate) space: Option<u64>,
    /// So many inodes are left, then `ENOSPC`.
    pub(crate) inodes: Option<u64>,
    /// So many files a process may have open, then `EMFILE`.
    pub(crate) open_files: Option<u64>,
    /// Every change fails with `EROFS`.
    pub(crate) read_only: bool,
}

/// What happened to a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ChangeKind {
    /// It is bound: made, linked, or renamed to.
    Appeared,
    /// Its file was appended to or cut.
    Modified,
    /// Its file was closed by someone who had modified it.
    Closed,
    /// Its times or permissions were set.
    Touched,
    /// It is free: unlinked, or renamed from.
    Removed,
}

/// What a watch of the directory that the path lies in would tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) path: PathBuf,
    pub(crate) kind: ChangeKind,
}

/// The disk, which outlives processes and power. A clone is the same disk.
#[derive(Clone)]
pub(crate) struct Disk(Shared);

impl Disk {
    /// An empty disk. What is left to chance follows from the seed alone.
    pub(crate) fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State::new(seed))))
    }

    /// A copy that lives its own life, without the processes.
    pub(crate) fn fork(&self) -> Self {
        let mut state = self.lock().clone();
        for process in 0..state.processes.len() {
            state.kill(process);
        }
        Self(Arc::new(Mutex::new(state)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        handle::lock(&self.0)
    }

    /// The disk as a new process has it.
    pub(crate) fn process(&self) -> Handle {
        Handle::new(&self.0)
    }

    pub(crate) fn set_faults(&self, faults: Faults) {
        self.lock().set_faults(faults);
    }

    /// Moves the clock of the times of files forward to so many nanoseconds; never back.
    pub(crate) fn set_clock(&self, now_ns: u64) {
        self.lock().set_clock(now_ns);
    }

    /// The power goes and comes back: what was not durable is there in part. Every process is dead.
    pub(crate) fn power_cut(&self, rng: &mut Rng) {
        self.lock().power_cut(rng);
    }

    /// True if nothing can be changed any more because the journal could not be written.
    pub(crate) fn is_aborted(&self) -> bool {
        self.lock().aborted
    }

    /// Makes all that is seen durable.
    pub(crate) fn settle(&self) {
        self.lock().settle();
    }

    /// Records changes from now on, or no more.
    pub(crate) fn watch(&self, watched: bool) {
        self.lock().watched = watched;
    }

    /// What changed since this was asked last.
    pub(crate) fn take_changes(&self) -> Vec<Change> {
        std::mem::take(&mut self.lock().changes)
    }

    /// A hash of all primitives so far, and of what came of them.
    pub(crate) fn trace(&self) -> u64 {
        self.lock().trace
    }

    /// What was done since this was asked last, in words; from the first time it is asked.
    pub(crate) fn take_tale(&self) -> Vec<String> {
        self.lock().tale.replace(Vec::new()).unwrap_or_default()
    }

    /// What an actor does who has no faults and never syncs: a whole new file at once, in place of an old one.
    pub(crate) fn put(&self, path: &Path, bytes: &[u8]) {
        let mut content = Content::default();
        content.append(bytes);
        let mut state = self.lock();
        state.put(path, Kind::File(content), 0o100_644);
        state.bytes += bytes.len() as u64;
    }

    /// A directory, and its parents.
    pub(crate) fn mkdir(&self, path: &Path) {
        self.lock().dir_at(path);
    }

    pub(crate) fn symlink(&self, target: &Path, path: &Path) {
        let target = target.as_os_str().as_bytes().into();
        self.lock().put(path, Kind::Symlink(target), 0o120_777);
    }

    pub(crate) fn fifo(&self, path: &Path) {
        self.lock().put(path, Kind::Fifo, 0o010_644);
    }

    /// Gives a file to a user. Those of any but 0 are refused by [`nightcrew::edge::store::Store::read`].
    pub(crate) fn set_owner(&self, path: &Path, uid: u32) {
        let mut state = self.lock();
        if let Ok(ino) = state.lookup(path.as_os_str().as_bytes(), false) {
            state.nodes[ino].uid = uid;
            state.changed(ino);
        }
    }

    /// Removes whatever is there, with all that is in it.
    pub(crate) fn remove(&self, path: &Path) {
        self.lock().remove(path.as_os_str().as_bytes());
    }

    /// The content of a regular file.
    pub(crate) fn text(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.lock();
        let ino = state.lookup(path.as_os_str().as_bytes(), false).ok()?;
        match &state.nodes[ino].kind {
            Kind::File(content) => Some(content.seen.clone()),
            Kind::Free | Kind::Dir(_) | Kind::Symlink(_) | Kind::Fifo => None,
        }
    }

    /// The names in a directory, sorted, dot files too; none if it is missing.
    pub(crate) fn names(&self, dir: &Path) -> Vec<String> {
        let state = self.lock();
        let Ok(ino) = state.lookup(dir.as_os_str().as_bytes(), true) else { return Vec::new() };
        let Kind::Dir(dir) = &state.nodes[ino].kind else { return Vec::new() };
        dir.seen.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect()
    }

    /// All paths that are seen, with a hash of what each leads to, but for what is `left_out` by its path.
    pub(crate) fn digest(&self, left_out: impl Fn(&str) -> bool) -> BTreeMap<String, u64> {
        let mut hashes = BTreeMap::new();
        self.lock().digest(ROOT, &mut String::new(), &left_out, &mut hashes);
        hashes
    }
}

impl State {
    /// Binds a name to something new, in place of whatever is no directory.
    fn put(&mut self, path: &Path, kind: Kind, mode: u32) {
        let dir = self.dir_at(path.parent().unwrap_or(Path::new("/")));
        let Some(name) = path.file_name() else { return };
        let name = name.as_bytes();
        if self.entry(dir, name).ok().flatten().is_some_and(|ino| self.is_dir(ino)) {
            return;
        }
        let ino = self.add_anyway(dir, name, kind, mode);
        self.record(dir, name, ChangeKind::Closed);
        self.changed(ino);
    }

    /// The directory of this path, made if it is missing.
    fn dir_at(&mut self, path: &Path) -> Ino {
        if let Ok(ino) = self.lookup(path.as_os_str().as_bytes(), true)
            && self.is_dir(ino)
        {
            return ino;
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else { return ROOT };
        let above = self.dir_at(above);
        let kind = Kind::Dir(state::Dir::new(above, Name::from(name.as_bytes())));
        self.add_anyway(above, name.as_bytes(), kind, 0o040_755)
    }

    fn remove(&mut self, path: &[u8]) {
        let Ok((dir, Some(name))) = self.place(path) else { return };
        if let Ok(Some(ino)) = self.entry(dir, name) {
            self.remove_entry(dir, &Name::from(name), ino);
        }
    }

    fn remove_entry(&mut self, dir: Ino, name: &Name, ino: Ino) {
        if let Kind::Dir(inner) = &self.nodes[ino].kind {
            let entries: Vec<(Name, Ino)> = inner.seen.iter().map(|(n, i)| (Arc::clone(n), *i)).collect();
            for (name, entry) in entries {
                self.remove_entry(ino, &name, entry);
            }
        }
        self.perform(Op { first: Edit { dir, name: Arc::clone(name), to: None }, second: None });
    }

    fn digest(
        &self,
        dir: Ino,
        path: &mut String,
        left_out: &impl Fn(&str) -> bool,
        hashes: &mut BTreeMap<String, u64>,
    ) {
        let Kind::Dir(here) = &self.nodes[dir].kind else { return };
        for (name, ino) in &here.seen {
            let len = path.len();
            path.push('/');
            path.push_str(&String::from_utf8_lossy(name));
            if !left_out(path) {
                let mut hash = 0;
                match &self.nodes[*ino].kind {
                    Kind::File(content) => mix(&mut hash, &content.seen),
                    Kind::Symlink(target) => mix(&mut hash, target),
                    Kind::Fifo | Kind::Free => mix_word(&mut hash, 1),
                    Kind::Dir(_) => {
                        mix_word(&mut hash, 2);
                        self.digest(*ino, path, left_out, hashes);
                    }
                }
                hashes.insert(path.clone(), hash);
            }
            path.truncate(len);
        }
    }
}

/// Adds bytes, and how many they are, to a hash.
fn mix(hash: &mut u64, bytes: &[u8]) {
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        mix_word(hash, u64::from_le_bytes(*word));
    }
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    mix_word(hash, u64::from_le_bytes(last));
    mix_word(hash, bytes.len() as u64);
}

fn mix_word(hash: &mut u64, word: u64) {
    let mixed = (*hash ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    *hash = mixed ^ mixed >> 29;
}
