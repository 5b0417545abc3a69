//! The inodes, the names, and what is pending between what is seen and what is durable.

use std::collections::BTreeMap;
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;

use fastrand::Rng;
use rustix::io::Errno;

use super::content::Content;
use super::names::KnownDirs;
use super::{Change, ChangeKind, Faults};

pub(super) type Ino = usize;
pub(super) type Name = Arc<[u8]>;

pub(super) const ROOT: Ino = 1;
/// So many operations on names wait at most; then the older half is written back, as a kernel would by its timer.
const PENDING_MAX: usize = 128;

#[derive(Clone)]
pub(super) enum Kind {
    Free,
    File(Content),
    Dir(Dir),
    Symlink(Box<[u8]>),
    Fifo,
}

#[derive(Clone)]
pub(super) struct Dir {
    pub(super) seen: BTreeMap<Name, Ino>,
    pub(super) durable: BTreeMap<Name, Ino>,
    pub(super) parent: Ino,
    /// Its name in the parent.
    pub(super) name: Name,
}

#[derive(Clone)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// Names that are seen.
    pub(super) nlink: u32,
    /// Open files.
    pub(super) opens: u32,
    /// Durable names and pending edits that know it; the slot is not used again before they are gone.
    refs: u32,
    /// Neither name nor open file is left, and its space was given back.
    gone: bool,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) mtime: u64,
    pub(super) ctime: u64,
}

/// A name of a directory is bound to an inode, or freed.
#[derive(Clone)]
pub(super) struct Edit {
    pub(super) dir: Ino,
    pub(super) name: Name,
    pub(super) to: Option<Ino>,
}

/// What happens to names at once or not at all: one edit, or the two of a rename.
#[derive(Clone)]
pub(super) struct Op {
    pub(super) first: Edit,
    pub(super) second: Option<Edit>,
}

impl Op {
    pub(super) fn edits(&self) -> impl Iterator<Item = &Edit> {
        std::iter::once(&self.first).chain(&self.second)
    }
}

#[derive(Clone)]
pub(super) struct Open {
    pub(super) id: u64,
    pub(super) ino: Ino,
    pub(super) dir: Ino,
    pub(super) name: Name,
    pub(super) wrote: bool,
}

#[derive(Clone, Default)]
pub(super) struct Process {
    pub(super) dead: bool,
    pub(super) primitives: u64,
    pub(super) changes: u64,
    pub(super) changes_left: Option<u64>,
    /// It dies in its next sync of this directory.
    pub(super) dies_at_sync_of: Option<PathBuf>,
    pub(super) open: Vec<Open>,
}

#[derive(Clone)]
pub(super) struct State {
    pub(super) nodes: Vec<Node>,
    pub(super) known_dirs: KnownDirs,
    free: Vec<Ino>,
    pub(super) pending: Vec<Op>,
    pub(super) processes: Vec<Process>,
    pub(super) rng: Rng,
    pub(super) faults: Faults,
    /// Bytes and inodes in use, and how many there may be.
    pub(super) bytes: u64,
    inodes: u64,
    pub(super) bytes_max: u64,
    inodes_max: u64,
    clock: u64,
    pub(super) last_open: u64,
    /// The journal could not be written: until the power goes and comes back, nothing is.
    pub(super) aborted: bool,
    pub(super) trace: u64,
    /// What was done, in words, if anybody will read them.
    pub(super) tale: Option<Vec<String>>,
    pub(super) watched: bool,
    pub(super) changes: Vec<Change>,
}

impl State {
    pub(super) fn new(seed: u64) -> Self {
        let mut state = Self {
            nodes: vec![Node::new(Kind::Free, 0, 0)],
            known_dirs: KnownDirs::default(),
            free: Vec::new(),
            pending: Vec::new(),
            processes: Vec::new(),
            rng: Rng::with_seed(seed),
            faults: Faults::default(),
            bytes: 0,
            inodes: 0,
            bytes_max: u64::MAX,
            inodes_max: u64::MAX,
            clock: 0,
            last_open: 0,
            aborted: false,
            trace: seed,
            tale: None,
            watched: false,
            changes: Vec::new(),
        };
        let root = state.add_node(Kind::Dir(Dir::new(ROOT, Name::from(&b""[..]))), 0o040_755);
        state.nodes[root].nlink = 1;
        state
    }

    pub(super) fn set_faults(&mut self, faults: Faults) {
        self.faults = faults;
        self.bytes_max = faults.space.map_or(u64::MAX, |left| self.bytes.saturating_add(left));
        self.inodes_max = faults.inodes.map_or(u64::MAX, |left| self.inodes.saturating_add(left));
    }

    /// True once in `65536 / chance`; what never happens costs no number.
    pub(super) fn chance(&mut self, chance: u32) -> bool {
        chance != 0 && self.rng.u32(..65_536) < chance
    }

