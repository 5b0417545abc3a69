//! By how much a slot's start is delayed, so that not all agents of a host, nor all hosts, start in one second.

use crate::protocol::digest::sha256;
use crate::protocol::schedule::{Slot, SlotId};

/// The delay of this slot's start, in milliseconds: at most `within_ms`, and always before the `next` slot.
///
/// It is the same whenever it is asked about: it hangs on the agent's name and the slot's time alone.
#[must_use]
pub fn delay_ms(id: &SlotId, within_ms: u64, next: Option<Slot>) -> u64 {
    let gap = next.map_or(i64::MAX, |next| next.wall().0 - id.slot.wall().0);
    let within = within_ms.min(u64::try_from(gap).unwrap_or(0).saturating_sub(1));
    let digest = sha256(id.to_string().as_bytes());
    let number = digest.get(..16).and_then(|start| u64::from_str_radix(start, 16).ok()).unwrap_or(0);
    within.checked_add(1).map_or(number, |choices| number % choices)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(agent: &str, second: i64) -> SlotId {
        SlotId { agent: agent.parse().unwrap(), slot: Slot::at(second).unwrap() }
    }

    #[test]
    fn it_is_the_same_for_a_slot_and_spread_over_agents_and_slots() {
        let within = 300_000;
        let of = |agent: &str, second| delay_ms(&slot(agent, second), within, None);
        assert_eq!(of("research", 1_795_147_200), of("research", 1_795_147_200));
        for thirds in [
            (0..300).map(|n| of(&format!("agent-{n}"), 0) * 3 / (within + 1)).collect::<Vec<_>>(),
            (0..300).map(|n| of("research", n * 86_400) * 3 / (within + 1)).collect(),
        ] {
            for third in 0..3 {
                let count = thirds.iter().filter(|at| **at == third).count();
                assert!((70..130).contains(&count), "{count} of 300 in the third {third}");
            }
        }
    }

    #[test]
    fn it_stays_within_its_bounds() {
        for second in 0..500 {
            let id = slot("a", second * 60);
            assert!(delay_ms(&id, 5000, None) <= 5000);
            assert!(delay_ms(&id, 300_000, Slot::at(second * 60 + 60)) < 60_000);
            assert_eq!(delay_ms(&id, 0, None), 0);
            let _ = delay_ms(&id, u64::MAX, None);
        }
        // So many that one would hit the next slot, could it be hit.
        assert!((0..10_000).all(|second| delay_ms(&slot("a", second), 5000, Slot::at(second + 1)) < 1000));
    }
}
