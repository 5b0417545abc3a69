//! Temporary files that nobody is left to remove.

use std::path::{Path, PathBuf};

use crate::edge::store::{Store, temp_maker};
use crate::protocol::layout::Layout;

use super::inbox::LISTED_MAX;

/// Removes the temporary files of an earlier supervisor. Before any thread of this one makes its own there.
pub(super) fn clear_temporary_files<S: Store>(store: &S, dir: &Path) {
    for entry in store.list(dir, LISTED_MAX).unwrap_or_default() {
        if let Err(error) = store.unlink(&dir.join(&entry.name)) {
            log::warn!("{}: {error}", dir.join(&entry.name).display());
        }
    }
}

/// Where commands make their temporary files.
pub(super) fn tmp_of_commands<S: Store>(store: &S, layout: &Layout) -> Vec<PathBuf> {
    let agents = store.list(&layout.tmp_dir(), LISTED_MAX).unwrap_or_default();
    let agents = agents.into_iter().map(|entry| layout.tmp_dir().join(entry.name));
    agents.chain([layout.tmp_of_operator()]).collect()
}

/// Removes what commands that were killed had begun to write in `dir`, which nobody else would: `is_vacant` says
/// whether no process has a pid. What an agent makes itself there has other names and is its own.
pub(super) fn clear_files_of_commands<S: Store>(store: &S, dir: &Path, is_vacant: impl Fn(u32) -> bool) {
    let files = store.list(dir, LISTED_MAX).unwrap_or_default().into_iter();
    let left = files.filter(|file| temp_maker(&file.name).is_some_and(&is_vacant));
    for path in left.map(|file| dir.join(file.name)) {
        if let Err(error) = store.unlink(&path) {
            log::warn!("{}: {error}", path.display());
        }
    }
}