    /// The time of a change; no two are the same.
    pub(super) fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    pub(super) fn set_clock(&mut self, now_ns: u64) {
        self.clock = self.clock.max(now_ns);
    }

    pub(super) fn changed(&mut self, ino: Ino) {
        let now = self.tick();
        self.nodes[ino].ctime = now;
    }

    pub(super) fn written(&mut self, ino: Ino) {
        let now = self.tick();
        self.nodes[ino].mtime = now;
        self.nodes[ino].ctime = now;
    }

    fn add_node(&mut self, kind: Kind, mode: u32) -> Ino {
        self.inodes += 1;
        let node = Node::new(kind, mode, self.tick());
        // The last one freed is the next one used, as on real disks: a number alone must not identify a file.
        if let Some(ino) = self.free.pop() {
            self.nodes[ino] = node;
            ino
        } else {
            self.nodes.push(node);
            self.nodes.len() - 1
        }
    }

    /// Makes a node under a name, if there is an inode left.
    pub(super) fn add(&mut self, dir: Ino, name: &[u8], kind: Kind, mode: u32) -> Result<Ino, Errno> {
        if self.inodes >= self.inodes_max {
            return Err(Errno::NOSPC);
        }
        Ok(self.add_anyway(dir, name, kind, mode))
    }

    pub(super) fn add_anyway(&mut self, dir: Ino, name: &[u8], kind: Kind, mode: u32) -> Ino {
        let ino = self.add_node(kind, mode);
        let name = Name::from(name);
        if let Kind::Dir(made) = &mut self.nodes[ino].kind {
            made.parent = dir;
            made.name = Arc::clone(&name);
        }
        self.perform(Op { first: Edit { dir, name, to: Some(ino) }, second: None });
        ino
    }

    /// Does an operation to the names that are seen, and leaves it pending.
    pub(super) fn perform(&mut self, op: Op) {
        // What gets a name first cannot be dropped for want of one.
        for edit in op.edits() {
            self.nodes[edit.dir].refs += 1;
            if let Some(ino) = edit.to {
                self.nodes[ino].refs += 1;
                self.nodes[ino].nlink += 1;
            }
        }
        for edit in op.edits() {
            self.written(edit.dir);
            let Kind::Dir(dir) = &mut self.nodes[edit.dir].kind else { continue };
            let (before, kind) = match edit.to {
                Some(ino) => (dir.seen.insert(Arc::clone(&edit.name), ino), ChangeKind::Appeared),
                None => (dir.seen.remove(&edit.name), ChangeKind::Removed),
            };
            if let Some(moved) = edit.to {
                self.changed(moved);
                if let Kind::Dir(moved) = &mut self.nodes[moved].kind {
                    moved.parent = edit.dir;
                    moved.name = Arc::clone(&edit.name);
                }
            }
            if let Some(before) = before {
                if matches!(self.nodes[before].kind, Kind::Dir(_) | Kind::Symlink(_)) {
                    self.known_dirs.forget();
                }
                self.nodes[before].nlink -= 1;
                self.changed(before);
                self.release(before);
            }
            self.record(edit.dir, &edit.name, kind);
        }
        self.pending.push(op);
        if self.pending.len() > PENDING_MAX {
            let older: Vec<Op> = self.pending.drain(..PENDING_MAX / 2).collect();
            for op in &older {
                self.make_durable(op);
            }
        }
    }

    /// Lets an operation reach the disk.
    pub(super) fn make_durable(&mut self, op: &Op) {
        for edit in op.edits() {
            let Kind::Dir(dir) = &mut self.nodes[edit.dir].kind else { continue };
            let before = match edit.to {
                // The reference of the pending edit becomes that of the name.
                Some(ino) => dir.durable.insert(Arc::clone(&edit.name), ino),
                None => dir.durable.remove(&edit.name),
            };
            for ino in before.into_iter().chain([edit.dir]) {
                self.nodes[ino].refs -= 1;
                self.release(ino);
            }
        }
    }

    /// Lets an operation never reach the disk, though it may be seen.
    pub(super) fn lose(&mut self, op: &Op) {
        for edit in op.edits() {
            for ino in edit.to.into_iter().chain([edit.dir]) {
                self.nodes[ino].refs -= 1;
                self.release(ino);
            }
        }
    }

    /// Gives back what nobody knows any more.
    pub(super) fn release(&mut self, ino: Ino) {
        let node = &mut self.nodes[ino];
        if node.nlink != 0 || node.opens != 0 {
            return;
        }
        if !mem::replace(&mut node.gone, true) {
            self.inodes -= 1;
            self.bytes -= node.len();
        }
        if node.refs == 0 {
            let kind = mem::replace(&mut node.kind, Kind::Free);
            self.free.push(ino);
            if let Kind::Dir(dir) = kind {
                for entry in dir.durable.into_values() {
                    self.nodes[entry].refs -= 1;
                    self.release(entry);
                }
            }
        }
    }

