//! What every command is given.

use std::path::PathBuf;

use crate::app::world::{self, Clock, Environment, SystemClock};
use crate::protocol::layout::Layout;
use crate::protocol::time::Wall;

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
}
