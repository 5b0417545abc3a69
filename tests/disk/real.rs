//! The simulated disk has the errors of a real one: the same calls on both, and the same answers.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::fs;
use std::io;
use std::os::unix::fs::{chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use fastrand::Rng;
use nightcrew::edge::files::FsStore;
use nightcrew::edge::store::{ReadError, Store};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, mkfifo};

use crate::disk::Disk;
use crate::needs;

const NAMES: [&str; 8] = ["a", "b", "c", "x", "y", "l", "f", ".h"];
const OPEN_MAX: usize = 4;
const STRANGER: u32 = 54_321;

/// One call, with all that it is given.
#[derive(Debug)]
enum Call {
    Create(PathBuf),
    OpenAppend(PathBuf),
    Append(usize, Vec<u8>),
    Rewrite(PathBuf, u64, usize),
    Sync(usize),
    SetLen(usize, u64),
    Close(usize),
    SyncDir(PathBuf),
    Read(PathBuf, u64),
    ReadAt(PathBuf, u64, usize),
    Stat(PathBuf),
    SetMode(PathBuf, u32),
    Resolve(PathBuf),
    List(PathBuf),
    Rename(PathBuf, PathBuf),
    Link(PathBuf, PathBuf),
    Unlink(PathBuf),
    CreateDir(PathBuf),
    Touch(PathBuf),
    Copy(PathBuf, PathBuf, u64),
    WriteNew(PathBuf, Vec<u8>),
    PublishVolatile(PathBuf, PathBuf, Vec<u8>),
    Publish(PathBuf, PathBuf, Vec<u8>),
    PublishNew(PathBuf, PathBuf, Vec<u8>),
}

/// A path of one to three names; it may lead through files, symlinks and what is not there.
fn path(root: &Path, rng: &mut Rng) -> PathBuf {
    let mut path = root.to_owned();
    for _ in 0..rng.usize(1..=3) {
        match rng.u8(..40) {
            0 => path.push(".."),
            1 => path.push("n".repeat(256)),
            _ => path.push(NAMES[rng.usize(..NAMES.len())]),
        }
        if rng.bool() {
            break;
        }
    }
    // What leads out of the root would meet the rest of the real world.
    let names = path.strip_prefix(root).expect("it is below");
    if names.starts_with("..") || names.ends_with("..") { root.join("a/x") } else { path }
}

fn content(rng: &mut Rng) -> Vec<u8> {
    let len = if rng.u8(..10) == 0 { rng.usize(..3000) } else { rng.usize(..20) };
    (0..len).map(|_| rng.u8(b'a'..=b'z')).collect()
}

fn call(root: &Path, rng: &mut Rng) -> Call {
    let file = rng.usize(..OPEN_MAX);
    let (one, two) = (path(root, rng), path(root, rng));
    // A sync costs a real disk more than all the rest.
    if rng.u8(..100) == 0 {
        return match rng.u8(..5) {
            0 => Call::Sync(file),
            1 => Call::SyncDir(one),
            2 => Call::Copy(one, two, rng.u64(..40)),
            3 => Call::Publish(one, two, content(rng)),
            _ => Call::PublishNew(one, two, content(rng)),
        };
    }
    match rng.u8(..25) {
        0 => Call::Create(one),
        1 | 2 => Call::OpenAppend(one),
        3 | 4 => Call::Append(file, content(rng)),
        5 => Call::SetLen(file, rng.u64(..2000)),
        6 => Call::Close(file),
        7 | 8 => Call::Read(one, [10, 100_000][rng.usize(..2)]),
        9 => Call::ReadAt(one, [0, 5, 1 << 63][rng.usize(..3)], rng.usize(..9)),
        10 | 11 => Call::Stat(one),
        12 => Call::SetMode(one, [0o700, 0o755, 0o777][rng.usize(..3)]),
        13 => Call::Resolve(one),
        14 => Call::List(one),
        15 | 16 => Call::Rename(one, two),
        17 => Call::Link(one, two),
        18 | 19 => Call::Unlink(one),
        20 => Call::CreateDir(one),
        21 => Call::Touch(one),
        22 => Call::Rewrite(one, [0, 5][rng.usize(..2)], rng.usize(..9)),
        23 => Call::WriteNew(one, content(rng)),
        _ => Call::PublishVolatile(one, two, content(rng)),
    }
}

