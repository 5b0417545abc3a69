//! The catalogue: what lies in `agents/`, and whether it can run.
//!
//! A scan is level-triggered: it compares what is there with what was there at the last scan, and tells only
//! what changed. Each judgement remembers every path it rests on with its [`Signature`](crate::edge::store::Signature);
//! as long as those stand, an agent costs a few `lstat` and nothing is opened.
//!
//! What a file is refused for never takes away what was accepted before: the finding says so, and whoever
//! runs the agents keeps the version that they have.

mod access;
mod clock;
mod digest;
mod judge;
mod look;
mod offer;
mod shebang;
mod terms;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;

use crate::edge::store::Store;
use crate::edge::watches::Scope;
pub use crate::machine::timetable::Timetable;
use crate::protocol::layout::Layout;
use crate::protocol::manifest::Manifest;
use crate::protocol::name::AgentName;
use crate::protocol::status::Refusal;

use crate::app::reach::Reach;
pub use access::Owners;
use look::{Look, Seen};
pub use terms::{Terms, crew_file};

/// The most entries of `agents/`.
pub const ENTRIES_MAX: usize = 4096;
/// The ending of a manifest's file.
const MANIFEST_EXT: &str = "toml";
/// What editors, backups and documentation end in.
const IGNORED_EXTS: &[&str] = &["bak", "orig", "swp", "tmp", "md", "txt"];

/// An agent that can run.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// Its name.
    pub agent: AgentName,
    /// The file that it is, relative to the crew.
    pub file: String,
    /// SHA-256 over all that makes this version what it is.
    pub digest: String,
    /// What it declares.
    pub manifest: Manifest,
    /// When its schedule fires, if it has one.
    pub table: Option<Timetable>,
    /// Program (absolute) and arguments.
    pub argv: Vec<OsString>,
    /// Its working directory (absolute), where that is not the crew.
    pub workdir: Option<PathBuf>,
    /// What the crew's `.env` holds.
    pub dot_env: BTreeMap<String, String>,
    /// What its `env_file` holds.
    pub env_file: BTreeMap<String, String>,
    /// What is doubtful, but no reason not to run it.
    pub warnings: Vec<String>,
}

/// What changed since the last scan. For one agent, an offer comes first and withdraws every refusal told
/// before; refusals told after it stand beside it.
#[derive(Debug, Clone, PartialEq)]
pub enum Finding {
    /// An agent, or another version of one, can run. (The digest is the same if only a refusal was withdrawn.)
    Offer(Box<Offer>),
    /// A file cannot or must not run. If its agent was offered before, the version that runs may go on.
    Refused {
        /// Its agent; absent if the file's name is no agent's.
        agent: Option<AgentName>,
        /// Why, and what to do.
        refusal: Refusal,
    },
    /// No file of this agent is left.
    Gone {
        /// The agent.
        agent: AgentName,
    },
    /// A file without an agent's name, refused before, is gone.
    Cleared {
        /// The file, relative to the crew.
        file: String,
    },
}

/// What is wrong and what to do, before it is known about which file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::app) struct Problem {
    pub(in crate::app) reason: String,
    pub(in crate::app) remedy: String,
}

impl Problem {
    pub(in crate::app) fn new(reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { reason: reason.into(), remedy: remedy.into() }
    }

    fn about(self, file: impl Into<String>) -> Refusal {
        Refusal { file: file.into(), reason: self.reason, remedy: self.remedy }
    }
}

/// All that is to be told of the files with one stem.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    /// What can run.
    pub offer: Option<Box<Offer>>,
    /// What cannot or must not.
    pub refusals: Vec<Refusal>,
}

/// The files with one stem, as they were judged last.
#[derive(Debug)]
struct Group {
    files: Vec<String>,
    seen: Seen,
    /// The globs of `reload_on`, and what they covered.
    reload: Option<(Reach, Result<String, Problem>)>,
    /// The file that was accepted last: it has precedence over others with the same stem.
    accepted: Option<String>,
    picture: Picture,
}

