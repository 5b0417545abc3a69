//! The loop over a real directory, with a clock that a test sets and helpers that only note what they are told.

mod results;
mod starts;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::leftovers::{clear_files_of_commands, tmp_of_commands};
use super::opening::{History, facts_in, make_directories};
use super::*;
use crate::edge::faulty::Faulty;
use crate::edge::log::Recovery;
use crate::edge::processes::Order;
use crate::edge::watches::{Area, Touch};
use crate::edge::writer::{Change, Done, Ticket};
use crate::protocol::crewfile::CrewFile;
use crate::protocol::layout::Shelf;
use crate::protocol::name::RunId;
use crate::protocol::process::Identity;

#[derive(Clone, Default)]
struct Told {
    ms: Rc<Cell<u64>>,
    jobs: Rc<RefCell<Vec<Job>>>,
    orders: Rc<RefCell<Vec<Order>>>,
    watches: Rc<Cell<u32>>,
}

impl Clock for Told {
    fn now(&self) -> Now {
        let ms = self.ms.get();
        Now { mono: Mono(ms), wall: Wall(1_700_000_000_000 + i64::try_from(ms).unwrap()) }
    }
}

impl Processes for Told {
    fn order(&self, order: Order) {
        self.orders.borrow_mut().push(order);
    }
    fn is_being_written(&self, _: &Path) -> bool {
        false
    }
    fn close_run(&self, _: &AgentName, _: &RunId) -> bool {
        true
    }
}

impl Helpers for Told {
    fn write(&self, job: Job) {
        self.jobs.borrow_mut().push(job);
    }
    fn remember(&self, _: Option<&AgentName>) {}
    fn watch(&self, _: Assignment) {}
    fn free_space(&self) -> Option<u64> {
        None
    }
    fn tidy(&self, _: tidying::Order) {}
    fn rewatch(&self) {
        self.watches.set(self.watches.get() + 1);
    }
    fn watch_extra(&self, _: BTreeSet<(PathBuf, Area, Scope)>) {}
}

impl Told {
    fn kills(&self) -> usize {
        self.orders.borrow().iter().filter(|order| matches!(order, Order::KillTree { .. })).count()
    }
    /// The changes that put a file of this name aside.
    fn put_aside(&self, name: &str) -> Vec<PathBuf> {
        let jobs = self.jobs.borrow();
        let changes = jobs.iter().flat_map(|job| &job.last);
        changes
            .filter_map(|change| match change {
                Change::Rename { from, to } if from.ends_with(name) => Some(to.clone()),
                Change::Rename { .. }
                | Change::Write { .. }
                | Change::Copy { .. }
                | Change::Link { .. }
                | Change::Remove { .. } => None,
            })
            .collect()
    }
}

struct Crew {
    told: Told,
    layout: Layout,
    supervisor: Supervisor<Faulty, Told, Told, Told>,
    _dir: tempfile::TempDir,
}

fn nothing_before() -> History {
    History {
        ledger: Recovery::default(),
        tail: Vec::new(),
        facts: Vec::new(),
        journal: Recovery::default(),
        unrecorded: Vec::new(),
        damage: None,
    }
}

/// What the writer was told to do.
impl Crew {
    fn removes(&self, path: &Path) -> bool {
        let remove = Change::Remove { path: path.into() };
        self.told.jobs.borrow().iter().any(|job| job.last.contains(&remove))
    }

    fn tells(&self, is: impl Fn(&Fact) -> bool) -> bool {
        self.told.jobs.borrow().iter().flat_map(|job| &job.entries).any(|entry| is(&entry.fact))
    }
}

const AGENT: &str = "command = [\"sleep\", \"1000\"]\nheartbeat = \"1s\"\n";

