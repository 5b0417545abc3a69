//! Much random work, and a power cut: what may be left is known for each name, whatever else was going on.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use fastrand::Rng;
use nightcrew::edge::store::{Store, parent};

use crate::disk::{Disk, Handle};

type Content = Option<Vec<u8>>;

/// What is seen under each name, and all that may be left of it.
struct Oracle {
    process: Handle,
    rng: Rng,
    seen: BTreeMap<PathBuf, Content>,
    possible: BTreeMap<PathBuf, BTreeSet<Content>>,
    version: u32,
}

impl Oracle {
    fn new(disk: &Disk, seed: u64) -> Self {
        let dirs = ["/a", "/a/b", "/c"];
        let names = dirs.iter().flat_map(|dir| (0..3).map(move |name| Path::new(dir).join(name.to_string())));
        let seen: BTreeMap<PathBuf, Content> = names.map(|path| (path, None)).collect();
        let possible = seen.iter().map(|(path, none)| (path.clone(), [none.clone()].into())).collect();
        let process = disk.process();
        for dir in dirs {
            process.create_dir(Path::new(dir)).expect("made");
        }
        Self { process, rng: Rng::with_seed(seed), seen, possible, version: 0 }
    }

    fn any(&mut self) -> PathBuf {
        let names: Vec<&PathBuf> = self.seen.keys().collect();
        names[self.rng.usize(..names.len())].clone()
    }

    /// This name now has this content, and may have it, or any it had, after a cut.
    fn now(&mut self, path: &Path, content: Content) {
        self.possible.entry(path.to_owned()).or_default().insert(content.clone());
        self.seen.insert(path.to_owned(), content);
    }

    /// The names of this directory are durable as they are.
    fn durable(&mut self, dir: &Path) {
        for (path, content) in self.seen.iter().filter(|(path, _)| parent(path) == dir) {
            self.possible.insert(path.clone(), [content.clone()].into());
        }
    }

    fn work(&mut self) {
        let (one, two) = (self.any(), self.any());
        self.version += 1;
        let content = format!("version {} ", self.version).repeat(self.rng.usize(1..100)).into_bytes();
        // A temp file in another directory: what moves it concerns both.
        let temp = Path::new("/c/temp");
        match self.rng.u8(..8) {
            0 | 1 => {
                self.process.publish(temp, &one, &content).expect("published");
                self.now(&one, Some(content));
                self.durable(parent(&one));
            }
            2 | 3 => {
                self.process.write_new(temp, &content, true).expect("written");
                self.process.rename(temp, &one).expect("renamed");
                self.now(&one, Some(content));
            }
            4 => {
                self.process.unlink(&one).expect("removed");
                self.now(&one, None);
            }
            // To rename one of two names of a file to the other does nothing.
            5 if self.seen[&one].is_some() && self.seen[&one] != self.seen[&two] => {
                self.process.rename(&one, &two).expect("renamed");
                let moved = self.seen[&one].clone();
                self.now(&one, None);
                self.now(&two, moved);
            }
            6 if self.seen[&one].is_some() && self.seen[&two].is_none() => {
                self.process.link(&one, &two).expect("linked");
                let linked = self.seen[&one].clone();
                self.now(&two, linked);
            }
            7 => {
                self.process.sync_dir(parent(&one)).expect("synced");
                self.durable(parent(&one));
            }
            _ => {}
        }
    }
}

#[test]
fn whatever_was_synced_is_left_and_whatever_is_left_was_there() {
    let mut uncertain = 0;
    for seed in 0..300 {
        let disk = Disk::new(seed);
        let mut oracle = Oracle::new(&disk, seed);
        for _ in 0..oracle.rng.usize(..60) {
            oracle.work();
        }
        for (path, content) in &oracle.seen {
            assert_eq!(disk.text(path), *content, "seed {seed}: {} before the cut", path.display());
        }
        disk.power_cut(&mut oracle.rng);
        for (path, possible) in &oracle.possible {
            uncertain += usize::from(possible.len() > 1);
            let left = disk.text(path);
            assert!(possible.contains(&left), "seed {seed}: {} is {left:?} of {possible:?}", path.display());
        }
    }
    assert!(uncertain > 500, "{uncertain}");
}
