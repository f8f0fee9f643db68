//! The file that says what a data folder is: an emptied folder must not look like a new one.
//!
//! It is there before anything else, says "being set up" until the first start is through, and from then on that the folder has
//! a high-water mark. Folders of earlier versions do not say so: they begin to keep one at their next start.

use super::check::unreadable;
use super::{Error, Result};
use crate::log::HIGH_WATER;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

pub(super) const NAME: &str = "SYNCLINE";
const BEGUN: &str = "This folder is being set up for Syncline.\n";
const PLAIN: &str = "This folder belongs to Syncline. Do not remove single files.\n";
const MARKED: &str =
    "This folder belongs to Syncline. Do not remove single files.\nHIGHWATER says what it must hold.\n";
/// What a restore leaves until it is through.
pub(super) const RESTORING: &str = "store.restoring";

/// What a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marker {
    /// Nothing yet, or not yet all: nothing in it was ever acknowledged.
    New,
    /// Set up before there were marks.
    Plain,
    /// Set up, with a mark.
    Marked,
}

impl Marker {
    pub(super) fn read(folder: &Path) -> Result<Marker> {
        let path = folder.join(NAME);
        match fs::read(&path) {
            Ok(text) if text == BEGUN.as_bytes() => Ok(Marker::New),
            Ok(text) if text == PLAIN.as_bytes() => Ok(Marker::Plain),
            Ok(text) if text == MARKED.as_bytes() => Ok(Marker::Marked),
            Ok(_) => Err(Error::Damaged(format!("{}: it is damaged", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Marker::none(folder),
            Err(error) => Err(unreadable(&path, error)),
        }
    }

    /// Without the file a folder is new, unless there is more in it than a new one has.
    fn none(folder: &Path) -> Result<Marker> {
        let left = ["store/CURRENT", HIGH_WATER, RESTORING].into_iter().find(|name| folder.join(name).exists());
        let store = folder.join("store");
        let filled = || fs::read_dir(&store).is_ok_and(|mut files| files.next().is_some()).then_some("store");
        match left.or_else(filled) {
            None => Ok(Marker::New),
            Some(RESTORING) => Err(Error::Damaged(format!(
                "{}: a restore was broken off; run it again",
                folder.join(RESTORING).display()
            ))),
            Some(name) => {
                let path = folder.join(NAME);
                Err(Error::Damaged(format!("{}: it is missing, though there is {name}", path.display())))
            }
        }
    }

    /// Writes it durably, all or nothing.
    pub(super) fn write(self, folder: &Path) -> Result<()> {
        let text = match self {
            Marker::New => BEGUN,
            Marker::Plain => PLAIN,
            Marker::Marked => MARKED,
        };
        let (path, new) = (folder.join(NAME), folder.join("SYNCLINE.new"));
        let write = || -> io::Result<()> {
            let mut file = File::create(&new)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|e| unreadable(&path, e))
    }
}
