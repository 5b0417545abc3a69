//! Recovering twice must come to what recovering once comes to.

use nightcrew::protocol::record::decode;
use nightcrew::protocol::task::{Phase, TaskRecord};

use super::{BTreeMap, Crew, DEPTH_MAX, Faults, Rc, Rng, Start, World};

/// Steps after which a start looks whether all is at rest.
const LOOK_STEPS: u32 = 100;
/// ... and within which it must be.
const RESTING_STEPS_MAX: u32 = 20_000;

impl World {
    /// Recovers a copy of this very moment once and twice, with the crew halted: the second time must change nothing.
    pub(super) fn compare_recoveries(&self) {
        let mut options = self.options.clone();
        options.interleaving = 0.0;
        let rng = Rng::with_seed(self.random());
        let copy = Self::with(options, self.disk.fork(), rng, self.tale.borrow().is_some());
        copy.disk.set_faults(Faults::default());
        copy.disk.put(&self.layout.halt(), b"only to recover\n");
        copy.time.advance(self.time.ms());
        copy.time.set_wall(self.time.wall_offset());
        copy.kernel.borrow_mut().boot = self.kernel.borrow().boot;
        copy.calm.set(true);
        let depth = self.depth.replace(DEPTH_MAX);
        let mut once = copy.recovered();
        let mut waiting = copy.waiting();
        if !waiting.is_empty() {
            waiting.push("/tasks/tokens".into());
        }
        let mut twice = copy.recovered();
        // Time goes on meanwhile, and what expires takes a token.
        let is_timeless = |path: &String| !waiting.iter().any(|part| path.ends_with(part));
        once.retain(|path, _| is_timeless(path));
        twice.retain(|path, _| is_timeless(path));
        self.depth.set(depth);
        if once != twice {
            for line in copy.tale() {
                self.tell(|| format!("in a recovery: {line}"));
            }
            let gone = once.iter().find(|(path, _)| !twice.contains_key(*path)).map(|(path, _)| path);
            let differs =
                twice.iter().find(|(path, hash)| once.get(*path) != Some(hash)).map(|(path, _)| path);
            self.violate(format!(
                "recovering twice came to something else than recovering once: without {gone:?}, other {differs:?}"
            ));
        }
        for what in copy.violations() {
            self.violate(format!("in a recovery: {what}"));
        }
    }

    /// What the records of tasks are called that wait for their time, or for others, or run out of it.
    fn waiting(&self) -> Vec<String> {
        let dir = self.layout.tasks();
        let waits = |name: &String| {
            let record = self.disk.text(&dir.join(name)).and_then(|bytes| decode::<TaskRecord>(&bytes).ok());
            record.is_some_and(|it| {
                matches!(it.state, Phase::Waiting | Phase::Blocked) || it.wishes.expires.is_some()
            })
        };
        self.disk.names(&dir).into_iter().filter(waits).map(|name| format!("/{name}")).collect()
    }

    fn go_on_until_rest(&self, crew: &Crew) {
        for step in 1..=RESTING_STEPS_MAX {
            self.step();
            if step % LOOK_STEPS == 0 && crew.is_at_rest() {
                return;
            }
        }
        self.violate("it does not come to rest".into());
    }

    /// All files, with a hash of each, after a start and some time.
    fn recovered(&self) -> BTreeMap<String, u64> {
        let Start::Up(crew) = Crew::start(self, self.disk.process()) else {
            self.violate("it does not start".into());
            return BTreeMap::new();
        };
        *self.crew.borrow_mut() = Some(Rc::clone(&crew));
        self.go_on_until_rest(&crew);
        crew.handle.kill();
        self.kernel.borrow_mut().drop_supervisor();
        *self.crew.borrow_mut() = None;
        // What tells of each start, and what is only shown, differs.
        let told = ["/ledger", "/journal", "/status", "/tmp", "/crew.json", "/ready", "/alerts", "/output"];
        self.disk.digest(|path| told.iter().any(|part| path.ends_with(part)))
    }
}
