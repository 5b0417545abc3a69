mod disk;
mod ledger;
mod rejected;
mod twice;

use serde_json::{Value, json};

use self::disk::{Disk, Node};
use super::thread::{StewardReport, StewardThread};
use super::*;
use crate::app::client::memory::{Fate, Submitted, outcome_of, recall, remember};
use crate::edge::clock::SystemClock;
use crate::machine::memory::BATCH_PER_AGENT_MAX;
use crate::protocol::update::Operation;
use std::io;

const START: Mono = Mono(1_000_000);

struct World {
    disk: Disk,
    layout: Layout,
    ids: std::cell::Cell<u32>,
}

fn name(text: &str) -> AgentName {
    text.parse().unwrap()
}

fn key(text: &str) -> Key {
    text.parse().unwrap()
}

impl World {
    fn new() -> Self {
        let disk = Disk::default();
        let layout = Layout::new("/crew");
        for dir in layout.directories() {
            disk.create_dir(&dir).unwrap();
        }
        disk.settle();
        Self { disk, layout, ids: std::cell::Cell::new(0) }
    }

    fn fork(&self) -> Self {
        Self { disk: self.disk.fork(), layout: self.layout.clone(), ids: self.ids.clone() }
    }

    fn steward(&self) -> Result<Steward<Disk>, crate::edge::log::LogError> {
        let (journal, _) = SegmentedLog::open(self.disk.clone(), &self.layout.journal())?;
        Ok(Steward::new(self.disk.clone(), self.layout.clone(), journal))
    }

    fn submit(&self, agent: &str, op: Operation, to: &str, value: Value) -> (Submitted, AgentName) {
        self.ids.set(self.ids.get() + 1);
        let id = name(&format!("id{}", self.ids.get()));
        let temp = self.layout.tmp(&name(agent)).join(format!("{id}.tmp"));
        let value = (op != Operation::Delete).then_some(value);
        (remember(&self.disk, &self.layout, &name(agent), &temp, &id, op, &key(to), value).unwrap(), id)
    }

    fn append(&self, agent: &str, value: Value) -> (Submitted, AgentName) {
        self.submit(agent, Operation::Append, "all", value)
    }

    fn value(&self, at: &str) -> Option<Value> {
        let bytes = recall(&self.disk, &self.layout, &key(at)).unwrap()?;
        Some(serde_json::from_slice(&bytes).unwrap())
    }

    fn put_update(&self, agent: &str, seq: u64, bytes: &[u8]) {
        self.disk.create_dir(&self.layout.queue(&name(agent))).unwrap();
        self.disk.put_file(&self.layout.update(&name(agent), seq), bytes);
    }

    fn fate(&self, agent: &str, submitted: &(Submitted, AgentName)) -> Fate {
        outcome_of(&self.disk, &self.layout, &name(agent), submitted.0.seq, &submitted.1).unwrap()
    }
}

/// Turns until nothing waits; what was recorded, or the fault.
fn work_off<S: Store>(steward: &mut Steward<S>) -> Result<Vec<Fact>, Fault> {
    let mut facts = Vec::new();
    for _ in 0..1000 {
        let mut turn = steward.turn(START, None);
        facts.append(&mut turn.facts);
        match turn.fault {
            Some(fault) => return Err(fault),
            None if !turn.more => return Ok(facts),
            None => {}
        }
    }
    panic!("1000 turns did not empty the queue");
}

fn update(id: &str, op: &str, at: &str, value: &str) -> Vec<u8> {
    format!(r#"{{"v":1,"id":"{id}","op":"{op}","key":"{at}","value":{value}}}"#).into_bytes()
}

fn rejections(facts: &[Fact]) -> Vec<(u64, String)> {
    let rejection = |fact: &Fact| {
        if let Fact::UpdateRejected { seq, reason, .. } = fact { Some((*seq, reason.clone())) } else { None }
    };
    facts.iter().filter_map(rejection).collect()
}

fn gaps(facts: &[Fact]) -> Vec<(u64, u64)> {
    let gap = |fact: &Fact| {
        if let Fact::UpdateGap { expected, found, .. } = fact { Some((*expected, *found)) } else { None }
    };
    facts.iter().filter_map(gap).collect()
}

#[test]
fn updates_are_applied_in_order_and_told() {
    let world = World::new();
    let mut steward = world.steward().unwrap();
    let first = world.submit("a", Operation::Set, "topics/rust", json!({"n":1}));
    world.submit("a", Operation::Merge, "topics/rust", json!({"n":null,"m":2}));
    world.submit("a", Operation::Set, "topics", json!("beside its own directory"));
    world.submit("a", Operation::Set, "gone", json!(1));
    let last = world.submit("a", Operation::Delete, "gone", Value::Null);
    assert_eq!(world.fate("a", &first), Fate::Pending);
    let turn = steward.turn(START, Some(&[name("a")]));
    assert!(turn.queue_empty && !turn.more && turn.fault.is_none());
    assert_eq!(turn.changed, [key("topics"), key("topics/rust")]);
    assert_eq!(turn.facts.len(), 5);
    assert_eq!(world.value("topics/rust"), Some(json!({"m":2})));
    assert_eq!(world.value("topics"), Some(json!("beside its own directory")));
    assert_eq!(world.value("gone"), None);
    assert_eq!((world.fate("a", &first), world.fate("a", &last)), (Fate::Applied, Fate::Applied));
    assert_eq!(world.submit("a", Operation::Set, "k", json!(1)).0.seq, 6);
}

const AGENTS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];
const EACH: u32 = 25;

