//! The few store primitives that tests of this layer's sensors need, over the real file system.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::store::{Blob, Entry, ReadError, Signature, Store};

#[derive(Debug, Clone)]
pub(crate) struct TestStore;

fn unneeded() -> io::Error {
    io::ErrorKind::Unsupported.into()
}

impl Store for TestStore {
    type File = File;

    fn create_new(&self, path: &Path) -> io::Result<File> {
        File::create_new(path)
    }
    fn open_append(&self, path: &Path) -> io::Result<(File, u64)> {
        let file = OpenOptions::new().append(true).create(true).open(path)?;
        let len = file.metadata()?.len();
        Ok((file, len))
    }
    fn append(&self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }
    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
    fn set_len(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }
    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Err(unneeded())
    }
    fn read(&self, _: &Path, _: u64) -> Result<Blob, ReadError> {
        Err(unneeded().into())
    }
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        let read = File::open(path)?.read_at(&mut bytes, offset)?;
        bytes.truncate(read);
        Ok(bytes)
    }
    fn touch(&self, _: &Path) -> io::Result<bool> {
        Err(unneeded())
    }
    fn set_mode(&self, _: &Path, _: u32) -> io::Result<()> {
        Err(unneeded())
    }
    fn resolve(&self, _: &Path) -> io::Result<PathBuf> {
        Err(unneeded())
    }
    fn stat(&self, path: &Path) -> io::Result<Option<Signature>> {
        let about = match fs::symlink_metadata(path) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let nanoseconds = |s: i64, ns: i64| i128::from(s) * 1_000_000_000 + i128::from(ns);
        Ok(Some(Signature {
            dev: about.dev(),
            ino: about.ino(),
            size: about.size(),
            mtime_ns: nanoseconds(about.mtime(), about.mtime_nsec()),
            ctime_ns: nanoseconds(about.ctime(), about.ctime_nsec()),
            mode: about.mode(),
            uid: about.uid(),
            gid: about.gid(),
        }))
    }
    fn list(&self, _: &Path, _: usize) -> io::Result<Vec<Entry>> {
        Err(unneeded())
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)
    }
    fn copy_durably(&self, _: &Path, _: &Path, _: u64) -> Result<u64, ReadError> {
        Err(unneeded().into())
    }
}
