//! Deaths that follow each other.

use serde_json::json;

use super::{World, dies_at, live};

/// The first may be in an fdatasync that fails: what it was to write is seen, passes for clean, and is nowhere else.
#[test]
fn a_death_and_then_a_power_cut_at_any_primitives_lose_and_double_nothing() {
    let fresh = World::new();
    fresh.append("a", json!("before"));
    live(&fresh).unwrap();
    fresh.append("a", json!("once"));
    for n in 0.. {
        let killed = fresh.fork();
        let died = dies_at(&killed, n, false);
        for m in 0.. {
            let world = killed.fork();
            let died = dies_at(&world, m, true);
            live(&world).unwrap();
            assert_eq!(world.value("all"), Some(json!(["before", "once"])), "n {n}, m {m}");
            if !died {
                break;
            }
        }
        if !died {
            assert!(n > 20, "{n} primitives are too few to have done it all");
            break;
        }
    }
}
