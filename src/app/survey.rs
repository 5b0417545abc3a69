//! A crew as its files tell it, without a supervisor: what would run, how, and what would not.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use crate::edge::environment::{self as own, Environment};
use crate::edge::files::FsStore;
use crate::edge::store::Store;
use crate::protocol::layout::Layout;
use crate::protocol::name::AgentName;
use crate::protocol::status::Refusal;

use super::catalog::{self, Catalog, Finding, Offer, Owners, Picture, Terms};

/// Makes the directory that is to be a crew; gives its files.
///
/// # Errors
/// If it cannot be made or looked at.
pub fn found(dir: &Path) -> io::Result<FsStore> {
    FsStore::new(Vec::new()).create_dir(dir)?;
    FsStore::for_crew(dir)
}

/// Why a crew cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// The file system said no.
    #[error("{path}: {error}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// `nightcrew.toml` cannot or must not be used.
    #[error("{}: {}", .0.file, .0.reason)]
    CrewFile(Refusal),
}

/// What is needed to look at a crew.
#[derive(Debug)]
pub struct Survey {
    /// Its files.
    pub store: FsStore,
    /// Where they lie.
    pub layout: Layout,
    /// Whose are trusted.
    pub owners: Owners,
    /// What holds for every agent.
    pub terms: Terms,
}

/// All agents of a crew.
#[derive(Debug, Default)]
pub struct Roster {
    /// Those that can run.
    pub offers: Vec<Offer>,
    /// The files that cannot or must not.
    pub refusals: Vec<Refusal>,
}

impl Survey {
    /// Prepares to look at a crew, with the environment that a supervisor started here would have.
    ///
    /// # Errors
    /// [`SurveyError`]
    pub fn new(layout: Layout, environment: &Environment) -> Result<Self, SurveyError> {
        let at = |path: PathBuf| move |error| SurveyError::Io { path, error };
        let crew = layout.crew().to_path_buf();
        let store = FsStore::for_crew(&crew).map_err(at(crew.clone()))?;
        let owner = store.stat(&crew).map_err(at(crew.clone()))?;
        let owner = owner.ok_or_else(|| at(crew)(io::Error::from(io::ErrorKind::NotFound)))?;
        let owners = Owners { us: own::user(), crew: owner.uid };
        let crew_file = catalog::crew_file(&store, &layout, owners).map_err(SurveyError::CrewFile)?;
        let inherited: BTreeMap<OsString, OsString> =
            environment.variables().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let binary = own::binary().unwrap_or_default();
        let binary_dir = binary.parent().map(PathBuf::from).unwrap_or_default();
        Ok(Self { store, layout, owners, terms: Terms { crew_file, inherited, binary_dir } })
    }

    fn catalog(&self) -> Catalog<FsStore> {
        Catalog::new(self.store.clone(), self.layout.clone(), self.owners, self.terms.clone())
    }

    /// Looks at every agent.
    ///
    /// # Errors
    /// If `agents/` cannot be listed.
    pub fn roster(&self) -> Result<Roster, SurveyError> {
        let mut roster = Roster::default();
        let findings = self.catalog().scan().map_err(|error| self.in_agents(error))?;
        for finding in findings {
            match finding {
                Finding::Offer(offer) => roster.offers.push(*offer),
                Finding::Refused { refusal, .. } => roster.refusals.push(refusal),
                // A first scan knows of nothing that could have gone.
                Finding::Gone { .. } | Finding::Cleared { .. } => {}
            }
        }
        Ok(roster)
    }

    /// Looks at one agent.
    ///
    /// # Errors
    /// If `agents/` cannot be listed.
    pub fn agent(&self, agent: &AgentName) -> Result<Picture, SurveyError> {
        self.catalog().try_one(agent).map_err(|error| self.in_agents(error))
    }

    fn in_agents(&self, error: io::Error) -> SurveyError {
        SurveyError::Io { path: self.layout.agents(), error }
    }
}
