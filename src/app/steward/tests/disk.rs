//! A file system in memory that can be killed or lose power at any primitive.
//!
//! It keeps apart what processes see and what a power cut would leave: content once synced, names once
//! their directory is. Bytes whose sync failed pass for clean: the next one succeeds, and leaves them out.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use crate::edge::store::{Blob, Entry, ReadError, Signature, Store, parent};

#[derive(Clone, Copy, PartialEq)]
pub(super) enum Node {
    File(u64),
    Dir,
    Fifo,
    Symlink,
}

#[derive(Clone, Default)]
struct Content {
    seen: Vec<u8>,
    synced: Vec<u8>,
    /// From here on the next sync writes.
    dirty: Option<usize>,
    foreign: bool,
}

impl Content {
    fn soil(&mut self, from: usize) {
        self.dirty = Some(self.dirty.map_or(from, |dirty| dirty.min(from)));
    }

    fn append(&mut self, bytes: &[u8]) {
        self.soil(self.seen.len());
        self.seen.extend(bytes);
    }

    fn sync(&mut self) {
        if let Some(from) = self.dirty.take() {
            self.synced.resize(from, 0);
            self.synced.extend(&self.seen[from..]);
        }
    }
}

#[derive(Clone, Default)]
struct State {
    seen: BTreeMap<PathBuf, Node>,
    synced: BTreeMap<PathBuf, Node>,
    contents: BTreeMap<u64, Content>,
    last_ino: u64,
    /// After so many primitives every one fails; `None` never.
    left: Option<u64>,
    failure: Option<io::ErrorKind>,
}

#[derive(Clone, Default)]
pub(super) struct Disk(Arc<Mutex<State>>);

impl Disk {
    /// A copy that lives its own life.
    pub(super) fn fork(&self) -> Self {
        Self(Arc::new(Mutex::new(self.lock().clone())))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// From the `n`th primitive on each fails with `failure`.
    pub(super) fn fail_from(&self, n: u64, failure: io::ErrorKind) {
        let mut state = self.lock();
        state.left = Some(n);
        state.failure = Some(failure);
    }

    pub(super) fn heal(&self) {
        self.lock().left = None;
    }

    /// What is left after the power went and came back.
    pub(super) fn power_cut(&self) {
        let mut state = self.lock();
        let synced = state.synced.clone();
        let reachable = |path: &Path| {
            path.ancestors().skip(1).all(|dir| dir == Path::new("/") || synced.get(dir) == Some(&Node::Dir))
        };
        state.seen =
            synced.iter().filter(|(path, _)| reachable(path)).map(|(p, n)| (p.clone(), *n)).collect();
        state.synced = state.seen.clone();
        for content in state.contents.values_mut() {
            content.seen = content.synced.clone();
            content.dirty = None;
        }
    }

    /// Makes one name durable, as the kernel may at any time, whatever else is not.
    pub(super) fn write_back(&self, path: &Path) {
        let mut state = self.lock();
        if let Some(node) = state.seen.get(path).copied() {
            state.synced.insert(path.into(), node);
        }
    }

    /// Makes all that is seen durable.
    pub(super) fn settle(&self) {
        let mut state = self.lock();
        state.synced = state.seen.clone();
        for content in state.contents.values_mut() {
            content.synced = content.seen.clone();
            content.dirty = None;
        }
    }

    pub(super) fn put(&self, path: &Path, node: Node) {
        self.lock().seen.insert(path.into(), node);
        self.settle();
    }

    pub(super) fn put_file(&self, path: &Path, bytes: &[u8]) {
        self.put_file_of(path, bytes, false);
    }

    pub(super) fn put_file_of(&self, path: &Path, bytes: &[u8], foreign: bool) {
        let mut state = self.lock();
        let ino = state.new_file(path);
        state
            .contents
            .insert(ino, Content { seen: bytes.into(), synced: bytes.into(), dirty: None, foreign });
        drop(state);
        self.settle();
    }

    pub(super) fn text(&self, path: &Path) -> Option<String> {
        let state = self.lock();
        match state.seen.get(path) {
            Some(Node::File(ino)) => Some(String::from_utf8(state.contents[ino].seen.clone()).unwrap()),
            Some(Node::Dir | Node::Fifo | Node::Symlink) | None => None,
        }
    }

    /// One primitive that changes something. True while the machine lives.
    fn primitive(&self) -> io::Result<MutexGuard<'_, State>> {
        let mut state = self.lock();
        match &mut state.left {
            Some(0) => Err(state.failure.unwrap_or(io::ErrorKind::Other).into()),
            Some(left) => {
                *left -= 1;
                Ok(state)
            }
            None => Ok(state),
        }
    }
}

