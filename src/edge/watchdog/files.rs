//! Signs of life: files that are looked at again and again, and the watchdog's own among them.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::{Sighting, Subject};
use crate::edge::store::{Signature, Store};

/// How large a heartbeat may grow, in bytes, before it is cut.
const BEAT_LEN_MAX: u64 = 64 * 1024;
/// How large the canary may grow.
const CANARY_LEN_MAX: u64 = 4096;

struct Known {
    path: PathBuf,
    /// What it was at the last look.
    seen: Seen,
}

enum Seen {
    Never,
    Missing,
    There(Signature),
}

/// All files that are watched, and what is known of them.
pub struct Files<S> {
    store: S,
    canary: PathBuf,
    /// Why our own beat could not be written the last time: said once, not at every round.
    trouble: Option<String>,
    known: BTreeMap<Subject, Known>,
}

impl<S: Store> Files<S> {
    /// Nothing to watch yet; `canary` is the watchdog's own beat.
    pub fn new(store: S, canary: PathBuf) -> Self {
        Self { store, canary, trouble: None, known: BTreeMap::new() }
    }

    /// Watches these files from now on. What is known of those that stay is kept.
    pub fn assign(&mut self, files: Vec<(Subject, PathBuf)>) {
        let mut before = std::mem::take(&mut self.known);
        for (subject, path) in files {
            let stays = before.remove(&subject).filter(|known| known.path == path);
            let known = stays.unwrap_or(Known { path, seen: Seen::Never });
            self.known.insert(subject, known);
        }
    }

    /// True if nothing is watched.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// One round: our own beat first, then a look at every file.
    pub fn look(&mut self, deliver: &mut impl FnMut(Sighting)) {
        let canary_alive = match beat(&self.store, &self.canary) {
            Ok(alive) => {
                self.trouble = None;
                alive
            }
            Err(error) => {
                let trouble = format!("heartbeats cannot be judged: {}: {error}", self.canary.display());
                if self.trouble.as_ref() != Some(&trouble) {
                    log::warn!("{trouble}");
                    self.trouble = Some(trouble);
                }
                false
            }
        };
        for (subject, known) in &mut self.known {
            let signature = match self.store.stat(&known.path) {
                Ok(signature) => signature,
                Err(error) => {
                    log::debug!("cannot look at {}: {error}", known.path.display());
                    continue;
                }
            };
            let Some(mut signature) = signature else {
                known.seen = Seen::Missing;
                continue;
            };
            let first = match &known.seen {
                Seen::Never => true,
                Seen::There(before) if *before == signature => continue,
                Seen::Missing | Seen::There(_) => false,
            };
            deliver(Sighting::Changed { subject: subject.clone(), signature, first });
            if matches!(subject, Subject::Beat(_)) && signature.is_regular() && signature.size > BEAT_LEN_MAX
            {
                match cut(&self.store, &known.path) {
                    Ok(Some(now)) => signature = now,
                    Ok(None) => {}
                    Err(error) => log::warn!("cannot cut {}: {error}", known.path.display()),
                }
            }
            known.seen = Seen::There(signature);
        }
        deliver(Sighting::Round { canary_alive });
    }
}

/// Beats as an agent does, by appending, and tells whether the beat can be seen as an agent's is. On a
/// full disk it cannot, and neither can theirs.
fn beat<S: Store>(store: &S, canary: &Path) -> io::Result<bool> {
    let before = store.stat(canary)?;
    let (mut file, len) = store.open_append(canary)?;
    if len >= CANARY_LEN_MAX {
        store.set_len(&file, 0)?;
    }
    store.append(&mut file, b"\n")?;
    let after = store.stat(canary)?;
    Ok(after.is_some() && after != before)
}

/// Empties a heartbeat in place, so that whoever follows it or holds it open goes on with the same file;
/// gives what it is then, which is our doing and no sign of life. A beat that falls between the look and
/// this is not seen; the next one is.
fn cut<S: Store>(store: &S, path: &Path) -> io::Result<Option<Signature>> {
    let (file, _) = store.open_append(path)?;
    store.set_len(&file, 0)?;
    store.stat(path)
}
