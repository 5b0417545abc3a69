//! What a crash leaves of an update that cannot be applied.

use serde_json::json;

use super::{World, dies_at, live, name, update};
use crate::edge::store::Store;
use crate::protocol::update::Operation;

/// Updates of one agent, none of which can be applied: by its number, and two whose odd names come to one.
const ODD: [&str; 2] = ["odd 1", "odd_1"];

fn with_bad_updates() -> World {
    let world = World::new();
    world.submit("good", Operation::Set, "text", json!("no array"));
    live(&world).unwrap();
    world.put_update("bad", 1, &update("one", "append", "text", "1"));
    for odd in ODD {
        world.disk.put_file(&world.layout.queue(&name("bad")).join(odd), odd.as_bytes());
    }
    world
}

/// Each of them is where it was, or put aside with the reason beside it.
fn assert_put_aside_with_its_reason(world: &World, context: &str) {
    let agent = name("bad");
    let aside = |what: &str, copy: u32| {
        let (moved, reason) = world.layout.rejected_update(&agent, what, copy);
        let text = world.disk.text(&moved)?;
        let reason = world.disk.text(&reason);
        assert!(
            reason.is_some_and(|why| why.ends_with('\n')),
            "{context}: {text} is there without its reason"
        );
        Some(text)
    };
    assert!(
        world.disk.text(&world.layout.update(&agent, 1)).is_some() || aside("1", 1).is_some(),
        "{context}: the numbered one is lost"
    );
    for odd in ODD {
        let queued = world.disk.text(&world.layout.queue(&agent).join(odd)).is_some();
        let found = (1..=ODD.len() + 1).filter_map(|copy| aside("x-odd_1", u32::try_from(copy).unwrap()));
        assert!(found.collect::<Vec<_>>().contains(&odd.to_owned()) || queued, "{context}: {odd} is lost");
    }
}

/// What goes besides the steward.
#[derive(Debug, Clone, Copy)]
enum Cut {
    Nothing,
    Power,
    /// The power, once the updates' new names were written back, and no others.
    PowerLate,
}

#[test]
fn a_rejected_update_is_never_without_its_reason() {
    let fresh = with_bad_updates();
    for cut in [Cut::Nothing, Cut::Power, Cut::PowerLate] {
        for n in 0.. {
            let world = fresh.fork();
            let died = dies_at(&world, n, matches!(cut, Cut::Power));
            if matches!(cut, Cut::PowerLate) {
                for (what, copy) in [("1", 1), ("x-odd_1", 1), ("x-odd_1", 2)] {
                    world.disk.write_back(&world.layout.rejected_update(&name("bad"), what, copy).0);
                }
                world.disk.power_cut();
            }
            assert_put_aside_with_its_reason(&world, &format!("n {n}, {cut:?}"));
            live(&world).unwrap();
            assert_put_aside_with_its_reason(&world, &format!("n {n}, {cut:?}, after a start"));
            assert_eq!(world.disk.list(&world.layout.queue(&name("bad")), 9).unwrap(), []);
            if !died {
                assert!(n > 15, "{n} primitives are too few to have done it all");
                break;
            }
        }
    }
}