fn errno(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), |errno| format!("errno {errno}"))
}

fn say<T: Debug>(done: io::Result<T>) -> String {
    done.map_or_else(|error| errno(&error), |value| format!("{value:?}"))
}

fn say_read<T: Debug>(done: Result<T, ReadError>) -> String {
    match done {
        Ok(value) => format!("{value:?}"),
        Err(ReadError::Io(error)) => errno(&error),
        Err(refused) => refused.to_string(),
    }
}

/// A disk, and the files that are open on it.
struct Side<S: Store> {
    store: S,
    open: Vec<Option<S::File>>,
}

impl<S: Store> Side<S> {
    fn new(store: S) -> Self {
        Self { store, open: (0..OPEN_MAX).map(|_| None).collect() }
    }

    fn keep(&mut self, file: S::File) {
        self.open.rotate_right(1);
        self.open[0] = Some(file);
    }

    fn stat(&self, path: &Path) -> io::Result<Option<(u64, u32, u32)>> {
        let found = self.store.stat(path)?;
        // The size of a directory is the file system's own business.
        let size = |is_dir: bool, size: u64| if is_dir { 0 } else { size };
        Ok(found.map(|is| (size(is.mode >> 12 == 0o4, is.size), is.mode, is.uid)))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<(String, bool, bool)>> {
        let listed = self.store.list(dir, 100)?;
        let mut names: Vec<_> = listed.into_iter().map(|e| (e.name, e.is_file, e.is_dir)).collect();
        names.sort();
        Ok(names)
    }

    /// Does it, and says what came of it.
    fn answer(&mut self, call: &Call) -> String {
        let store = self.store.clone();
        match call {
            Call::Create(path) => say(store.create_new(path).map(|file| self.keep(file))),
            Call::OpenAppend(path) => say(store.open_append(path).map(|(file, len)| {
                self.keep(file);
                len
            })),
            Call::Append(file, bytes) => {
                say(self.open[*file].as_mut().map_or(Ok(()), |file| store.append(file, bytes)))
            }
            Call::Rewrite(path, offset, len) => {
                let bytes = store.read_at(path, *offset, *len).unwrap_or_default();
                say(store.rewrite(path, *offset, &bytes))
            }
            Call::Sync(file) => say(self.open[*file].as_ref().map_or(Ok(()), |file| store.sync(file))),
            Call::SetLen(file, len) => {
                say(self.open[*file].as_ref().map_or(Ok(()), |file| store.set_len(file, *len)))
            }
            Call::Close(file) => format!("{}", self.open[*file].take().is_some()),
            Call::SyncDir(dir) => say(store.sync_dir(dir)),
            Call::Read(path, max) => say_read(store.read(path, *max).map(|blob| blob.bytes)),
            Call::ReadAt(path, offset, len) => say(store.read_at(path, *offset, *len)),
            Call::Stat(path) => say(self.stat(path)),
            Call::SetMode(path, mode) => say(store.set_mode(path, *mode)),
            Call::Resolve(path) => say(store.resolve(path)),
            Call::List(path) => say(self.list(path)),
            Call::Rename(from, to) => say(store.rename(from, to)),
            Call::Link(from, to) => say(store.link(from, to)),
            Call::Unlink(path) => say(store.unlink(path)),
            Call::CreateDir(path) => say(store.create_dir(path)),
            Call::Touch(path) => say(store.touch(path)),
            Call::Copy(from, to, max) => say_read(store.copy_durably(from, to, *max)),
            Call::WriteNew(path, bytes) => say(store.write_new(path, bytes, false)),
            Call::PublishVolatile(temp, path, bytes) => say(store.publish_volatile(temp, path, bytes)),
            Call::Publish(temp, path, bytes) => say(store.publish(temp, path, bytes)),
            Call::PublishNew(temp, path, bytes) => say(store.publish_new(temp, path, bytes)),
        }
    }
}

/// What no primitive makes is made on both disks from outside, if the real one lets it.
fn interfere(root: &Path, disk: &Disk, rng: &mut Rng) {
    let (path, target) = (path(root, rng), path(root, rng));
    let target = if rng.bool() { target } else { NAMES[rng.usize(..NAMES.len())].into() };
    // The simulated actor makes missing directories, and replaces; the real calls do neither.
    let free = path.symlink_metadata().is_err() && path.parent().is_some_and(Path::is_dir);
    match rng.u8(..5) {
        0 | 1 if free && symlink(&target, &path).is_ok() => disk.symlink(&target, &path),
        2 if free && mkfifo(&path, Mode::from_bits_truncate(0o644)).is_ok() => disk.fifo(&path),
        3 if path.symlink_metadata().is_ok_and(|is| is.is_dir()) => {
            fs::remove_dir_all(&path).expect("it is ours");
            disk.remove(&path);
        }
        4 if geteuid().is_root() && path.symlink_metadata().is_ok_and(|is| is.is_file()) => {
            chown(&path, Some(STRANGER), None).expect("we are root");
            disk.set_owner(&path, STRANGER);
        }
        _ => {}
    }
}

/// The tree below `dir`: names, kinds, permissions, owners, which names are one file, content.
fn tree<S: Store>(
    side: &Side<S>,
    dir: &Path,
    seen: &mut BTreeMap<u64, usize>,
    names: &impl Fn(&Path) -> Vec<String>,
    text: &impl Fn(&Path) -> Option<Vec<u8>>,
    lines: &mut Vec<String>,
) {
    for name in names(dir) {
        let path = dir.join(name);
        let is = side.store.stat(&path).expect("it is there").expect("it is there");
        let next = seen.len();
        let file = *seen.entry(is.ino).or_insert(next);
        let known = say(side.stat(&path));
        let content = if is.is_regular() { text(&path) } else { None };
        lines.push(format!(
            "{} {file} {known} {content:?} {}",
            path.display(),
            say(side.store.resolve(&path))
        ));
        if is.mode >> 12 == 0o4 {
            tree(side, &path, seen, names, text, lines);
        }
    }
}

fn real_names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().expect("UTF-8")).collect();
    names.sort();
    names
}

