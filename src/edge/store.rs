//! The one file-system trait, and the helpers by which files are published whole.
//!
//! A simulator implements [`Store`]; everything that matters for durability (temp file, fsync,
//! rename or link, fsync of the directory, in this order) is written once, in the provided methods,
//! over its primitives.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

/// What tells one content of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Signature {
    /// The device.
    pub dev: u64,
    /// The inode.
    pub ino: u64,
    /// The size in bytes.
    pub size: u64,
    /// Last change of the content, in nanoseconds of the file system's clock.
    pub mtime_ns: i128,
    /// Last change of the inode, likewise.
    pub ctime_ns: i128,
    /// File type and permissions (`st_mode`).
    pub mode: u32,
    /// The owner.
    pub uid: u32,
    /// The group.
    pub gid: u32,
}

/// `S_IFMT` of `st_mode`.
const TYPE_MASK: u32 = 0o170_000;

impl Signature {
    /// True for a regular file: no symlink, directory, FIFO, socket or device.
    #[must_use]
    pub fn is_regular(&self) -> bool {
        const REGULAR: u32 = 0o100_000;
        self.mode & TYPE_MASK == REGULAR
    }

    /// True for a directory: no symlink to one either.
    #[must_use]
    pub fn is_directory(&self) -> bool {
        const DIRECTORY: u32 = 0o040_000;
        self.mode & TYPE_MASK == DIRECTORY
    }
}

/// One entry of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name as text, to be judged and shown: what is no UTF-8 in it is replaced.
    pub name: String,
    /// Its name as it is, by which alone it can be reached.
    pub file_name: OsString,
    /// True for a regular file (a symlink is none).
    pub is_file: bool,
    /// True for a directory.
    pub is_dir: bool,
}

