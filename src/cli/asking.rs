//! Asking a running supervisor, and waiting for its answer.

use std::time::Duration;

use crate::app::client::Client;
use crate::app::world::{self, Disk};
use crate::protocol::request::{Answer, Ask};

use super::error::CliError;
use super::screen;

/// How long an answer is waited for.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Fails where no supervisor runs, who alone could do this.
pub(crate) fn supervised(client: &Client<Disk>, undone: &str) -> Result<(), CliError> {
    if world::is_supervised(client.layout()) {
        return Ok(());
    }
    Err(CliError::unavailable(format_args!("no supervisor runs, so {undone}"))
        .hint("`nightcrew run` starts one, and every agent"))
}

/// What the supervisor says of a request that it carries out.
pub(crate) fn ask(client: &mut Client<Disk>, ask: Ask) -> Result<String, CliError> {
    let (id, path) = client.ask(ask)?;
    let appeared = world::appears(&path, ANSWER_WITHIN);
    let answer = client.take_answer(&id)?;
    if answer.is_none() {
        client.withdraw(&id)?;
    }
    match (answer, appeared) {
        (Some(Answer { ok: true, text, .. }), _) => Ok(screen::one_line(&text)),
        (Some(Answer { ok: false, text, .. }), _) => Err(CliError::failed(screen::one_line(&text))),
        (None, Err(error)) => Err(CliError::failed(format_args!("cannot wait for the answer: {error}"))
            .hint("the request was withdrawn; `nightcrew status` tells what runs")),
        (None, Ok(_)) => {
            let seconds = ANSWER_WITHIN.as_secs();
            Err(CliError::try_again(format_args!("the supervisor did not answer within {seconds} s"))
                .hint("the request was withdrawn; `nightcrew status` tells whether the supervisor is well"))
        }
    }
}