type Handed = Vec<(&'static str, (Submitted, AgentName))>;

fn submit_wave(world: &World, range: std::ops::Range<u32>) -> Handed {
    let mut handed = Vec::new();
    for n in range {
        for agent in AGENTS {
            handed.push((agent, world.append(agent, json!([agent, n]))));
        }
    }
    // It comes and goes within a commit, and `b`, who made it come, is counted in after `a`: a redo that saw
    // only what `b` did would bring it back.
    world.submit("a", Operation::Set, "filler", json!(1));
    world.submit("b", Operation::Set, "there/and/back", json!(2));
    world.submit("a", Operation::Delete, "there/and/back", Value::Null);
    handed
}

/// Whatever a crash left, and before anything mends it: nobody is told that an update is gone.
fn assert_none_given_up(world: &World, handed: &Handed, context: &str) {
    for (agent, update) in handed {
        let fate = world.fate(agent, update);
        assert!(matches!(fate, Fate::Pending | Fate::Applied), "{context}: {agent} {update:?} {fate:?}");
    }
}

fn assert_exactly_once(world: &World, context: &str) {
    let Some(Value::Array(items)) = world.value("all") else { panic!("{context}: nothing there") };
    for agent in AGENTS {
        let got: Vec<u64> =
            items.iter().filter(|item| item[0] == agent).map(|item| item[1].as_u64().unwrap()).collect();
        assert_eq!(got, (0..u64::from(EACH)).collect::<Vec<_>>(), "{context}: {agent}");
    }
    assert_eq!(world.value("there/and/back"), None, "{context}");
    for agent in AGENTS {
        assert_eq!(world.disk.list(&world.layout.queue(&name(agent)), 9).unwrap(), [], "{context}");
    }
}

/// Everything that a steward's life does; ends at the first fault.
fn live(world: &World) -> Result<(), String> {
    let mut steward = world.steward().map_err(|error| error.to_string())?;
    work_off(&mut steward).map(drop).map_err(|fault| fault.to_string())
}

/// Dies at the `n`th primitive; false if it was done before.
fn dies_at(world: &World, n: u64, power: bool) -> bool {
    world.disk.fail_from(n, io::ErrorKind::Other);
    let died = live(world).is_err();
    world.disk.heal();
    if power {
        world.disk.power_cut();
    }
    died
}

#[test]
fn a_death_at_any_primitive_loses_and_doubles_nothing() {
    let fresh = World::new();
    let mut handed = submit_wave(&fresh, 0..EACH - 2);
    live(&fresh).unwrap();
    handed.extend(submit_wave(&fresh, EACH - 2..EACH));
    for power in [false, true] {
        for n in 0.. {
            let world = fresh.fork();
            let died = dies_at(&world, n, power);
            assert_none_given_up(&world, &handed, &format!("n {n}, power {power}"));
            let died_again = died && dies_at(&world, n % 13, power);
            live(&world).unwrap();
            live(&world).unwrap();
            assert_exactly_once(&world, &format!("n {n}, power {power}, again {died_again}"));
            if !died {
                assert!(n > 50, "{n} primitives are too few to have done it all");
                break;
            }
        }
    }
}

#[test]
fn a_full_disk_at_any_primitive_is_waited_out_by_the_same_steward() {
    let fresh = World::new();
    submit_wave(&fresh, 0..EACH);
    for n in 0.. {
        let world = fresh.fork();
        let Ok(mut steward) = world.steward() else { panic!() };
        world.disk.fail_from(n, io::ErrorKind::StorageFull);
        let filled = work_off(&mut steward);
        world.disk.heal();
        match filled {
            Ok(_) => {
                assert!(n > 50);
                break;
            }
            Err(Fault::Full(_)) => drop(work_off(&mut steward).unwrap()),
            // A log that could neither write nor sync knows nothing any more: it takes a new start.
            Err(Fault::Broken(_)) => {
                assert!(matches!(work_off(&mut steward), Err(Fault::Broken(_))), "broken is for good");
                live(&world).unwrap();
            }
        }
        assert_exactly_once(&world, &format!("n {n}"));
    }
}

#[test]
fn an_update_under_a_number_that_was_used_before_is_not_lost() {
    let world = World::new();
    let mut steward = world.steward().unwrap();
    for n in 0..3 {
        world.append("a", json!(n));
    }
    work_off(&mut steward).unwrap();
    // Its writer looked before the three were there, and linked after they were gone.
    world.put_update("a", 1, &update("late", "append", "all", "9"));
    let facts = work_off(&mut steward).unwrap();
    assert_eq!(world.value("all"), Some(json!([0, 1, 2, 9])));
    assert!(gaps(&facts).is_empty());
    assert_eq!(world.append("a", json!(4)).0.seq, 4);
}

#[test]
fn one_id_applies_once_however_often_it_is_listed() {
    let world = World::new();
    for seq in [1, 2] {
        world.put_update("a", seq, &update("same", "append", "all", "1"));
    }
    let mut steward = world.steward().unwrap();
    work_off(&mut steward).unwrap();
    world.put_update("a", 1, &update("same", "append", "all", "1"));
    work_off(&mut world.steward().unwrap()).unwrap();
    assert_eq!(world.value("all"), Some(json!([1])));
    assert_eq!(world.disk.list(&world.layout.queue(&name("a")), 9).unwrap(), []);
    world.put_update("b", 1, &update("same", "append", "all", "2"));
    work_off(&mut steward).unwrap();
    assert_eq!(world.value("all"), Some(json!([1, 2])), "another agent's id is another id");
}

#[test]
fn a_hole_is_told_and_passed() {
    let world = World::new();
    world.put_update("a", 3, &update("x", "append", "all", "1"));
    world.put_update("a", 4, &update("y", "append", "all", "2"));
    let facts = work_off(&mut world.steward().unwrap()).unwrap();
    assert_eq!(gaps(&facts), [(1, 3)]);
    assert_eq!(world.value("all"), Some(json!([1, 2])));
}

#[test]
fn a_flood_does_not_starve_the_others() {
    let world = World::new();
    for n in 0..1000 {
        world.append("flood", json!(n));
    }
    let quiet = world.append("zz", json!("here"));
    let mut steward = world.steward().unwrap();
    let turn = steward.turn(START, None);
    assert!(turn.more && !turn.queue_empty);
    assert_eq!(world.fate("zz", &quiet), Fate::Applied);
    assert_eq!(turn.facts.len(), 65);
    work_off(&mut steward).unwrap();
    assert_eq!(world.value("all").unwrap().as_array().unwrap().len(), 1001);
}

/// Only the hints tell here: 30 s later the rescan would find it anyway.
#[test]
fn a_hint_holds_that_came_while_much_was_waiting() {
    let world = World::new();
    let mut steward = world.steward().unwrap();
    let writer = [name("writer")];
    for n in 0..2 * BATCH_PER_AGENT_MAX {
        world.append("writer", json!(n));
    }
    assert!(steward.turn(START, Some(&writer)).more);
    world.append("writer", json!("last"));
    let mut hinted = &writer[..];
    while steward.turn(START, Some(hinted)).more {
        hinted = &[];
    }
    assert_eq!(world.value("all").unwrap().as_array().map(Vec::len), Some(2 * BATCH_PER_AGENT_MAX + 1));
}

#[test]
fn whatever_is_no_update_is_rejected_with_its_reason_and_costs_nothing_else() {
    let world = World::new();
    let agent = name("bad");
    let good = update("good", "append", "all", "1");
    world.put_update("bad", 1, b"\xff\x00 no JSON");
    world.put_update("bad", 2, &update("a", "explode", "all", "1"));
    world.put_update("bad", 3, &update("b", "set", "../../etc/passwd", "1"));
    world.put_update("bad", 4, &update("c d", "set", "k", "1"));
    world.put_update("bad", 5, br#"{"v":1,"id":"e","op":"set","key":"k"}"#);
    world.put_update("bad", 6, br#"{"v":9,"id":"f","op":"set","key":"k","value":1}"#);
    world.put_update("bad", 7, &vec![b' '; 2_000_000]);
    world.put_update("bad", 8, &update("h", "set", "k", &format!("{}1{}", "[".repeat(100), "]".repeat(100))));
    world.disk.put(&world.layout.update(&agent, 9), Node::Fifo);
    world.disk.put(&world.layout.update(&agent, 10), Node::Symlink);
    world.disk.put(&world.layout.update(&agent, 11), Node::Dir);
    world.disk.put_file_of(&world.layout.update(&agent, 12), &good, true);
    world.put_update("bad", 13, &update("m", "append", "text", "1"));
    world.put_update("bad", 14, &good);
    for odd in ["05.json", "notes.txt", "making.tmp"] {
        world.disk.put_file(&world.layout.queue(&agent).join(odd), b"?");
    }
    world.disk.put_file(&world.layout.value(&key("text")), b"\"text\"");
    world.append("neighbour", json!(2));

    let facts = work_off(&mut world.steward().unwrap()).unwrap();
    let mut rejected = rejections(&facts);
    rejected.sort_by_key(|(seq, _)| *seq);
    let reasons = [
        (0, "05.json"),
        (0, "notes.txt"),
        (1, "expected"),
        (2, "explode"),
        (3, "not a memory key"),
        (4, "not a name"),
        (5, "needs a value"),
        (6, "upgrade"),
        (7, "1048576 are allowed"),
        (8, "deeper than 64"),
        (9, "FIFO"),
        (10, "symlink"),
        (11, "directory"),
        (12, "uid 1234"),
        (13, "no array"),
    ];
    assert_eq!(rejected.len(), reasons.len(), "{rejected:?}");
    for ((seq, reason), (expected_seq, part)) in rejected.iter().zip(reasons) {
        assert!(
            *seq == expected_seq && reason.contains(part),
            "{seq} {reason:?}, where {part:?} was expected"
        );
        if *seq > 0 {
            let (moved, why) = world.layout.rejected_update(&agent, &seq.to_string(), 1);
            assert!(world.disk.stat(&moved).unwrap().is_some(), "{seq} was not moved");
            assert_eq!(world.disk.text(&why).unwrap(), format!("{reason}\n"));
        }
    }
    assert!(gaps(&facts).is_empty(), "a rejected number is no hole");
    let left: Vec<_> = world
        .disk
        .list(&world.layout.queue(&agent), 99)
        .unwrap()
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    assert_eq!(left, ["making.tmp"]);
    let Some(Value::Array(mut all)) = world.value("all") else { panic!() };
    all.sort_by_key(Value::as_u64);
    assert_eq!(all, [json!(1), json!(2)]);
    assert_eq!(world.append("bad", json!(3)).0.seq, 15);
}

#[test]
fn a_rejected_update_is_told_to_its_writer() {
    let world = World::new();
    world.submit("a", Operation::Set, "all", json!(1));
    let refused = world.append("a", json!(1));
    assert_eq!(world.fate("a", &refused), Fate::Pending);
    work_off(&mut world.steward().unwrap()).unwrap();
    let Fate::Rejected(reason) = world.fate("a", &refused) else { panic!() };
    assert!(reason.contains("no array"), "{reason}");
}

#[test]
fn an_incomplete_update_gets_one_second_look_and_the_rest_waits_behind_it() {
    let world = World::new();
    let whole = update("x", "append", "all", "1");
    for agent in ["slow", "dead"] {
        world.put_update(agent, 1, &whole[..20]);
        world.put_update(agent, 2, &update("y", "append", agent, "2"));
    }
    let mut steward = world.steward().unwrap();
    let turn = steward.turn(START, None);
    assert!(turn.facts.is_empty() && !turn.more && !turn.queue_empty);
    assert_eq!(turn.look_again_in_ms, Some(SECOND_LOOK_MS));
    let early = steward.turn(START.plus(SECOND_LOOK_MS - 1), None);
    assert_eq!((early.facts.len(), early.look_again_in_ms), (0, Some(1)));
    world.put_update("slow", 1, &whole);
    let turn = steward.turn(START.plus(SECOND_LOOK_MS), Some(&[]));
    assert!(turn.queue_empty);
    assert_eq!(rejections(&turn.facts).len(), 1);
    let shown = (world.value("all"), world.value("slow"), world.value("dead"));
    assert_eq!(shown, (Some(json!([1])), Some(json!([2])), Some(json!([2]))));
}

#[test]
fn what_stands_in_a_keys_way_costs_that_key_alone() {
    let world = World::new();
    world.disk.put_file(&world.layout.store_dir().join("file"), b"?");
    world.disk.put(&world.layout.value(&key("dir")), Node::Dir);
    world.disk.put(&world.layout.value(&key("link")), Node::Symlink);
    let blocked = [
        world.submit("a", Operation::Set, "file/k", json!(1)),
        world.submit("a", Operation::Set, "dir", json!(1)),
    ];
    world.submit("a", Operation::Set, "link", json!(1));
    work_off(&mut world.steward().unwrap()).unwrap();
    for blocked in &blocked {
        assert!(matches!(world.fate("a", blocked), Fate::Rejected(_)));
    }
    assert_eq!(world.value("link"), Some(json!(1)));
}

#[test]
fn a_damaged_applied_file_is_made_anew_from_the_journal() {
    let world = World::new();
    for n in 0..3 {
        world.append("a", json!(n));
        live(&world).unwrap();
    }
    world.disk.put_file(&world.layout.applied(&name("a")), b"{\"v\":1,");
    world.put_update("a", 3, &update("id3", "append", "all", "2"));
    live(&world).unwrap();
    assert_eq!(world.value("all"), Some(json!([0, 1, 2])));
    assert_eq!(world.append("a", json!(3)).0.seq, 4);
}

#[test]
fn the_thread_applies_on_a_hint_and_flushes_at_its_end() {
    let world = World::new();
    let (deliver, reports) = crossbeam_channel::unbounded();
    let send = move |report| deliver.send(report).unwrap();
    let thread = StewardThread::start(world.steward().unwrap(), SystemClock::new(), send).unwrap();
    let next = || reports.recv_timeout(std::time::Duration::from_secs(20)).unwrap();
    assert!(matches!(next(), StewardReport::Turn { queue_empty: true, .. }));
    world.append("a", json!(1));
    thread.hint(name("a"));
    let StewardReport::Turn { facts, changed, queue_empty: true } = next() else { panic!() };
    assert_eq!((facts.len(), changed), (1, vec![key("all")]));
    world.append("a", json!(2));
    thread.stop();
    assert!(matches!(next(), StewardReport::Turn { queue_empty: true, .. }));
    assert!(matches!(next(), StewardReport::Stopped));
    thread.join().unwrap();
    assert_eq!(world.value("all"), Some(json!([1, 2])));
}

/// Applies and unlinks while writers look for their next number: they race with it and with each other.
#[test]
fn writers_at_work_on_a_real_disk_lose_nothing() {
    const UPDATES: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path());
    let store = crate::edge::files::FsStore::for_crew(dir.path()).unwrap();
    for made in layout.directories() {
        store.create_dir(&made).unwrap();
    }
    let (journal, _) = SegmentedLog::open(store.clone(), &layout.journal()).unwrap();
    let mut steward = Steward::new(store.clone(), layout.clone(), journal);
    std::thread::scope(|scope| {
        // Two writers for each agent, so that they also race for one queue's numbers.
        let writer = |writer: u64| {
            let (store, layout) = (&store, &layout);
            let agent = name(AGENTS[usize::try_from(writer / 2).unwrap()]);
            move || {
                for n in 0..UPDATES {
                    let id = name(&format!("w{writer}-{n}"));
                    let temp = layout.tmp(&agent).join(format!("{id}.tmp"));
                    let value = Some(json!([writer, n]));
                    remember(store, layout, &agent, &temp, &id, Operation::Append, &key("all"), value)
                        .unwrap();
                }
            }
        };
        let writers: Vec<_> = (0..8).map(|number| scope.spawn(writer(number))).collect();
        while writers.iter().any(|writer| !writer.is_finished()) {
            work_off(&mut steward).unwrap();
        }
    });
    work_off(&mut steward).unwrap();
    let all = recall(&store, &layout, &key("all")).unwrap().unwrap();
    let all: Vec<(u64, u64)> = serde_json::from_slice(&all).unwrap();
    for writer in 0..8 {
        let mut got: Vec<u64> = all.iter().filter(|item| item.0 == writer).map(|item| item.1).collect();
        got.sort_unstable();
        assert_eq!(got, (0..UPDATES).collect::<Vec<_>>(), "writer {writer}");
    }
}
