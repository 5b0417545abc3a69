//! The seeded simulator: the real machine, the real loop, writer, steward and commands, over simulated disk,
//! processes and clocks. One seed decides everything.
//!
//! ```text
//! cargo test --test sim                                  some seeds, and those that failed once
//! cargo test --profile sim --test sim -- --seeds 100000  many
//! cargo test --profile sim --test sim -- --minutes 60    as many as that
//! cargo test --test sim -- --seed 4711                   one, with all that happens in it
//! cargo test --profile sim --features mutants --test sim -- --mutants
//!                                                        whether it would notice: see `mutants`
//! ```
//!
//! A seed first lets everything go wrong that its own mix of misfortunes holds, and safety must hold all the while
//! ([`oracle`]). Then nothing goes wrong any more, all must come to rest within a bound, and what is there then is
//! held against what was promised ([`verdict`]).

#![expect(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and prints what it saw"
)]
#![expect(clippy::disallowed_methods, reason = "a test measures how long it may run")]
#![expect(clippy::wildcard_enum_match_arm, reason = "a test looks for one thing among many")]

mod agents;
mod cast;
mod crew;
#[expect(dead_code, unused_imports, reason = "its own tests use more of it")]
mod disk;
mod kernel;
mod mutants;
mod options;
mod oracle;
mod people;
mod processes;
mod promises;
mod requests;
mod survival;
mod time;
mod verdict;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use world::World;

/// Small pieces of memory, soon given back, are most of what a simulated crew costs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds that failed once: one a line, with what was wrong.
const REGRESSIONS: &str = include_str!("regressions.txt");
/// How many seeds are tried where nothing is said.
const SEEDS: u64 = 400;
/// One seed of so many is run twice, to see that it leads to the same twice.
const REPEATED: u64 = 64;
/// How many failures are told before the rest is left.
const FAILURES_MAX: usize = 5;

/// How one seed went.
struct Course {
    violations: Vec<String>,
    trace: u64,
    tale: Vec<String>,
    options: String,
    ledger: Vec<String>,
}

fn live(seed: u64, told: bool) -> Course {
    let world = Rc::new(World::new(seed, told));
    let hook = Rc::clone(&world);
    disk::between_primitives(Some(Rc::new(move || hook.interleave())));
    let lived = catch_unwind(AssertUnwindSafe(|| {
        world.live();
        disk::between_primitives(None);
        if world.violations().is_empty() {
            verdict::judge(&world);
        }
    }));
    disk::between_primitives(None);
    world.tell_disk();
    let mut violations = match lived {
        Ok(()) => world.violations(),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            vec![format!("it panicked: {}", text.unwrap_or_default())]
        }
    };
    violations.dedup();
    let ledger = if told {
        verdict::ledger(&world).iter().map(|fact| format!("{fact:?}")).collect()
    } else {
        Vec::new()
    };
    Course {
        ledger,
        violations,
        trace: world.trace(),
        tale: world.tale(),
        options: if told { format!("{:#?}", world.options) } else { String::new() },
    }
}

/// Runs one seed, now and then twice; what was wrong.
fn try_seed(seed: u64) -> Vec<String> {
    let course = live(seed, false);
    if course.violations.is_empty()
        && seed.is_multiple_of(REPEATED)
        && live(seed, false).trace != course.trace
    {
        return vec!["the same seed led elsewhere the second time".into()];
    }
    course.violations
}

/// What the command line asks for.
struct Args {
    seeds: u64,
    first: u64,
    only: Option<u64>,
    minutes: Option<u64>,
    /// The mutants, or those of this name, are to be caught.
    mutants: Option<String>,
}

fn parse() -> Option<Args> {
    let mut args = Args { seeds: SEEDS, first: 0, only: None, minutes: None, mutants: None };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse().ok()).expect("a number follows");
        match word.as_str() {
            "--seeds" => args.seeds = number(),
            "--from" => args.first = number(),
            "--seed" => args.only = Some(number()),
            "--minutes" => args.minutes = Some(number()),
            "--mutants" => args.mutants = Some(String::new()),
            "--mutant" => args.mutants = words.next(),
            // What `cargo test NAME` looks for is not here.
            name if !name.starts_with('-') && !"sim".contains(name) => return None,
            _ => {}
        }
    }
    Some(args)
}

fn tell_one(seed: u64) -> ExitCode {
    let course = live(seed, true);
    println!("seed {seed}: {}", course.options);
    course.ledger.iter().for_each(|line| println!("ledger: {line}"));
    course.tale.iter().for_each(|line| println!("{line}"));
    course.violations.iter().for_each(|what| println!("VIOLATED: {what}"));
    println!("trace {:016x}", course.trace);
    if course.violations.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn regressions() -> Vec<u64> {
    let lines = REGRESSIONS.lines().filter_map(|line| line.split('#').next());
    lines.filter_map(|seed| seed.trim().parse().ok()).collect()
}

fn main() -> ExitCode {
    let Some(args) = parse() else { return ExitCode::SUCCESS };
    if let Some(name) = &args.mutants {
        return mutants::main(name, args.first, args.only);
    }
    if let Some(seed) = args.only {
        return tell_one(seed);
    }
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let next = AtomicU64::new(args.first);
    let deadline = args.minutes.map(|minutes| begun + Duration::from_secs(60 * minutes));
    let last = args.first + args.seeds;
    let goes_on = |seed: u64| deadline.map_or(seed < last, |deadline| Instant::now() < deadline);
    std::panic::set_hook(Box::new(|_| {}));
    let mut failures: Vec<(u64, Vec<String>)> = regressions()
        .into_iter()
        .map(|seed| (seed, try_seed(seed)))
        .filter(|(_, wrong)| !wrong.is_empty())
        .collect();
    let found = std::sync::Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let enough = found
                        .lock()
                        .is_ok_and(|found: std::sync::MutexGuard<'_, Vec<_>>| found.len() >= FAILURES_MAX);
                    if !goes_on(seed) || enough {
                        break;
                    }
                    let wrong = try_seed(seed);
                    if !wrong.is_empty()
                        && let Ok(mut found) = found.lock()
                    {
                        found.push((seed, wrong));
                    }
                }
            });
        }
    });
    failures.extend(found.into_inner().expect("no thread panicked"));
    let tried = next.into_inner() - args.first;
    println!("{tried} seeds from {} in {:.1} s", args.first, begun.elapsed().as_secs_f64());
    for (seed, wrong) in &failures {
        println!("seed {seed} FAILED: {}", wrong.join("; "));
        println!("    cargo test --test sim -- --seed {seed}");
    }
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
