//! A small disk: a tmpfs that a test fills and empties. Where mounting is not allowed, the test runs once more in a namespace of
//! its own, in which it is; where that is not allowed either, it fails and says so.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// Set in a test that runs once more.
const INSIDE: &str = "FAULTS_INSIDE_A_NAMESPACE";

/// A disk of its own.
pub struct Small {
    folder: TempDir,
}

impl Small {
    /// A disk of so many MiB, for the test of this name; `None` if the test ran, and passed, in a namespace instead.
    pub fn new(mib: u32, test: &str) -> Option<Small> {
        let folder = tempfile::tempdir().expect("a folder");
        let size = format!("size={mib}m");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(folder.path()).output();
        if mount.as_ref().is_ok_and(|mount| mount.status.success()) {
            return Some(Small { folder });
        }
        assert!(std::env::var_os(INSIDE).is_none(), "no small disk, not even in a namespace: {mount:?}");
        let myself = std::env::current_exe().expect("this test");
        let again = Command::new("unshare")
            .args(["--user", "--map-root-user", "--mount"])
            .arg(myself)
            .args(["--exact", test, "--nocapture"])
            .env(INSIDE, "1")
            .status();
        assert!(
            again.as_ref().is_ok_and(std::process::ExitStatus::success),
            "this test needs a small disk: run it where a tmpfs can be mounted (as root) or where `unshare --user --mount` \
             works. mount: {mount:?}, unshare: {again:?}"
        );
        None
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Fills it until so many KiB are free, or as far as it goes.
    pub fn fill(&self, leave_kib: u64) {
        let mut file = File::create(self.filler()).expect("a filler");
        let block = vec![7u8; 64 << 10];
        loop {
            let free = self.free();
            if free <= leave_kib << 10 {
                return;
            }
            let n = usize::try_from(free - (leave_kib << 10)).unwrap_or(usize::MAX).min(block.len());
            if file.write_all(&block[..n]).is_err() {
                return;
            }
        }
    }

    /// Gives back what fills it.
    pub fn empty(&self) {
        std::fs::remove_file(self.filler()).expect("the filler goes");
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    /// Free bytes.
    pub fn free(&self) -> u64 {
        let told = Command::new("df").args(["--output=avail", "-B1"]).arg(self.path()).output().expect("df");
        let text = String::from_utf8_lossy(&told.stdout).into_owned();
        text.lines().nth(1).and_then(|line| line.trim().parse().ok()).unwrap_or_else(|| panic!("df: {text}"))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(self.folder.path()).status();
    }
}
