//! What a command says when it fails: what is wrong, then what to do next.

use std::fmt;
use std::io;

use crate::app::client::ClientError;
use crate::app::client::memory::MemoryError;
use crate::app::outlast::OutlastError;
use crate::app::pull::PullError;
use crate::app::steps::StepError;
use crate::app::survey::SurveyError;
use crate::app::wake::WatchError;
use crate::app::work::WorkError;
use crate::app::world::CrewError;
use crate::protocol::record::RecordError;

use super::exit::Exit;

/// Why a command did not do what was asked.
#[derive(Debug)]
pub(crate) enum CliError {
    /// Something to tell.
    Told {
        /// The code to end with.
        exit: Exit,
        /// What is wrong.
        message: String,
        /// What to do next.
        hint: Option<String>,
    },
    /// Whoever read our output has closed it (`nightcrew tasks | head`): that is their right, and no error.
    ReaderGone,
}

impl CliError {
    fn told(exit: Exit, message: impl fmt::Display) -> Self {
        Self::Told { exit, message: message.to_string(), hint: None }
    }
    /// It failed.
    pub(crate) fn failed(message: impl fmt::Display) -> Self {
        Self::told(Exit::Failed, message)
    }
    /// The command line makes no sense.
    pub(crate) fn usage(message: impl fmt::Display) -> Self {
        Self::told(Exit::Usage, message)
    }
    /// What was handed in is refused.
    pub(crate) fn bad_input(message: impl fmt::Display) -> Self {
        Self::told(Exit::BadInput, message)
    }
    /// There is no such thing.
    pub(crate) fn nothing_there(message: impl fmt::Display) -> Self {
        Self::told(Exit::NothingThere, message)
    }
    /// No crew, or no supervisor.
    pub(crate) fn unavailable(message: impl fmt::Display) -> Self {
        Self::told(Exit::Unavailable, message)
    }
    /// Not now.
    pub(crate) fn try_again(message: impl fmt::Display) -> Self {
        Self::told(Exit::TryAgain, message)
    }
    /// Names the line of what was handed in that this is about.
    fn of_line(self, line: usize) -> Self {
        match self {
            Self::Told { exit, message, hint } => {
                let hint = hint
                    .or_else(|| Some("nothing was submitted; mend the line and hand in all again".into()));
                Self::Told { exit, message: format!("line {line}: {message}"), hint }
            }
            Self::ReaderGone => Self::ReaderGone,
        }
    }
    /// Adds what to do next.
    pub(crate) fn hint(self, next: impl fmt::Display) -> Self {
        match self {
            Self::Told { exit, message, .. } => Self::Told { exit, message, hint: Some(next.to_string()) },
            Self::ReaderGone => Self::ReaderGone,
        }
    }
    /// An error of standard output.
    pub(crate) fn of_output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::ReaderGone
        } else {
            Self::failed(format_args!("standard output: {error}"))
        }
    }
    /// The code to end with.
    pub(crate) fn exit(&self) -> Exit {
        match self {
            Self::Told { exit, .. } => *exit,
            Self::ReaderGone => Exit::Ok,
        }
    }
}

impl fmt::Display for CliError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told { message, hint: Some(hint), .. } => write!(f, "error: {message}\nhint: {hint}"),
            Self::Told { message, hint: None, .. } => write!(f, "error: {message}"),
            Self::ReaderGone => Ok(()),
        }
    }
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        let text = error.to_string();
        match error {
            ClientError::Io { error, .. } => Self::failed(text).hint(remedy(&error)),
            ClientError::Read { .. } => {
                Self::failed(text).hint("nightcrew reads regular files of known owners only")
            }
            ClientError::Record { error: RecordError::Newer(_), .. } => Self::failed(text),
            ClientError::Record { .. } => {
                Self::failed(text).hint("look at the file: it was not written by nightcrew's rules")
            }
            ClientError::Memory(MemoryError::NoValue(_)) => Self::usage(text),
            ClientError::Memory(MemoryError::TooLarge(_)) | ClientError::Refused(_) => Self::bad_input(text),
            ClientError::Memory(_) => Self::failed(text),
            ClientError::Payload(_) => Self::bad_input(text)
                .hint("a payload is JSON: numbers and words as they are, text in \"quotes\""),
            ClientError::UnknownNeed(_) => {
                Self::bad_input(text).hint("submit that one first; `nightcrew tasks` lists what there is")
            }
            ClientError::Line { line, error } => Self::from(*error).of_line(line),
            ClientError::NoSuchTask { .. } => {
                Self::nothing_there(text).hint("`nightcrew tasks` lists what there is, and where it stands")
            }
            ClientError::InTheWay { task, .. } => {
                Self::failed(text).hint(format_args!("`nightcrew tasks show {task}` tells how it stands"))
            }
            ClientError::Over { .. } => {
                Self::failed(text).hint("--now submits at once, whatever becomes of that task")
            }
            ClientError::Halted(_) => Self::try_again(text).hint("`nightcrew resume` ends the halt"),
            ClientError::Stopped { agent, .. } => {
                Self::try_again(text).hint(format_args!("`nightcrew start {agent}` lets it work again"))
            }
            ClientError::NoClaim => Self::nothing_there(text)
                .hint("`nightcrew claim` takes a task; outside a run, name the task's id"),
            ClientError::SeveralClaims(_) => Self::usage(text).hint("name the task's id"),
            ClientError::NotHeld { .. } => {
                Self::failed(text).hint("`nightcrew tasks --state claimed` tells who holds what")
            }
            ClientError::TooLate { .. } => Self::failed(text)
                .hint("it was handed in for the record and will be refused; drop this work and claim again"),
        }
    }
}

