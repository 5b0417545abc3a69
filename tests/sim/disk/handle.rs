//! The disk as one simulated process has it.

use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nightcrew::edge::store::{Blob, Entry, ReadError, Signature, Store, parent};
use rustix::io::Errno;

use super::Shared;
use super::content::Content;
use super::primitives::{Fate, Primitive, last, signature};
use super::state::{Kind, Process, State};

/// The disk as one process has it: when the process is killed, nothing goes through it any more.
#[derive(Clone)]
pub(crate) struct Handle {
    disk: Shared,
    process: usize,
}

/// An open file of a process.
pub(crate) struct File {
    disk: Shared,
    pub(super) process: usize,
    pub(super) id: u64,
}

pub(super) fn lock(disk: &Mutex<State>) -> MutexGuard<'_, State> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn killed() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "killed")
}

fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

impl Handle {
    pub(super) fn new(disk: &Shared) -> Self {
        let mut state = lock(disk);
        state.processes.push(Process::default());
        Self { disk: Arc::clone(disk), process: state.processes.len() - 1 }
    }

    /// Kills the process in the `n`th changing primitive from now, which is done or not, or in part.
    pub(crate) fn kill_after(&self, n: u64) {
        lock(&self.disk).processes[self.process].changes_left = Some(n);
    }

    /// Kills the process in its next sync of a directory: names that it gave there are seen, and not durable.
    pub(crate) fn kill_at_sync_of(&self, dir: PathBuf) {
        lock(&self.disk).processes[self.process].dies_at_sync_of = Some(dir);
    }

    /// Kills the process: its open files are closed, and every primitive fails without effect.
    pub(crate) fn kill(&self) {
        lock(&self.disk).kill(self.process);
    }

    pub(crate) fn is_dead(&self) -> bool {
        lock(&self.disk).processes[self.process].dead
    }

    /// The primitives so far, and how many of them were meant to change something.
    pub(crate) fn primitives(&self) -> (u64, u64) {
        let state = lock(&self.disk);
        (state.processes[self.process].primitives, state.processes[self.process].changes)
    }

    /// One primitive that changes nothing.
    fn look<T>(
        &self,
        primitive: Primitive,
        path: &[u8],
        act: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> io::Result<T> {
        super::between();
        let mut state = lock(&self.disk);
        let process = &mut state.processes[self.process];
        if process.dead {
            return Err(killed());
        }
        process.primitives += 1;
        let done = act(&mut state);
        state.trace(primitive, path, 0, done.as_ref().err());
        done.map_err(io::Error::from)
    }

    /// One primitive that changes something: a process may die in the middle of it.
    fn change<T>(
        &self,
        primitive: Primitive,
        path: &[u8],
        act: impl FnOnce(&mut State) -> Result<T, Errno>,
    ) -> io::Result<T> {
        super::between();
        let mut state = lock(&self.disk);
        match state.begin(self.process)? {
            Fate::Lives => {
                let done = act(&mut state);
                state.trace(primitive, path, 0, done.as_ref().err());
                done.map_err(io::Error::from)
            }
            Fate::Dies => {
                if state.rng.bool() {
                    // It is dead, and learns nothing of what came of it.
                    let _ = act(&mut state);
                }
                state.kill(self.process);
                state.trace(primitive, path, 1, None);
                Err(killed())
            }
        }
    }

    fn need_descriptor(&self, state: &mut State) -> Result<(), Errno> {
        let chance = state.faults.open_error;
        let open = state.processes[self.process].open.len() as u64;
        if state.faults.open_files.is_some_and(|max| open >= max) || state.chance(chance) {
            return Err(Errno::MFILE);
        }
        Ok(())
    }

    fn is_dir(&self, dir: &Path) -> io::Result<bool> {
        self.look(Primitive::Stat, bytes(dir), |state| {
            Ok(state.lookup(bytes(dir), true).is_ok_and(|ino| state.is_dir(ino)))
        })
    }

    fn file(&self, id: u64) -> File {
        File { disk: Arc::clone(&self.disk), process: self.process, id }
    }

    fn create(&self, state: &mut State, path: &[u8]) -> Result<u64, Errno> {
        self.need_descriptor(state)?;
        let (dir, ino) = state.make(path, Kind::File(Content::default()), 0o100_644)?;
        Ok(state.open(self.process, ino, dir, last(path)))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let mut state = lock(&self.disk);
        if let Ok(slot) = state.slot(self) {
            let open = state.processes[self.process].open.swap_remove(slot);
            state.close(&open);
        }
    }
}

impl Store for Handle {
    type File = File;

    fn create_new(&self, path: &Path) -> io::Result<File> {
        let path = bytes(path);
        let id = self.change(Primitive::Create, path, |state| self.create(state, path))?;
        Ok(self.file(id))
    }

    fn open_append(&self, path: &Path) -> io::Result<(File, u64)> {
        let path = bytes(path);
        let opened = self.change(Primitive::OpenAppend, path, |state| {
            let ino = match state.lookup(path, false) {
                Err(Errno::NOENT) => return Ok((self.create(state, path)?, 0)),
                found => found?,
            };
            state.writable_file(ino)?;
            self.need_descriptor(state)?;
            let (dir, _) = state.place(path)?;
            let id = state.open(self.process, ino, dir, last(path));
            Ok((id, state.nodes[ino].len()))
        });
        opened.map(|(id, len)| (self.file(id), len))
    }

    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        super::between();
        let mut state = lock(&self.disk);
        let lives = matches!(state.begin(file.process)?, Fate::Lives);
        let len = if lives { bytes.len() } else { state.rng.usize(..=bytes.len()) };
        let done = state.write(file, &bytes[..len]);
        state.trace(Primitive::Append, &bytes[..len], file.id, done.as_ref().err());
        if lives {
            return done.map_err(io::Error::from);
        }
        state.kill(file.process);
        Err(killed())
    }

