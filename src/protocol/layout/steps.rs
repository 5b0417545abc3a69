//! Where steps lie that were paid for.

use std::path::PathBuf;

use super::{LOCK_EXT, Layout, below};
use crate::protocol::name::{Name, TaskId};
use crate::protocol::step::StepId;

/// The ending of a step's file name.
const STEP_EXT: &str = "step";

impl Layout {
    /// `state/steps/`
    #[must_use]
    pub fn steps(&self) -> PathBuf {
        below(&self.state, "steps")
    }
    /// `state/steps/tasks/`
    #[must_use]
    pub fn steps_of_tasks(&self) -> PathBuf {
        below(&self.steps(), "tasks")
    }
    /// `state/steps/tasks/TASK/`, or `state/steps/shared/` for those of no task.
    #[must_use]
    pub fn steps_of(&self, task: Option<&TaskId>) -> PathBuf {
        match task {
            Some(task) => below(&self.steps_of_tasks(), task.as_str()),
            None => below(&self.steps(), "shared"),
        }
    }
    /// `NAME.step` or `NAME.HASH.step`, below [`Layout::steps_of`].
    #[must_use]
    pub fn step(&self, id: &StepId) -> PathBuf {
        self.of_step(id, STEP_EXT)
    }
    /// `NAME.lock` or `NAME.HASH.lock`: flock'd while the step is in progress, and there only then.
    #[must_use]
    pub fn step_lock(&self, id: &StepId) -> PathBuf {
        self.of_step(id, LOCK_EXT)
    }
    /// `NAME[.HASH].COPY.damaged`: a record that could not be believed; its reason lies beside it.
    #[must_use]
    pub fn step_aside(&self, id: &StepId, copy: u32) -> PathBuf {
        self.of_step(id, &format!("{copy}.damaged"))
    }
    /// The name and hash of a step, by its file's name; `None` for any other file.
    #[must_use]
    pub fn step_named(file_name: &str) -> Option<(Name, Option<Name>)> {
        let stem = file_name.strip_suffix(STEP_EXT)?.strip_suffix('.')?;
        match stem.split_once('.') {
            None => Some((stem.parse().ok()?, None)),
            Some((name, hash)) => Some((name.parse().ok()?, Some(hash.parse().ok()?))),
        }
    }

    fn of_step(&self, id: &StepId, ending: &str) -> PathBuf {
        let dir = self.steps_of(id.task.as_ref());
        match &id.hash {
            None => below(&dir, format!("{}.{ending}", id.name)),
            Some(hash) => below(&dir, format!("{}.{hash}.{ending}", id.name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_step_has_one_file_and_is_told_by_its_name() {
        let layout = Layout::new("/c");
        let name = |text: &str| text.parse::<Name>().unwrap();
        let mut id = StepId { task: Some(name("shared")), name: name("a"), hash: None };
        assert_eq!(layout.step(&id), Path::new("/c/state/steps/tasks/shared/a.step"));
        id = StepId { task: None, hash: Some(name("ff")), ..id };
        assert_eq!(layout.step(&id), Path::new("/c/state/steps/shared/a.ff.step"));
        assert_eq!(layout.step_lock(&id), Path::new("/c/state/steps/shared/a.ff.lock"));
        assert_eq!(layout.step_aside(&id, 2), Path::new("/c/state/steps/shared/a.ff.2.damaged"));
        assert_eq!(Layout::step_named("a.step"), Some((name("a"), None)));
        assert_eq!(Layout::step_named("a.ff.step"), Some((name("a"), Some(name("ff")))));
        for other in ["a.lock", "a.ff.2.damaged", ".step", "a.b.c.step", "a..step", "step"] {
            assert_eq!(Layout::step_named(other), None, "{other}");
        }
    }
}