impl Crew {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path().canonicalize().unwrap());
        let us = std::fs::metadata(layout.crew()).unwrap().uid();
        let store = Faulty::new(layout.crew());
        make_directories(&store, &layout.directories()).unwrap();
        store.create_dir(&layout.agents()).unwrap();
        let agent = layout.agents().join("beater.toml");
        store.write_new(&agent, AGENT.as_bytes(), false).unwrap();
        let owners = Owners { us, crew: us };
        let inherited = [("PATH".into(), "/usr/bin:/bin".into())].into();
        let terms = Terms { crew_file: CrewFile::default(), inherited, binary_dir: "/nowhere".into() };
        let me = Identity { pid: 1, start: 1, boot: "boot".into(), ns: 1 };
        let setup = Setup {
            boot: "boot".into(),
            ns: 1,
            tasks_at_once: 4,
            token_floor: 0,
            until_idle: false,
            seed: 1,
        };
        let told = Told::default();
        told.ms.set(1_000);
        let catalog = Catalog::new(store.clone(), layout.clone(), owners, terms.clone());
        let options = Options { layout: layout.clone(), me, owners, terms, setup };
        let mut supervisor =
            Supervisor::new(store, told.clone(), told.clone(), told.clone(), catalog, options);
        supervisor.recover(Vec::new(), nothing_before()).unwrap();
        supervisor.turn([]);
        Self { told, layout, supervisor, _dir: dir }
    }

    /// Lets the loop wait, as it would, and then take these messages `late` ms after what it waited for.
    fn turn_after(&mut self, ms: u64, messages: Vec<Message>) {
        self.supervisor.wait_ms();
        self.told.ms.set(self.told.ms.get() + ms);
        self.supervisor.turn(messages);
    }

    /// The one agent's process runs, and the watchdog has looked once.
    fn running(&mut self) -> RunId {
        let run = self.told.orders.borrow().iter().find_map(|order| match order {
            Order::Spawn(launch) => Some(launch.run.clone()),
            Order::Adopt { .. }
            | Order::Release { .. }
            | Order::Signal { .. }
            | Order::KillTree { .. }
            | Order::Examine { .. }
            | Order::Seen { .. } => None,
        });
        let run = run.unwrap();
        let process = Identity { pid: 4711, start: 5, boot: "boot".into(), ns: 1 };
        self.turn_after(1, vec![Message::Process(Report::Spawned { run: run.clone(), process })]);
        self.turn_after(250, vec![round()]);
        run
    }

    fn task(&self, name: &str, bytes: &str) -> (PathBuf, Message) {
        let path = self.layout.new_tasks().join(name);
        self.supervisor.store.unlink(&path).unwrap();
        self.supervisor.store.write_new(&path, bytes.as_bytes(), false).unwrap();
        let hint = Hint::Touched { area: Area::NewTasks, path: path.clone(), touch: Touch::Whole };
        (path, Message::Hint(hint))
    }
}

fn round() -> Message {
    Message::Sighting(Sighting::Round { canary_alive: true })
}

#[test]
fn a_pause_of_everything_is_nobodys_silence() {
    let mut crew = Crew::new();
    crew.running();
    crew.turn_after(8_000, vec![round()]);
    crew.turn_after(250, vec![round()]);
    let examined = |told: &Told| {
        told.orders.borrow().iter().filter(|order| matches!(order, Order::Examine { .. })).count()
    };
    assert_eq!(examined(&crew.told), 0);
    for _ in 0..10 {
        crew.turn_after(250, vec![round()]);
    }
    assert_eq!(examined(&crew.told), 1, "silence while the rounds go on is a silence");
}

#[test]
fn a_turn_that_took_long_is_nobodys_silence() {
    let mut crew = Crew::new();
    crew.running();
    // In the middle of a turn: the clock goes on before the loop waits again.
    crew.told.ms.set(crew.told.ms.get() + 8_000);
    crew.turn_after(250, vec![round()]);
    let examined = crew.told.orders.borrow().iter().any(|order| matches!(order, Order::Examine { .. }));
    assert!(!examined);
}

