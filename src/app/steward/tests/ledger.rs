//! What of the journal the ledger never heard of.

use serde_json::json;

use super::{World, work_off};
use crate::protocol::ledger::Fact;
use crate::protocol::update::Operation;

#[test]
fn what_the_ledger_lacks_of_the_journal_is_told_at_the_next_start_and_once() {
    let world = World::new();
    let ids: Vec<String> =
        (0..3).map(|n| world.submit("a", Operation::Set, "k", json!(n)).1.to_string()).collect();
    work_off(&mut world.steward().unwrap()).unwrap();
    let told = |recorded: &[String], whole: bool| {
        let mut steward = world.steward().unwrap();
        let facts = steward.unrecorded(&recorded.iter().cloned().collect(), whole).unwrap();
        assert!(work_off(&mut steward).unwrap().is_empty(), "what was told is not told again");
        let ids = facts.iter().map(|fact| {
            let Fact::Updated { id, .. } = fact else { panic!("{fact:?}") };
            id.clone()
        });
        ids.collect::<Vec<_>>()
    };
    assert_eq!(told(&ids[..1], false), ids[1..]);
    assert_eq!(told(&ids, true), [""; 0]);
    assert_eq!(told(&[], true), ids, "a ledger that is all there and has none lacks all");
    assert_eq!(told(&[], false), [""; 0], "of one that goes on before, nothing can be told");
}
