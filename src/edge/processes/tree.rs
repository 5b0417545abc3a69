//! Which process belongs to which run.
//!
//! The supervisor is a child subreaper: whatever a run forks stays below the supervisor in the tree of
//! processes, and what loses its parent becomes the supervisor's own child. So for a run that we started,
//! its processes are found below its root and among the orphans that we inherited. An orphan is told to be
//! a run's by what was seen of it earlier, by the run's mark in its environment, or by its session; one
//! that hid all three goes to the only run that can own it, if there is only one. For a run that an earlier
//! supervisor started, the mark, the session and the root are all there is.

use std::collections::HashSet;

use super::table::{self, Instance, Stat};
use crate::protocol::name::RunId;

/// A run, as far as it matters for telling whose a process is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Household<'a> {
    /// The run.
    pub(super) run: &'a RunId,
    /// Its root process, ended or not, if one was ever known.
    pub(super) root: Option<Instance>,
    /// Whether its processes are below us or wherever an earlier supervisor left them.
    pub(super) origin: Origin,
    /// Whether the whole of it is to be killed.
    pub(super) fate: Fate,
    /// What was seen in its tree earlier.
    pub(super) seen: &'a HashSet<Instance>,
}

/// Who started a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// We did: all of its processes are below us.
    Ours,
    /// An earlier supervisor did: its processes may be anywhere.
    Earlier,
}

/// What is to become of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// It may live.
    Living,
    /// It is to be killed.
    Dying,
}

/// What a process's environment says of it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Marks {
    /// The run it claims to be of.
    pub(super) run: Option<Vec<u8>>,
    /// True if it claims to be of this crew.
    pub(super) of_this_crew: bool,
}

/// What was found. Numbers are rows of the table.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Found {
    /// The processes of each household, zombies included.
    pub(super) members: Vec<Vec<usize>>,
    /// Orphans of ours that several households could own.
    pub(super) unclear: Vec<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner {
    /// Not looked at yet.
    Unknown,
    /// One of ours that cannot be told.
    Unclear,
    /// None of our business: ourselves, our ancestors, what is not below us and bears no mark.
    Nobody,
    /// Below us, or marked: of this household.
    Of(usize),
}

/// Finds out who belongs to whom. `me` is our own pid; `marks` reads a process's environment and is asked
/// only where nothing else tells.
pub(super) fn attribute(
    table: &[Stat],
    me: u32,
    households: &[Household<'_>],
    marks: impl FnMut(u32) -> Marks,
) -> Found {
    let mut survey = Survey { table, me, households, marks, owners: vec![Owner::Unknown; table.len()] };
    survey.spare_ourselves();
    let mut path = Vec::new();
    for start in 0..table.len() {
        // Up to the first process that is decided or has no parent here, then down again.
        let mut at = Some(start);
        while let Some(row) = at.filter(|row| survey.owner(*row) == Owner::Unknown) {
            // Where pids changed hands while the table was read, parents can form a ring.
            if path.contains(&row) {
                break;
            }
            path.push(row);
            at = table.get(row).and_then(|stat| table::row(table, stat.parent));
        }
        while let Some(row) = path.pop() {
            survey.decide(row);
        }
    }
    let mut found = Found { members: vec![Vec::new(); households.len()], unclear: Vec::new() };
    for (row, owner) in survey.owners.iter().enumerate() {
        match owner {
            Owner::Of(household) => {
                if let Some(members) = found.members.get_mut(*household) {
                    members.push(row);
                }
            }
            Owner::Unclear => found.unclear.push(row),
            Owner::Nobody | Owner::Unknown => {}
        }
    }
    found
}

struct Survey<'a, M> {
    table: &'a [Stat],
    me: u32,
    households: &'a [Household<'a>],
    marks: M,
    owners: Vec<Owner>,
}

