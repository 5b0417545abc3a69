//! The real file system.
//!
//! Files that agents can write are opened with `O_NOFOLLOW`, `O_NONBLOCK` and `O_CLOEXEC` and looked at
//! through the descriptor before a byte is read: a plain open of a FIFO would block for ever, and a
//! symlink would lead out of the crew. What we make is readable by everybody (files 0644, directories
//! 0755), whatever the umask: an operator who is not our user must be able to see what goes on.

use std::fs::{self, DirBuilder, File, Metadata, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;

use super::store::{Blob, Entry, ReadError, Signature, Store, parent};

/// The mode of every file we make.
const FILE_MODE: u32 = 0o644;
/// The mode of every directory we make.
const DIR_MODE: u32 = 0o755;

/// The real file system, and whose files are read.
#[derive(Debug, Clone)]
pub struct FsStore {
    owners: Arc<[u32]>,
}

impl FsStore {
    /// A store that reads files of these owners (uids) only.
    #[must_use]
    pub fn new(owners: Vec<u32>) -> Self {
        Self { owners: owners.into() }
    }

    /// The store for the crew in this directory: it accepts files of root, of this process's user and
    /// of the directory's owner.
    ///
    /// # Errors
    /// Those of `stat(2)` on the directory.
    pub fn for_crew(crew: &Path) -> io::Result<Self> {
        let owner = fs::metadata(crew)?.uid();
        let mut owners = vec![0, rustix::process::geteuid().as_raw(), owner];
        owners.sort_unstable();
        owners.dedup();
        Ok(Self::new(owners))
    }

    /// Opens a file that anyone may have written, and gives it with what it was at that moment.
    fn open_untrusted(&self, path: &Path, max: u64) -> Result<(File, Metadata), ReadError> {
        let file = OpenOptions::new().read(true).custom_flags(untrusting()).open(path).map_err(refusal)?;
        let meta = file.metadata()?;
        if let Some(kind) = irregular(&meta) {
            return Err(ReadError::NotRegular(kind));
        }
        if !self.owners.contains(&meta.uid()) {
            return Err(ReadError::Foreign(meta.uid()));
        }
        if meta.len() > max {
            return Err(ReadError::TooLarge { size: meta.len(), max });
        }
        Ok((file, meta))
    }
}

/// `O_NOFOLLOW`, and `O_NONBLOCK` so that a FIFO without a writer opens at once; std adds `O_CLOEXEC`.
fn untrusting() -> i32 {
    (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed()
}

fn refusal(error: io::Error) -> ReadError {
    match Errno::from_io_error(&error) {
        Some(Errno::NOENT | Errno::NOTDIR) => ReadError::Missing,
        Some(Errno::LOOP) => ReadError::NotRegular("symlink"),
        Some(Errno::NXIO) => ReadError::NotRegular("socket or device"),
        _ => ReadError::Io(error),
    }
}

/// What a file is, if it is not a regular one.
fn irregular(meta: &Metadata) -> Option<&'static str> {
    let kind = meta.file_type();
    match () {
        () if kind.is_file() => None,
        () if kind.is_dir() => Some("directory"),
        () if kind.is_fifo() => Some("FIFO"),
        () if kind.is_symlink() => Some("symlink"),
        () if kind.is_socket() => Some("socket"),
        () => Some("device"),
    }
}

fn signature(meta: &Metadata) -> Signature {
    let nanoseconds = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
    Signature {
        dev: meta.dev(),
        ino: meta.ino(),
        size: meta.len(),
        mtime_ns: nanoseconds(meta.mtime(), meta.mtime_nsec()),
        ctime_ns: nanoseconds(meta.ctime(), meta.ctime_nsec()),
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
    }
}

/// Copies all of `from`, which may grow while we read, but never more than `max` bytes and one.
fn pump(from: impl Read, to: &mut impl Write, max: u64) -> Result<u64, ReadError> {
    let copied = io::copy(&mut from.take(max.saturating_add(1)), to)?;
    if copied > max { Err(ReadError::TooLarge { size: copied, max }) } else { Ok(copied) }
}

impl Store for FsStore {
    type File = File;

    fn create_new(&self, path: &Path) -> io::Result<File> {
        let file = OpenOptions::new().append(true).create_new(true).mode(FILE_MODE).open(path)?;
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
        Ok(file)
    }

    fn open_append(&self, path: &Path) -> io::Result<(File, u64)> {
        let opened = OpenOptions::new().append(true).custom_flags(untrusting()).open(path);
        let file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create_new(path)?,
            other => other?,
        };
        let meta = file.metadata()?;
        match irregular(&meta) {
            None => Ok((file, meta.len())),
            Some(kind) => Err(io::Error::other(ReadError::NotRegular(kind))),
        }
    }

    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn rewrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        use std::os::unix::fs::FileExt;
        // Opened anew: where a file is open for appending, every write goes to its end, whatever the offset.
        OpenOptions::new().write(true).custom_flags(untrusting()).open(path)?.write_all_at(bytes, offset)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }

    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let flags = OFlags::DIRECTORY.bits().cast_signed();
        OpenOptions::new().read(true).custom_flags(flags).open(dir)?.sync_all()
    }

    fn read(&self, path: &Path, max: u64) -> Result<Blob, ReadError> {
        let (file, meta) = self.open_untrusted(path, max)?;
        // The size was checked against `max`, so nobody makes us reserve more than that.
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
        pump(file, &mut bytes, max)?;
        // A change while we read leaves a signature that is not the file's, so that it is read again.
        Ok(Blob { bytes, signature: signature(&meta) })
    }

    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let file = OpenOptions::new().read(true).custom_flags(untrusting()).open(path)?;
        let mut bytes = vec![0; len];
        let mut filled = 0;
        while filled < len {
            match file.read_at(&mut bytes[filled..], offset.saturating_add(filled as u64)) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    fn stat(&self, path: &Path) -> io::Result<Option<Signature>> {
        match fs::symlink_metadata(path) {
            Ok(meta) => Ok(Some(signature(&meta))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        let file = OpenOptions::new().read(true).custom_flags(untrusting()).open(path)?;
        file.set_permissions(Permissions::from_mode(mode))
    }

    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        fs::canonicalize(path)
    }

    fn list(&self, dir: &Path, max: usize) -> io::Result<Vec<Entry>> {
        let listed = match fs::read_dir(dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut entries = Vec::new();
        for entry in listed {
            let entry = entry?;
            let file_name = entry.file_name();
            let name = file_name.to_string_lossy().into_owned();
            if name.starts_with('.') {
                continue;
            }
            if entries.len() == max {
                break;
            }
            // The type comes with the listing; only some file systems make this a stat, which may
            // then find the entry gone: what is gone is not listed.
            let Ok(kind) = entry.file_type() else { continue };
            entries.push(Entry { name, file_name, is_file: kind.is_file(), is_dir: kind.is_dir() });
        }
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn rename_new(&self, from: &Path, to: &Path) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?)
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        use io::ErrorKind as Kind;
        match fs::remove_dir(dir) {
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::DirectoryNotEmpty) => Ok(()),
            other => other,
        }
    }

    fn touch(&self, path: &Path) -> io::Result<bool> {
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        match rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(errno) => Err(errno.into()),
        }
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        if parent(dir) != dir {
            self.create_dir(parent(dir))?;
        }
        match DirBuilder::new().mode(DIR_MODE).create(dir) {
            Ok(()) => fs::set_permissions(dir, Permissions::from_mode(DIR_MODE)),
            // Somebody was quicker.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && dir.is_dir() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn write_all_new(&self, files: &[(PathBuf, Vec<u8>)]) -> io::Result<()> {
        let Some((first, _)) = files.first() else { return Ok(()) };
        // Opened before anything is written: what fails to be written back is told to each descriptor that was open
        // by then, once.
        let file_system = OpenOptions::new().read(true).open(parent(first))?;
        files.iter().try_for_each(|(path, bytes)| self.write_new(path, bytes, false))?;
        Ok(rustix::fs::syncfs(&file_system)?)
    }

    fn copy_durably(&self, from: &Path, to: &Path, max: u64) -> Result<u64, ReadError> {
        let (source, _) = self.open_untrusted(from, max)?;
        let mut copy = self.create_new(to)?;
        let copied = pump(source, &mut copy, max).and_then(|len| Ok(self.sync(&copy).map(|()| len)?));
        drop(copy);
        copied.inspect_err(|_| {
            // The first error is the one to tell; a leftover temp file is cleared at the next start.
            let _ = self.unlink(to);
        })
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// Bytes that this user can still write to the file system that holds `path`.
///
/// # Errors
/// Those of `statvfs(3)`.
pub fn free_space(path: &Path) -> io::Result<u64> {
    fs2::available_space(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    fn crew() -> (tempfile::TempDir, FsStore) {
        let dir = tempfile::tempdir().unwrap();
        let store = FsStore::for_crew(dir.path()).unwrap();
        (dir, store)
    }

    /// Both ways by which untrusted files are read, and what each said.
    fn both(store: &FsStore, path: &Path, max: u64) -> [Result<u64, ReadError>; 2] {
        let copy = path.with_extension("copy");
        let copied = store.copy_durably(path, &copy, max);
        assert_eq!(copied.is_ok(), copy.exists(), "a refused copy leaves nothing");
        [store.read(path, max).map(|blob| blob.bytes.len() as u64), copied]
    }

    #[test]
    fn a_plain_file_is_read_and_copied() {
        let (dir, store) = crew();
        let path = dir.path().join("a");
        store.write_new(&path, b"hello", true).unwrap();
        for got in both(&store, &path, 5) {
            assert_eq!(got.unwrap(), 5);
        }
        let blob = store.read(&path, 5).unwrap();
        assert_eq!(blob.bytes, b"hello");
        assert_eq!(Some(blob.signature), store.stat(&path).unwrap());
        assert_eq!(store.read_at(&path, 1, 3).unwrap(), b"ell");
        assert_eq!(store.read_at(&path, 3, 100).unwrap(), b"lo");
    }

    #[test]
    fn what_is_no_regular_file_is_refused_without_blocking() {
        let (dir, store) = crew();
        let at = |name: &str| dir.path().join(name);
        nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        store.write_new(&at("target"), b"secret", false).unwrap();
        symlink(at("target"), at("symlink")).unwrap();
        store.create_dir(&at("directory")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        for (name, kind) in [
            ("fifo", "FIFO"),
            ("symlink", "symlink"),
            ("directory", "directory"),
            ("socket", "socket or device"),
        ] {
            for got in both(&store, &at(name), 100) {
                let got = got.unwrap_err();
                assert!(matches!(got, ReadError::NotRegular(k) if k == kind), "{name}: {got}");
            }
        }
        for got in both(&store, &at("nothing"), 100) {
            assert!(matches!(got.unwrap_err(), ReadError::Missing));
        }
    }

    #[test]
    fn a_huge_file_is_refused_by_its_size() {
        let (dir, store) = crew();
        let path = dir.path().join("huge");
        let file = store.create_new(&path).unwrap();
        store.set_len(&file, 10 << 30).unwrap();
        for got in both(&store, &path, 1000) {
            assert!(matches!(got.unwrap_err(), ReadError::TooLarge { size, max: 1000 } if size == 10 << 30));
        }
    }

    #[test]
    fn a_file_that_grows_while_it_is_read_is_cut_off_at_the_limit() {
        let mut bytes = Vec::new();
        let got = pump(io::repeat(b'x'), &mut bytes, 1000);
        assert!(matches!(got, Err(ReadError::TooLarge { size: 1001, max: 1000 })), "{got:?}");
        assert_eq!(bytes.len(), 1001);
    }

    #[test]
    fn a_foreign_owner_is_refused() {
        let (dir, store) = crew();
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can give a file away");
            return;
        }
        let path = dir.path().join("theirs");
        store.write_new(&path, b"x", false).unwrap();
        std::os::unix::fs::chown(&path, Some(54_321), None).unwrap();
        for got in both(&store, &path, 100) {
            assert!(matches!(got.unwrap_err(), ReadError::Foreign(54_321)));
        }
        let accepting = FsStore::new(vec![54_321]);
        for got in both(&accepting, &path, 100) {
            assert_eq!(got.unwrap(), 1);
        }
    }

    #[test]
    fn what_we_make_is_readable_by_all_whatever_the_umask() {
        let (dir, store) = crew();
        // The umask is the whole process's; no test beside this one depends on it.
        let before = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        let deep = dir.path().join("a/b/c");
        store.create_dir(&deep).unwrap();
        store.create_dir(&deep).unwrap();
        store.write_new(&deep.join("file"), b"", false).unwrap();
        rustix::process::umask(before);
        let mode = |path: PathBuf| store.stat(&path).unwrap().unwrap().mode & 0o7777;
        assert_eq!((mode(dir.path().join("a")), mode(deep.clone())), (0o755, 0o755));
        assert_eq!(mode(deep.join("file")), 0o644);
        assert!(store.create_dir(&deep.join("file")).is_err(), "a file is in the way");
    }

    #[test]
    fn appending_goes_to_the_end_after_a_cut() {
        let (dir, store) = crew();
        let path = dir.path().join("log");
        let (mut file, len) = store.open_append(&path).unwrap();
        assert_eq!(len, 0);
        store.append(&mut file, b"abcdef").unwrap();
        store.set_len(&file, 3).unwrap();
        store.append(&mut file, b"x").unwrap();
        assert_eq!(store.read(&path, 100).unwrap().bytes, b"abcx");
        assert_eq!(store.open_append(&path).unwrap().1, 4);
        symlink(&path, dir.path().join("alias")).unwrap();
        assert!(store.open_append(&dir.path().join("alias")).is_err());
    }

    #[test]
    fn a_listing_is_bounded_and_hides_dot_files() {
        let (dir, store) = crew();
        for name in [".hidden", "a", "b", "c"] {
            store.write_new(&dir.path().join(name), b"", false).unwrap();
        }
        assert_eq!(store.list(dir.path(), 2).unwrap().len(), 2);
        let mut names: Vec<_> =
            store.list(dir.path(), 10).unwrap().into_iter().map(|entry| entry.name).collect();
        names.sort();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(store.list(&dir.path().join("missing"), 10).unwrap().is_empty());
        store.unlink(&dir.path().join("missing")).unwrap();
    }

    #[test]
    fn a_taken_name_is_not_published_over() {
        let (dir, store) = crew();
        let (temp, path) = (dir.path().join("t"), dir.path().join("p"));
        store.publish_new(&temp, &path, b"first").unwrap();
        let again = store.publish_new(&temp, &path, b"second").unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
        assert!(!temp.exists());
        store.publish(&temp, &path, b"third").unwrap();
        assert_eq!(store.read(&path, 100).unwrap().bytes, b"third");
    }

    #[test]
    fn a_taken_name_is_not_renamed_over() {
        let (dir, store) = crew();
        let at = |name: &str| dir.path().join(name);
        store.write_new(&at("a"), b"a", false).unwrap();
        store.write_new(&at("b"), b"b", false).unwrap();
        assert_eq!(store.rename_new(&at("a"), &at("b")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(store.read(&at("b"), 100).unwrap().bytes, b"b");
        store.rename_new(&at("a"), &at("c")).unwrap();
        assert_eq!(store.rename_new(&at("a"), &at("d")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn many_files_are_written_whole_and_a_taken_name_stops_that() {
        let (dir, store) = crew();
        let files: Vec<_> = (0..3).map(|n: u8| (dir.path().join(n.to_string()), vec![n; 9])).collect();
        store.write_all_new(&files).unwrap();
        assert!(files.iter().all(|(path, bytes)| store.read(path, 9).unwrap().bytes == *bytes));
        assert_eq!(store.write_all_new(&files).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        store.write_all_new(&[]).unwrap();
    }

    #[test]
    fn free_space_is_told() {
        assert!(free_space(Path::new("/")).unwrap() > 0);
    }
}
