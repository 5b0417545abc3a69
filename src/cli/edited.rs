//! Having the operator edit something, in the editor of their choice.

use crate::app::client::Client;
use crate::app::world::{self, Disk};

use super::context::Context;
use super::error::CliError;

/// What names the editor, the first that is set.
const VARIABLES: [&str; 2] = ["VISUAL", "EDITOR"];
/// The editor where none is named.
const EDITOR: &str = "vi";

/// What `take` makes of the bytes as the operator leaves them, at most `max` of them. What it refuses is kept, for
/// nobody to have to write it twice.
pub(crate) fn edited<T>(
    client: &mut Client<Disk>,
    context: &Context,
    bytes: &[u8],
    max: u64,
    take: impl Fn(Vec<u8>) -> Result<T, CliError>,
) -> Result<T, CliError> {
    let named = VARIABLES.into_iter().find_map(|variable| context.environment().text(variable));
    let editor = named.unwrap_or(EDITOR);
    let copy = client.draft(bytes)?;
    let failed = |why: String| {
        CliError::failed(format_args!("{editor}: {why}; nothing was changed"))
            .hint("$VISUAL or $EDITOR names the editor")
    };
    let left = match world::edit(editor, &copy) {
        Ok(true) => Ok(client.take_draft(&copy, max)?),
        Ok(false) => Err(failed("it failed, or was told to".into())),
        Err(error) => Err(failed(error.to_string())),
    };
    let taken = match left {
        Ok(bytes) => take(bytes).map_err(|error| {
            error.hint(format_args!("nothing was changed; your text is in {}", copy.display()))
        })?,
        Err(error) => {
            client.discard(&copy)?;
            return Err(error);
        }
    };
    client.discard(&copy)?;
    Ok(taken)
}
