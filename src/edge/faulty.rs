//! For tests: the real file system, with a record of every primitive and faults on demand.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use super::files::FsStore;
use super::store::{Blob, Entry, ReadError, Signature, Store};

/// One fault: the next primitive of this name on a path that ends so fails with this errno.
#[derive(Debug, Clone)]
struct Fault {
    primitive: &'static str,
    ending: String,
    errno: rustix::io::Errno,
}

#[derive(Debug, Default)]
struct Shared {
    calls: Vec<String>,
    faults: Vec<Fault>,
}

#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    inner: FsStore,
    shared: Arc<Mutex<Shared>>,
}

/// A file that knows its name.
pub(crate) struct Named(File, String);

impl Faulty {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { inner: FsStore::for_crew(dir).unwrap(), shared: Arc::default() }
    }

    pub(crate) fn fail_next(&self, primitive: &'static str, ending: &str, errno: rustix::io::Errno) {
        self.shared.lock().unwrap().faults.push(Fault { primitive, ending: ending.to_owned(), errno });
    }

    /// The primitives called since this was last asked, as `name file-name`.
    pub(super) fn take_calls(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.lock().unwrap().calls)
    }

    fn called(&self, primitive: &'static str, path: &str) -> io::Result<()> {
        let name = path.rsplit('/').next().unwrap_or_default();
        self.shared.lock().unwrap().calls.push(format!("{primitive} {name}"));
        self.fail(primitive, path)
    }

    fn fail(&self, primitive: &'static str, path: &str) -> io::Result<()> {
        let mut shared = self.shared.lock().unwrap();
        let hit = shared.faults.iter().position(|f| f.primitive == primitive && path.ends_with(&f.ending));
        hit.map_or(Ok(()), |index| Err(shared.faults.remove(index).errno.into()))
    }

    fn called_on(&self, primitive: &'static str, path: &Path) -> io::Result<()> {
        self.called(primitive, &path.to_string_lossy())
    }
}

impl Store for Faulty {
    type File = Named;

    fn create_new(&self, path: &Path) -> io::Result<Named> {
        self.called_on("create", path)?;
        Ok(Named(self.inner.create_new(path)?, path.to_string_lossy().into_owned()))
    }
    fn open_append(&self, path: &Path) -> io::Result<(Named, u64)> {
        let (file, len) = self.inner.open_append(path)?;
        Ok((Named(file, path.to_string_lossy().into_owned()), len))
    }
    fn append(&self, file: &mut Named, bytes: &[u8]) -> io::Result<()> {
        if let Err(error) = self.called("append", &file.1) {
            // What a full disk does: a part is written.
            self.inner.append(&mut file.0, &bytes[..bytes.len() / 2])?;
            return Err(error);
        }
        self.inner.append(&mut file.0, bytes)
    }
    fn rewrite(&self, path: &Path, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.called_on("rewrite", path)?;
        self.inner.rewrite(path, offset, bytes)
    }
    fn sync(&self, file: &Named) -> io::Result<()> {
        self.called("sync", &file.1)?;
        self.inner.sync(&file.0)
    }
    fn set_len(&self, file: &Named, len: u64) -> io::Result<()> {
        self.called("set_len", &file.1)?;
        self.inner.set_len(&file.0, len)
    }
    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.called_on("sync_dir", dir)?;
        self.inner.sync_dir(dir)
    }
    fn read(&self, path: &Path, max: u64) -> Result<Blob, ReadError> {
        self.fail("read", &path.to_string_lossy())?;
        self.inner.read(path, max)
    }
    fn read_at(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        self.inner.read_at(path, offset, len)
    }
    fn stat(&self, path: &Path) -> io::Result<Option<Signature>> {
        self.inner.stat(path)
    }
    fn touch(&self, path: &Path) -> io::Result<bool> {
        self.called_on("touch", path)?;
        self.inner.touch(path)
    }
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.called_on("set_mode", path)?;
        self.inner.set_mode(path, mode)
    }
    fn resolve(&self, path: &Path) -> io::Result<PathBuf> {
        self.inner.resolve(path)
    }
    fn list(&self, dir: &Path, max: usize) -> io::Result<Vec<Entry>> {
        self.fail("list", &dir.to_string_lossy())?;
        self.inner.list(dir, max)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.called_on("rename", to)?;
        self.inner.rename(from, to)
    }
    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.called_on("link", to)?;
        self.inner.link(from, to)
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.called_on("unlink", path)?;
        self.inner.unlink(path)
    }
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.called_on("create_dir", dir)?;
        self.inner.create_dir(dir)
    }
    fn copy_durably(&self, from: &Path, to: &Path, max: u64) -> Result<u64, ReadError> {
        self.called_on("copy_durably", from)?;
        self.inner.copy_durably(from, to, max)
    }
}
