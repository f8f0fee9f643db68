//! Room on the disk of a data folder: how much is kept free, and what happens when it is not there.
//!
//! Promises: below the watermark nothing new is taken; what is on its way may use the rest of the disk and, at its end, a reserve
//! file that is given up for it. Space that comes back is used at the next look, without a restart.
//! Does not look by itself: who writes looks before it does, who asks looks while it is refused.
//!
//! A write that has failed closes the store for good, so what cannot fit is better not begun.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

/// Kept free where nothing else is said: as much as the store may have in memory and still has to write to files, twice …
const LEAST: u64 = 512 << 20;
/// … but of a small disk no more than this part.
const SHARE: u64 = 10;
/// Refused until so large a part of the watermark is free beyond it, so that one freed file does not open and close the door.
const RETURN: u64 = 8;
/// Size of the reserve file; half of what is kept free, where that is less.
const RESERVE: u64 = 16 << 20;
/// Beside a write itself: what the database writes along with it.
const BESIDE: u64 = 1 << 20;
/// What reading a folder back may write before anything else does.
const RECOVERY: u64 = 16 << 20;

/// Free and whole size of a disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// What a program without special rights may still write.
    pub free: u64,
    /// Its size.
    pub size: u64,
}

/// The disk is too full for what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Full {
    folder: PathBuf,
    free: u64,
    least: u64,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| bytes >> 20;
        write!(
            f,
            "disk_full: {} MiB are free on the disk of {}, and {} MiB have to be (`min_free_mb`); what is new is taken again \
             once there are {}",
            mib(self.free),
            self.folder.display(),
            mib(self.least),
            mib(enough(self.least)).max(1)
        )
    }
}

/// Measures the disk a folder is on.
pub(crate) type Measure = dyn Fn(&Path) -> Option<Disk> + Send + Sync;

/// The disk of a data folder, watched by those who write to it.
pub struct Space {
    folder: PathBuf,
    measure: Box<Measure>,
    /// The watermark; 0 watches nothing.
    least: u64,
    refusing: AtomicBool,
    /// Whether the reserve file is there.
    reserved: AtomicBool,
}

impl Space {
    /// Watches the disk of a folder that is there; `least` is the watermark, 0 watches nothing. If there is not enough to read
    /// the folder back, the reserve is given up at once.
    pub fn open(folder: &Path, least: Option<u64>) -> Space {
        Space::measured_by(folder, least, Box::new(statvfs))
    }

    pub(crate) fn measured_by(folder: &Path, least: Option<u64>, measure: Box<Measure>) -> Space {
        let size = measure(folder).map_or(0, |disk| disk.size);
        let space = Space {
            folder: folder.to_owned(),
            measure,
            least: least.unwrap_or_else(|| LEAST.min(size / SHARE)),
            refusing: AtomicBool::new(false),
            reserved: AtomicBool::new(folder.join(RESERVE_FILE).exists()),
        };
        if let Some(free) = space.free() {
            if free < RECOVERY {
                space.give_reserve();
            }
            space.judge(free);
        }
        space
    }

    /// Why nothing new is taken, if that is so. As long as it is taken this costs nothing: it is the writers that look.
    pub fn refusing(&self) -> Option<Full> {
        if self.refusing.load(Ordering::Relaxed) { self.look() } else { None }
    }

    /// The same after a look at the disk.
    pub fn look(&self) -> Option<Full> {
        self.judge(self.free()?)
    }

    /// Looks before new work of so many bytes is written.
    pub fn admit(&self, bytes: usize) -> Result<(), Full> {
        let Some(free) = self.free() else { return Ok(()) };
        match self.judge(free) {
            None if free >= need(bytes) => Ok(()),
            full => Err(full.unwrap_or_else(|| self.full(free))),
        }
    }

    /// Looks before work that is on its way is written, and gives up the reserve for it if need be; whether there is room.
    pub fn make_room(&self, bytes: usize) -> Result<(), Full> {
        let Some(free) = self.free() else { return Ok(()) };
        self.judge(free);
        if free >= need(bytes) {
            self.keep_reserve(free);
            return Ok(());
        }
        self.give_reserve();
        match self.free() {
            Some(free) if free < need(bytes) => Err(self.full(free)),
            _ => Ok(()),
        }
    }

    /// Bytes that are kept free and bytes that are free; `None` if nothing is watched.
    pub fn figures(&self) -> Option<(u64, u64)> {
        self.free().map(|free| (self.least, free))
    }

    fn free(&self) -> Option<u64> {
        if self.least == 0 {
            return None;
        }
        (self.measure)(&self.folder).map(|disk| disk.free)
    }

    fn full(&self, free: u64) -> Full {
        Full { folder: self.folder.clone(), free, least: self.least }
    }