    pub(super) fn open(&mut self, process: usize, ino: Ino, dir: Ino, name: &[u8]) -> u64 {
        self.last_open += 1;
        self.nodes[ino].opens += 1;
        let open = Open { id: self.last_open, ino, dir, name: Name::from(name), wrote: false };
        self.processes[process].open.push(open);
        self.last_open
    }

    pub(super) fn close(&mut self, open: &Open) {
        self.nodes[open.ino].opens -= 1;
        if open.wrote {
            self.record_open(open, ChangeKind::Closed);
        }
        self.release(open.ino);
    }

    pub(super) fn kill(&mut self, process: usize) {
        self.processes[process].dead = true;
        for open in mem::take(&mut self.processes[process].open) {
            self.close(&open);
        }
    }

    pub(super) fn record(&mut self, dir: Ino, name: &[u8], kind: ChangeKind) {
        if self.watched {
            let change = Change { path: self.path_of(dir, name), kind };
            if self.changes.last() != Some(&change) {
                self.changes.push(change);
            }
        }
    }

    /// A change of an open file is seen under the name by which it was opened, while it has it.
    pub(super) fn record_open(&mut self, open: &Open, kind: ChangeKind) {
        if self.watched
            && let Kind::Dir(dir) = &self.nodes[open.dir].kind
            && dir.seen.get(&open.name) == Some(&open.ino)
        {
            self.record(open.dir, &open.name, kind);
        }
    }

    pub(super) fn path_of(&self, dir: Ino, name: &[u8]) -> PathBuf {
        use std::os::unix::ffi::OsStringExt;
        let above = |at: Ino| match &self.nodes[at].kind {
            Kind::Dir(dir) if at != ROOT => Some(dir),
            Kind::Dir(_) | Kind::Free | Kind::File(_) | Kind::Symlink(_) | Kind::Fifo => None,
        };
        let dirs = || std::iter::successors(above(dir), |dir| above(dir.parent));
        // Every change of a watched disk needs its path: it is made in one piece, from its end.
        let len = dirs().map(|dir| dir.name.len() + 1).sum::<usize>() + name.len() + 1;
        let mut path = vec![b'/'; len];
        let mut end = len;
        for name in std::iter::once(name).chain(dirs().map(|dir| &*dir.name)) {
            path[end - name.len()..end].copy_from_slice(name);
            end -= name.len() + 1;
        }
        std::ffi::OsString::from_vec(path).into()
    }

    /// All that is seen is durable and nothing is pending: drops what cannot be reached, and counts anew.
    pub(super) fn rebuild(&mut self) {
        self.known_dirs.forget();
        for node in &mut self.nodes {
            (node.nlink, node.refs) = (0, 0);
        }
        self.nodes[ROOT].nlink = 1;
        self.visit(ROOT);
        (self.bytes, self.inodes) = (0, 0);
        self.free.clear();
        for ino in (1..self.nodes.len()).rev() {
            let node = &mut self.nodes[ino];
            if node.nlink == 0 && node.opens == 0 {
                node.kind = Kind::Free;
                self.free.push(ino);
            } else {
                // It may have been gone, and be back because its removal was lost.
                node.gone = false;
                self.bytes += node.len();
                self.inodes += 1;
            }
        }
    }

    fn visit(&mut self, dir: Ino) {
        let Kind::Dir(here) = &self.nodes[dir].kind else { return };
        let entries: Vec<(Name, Ino)> =
            here.seen.iter().map(|(name, ino)| (Arc::clone(name), *ino)).collect();
        for (name, ino) in entries {
            let twice = self.nodes[ino].nlink > 0;
            if let Kind::Dir(inner) = &mut self.nodes[ino].kind {
                if twice {
                    // A lost rename of a directory gave it two names; the first is kept, as a check would.
                    if let Kind::Dir(here) = &mut self.nodes[dir].kind {
                        here.seen.remove(&name);
                        here.durable.remove(&name);
                    }
                    continue;
                }
                (inner.parent, inner.name) = (dir, name);
                self.nodes[ino].nlink = 1;
                self.visit(ino);
            } else {
                self.nodes[ino].nlink += 1;
            }
            self.nodes[ino].refs += 1;
        }
    }
}

impl Node {
    fn new(kind: Kind, mode: u32, now: u64) -> Self {
        Self { kind, nlink: 0, opens: 0, refs: 0, gone: false, mode, uid: 0, mtime: now, ctime: now }
    }

    pub(super) fn len(&self) -> u64 {
        match &self.kind {
            Kind::File(content) => content.seen.len() as u64,
            Kind::Free | Kind::Dir(_) | Kind::Symlink(_) | Kind::Fifo => 0,
        }
    }
}

impl Dir {
    pub(super) fn new(parent: Ino, name: Name) -> Self {
        Self { seen: BTreeMap::new(), durable: BTreeMap::new(), parent, name }
    }
}
