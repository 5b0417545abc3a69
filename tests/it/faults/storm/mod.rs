//! Fifty kills during five thousand tasks: of the supervisor, which is started again at once, of handlers and whatever
//! they started, of those who hand tasks in. What was acknowledged ends once; what is recorded of a step is not paid
//! for again; of an effect that was cut off it is asked whether it was done.
//!
//! Kills come by how far the work is, not by the clock, so that a slow machine has as many of them. What is drawn
//! depends on `NIGHTCREW_SEED` alone; what just happens then does not.

mod cast;
mod killer;
mod submitters;
mod verdict;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::crew::Crew;

use super::kills::sweep::dice;
use killer::{Due, Target};
use submitters::Submitters;

/// How many tasks are acknowledged at least.
const TASKS: usize = 5000;
/// Nobody hands in more while so many are open.
const OPEN_MAX: usize = 400;
/// Generous: it only ends a test that fails.
const DEADLINE: Duration = Duration::from_mins(4);
const LOOK: Duration = Duration::from_millis(5);

struct Storm {
    crew: Crew,
    submitters: Submitters,
    dice: fastrand::Rng,
    /// The kills to come, the last one first.
    plan: Vec<Due>,
    /// When the next one comes.
    moment: Option<Instant>,
    kills: BTreeMap<Target, usize>,
    begun: Instant,
}

impl Storm {
    fn is_raging(&self) -> bool {
        let to_come = self.plan.len() + self.submitters.doomed;
        to_come > 0 || self.submitters.acknowledged.len() < TASKS || !self.submitters.are_gone()
    }

    fn look(&mut self) {
        let Self { crew, submitters, dice, .. } = self;
        submitters.look(dice);
        let is_enough =
            submitters.acknowledged.len() >= TASKS && self.plan.is_empty() && submitters.doomed == 0;
        if open(crew) < OPEN_MAX {
            submitters.start_one(crew, is_enough, dice);
        }
        let Some(due) = self.plan.last().copied() else { return };
        if submitters.acknowledged.len() >= due.acknowledged {
            let moment =
                *self.moment.get_or_insert_with(|| Instant::now() + Duration::from_millis(due.moment_ms));
            if Instant::now() >= moment && self.kill(due.target) {
                self.plan.pop();
                self.moment = None;
            }
        }
    }

    /// False if there is nobody to kill just now.
    fn kill(&mut self, target: Target) -> bool {
        match target {
            Target::Submitter => self.submitters.doomed += 1,
            Target::Supervisor => {
                self.crew.signal_supervisor(Signal::SIGKILL);
                self.crew.supervisors_end();
                self.crew.spawn_supervisor(&[], &[]);
            }
            Target::Process | Target::Run => {
                if !killer::kill_one(&self.crew, target == Target::Run, &mut self.dice) {
                    return false;
                }
            }
        }
        *self.kills.entry(target).or_default() += 1;
        true
    }

    #[track_caller]
    fn is_in_time(&self, what: &str) {
        assert!(self.begun.elapsed() < DEADLINE, "{what} takes too long\n{}", self.crew.told());
    }
}

/// How many tasks are not at their end: their records and locks, and what is not admitted yet.
fn open(crew: &Crew) -> usize {
    let count = |dir: PathBuf| fs::read_dir(dir).map_or(0, Iterator::count);
    count(crew.layout.tasks()) + count(crew.layout.new_tasks())
}

#[test]
fn fifty_kills_during_five_thousand_tasks_lose_nothing_and_do_nothing_twice() {
    let test = "fifty_kills_during_five_thousand_tasks_lose_nothing_and_do_nothing_twice";
    let mut dice = dice(test);
    let plan = killer::plan(TASKS * 9 / 10, &mut dice);
    let mut storm = Storm {
        crew: cast::crew(),
        submitters: Submitters::new(),
        dice,
        plan,
        moment: None,
        kills: BTreeMap::new(),
        begun: Instant::now(),
    };
    storm.crew.spawn_supervisor(&[], &[]);
    while storm.is_raging() {
        storm.look();
        storm.is_in_time("the storm");
        std::thread::sleep(LOOK);
    }
    let raged = storm.begun.elapsed();
    let ended = storm.crew.term();
    assert!(ended.success(), "it ended with {ended}\n{}", storm.crew.told());
    storm.crew.spawn_supervisor(&["--until-idle"], &[]);
    let ended = storm.crew.supervisors_end();
    assert!(ended.success(), "it ended with {ended}\n{}", storm.crew.told());

    assert_eq!(storm.kills.values().sum::<usize>(), killer::KILLS);
    assert_eq!(storm.submitters.killed, storm.kills[&Target::Submitter]);
    let Storm { crew, submitters, kills, begun, .. } = storm;
    let (figures, wrong) = verdict::judge(&crew, &submitters.acknowledged, &submitters.unsure);
    let mut told = format!("{kills:?}; raged {raged:?}, all {:?}\n", begun.elapsed());
    let _ = write!(
        told,
        "{} acknowledged, {} unsure; {figures:?}",
        submitters.acknowledged.len(),
        submitters.unsure.len()
    );
    eprintln!("{test}: {told}");
    assert!(
        wrong.is_empty(),
        "{told}\n{} wrong:\n{}\n{}",
        wrong.len(),
        wrong[..wrong.len().min(40)].join("\n"),
        crew.told()
    );
    figures.show_that_it_was_a_storm();
}
