//! The mutants, `src/mutants.rs`: wrong decisions on purpose, each of which must be noticed within so many seeds.
//!
//! ```text
//! cargo test --profile sim --features mutants --test sim -- --mutants                     each of them
//! cargo test --profile sim --features mutants --test sim -- --mutants --from 5000         from another seed on
//! cargo test --profile sim --features mutants --test sim -- --mutant pid-alone            one
//! cargo test --profile sim --features mutants --test sim -- --mutant pid-alone --seed 7   and what it did there
//! ```
//!
//! A seed that finds something wrong without the mutant too has not caught it.

#[cfg(not(feature = "mutants"))]
pub(crate) fn main(_: &str, _: u64, _: Option<u64>) -> std::process::ExitCode {
    println!("mutants are not built in: cargo test --profile sim --features mutants --test sim -- --mutants");
    std::process::ExitCode::FAILURE
}

#[cfg(feature = "mutants")]
pub(crate) use controls::main;

#[cfg(feature = "mutants")]
mod controls {
    use std::process::ExitCode;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use nightcrew::mutants::{Mutant, choose};

    use crate::live;

    /// Within so many seeds each must be noticed.
    const SEEDS_MAX: u64 = 1_000;
    /// So much of a violation is shown.
    const SHOWN_MAX: usize = 110;

    /// A seed that noticed, and what.
    struct Catch {
        seed: u64,
        violation: String,
    }

    pub(crate) fn main(name: &str, first: u64, only: Option<u64>) -> ExitCode {
        let chosen: Vec<Mutant> =
            Mutant::ALL.iter().copied().filter(|mutant| name.is_empty() || mutant.name() == name).collect();
        if let (Some(seed), [mutant]) = (only, chosen.as_slice()) {
            choose(Some(*mutant));
            return crate::tell_one(seed);
        }
        std::panic::set_hook(Box::new(|_| {}));
        each_is_caught(&chosen, first)
    }

    /// Tries each mutant until it is noticed; fails if one is not, or there is none.
    #[expect(clippy::disallowed_methods, reason = "how long it took is told, and decides nothing")]
    fn each_is_caught(mutants: &[Mutant], first: u64) -> ExitCode {
        let mut survived = Vec::new();
        for mutant in mutants {
            let begun = Instant::now();
            let caught = catch(*mutant, first);
            let (name, secs) = (mutant.name(), begun.elapsed().as_secs_f64());
            if let Some(Catch { seed, violation }) = caught {
                let seeds = seed - first + 1;
                let shown: String = violation.chars().take(SHOWN_MAX).collect();
                println!("{name:<30} caught in {seeds:>3} seeds, {secs:>4.1} s, by {seed}: {shown}");
            } else {
                println!("{name:<30} SURVIVED {SEEDS_MAX} seeds from {first}, {secs:.1} s");
                survived.push(name);
            }
        }
        println!("{} of {} mutants are caught", mutants.len() - survived.len(), mutants.len());
        if survived.is_empty() && !mutants.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }

    /// The first seed that finds something wrong with the mutant, and nothing without it.
    fn catch(mutant: Mutant, first: u64) -> Option<Catch> {
        let (next, end) = (AtomicU64::new(first), AtomicU64::new(first + SEEDS_MAX));
        let caught: Mutex<Option<Catch>> = Mutex::new(None);
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= end.load(Ordering::Relaxed) {
                            break;
                        }
                        let Some(violation) = noticed(mutant, seed) else { continue };
                        end.fetch_min(seed, Ordering::Relaxed);
                        let mut caught = caught.lock().expect("no thread panicked");
                        if caught.as_ref().is_none_or(|before| seed < before.seed) {
                            *caught = Some(Catch { seed, violation });
                        }
                    }
                });
            }
        });
        caught.into_inner().expect("no thread panicked")
    }

    /// What this seed finds wrong because of the mutant.
    fn noticed(mutant: Mutant, seed: u64) -> Option<String> {
        let wanted = betrayed_by(mutant);
        choose(Some(mutant));
        let violations = live(seed, false).violations;
        choose(None);
        let mut telling = violations.into_iter().filter(|what| wanted.iter().any(|part| what.contains(part)));
        telling.next().filter(|_| live(seed, false).violations.is_empty())
    }

    /// What is wrong where a mutant was at work: parts of the violations' words. Anything else that a seed finds is
    /// some other fault's doing.
    fn betrayed_by(mutant: Mutant) -> &'static [&'static str] {
        const LOST: &[&str] = &["acknowledged, and is", "the ledger lost"];
        const UNHEARD: &[&str] = &["was handed in"];
        const FORGOTTEN: &[&str] =
            &["acknowledged, and is", "times", "twice", "was handed in", "two outcomes of"];
        match mutant {
            Mutant::UpdateRemovedFirst | Mutant::NoDirectorySyncBySteward => &["value"],
            Mutant::RedoneUnlooked => &["times"],
            Mutant::NoDirectorySync
            | Mutant::NoDirectorySyncByWriter
            | Mutant::NoFileSync
            | Mutant::NoLogSync
            | Mutant::FailedSyncBelieved
            | Mutant::ReplayIsDuplicate => LOST,
            Mutant::NamesBelieved => FORGOTTEN,
            Mutant::LockBeforeToken | Mutant::TokenKept => &["was granted with token"],
            Mutant::NonceUnchecked => &["which its owner never said"],
            Mutant::PidAlone => &["which is not of it"],
            Mutant::VacatedUnlooked | Mutant::WorkBeforeOutcomes => UNHEARD,
            Mutant::GivenAwayAlive | Mutant::SurvivorsOverlooked => &["lives"],
            Mutant::AcknowledgedFirst => &["acknowledged, and is", "come to rest"],
            Mutant::AcceptedForgotten => &["two outcomes of"],
            Mutant::RemnantsLeft => &["come to rest"],
            Mutant::BoundPublishedEarly | Mutant::BoundDropped => &["was submitted within"],
            Mutant::GateBelieved => &["nobody let pass"],
            Mutant::ReviewedNeedEnded => &["which it needs, is Some(Review)"],
        }
    }
}