impl<M: FnMut(u32) -> Marks> Survey<'_, M> {
    fn owner(&self, row: usize) -> Owner {
        self.owners.get(row).copied().unwrap_or(Owner::Nobody)
    }

    /// We, our ancestors and the first process are never anybody's, whatever our environment says: a
    /// supervisor may well have been started from within a run.
    fn spare_ourselves(&mut self) {
        let mut pid = self.me;
        while let Some(row) = table::row(self.table, pid) {
            if self.owner(row) == Owner::Nobody {
                break;
            }
            self.settle(row, Owner::Nobody);
            pid = self.table.get(row).map_or(0, |stat| stat.parent);
        }
        if let Some(row) = table::row(self.table, 1) {
            self.settle(row, Owner::Nobody);
        }
    }

    fn settle(&mut self, row: usize, owner: Owner) {
        if let Some(slot) = self.owners.get_mut(row) {
            *slot = owner;
        }
    }

    fn decide(&mut self, row: usize) {
        let Some(stat) = self.table.get(row).copied() else { return };
        let known = self.position(|household| household.root == Some(stat.instance));
        let known = known.or_else(|| self.position(|household| household.seen.contains(&stat.instance)));
        let owner = match known {
            Some(household) => Owner::Of(household),
            None if stat.parent == self.me => self.owner_of_orphan(&stat),
            None => match table::row(self.table, stat.parent).map(|parent| self.owner(parent)) {
                Some(Owner::Of(household)) => Owner::Of(household),
                Some(Owner::Unclear) => self.owner_of_orphan(&stat),
                Some(Owner::Nobody | Owner::Unknown) | None => self.owner_of_stranger(&stat),
            },
        };
        self.settle(row, owner);
    }

    /// Below us, and below no root.
    fn owner_of_orphan(&mut self, stat: &Stat) -> Owner {
        let mark = (self.marks)(stat.instance.pid).run;
        let marked = self.position(|household| mark.as_deref() == Some(household.run.as_str().as_bytes()));
        if let Some(household) = marked.or_else(|| self.by_session(stat, |_| true)) {
            return Owner::Of(household);
        }
        // A process cannot be older than the root that it descends from.
        let can_own = |household: &Household<'_>| {
            household.origin == Origin::Ours
                && household.root.is_some_and(|root| root.start <= stat.instance.start)
        };
        let mut candidates = self.households.iter().enumerate().filter(|(_, household)| can_own(household));
        match (candidates.next(), candidates.next()) {
            (None, _) => Owner::Unclear,
            (Some((only, _)), None) => Owner::Of(only),
            // If all that could own it are to die, it dies, whoever's it is.
            (Some((first, _)), Some(_)) => {
                let mut could = self.households.iter().filter(|household| can_own(household));
                if could.all(|household| household.fate == Fate::Dying) {
                    Owner::Of(first)
                } else {
                    Owner::Unclear
                }
            }
        }
    }

    /// Not below us: it can only be of a run that an earlier supervisor started.
    fn owner_of_stranger(&mut self, stat: &Stat) -> Owner {
        let earlier = |household: &Household<'_>| household.origin == Origin::Earlier;
        if !self.households.iter().any(earlier) {
            return Owner::Nobody;
        }
        let marks = (self.marks)(stat.instance.pid);
        let marked = self.position(|household| {
            earlier(household)
                && marks.of_this_crew
                && marks.run.as_deref() == Some(household.run.as_str().as_bytes())
        });
        marked.or_else(|| self.by_session(stat, earlier)).map_or(Owner::Nobody, Owner::Of)
    }

    /// The household whose root began this session. A pid is not given out again while a session bears it,
    /// but it is after that, and then others may begin a session of that number. So the root must still be
    /// there; or it must have been our own child, whose tree is not left unattended for long, and its pid
    /// must be free.
    fn by_session(&self, stat: &Stat, among: impl Fn(&Household<'_>) -> bool) -> Option<usize> {
        self.position(|household| {
            let began = |root: Instance| match table::row(self.table, root.pid) {
                Some(row) => self.table.get(row).is_some_and(|holder| holder.instance == root),
                None => household.origin == Origin::Ours,
            };
            let root = household.root.filter(|root| {
                among(household) && root.pid == stat.session && root.start <= stat.instance.start
            });
            root.is_some_and(began)
        })
    }

    fn position(&self, what: impl Fn(&Household<'_>) -> bool) -> Option<usize> {
        self.households.iter().position(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::LazyLock;

    const ME: u32 = 100;

    /// A table of (pid, parent, session); each process started at ten times its pid.
    fn table(rows: &[(u32, u32, u32)]) -> Vec<Stat> {
        let stat = |(pid, parent, session): &(u32, u32, u32)| {
            let start = pid * 10;
            let text =
                format!("{pid} (x) S {parent} 0 {session} 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 {start} 0 0");
            table::parse_stat(text.as_bytes()).expect("it is whole")
        };
        let mut table = vec![stat(&(1, 0, 1)), stat(&(50, 1, 50)), stat(&(ME, 50, 50))];
        table.extend(rows.iter().map(stat));
        table.sort_unstable_by_key(|stat| stat.instance.pid);
        table
    }

    fn instance(pid: u32) -> Instance {
        Instance { pid, start: u64::from(pid) * 10 }
    }

    fn name(run: &str) -> RunId {
        run.parse().expect("a name")
    }

    fn household(run: &RunId, root: u32) -> Household<'_> {
        static NONE: LazyLock<HashSet<Instance>> = LazyLock::new(HashSet::new);
        let (origin, fate) = (Origin::Ours, Fate::Living);
        Household { run, root: Some(instance(root)), origin, fate, seen: &NONE }
    }

    /// The pids of each household, then those that are unclear.
    fn pids(rows: &[(u32, u32, u32)], households: &[Household<'_>], marks: &[(u32, &str)]) -> Vec<Vec<u32>> {
        let table = table(rows);
        let found = attribute(&table, ME, households, |pid| {
            let mark = marks.iter().find(|(marked, _)| *marked == pid);
            Marks { run: mark.map(|(_, run)| run.as_bytes().to_vec()), of_this_crew: mark.is_some() }
        });
        let pid = |row: &usize| table[*row].instance.pid;
        found.members.iter().chain([&found.unclear]).map(|rows| rows.iter().map(pid).collect()).collect()
    }

    #[test]
    fn what_descends_from_a_root_is_of_its_run() {
        let (a, b) = (name("a"), name("b"));
        let rows = [(200, ME, 200), (201, 200, 200), (202, 201, 202), (210, ME, 210), (220, 50, 220)];
        let found = pids(&rows, &[household(&a, 200), household(&b, 210)], &[(202, "b"), (220, "a")]);
        assert_eq!(found, [vec![200, 201, 202], vec![210], vec![]]);
    }

    #[test]
    fn an_orphan_is_told_by_mark_session_or_earlier_sight() {
        let (a, b) = (name("a"), name("b"));
        let seen = HashSet::from([instance(233)]);
        let b = Household { seen: &seen, ..household(&b, 210) };
        let rows = [(210, ME, 210), (231, ME, 231), (232, ME, 200), (233, ME, 233), (234, 233, 234)];
        let found = pids(&rows, &[household(&a, 200), b], &[(231, "a")]);
        assert_eq!(found, [vec![231, 232], vec![210, 233, 234], vec![]]);
    }

    #[test]
    fn an_orphan_that_hid_goes_to_the_only_run_that_can_own_it() {
        let (a, b) = (name("a"), name("b"));
        let rows = [(200, ME, 200), (210, ME, 210), (205, ME, 205), (240, ME, 240), (241, 240, 241)];
        let mut rows = rows.to_vec();
        rows.sort_unstable();
        let mut households = [household(&a, 200), household(&b, 210)];
        let found = pids(&rows, &households, &[(241, "b")]);
        assert_eq!(found, [vec![200, 205], vec![210, 241], vec![240]], "205 is older than b's root");
        households[0].fate = Fate::Dying;
        assert_eq!(pids(&rows, &households, &[])[2], [240, 241], "it may be b's, who lives");
        households[1].fate = Fate::Dying;
        assert_eq!(pids(&rows, &households, &[])[2], Vec::<u32>::new(), "all who could own it are to die");
    }

    #[test]
    fn strangers_belong_only_to_runs_of_an_earlier_supervisor() {
        let (a, b) = (name("a"), name("b"));
        let earlier = Household { origin: Origin::Earlier, root: Some(instance(300)), ..household(&a, 0) };
        let rows =
            [(210, ME, 210), (300, 1, 300), (301, 300, 301), (302, 1, 302), (303, 1, 300), (304, 1, 304)];
        let marks = [(302, "a"), (304, "b")];
        let found = pids(&rows, &[earlier, household(&b, 210)], &marks);
        assert_eq!(found, [vec![300, 301, 302, 303], vec![210], vec![]]);
    }

    #[test]
    fn we_and_our_ancestors_are_spared_whatever_marks_we_bear() {
        let a = name("a");
        let earlier = Household { origin: Origin::Earlier, root: None, ..household(&a, 0) };
        let found = pids(&[(60, 50, 50)], &[earlier], &[(1, "a"), (50, "a"), (60, "a"), (ME, "a")]);
        assert_eq!(found, [vec![60], vec![]]);
    }

    #[test]
    fn a_ring_of_parents_ends() {
        let a = name("a");
        let found = pids(&[(300, 301, 1), (301, 300, 1)], &[household(&a, 200)], &[]);
        assert_eq!(found, [Vec::<u32>::new(), vec![]]);
    }

    #[test]
    fn a_pid_given_out_again_is_another_process() {
        let a = name("a");
        let old = Household { root: Some(Instance { pid: 210, start: 7 }), ..household(&a, 0) };
        let rows = [(210, 50, 210), (211, 210, 210), (212, 1, 210)];
        for origin in [Origin::Ours, Origin::Earlier] {
            let old = Household { origin, ..old };
            assert_eq!(pids(&rows, &[old], &[]), [Vec::<u32>::new(), vec![]]);
        }
        let earlier = Household { origin: Origin::Earlier, ..old };
        assert_eq!(
            pids(&rows[2..], &[earlier], &[]),
            [Vec::<u32>::new(), vec![]],
            "whoever began it is gone"
        );
    }
}