/// The scan of `agents/`, with what it knows from the last time.
#[derive(Debug)]
pub struct Catalog<S> {
    store: S,
    layout: Layout,
    owners: Owners,
    terms: Terms,
    groups: BTreeMap<String, Group>,
}

impl<S: Store> Catalog<S> {
    /// A catalogue that has seen nothing yet.
    pub fn new(store: S, layout: Layout, owners: Owners, terms: Terms) -> Self {
        Self { store, layout, owners, terms, groups: BTreeMap::new() }
    }

    /// Takes what `nightcrew.toml` says now; where that is something else, the next scan judges every agent anew.
    pub fn configure(&mut self, terms: Terms) {
        if terms == self.terms {
            return;
        }
        self.terms = terms;
        for group in self.groups.values_mut() {
            // No list of files is empty, so that this one never equals the next.
            group.files.clear();
        }
    }

    /// Looks at `agents/` and tells what changed since the last time.
    ///
    /// # Errors
    /// If the directory is missing or cannot be listed, or holds more than [`ENTRIES_MAX`] entries; nothing has
    /// changed then. What is wrong with one file is a finding about it.
    pub fn scan(&mut self) -> io::Result<Vec<Finding>> {
        let stems = self.stems()?;
        let mut findings = Vec::new();
        let vanished: Vec<String> =
            self.groups.keys().filter(|stem| !stems.contains_key(*stem)).cloned().collect();
        for stem in vanished {
            if let Some(group) = self.groups.remove(&stem) {
                tell(&stem, &group.picture, &Picture::default(), group.accepted.is_some(), &mut findings);
            }
        }
        for (stem, files) in stems {
            let before = self.groups.get(&stem);
            if before.is_some_and(|group| group.files == files && self.still_holds(group)) {
                continue;
            }
            let after = self.judge(&stem, files, before.and_then(|group| group.accepted.clone()));
            let (was, had) = match before {
                Some(group) => (group.picture.clone(), group.accepted.is_some()),
                None => (Picture::default(), false),
            };
            tell(&stem, &was, &after.picture, had, &mut findings);
            self.groups.insert(stem, after);
        }
        Ok(findings)
    }

    /// Looks at one agent alone, and remembers nothing.
    ///
    /// # Errors
    /// As [`Catalog::scan`].
    pub fn try_one(&self, agent: &AgentName) -> io::Result<Picture> {
        let files = self.stems()?.remove(agent.as_str());
        Ok(files.map(|files| self.judge(agent.as_str(), files, None).picture).unwrap_or_default())
    }

    /// What is known of an agent since the last scan.
    #[must_use]
    pub fn known(&self, agent: &AgentName) -> Option<&Picture> {
        self.groups.get(agent.as_str()).map(|group| &group.picture)
    }

    /// What to watch beside `agents/` itself, because a change of it may change an agent: environment files and
    /// targets of symlinks, each alone, and the directories that `reload_on` covers.
    #[must_use]
    pub fn watched(&self) -> BTreeSet<(PathBuf, Scope)> {
        let agents = self.layout.agents();
        let of_group = |group: &Group| {
            let files = group.seen.paths().filter(|path| path.parent() != Some(&agents));
            let files = files.map(|path| (path.to_path_buf(), Scope::File));
            let bases = group.reload.iter().flat_map(|(reload, _)| reload.watched(&self.layout));
            files.chain(bases).collect::<Vec<_>>()
        };
        // A path is watched in one way: where it is a file of one agent and a directory of another's globs, as
        // that, and the deeper one wins.
        let rank = |scope: Scope| match scope {
            Scope::File => 0,
            Scope::Entries => 1,
            Scope::Tree => 2,
        };
        let mut watched: BTreeMap<PathBuf, Scope> = BTreeMap::new();
        for (path, scope) in self.groups.values().flat_map(of_group) {
            if path.starts_with(self.layout.crew()) {
                let kept = watched.entry(path).or_insert(scope);
                *kept = std::cmp::max_by_key(*kept, scope, |scope| rank(*scope));
            }
        }
        watched.into_iter().collect()
    }