impl From<StepError> for CliError {
    fn from(error: StepError) -> Self {
        let text = error.to_string();
        match error {
            StepError::Client(ClientError::TooLate { .. }) => {
                Self::try_again(text).hint("nothing was run; drop this work, another will do it")
            }
            StepError::Client(error) => error.into(),
            StepError::LostMeanwhile(_) => Self::try_again(text).hint("drop this work, another will do it"),
            StepError::Busy(_) => Self::try_again(text).hint("leave out --no-wait to wait for it"),
            StepError::Lock { error, .. } => Self::failed(text).hint(remedy(&error)),
            StepError::Begun { path, .. } => Self::bad_input(text).hint(format_args!(
                "have --check COMMAND tell whether it was done; or look yourself, and if it was not: rm {}",
                path.display()
            )),
            StepError::Undecided(_) => Self::failed(text).hint("mend the check; nothing was run beside it"),
            StepError::TooLong => {
                Self::bad_input(text).hint("write what is large to a file and print its name")
            }
            StepError::NotStarted { .. } => {
                Self::failed(text).hint("name a program on PATH, or a path; `sh -c '…'` runs a command line")
            }
            StepError::Lost(_) => Self::failed(text).hint("nothing is recorded; look whether it was done"),
        }
    }
}

fn remedy(error: &io::Error) -> &'static str {
    let is = |kind| error.kind() == kind;
    if is(io::ErrorKind::StorageFull) || is(io::ErrorKind::QuotaExceeded) {
        "the disk is full: free some space"
    } else if is(io::ErrorKind::PermissionDenied) {
        "run this as the user that the crew belongs to"
    } else if is(io::ErrorKind::ReadOnlyFilesystem) {
        "the file system is read-only: mount it for writing"
    } else if is(io::ErrorKind::IsADirectory) || is(io::ErrorKind::NotADirectory) {
        "directories and files are mixed up there: move what does not belong aside (mv), then try again"
    } else {
        "nothing was acknowledged; trying again is safe"
    }
}

impl From<WatchError> for CliError {
    fn from(error: WatchError) -> Self {
        Self::failed(format_args!("cannot wait: {error}"))
    }
}

impl From<PullError> for CliError {
    fn from(error: PullError) -> Self {
        match error {
            PullError::Client(error) => error.into(),
            PullError::Watch(error) => error.into(),
            gone @ PullError::OwnerGone(_) => {
                Self::failed(gone).hint("nothing was claimed; name a process that lives as long as the work")
            }
        }
    }
}

impl From<OutlastError> for CliError {
    fn from(error: OutlastError) -> Self {
        match error {
            OutlastError::Client(error) => error.into(),
            OutlastError::Watch(error) => error.into(),
        }
    }
}

impl From<WorkError> for CliError {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Client(error) => error.into(),
            start @ WorkError::Start { .. } => {
                Self::failed(start).hint("its task was handed back; name a program that can be run")
            }
            wait @ WorkError::Wait { .. } => {
                Self::failed(wait).hint("it was killed, and its task is given up")
            }
        }
    }
}

impl From<SurveyError> for CliError {
    fn from(error: SurveyError) -> Self {
        let told = Self::failed(&error);
        match error {
            SurveyError::CrewFile(refusal) => told.hint(refusal.remedy),
            SurveyError::Io { .. } => told,
        }
    }
}

impl From<CrewError> for CliError {
    fn from(error: CrewError) -> Self {
        Self::unavailable(&error)
            .hint("`nightcrew init DIR` makes a crew; `nightcrew --crew DIR VERB` or NIGHTCREW_DIR names one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_pipe_is_no_error_and_all_else_says_what_to_do() {
        let gone = CliError::of_output(&io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(gone.exit(), Exit::Ok);
        let full = CliError::of_output(&io::Error::from(io::ErrorKind::StorageFull)).hint("free some space");
        assert_eq!(full.exit(), Exit::Failed);
        assert!(full.to_string().starts_with("error: standard output: "), "{full}");
        assert!(full.to_string().ends_with("\nhint: free some space"), "{full}");
    }

    #[test]
    fn a_directory_in_a_switchs_place_is_to_be_moved_not_tried_again() {
        assert!(remedy(&io::ErrorKind::IsADirectory.into()).contains("mv"));
        assert!(remedy(&io::ErrorKind::Interrupted.into()).contains("again"));
    }
}
