//! What every command is given.

use std::path::{Path, PathBuf};

use crate::app::client::finish::Held;
use crate::app::client::{Caller, Client};
use crate::app::survey::Survey;
use crate::app::world::{self, Clock, Disk, Environment, SystemClock};
use crate::protocol::layout::Layout;
use crate::protocol::time::{Mono, Wall};
use crate::protocol::variables::{
    ENV_AGENT, ENV_DIR, ENV_HEARTBEAT, ENV_NONCE, ENV_RUN, ENV_TASK, ENV_TOKEN,
};

use super::error::CliError;

/// The world as a command sees it.
#[derive(Debug)]
pub(crate) struct Context {
    crew: Option<PathBuf>,
    environment: Environment,
    clock: SystemClock,
}

impl Context {
    /// The context of a command line that named this crew, or none.
    pub(crate) fn new(crew: Option<PathBuf>, environment: Environment) -> Self {
        Self { crew, environment, clock: SystemClock::new() }
    }

    /// Where the crew's files lie. Fails where there is no crew: only commands that need one ask.
    pub(crate) fn layout(&self) -> Result<Layout, CliError> {
        Ok(world::find_crew(self.crew.as_deref(), &self.environment)?)
    }

    /// The environment this command was started with.
    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    /// What time it is, for records.
    pub(crate) fn wall(&self) -> Wall {
        self.clock.now().wall
    }

    /// What intervals are judged on.
    pub(crate) fn clock(&self) -> &SystemClock {
        &self.clock
    }

    /// The point in time that is so far from now, in milliseconds.
    pub(crate) fn after(&self, ms: u64) -> Mono {
        self.clock.now().mono.plus(ms)
    }

    /// The caller's hands in this crew.
    pub(crate) fn client(&self) -> Result<Client<Disk>, CliError> {
        let layout = self.layout()?;
        let store = store(&layout)?;
        let caller = self.caller(&layout);
        Ok(Client::new(store, layout, caller, std::process::id(), world::randomness()))
    }

    /// Who calls. A process of a run that names another crew than its own is an operator there.
    fn caller(&self, layout: &Layout) -> Caller {
        let name = |variable| self.environment.text(variable).and_then(|text| text.parse().ok());
        let own = self.environment.get(ENV_DIR).map(|dir| self.environment.here().join(dir));
        let here = own.is_none_or(|dir| dir.canonicalize().is_ok_and(|dir| dir == layout.crew()));
        match (name(ENV_AGENT), name(ENV_RUN)) {
            (Some(agent), Some(run)) if here => Caller::Run { agent, run },
            _ => Caller::Operator,
        }
    }

    /// The claim that this handler was started with.
    pub(crate) fn given(&self, caller: &Caller) -> Option<Held> {
        let Caller::Run { agent, .. } = caller else { return None };
        Some(Held {
            task: self.environment.text(ENV_TASK)?.parse().ok()?,
            token: self.environment.text(ENV_TOKEN)?.parse().ok()?,
            nonce: self.environment.text(ENV_NONCE)?.into(),
            agent: agent.clone(),
        })
    }

    /// The heartbeat file of this run.
    pub(crate) fn heartbeat(&self) -> Option<PathBuf> {
        self.environment.get(ENV_HEARTBEAT).map(PathBuf::from)
    }

    /// A look at the agents of this crew, without a supervisor.
    pub(crate) fn survey(&self) -> Result<Survey, CliError> {
        Ok(Survey::new(self.layout()?, &self.environment)?)
    }

    /// A path as the caller means it, made absolute.
    pub(crate) fn absolute(&self, path: &Path) -> PathBuf {
        self.environment.here().join(path)
    }

    /// Reads a file that the caller named.
    pub(crate) fn read(&self, path: &Path, max: u64) -> Result<Vec<u8>, CliError> {
        let path = self.absolute(path);
        world::read(&store(&self.layout()?)?, &path, max).map_err(|error| {
            CliError::bad_input(format_args!("{}: {error}", path.display()))
                .hint("or hand it in on standard input: use - and `< FILE`")
        })
    }
}

/// The files of a crew.
pub(crate) fn store(layout: &Layout) -> Result<Disk, CliError> {
    world::store(layout)
        .map_err(|error| CliError::unavailable(format_args!("{}: {error}", layout.crew().display())))
}
