//! What becomes durable when a directory is synced, and what is left when the power goes.
//!
//! A pending operation needs the earlier ones on the same names, and those that made, or moved, the directories it
//! happens in. Whatever survives is closed under that.

use std::collections::BTreeSet;
use std::mem;
use std::sync::Arc;

use fastrand::Rng;

use super::state::{Ino, Kind, Name, Op, State};

impl State {
    /// Makes durable all that is pending in a directory, and what it needs.
    pub(super) fn sync_dir(&mut self, dir: Ino) {
        let needed = self.needed_by(dir);
        if needed.contains(&true) {
            self.part(&needed, Self::make_durable);
        }
    }

    /// The sync of a directory failed: what was pending in it stays seen, and will never be durable.
    pub(super) fn fail_sync_dir(&mut self, dir: Ino) {
        let lost: Vec<bool> = self.pending.iter().map(|op| op.edits().any(|edit| edit.dir == dir)).collect();
        self.part(&lost, Self::lose);
    }

    /// Takes the chosen operations off the list, and ends them in their order.
    fn part(&mut self, chosen: &[bool], mut end: impl FnMut(&mut Self, &Op)) {
        // Most often it is the last few.
        let first = chosen.iter().position(|chosen| *chosen).unwrap_or(chosen.len());
        let late = self.pending.split_off(first);
        for (op, chosen) in late.into_iter().zip(&chosen[first..]) {
            if *chosen {
                end(self, &op);
            } else {
                self.pending.push(op);
            }
        }
    }

    /// Which pending operations a sync of this directory writes: looked for from the last to the first.
    fn needed_by(&self, dir: Ino) -> Vec<bool> {
        let mut chosen = vec![false; self.pending.len()];
        let mut names: Vec<(Ino, &Name)> = Vec::new();
        let mut dirs = vec![dir];
        for (op, chosen) in self.pending.iter().zip(&mut chosen).rev() {
            let makes = |edit: &super::state::Edit| edit.to.is_some_and(|ino| dirs.contains(&ino));
            let named = |edit: &super::state::Edit| names.contains(&(edit.dir, &edit.name));
            if op.edits().any(|edit| edit.dir == dir || makes(edit) || named(edit)) {
                *chosen = true;
                for edit in op.edits() {
                    if !dirs.contains(&edit.dir) {
                        dirs.push(edit.dir);
                    }
                    if edit.dir != dir {
                        names.push((edit.dir, &edit.name));
                    }
                }
            }
        }
        chosen
    }

    /// The power goes and comes back. Every process is dead.
    pub(super) fn power_cut(&mut self, rng: &mut Rng) {
        for process in 0..self.processes.len() {
            self.kill(process);
        }
        let survivors = self.survivors(rng);
        for (op, survives) in mem::take(&mut self.pending).into_iter().zip(survivors) {
            if survives {
                self.make_durable(&op);
            } else {
                self.lose(&op);
            }
        }
        for node in &mut self.nodes {
            match &mut node.kind {
                Kind::File(content) => content.crash(rng),
                Kind::Dir(dir) => dir.seen.clone_from(&dir.durable),
                Kind::Free | Kind::Symlink(_) | Kind::Fifo => {}
            }
        }
        self.aborted = false;
        self.rebuild();
        self.changes.clear();
    }

    fn survivors(&self, rng: &mut Rng) -> Vec<bool> {
        let pending = self.pending.len();
        match rng.u8(..8) {
            // Nothing, everything.
            0 => vec![false; pending],
            1 => vec![true; pending],
            // A journal: the first ones.
            2..=4 => {
                let kept = rng.usize(..=pending);
                (0..pending).map(|op| op < kept).collect()
            }
            _ => self.independent_survivors(rng),
        }
    }

    /// Each has its own luck, but none survives what it needs.
    fn independent_survivors(&self, rng: &mut Rng) -> Vec<bool> {
        let odds = rng.u32(1..8);
        let mut names: BTreeSet<(Ino, &Name)> = BTreeSet::new();
        let mut dirs: BTreeSet<Ino> = BTreeSet::new();
        let survives = self.pending.iter().map(|op| {
            let needs = op.edits().all(|edit| !names.contains(&(edit.dir, &edit.name)))
                && op.edits().all(|edit| !dirs.contains(&edit.dir));
            let survives = rng.u32(..8) < odds && needs;
            if !survives {
                names.extend(op.edits().map(|edit| (edit.dir, &edit.name)));
                dirs.extend(op.edits().filter_map(|edit| edit.to).filter(|ino| self.is_dir(*ino)));
            }
            survives
        });
        survives.collect()
    }

    /// Makes all that is seen durable.
    pub(super) fn settle(&mut self) {
        self.pending.clear();
        for node in &mut self.nodes {
            match &mut node.kind {
                Kind::File(content) => content.settle(),
                Kind::Dir(dir) => {
                    dir.durable = dir.seen.iter().map(|(name, ino)| (Arc::clone(name), *ino)).collect();
                }
                Kind::Free | Kind::Symlink(_) | Kind::Fifo => {}
            }
        }
        self.rebuild();
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.nodes[ino].kind, Kind::Dir(_))
    }
}
