//! The files that globs of a manifest reach: those of `reload_on`, and those of `watch`.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use globset::{GlobBuilder, GlobSet, GlobSetBuilder};
use sha2::{Digest, Sha256};

use crate::edge::store::Store;
use crate::edge::watches::Scope;
use crate::protocol::digest::hex;
use crate::protocol::layout::Layout;

use super::catalog::{Problem, shell_word};

/// The most files and directories that are looked at for one agent, by key.
const ENTRIES_MAX: [(&str, usize); 2] = [("reload_on", 10_000), ("watch", 100_000)];
/// How deep directories are followed.
const DEPTH_MAX: usize = 32;

/// What the globs of one key of a manifest reach.
#[derive(Debug, Clone)]
pub(super) struct Reach {
    /// The key, for errors.
    key: &'static str,
    globs: GlobSet,
    /// Where to look, relative to the crew, and how many directories deep.
    bases: Vec<(PathBuf, usize)>,
}

impl Reach {
    /// Reads the globs, which are relative to the crew's directory.
    pub(super) fn new(key: &'static str, patterns: &[String]) -> Result<Self, Problem> {
        let mut builder = GlobSetBuilder::new();
        let mut bases = Vec::new();
        for pattern in patterns {
            let bad = |why: &str| {
                Problem::new(
                    format!("{key}: {pattern:?}: {why}"),
                    "write globs relative to the crew, such as \"lib/**/*.py\"",
                )
            };
            let inside = Path::new(pattern).components().all(|part| matches!(part, Component::Normal(_)));
            if !inside || pattern.is_empty() {
                return Err(bad("it must lie below the crew's directory"));
            }
            let glob = GlobBuilder::new(pattern)
                .literal_separator(true)
                .build()
                .map_err(|error| bad(&error.to_string()))?;
            builder.add(glob);
            bases.push(base(pattern));
        }
        let globs = builder
            .build()
            .map_err(|error| Problem::new(format!("{key}: {error}"), "use fewer or simpler globs"))?;
        Ok(Self { key, globs, bases })
    }

    /// The directories to watch, absolute, and how deep.
    pub(super) fn watched(&self, layout: &Layout) -> impl Iterator<Item = (PathBuf, Scope)> {
        let scope = |depth: usize| if depth > 1 { Scope::Tree } else { Scope::Entries };
        self.bases.iter().map(move |(base, depth)| (layout.crew().join(base), scope(*depth)))
    }

    /// A digest over path, size, time and mode of every file that matches: content is not read.
    /// Symlinks are not followed; what begins with a dot, and `state/`, is left out.
    pub(super) fn digest(&self, store: &impl Store, layout: &Layout) -> Result<String, Problem> {
        let mut hash = Sha256::new();
        for (path, version) in self.files(store, layout)? {
            hash.update(path.as_os_str().as_encoded_bytes());
            hash.update([0]);
            hash.update(version);
            hash.update([0]);
        }
        Ok(hex(&hash.finalize()))
    }

    /// Every file that matches, relative to the crew, with what tells its versions apart: size, time, mode and owner.
    pub(super) fn files(
        &self,
        store: &impl Store,
        layout: &Layout,
    ) -> Result<BTreeMap<PathBuf, String>, Problem> {
        let mut matches = BTreeMap::new();
        let mut budget = self.entries_max();
        for (base, depth) in &self.bases {
            self.walk(store, layout, base, *depth, &mut budget, &mut matches)?;
        }
        Ok(matches)
    }

    fn entries_max(&self) -> usize {
        ENTRIES_MAX.iter().find(|(key, _)| *key == self.key).map_or(0, |(_, max)| *max)
    }

    fn walk(
        &self,
        store: &impl Store,
        layout: &Layout,
        base: &Path,
        depth: usize,
        budget: &mut usize,
        matches: &mut BTreeMap<PathBuf, String>,
    ) -> Result<(), Problem> {
        let mut pending = vec![(base.to_owned(), depth)];
        while let Some((dir, depth)) = pending.pop() {
            let path = layout.crew().join(&dir);
            if path == layout.state() {
                continue;
            }
            let entries = store.list(&path, *budget + 1).map_err(|error| {
                Problem::new(
                    format!("{}: {} cannot be read: {error}", self.key, dir.display()),
                    format!("ls -ld {}", shell_word(&dir.to_string_lossy())),
                )
            })?;
            *budget = budget.checked_sub(entries.len()).ok_or_else(|| {
                Problem::new(
                    format!(
                        "{}: more than {} files lie where its globs may match",
                        self.key,
                        self.entries_max()
                    ),
                    "begin the globs with a narrower directory, such as \"src/**/*.js\"",
                )
            })?;
            for entry in entries {
                let relative = dir.join(&entry.name);
                if entry.is_dir && depth > 1 {
                    pending.push((relative, depth - 1));
                } else if entry.is_file
                    && self.globs.is_match(&relative)
                    && let Ok(Some(is)) = store.stat(&layout.crew().join(&relative))
                {
                    let line = format!("{} {} {:o} {}", is.size, is.mtime_ns, is.mode, is.uid);
                    matches.insert(relative, line);
                }
            }
        }
        Ok(())
    }
}

/// The directory below which a glob can match, and how many levels of names are to be looked at there.
fn base(pattern: &str) -> (PathBuf, usize) {
    let parts: Vec<&str> = pattern.split('/').collect();
    let names = parts.len().saturating_sub(1);
    let literal =
        parts.iter().take(names).take_while(|part| !part.contains(['*', '?', '[', '{', '\\'])).count();
    let dir = parts.iter().take(literal).collect();
    // Braces may hold separators, so that nothing is known of the depth.
    let boundless = pattern.contains("**") || pattern.contains('{');
    (dir, if boundless { DEPTH_MAX } else { parts.len() - literal })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_glob_is_looked_for_no_wider_than_it_reaches() {
        for (pattern, dir, depth) in [
            ("lib/**/*.py", "lib", DEPTH_MAX),
            ("*.toml", "", 1),
            ("lib/a.py", "lib", 1),
            ("a/*/c/*.js", "a", 3),
            ("{a,b}/x", "", DEPTH_MAX),
        ] {
            assert_eq!(base(pattern), (PathBuf::from(dir), depth), "{pattern}");
        }
    }

    #[test]
    fn globs_stay_inside_the_crew() {
        for bad in ["/etc/*", "../x", "", "a/[", "./../y"] {
            assert!(Reach::new("watch", &[bad.to_owned()]).is_err(), "{bad:?}");
        }
        assert!(Reach::new("watch", &["src/**/*.js".to_owned()]).is_ok());
    }
}
