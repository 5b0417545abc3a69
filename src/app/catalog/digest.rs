//! What makes one version of an agent differ from another, as one digest.
//!
//! It covers the program's content, mode and owner, the manifest, the environment files and what `reload_on`
//! covers. Of a program larger than [`WHOLE_LEN_MAX`] it covers size, time, and the first and last mebibyte:
//! reading half a gigabyte at each `touch` would cost more than it tells.

use std::io;

use sha2::{Digest, Sha256};

use crate::edge::store::{ReadError, Signature, Store};
use crate::protocol::digest::hex;

use super::look::{Found, Look};

/// The largest program that is read whole.
pub(super) const WHOLE_LEN_MAX: u64 = 8 * 1024 * 1024;
/// How much is read at either end of a larger one.
const END_LEN: usize = 1024 * 1024;

/// A digest in the making. Each part is framed by its name and length, so that no two sequences of parts
/// look alike.
pub(super) struct Version(Sha256);

impl Version {
    pub(super) fn new() -> Self {
        Self(Sha256::new())
    }

    pub(super) fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.update(format!("{name} {}\n", bytes.len()));
        self.0.update(bytes);
    }

    /// Adds what is no content: who owns the file and who may do what with it.
    pub(super) fn add_rights(&mut self, name: &str, signature: &Signature) {
        self.add(name, format!("{:o} {} {}", signature.mode, signature.uid, signature.gid).as_bytes());
    }

    pub(super) fn finish(self) -> String {
        hex(&self.0.finalize())
    }
}

/// What was read of a program: all of it, or its ends.
pub(super) struct Content {
    /// Its beginning, at least as far as its manifest may reach.
    pub(super) head: Vec<u8>,
    /// A digest of what counts as its content.
    pub(super) digest: String,
}

/// Reads a program as far as it counts.
pub(super) fn content(look: &mut Look<'_, impl Store>, found: &Found) -> Result<Content, ReadError> {
    let Signature { size, mtime_ns, .. } = found.signature;
    if size <= WHOLE_LEN_MAX {
        let blob = look.read(found, WHOLE_LEN_MAX)?;
        let digest = crate::protocol::digest::sha256(&blob.bytes);
        return Ok(Content { head: blob.bytes, digest });
    }
    let head = look.read_at(found, 0, END_LEN)?;
    let offset = size - u64::try_from(END_LEN).map_err(io::Error::other)?;
    let tail = look.read_at(found, offset, END_LEN)?;
    let mut version = Version::new();
    version.add("size", &size.to_le_bytes());
    version.add("time", &mtime_ns.to_le_bytes());
    version.add("head", &head);
    version.add("tail", &tail);
    Ok(Content { head, digest: version.finish() })
}
