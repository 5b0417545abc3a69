//! A control group around a supervisor, of cgroup v1 or v2, as the machine has it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use super::needs;
use crate::crew::{Crew, text_of};

/// A control group. Dropping it thaws it and ends what is in it: it is to outlive the crew.
pub(crate) struct Cgroup {
    dir: PathBuf,
    /// Of version 2, where files have other names.
    unified: bool,
}

impl Cgroup {
    /// One that can be frozen; None, said aloud, where there is none to be had.
    pub(crate) fn freezer(test: &str) -> Option<Self> {
        Self::with(test, "freezer", &["freezer.state", "cgroup.freeze"])
    }

    /// One that can bound how many processes there are in it.
    pub(crate) fn pids(test: &str) -> Option<Self> {
        Self::with(test, "pids", &["pids.max"])
    }

    /// The first of the hierarchies with `controller` in which a group can be made that has one of `files`.
    fn with(test: &str, controller: &str, files: &[&str]) -> Option<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let label = format!("nightcrew-test-{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        for (root, unified) in hierarchies(controller) {
            let group = Self { dir: root.join(&label), unified };
            let made = fs::create_dir(&group.dir).is_ok();
            if made && files.iter().any(|file| group.dir.join(file).exists()) {
                return Some(group);
            }
        }
        needs::skipped(test, &format!("no control group with {controller} can be made here"));
        None
    }

    /// Starts the crew's supervisor in here, where all that it starts stays.
    pub(crate) fn start(&self, crew: &mut Crew) {
        let enter = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", self.dir.display());
        crew.spawn_supervisor_under(&["sh", "-c", &enter, "sh"], &[], &[]);
        let supervisor = crew.supervisor().to_string();
        crew.eventually("the supervisor is in its group", || self.members().contains(&supervisor));
    }

    pub(crate) fn write(&self, file: &str, value: &str) {
        fs::write(self.dir.join(file), value).expect("the group takes it");
    }

    pub(crate) fn read(&self, file: &str) -> String {
        text_of(&self.dir.join(file)).trim().to_owned()
    }

    /// The pids in here.
    fn members(&self) -> Vec<String> {
        self.read("cgroup.procs").lines().map(str::to_owned).collect()
    }

    /// Stops all that is in here at once, until what this gives is dropped.
    pub(crate) fn freeze<'a>(&'a self, crew: &Crew) -> Frozen<'a> {
        let frozen = Frozen(self);
        if self.unified {
            self.write("cgroup.freeze", "1");
            crew.eventually("all is frozen", || self.read("cgroup.events").contains("frozen 1"));
        } else {
            self.write("freezer.state", "FROZEN");
            crew.eventually("all is frozen", || self.read("freezer.state") == "FROZEN");
        }
        frozen
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // What is left must not outlive the test; a group with processes in it cannot be removed.
        let begun = Instant::now();
        while self.dir.exists()
            && fs::remove_dir(&self.dir).is_err()
            && begun.elapsed() < Duration::from_secs(5)
        {
            for pid in self.members() {
                if let Ok(pid) = pid.parse() {
                    let _ = nix::sys::signal::kill(
                        nix::unistd::Pid::from_raw(pid),
                        nix::sys::signal::Signal::SIGKILL,
                    );
                }
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// While it is there, nothing in the group moves. To be dropped before the crew: what is frozen cannot be killed.
pub(crate) struct Frozen<'a>(&'a Cgroup);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let (file, value) = if self.0.unified { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        // The group may be gone; a test that fails must not fail twice.
        let _ = fs::write(self.0.dir.join(file), value);
    }
}

/// Where groups with this controller are made: below our own place in each hierarchy that has it, version 1 first.
fn hierarchies(controller: &str) -> Vec<(PathBuf, bool)> {
    let mounts = text_of(Path::new("/proc/self/mounts"));
    let own = text_of(Path::new("/proc/self/cgroup"));
    let mut found = Vec::new();
    for line in mounts.lines() {
        let fields: Vec<&str> = line.split(' ').collect();
        let [_, mount, kind, options, ..] = fields[..] else { continue };
        let unified = kind == "cgroup2";
        let has_it = kind == "cgroup" && options.split(',').any(|option| option == controller);
        if !unified && !has_it {
            continue;
        }
        let place = own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let ours = if unified {
                controllers.is_empty()
            } else {
                controllers.split(',').any(|c| c == controller)
            };
            ours.then_some(path)
        });
        let below = Path::new(mount).join(place.unwrap_or("/").trim_start_matches('/'));
        found.push((if below.is_dir() { below } else { PathBuf::from(mount) }, unified));
    }
    found.sort_by_key(|(_, unified)| *unified);
    found
}
