//! Paths, and what is done to names: with the errors, and in the order of checks, of Linux.

use std::cell::RefCell;
use std::path::PathBuf;

use rustix::io::Errno;

use super::ChangeKind;
use super::state::{Dir, Edit, Ino, Kind, Name, Op, ROOT, State};

const NAME_MAX: usize = 255;
const LINKS_MAX: u32 = 40;

/// Where a path would have its last name: the directory, and the name unless it is `/`, `.` or `..`.
type Place<'p> = (Ino, Option<&'p [u8]>);

impl State {
    fn dir(&self, ino: Ino) -> Result<&Dir, Errno> {
        match &self.nodes[ino].kind {
            Kind::Dir(dir) => Ok(dir),
            Kind::Free | Kind::File(_) | Kind::Symlink(_) | Kind::Fifo => Err(Errno::NOTDIR),
        }
    }

    fn walk(&self, start: Ino, path: &[u8], follow: bool, links: &mut u32) -> Result<Ino, Errno> {
        let mut at = if path.first() == Some(&b'/') { ROOT } else { start };
        let mut names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).peekable();
        while let Some(name) = names.next() {
            let dir = self.dir(at)?;
            let next = match name {
                b"." => at,
                b".." => dir.parent,
                _ => find(dir, name)?.ok_or(Errno::NOENT)?,
            };
            at = match &self.nodes[next].kind {
                Kind::Symlink(target) if follow || names.peek().is_some() => {
                    *links += 1;
                    if *links > LINKS_MAX {
                        return Err(Errno::LOOP);
                    }
                    self.walk(at, target, true, links)?
                }
                Kind::Free | Kind::File(_) | Kind::Dir(_) | Kind::Symlink(_) | Kind::Fifo => next,
            };
        }
        Ok(at)
    }

    pub(super) fn lookup(&self, path: &[u8], follow: bool) -> Result<Ino, Errno> {
        let cut = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let name = &path[cut..];
        if matches!(name, b"" | b"." | b"..") {
            return self.walk(ROOT, path, follow, &mut 0);
        }
        let ino = self.entry(self.walk_to_dir(&path[..cut])?, name)?.ok_or(Errno::NOENT)?;
        match &self.nodes[ino].kind {
            Kind::Symlink(_) if follow => self.walk(ROOT, path, follow, &mut 0),
            Kind::Symlink(_) | Kind::Free | Kind::File(_) | Kind::Dir(_) | Kind::Fifo => Ok(ino),
        }
    }

    /// Walks from the root; where that led before, it leads again.
    fn walk_to_dir(&self, path: &[u8]) -> Result<Ino, Errno> {
        if let Some(ino) = self.known_dirs.find(path) {
            return Ok(ino);
        }
        let ino = self.walk(ROOT, path, true, &mut 0)?;
        self.dir(ino)?;
        self.known_dirs.remember(path, ino);
        Ok(ino)
    }

    pub(super) fn place<'p>(&self, path: &'p [u8]) -> Result<Place<'p>, Errno> {
        let (before, name) = split(path);
        Ok((self.walk_to_dir(before)?, name))
    }

    fn place_from<'p>(&self, start: Ino, path: &'p [u8], links: &mut u32) -> Result<Place<'p>, Errno> {
        let (before, name) = split(path);
        let dir = self.walk(start, before, true, links)?;
        self.dir(dir)?;
        Ok((dir, name))
    }

    /// What a name of a directory is bound to.
    pub(super) fn entry(&self, dir: Ino, name: &[u8]) -> Result<Option<Ino>, Errno> {
        find(self.dir(dir)?, name)
    }

    pub(super) fn writable(&self) -> Result<(), Errno> {
        if self.faults.read_only || self.aborted { Err(Errno::ROFS) } else { Ok(()) }
    }

    /// Makes something under a name that must be free.
    pub(super) fn make(&mut self, path: &[u8], kind: Kind, mode: u32) -> Result<(Ino, Ino), Errno> {
        let (dir, name) = self.place(path)?;
        let name = name.ok_or(Errno::EXIST)?;
        if self.entry(dir, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        self.writable()?;
        Ok((dir, self.add(dir, name, kind, mode)?))
    }

    pub(super) fn make_dir(&mut self, path: &[u8]) -> Result<(), Errno> {
        self.make(path, Kind::Dir(Dir::new(ROOT, Name::from(&b""[..]))), 0o040_755).map(|_| ())
    }

    pub(super) fn link(&mut self, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        let ino = self.lookup(from, false)?;
        let (dir, name) = self.place(to)?;
        let name = name.ok_or(Errno::EXIST)?;
        if self.entry(dir, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        self.writable()?;
        if self.is_dir(ino) {
            return Err(Errno::PERM);
        }
        self.perform(Op { first: Edit { dir, name: Name::from(name), to: Some(ino) }, second: None });
        Ok(())
    }

    pub(super) fn unlink(&mut self, path: &[u8]) -> Result<(), Errno> {
        let (dir, name) = self.place(path)?;
        let name = name.ok_or(Errno::ISDIR)?;
        self.writable()?;
        let ino = self.entry(dir, name)?.ok_or(Errno::NOENT)?;
        if self.is_dir(ino) {
            return Err(Errno::ISDIR);
        }
        self.perform(Op { first: Edit { dir, name: Name::from(name), to: None }, second: None });
        Ok(())
    }

    pub(super) fn rename(&mut self, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        let (from_dir, from_name) = self.place(from)?;
        let (to_dir, to_name) = self.place(to)?;
        let (from_name, to_name) = (from_name.ok_or(Errno::BUSY)?, to_name.ok_or(Errno::BUSY)?);
        self.writable()?;
        let moved = self.entry(from_dir, from_name)?.ok_or(Errno::NOENT)?;
        let target = self.entry(to_dir, to_name)?;
        if self.is_dir(moved) && self.is_below(to_dir, moved) {
            return Err(Errno::INVAL);
        }
        if let Some(target) = target {
            if self.is_dir(target) && self.is_below(from_dir, target) {
                return Err(Errno::NOTEMPTY);
            }
            if target == moved {
                return Ok(());
            }
            self.replaceable(moved, target)?;
        }
        let first = Edit { dir: from_dir, name: Name::from(from_name), to: None };
        let second = Edit { dir: to_dir, name: Name::from(to_name), to: Some(moved) };
        self.perform(Op { first, second: Some(second) });
        Ok(())
    }

    fn replaceable(&self, moved: Ino, target: Ino) -> Result<(), Errno> {
        match (&self.nodes[moved].kind, &self.nodes[target].kind) {
            (Kind::Dir(_), Kind::Dir(there)) if there.seen.is_empty() => Ok(()),
            (Kind::Dir(_), Kind::Dir(_)) => Err(Errno::NOTEMPTY),
            (Kind::Dir(_), _) => Err(Errno::NOTDIR),
            (_, Kind::Dir(_)) => Err(Errno::ISDIR),
            _ => Ok(()),
        }
    }

    fn is_below(&self, mut dir: Ino, above: Ino) -> bool {
        loop {
            if dir == above {
                return true;
            }
            match &self.nodes[dir].kind {
                Kind::Dir(here) if dir != ROOT => dir = here.parent,
                Kind::Dir(_) | Kind::Free | Kind::File(_) | Kind::Symlink(_) | Kind::Fifo => return false,
            }
        }
    }

    pub(super) fn touch(&mut self, path: &[u8]) -> Result<bool, Errno> {
        let ino = match self.lookup(path, false) {
            Err(Errno::NOENT) => return Ok(false),
            found => found?,
        };
        self.writable()?;
        self.written(ino);
        self.record_path(path, ChangeKind::Touched);
        Ok(true)
    }

    pub(super) fn set_mode(&mut self, path: &[u8], mode: u32) -> Result<(), Errno> {
        let ino = self.lookup(path, false)?;
        if matches!(self.nodes[ino].kind, Kind::Symlink(_)) {
            return Err(Errno::LOOP);
        }
        self.writable()?;
        let node = &mut self.nodes[ino];
        node.mode = node.mode & 0o170_000 | mode & 0o7777;
        self.changed(ino);
        self.record_path(path, ChangeKind::Touched);
        Ok(())
    }

    pub(super) fn record_path(&mut self, path: &[u8], kind: ChangeKind) {
        if self.watched
            && let Ok((dir, Some(name))) = self.place(path)
        {
            self.record(dir, name, kind);
        }
    }

    pub(super) fn resolve(&self, path: &[u8]) -> Result<PathBuf, Errno> {
        let mut links = 0;
        let mut place = self.place_from(ROOT, path, &mut links)?;
        loop {
            let (dir, Some(name)) = place else {
                let ino = self.lookup(path, true)?;
                return Ok(self.path_of_dir(ino));
            };
            let ino = self.entry(dir, name)?.ok_or(Errno::NOENT)?;
            match &self.nodes[ino].kind {
                Kind::Symlink(_) if links >= LINKS_MAX => return Err(Errno::LOOP),
                Kind::Symlink(target) => {
                    links += 1;
                    place = self.place_from(dir, target, &mut links)?;
                }
                Kind::Free | Kind::File(_) | Kind::Dir(_) | Kind::Fifo => return Ok(self.path_of(dir, name)),
            }
        }
    }

    fn path_of_dir(&self, ino: Ino) -> PathBuf {
        match &self.nodes[ino].kind {
            Kind::Dir(dir) if ino != ROOT => self.path_of(dir.parent, &dir.name),
            Kind::Dir(_) | Kind::Free | Kind::File(_) | Kind::Symlink(_) | Kind::Fifo => "/".into(),
        }
    }
}

fn find(dir: &Dir, name: &[u8]) -> Result<Option<Ino>, Errno> {
    if name.len() > NAME_MAX {
        return Err(Errno::NAMETOOLONG);
    }
    Ok(dir.seen.get(name).copied())
}

/// What comes before the last name of a path, and that name unless it is `/`, `.` or `..`.
fn split(path: &[u8]) -> (&[u8], Option<&[u8]>) {
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let cut = path[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let name = &path[cut..end];
    (&path[..cut], (!matches!(name, b"" | b"." | b"..")).then_some(name))
}

/// So many paths of directories are remembered at once.
const KNOWN_MAX: usize = 64;

/// Where paths of directories led. A new name changes nothing of that; when a directory or a symlink loses one, all is
/// forgotten.
#[derive(Clone, Default)]
pub(super) struct KnownDirs(RefCell<Vec<(Box<[u8]>, Ino)>>);

impl KnownDirs {
    fn slot(path: &[u8]) -> usize {
        let mut hash = 0;
        super::mix(&mut hash, path);
        // A slot by the upper half, which is mixed best.
        (hash >> 32) as usize % KNOWN_MAX
    }

    fn find(&self, path: &[u8]) -> Option<Ino> {
        let known = self.0.borrow();
        known.get(Self::slot(path)).filter(|(of, _)| **of == *path).map(|(_, ino)| *ino)
    }

    fn remember(&self, path: &[u8], ino: Ino) {
        let mut known = self.0.borrow_mut();
        // An empty path leads to the root, as an empty slot says.
        known.resize(KNOWN_MAX, (Box::default(), ROOT));
        known[Self::slot(path)] = (path.into(), ino);
    }

    pub(super) fn forget(&self) {
        self.0.borrow_mut().clear();
    }
}
