//! Making a crew, and agents to begin with.

#[cfg(test)]
mod tests;

use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

use crate::edge::store::{Store, parent, temp_name};
use crate::protocol::layout::Layout;
use crate::protocol::name::{AgentName, Kind};

pub use super::catalog::shell_word;

/// The most entries of `agents/` that are looked at for one that has the name already.
const ENTRIES_MAX: usize = 100_000;
/// What a program's file may be used for, and by whom: written by its owner alone.
const PROGRAM_MODE: u32 = 0o755;

const HELLO: &str = include_str!("hello.sh");
const IGNORED: &str = "/state/\n.env\n.venv/\nnode_modules/\n__pycache__/\n";

/// What an agent is to be written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Language {
    /// POSIX shell.
    Sh,
    /// Python 3.
    Python,
    /// JavaScript, by Node.js.
    Node,
}

/// What an agent is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// Kept alive.
    Service,
    /// One process for each task of this kind.
    Handler(Kind),
}

/// Why nothing was made.
#[derive(Debug, thiserror::Error)]
pub enum ScaffoldError {
    /// It is there already, and is left as it is.
    #[error("{0} is there already")]
    Exists(PathBuf),
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

fn at(path: &Path) -> impl Fn(io::Error) -> ScaffoldError {
    let path = path.to_path_buf();
    move |error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            ScaffoldError::Exists(path.clone())
        } else {
            ScaffoldError::Io { path: path.clone(), error }
        }
    }
}

/// Makes files whole: each is written aside and then given its name, if that is free.
struct Maker<'a, S> {
    store: &'a S,
    temp_dir: PathBuf,
    pid: u32,
    made: u64,
}

impl<'a, S: Store> Maker<'a, S> {
    fn new(store: &'a S, layout: &Layout, pid: u32) -> Result<Self, ScaffoldError> {
        let temp_dir = layout.tmp_of_operator();
        store.create_dir(&temp_dir).map_err(at(&temp_dir))?;
        Ok(Self { store, temp_dir, pid, made: 0 })
    }

    fn make(&mut self, path: &Path, text: &str, mode: Option<u32>) -> Result<(), ScaffoldError> {
        self.made += 1;
        let temp = temp_name(&self.temp_dir, self.pid, self.made);
        // A process of the same id may have died here before.
        self.store.unlink(&temp).map_err(at(&temp))?;
        self.store.write_new(&temp, text.as_bytes(), true).map_err(at(&temp))?;
        let named = match mode {
            Some(mode) => self.store.set_mode(&temp, mode),
            None => Ok(()),
        }
        .and_then(|()| self.store.link(&temp, path));
        self.store.unlink(&temp).map_err(at(&temp))?;
        named.and_then(|()| self.store.sync_dir(parent(path))).map_err(at(path))
    }
}

/// Makes a crew with a first agent; gives what was made. `search_path` becomes the PATH of its agents.
///
/// # Errors
/// [`ScaffoldError::Exists`] if the directory holds a crew, or any of the files to be made.
pub fn init(
    store: &impl Store,
    layout: &Layout,
    search_path: &str,
    pid: u32,
) -> Result<Vec<PathBuf>, ScaffoldError> {
    let files = [
        (layout.agents().join("hello.sh"), HELLO.to_owned(), Some(PROGRAM_MODE)),
        (layout.crew_file(), crew_file(search_path), None),
        (layout.ignore_file(), IGNORED.to_owned(), None),
    ];
    let directories = [layout.agents(), layout.state()];
    for path in [layout.agents()].iter().chain(files.iter().map(|(path, ..)| path)) {
        if store.stat(path).map_err(at(path))?.is_some() {
            return Err(ScaffoldError::Exists(path.clone()));
        }
    }
    for dir in &directories {
        store.create_dir(dir).map_err(at(dir))?;
    }
    let mut maker = Maker::new(store, layout, pid)?;
    let mut made = Vec::new();
    for (path, text, mode) in files {
        maker.make(&path, &text, mode)?;
        made.push(path);
    }
    Ok(made)
}

fn crew_file(search_path: &str) -> String {
    format!(
        "# What holds for every agent. All of it may be missing; `nightcrew check` says what is in force.\n\
         \n\
         # The PATH that agents get. It was yours when this file was made, so that what works in your shell works\n\
         # when nobody is logged in, too.\n\
         path = {}\n\
         \n\
         # [defaults]\n\
         # stop_grace = \"10s\"\n\
         # max_rss = \"500M\"\n",
        toml_string(search_path)
    )
}

/// A TOML basic string.
fn toml_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                // Writing to a String cannot fail.
                let _ = write!(quoted, "\\u{:04X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Makes an agent from a template; gives its file.
///
/// # Errors
/// [`ScaffoldError::Exists`] if any file in `agents/` has this name, whatever its ending.
pub fn agent(
    store: &impl Store,
    layout: &Layout,
    name: &AgentName,
    purpose: &Purpose,
    language: Language,
    pid: u32,
) -> Result<PathBuf, ScaffoldError> {
    let dir = layout.agents();
    let entries = store.list(&dir, ENTRIES_MAX).map_err(at(&dir))?;
    let taken = entries.iter().find(|entry| super::catalog::stem(&entry.name) == name.as_str());
    if let Some(entry) = taken {
        return Err(ScaffoldError::Exists(dir.join(&entry.name)));
    }
    let (template, ext) = template(purpose, language);
    let kind = match purpose {
        Purpose::Service => "",
        Purpose::Handler(kind) => kind.as_str(),
    };
    let text = template.replace("@NAME@", name.as_str()).replace("@KIND@", kind);
    let path = dir.join(format!("{name}.{ext}"));
    Maker::new(store, layout, pid)?.make(&path, &text, Some(PROGRAM_MODE))?;
    Ok(path)
}

fn template(purpose: &Purpose, language: Language) -> (&'static str, &'static str) {
    match (purpose, language) {
        (Purpose::Service, Language::Sh) => (include_str!("service.sh"), "sh"),
        (Purpose::Service, Language::Python) => (include_str!("service.py"), "py"),
        (Purpose::Service, Language::Node) => (include_str!("service.mjs"), "mjs"),
        (Purpose::Handler(_), Language::Sh) => (include_str!("handler.sh"), "sh"),
        (Purpose::Handler(_), Language::Python) => (include_str!("handler.py"), "py"),
        (Purpose::Handler(_), Language::Node) => (include_str!("handler.mjs"), "mjs"),
    }
}
