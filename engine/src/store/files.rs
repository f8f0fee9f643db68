//! Files and folders beside the database.

use super::Result;
use super::check::unreadable;
use std::fs;
use std::io;
use std::path::Path;

/// Folder of the checkpoint, in the data folder.
pub const CHECKPOINT: &str = "checkpoint";

/// A second name for a file that never changes; a copy where the disk has no such thing.
pub(super) fn link(from: &Path, to: &Path) -> io::Result<()> {
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

pub(super) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed.map_err(|e| unreadable(folder, e)),
    }
}
