//! Doing the same for several tasks: what fails for one is told, and the others are seen to.

use crate::protocol::name::TaskId;

use super::error::CliError;
use super::exit::Exit;
use super::screen;

/// Does it for each. Of one alone the error is the command's; of several each is told, and the first decides how the
/// command ends.
pub(crate) fn each(
    tasks: &[TaskId],
    mut act: impl FnMut(&TaskId) -> Result<(), CliError>,
) -> Result<Exit, CliError> {
    let mut exit = Exit::Ok;
    for task in tasks {
        match act(task) {
            Ok(()) => {}
            Err(error @ CliError::ReaderGone) => return Err(error),
            Err(error) if tasks.len() == 1 => return Err(error),
            Err(error) => {
                screen::complain(&error);
                exit = if exit == Exit::Ok { error.exit() } else { exit };
            }
        }
    }
    Ok(exit)
}