    fn judge(&self, free: u64) -> Option<Full> {
        let refused = self.refusing.load(Ordering::Relaxed);
        let full = (free < if refused { enough(self.least) } else { self.least }).then(|| self.full(free));
        let refused = self.refusing.swap(full.is_some(), Ordering::Relaxed);
        match &full {
            Some(why) if !refused => tracing::warn!(%why, "nothing new is taken, reads go on"),
            None if refused => tracing::info!("there is space on the disk again: what is new is taken"),
            _ => {}
        }
        full
    }

    /// Size of the reserve file: half of what is kept free at most.
    fn reserve(&self) -> u64 {
        RESERVE.min(self.least / 2)
    }

    /// Takes the reserve where there is plenty. A disk that does not give it is no failure: then there is none.
    fn keep_reserve(&self, free: u64) {
        let plenty = free >= enough(self.least) + self.reserve();
        if !plenty || self.reserved.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(why) = allocate(&self.folder.join(RESERVE_FILE), self.reserve()) {
            tracing::warn!(%why, "no reserve can be kept on the disk");
        }
    }

    fn give_reserve(&self) {
        // Not there, or not to be removed: either way it gives nothing.
        if self.reserved.swap(false, Ordering::Relaxed) && std::fs::remove_file(self.folder.join(RESERVE_FILE)).is_ok()
        {
            tracing::warn!(bytes = self.reserve(), "the reserve on the disk is given up for what is on its way");
        }
    }
}

/// Name of the reserve file, beside the database.
const RESERVE_FILE: &str = "RESERVE";

/// Bytes that have to be free for a write.
fn need(bytes: usize) -> u64 {
    bytes as u64 + BESIDE
}

/// Free bytes from which on what is new is taken again.
fn enough(least: u64) -> u64 {
    least + least / RETURN
}

fn allocate(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = File::create(path)?;
    Ok(rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes)?)
}

fn statvfs(folder: &Path) -> Option<Disk> {
    // A disk that does not tell is not watched: its writes tell.
    let disk = rustix::fs::statvfs(folder).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(disk.f_frsize);
    Some(Disk { free: bytes(disk.f_bavail), size: bytes(disk.f_blocks) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::AtomicU64;

    const MIB: u64 = 1 << 20;

    /// A disk of 1 GiB of which so many MiB are free; the reserve file counts.
    fn disk(folder: &Path, free: &Arc<AtomicU64>) -> Space {
        let free = free.clone();
        let measure = move |folder: &Path| {
            let reserve = std::fs::metadata(folder.join(RESERVE_FILE)).map_or(0, |file| file.len());
            Some(Disk { free: (free.load(Ordering::Relaxed) * MIB).saturating_sub(reserve), size: 1024 * MIB })
        };
        Space::measured_by(folder, None, Box::new(measure))
    }

    #[test]
    fn what_is_new_is_refused_below_the_watermark_and_taken_again_above_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let free = Arc::new(AtomicU64::new(500));
        let space = disk(folder.path(), &free);
        assert_eq!(space.figures(), Some((1024 * MIB / 10, 500 * MIB)), "a tenth of a small disk");
        assert!(space.admit(1).is_ok() && space.look().is_none());
        free.store(100, Ordering::Relaxed);
        assert!(space.refusing().is_none(), "nobody has looked");
        let why = space.admit(1).expect_err("refused").to_string();
        assert!(why.contains("disk_full: 100 MiB are free") && why.contains("102 MiB have to be"), "{why}");
        assert!(space.refusing().is_some());
        free.store(110, Ordering::Relaxed);
        assert!(space.refusing().is_some(), "a little more is not enough");
        free.store(116, Ordering::Relaxed);
        assert!(space.refusing().is_none() && space.admit(1).is_ok());
    }

    #[test]
    fn the_reserve_is_given_up_for_what_is_on_its_way_and_taken_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let reserve = folder.path().join(RESERVE_FILE);
        let free = Arc::new(AtomicU64::new(500));
        let space = disk(folder.path(), &free);
        space.make_room(1).expect("room");
        assert_eq!(std::fs::metadata(&reserve).expect("there").len(), RESERVE);
        free.store(20, Ordering::Relaxed);
        space.make_room(MIB as usize).expect("4 MiB are left");
        assert!(reserve.exists());
        space.make_room(10 << 20).expect("room for what is on its way");
        assert!(!reserve.exists());
        assert!(space.make_room(30 << 20).is_err(), "but not for everything");
        free.store(500, Ordering::Relaxed);
        space.make_room(1).expect("room");
        assert!(reserve.exists());
        free.store(17, Ordering::Relaxed);
        drop(disk(folder.path(), &free));
        assert!(!reserve.exists(), "opening a folder needs room too");
    }

    #[test]
    fn a_watermark_of_zero_watches_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let none = Box::new(|_: &Path| Some(Disk { free: 0, size: 1 }));
        let space = Space::measured_by(folder.path(), Some(0), none);
        assert!(space.admit(1).is_ok() && space.make_room(1).is_ok() && space.look().is_none());
        assert!(space.figures().is_none() && !folder.path().join(RESERVE_FILE).exists());
    }
}
