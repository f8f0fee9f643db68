//! Backups: a folder with every file of the store and a list of them with their checksums.
//!
//! Promises: a backup is one moment of the store; it has its name only once it is complete, synced and read again; it names no
//! places outside of itself, so it is restored on any machine. One that is incomplete or damaged is refused, whatever lies
//! beside it. A restore never mixes with what is in the target folder, and an interrupted one never looks like a store.
//!
//! Whoever holds the store makes a *checkpoint*, links to the tables in a folder beside the store, which costs a flush and no
//! copying. Copying, reading and comparing is done by whoever wants the backup, in the speed of his disk.

use super::check::unreadable;
use super::files::{CHECKPOINT, remove};
use super::marker::{Marker, RESTORING};
use super::open::{self, Lock};
use super::repair::{LEFT_OUT_UNKNOWN, free, go_on, log_end, read_all};
use super::{Error, Family, Result, Store, keys};
use crate::fault;
use crate::log::{Acknowledged, HIGH_WATER};
use rocksdb::DB;
use rocksdb::checkpoint::Checkpoint;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// The list of a backup's files.
const LIST: &str = "BACKUP.json";
/// Ending of a backup that is not complete.
const PART: &str = ".part";
/// Bytes copied at once.
const PIECE: usize = 1 << 20;

/// What a backup holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackedUp {
    /// Format of the data.
    pub format: u32,
    /// When it was taken.
    pub taken: String,
    /// Its last write.
    pub sequence: u64,
    /// Engine times before this one are in it.
    pub epoch: u64,
    /// The last entry of the log that is in it.
    pub log: u64,
    /// Size and SHA-256 of each file.
    files: BTreeMap<String, (u64, String)>,
    /// SHA-256 of all of the above.
    sum: String,
}

impl BackedUp {
    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.values().map(|(bytes, _)| bytes).sum()
    }

    fn summed(mut self) -> BackedUp {
        self.sum = String::new();
        self.sum = hex(Sha256::digest(serde_json::to_vec(&self).unwrap_or_default()));
        self
    }

    /// The list of a backup, if it is sound.
    fn read(backup: &Path) -> Result<BackedUp> {
        let path = backup.join(LIST);
        let damaged = || Error::Damaged(format!("{}: it is damaged; this is no backup to rely on", path.display()));
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(Error::Damaged(format!("{}: it is missing; this is no complete backup", path.display())));
            }
            read => read.map_err(|e| unreadable(&path, e))?,
        };
        let read: BackedUp = serde_json::from_slice(&bytes).map_err(|_| damaged())?;
        match read.clone().summed() == read {
            true if read.format > super::FORMAT => Err(Error::NewerFormat(read.format)),
            true => Ok(read),
            false => Err(damaged()),
        }
    }

    /// Compares the files of a backup with the list; copies them if `to` is given.
    fn compare(&self, backup: &Path, to: Option<&Path>) -> Result<()> {
        for (name, (bytes, sum)) in &self.files {
            let path = backup.join("store").join(name);
            if !is_plain(name) {
                return Err(Error::Damaged(format!("{}: it is no name of a file", path.display())));
            }
            let (is, now) = match copy(&path, to.map(|to| to.join(name)).as_deref()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    return Err(Error::Damaged(format!("{}: it is missing from the backup", path.display())));
                }
                copied => copied.map_err(|e| unreadable(&path, e))?,
            };
            if (is, &now) != (*bytes, sum) {
                return Err(Error::Damaged(format!("{}: it is not what was backed up", path.display())));
            }
        }
        Ok(())
    }
}

/// What a restore has put in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restoration {
    /// The backup.
    pub from: PathBuf,
    /// What it holds.
    pub held: BackedUp,
    /// Where what was in the folder before is now.
    pub aside: Option<PathBuf>,
}

