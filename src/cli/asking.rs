//! Asking a running supervisor, and waiting for its answer.

use std::time::Duration;

use crate::app::client::Client;
use crate::app::world::{self, Disk};
use crate::protocol::request::{Answer, Ask};

use super::error::CliError;
use super::screen;

/// How long an answer is waited for, where nobody has to be waited for first.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// How long an answer is waited for, and what to say if none came.
pub(crate) struct Patience<'a> {
    within: Duration,
    hint: &'a str,
}

impl Patience<'static> {
    /// For what is answered as soon as it is recorded.
    pub(crate) const SHORT: Self = Self {
        within: ANSWER_WITHIN,
        hint: "the request was withdrawn; `nightcrew status` tells whether the supervisor is well",
    };

    /// For what is answered once whoever works on a task has ended, who is given so long for that.
    pub(crate) fn until_ended(grace_ms: u64) -> Self {
        let hint = "what was begun goes on, and `nightcrew tasks show ID` tells what becomes of each; \
                    `nightcrew status` tells whether the supervisor is well";
        Self { within: ANSWER_WITHIN + Duration::from_millis(grace_ms), hint }
    }
}

/// Fails where no supervisor runs, who alone could do this.
pub(crate) fn supervised(client: &Client<Disk>, undone: &str) -> Result<(), CliError> {
    if world::is_supervised(client.layout()) {
        return Ok(());
    }
    Err(CliError::unavailable(format_args!("no supervisor runs, so {undone}"))
        .hint("`nightcrew run` starts one, and every agent"))
}

/// What the supervisor says of a request that it carries out.
pub(crate) fn ask(client: &mut Client<Disk>, ask: Ask, patience: &Patience<'_>) -> Result<String, CliError> {
    let within = patience.within;
    let (id, path) = client.ask(ask)?;
    let appeared = world::appears(&path, within);
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
            let seconds = within.as_secs();
            Err(CliError::try_again(format_args!("the supervisor did not answer within {seconds} s"))
                .hint(patience.hint))
        }
    }
}
