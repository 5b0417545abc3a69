//! Where disks are made and mounted: a mount namespace of the test's own, so that nothing of it is seen by others
//! or left behind, however the test ends.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

/// A file system under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ext4,
    Xfs,
    Btrfs,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    pub(super) fn mkfs(self) -> &'static str {
        match self {
            Self::Ext4 => "mkfs.ext4",
            Self::Xfs => "mkfs.xfs",
            Self::Btrfs => "mkfs.btrfs",
        }
    }

    /// The smallest that each is content with, in MiB.
    fn size(self) -> u64 {
        match self {
            Self::Ext4 => 64,
            Self::Xfs => 300,
            Self::Btrfs => 128,
        }
    }

    fn mkfs_options(self) -> &'static [&'static str] {
        match self {
            // What would be initialised behind the first mount's back is no business of ours.
            Self::Ext4 => &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"],
            Self::Xfs | Self::Btrfs => &["-q", "-f"],
        }
    }

    fn mount_options(self) -> &'static str {
        match self {
            Self::Ext4 => "loop",
            // Two recordings' images never bear one identity, but one recording's do.
            Self::Xfs => "loop,nouuid",
            // What is discarded is no write that a power cut could lose.
            Self::Btrfs => "loop,nodiscard",
        }
    }
}

/// A directory on a memory file system, for images and mount points.
pub(super) struct Ground {
    dir: tempfile::TempDir,
}

impl Ground {
    fn new() -> io::Result<Self> {
        let dir = tempfile::Builder::new().prefix("powercut").tempdir()?;
        mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=2g,mode=700"))?;
        Ok(Self { dir })
    }

    pub(super) fn path(&self, below: &str) -> PathBuf {
        self.dir.path().join(below)
    }

    /// A directory of this name, to mount something on.
    pub(super) fn place(&self, name: &str) -> PathBuf {
        let place = self.path(name);
        fs::create_dir_all(&place).expect("a directory");
        place
    }

    /// Makes an image with an empty file system on it.
    pub(super) fn make(&self, kind: Kind, name: &str) -> PathBuf {
        let image = self.path(name);
        let file = File::create(&image).expect("an image");
        file.set_len(kind.size() << 20).expect("its size");
        let output = Command::new(kind.mkfs()).args(kind.mkfs_options()).arg(&image).output();
        let output = output.expect("it was there a moment ago");
        assert!(output.status.success(), "{}: {}", kind.mkfs(), String::from_utf8_lossy(&output.stderr));
        image
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = umount2(self.dir.path(), MntFlags::MNT_DETACH);
    }
}

/// Lets `story` happen in a thread whose mounts nobody else sees. Fails where that is not permitted, or as it does.
pub(super) fn apart<T: Send>(story: impl FnOnce(&Ground) -> Result<T, String> + Send) -> Result<T, String> {
    let ground = || -> io::Result<Ground> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        Ground::new()
    };
    let thread = || story(&ground().map_err(|error| format!("a mount namespace: {error}"))?);
    match std::thread::scope(|scope| scope.spawn(thread).join()) {
        Ok(told) => told,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A mounted image. Dropping it unmounts, lazily if need be.
pub(super) struct Mounted {
    at: Option<PathBuf>,
}

impl Mounted {
    /// Mounts through a loop device that goes with the mount.
    pub(super) fn new(kind: Kind, image: &Path, at: &Path) -> Result<Self, String> {
        let mut command = Command::new("mount");
        command.args(["-t", kind.name(), "-o", kind.mount_options()]).arg(image).arg(at);
        let output = command.stdin(Stdio::null()).output().map_err(|error| format!("mount: {error}"))?;
        if output.status.success() {
            Ok(Self { at: Some(at.into()) })
        } else {
            Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
        }
    }

    /// Unmounts, so that all is on the image when this returns.
    pub(super) fn unmount(mut self) {
        let at = self.at.take().expect("it is mounted");
        let begun = Instant::now();
        // A child that another test has just forked holds what we had open until it becomes its program.
        while let Err(errno) = umount2(&at, MntFlags::empty()) {
            let patient = errno == Errno::EBUSY && begun.elapsed() < Duration::from_secs(30);
            assert!(patient, "cannot unmount {}: {errno}", at.display());
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if let Some(at) = self.at.take() {
            let _ = umount2(&at, MntFlags::MNT_DETACH);
        }
    }
}
