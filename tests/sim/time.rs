//! Simulated clocks: one that only goes forward, also in leaps, and one that people set.

use std::cell::Cell;
use std::rc::Rc;

use nightcrew::edge::clock::Clock;
use nightcrew::protocol::time::{Mono, Now, Wall};

/// 2026-11-20T03:00:00Z
const EPOCH_MS: i64 = 1_795_143_600_000;

/// The machine's clocks.
#[derive(Debug, Default)]
pub(crate) struct Time {
    ms: Cell<u64>,
    wall_offset: Cell<i64>,
}

impl Time {
    /// Milliseconds since the simulation began.
    pub(crate) fn ms(&self) -> u64 {
        self.ms.get()
    }

    pub(crate) fn wall(&self) -> Wall {
        Wall(EPOCH_MS + i64::try_from(self.ms()).expect("a short simulation") + self.wall_offset.get())
    }

    pub(crate) fn advance(&self, ms: u64) {
        self.ms.set(self.ms() + ms);
    }

    /// By how much the wall clock was set.
    pub(crate) fn wall_offset(&self) -> i64 {
        self.wall_offset.get()
    }

    /// Somebody, or NTP, sets the wall clock.
    pub(crate) fn set_wall(&self, by_ms: i64) {
        self.wall_offset.set(self.wall_offset.get() + by_ms);
    }
}

/// What a process sees of them. Its monotonic time begins with it.
#[derive(Clone)]
pub(crate) struct SimClock {
    time: Rc<Time>,
    origin: u64,
}

impl SimClock {
    pub(crate) fn new(time: &Rc<Time>) -> Self {
        Self { time: Rc::clone(time), origin: time.ms() }
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        Now { mono: Mono(self.time.ms() - self.origin), wall: self.time.wall() }
    }
}
