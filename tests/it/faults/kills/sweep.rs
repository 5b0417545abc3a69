//! Many kills, one after the other, and what came of them.

use std::any::Any;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::calls;
use super::tracer::Point;

/// `NIGHTCREW_SWEEP=all` tries every point instead of a sample.
const SWEEP: &str = "NIGHTCREW_SWEEP";
/// `NIGHTCREW_SEED=N` draws another sample.
const SEED: &str = "NIGHTCREW_SEED";
/// Nothing is special about it: it makes that two runs without a seed of their own draw the same.
const SEED_USUAL: u64 = 20_261_120;
/// A trial waits for most of its time: for the disk, for processes to end.
const WORKERS_PER_CORE: usize = 6;
/// How often a long sweep says how far it got.
const TOLD_EVERY: usize = 100;

pub(super) fn is_full() -> bool {
    std::env::var(SWEEP).is_ok_and(|value| value == "all")
}

/// What decides all that is drawn; told, so that it can be drawn again.
pub(in crate::faults) fn dice(what: &str) -> fastrand::Rng {
    let given = std::env::var(SEED).ok().map(|text| text.parse().expect("NIGHTCREW_SEED is a number"));
    let seed = given.unwrap_or(SEED_USUAL);
    eprintln!("{what}: NIGHTCREW_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}

/// All points of a full sweep, in any order; else some, of each kind of call as likely as of any other.
pub(super) fn choose(mut points: Vec<Point>, count: usize, dice: &mut fastrand::Rng) -> Vec<Point> {
    if is_full() {
        dice.shuffle(&mut points);
        return points;
    }
    let mut by_call = BTreeMap::<_, Vec<Point>>::new();
    for point in points {
        by_call.entry((point.call, point.thread.clone())).or_default().push(point);
    }
    let mut kinds: Vec<_> = by_call.into_values().collect();
    dice.shuffle(&mut kinds);
    let drawn = kinds.into_iter().take(count).filter_map(|kind| dice.choice(kind));
    drawn.collect()
}

/// What came of the points of one kind of call.
#[derive(Debug, Default, Clone, Copy)]
struct Tally {
    tried: usize,
    killed: usize,
    missed: usize,
    failed: usize,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.tried += other.tried;
        self.killed += other.killed;
        self.missed += other.missed;
        self.failed += other.failed;
    }
}

/// What came of a sweep.
#[derive(Debug, Default)]
pub(super) struct Figures {
    by_call: BTreeMap<String, Tally>,
    failures: Vec<String>,
}

impl Figures {
    fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.by_call.values().for_each(|tally| total.add(*tally));
        total
    }

    fn tell(&mut self, what: &str, point: &Point, outcome: Result<bool, String>) {
        let tally = self.by_call.entry(calls::name(point.call)).or_default();
        tally.tried += 1;
        match outcome {
            Ok(true) => tally.killed += 1,
            Ok(false) => tally.missed += 1,
            Err(why) => {
                tally.failed += 1;
                self.failures.push(format!("{what}, {point}: {why}"));
            }
        }
    }

    pub(super) fn join(&mut self, other: Self) {
        for (call, tally) in other.by_call {
            self.by_call.entry(call).or_default().add(tally);
        }
        self.failures.extend(other.failures);
    }

    /// Tells the figures, and fails if any point did, or if next to none was reached.
    #[track_caller]
    pub(super) fn settle(&self, what: &str) {
        eprintln!("{what}\n{self}");
        let total = self.total();
        assert!(self.failures.is_empty(), "{what}:\n{}", self.failures.join("\n"));
        assert!(2 * total.killed > total.tried, "{what}: too few points were reached\n{self}");
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<(String, Tally)> = self.by_call.clone().into_iter().collect();
        rows.push(("total".to_owned(), self.total()));
        let mut text =
            format!("{:<18}{:>7}{:>8}{:>12}{:>8}\n", "call", "tried", "killed", "not reached", "failed");
        for (call, Tally { tried, killed, missed, failed }) in rows {
            writeln!(text, "{call:<18}{tried:>7}{killed:>8}{missed:>12}{failed:>8}")?;
        }
        f.write_str(&text)
    }
}

/// Tries every point, several at a time. A trial says whether the point was reached, and fails by panicking.
pub(super) fn sweep(what: &str, points: &[Point], trial: impl Fn(&Point) -> bool + Sync) -> Figures {
    let figures = Mutex::new(Figures::default());
    let next = AtomicUsize::new(0);
    let cores = thread::available_parallelism().map_or(1, usize::from);
    // A sample runs beside all the other tests.
    let workers = if is_full() { WORKERS_PER_CORE * cores } else { cores };
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(point) = points.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let outcome = catch_unwind(AssertUnwindSafe(|| trial(point))).map_err(said);
                    let mut figures = figures.lock().expect("nobody panics with it");
                    figures.tell(what, point, outcome);
                    let Tally { tried, killed, failed, .. } = figures.total();
                    if is_full() && tried.is_multiple_of(TOLD_EVERY) {
                        eprintln!("{what}: {tried} of {}, {killed} killed, {failed} failed", points.len());
                    }
                }
            });
        }
    });
    figures.into_inner().expect("nobody panicked with it")
}

/// What a panic said.
fn said(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => {
            panic.downcast_ref::<&str>().map_or_else(|| "a panic".to_owned(), |text| (*text).to_owned())
        }
    }
}
