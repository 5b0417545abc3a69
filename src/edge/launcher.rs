//! What the binary does when it is started again as the launcher of an agent.
//!
//! A process is made by `posix_spawn`, which cannot change its directory in a portable way. Where an agent
//! has a working directory of its own, the supervisor starts its own binary, which enters that directory
//! and then becomes the agent: same pid, same session, same descriptors.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::processes::explain;

/// Why the launcher did not become the agent.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The working directory could not be entered.
    #[error("the workdir {path} cannot be entered: {source}; make it, or change workdir")]
    Workdir {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No program was named.
    #[error("the command is empty: name a program")]
    Empty,
    /// The program could not be executed; the text says why and what to do.
    #[error("{0}")]
    Exec(String),
}

/// Enters `workdir` and becomes the program `argv[0]` with the arguments `argv`; the environment and the
/// standard streams stay as they are. It returns only if that fails.
///
/// # Errors
/// [`LaunchError`]
pub fn exec_agent(workdir: &Path, argv: &[OsString]) -> Result<Infallible, LaunchError> {
    let (program, args) = argv.split_first().ok_or(LaunchError::Empty)?;
    std::env::set_current_dir(workdir)
        .map_err(|source| LaunchError::Workdir { path: workdir.to_owned(), source })?;
    let error = Command::new(program).args(args).exec();
    Err(LaunchError::Exec(explain(Path::new(program), &error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_launch_that_fails_says_why() {
        let told = |workdir: &Path, argv: &[OsString]| {
            let Err(error) = exec_agent(workdir, argv);
            error.to_string()
        };
        // Entering a directory moves the whole process; this one is where tests run anyway.
        let here = std::env::current_dir().expect("a directory");
        assert!(told(Path::new("/no/such"), &["/bin/true".into()]).contains("/no/such cannot be entered"));
        assert!(told(&here, &[]).contains("empty"));
        assert!(told(&here, &["/no/such/agent".into()]).contains("/no/such/agent is missing"));
    }
}
