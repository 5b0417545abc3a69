//! Looking at files in such a way that the next scan can tell, by stat alone, whether to look again.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use crate::edge::store::{Blob, ReadError, Signature, Store};

/// The bits of `st_mode` that hold the file's type.
const TYPE: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;
const DIRECTORY: u32 = 0o040_000;
const SYMLINK: u32 = 0o120_000;

/// True for a regular file.
pub(super) fn is_regular(signature: &Signature) -> bool {
    signature.mode & TYPE == REGULAR
}

/// True for a directory.
pub(super) fn is_dir(signature: &Signature) -> bool {
    signature.mode & TYPE == DIRECTORY
}

/// True for a regular file that someone may execute.
pub(super) fn is_program(signature: &Signature) -> bool {
    is_regular(signature) && signature.mode & 0o111 != 0
}

/// What was seen: each path that a judgement rests on, with what it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Seen {
    files: BTreeMap<PathBuf, Option<Signature>>,
    links: BTreeMap<PathBuf, Option<PathBuf>>,
    /// Something could not be seen for a reason that is not the file's and may pass (too many open files, say).
    obscured: bool,
}

impl Seen {
    /// True if everything still is as it was seen. It stats, and opens nothing.
    pub(super) fn still_holds(&self, store: &impl Store) -> bool {
        !self.obscured
            && self.links.iter().all(|(link, target)| store.resolve(link).ok() == *target)
            && self.files.iter().all(|(path, was)| store.stat(path).is_ok_and(|is| is == *was))
    }

    /// The paths, for whoever watches them.
    pub(super) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.files.keys().chain(self.links.keys()).map(PathBuf::as_path)
    }
}

/// A file as it is found at the end of its symlinks.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// Where it really lies.
    pub(super) path: PathBuf,
    /// What it is.
    pub(super) signature: Signature,
}

/// One look at the files of an agent: remembers all that it rests on.
pub(super) struct Look<'a, S> {
    store: &'a S,
    seen: Seen,
}

impl<'a, S: Store> Look<'a, S> {
    pub(super) fn new(store: &'a S) -> Self {
        Self { store, seen: Seen::default() }
    }

    pub(super) fn into_seen(self) -> Seen {
        self.seen
    }

    /// What lies at `path`, itself or behind its symlinks; `None` if nothing does.
    pub(super) fn at(&mut self, path: &Path) -> io::Result<Option<Found>> {
        let signature = self.stat(path)?;
        match signature {
            Some(link) if link.mode & TYPE == SYMLINK => {
                let target = self.store.resolve(path).ok();
                self.seen.links.insert(path.to_owned(), target.clone());
                let Some(target) = target else { return Ok(None) };
                let signature = self.stat(&target)?;
                Ok(signature.map(|signature| Found { path: target, signature }))
            }
            Some(signature) => Ok(Some(Found { path: path.to_owned(), signature })),
            None => Ok(None),
        }
    }

    /// True if `path`, which was looked at, is a symlink (to nothing, if [`Look::at`] found nothing).
    pub(super) fn is_link(&self, path: &Path) -> bool {
        self.seen.links.contains_key(path)
    }

    fn stat(&mut self, path: &Path) -> io::Result<Option<Signature>> {
        let found = self.store.stat(path);
        self.note(found.as_ref().err());
        let signature = found?;
        self.seen.files.insert(path.to_owned(), signature);
        Ok(signature)
    }

    /// The content of what was found. The judgement then rests on the file as it was while it was read.
    pub(super) fn read(&mut self, found: &Found, max: u64) -> Result<Blob, ReadError> {
        let read = self.store.read(&found.path, max);
        self.note(match &read {
            Err(ReadError::Io(error)) => Some(error),
            Ok(_) | Err(_) => None,
        });
        let blob = read?;
        self.seen.files.insert(found.path.clone(), Some(blob.signature));
        Ok(blob)
    }

    /// A part of what was found, for files too large to be read whole.
    pub(super) fn read_at(&mut self, found: &Found, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let read = self.store.read_at(&found.path, offset, len);
        self.note(read.as_ref().err());
        read
    }

    /// A refusal of rights ends with a change that can be seen; of other errors nothing tells when they end.
    fn note(&mut self, error: Option<&io::Error>) {
        self.seen.obscured |= error.is_some_and(|error| error.kind() != io::ErrorKind::PermissionDenied);
    }

    /// The first program of this name on a search path, as a shell would find it.
    pub(super) fn search(&mut self, path: &OsStr, program: &str) -> io::Result<Option<PathBuf>> {
        for dir in std::env::split_paths(path).filter(|dir| dir.is_absolute()) {
            let candidate = dir.join(program);
            if self.at(&candidate)?.is_some_and(|found| is_program(&found.signature)) {
                return Ok(Some(candidate));
            }
        }
        Ok(None)
    }
}