#[test]
fn a_file_is_left_alone_until_the_job_that_takes_it_away_has_ended() {
    let mut crew = Crew::new();
    let (path, hint) = crew.task("t.json", "[]");
    crew.turn_after(0, vec![hint]);
    crew.turn_after(SCAN_MS, vec![Message::Hint(Hint::Rescan)]);
    assert_eq!(crew.told.put_aside("t.json").len(), 1, "a second job could take away a good one");
    // What follows comes before the loop hears that the job has ended.
    let good = "{\"v\":1,\"id\":\"t\",\"nonce\":\"n\",\"kind\":\"k\",\"at\":\"2026-11-20T03:00:00Z\",\"payload\":{}}\n";
    let (_, hint) = crew.task("t.json", good);
    crew.turn_after(0, vec![hint]);
    assert_eq!(crew.supervisor.state.summary().tasks_open, 0);
    let takes = |job: &&Job| {
        job.last.iter().any(|change| matches!(change, Change::Rename { from, .. } if *from == path))
    };
    let ticket = crew.told.jobs.borrow().iter().find(takes).and_then(|job| job.ticket).unwrap();
    crew.turn_after(0, vec![Message::Writer(WriterReport::Done(Done::Stored(ticket)))]);
    assert_eq!(
        crew.supervisor.state.summary().tasks_open,
        1,
        "that hint was passed over, and is made up for"
    );
}

#[test]
fn without_its_state_the_loop_rests_and_neither_judges_nor_makes_anything() {
    let mut crew = Crew::new();
    crew.running();
    crew.supervisor.store.rename(&crew.layout.state(), &crew.layout.crew().join("elsewhere")).unwrap();
    crew.supervisor.to_look_at = ToLookAt::everything();
    crew.supervisor.go_blind();
    let jobs = crew.told.jobs.borrow().len();
    let lost = Hint::Lost { area: Area::Tasks, path: crew.layout.tasks() };
    crew.turn_after(0, vec![Message::Hint(Hint::Rescan), Message::Hint(lost)]);
    assert!(crew.supervisor.wait_ms() > 1_000);
    for _ in 0..100 {
        crew.turn_after(250, vec![round()]);
    }
    assert_eq!((crew.told.kills(), crew.told.jobs.borrow().len()), (0, jobs));
    assert!(!crew.layout.state().exists());
}

#[test]
fn a_second_look_is_one_look_and_then_the_loop_rests() {
    let mut crew = Crew::new();
    let (_, hint) = crew.task("half.json", "{\"v\":1,\"id\":\"half\"");
    crew.turn_after(0, vec![hint]);
    assert!((1..=1_000).contains(&crew.supervisor.wait_ms()));
    crew.task(
        "half.json",
        "{\"v\":1,\"id\":\"half\",\"token\":0,\"nonce\":\"n\",\"kind\":\"k\",\"at\":\"2026-11-20T03:00:00Z\",\
         \"by\":\"x\",\"payload\":{}}\n",
    );
    crew.turn_after(1_000, Vec::new());
    assert!(crew.supervisor.state.summary().tasks_open == 1, "it was whole at the second look");
    assert!(crew.supervisor.wait_ms() > 1_000);

    let (gone, hint) = crew.task("gone.json", "{\"v\":1");
    crew.turn_after(0, vec![hint]);
    crew.supervisor.store.unlink(&gone).unwrap();
    crew.turn_after(1_000, Vec::new());
    assert!(crew.supervisor.wait_ms() > 1_000);

    let (_, hint) = crew.task("never.json", "{\"v\":1");
    crew.turn_after(0, vec![hint]);
    crew.turn_after(1_000, Vec::new());
    assert_eq!(crew.told.put_aside("never.json").len(), 1);
    assert!(crew.supervisor.wait_ms() > 1_000);
}

