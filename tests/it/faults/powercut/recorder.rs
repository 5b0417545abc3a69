//! A disk that remembers: one file, served by FUSE, of which every write and every flush is kept in order.
//!
//! The loop driver on top of it hands on what the file system above sends to its block device: a write is
//! answered once it is on the tape, and a flush (a FUA write is a write and a flush, because the driver offers no
//! FUA) arrives as an fsync of the file. So what lies on the tape before a flush is what that flush made durable.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, WriteFlags,
};
use nix::mount::{MntFlags, umount2};

const DISK: INodeNo = INodeNo(2);
const POSITION: INodeNo = INodeNo(3);
/// Nothing here changes behind the kernel's back.
const FOR_LONG: Duration = Duration::from_hours(1);

/// What the disk was told.
pub(super) enum Step {
    Write { offset: u64, bytes: Vec<u8> },
    Flush,
}

/// All that the disk was told, in order.
#[derive(Clone, Default)]
pub(super) struct Tape(Arc<Mutex<Vec<Step>>>);

impl Tape {
    fn steps(&self) -> MutexGuard<'_, Vec<Step>> {
        // A step is pushed whole or not at all, whoever panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many steps there are by now.
    pub(super) fn position(&self) -> usize {
        self.steps().len()
    }

    /// True if these bytes were written, and a flush came after that.
    pub(super) fn has_durably(&self, sought: &[u8]) -> bool {
        let steps = self.steps();
        let holds = |step: &Step| matches!(step, Step::Write { bytes, .. } if contains(bytes, sought));
        let written = steps.iter().position(holds);
        written.is_some_and(|at| steps[at..].iter().any(|step| matches!(step, Step::Flush)))
    }

    /// Takes all steps away.
    pub(super) fn take(&self) -> Vec<Step> {
        std::mem::take(&mut self.steps())
    }
}

fn contains(bytes: &[u8], sought: &[u8]) -> bool {
    bytes.windows(sought.len()).any(|window| window == sought)
}

struct Disk {
    image: File,
    len: u64,
    tape: Tape,
}

impl Disk {
    fn attributes(&self, ino: INodeNo) -> FileAttr {
        let (kind, size, perm) = match ino {
            DISK => (FileType::RegularFile, self.len, 0o600),
            POSITION => (FileType::RegularFile, 0, 0o444),
            _ => (FileType::Directory, 0, 0o755),
        };
        FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    /// What the disk holds there.
    fn held(&self, offset: u64, size: u32) -> io::Result<Vec<u8>> {
        let len = self.len.saturating_sub(offset).min(u64::from(size));
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        self.image.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }
}

impl Filesystem for Disk {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let ino = match name.to_str() {
            Some("disk") => DISK,
            Some("position") => POSITION,
            Some(_) | None => return reply.error(Errno::ENOENT),
        };
        reply.entry(&FOR_LONG, &self.attributes(ino), Generation(0));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        reply.attr(&FOR_LONG, &self.attributes(ino));
    }

    fn open(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        // The position is another at each look, and its length is not known before.
        let flags = if ino == POSITION { FopenFlags::FOPEN_DIRECT_IO } else { FopenFlags::empty() };
        reply.opened(FileHandle(0), flags);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        if ino == POSITION {
            let text = self.tape.position().to_string();
            return reply.data(if offset == 0 { text.as_bytes() } else { &[] });
        }
        match self.held(offset, size) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if ino != DISK {
            return reply.error(Errno::EPERM);
        }
        match self.image.write_all_at(bytes, offset) {
            Ok(()) => {
                self.tape.steps().push(Step::Write { offset, bytes: bytes.to_vec() });
                // No request is larger than some megabytes.
                reply.written(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
            }
            Err(error) => reply.error(error.into()),
        }
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.tape.steps().push(Step::Flush);
        reply.ok();
    }
}

/// The disk in use. Dropping it lets it go, even while something still hangs on it.
pub(super) struct Recorder {
    at: PathBuf,
    session: Option<BackgroundSession>,
    pub(super) tape: Tape,
}

impl Recorder {
    /// Serves the image as `AT/disk`; `AT/position` says how many steps are on the tape.
    pub(super) fn serve(image: &Path, at: &Path) -> io::Result<Self> {
        let image = File::options().read(true).write(true).open(image)?;
        let tape = Tape::default();
        let disk = Disk { len: image.metadata()?.len(), image, tape: tape.clone() };
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("recorder".into())];
        let session = Some(fuser::spawn_mount(disk, at, &config)?);
        Ok(Self { at: at.into(), session, tape })
    }

    pub(super) fn disk(&self) -> PathBuf {
        self.at.join("disk")
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // Lazily: to wait for who still uses it could be for ever. The thread ends when they are gone.
        let _ = umount2(&self.at, MntFlags::MNT_DETACH);
        drop(self.session.take());
    }
}
