//! Waiting until tasks have ended, woken by the file system alone.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::edge::clock::Clock;
use crate::edge::store::Store;
use crate::edge::watches::WatchError;
use crate::protocol::layout::Shelf;
use crate::protocol::name::TaskId;
use crate::protocol::time::Mono;

use super::client::{Client, ClientError};
use super::pull::RELOOK;
use super::wake::Wake;

/// What is waited for, and how long.
#[derive(Debug)]
pub struct Outlast<'a> {
    /// The tasks.
    pub tasks: &'a [TaskId],
    /// The first of them that ends will do.
    pub any: bool,
    /// When to give up.
    pub until: Option<Mono>,
}

/// What came of waiting.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Outlasted {
    /// Those that ended, and where they lie.
    pub ended: BTreeMap<TaskId, Shelf>,
    /// Those of which nothing is known: nobody submitted them, or they were rejected or removed.
    pub unknown: Vec<TaskId>,
    /// True if it was given up.
    pub is_over: bool,
}

/// Why nothing can be waited for.
#[derive(Debug, thiserror::Error)]
pub enum OutlastError {
    /// A call failed.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The files cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
}

/// Waits until tasks have ended; `tell` learns how many have, at first and whenever that changes.
///
/// # Errors
/// [`OutlastError`]
pub fn outlast<S: Store>(
    client: &Client<S>,
    clock: &impl Clock,
    wanted: &Outlast<'_>,
    mut tell: impl FnMut(usize),
) -> Result<Outlasted, OutlastError> {
    let directories = Shelf::ALL.map(|shelf| client.layout().shelf(shelf));
    for directory in &directories {
        client.ensure_dir(directory)?;
    }
    let mut found = Outlasted::default();
    tell(0);
    loop {
        // Before the first look, so that nothing falls between.
        let wake = Wake::on(&directories, &[])?;
        // Where a task was submitted or rejected gives no hint, so that is looked at with each watch alone.
        let mut is_first = true;
        loop {
            let before = found.ended.len();
            look(client, wanted.tasks, is_first, &mut found)?;
            is_first = false;
            if found.ended.len() != before {
                tell(found.ended.len());
            }
            let is_enough = found.ended.len() == wanted.tasks.len() || wanted.any && !found.ended.is_empty();
            if is_enough || !found.unknown.is_empty() {
                return Ok(found);
            }
            let now = clock.now().mono;
            let left = wanted.until.map_or(RELOOK, |until| Duration::from_millis(until.since(now)));
            if left.is_zero() {
                found.is_over = true;
                return Ok(found);
            }
            if wake.hints().recv_timeout(left.min(RELOOK)).is_err() {
                break;
            }
        }
    }
}

fn look<S: Store>(
    client: &Client<S>,
    tasks: &[TaskId],
    everywhere: bool,
    found: &mut Outlasted,
) -> Result<(), ClientError> {
    for task in tasks {
        if found.ended.contains_key(task) {
            continue;
        }
        if let Some(shelf) = client.shelf_of(task)? {
            found.ended.insert(task.clone(), shelf);
        } else if everywhere && !client.is_known(task)? {
            found.unknown.push(task.clone());
        }
    }
    Ok(())
}
