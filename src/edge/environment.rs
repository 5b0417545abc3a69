//! What a process is given when it starts: environment variables, directory, own file. Read once.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};

/// The environment as it was when the process started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
    here: PathBuf,
}

impl Environment {
    /// Reads the environment of this process.
    ///
    /// # Errors
    /// If the working directory is gone or cannot be read.
    pub fn read() -> io::Result<Self> {
        Ok(Self { variables: std::env::vars_os().collect(), here: std::env::current_dir()? })
    }

    /// An environment made up of these variables, for tests and simulations.
    #[must_use]
    pub fn of(here: &Path, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| (name.into(), value.into())).collect();
        Self { variables, here: here.into() }
    }

    /// The value of a variable; an empty one counts as absent.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str).filter(|value| !value.is_empty())
    }

    /// The value of a variable that is UTF-8 and not empty.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<&str> {
        self.get(name).and_then(OsStr::to_str)
    }

    /// Every variable.
    pub fn variables(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.variables.iter().map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// The working directory.
    #[must_use]
    pub fn here(&self) -> &Path {
        &self.here
    }
}

/// The user that this process acts as (its effective uid).
#[must_use]
pub fn user() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// The file of this program.
///
/// # Errors
/// If `/proc` is not mounted.
pub fn binary() -> io::Result<PathBuf> {
    std::env::current_exe()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_variable_counts_as_absent() {
        let environment = Environment::of(Path::new("/crew"), &[("A", "x"), ("B", "")]);
        assert_eq!(environment.text("A"), Some("x"));
        assert_eq!(environment.text("B"), None);
        assert_eq!(environment.text("C"), None);
    }
}
