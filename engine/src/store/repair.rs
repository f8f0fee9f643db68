//! Repair of a damaged data folder: by an explicit command only, in a copy, with what was there kept aside.
//!
//! Everything is done in a folder of its own beside the store: tables are linked, logs are copied up to what is sound. What
//! comes of it is opened and read from beginning to end. Only then do the two change places, so that a repair that fails, or is
//! killed, leaves what it found. A dry run is the same without the last step.
//!
//! Two ways: where the manifest and all tables are there, the write-ahead logs are cut at the damage, and what is left is an
//! earlier state of the store, whole in itself. Else RocksDB makes a new manifest of the tables that can be read: records can be
//! missing or older than they were, which the next full listing of their source mends.

use super::check::{self, Findings, unreadable};
use super::files::link;
use super::marker::Marker;
use super::open::{self, Lock};
use super::values::scan_options;
use super::{Error, Family, Result, Store, catalog, keys};
use crate::fault;
use crate::log::{Acknowledged, HIGH_WATER, Synced};
use rocksdb::{DB, IteratorMode};
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where the repaired store is made, and the file that says it is complete.
const WORK: &str = "repair";
const COMPLETE: &str = "COMPLETE";
/// Engine times that are left out, so that no place handed out before means something else later: where it is known how far
/// they went, and where it is not.
const LEFT_OUT: u64 = 1 << 16;
pub(super) const LEFT_OUT_UNKNOWN: u64 = 1 << 24;
/// Numbers of runs that are left out.
const RUNS_LEFT_OUT: u64 = 1_000_000;

/// What a repair found and did, each in a line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was wrong; nothing if the folder is sound.
    pub damages: Vec<String>,
    /// What is lost.
    pub lost: Vec<String>,
    /// Where the damaged files are now; `None` if nothing was changed.
    pub aside: Option<PathBuf>,
}

/// Repairs a data folder, or only says what a repair would do.
pub fn repair(folder: &Path, dry_run: bool) -> Result<Repaired> {
    let _lock = Lock::take(folder)?;
    let work = folder.join(WORK);
    if work.join(COMPLETE).exists() {
        let damages = vec![format!("{}: a repair was broken off", work.display())];
        let aside = if dry_run { None } else { Some(change_places(folder, &work)?) };
        return Ok(Repaired { damages, lost: Vec::new(), aside });
    }
    let mut repaired = Repaired::default();
    let marker = match Marker::read(folder) {
        Ok(Marker::New) => return Err(Error::Disk(format!("{}: there is nothing to repair", folder.display()))),
        Err(Error::Damaged(what)) => {
            repaired.damages.push(what);
            Marker::Plain
        }
        marker => marker?,
    };
    let found = check::check(folder, marker == Marker::Marked)?;
    repaired.damages.extend(found.damages.iter().map(ToString::to_string));
    remake(folder, &work, &found, &mut repaired).inspect_err(|_| drop(fs::remove_dir_all(&work)))?;
    if dry_run || repaired.damages.is_empty() {
        fs::remove_dir_all(&work).map_err(|e| unreadable(&work, e))?;
    } else {
        File::create(work.join(COMPLETE)).and_then(|file| file.sync_all()).map_err(|e| unreadable(&work, e))?;
        repaired.aside = Some(change_places(folder, &work)?);
    }
    Ok(repaired)
}

/// Makes the repaired store in `work`.
fn remake(folder: &Path, work: &Path, found: &Findings, repaired: &mut Repaired) -> Result<()> {
    let whole = found.tables_sound && found.number.is_some();
    if whole {
        let settled = lay_out(folder, work, found, true).and_then(|()| settle(work, found, true, repaired));
        match settled.map_err(|error| open::named(folder, error)) {
            // What is inside a table shows only when it is read.
            Err(Error::Damaged(what)) => repaired.damages.push(what),
            settled => return settled,
        }
    }
    repaired.lost.clear();
    let rebuilt = lay_out(folder, work, found, false)
        .and_then(|()| Ok(DB::repair(&open::database_options(), work.join("store"))?))
        .and_then(|()| settle(work, found, false, repaired));
    rebuilt.map_err(|error| match error {
        Error::Damaged(what) => {
            // With what was found before: it names the files.
            let found: Vec<&str> = repaired.damages.iter().map(String::as_str).chain([what.as_str()]).collect();
            Error::Damaged(format!("it cannot be repaired, restore a backup: {}", found.join("; ")))
        }
        other => other,
    })
}

/// Puts into `work` what a repair begins with: linked tables, the sound part of the logs, and the manifest if it is sound.
fn lay_out(folder: &Path, work: &Path, found: &Findings, whole: bool) -> Result<()> {
    let (from, to) = (folder.join("store"), work.join("store"));
    let lay = || -> io::Result<()> {
        if work.exists() {
            fs::remove_dir_all(work)?;
        }
        fs::create_dir_all(&to)?;
        for entry in fs::read_dir(&from)? {
            let path = entry?.path();
            if path.extension().is_some_and(|is| is == "sst") {
                link(&path, &to.join(path.file_name().unwrap_or_default()))?;
            }
        }
        for (path, end) in &found.logs {
            let mut log = File::create(to.join(path.file_name().unwrap_or_default()))?;
            io::copy(&mut File::open(path)?.take(*end), &mut log)?;
        }
        if let Some(number) = found.number.filter(|_| whole) {
            let name = format!("MANIFEST-{number:06}");
            fs::copy(from.join(&name), to.join(&name))?;
            fs::write(to.join("CURRENT"), format!("{name}\n"))?;
        }
        Ok(())
    };
    lay().map_err(|e| unreadable(work, e))
}

