//! Small file systems for a crew's `state/`, which a test can fill, break, and give room again.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::needs;

/// What is written at once while a disk is being filled, in bytes; the last of it goes byte by byte.
const CHUNK_LEN: usize = 64 * 1024;

/// How an image with an ext4 is mounted.
const EXT4: [&str; 4] = ["-t", "ext4", "-o", "loop,errors=remount-ro"];

/// A file system of its own, mounted on a directory. Dropping it takes it away, whatever still uses it.
pub(crate) struct Mount {
    at: PathBuf,
    /// Holds the image of a loop mount.
    image: Option<tempfile::TempDir>,
}

impl Mount {
    /// An ext4 of a few MB with room for so many files; `None`, said aloud, where none can be had.
    pub(crate) fn ext4(test: &str, at: &Path, inodes: u32) -> Option<Self> {
        if !needs::root(test) || !needs::program(test, "mkfs.ext4") {
            return None;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let image = dir.path().join("image");
        File::create(&image).and_then(|file| file.set_len(12 << 20)).expect("an image");
        let inodes = inodes.to_string();
        // Nothing is set aside for root: full is full for everybody.
        let make = ["-q", "-m", "0", "-b", "1024", "-N", &inodes, "-E", "lazy_itable_init=0", "-F"];
        let made = Command::new("mkfs.ext4").args(make).arg(&image).status().expect("it runs");
        assert!(made.success(), "mkfs.ext4: {made}");
        Self::made(test, at, &EXT4, &image, Some(dir))
    }

    /// A tmpfs of this many bytes.
    pub(crate) fn tmpfs(test: &str, at: &Path, len: u64) -> Option<Self> {
        if !needs::root(test) {
            return None;
        }
        Self::made(test, at, &["-t", "tmpfs", "-o", &format!("size={len}")], Path::new("tmpfs"), None)
    }

    fn made(
        test: &str,
        at: &Path,
        args: &[&str],
        source: &Path,
        image: Option<tempfile::TempDir>,
    ) -> Option<Self> {
        fs::create_dir_all(at).expect("a directory");
        let output = Command::new("mount").args(args).arg(source).arg(at).output().expect("it runs");
        let told = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            needs::skipped(test, &format!("root may not mount here: {}", told.trim()));
            return None;
        }
        Some(Self { at: at.into(), image })
    }

    /// Leaves no room for a single byte more.
    pub(crate) fn fill(&self) {
        let mut ballast = File::create(self.ballast()).expect("a file");
        let chunk = vec![b'x'; CHUNK_LEN];
        for len in [CHUNK_LEN, 512, 1] {
            while ballast.write_all(&chunk[..len]).is_ok() {}
        }
        // What was promised to the file and not yet placed would be found missing later.
        let _ = ballast.sync_all();
    }

    /// Leaves no room for a single file more.
    pub(crate) fn fill_with_files(&self) {
        fs::create_dir_all(self.ballast()).expect("a directory");
        let mut made = 0;
        while File::create(self.ballast().join(made.to_string())).is_ok() {
            made += 1;
        }
        assert!(made > 0, "there was room for none from the beginning");
    }

    /// Makes room again.
    pub(crate) fn empty(&self) {
        let ballast = self.ballast();
        let removed = if ballast.is_dir() { fs::remove_dir_all(ballast) } else { fs::remove_file(ballast) };
        removed.expect("removed");
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }

    /// Has the kernel find the file system broken, upon which it writes to it no more.
    pub(crate) fn turn_read_only(&self) {
        let device = Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(&self.at).output();
        let device = String::from_utf8(device.expect("it runs").stdout).expect("a name");
        let device = device.trim().rsplit('/').next().expect("a name").to_owned();
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "a test\n").expect("ext4 hears it");
    }

    /// Has a file system that was found broken checked, mended, and mounted again, as an operator would.
    pub(crate) fn mend(&self) {
        let image = self.image.as_ref().expect("an ext4").path().join("image");
        let unmounted = Command::new("umount").arg(&self.at).status().expect("it runs");
        assert!(unmounted.success(), "nothing uses it any more");
        let checked = Command::new("e2fsck").args(["-f", "-y"]).arg(&image).output().expect("it runs");
        // 1: it was mended.
        assert!(checked.status.code().is_some_and(|code| code <= 1), "e2fsck: {checked:?}");
        let mounted = Command::new("mount").args(EXT4).arg(&image).arg(&self.at).status().expect("it runs");
        assert!(mounted.success(), "mount: {mounted}");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Lazily: whatever still has it open goes on with it until it ends, out of everybody's way.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}