impl Store {
    /// Makes a checkpoint in the data folder, in the place of an earlier one: every commit so far is in it.
    pub(crate) fn checkpoint(&self) -> Result<()> {
        let to = self.lock.folder.join(CHECKPOINT);
        remove(&to)?;
        fs::create_dir(&to).map_err(|e| unreadable(&to, e))?;
        Ok(Checkpoint::new(&*self.db)?.create_checkpoint(to.join("store"))?)
    }
}

/// Makes a checkpoint of a data folder that no process holds.
pub fn checkpoint(folder: &Path) -> Result<()> {
    if Marker::read(folder)? == Marker::New {
        return Err(Error::Disk(format!("{}: there is nothing to back up", folder.display())));
    }
    Store::open(folder, None, Some(0))?.checkpoint()
}

/// Makes a backup `name` in the folder `to` of the checkpoint in the data folder `folder`, and removes that. Of complete
/// backups there, the youngest `keep` by name stay.
pub fn back_up(folder: &Path, to: &Path, name: &str, taken: String, keep: Option<usize>) -> Result<BackedUp> {
    let checkpoint = folder.join(CHECKPOINT);
    let (backup, part) = (to.join(name), to.join(format!("{name}{PART}")));
    if backup.exists() {
        return Err(Error::Disk(format!("{}: it is there already", backup.display())));
    }
    // Those that were broken off are good for nothing.
    let broken = |path: &PathBuf| path.extension().is_some_and(|is| is == "part");
    fs::create_dir_all(to).map_err(|e| unreadable(to, e))?;
    folders(to)?.iter().filter(|path| broken(path)).try_for_each(|path| remove(path))?;
    fs::create_dir_all(part.join("store")).map_err(|e| unreadable(&part, e))?;
    let mut held = BackedUp {
        format: super::FORMAT,
        taken,
        sequence: 0,
        epoch: 0,
        log: 0,
        files: BTreeMap::new(),
        sum: String::new(),
    };
    let from = checkpoint.join("store");
    for entry in fs::read_dir(&from).map_err(|e| unreadable(&from, e))? {
        let path = entry.map_err(|e| unreadable(&from, e))?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let copied = copy(&path, Some(&part.join("store").join(&name))).map_err(|e| unreadable(&path, e))?;
        held.files.insert(name, copied);
    }
    fault::hit("backup.copied").map_err(io::Error::from)?;
    // The very blocks that were copied are read through their checksums: a backup of damage is none.
    let db = open::open(&from, false)?;
    read_all(&db)?;
    (held.sequence, held.epoch, held.log) = (db.latest_sequence_number(), committed(&db)?, log_end(&db)?);
    drop(db);
    let held = held.summed();
    let list = part.join(LIST);
    let text = serde_json::to_vec_pretty(&held).map_err(|e| Error::Disk(e.to_string()))?;
    let write = || -> io::Result<()> {
        let mut file = File::create(&list)?;
        file.write_all(&text)?;
        file.sync_all()?;
        sync_folder(&part.join("store"))?;
        sync_folder(&part)
    };
    write().map_err(|e| unreadable(&list, e))?;
    BackedUp::read(&part)?.compare(&part, None)?;
    let name = || -> io::Result<()> {
        fault::hit("backup.complete")?;
        fs::rename(&part, &backup)?;
        sync_folder(to)
    };
    name().map_err(|e| unreadable(&backup, e))?;
    remove(&checkpoint)?;
    if let Some(keep) = keep {
        let older = backups(to)?.into_iter().rev().skip(keep.max(1));
        older.into_iter().try_for_each(|older| remove(&older))?;
    }
    Ok(held)
}

/// Complete backups in a folder, the oldest first by name.
fn backups(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = folders(folder)?;
    found.retain(|path| path.extension().is_none_or(|is| is != "part") && path.join(LIST).exists());
    found.sort();
    Ok(found)
}

fn folders(folder: &Path) -> Result<Vec<PathBuf>> {
    let all = fs::read_dir(folder).and_then(|all| all.map(|entry| entry.map(|entry| entry.path())).collect());
    let all: Vec<PathBuf> = all.map_err(|e| unreadable(folder, e))?;
    Ok(all.into_iter().filter(|path| path.is_dir()).collect())
}

