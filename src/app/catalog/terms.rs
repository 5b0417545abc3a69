//! What the crew has for every agent, on which each judgement rests too.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use crate::app::environment::{self, Inputs, PATH_DEFAULT};
use crate::edge::store::Store;
use crate::protocol::crewfile::{self, CrewFile};
use crate::protocol::layout::Layout;
use crate::protocol::manifest::Manifest;
use crate::protocol::name::AgentName;
use crate::protocol::record::SMALL_LEN_MAX;
use crate::protocol::status::Refusal;

use super::access::Owners;
use super::look::Look;
use super::{Problem, judge};

/// What decides an agent's environment, beside its own files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Terms {
    /// What `nightcrew.toml` says.
    pub crew_file: CrewFile,
    /// The environment that the supervisor itself was started with.
    pub inherited: BTreeMap<OsString, OsString>,
    /// The directory of the nightcrew binary.
    pub binary_dir: PathBuf,
}

impl Terms {
    /// The PATH that an agent gets: where its commands and interpreters are looked up.
    pub(super) fn search_path(
        &self,
        layout: &Layout,
        agent: &AgentName,
        manifest: &Manifest,
        dot_env: &BTreeMap<String, String>,
        env_file: &BTreeMap<String, String>,
    ) -> OsString {
        let variables = environment::environment(&Inputs {
            layout,
            agent,
            // Any name serves: PATH does not depend on the run.
            run: agent,
            manifest,
            crew_file: &self.crew_file,
            dot_env,
            env_file,
            inherited: &self.inherited,
            binary_dir: &self.binary_dir,
            heartbeat: Path::new(""),
            task: None,
        });
        let path = variables.into_iter().find(|(name, _)| name == OsStr::new("PATH"));
        path.map_or_else(|| PATH_DEFAULT.into(), |(_, value)| value)
    }
}

/// Reads `nightcrew.toml`; a missing one says nothing.
///
/// # Errors
/// Why it cannot or must not be used, and what to do.
pub fn crew_file(store: &impl Store, layout: &Layout, owners: Owners) -> Result<CrewFile, Refusal> {
    let path = layout.crew_file();
    let shown = judge::relative_to(layout, &path);
    let mut look = Look::new(store);
    let read = judge::read_trusted(&mut look, &path, &shown, SMALL_LEN_MAX, |signature, file| {
        owners.judge(signature, file)
    });
    match read {
        Ok(None) => Ok(CrewFile::default()),
        Ok(Some((blob, _))) => {
            crewfile::parse(&shown, &blob.bytes).map_err(|errors| judge::misdeclared(&errors, &shown))
        }
        Err(Problem { reason, remedy }) => Err(Refusal { file: shown, reason, remedy }),
    }
}