    fn rewrite(&self, path: &Path, offset: u64, text: &[u8]) -> io::Result<()> {
        self.change(Primitive::Rewrite, bytes(path), |state| {
            let ino = state.lookup(bytes(path), false)?;
            state.writable_file(ino)?;
            self.need_descriptor(state)?;
            state.rewrite(bytes(path), ino, offset, text)
        })
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        self.change(Primitive::Sync, &file.id.to_le_bytes(), |state| state.sync_file(file))
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        self.change(Primitive::SetLen, &len.to_le_bytes(), |state| state.cut(file, len))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dies = lock(&self.disk).processes[self.process].dies_at_sync_of.as_deref() == Some(dir);
        if dies {
            self.kill_after(0);
        }
        let dir = bytes(dir);
        self.change(Primitive::SyncDir, dir, |state| {
            let ino = state.lookup(dir, true)?;
            if !state.is_dir(ino) {
                return Err(Errno::NOTDIR);
            }
            self.need_descriptor(state)?;
            // A journal that could not be written is given up: nothing changes any more until the next mount.
            if state.aborted || state.chance(state.faults.sync_dir_error) {
                state.aborted = true;
                return Err(Errno::IO);
            }
            state.sync_dir(ino);
            Ok(())
        })
    }

    fn read(&self, path: &Path, max: u64) -> Result<Blob, ReadError> {
        let path = bytes(path);
        self.look(Primitive::Read, path, |state| {
            let ino = match state.untrusted(path, max) {
                Err(refused) => return Ok(Err(refused)),
                Ok(ino) => ino,
            };
            self.need_descriptor(state)?;
            state.io_fault()?;
            let bytes = state.content(ino).to_vec();
            Ok(Ok(Blob { bytes, signature: signature(ino, &state.nodes[ino]) }))
        })?
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let path = bytes(path);
        self.look(Primitive::ReadAt, path, |state| {
            let ino = state.lookup(path, false)?;
            if matches!(state.nodes[ino].kind, Kind::Symlink(_)) {
                return Err(Errno::LOOP);
            }
            self.need_descriptor(state)?;
            match &state.nodes[ino].kind {
                _ if len == 0 => return Ok(Vec::new()),
                _ if i64::try_from(offset).is_err() => return Err(Errno::INVAL),
                Kind::Dir(_) => return Err(Errno::ISDIR),
                Kind::Fifo => return Err(Errno::SPIPE),
                Kind::File(_) | Kind::Symlink(_) | Kind::Free => {}
            }
            state.io_fault()?;
            let content = state.content(ino);
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(content.len());
            Ok(content[from..from.saturating_add(len).min(content.len())].to_vec())
        })
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Signature>> {
        let path = bytes(path);
        self.look(Primitive::Stat, path, |state| match state.lookup(path, false) {
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            found => found.map(|ino| Some(signature(ino, &state.nodes[ino]))),
        })
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let path = bytes(path);
        self.change(Primitive::SetMode, path, |state| {
            self.need_descriptor(state)?;
            state.set_mode(path, mode)
        })
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        let path = bytes(path);
        self.look(Primitive::Resolve, path, |state| state.resolve(path))
    }

    fn list(&self, dir: &Path, max: usize) -> io::Result<Vec<Entry>> {
        let path = bytes(dir);
        self.look(Primitive::List, path, |state| {
            let ino = match state.lookup(path, true) {
                Err(Errno::NOENT) => return Ok(Vec::new()),
                found => found?,
            };
            let Kind::Dir(_) = &state.nodes[ino].kind else { return Err(Errno::NOTDIR) };
            self.need_descriptor(state)?;
            state.io_fault()?;
            Ok(state.list(ino, max))
        })
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Primitive::Rename, bytes(to), |state| state.rename(bytes(from), bytes(to)))
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Primitive::Rename, bytes(to), |state| match state.lookup(bytes(to), false) {
            Ok(_) => Err(Errno::EXIST),
            Err(_) => state.rename(bytes(from), bytes(to)),
        })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.change(Primitive::Link, bytes(to), |state| state.link(bytes(from), bytes(to)))
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.change(Primitive::Unlink, bytes(path), |state| match state.unlink(bytes(path)) {
            Err(Errno::NOENT) => Ok(()),
            done => done,
        })
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if self.is_dir(dir)? {
            return Ok(());
        }
        if parent(dir) != dir {
            self.create_dir(parent(dir))?;
        }
        match self.change(Primitive::MakeDir, bytes(dir), |state| state.make_dir(bytes(dir))) {
            // It is `..` of what was just made.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.is_dir(dir)? => Ok(()),
            done => done,
        }
    }

    fn touch(&self, path: &Path) -> io::Result<bool> {
        self.change(Primitive::Touch, bytes(path), |state| state.touch(bytes(path)))
    }

    fn copy_durably(&self, from: &Path, to: &Path, max: u64) -> Result<u64, ReadError> {
        let blob = self.read(from, max)?;
        let mut copy = self.create_new(to)?;
        let copied = self.append(&mut copy, &blob.bytes).and_then(|()| self.sync(&copy));
        drop(copy);
        if let Err(error) = copied {
            // The first error is the one to tell.
            let _ = self.unlink(to);
            return Err(error.into());
        }
        Ok(blob.bytes.len() as u64)
    }
}
