//! Which slots of a schedule are to be fired now, and which were missed for good.
//!
//! A slot that has come is *due* for [`ON_TIME_MS`]; afterwards it was *missed*, because the machine was off or the
//! supervisor down, and it depends on `catch_up` what becomes of it. What was decided about is never decided again:
//! a slot is known by its time, so a wall clock that is put back finds nothing new, and one that is put forward makes
//! what it leaps over missed, and no more.

use crate::protocol::manifest::CatchUp;
use crate::protocol::schedule::Slot;
use crate::protocol::time::Wall;

use super::timetable::Timetable;

/// For how long a slot that has come counts as due, in milliseconds.
pub const ON_TIME_MS: i64 = 60_000;
/// The most slots that are fired of what has come since the last decision: of more, the newest.
pub const FIRE_MAX: usize = 100;
/// The most slots that are counted of those passed over.
pub const COUNT_MAX: usize = 1_000;
/// How far ahead of the wall clock the last decision may lie, in milliseconds. Beyond, that clock was wrong then: it is
/// followed again from now on, and what was fired in a time that never was comes again when its time does.
pub const AHEAD_MS_MAX: i64 = 25 * 3_600_000;

/// `catch_up` and `catch_up_window`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What becomes of slots that were missed.
    pub mode: CatchUp,
    /// What was missed longer ago stays missed, in milliseconds.
    pub window_ms: u64,
}

/// What is known of an agent's schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// When the schedule was first seen as it is now: what came before is nobody's.
    pub first_seen: Wall,
    /// The last slot that something was decided about.
    pub decided: Option<Slot>,
}

/// What is to be done about the slots that have come.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// To be fired, in order.
    pub fire: Vec<Slot>,
    /// Missed, and not to be fired.
    pub passed: Option<Passed>,
    /// The last slot that has come: everything up to it is decided with this plan.
    pub decided: Option<Slot>,
}

/// Slots that are passed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// The first of them.
    pub first: Slot,
    /// The last of them.
    pub last: Slot,
    /// How many, counted no further than to [`COUNT_MAX`].
    pub count: usize,
}

/// Decides about the slots that have come since the last decision.
#[must_use]
pub fn plan(table: &Timetable, known: Known, now: Wall, policy: Policy) -> Plan {
    let from = since(known, now);
    let Some(decided) = table.last(now).filter(|slot| slot.wall() > from) else { return Plan::default() };
    let missed_until = Wall(now.0.saturating_sub(ON_TIME_MS).saturating_sub(1));
    let mut fire = table.latest_slots(from.max(missed_until), now, FIRE_MAX);
    let window = i64::try_from(policy.window_ms).unwrap_or(i64::MAX);
    let reach = from.max(Wall(now.0.saturating_sub(window).saturating_sub(1)));
    let caught_up = match policy.mode {
        CatchUp::None => 0,
        CatchUp::Last => usize::from(fire.is_empty()),
        CatchUp::All => FIRE_MAX - fire.len(),
    };
    let mut late = table.latest_slots(reach, missed_until, caught_up);
    late.append(&mut fire);
    let oldest = late.first().map_or(now, |slot| Wall(slot.wall().0 - 1));
    let passed = passed(table, from, oldest);
    Plan { fire: late, passed, decided: Some(decided) }
}

/// From when on nothing is decided.
fn since(known: Known, now: Wall) -> Wall {
    let since = match known.decided.map(Slot::wall) {
        Some(decided) if decided.0.saturating_sub(now.0) > AHEAD_MS_MAX => {
            Wall(now.0.saturating_sub(ON_TIME_MS).saturating_sub(1))
        }
        Some(decided) => decided,
        None => known.first_seen,
    };
    since.max(known.first_seen)
}

fn passed(table: &Timetable, after: Wall, until: Wall) -> Option<Passed> {
    let (first, last) = (table.next(after)?, table.last(until)?);
    (first <= last).then(|| Passed { first, last, count: table.slots(after, until, COUNT_MAX).len() })
}

#[cfg(test)]
mod tests;