/// The same calls on a real disk and on ours, in an empty directory of both.
fn compare(root: &Path, seed: u64, calls: usize) {
    let mut rng = Rng::with_seed(seed);
    let root = root.join(format!("seed-{seed}"));
    fs::create_dir(&root).expect("a directory");
    let disk = Disk::new(seed);
    disk.mkdir(&root);
    let user = geteuid().as_raw();
    let mut real = Side::new(FsStore::new(vec![user]));
    let mut ours = Side::new(disk.process());
    for number in 0..calls {
        if rng.u8(..30) == 0 {
            interfere(&root, &disk, &mut rng);
        }
        let call = call(&root, &mut rng);
        let expected = real.answer(&call).replace(&format!(", {user})"), ", 0)");
        let got = ours.answer(&call);
        assert_eq!(got, expected, "seed {seed}, call {number}: {call:?} (left is the simulated disk)");
    }
    let (mut expected, mut got) = (Vec::new(), Vec::new());
    tree(&real, &root, &mut BTreeMap::new(), &real_names, &|path| fs::read(path).ok(), &mut expected);
    let names = |dir: &Path| disk.names(dir);
    tree(&ours, &root, &mut BTreeMap::new(), &names, &|path| disk.text(path), &mut got);
    let expected: Vec<String> =
        expected.into_iter().map(|line| line.replace(&format!(", {user}))"), ", 0))")).collect();
    assert_eq!(got, expected, "seed {seed}, the tree at the end (left is the simulated disk)");
}

#[test]
fn it_answers_as_the_real_one_does() {
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().canonicalize().expect("a path");
    (0..20).for_each(|seed| compare(&root, seed, 2000));
}

/// A mounted image, which goes with it.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        // A test that failed must not fail twice.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

fn succeeds(program: &str, args: &[&Path]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn it_answers_as_ext4_does() {
    let test = "it_answers_as_ext4_does";
    if !needs::root(test) || !needs::program(test, "mkfs.ext4") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (image, at) = (dir.path().join("image"), dir.path().join("mounted"));
    fs::create_dir(&at).expect("a directory");
    fs::File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("a sparse file");
    assert!(succeeds("mkfs.ext4", &[Path::new("-q"), &image]), "an empty image takes a file system");
    if !succeeds("mount", &[Path::new("-o"), Path::new("loop"), &image, &at]) {
        needs::skipped(test, "no image can be mounted here");
        return;
    }
    let _mounted = Mount(at.clone());
    let root = at.canonicalize().expect("a path");
    (100..120).for_each(|seed| compare(&root, seed, 2000));
}