/// Why a file that somebody else wrote was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not there.
    #[error("missing")]
    Missing,
    /// A symlink, directory, FIFO, socket or device.
    #[error("not a regular file but a {0}")]
    NotRegular(&'static str),
    /// Larger than it may be.
    #[error("{size} bytes, where {max} are allowed")]
    TooLarge {
        /// Its size.
        size: u64,
        /// The limit.
        max: u64,
    },
    /// It belongs to someone it must not belong to.
    #[error("owned by uid {0}, who is neither root, this supervisor's user nor the crew's owner")]
    Foreign(u32),
    /// The file system said no.
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// A file's content with what identified it while it was read.
#[derive(Debug, Clone)]
pub struct Blob {
    /// The content.
    pub bytes: Vec<u8>,
    /// What it was the content of.
    pub signature: Signature,
}

/// A file system. Paths are absolute.
pub trait Store: Clone + Send + 'static {
    /// An open file.
    type File: Send;

    /// Makes a file that must not exist yet, open for writing, mode 0644.
    ///
    /// # Errors
    /// Those of `open(2)`.
    fn create_new(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file for appending, making it if it is missing; gives its length.
    ///
    /// # Errors
    /// Those of `open(2)`.
    fn open_append(&self, path: &Path) -> io::Result<(Self::File, u64)>;
    /// Writes all of `bytes` at the end.
    ///
    /// # Errors
    /// Those of `write(2)`.
    fn append(&self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Writes `bytes`, which a file of our own shows from `offset` on, over themselves, so that the next sync writes
    /// them to the device whether it did so before or not. Whatever comes in between leaves what it shows as it is.
    ///
    /// # Errors
    /// Those of `open(2)` and `pwrite(2)`.
    fn rewrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes the file's content durable (`fdatasync`).
    ///
    /// # Errors
    /// Those of `fdatasync(2)`; after one, nothing is known of the content and nothing may be retried.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
    /// Cuts the file to `len` bytes.
    ///
    /// # Errors
    /// Those of `ftruncate(2)`.
    fn set_len(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Makes the names in a directory durable (`fsync` of the directory).
    ///
    /// # Errors
    /// Those of `open(2)` and `fsync(2)`.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Reads a whole file that may have been written by anyone: opened with `O_NOFOLLOW`,
    /// `O_NONBLOCK` and `O_CLOEXEC`, refused unless it is regular, at most `max` bytes and owned by
    /// one of the accepted owners.
    ///
    /// # Errors
    /// [`ReadError`].
    fn read(&self, path: &Path, max: u64) -> Result<Blob, ReadError>;
    /// Reads up to `len` bytes from `offset` of a file of our own.
    ///
    /// # Errors
    /// Those of `open(2)` and `read(2)`.
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>>;
    /// What a file is, without following a symlink; `None` if it is missing.
    ///
    /// # Errors
    /// Those of `lstat(2)` but for `ENOENT` and `ENOTDIR`.
    fn stat(&self, path: &Path) -> io::Result<Option<Signature>>;
    /// Sets the permissions of a file, without following a symlink.
    ///
    /// # Errors
    /// Those of `fchmodat(2)`.
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Where a path leads: absolute, every symlink in it followed.
    ///
    /// # Errors
    /// Those of `realpath(3)`; `NotFound` if the path, or what it leads to, is missing.
    fn resolve(&self, path: &Path) -> io::Result<PathBuf>;
    /// Up to `max` entries of a directory, in no order; an empty list if it is missing. What begins with a
    /// dot is left out.
    ///
    /// # Errors
    /// Those of `opendir(3)` and `readdir(3)` but for `ENOENT`.
    fn list(&self, dir: &Path, max: usize) -> io::Result<Vec<Entry>>;
    /// Renames within the file system, replacing the target.
    ///
    /// # Errors
    /// Those of `rename(2)`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Renames within the file system to a name that must not exist yet; `AlreadyExists` if it does.
    ///
    /// A store whose primitives cannot do both at once looks first: enough where nobody else acts in between.
    ///
    /// # Errors
    /// Those of `renameat2(2)`.
    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        match self.stat(to)? {
            Some(_) => Err(io::ErrorKind::AlreadyExists.into()),
            None => self.rename(from, to),
        }
    }
    /// Gives a file a second name that must not exist yet.
    ///
    /// # Errors
    /// Those of `link(2)`; `AlreadyExists` is what makes a claim exclusive.
    fn link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; a missing one is no error.
    ///
    /// # Errors
    /// Those of `unlink(2)` but for `ENOENT`.
    fn unlink(&self, path: &Path) -> io::Result<()>;
    /// Removes a directory that is empty; one that is missing, or not empty, is no error and stays as it is. Where
    /// nobody minds empty directories, this need do nothing.
    ///
    /// # Errors
    /// Those of `rmdir(2)` but for these.
    fn remove_dir(&self, _dir: &Path) -> io::Result<()> {
        Ok(())
    }
    /// Makes a directory, and its parents; an existing one is no error.
    ///
    /// # Errors
    /// Those of `mkdir(2)`.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// Sets a file's times to now, without following a symlink; false if it is missing.
    ///
    /// # Errors
    /// Those of `utimensat(2)` but for `ENOENT`.
    fn touch(&self, path: &Path) -> io::Result<bool>;
    /// Copies a file that anyone may have written, under the rules of [`Store::read`], into a new file
    /// and makes the copy durable; gives its length.
    ///
    /// # Errors
    /// [`ReadError`].
    fn copy_durably(&self, from: &Path, to: &Path, max: u64) -> Result<u64, ReadError>;

    /// Writes a new file and, if `durable`, makes its content so. Not yet its name.
    ///
    /// # Errors
    /// As for the primitives. What was begun is removed again as far as that goes.
    fn write_new(&self, path: &Path, bytes: &[u8], durable: bool) -> io::Result<()> {
        let durable = durable && !mutant!(NoFileSync);
        let mut file = self.create_new(path)?;
        let written =
            self.append(&mut file, bytes).and_then(|()| if durable { self.sync(&file) } else { Ok(()) });
        drop(file);
        written.inspect_err(|_| {
            // The first error is the one to tell; a leftover temp file is cleared at the next start.
            let _ = self.unlink(path);
        })
    }

    /// Writes new files, all in one directory, and makes the content of all of them durable. Not yet their names.
    ///
    /// A store that can do it with one barrier for all of them does so.
    ///
    /// # Errors
    /// As for the primitives; what was begun stays, for the caller to remove.
    fn write_all_new(&self, files: &[(PathBuf, Vec<u8>)]) -> io::Result<()> {
        files.iter().try_for_each(|(path, bytes)| self.write_new(path, bytes, true))
    }

    /// Publishes a small view of ours that need not survive a power cut: temp file, rename.
    ///
    /// A crash leaves the old content or the new, never a part.
    ///
    /// # Errors
    /// As for the primitives.
    fn publish_volatile(&self, temp: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write_new(temp, bytes, false)?;
        self.rename(temp, path)
    }

    /// Publishes a record: temp file, fsync, rename, fsync of the directory. When it returns, the record
    /// is durable.
    ///
    /// # Errors
    /// As for the primitives.
    fn publish(&self, temp: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write_new(temp, bytes, true)?;
        self.rename(temp, path)?;
        if mutant!(NoDirectorySync) { Ok(()) } else { self.sync_dir(parent(path)) }
    }

    /// Publishes a record under a name that must be free: temp file, fsync, link, unlink of the temp,
    /// fsync of the directory. `AlreadyExists` if the name is taken.
    ///
    /// # Errors
    /// As for the primitives.
    fn publish_new(&self, temp: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
        self.write_new(temp, bytes, true)?;
        let linked = self.link(temp, path);
        let removed = self.unlink(temp);
        linked?;
        removed?;
        if mutant!(NoDirectorySync) { Ok(()) } else { self.sync_dir(parent(path)) }
    }
}

/// The directory a path lies in.
#[must_use]
pub fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

/// A name in `dir` that no other file has: for temp files. `serial` must not repeat within a process.
#[must_use]
pub fn temp_name(dir: &Path, pid: u32, serial: u64) -> PathBuf {
    dir.join(format!("{pid}.{serial}.tmp"))
}

/// The process that a temp file was made by, if it has such a name.
#[must_use]
pub fn temp_maker(file_name: &str) -> Option<u32> {
    let (pid, serial) = file_name.strip_suffix(".tmp")?.split_once('.')?;
    let _: u64 = serial.parse().ok()?;
    pid.parse().ok()
}