/// Opens what was laid out, reads all of it, says what is missing, and leaves it fit to be gone on with.
fn settle(work: &Path, found: &Findings, whole: bool, repaired: &mut Repaired) -> Result<()> {
    let db = open::open(&work.join("store"), false)?;
    read_all(&db)?;
    for needed in [&b"committed"[..], b"format", b"secret"] {
        let family = db.cf_handle(Family::System.name());
        let there = family.is_some_and(|family| matches!(db.get_cf(family, needed), Ok(Some(_))));
        match (there, whole) {
            (true, _) => {}
            // Without it nothing of the rest can be believed.
            (false, false) => {
                return Err(Error::Damaged(format!("`{}` is lost", String::from_utf8_lossy(needed))));
            }
            (false, true) => {
                let all = "everything: what is left is a new store, for which cursors and webhook URLs of before mean nothing";
                repaired.lost.push(all.to_owned());
                break;
            }
        }
    }
    let (sequence, log) = (db.latest_sequence_number(), log_end(&db)?);
    let said = found.said.unwrap_or_default();
    if whole && said.sequence > sequence {
        let writes = said.sequence - sequence;
        repaired.lost.push(format!("{writes} acknowledged writes, {} to {}", sequence + 1, said.sequence));
    }
    if said.log > log {
        let entries = said.log - log;
        let which = format!("{} to {}", log + 1, said.log);
        repaired.lost.push(format!("{entries} acknowledged entries of the log (webhooks, pushes), {which}"));
    }
    if !whole {
        repaired.lost.push(
            "records of the damaged tables: some can be missing, others older than they were; list every source in full \
             (`syncline run SOURCE --full`)"
                .to_owned(),
        );
    }
    if found.said.is_none() {
        repaired.lost.push("how much was acknowledged is not known, so what is lost cannot be counted".to_owned());
    }
    let left_out = if found.said.is_some() { LEFT_OUT } else { LEFT_OUT_UNKNOWN };
    let lost = !repaired.lost.is_empty();
    go_on(Lock::take(work)?, db, Acknowledged { log, ..said }, lost.then_some(left_out))
}

/// Leaves a store that was opened fit for a start: with a mark, and, where something is lost, beyond all places that may have
/// been handed out.
pub(super) fn go_on(lock: Lock, db: DB, said: Acknowledged, left_out: Option<u64>) -> Result<()> {
    let db = Arc::new(db);
    let mark = open::begin(&lock.folder, &db, Some(Acknowledged { sequence: 0, ..said }))?;
    let store = Store::over(db, Arc::new(Synced::marked(mark)), lock);
    store.trim(&store.known_datasets()?)?;
    if let Some(left_out) = left_out {
        let mut batch = store.batch();
        let (epoch, runs) = (store.committed()?.max(said.epoch) + left_out, store.system(catalog::RUN_NUMBER)?);
        let runs = runs.map_or(0, |bytes| keys::number(&bytes, 0)) + RUNS_LEFT_OUT;
        store.put_system(&mut batch, b"committed", &epoch.to_be_bytes());
        store.put_system(&mut batch, catalog::RUN_NUMBER, &runs.to_be_bytes());
        store.commit(batch, epoch)?;
    }
    store.flush()
}

/// Reads every entry: each block of a table has a checksum that is looked at then.
pub(super) fn read_all(db: &DB) -> Result<u64> {
    let mut entries = 0;
    for family in Family::ALL {
        let Some(handle) = db.cf_handle(family.name()) else { continue };
        for entry in db.iterator_cf_opt(handle, scan_options(), IteratorMode::Start) {
            entry?;
            entries += 1;
        }
    }
    Ok(entries)
}

/// Position of the last entry of the log.
pub(super) fn log_end(db: &DB) -> Result<u64> {
    let (Some(log), Some(system)) = (db.cf_handle(Family::Log.name()), db.cf_handle(Family::System.name())) else {
        return Ok(0);
    };
    let last = db.iterator_cf(log, IteratorMode::End).next().transpose()?.map_or(0, |(key, _)| keys::number(&key, 0));
    let trimmed = db.get_cf(system, b"log_trimmed")?.map_or(0, |bytes| keys::number(&bytes, 0));
    Ok(last.max(trimmed))
}

/// Sets the damaged store aside and puts the repaired one in its place. Goes on where an earlier attempt was broken off.
fn change_places(folder: &Path, work: &Path) -> Result<PathBuf> {
    let change = || -> io::Result<PathBuf> {
        let store = folder.join("store");
        let aside = if work.join("store").exists() && store.exists() {
            let aside = free(folder, "damaged");
            fs::create_dir(&aside)?;
            fs::rename(&store, aside.join("store"))?;
            fault::hit("repair.set_aside")?;
            aside
        } else {
            folder.to_owned()
        };
        if work.join(HIGH_WATER).exists() {
            if aside != folder && folder.join(HIGH_WATER).exists() {
                fs::rename(folder.join(HIGH_WATER), aside.join(HIGH_WATER))?;
            }
            fs::rename(work.join(HIGH_WATER), folder.join(HIGH_WATER))?;
        }
        if work.join("store").exists() {
            fs::rename(work.join("store"), &store)?;
        }
        File::open(folder)?.sync_all()?;
        Ok(aside)
    };
    let aside = change().map_err(|e| unreadable(folder, e))?;
    Marker::Marked.write(folder)?;
    fs::remove_dir_all(work).map_err(|e| unreadable(work, e))?;
    Ok(aside)
}

/// A folder of this name that is not there yet.
pub(super) fn free(folder: &Path, name: &str) -> PathBuf {
    let numbered = |n: u32| folder.join(format!("{name}-{n}"));
    (1..).map(numbered).find(|path| !path.exists()).unwrap_or_else(|| numbered(0))
}