/// Restores a backup, or the youngest of a folder of backups, into a data folder. One that holds something is refused, unless
/// it is to be replaced: then what it holds is set aside.
pub fn restore(from: &Path, folder: &Path, replace: bool) -> Result<Restoration> {
    let backup = if from.join(LIST).exists() { Some(from.to_owned()) } else { backups(from)?.pop() };
    let Some(backup) = backup else {
        return Err(Error::Disk(format!("{}: there is no complete backup in it", from.display())));
    };
    let held = BackedUp::read(&backup)?;
    // All of it, before anything is changed.
    held.compare(&backup, None)?;
    fs::create_dir_all(folder).map_err(|e| unreadable(folder, e))?;
    let lock = Lock::take(folder)?;
    open::keep_private(folder)?;
    let said = Acknowledged::read(folder).ok().flatten().unwrap_or_default();
    let (store, restoring) = (folder.join("store"), folder.join(RESTORING));
    let filled = |name: &&str| folder.join(name).exists();
    let there: Vec<&str> = ["store", HIGH_WATER, super::marker::NAME].into_iter().filter(filled).collect();
    if !there.is_empty() && !replace {
        return Err(Error::Disk(format!("{}: it holds data already; --replace sets it aside", folder.display())));
    }
    remove(&restoring)?;
    fs::create_dir(&restoring).map_err(|e| unreadable(&restoring, e))?;
    held.compare(&backup, Some(&restoring))?;
    let place = || -> io::Result<Option<PathBuf>> {
        sync_folder(&restoring)?;
        fault::hit("restore.copied")?;
        let aside = (!there.is_empty()).then(|| free(folder, "replaced"));
        if let Some(aside) = &aside {
            fs::create_dir(aside)?;
            // The marker goes last and comes last: in between, the folder is refused.
            for name in &there {
                fs::rename(folder.join(name), aside.join(name))?;
            }
        }
        fault::hit("restore.set_aside")?;
        fs::rename(&restoring, &store)?;
        sync_folder(folder)?;
        Ok(aside)
    };
    let aside = place().map_err(|e| unreadable(folder, e))?;
    // Places that were handed out after the backup must not come to mean something else.
    let db = open::open(&store, false)?;
    let known = Acknowledged { log: held.log, epoch: said.epoch, ..Acknowledged::default() };
    go_on(lock, db, known, Some(LEFT_OUT_UNKNOWN))?;
    Marker::Marked.write(folder)?;
    Ok(Restoration { from: backup, held, aside })
}

fn committed(db: &DB) -> Result<u64> {
    let Some(system) = db.cf_handle(Family::System.name()) else { return Ok(0) };
    Ok(db.get_cf(system, b"committed")?.map_or(0, |bytes| keys::number(&bytes, 0)))
}

/// Copies a file if `to` is given, durably; size and SHA-256 of what was read.
fn copy(from: &Path, to: Option<&Path>) -> io::Result<(u64, String)> {
    let target = to.unwrap_or(from);
    let unwritten = |error: io::Error| {
        io::Error::new(error.kind(), format!("it cannot be copied to {}: {error}", target.display()))
    };
    let mut from = File::open(from)?;
    let mut to = to.map(File::create).transpose().map_err(unwritten)?;
    let (mut piece, mut bytes, mut sum) = (vec![0; PIECE], 0, Sha256::new());
    loop {
        let read = from.read(&mut piece)?;
        let Some(read) = piece.get(..read).filter(|read| !read.is_empty()) else { break };
        sum.update(read);
        bytes += read.len() as u64;
        to.as_mut().map_or(Ok(()), |to| to.write_all(read)).map_err(unwritten)?;
    }
    to.as_ref().map_or(Ok(()), File::sync_all).map_err(unwritten)?;
    Ok((bytes, hex(sum.finalize())))
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether a name of a list leads nowhere else.
fn is_plain(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
