//! What a disk may hold after a power cut: all that was written before the last flush, and of what came later all,
//! or any part.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use super::recorder::Step;

/// What a disk writes whole or not at all.
const BLOCK: usize = 4096;

/// What is not zero of a disk.
pub(super) struct Blocks {
    len: u64,
    held: BTreeMap<u64, Box<[u8]>>,
}

impl Blocks {
    pub(super) fn of(image: &Path) -> Self {
        let mut file = File::open(image).expect("an image");
        let len = file.metadata().expect("its length").len();
        let mut blocks = Self { len, held: BTreeMap::new() };
        let mut buffer = vec![0; 256 * BLOCK];
        let mut offset = 0;
        while offset < len {
            let part = usize::try_from(len - offset).map_or(buffer.len(), |left| left.min(buffer.len()));
            file.read_exact(&mut buffer[..part]).expect("an image that can be read");
            for (piece, at) in pieces(offset, &buffer[..part]) {
                if piece.iter().any(|byte| *byte != 0) {
                    blocks.write(at, piece);
                }
            }
            offset += part as u64;
        }
        blocks
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        for (piece, at) in pieces(offset, bytes) {
            let within = usize::try_from(at % BLOCK as u64).expect("less than a block");
            let block = self.held.entry(at / BLOCK as u64).or_insert_with(|| vec![0; BLOCK].into());
            block[within..within + piece.len()].copy_from_slice(piece);
        }
    }

    /// Makes a file of it, as few writes as may be.
    fn save(&self, image: &Path) -> File {
        let file = File::create(image).expect("an image");
        file.set_len(self.len).expect("its length");
        let mut run: Vec<u8> = Vec::new();
        let mut begin = 0;
        for (number, block) in &self.held {
            let at = number * BLOCK as u64;
            if begin + run.len() as u64 != at {
                file.write_all_at(&run, begin).expect("room for an image");
                run.clear();
                begin = at;
            }
            run.extend_from_slice(block);
        }
        file.write_all_at(&run, begin).expect("room for an image");
        file
    }
}

/// What lies in one block each, and where.
fn pieces(offset: u64, bytes: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    let mut left = bytes;
    let mut at = offset;
    std::iter::from_fn(move || {
        let within = usize::try_from(at % BLOCK as u64).ok()?;
        let (piece, rest) = left.split_at(left.len().min(BLOCK - within));
        let here = at;
        at += piece.len() as u64;
        left = rest;
        (!piece.is_empty()).then_some((piece, here))
    })
}

/// One power cut.
#[derive(Debug, Clone)]
pub(super) struct Cut {
    /// So many steps of the tape had happened.
    pub(super) at: usize,
    /// Of what was written since the last flush each block is kept with this chance, in percent.
    kept: u8,
    seed: u64,
}

/// So many cuts, the earliest first: half of them at the very moment of a mark, the others at any later than the
/// first; of each half, half lose a part of what was not flushed.
pub(super) fn cuts(seed: u64, marks: &[usize], end: usize, count: usize) -> Vec<Cut> {
    let mut random = fastrand::Rng::with_seed(seed);
    let first = marks.iter().copied().min().unwrap_or(0);
    let mut cuts: Vec<Cut> = (0..count)
        .map(|n| {
            let mark = random.choice(marks).copied().filter(|_| n % 4 < 2);
            let at = mark.unwrap_or_else(|| random.usize(first..=end));
            let kept = if n % 2 == 0 { 100 } else { *random.choice(&[5, 30, 50, 70, 95]).unwrap_or(&50) };
            Cut { at, kept, seed: random.u64(..) }
        })
        .collect();
    cuts.sort_by_key(|cut| cut.at);
    cuts
}

/// Goes through a tape once, making images on the way.
pub(super) struct Replay<'a> {
    /// What the last flush made durable.
    durable: Blocks,
    tape: &'a [Step],
    applied: usize,
}

impl<'a> Replay<'a> {
    /// From what the disk held when the tape began.
    pub(super) fn new(base: Blocks, tape: &'a [Step]) -> Self {
        Self { durable: base, tape, applied: 0 }
    }

    /// Makes the image that a cut leaves. Cuts must come in their order.
    pub(super) fn image(&mut self, cut: &Cut, image: &Path) {
        let flushed = self.tape[..cut.at].iter().rposition(|step| matches!(step, Step::Flush)).unwrap_or(0);
        for step in &self.tape[self.applied..flushed.max(self.applied)] {
            if let Step::Write { offset, bytes } = step {
                self.durable.write(*offset, bytes);
            }
        }
        self.applied = self.applied.max(flushed);
        let file = self.durable.save(image);
        let mut random = fastrand::Rng::with_seed(cut.seed);
        for step in &self.tape[self.applied..cut.at] {
            let Step::Write { offset, bytes } = step else { continue };
            for (piece, at) in pieces(*offset, bytes) {
                if random.u8(..100) < cut.kept {
                    file.write_all_at(piece, at).expect("room for an image");
                }
            }
        }
    }
}
