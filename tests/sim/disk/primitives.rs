//! What the primitives do to open files and to content, and how each begins: alive, dying, or failing.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use nightcrew::edge::store::{Entry, ReadError, Signature};
use rustix::io::Errno;

use super::ChangeKind;
use super::handle::{File, killed};
use super::state::{Ino, Kind, Node, State};

/// The device's number, which nothing else has.
const DEVICE: u64 = 7;

pub(super) enum Fate {
    Lives,
    Dies,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Primitive {
    Create = 1,
    OpenAppend,
    Append,
    Sync,
    SetLen,
    SyncDir,
    Read,
    ReadAt,
    Stat,
    SetMode,
    Resolve,
    List,
    Rename,
    Link,
    Unlink,
    MakeDir,
    Touch,
    Rewrite,
}

impl State {
    pub(super) fn begin(&mut self, process: usize) -> io::Result<Fate> {
        let process = &mut self.processes[process];
        if process.dead {
            return Err(killed());
        }
        process.primitives += 1;
        process.changes += 1;
        match &mut process.changes_left {
            Some(0 | 1) => Ok(Fate::Dies),
            Some(left) => {
                *left -= 1;
                Ok(Fate::Lives)
            }
            None => Ok(Fate::Lives),
        }
    }

    pub(super) fn trace(&mut self, primitive: Primitive, path: &[u8], extra: u64, error: Option<&Errno>) {
        let mut hash = self.trace;
        super::mix(&mut hash, path);
        let errno = error.map_or(0, |errno| errno.raw_os_error().unsigned_abs());
        super::mix_word(&mut hash, primitive as u64 | u64::from(errno) << 8 | extra << 32);
        self.trace = hash;
        let looks = [Primitive::Stat, Primitive::List, Primitive::Read, Primitive::ReadAt];
        if let Some(tale) = self.tale.as_mut().filter(|_| error.is_some() || !looks.contains(&primitive)) {
            let error = error.map_or(String::new(), |errno| format!(": {errno:?}"));
            tale.push(format!("{primitive:?} {}{error}", String::from_utf8_lossy(path)));
        }
    }

    pub(super) fn io_fault(&mut self) -> Result<(), Errno> {
        let chance = self.faults.io_error;
        if self.chance(chance) { Err(Errno::IO) } else { Ok(()) }
    }

    /// The place of an open file in the list of its process.
    pub(super) fn slot(&self, file: &File) -> Result<usize, Errno> {
        let open = &self.processes[file.process].open;
        open.iter().position(|open| open.id == file.id).ok_or(Errno::BADF)
    }

    fn ino_of(&self, file: &File) -> Result<Ino, Errno> {
        Ok(self.processes[file.process].open[self.slot(file)?].ino)
    }

    /// Writes as much as fits, and says if that was all.
    pub(super) fn write(&mut self, file: &File, bytes: &[u8]) -> Result<(), Errno> {
        self.writable()?;
        let slot = self.slot(file)?;
        let ino = self.processes[file.process].open[slot].ino;
        let failed = self.io_fault().err();
        let len = if failed.is_some() { self.rng.usize(..=bytes.len()) } else { bytes.len() };
        let room = usize::try_from(self.bytes_max.saturating_sub(self.bytes)).unwrap_or(usize::MAX);
        let written = len.min(room);
        if written > 0 {
            self.bytes += written as u64;
            if let Kind::File(content) = &mut self.nodes[ino].kind {
                content.append(&bytes[..written]);
            }
            self.wrote(file.process, slot, ino);
        }
        match failed {
            Some(errno) => Err(errno),
            None if written < len => Err(Errno::NOSPC),
            None => Ok(()),
        }
    }

    /// What an open for writing says of a file.
    pub(super) fn writable_file(&self, ino: Ino) -> Result<(), Errno> {
        match &self.nodes[ino].kind {
            Kind::File(_) => self.writable(),
            Kind::Dir(_) => Err(Errno::ISDIR),
            Kind::Symlink(_) => Err(Errno::LOOP),
            Kind::Fifo | Kind::Free => Err(Errno::NXIO),
        }
    }

    /// Writes over themselves bytes that a file has from an offset on. After a failure none of them is to be written
    /// back.
    pub(super) fn rewrite(&mut self, path: &[u8], ino: Ino, offset: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.io_fault()?;
        let Kind::File(content) = &mut self.nodes[ino].kind else { return Err(Errno::INVAL) };
        let from = usize::try_from(offset).map_err(|_| Errno::INVAL)?;
        if !bytes.is_empty() {
            assert_eq!(
                content.seen.get(from..from + bytes.len()),
                Some(bytes),
                "other bytes are not for this"
            );
            content.rewrite(from, bytes.len());
            self.written(ino);
            self.record_path(path, ChangeKind::Modified);
        }
        self.record_path(path, ChangeKind::Closed);
        Ok(())
    }

