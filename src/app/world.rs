//! The real world, put together for commands: which crew, which clock, which randomness.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use crate::edge::files::FsStore;
use crate::edge::flock;
use crate::edge::store::Store;
use crate::protocol::layout::Layout;
use crate::protocol::time::Wall;
use crate::protocol::variables::ENV_DIR;

pub use crate::edge::appear::{appears, look_until};
pub use crate::edge::clock::{Clock, SystemClock};
pub use crate::edge::editor::edit;
pub use crate::edge::environment::Environment;
pub use crate::edge::foreground::EndSignals;
pub use crate::edge::launcher::exec_agent;
pub use crate::edge::processes::{identity_of, root_of_run};
pub use crate::edge::store::ReadError;

/// The real file system.
pub type Disk = FsStore;

/// The crew's files, as they are on disk.
///
/// # Errors
/// If the crew's directory cannot be looked at.
pub fn store(layout: &Layout) -> io::Result<Disk> {
    FsStore::for_crew(layout.crew())
}

/// Reads a whole file of at most `max` bytes.
///
/// # Errors
/// [`ReadError`]; what is no regular file, or too large, is refused.
pub fn read(store: &Disk, path: &Path, max: u64) -> Result<Vec<u8>, ReadError> {
    store.read(path, max).map(|blob| blob.bytes)
}

/// True if a supervisor runs this crew. Where that cannot be told, none is assumed: what commands do by
/// files is right in either case.
#[must_use]
pub fn is_supervised(layout: &Layout) -> bool {
    flock::probe(layout).is_ok_and(|held| held.is_some())
}

/// Why no crew was found.
#[derive(Debug, thiserror::Error)]
pub enum CrewError {
    /// A directory that was named holds no `agents/`.
    #[error("{path} is no crew: it holds no agents/ (named by {by})")]
    NotACrew {
        /// The directory.
        path: PathBuf,
        /// What named it.
        by: &'static str,
    },
    /// A directory that was named cannot be looked at.
    #[error("{path}: {error} (named by {by})")]
    Unreadable {
        /// The directory.
        path: PathBuf,
        /// What named it.
        by: &'static str,
        /// Why.
        error: io::Error,
    },
    /// No directory from here upwards holds `agents/`.
    #[error("no crew here: neither {0} nor any directory above it holds agents/")]
    NoneAbove(PathBuf),
}

/// Finds the crew as git finds its directory: the one named, else the one that `NIGHTCREW_DIR` names, else
/// the first from here upwards that holds `agents/`.
///
/// # Errors
/// [`CrewError`]; a directory that was named is never passed over for another.
pub fn find_crew(named: Option<&Path>, environment: &Environment) -> Result<Layout, CrewError> {
    if let Some(path) = named {
        return crew_at(&environment.here().join(path), "--crew");
    }
    if let Some(path) = environment.get(ENV_DIR) {
        return crew_at(&environment.here().join(path), "$NIGHTCREW_DIR");
    }
    let here = environment.here();
    match here.ancestors().find(|dir| Layout::marks_a_crew(dir).is_dir()) {
        Some(dir) => Ok(Layout::new(dir)),
        None => Err(CrewError::NoneAbove(here.into())),
    }
}

fn crew_at(path: &Path, by: &'static str) -> Result<Layout, CrewError> {
    let dir = path.canonicalize().map_err(|error| CrewError::Unreadable { path: path.into(), by, error })?;
    if Layout::marks_a_crew(&dir).is_dir() {
        Ok(Layout::new(dir))
    } else {
        Err(CrewError::NotACrew { path: dir, by })
    }
}

/// Randomness seeded by the operating system: for nonces, ids and jitter, not for secrets.
#[must_use]
pub fn randomness() -> fastrand::Rng {
    // The keys of a RandomState come from the operating system; fastrand's own seed does not.
    fastrand::Rng::with_seed(RandomState::new().hash_one(std::process::id()))
}

/// A fresh id that sorts by time: a ULID, as text.
pub fn fresh_id(at: Wall, random: &mut fastrand::Rng) -> String {
    let ms = u64::try_from(at.0).unwrap_or(0);
    ulid::Ulid::from_parts(ms, random.u128(..)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crew_is_found_from_below_and_a_named_one_is_never_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let crew = dir.path().canonicalize().unwrap().join("crew");
        let below = crew.join("agents").join("deep");
        std::fs::DirBuilder::new().recursive(true).create(&below).unwrap();
        let found = find_crew(None, &Environment::of(&below, &[])).unwrap();
        assert_eq!(found.crew(), crew);

        let outside = dir.path();
        let by_flag = find_crew(Some(Path::new("crew")), &Environment::of(outside, &[])).unwrap();
        assert_eq!(by_flag.crew(), crew);
        let by_variable = Environment::of(outside, &[(ENV_DIR, "crew/agents/..")]);
        assert_eq!(find_crew(None, &by_variable).unwrap().crew(), crew);

        let wrong = Environment::of(&below, &[(ENV_DIR, outside.to_str().unwrap())]);
        assert!(matches!(find_crew(None, &wrong), Err(CrewError::NotACrew { .. })));
        assert!(matches!(
            find_crew(Some(Path::new("nowhere")), &wrong),
            Err(CrewError::Unreadable { by: "--crew", .. })
        ));
    }

    #[test]
    fn fresh_ids_are_names_that_differ() {
        let mut random = randomness();
        let one = fresh_id(Wall(1), &mut random);
        assert!(one.parse::<crate::protocol::name::Name>().is_ok());
        assert_ne!(one, fresh_id(Wall(1), &mut random));
    }
}
