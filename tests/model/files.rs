//! What the actors share: files that change in single steps, and that a power cut takes back where nothing made
//! them durable.

use std::hash::Hash;

/// A claim is known by its nonce, and here each agent claims once: the nonce is the agent.
pub(crate) type Nonce = u8;

/// A set of nonces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Nonces(u8);

impl Nonces {
    pub(crate) fn contains(self, nonce: Nonce) -> bool {
        self.0 & (1 << nonce) != 0
    }

    pub(crate) fn insert(&mut self, nonce: Nonce) {
        self.0 |= 1 << nonce;
    }

    pub(crate) fn remove(&mut self, nonce: Nonce) {
        self.0 &= !(1 << nonce);
    }
}

/// A task's record: one in `tasks/` is ready, one in `done/` has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Record {
    pub(crate) token: u8,
    pub(crate) decided: Nonces,
}

/// What is in a lock, as far as it can be read: its data is never synced, so a power cut can tear it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Lock {
    Whole { token: u8, nonce: Nonce },
    Torn,
}

impl Lock {
    pub(crate) fn nonce(self) -> Option<Nonce> {
        match self {
            Self::Whole { nonce, .. } => Some(nonce),
            Self::Torn => None,
        }
    }

    /// Whose claim to a task that bears this token it is.
    pub(crate) fn claims(self, current: u8) -> Option<Nonce> {
        match self {
            Self::Whole { token, nonce } => (token == current).then_some(nonce),
            Self::Torn => None,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Verdict {
    Done,
    Failed,
    Released,
}

/// An outcome file; its nonce is its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Outcome {
    pub(crate) token: u8,
    pub(crate) verdict: Verdict,
}

/// A line of the ledger: an outcome that was accepted. Committed at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Accepted {
    pub(crate) nonce: Nonce,
    pub(crate) token: u8,
    pub(crate) verdict: Verdict,
}

/// One name in a directory: what it shows, and what a power cut may bring back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name<T> {
    now: Option<T>,
    unsynced: Vec<Option<T>>,
}

impl<T: Copy + Ord> Name<T> {
    pub(crate) fn of(now: Option<T>) -> Self {
        Self { now, unsynced: Vec::new() }
    }

    pub(crate) fn get(&self) -> Option<T> {
        self.now
    }

    /// A rename, link or unlink. `cuts`: whether the power may still fail; if not, nobody will miss what was.
    pub(crate) fn put(&mut self, now: Option<T>, cuts: bool) {
        if cuts && self.now != now {
            self.unsynced.push(self.now);
            self.unsynced.sort_unstable();
            self.unsynced.dedup();
        }
        self.now = now;
    }

    pub(crate) fn sync(&mut self) {
        self.unsynced.clear();
    }

    /// What may be found there after a power cut.
    fn leftovers(&self) -> Vec<Option<T>> {
        let mut found = self.unsynced.clone();
        found.push(self.now);
        found.sort_unstable();
        found.dedup();
        found
    }
}

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Shelf {
    /// `tasks/`
    Open,
    /// `done/`
    Done,
}

/// All files of one task.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    /// `tasks/new/ID.json`
    pub(crate) new: Name<()>,
    /// `tasks/ID.json`
    pub(crate) open: Name<Record>,
    /// `tasks/done/ID.json`
    pub(crate) done: Name<Record>,
    /// `tasks/ID.lock`
    pub(crate) lock: Name<Lock>,
    /// `tasks/outcome/AGENT/ID.TOKEN.NONCE.json`, by nonce
    pub(crate) outcomes: Vec<Name<Outcome>>,
    /// `tasks/refused/`
    pub(crate) refused: Nonces,
    /// `tasks/tokens`: written before the first record that bears such a token, so durable when one is seen.
    pub(crate) reserved: u8,
    /// `ledger/`
    pub(crate) ledger: Vec<Accepted>,
}

impl Disk {
    /// A task was submitted.
    pub(crate) fn submitted(agents: usize) -> Self {
        Self {
            new: Name::of(Some(())),
            open: Name::of(None),
            done: Name::of(None),
            lock: Name::of(None),
            outcomes: vec![Name::of(None); agents],
            refused: Nonces::default(),
            reserved: 0,
            ledger: Vec::new(),
        }
    }

    pub(crate) fn shelf(&mut self, shelf: Shelf) -> &mut Name<Record> {
        match shelf {
            Shelf::Open => &mut self.open,
            Shelf::Done => &mut self.done,
        }
    }

    /// Makes a directory durable. Locks lie beside the open records.
    pub(crate) fn sync(&mut self, shelf: Shelf) {
        self.shelf(shelf).sync();
        if shelf == Shelf::Open {
            self.lock.sync();
        }
    }

    /// What claimers read.
    pub(crate) fn shown_token(&self) -> Option<u8> {
        self.open.get().map(|record| record.token)
    }

    /// The token by which the task is held. Of two records that of the higher token stands; at a tie it has ended.
    pub(crate) fn token(&self) -> Option<u8> {
        let ended = self.done.get().map(|record| record.token);
        self.shown_token().filter(|token| Some(*token) > ended)
    }

    /// Who holds the task, as far as the files say.
    pub(crate) fn holder(&self) -> Option<Nonce> {
        self.lock.get()?.claims(self.token()?)
    }

    /// In how many ways a power cut may leave the disk.
    pub(crate) fn power_cuts(&self) -> usize {
        let outcomes: usize = self.outcomes.iter().map(|outcome| outcome.leftovers().len()).product();
        let records = self.open.leftovers().len() * self.done.leftovers().len();
        outcomes * records * self.new.leftovers().len() * self.locks_left().len()
    }

    /// One of the ways: each name on its own is as it was, or as it was at any time since its directory was last
    /// synced.
    pub(crate) fn after_power_cut(&self, mut way: usize) -> Self {
        fn pick<T: Copy>(way: &mut usize, found: &[Option<T>]) -> Name<T> {
            let picked = found[*way % found.len()];
            *way /= found.len();
            Name { now: picked, unsynced: Vec::new() }
        }
        Self {
            new: pick(&mut way, &self.new.leftovers()),
            open: pick(&mut way, &self.open.leftovers()),
            done: pick(&mut way, &self.done.leftovers()),
            lock: pick(&mut way, &self.locks_left()),
            outcomes: self.outcomes.iter().map(|outcome| pick(&mut way, &outcome.leftovers())).collect(),
            refused: self.refused,
            reserved: self.reserved,
            ledger: self.ledger.clone(),
        }
    }

    /// A lock's data is never synced: what is left of it may be torn.
    fn locks_left(&self) -> Vec<Option<Lock>> {
        let mut found = self.lock.leftovers();
        if found.iter().any(Option::is_some) {
            found.push(Some(Lock::Torn));
        }
        found
    }
}