    fn still_holds(&self, group: &Group) -> bool {
        group.seen.still_holds(&self.store)
            && group
                .reload
                .as_ref()
                .is_none_or(|(reload, was)| reload.digest(&self.store, &self.layout) == *was)
    }

    /// What may be of interest in `agents/`: file names by stem, in order.
    fn stems(&self) -> io::Result<BTreeMap<String, Vec<String>>> {
        let dir = self.layout.agents();
        if !self.store.stat(&dir)?.is_some_and(|signature| look::is_dir(&signature)) {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                format!("{} is not there, or no directory", dir.display()),
            ));
        }
        let entries = self.store.list(&dir, ENTRIES_MAX + 1)?;
        if entries.len() > ENTRIES_MAX {
            return Err(io::Error::other(format!(
                "{} holds more than {ENTRIES_MAX} entries: move out what is no agent",
                dir.display()
            )));
        }
        let mut stems: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for entry in entries {
            let (stem, ext) = split(&entry.name);
            let ignored = entry.is_dir
                || entry.name.starts_with('.')
                || entry.name.ends_with('~')
                || ext.is_some_and(|ext| IGNORED_EXTS.contains(&ext));
            if !ignored {
                stems.entry(stem.to_owned()).or_default().push(entry.name);
            }
        }
        for files in stems.values_mut() {
            files.sort_unstable();
        }
        Ok(stems)
    }

    fn judge(&self, stem: &str, files: Vec<String>, accepted: Option<String>) -> Group {
        let mut look = Look::new(&self.store);
        let (picture, reload) = judge::Judge {
            layout: &self.layout,
            owners: self.owners,
            terms: &self.terms,
            store: &self.store,
        }
        .group(&mut look, stem, &files, accepted.as_deref());
        let accepted = picture.offer.as_ref().map(|offer| offer.file.clone()).or(accepted);
        Group { files, seen: look.into_seen(), reload, accepted, picture }
    }
}

/// Appends what is to be told where `was` turned into `is`. `had` says whether the agent was ever offered.
fn tell(stem: &str, was: &Picture, is: &Picture, had: bool, findings: &mut Vec<Finding>) {
    if was == is {
        return;
    }
    let agent: Option<AgentName> = stem.parse().ok();
    match (&is.offer, &agent) {
        (Some(offer), _) => findings.push(Finding::Offer(offer.clone())),
        (None, Some(agent)) if is.refusals.is_empty() && (had || !was.refusals.is_empty()) => {
            findings.push(Finding::Gone { agent: agent.clone() });
        }
        (None, Some(_)) => {}
        (None, None) => {
            let cleared = was.refusals.iter().filter(|refusal| !is.refusals.contains(refusal));
            findings.extend(cleared.map(|refusal| Finding::Cleared { file: refusal.file.clone() }));
        }
    }
    let refused = is.refusals.iter().cloned();
    findings.extend(refused.map(|refusal| Finding::Refused { agent: agent.clone(), refusal }));
}

/// A file name's stem and extension: what is before and behind its last dot.
fn split(file: &str) -> (&str, Option<&str>) {
    match file.rsplit_once('.') {
        Some((stem, ext)) if !stem.is_empty() => (stem, Some(ext)),
        _ => (file, None),
    }
}

/// The name of the agent that a file in `agents/` is of, if it is one: its name up to the last dot.
#[must_use]
pub fn stem(file: &str) -> &str {
    split(file).0
}

/// Quotes a word for a shell, where that is needed: remedies are there to be pasted.
#[must_use]
pub fn shell_word(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./+:@%,=".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    // What a terminal would act upon must not reach it; such a name has to be typed with a pattern.
    let shown: String = word.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    format!("'{}'", shown.replace('\'', "'\\''"))
}