#[test]
fn what_is_put_aside_takes_a_free_name_and_a_refused_request_is_answered() {
    let mut crew = Crew::new();
    let taken = crew.layout.rejected_tasks().join("odd.json").join("inside");
    crew.supervisor.store.create_dir(&taken).unwrap();
    let (_, hint) = crew.task("odd.json", "[]");
    crew.turn_after(0, vec![hint]);
    assert_eq!(crew.told.put_aside("odd.json"), [crew.layout.rejected_tasks().join("odd.2.json")]);
    // Another of that name, before the first is where it goes.
    let path = crew.layout.requests().join("odd.json");
    crew.supervisor.store.write_new(&path, b"[]", false).unwrap();
    crew.turn_after(
        0,
        vec![Message::Hint(Hint::Touched { area: Area::Requests, path, touch: Touch::Whole })],
    );
    assert_eq!(crew.told.put_aside("odd.json")[1..], [crew.layout.rejected_tasks().join("odd.3.json")]);

    let path = crew.layout.requests().join("ask.json");
    crew.supervisor.store.write_new(&path, b"{\"v\":1,\"id\":\"ask\",\"ask\":\"dance\"}\n", false).unwrap();
    let hint = Hint::Touched { area: Area::Requests, path, touch: Touch::Whole };
    crew.turn_after(0, vec![Message::Hint(hint)]);
    let answer = crew.layout.answer(&"ask".parse().unwrap());
    let jobs = crew.told.jobs.borrow();
    let answered = jobs.iter().flat_map(|job| &job.then);
    assert!(
        answered.into_iter().any(|change| matches!(change, Change::Write { path, .. } if *path == answer))
    );
}

#[test]
fn a_misnamed_file_is_rejected_once_and_one_that_cannot_be_moved_is_not_judged_for_ever() {
    let mut crew = Crew::new();
    let takes = |crew: &Crew, name: &str| -> Vec<Ticket> {
        let jobs = crew.told.jobs.borrow();
        let of = |job: &&Job| {
            job.last.iter().any(|c| matches!(c, Change::Rename { from, .. } if from.ends_with(name)))
        };
        jobs.iter().filter(of).filter_map(|job| job.ticket).collect()
    };
    let stored = |ticket| vec![Message::Writer(WriterReport::Done(Done::Stored(ticket)))];
    let (path, hint) = crew.task("no record.txt", "");
    crew.turn_after(0, vec![hint]);
    crew.supervisor.store.unlink(&path).unwrap();
    crew.turn_after(0, stored(takes(&crew, "no record.txt")[0]));
    assert_eq!(takes(&crew, "no record.txt").len(), 1, "it is gone, and was judged by its name again");

    let (path, hint) = crew.task("stays.txt", "");
    crew.turn_after(0, vec![hint]);
    crew.turn_after(0, stored(takes(&crew, "stays.txt")[0]));
    crew.turn_after(SCAN_MS, vec![Message::Hint(Hint::Rescan)]);
    assert_eq!(takes(&crew, "stays.txt").len(), 1, "it stayed as it was");
    crew.supervisor.store.unlink(&path).unwrap();
    let (_, hint) = crew.task("stays.txt", "another by now");
    crew.turn_after(0, vec![hint]);
    assert_eq!(takes(&crew, "stays.txt").len(), 2, "it changed");
}

#[test]
fn a_directory_whose_removal_nobody_told_is_made_again_when_everything_is_looked_at() {
    let mut crew = Crew::new();
    let dir = crew.layout.new_tasks();
    std::fs::remove_dir(&dir).unwrap();
    crew.turn_after(0, vec![Message::Hint(Hint::Rescan)]);
    assert!(dir.exists());
    assert_eq!(crew.told.watches.get(), 1, "and watched");
    std::fs::remove_dir(&dir).unwrap();
    crew.turn_after(25, Vec::new());
    assert!(!dir.exists());
    crew.turn_after(SCAN_MS, Vec::new());
    assert!(dir.exists());
}