    fn wrote(&mut self, process: usize, slot: usize, ino: Ino) {
        self.written(ino);
        self.processes[process].open[slot].wrote = true;
        if self.watched {
            let open = self.processes[process].open[slot].clone();
            self.record_open(&open, ChangeKind::Modified);
        }
    }

    pub(super) fn cut(&mut self, file: &File, len: u64) -> Result<(), Errno> {
        self.writable()?;
        let slot = self.slot(file)?;
        let ino = self.processes[file.process].open[slot].ino;
        let before = self.nodes[ino].len();
        let to = usize::try_from(len).map_err(|_| Errno::FBIG)?;
        if len > before && self.bytes.saturating_add(len - before) > self.bytes_max {
            return Err(Errno::NOSPC);
        }
        self.bytes = self.bytes - before + len;
        if let Kind::File(content) = &mut self.nodes[ino].kind {
            content.set_len(to);
        }
        self.wrote(file.process, slot, ino);
        Ok(())
    }

    pub(super) fn sync_file(&mut self, file: &File) -> Result<(), Errno> {
        let ino = self.ino_of(file)?;
        if self.aborted {
            return Err(Errno::IO);
        }
        let fails = self.chance(self.faults.sync_error);
        let Self { nodes, rng, .. } = self;
        let Kind::File(content) = &mut nodes[ino].kind else { return Err(Errno::INVAL) };
        if fails {
            content.fail_sync(rng);
            return Err(Errno::IO);
        }
        content.sync();
        Ok(())
    }

    /// A file that anyone may have written, if it may be read.
    pub(super) fn untrusted(&self, path: &[u8], max: u64) -> Result<Ino, ReadError> {
        let ino = match self.lookup(path, false) {
            Ok(ino) => ino,
            Err(Errno::NOENT | Errno::NOTDIR) => return Err(ReadError::Missing),
            Err(Errno::LOOP) => return Err(ReadError::NotRegular("symlink")),
            Err(errno) => return Err(ReadError::Io(errno.into())),
        };
        let node = &self.nodes[ino];
        match &node.kind {
            Kind::File(_) if node.uid != 0 => Err(ReadError::Foreign(node.uid)),
            Kind::File(_) if node.len() > max => Err(ReadError::TooLarge { size: node.len(), max }),
            Kind::File(_) => Ok(ino),
            Kind::Dir(_) => Err(ReadError::NotRegular("directory")),
            Kind::Fifo => Err(ReadError::NotRegular("FIFO")),
            Kind::Symlink(_) => Err(ReadError::NotRegular("symlink")),
            Kind::Free => Err(ReadError::Missing),
        }
    }

    pub(super) fn content(&self, ino: Ino) -> &[u8] {
        match &self.nodes[ino].kind {
            Kind::File(content) => &content.seen,
            Kind::Free | Kind::Dir(_) | Kind::Symlink(_) | Kind::Fifo => &[],
        }
    }

    pub(super) fn list(&self, dir: Ino, max: usize) -> Vec<Entry> {
        let Kind::Dir(dir) = &self.nodes[dir].kind else { return Vec::new() };
        let shown = dir.seen.iter().filter(|(name, _)| name.first() != Some(&b'.')).take(max);
        let entries = shown.map(|(name, ino)| Entry {
            name: String::from_utf8_lossy(name).into_owned(),
            file_name: OsStr::from_bytes(name).to_owned(),
            is_file: matches!(self.nodes[*ino].kind, Kind::File(_)),
            is_dir: self.is_dir(*ino),
        });
        entries.collect()
    }
}

pub(super) fn last(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').find(|name| !name.is_empty()).unwrap_or_default()
}

pub(super) fn signature(ino: Ino, node: &Node) -> Signature {
    let size = match &node.kind {
        Kind::Symlink(target) => target.len() as u64,
        Kind::Free | Kind::File(_) | Kind::Dir(_) | Kind::Fifo => node.len(),
    };
    let (mtime_ns, ctime_ns) = (i128::from(node.mtime), i128::from(node.ctime));
    Signature {
        dev: DEVICE,
        ino: ino as u64,
        size,
        mtime_ns,
        ctime_ns,
        mode: node.mode,
        uid: node.uid,
        gid: 0,
    }
}
