//! The watches: what of the crew is watched, and how many hints of it may wait for the loop.
//!
//! The kernel can say faster that files change than anyone can look at them. So only so many hints may
//! wait; what does not fit is not lost, since hints only say where to look: looking at everything once
//! stands for all of it.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender};

use crate::edge::watches::{Area, Hint, Route, Scope, Touch, Watches};
use crate::protocol::layout::Layout;

use super::Message;

/// How many hints may wait.
const HINTS_MAX: usize = 4096;

/// What the loop wants of the watches.
pub(super) enum WatchOrder {
    /// Everything is to be watched anew.
    Again,
    /// This is to be watched beside the crew's own places, and nothing else.
    Extra(BTreeSet<(PathBuf, Area, Scope)>),
}

/// The door that hints come through.
#[derive(Debug, Default)]
struct Door {
    waiting: AtomicUsize,
    /// Hints were turned away since everything was looked at.
    turned_away: AtomicBool,
}

impl Door {
    /// Whether one more may wait.
    fn lets_in(&self) -> bool {
        if self.waiting.load(Ordering::Acquire) >= HINTS_MAX {
            self.turned_away.store(true, Ordering::Release);
            return false;
        }
        self.waiting.fetch_add(1, Ordering::AcqRel);
        true
    }

    /// One has been taken by the loop. True if everything is to be looked at, because some did not get in.
    /// Asked at half, so that a flood costs one look for thousands of hints.
    fn taken(&self) -> bool {
        let before = self.waiting.fetch_sub(1, Ordering::AcqRel);
        before <= HINTS_MAX / 2 && self.turned_away.swap(false, Ordering::AcqRel)
    }
}

/// What is watched of every crew.
#[must_use]
pub fn watched(layout: &Layout) -> Vec<Route> {
    let route = |path, area, scope| Route { path, area, scope };
    vec![
        route(layout.agents(), Area::Agents, Scope::Entries),
        route(layout.halt(), Area::State, Scope::File),
        route(layout.supervisor_lock(), Area::State, Scope::File),
        route(layout.stopped_dir(), Area::Stopped, Scope::Entries),
        route(layout.requests(), Area::Requests, Scope::Entries),
        route(layout.new_tasks(), Area::NewTasks, Scope::Entries),
        route(layout.tasks(), Area::Tasks, Scope::Entries),
        route(layout.outcomes(), Area::Outcomes, Scope::Tree),
        route(layout.queues(), Area::Queue, Scope::Tree),
        route(layout.crew_file(), Area::CrewFile, Scope::File),
    ]
}

/// The watches, which live with the loop's thread but outside its logic.
pub(super) struct Eyes {
    watches: Option<Watches>,
    orders: Receiver<WatchOrder>,
    layout: Layout,
    extra: BTreeSet<(PathBuf, Area, Scope)>,
    door: Arc<Door>,
}

impl Eyes {
    /// Starts the watches. Without them, which is told, the periodic look at everything must do.
    pub(super) fn open(layout: Layout, orders: Receiver<WatchOrder>, sender: &Sender<Message>) -> Self {
        let door = Arc::new(Door::default());
        let (inside, outside) = (sender.clone(), Arc::clone(&door));
        let deliver = move |hint| {
            if outside.lets_in() {
                // The loop is gone only when the whole process is about to end.
                let _ = inside.send(Message::Hint(hint));
            }
        };
        let watches = Watches::start(deliver);
        let mut eyes = Self { watches: None, orders, layout, extra: BTreeSet::new(), door };
        match watches {
            Ok(watches) => eyes.watches = Some(watches),
            Err(error) => eyes.fail(sender, error.to_string()),
        }
        eyes.watch_all(sender);
        eyes
    }

    fn fail(&self, sender: &Sender<Message>, why: String) {
        if self.door.lets_in() {
            let _ = sender.send(Message::Hint(Hint::Failed(why)));
        }
    }

    /// A message that the loop takes, and what else it must know because of that.
    pub(super) fn admit(&self, message: Message) -> impl Iterator<Item = Message> + use<> {
        let overflow = matches!(message, Message::Hint(_)) && self.door.taken();
        std::iter::once(message).chain(overflow.then_some(Message::Hint(Hint::Rescan)))
    }

    /// Ends the watches. The kernel takes some 15 ms to let go of them, which pass while agents stop.
    pub(super) fn close(&mut self) {
        self.watches = None;
    }

    fn watch_all(&mut self, sender: &Sender<Message>) {
        let extra = self.extra.iter();
        let extra = extra.map(|(path, area, scope)| Route { path: path.clone(), area: *area, scope: *scope });
        let routes: Vec<Route> = watched(&self.layout).into_iter().chain(extra).collect();
        for Route { path, area, scope } in routes {
            let Some(watches) = &mut self.watches else { return };
            if let Err(error) = watches.watch(&path, area, scope) {
                self.fail(sender, format!("{}: {error}", path.display()));
            }
        }
    }

    /// Carries out what the loop ordered.
    pub(super) fn adjust(&mut self, sender: &Sender<Message>) {
        while let Ok(order) = self.orders.try_recv() {
            match order {
                WatchOrder::Again => {
                    self.watch_all(sender);
                    // What happened before the watches were there is found by looking, which must come after.
                    if self.door.lets_in() {
                        let _ = sender.send(Message::Hint(Hint::Rescan));
                    }
                }
                WatchOrder::Extra(paths) => self.watch_beside(sender, paths),
            }
        }
    }

    fn watch_beside(&mut self, sender: &Sender<Message>, paths: BTreeSet<(PathBuf, Area, Scope)>) {
        let Some(watches) = &mut self.watches else { return };
        for (gone, area, _) in self.extra.difference(&paths) {
            watches.unwatch(gone, *area);
        }
        for (new, area, scope) in paths.difference(&self.extra) {
            if let Err(error) = watches.watch(new, *area, *scope) {
                log::warn!("{}: {error}", new.display());
            } else if *area == Area::Watched && self.door.lets_in() {
                // What came since it was looked at, and before it was watched, is found by looking again.
                let hint = Hint::Touched { area: *area, path: new.clone(), touch: Touch::Whole };
                let _ = sender.send(Message::Hint(hint));
            }
        }
        self.extra = paths;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_hints_is_bounded_and_costs_one_look_at_everything() {
        let door = Door::default();
        let let_in = (0..3 * HINTS_MAX).filter(|_| door.lets_in()).count();
        assert_eq!(let_in, HINTS_MAX);
        let looks = (0..HINTS_MAX).filter(|_| door.taken()).count();
        assert_eq!(looks, 1, "once for all that did not get in");
        assert!(door.lets_in() && !door.taken(), "and what comes later is as ever");
    }
}