impl State {
    fn new_file(&mut self, path: &Path) -> u64 {
        self.last_ino += 1;
        self.seen.insert(path.into(), Node::File(self.last_ino));
        self.contents.insert(self.last_ino, Content::default());
        self.last_ino
    }

    fn need_dir(&self, path: &Path) -> io::Result<()> {
        let dir = parent(path);
        if dir == Path::new("/") || self.seen.get(dir) == Some(&Node::Dir) {
            Ok(())
        } else {
            Err(io::ErrorKind::NotFound.into())
        }
    }
}

impl Store for Disk {
    type File = u64;

    fn create_new(&self, path: &Path) -> io::Result<u64> {
        let mut state = self.primitive()?;
        state.need_dir(path)?;
        if state.seen.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(state.new_file(path))
    }
    fn open_append(&self, path: &Path) -> io::Result<(u64, u64)> {
        let mut state = self.primitive()?;
        state.need_dir(path)?;
        let ino = match state.seen.get(path) {
            Some(Node::File(ino)) => *ino,
            Some(Node::Dir | Node::Fifo | Node::Symlink) => return Err(io::ErrorKind::IsADirectory.into()),
            None => state.new_file(path),
        };
        let len = state.contents[&ino].seen.len() as u64;
        Ok((ino, len))
    }
    fn append(&self, file: &mut u64, bytes: &[u8]) -> io::Result<()> {
        match self.primitive() {
            Ok(mut state) => {
                state.contents.get_mut(file).unwrap().append(bytes);
                Ok(())
            }
            Err(error) => {
                // The write at which the machine died may have got half way.
                let half = &bytes[..bytes.len() / 2];
                self.lock().contents.get_mut(file).unwrap().append(half);
                Err(error)
            }
        }
    }
    fn rewrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.primitive()?;
        let Node::File(ino) = state.seen[path] else { panic!("{} is no file", path.display()) };
        let content = state.contents.get_mut(&ino).unwrap();
        let from = usize::try_from(offset).unwrap();
        assert_eq!(&content.seen[from..from + bytes.len()], bytes, "other bytes are not for this");
        content.soil(from);
        Ok(())
    }
    fn sync(&self, file: &u64) -> io::Result<()> {
        let primitive = self.primitive().map(drop);
        let mut state = self.lock();
        let content = state.contents.get_mut(file).unwrap();
        match primitive {
            Ok(()) => content.sync(),
            Err(_) => content.dirty = None,
        }
        primitive
    }
    fn set_len(&self, file: &u64, len: u64) -> io::Result<()> {
        let mut state = self.primitive()?;
        let content = state.contents.get_mut(file).unwrap();
        let len = usize::try_from(len).unwrap();
        content.soil(len);
        content.seen.truncate(len);
        Ok(())
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.primitive()?;
        let State { seen, synced, .. } = &mut *state;
        synced.retain(|path, _| path.parent() != Some(dir));
        synced
            .extend(seen.iter().filter(|(path, _)| path.parent() == Some(dir)).map(|(p, n)| (p.clone(), *n)));
        Ok(())
    }
    fn read(&self, path: &Path, max: u64) -> Result<Blob, ReadError> {
        let signature = self.stat(path)?.ok_or(ReadError::Missing)?;
        let state = self.lock();
        match state.seen[path] {
            Node::Dir => Err(ReadError::NotRegular("directory")),
            Node::Fifo => Err(ReadError::NotRegular("FIFO")),
            Node::Symlink => Err(ReadError::NotRegular("symlink")),
            Node::File(ino) if state.contents[&ino].foreign => Err(ReadError::Foreign(1234)),
            Node::File(_) if signature.size > max => Err(ReadError::TooLarge { size: signature.size, max }),
            Node::File(ino) => Ok(Blob { bytes: state.contents[&ino].seen.clone(), signature }),
        }
    }
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let blob = self.read(path, u64::MAX).map_err(|error| io::Error::other(error.to_string()))?;
        let from = usize::try_from(offset).unwrap().min(blob.bytes.len());
        Ok(blob.bytes[from..from.saturating_add(len).min(blob.bytes.len())].to_vec())
    }
    fn stat(&self, path: &Path) -> io::Result<Option<Signature>> {
        let state = self.lock();
        Ok(state.seen.get(path).map(|node| {
            let (mode, ino) = match node {
                Node::File(ino) => (0o100_644, *ino),
                Node::Dir => (0o040_755, 0),
                Node::Fifo => (0o010_644, 0),
                Node::Symlink => (0o120_777, 0),
            };
            let size = state.contents.get(&ino).map_or(0, |content| content.seen.len() as u64);
            Signature { dev: 1, ino, size, mtime_ns: 0, ctime_ns: 0, mode, uid: 0, gid: 0 }
        }))
    }
    fn set_mode(&self, _: &Path, _: u32) -> io::Result<()> {
        Err(io::Error::from(io::ErrorKind::Unsupported))
    }
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        Ok(path.to_owned())
    }
    fn touch(&self, path: &Path) -> io::Result<bool> {
        Ok(self.lock().seen.contains_key(path))
    }
    fn list(&self, dir: &Path, max: usize) -> io::Result<Vec<Entry>> {
        let state = self.lock();
        let inside = state.seen.iter().filter(|(path, _)| path.parent() == Some(dir));
        let entries = inside.map(|(path, node)| Entry {
            name: path.file_name().unwrap().to_string_lossy().into_owned(),
            file_name: path.file_name().unwrap().to_owned(),
            is_file: matches!(node, Node::File(_)),
            is_dir: *node == Node::Dir,
        });
        Ok(entries.filter(|entry| !entry.name.starts_with('.')).take(max).collect())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.primitive()?;
        state.need_dir(to)?;
        if state.seen.get(to) == Some(&Node::Dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        let node = state.seen.remove(from).ok_or(io::ErrorKind::NotFound)?;
        state.seen.insert(to.into(), node);
        Ok(())
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.primitive()?;
        state.need_dir(to)?;
        let node = *state.seen.get(from).ok_or(io::ErrorKind::NotFound)?;
        if state.seen.contains_key(to) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.seen.insert(to.into(), node);
        Ok(())
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        let mut state = self.primitive()?;
        if state.seen.get(path) == Some(&Node::Dir) {
            return Err(io::ErrorKind::IsADirectory.into());
        }
        state.seen.remove(path);
        Ok(())
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        let mut state = self.primitive()?;
        for dir in dir.ancestors().filter(|dir| *dir != Path::new("/")) {
            state.seen.entry(dir.into()).or_insert(Node::Dir);
        }
        Ok(())
    }
    fn copy_durably(&self, from: &Path, to: &Path, max: u64) -> Result<u64, ReadError> {
        let blob = self.read(from, max)?;
        self.write_new(to, &blob.bytes, true)?;
        Ok(blob.bytes.len() as u64)
    }
}
