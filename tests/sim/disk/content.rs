//! A file's bytes: as processes see them, and as a power cut would leave them.
//!
//! Nothing is ever written but at the end of a file, by cutting it, or over the same bytes, so all that differs from
//! what is durable lies behind one offset. The exception is what a failed sync dropped: there both differ, and no later
//! sync knows of it unless it is written over itself.

use fastrand::Rng;

/// What a device writes whole or not at all, mostly.
pub(super) const BLOCK: usize = 512;

#[derive(Clone, Default)]
pub(super) struct Content {
    pub(super) seen: Vec<u8>,
    durable: Vec<u8>,
    /// From here on nothing has been written back.
    dirty: Option<usize>,
}

impl Content {
    pub(super) fn append(&mut self, bytes: &[u8]) {
        self.soil(self.seen.len());
        self.seen.extend_from_slice(bytes);
    }

    pub(super) fn set_len(&mut self, len: usize) {
        self.soil(len.min(self.seen.len()));
        self.seen.resize(len, 0);
    }

    /// Bytes are written over themselves: those that a failed sync dropped are to be written back again. Where they are
    /// durable already, the device replaces them by themselves, and nothing can become of them.
    pub(super) fn rewrite(&mut self, from: usize, len: usize) {
        let dropped = (from..from + len).find(|at| self.durable.get(*at) != self.seen.get(*at));
        if let Some(at) = dropped {
            self.soil(at);
        }
    }

    fn soil(&mut self, from: usize) {
        self.dirty = Some(self.dirty.map_or(from, |dirty| dirty.min(from)));
    }

    pub(super) fn sync(&mut self) {
        if let Some(dirty) = self.dirty.take() {
            // Whole blocks are written back, with what an earlier failure dropped in the first of them.
            let from = dirty - dirty % BLOCK;
            self.durable.resize(from, 0);
            self.durable.extend_from_slice(&self.seen[from..]);
        } else {
            self.durable.resize(self.seen.len(), 0);
        }
    }

    /// The device refused: what was to be written is clean now, and will never be durable. What is read from now on
    /// is what processes wrote, or what the device still has; both are seen in the wild.
    pub(super) fn fail_sync(&mut self, rng: &mut Rng) {
        if let Some(from) = self.dirty.take()
            && rng.bool()
        {
            let len = self.seen.len();
            self.seen.truncate(from);
            let kept = self.durable.len().min(len);
            self.seen.extend_from_slice(self.durable.get(from..kept).unwrap_or_default());
            self.seen.resize(len, 0);
        }
    }

    /// Makes durable what is seen, and forgets that anything ever failed.
    pub(super) fn settle(&mut self) {
        self.durable.clone_from(&self.seen);
        self.dirty = None;
    }

    /// The power goes and comes back: each block that was not written back is there or not.
    pub(super) fn crash(&mut self, rng: &mut Rng) {
        if self.dirty.is_some() || self.seen.len() != self.durable.len() {
            self.write_back_some(rng);
        }
        self.seen.clone_from(&self.durable);
        self.dirty = None;
    }

    fn write_back_some(&mut self, rng: &mut Rng) {
        let size = size_after(self.durable.len(), self.seen.len(), rng);
        self.durable.resize(size, 0);
        let Some(dirty) = self.dirty else { return };
        // Blocks that all fare alike are too rare among independent ones.
        let fate = rng.u8(..4);
        let mut block = dirty - dirty % BLOCK;
        while block < size {
            let end = (block + BLOCK).min(size);
            let start = block.max(dirty);
            let fate = if fate < 2 { fate } else { rng.u8(..8) };
            self.write_back(start, end, fate, rng);
            block += BLOCK;
        }
    }

    /// What becomes of one dirty block. What lies before `start` in it is durable already, and stays.
    fn write_back(&mut self, start: usize, end: usize, fate: u8, rng: &mut Rng) {
        let (from, to) = match fate {
            0 | 2 | 3 => (start, end),
            1 | 4 | 5 => return,
            6 => {
                let tear = rng.usize(start..=end);
                if rng.bool() { (start, tear) } else { (tear, end) }
            }
            _ => {
                self.durable[start..end].fill(0);
                return;
            }
        };
        let written = to.min(self.seen.len()).max(from);
        if from < written {
            self.durable[from..written].copy_from_slice(&self.seen[from..written]);
        }
        self.durable[written..to].fill(0);
    }
}

/// The old size, the new one, or a block's edge between them.
fn size_after(old: usize, new: usize, rng: &mut Rng) -> usize {
    let (low, high) = (old.min(new), old.max(new));
    match rng.u8(..4) {
        0 => old,
        1 | 2 => new,
        _ => {
            let edge = rng.usize(low..=high).next_multiple_of(BLOCK);
            edge.clamp(low, high)
        }
    }
}
