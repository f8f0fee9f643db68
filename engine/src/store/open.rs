//! Opening a data folder: whose it is, whether it holds what was acknowledged, and only then RocksDB.
//!
//! Promises: a folder with something missing or damaged is refused with the file's name, and nothing in it is changed. What
//! RocksDB would take for the end of a log is cut off only where nothing that was acknowledged lies behind it, and kept aside.

use super::check::{self, Findings, Listing, Torn, unreadable};
use super::files::{CHECKPOINT, link, remove};
use super::marker::Marker;
use super::{Error, Family, Result, Store, copy};
use crate::log::{Acknowledged, Changelog, HighWater, Space, Synced};
use rocksdb::{Cache, ColumnFamilyDescriptor, DB, DBRecoveryMode, Options};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Blocks kept in memory, by all families together.
const BLOCK_CACHE: usize = 64 << 20;
/// Writes kept in memory until they go to a file, by all families together.
const WRITE_BUFFERS: usize = 192 << 20;
/// What opening a database writes at once.
const OPENING: usize = 4 << 20;
/// Payloads, secrets of cursors and hook paths: nobody else's business on the machine.
const PRIVATE: u32 = 0o700;

impl Store {
    /// Opens the folder, or sets it up if it is new. With a `changelog` the folder is a copy of it and is brought to where
    /// it is; a folder that belongs to another changelog is refused with [`Error::Gone`]. `min_free` is the watermark of its
    /// disk, see [`Space::open`].
    pub fn open(folder: &Path, changelog: Option<Arc<dyn Changelog>>, min_free: Option<u64>) -> Result<Store> {
        fs::create_dir_all(folder).map_err(|e| unreadable(folder, e))?;
        let lock = Lock::take(folder)?;
        keep_private(folder)?;
        let space = Space::open(folder, min_free);
        // Without room for what opening writes it is better not begun.
        space.make_room(OPENING)?;
        let marker = Marker::read(folder)?;
        let found = match marker {
            Marker::New => {
                Marker::New.write(folder)?;
                Findings::default()
            }
            Marker::Plain | Marker::Marked => sound(folder, marker)?,
        };
        let db = open(&folder.join("store"), marker == Marker::New).map_err(|error| named(folder, error).at(folder))?;
        let db = Arc::new(db);
        let synced = Arc::new(Synced::marked(begin(folder, &db, found.said)?));
        if marker != Marker::Marked {
            Marker::Marked.write(folder)?;
        }
        if marker == Marker::Plain {
            tracing::info!(folder = %folder.display(), "from now on the folder keeps a mark of what was acknowledged");
        }
        let mut store = Store::over(db, synced, lock);
        store.space = Arc::new(space);
        if let Some(changelog) = changelog {
            store.catch_up(&*changelog)?;
            store.copy = Some(copy::Copy::new(changelog));
        }
        store.check_format()?;
        // What a backup left that was broken off holds tables that are not needed any more.
        remove(&folder.join(CHECKPOINT))?;
        Ok(store)
    }

    /// A store over an open database, on a disk that nobody watches.
    pub(super) fn over(db: Arc<DB>, synced: Arc<Synced>, lock: Lock) -> Store {
        Store {
            db,
            synced,
            space: Arc::new(Space::open(&lock.folder, Some(0))),
            restored: Default::default(),
            block_least: usize::MAX,
            split_since: 0,
            copy: None,
            lock,
        }
    }
}

/// What is found in a folder in which nothing is missing or damaged.
fn sound(folder: &Path, marker: Marker) -> Result<Findings> {
    let found = check::check(folder, marker == Marker::Marked)?;
    if !found.damages.is_empty() {
        return Err(found.refusal());
    }
    if let Some(torn) = found.torn.as_ref().filter(|torn| torn.cut) {
        cut(folder, torn)?;
    }
    Ok(found)
}

/// Cuts off what is no record at the end of a log, and keeps it aside.
fn cut(folder: &Path, torn: &Torn) -> Result<()> {
    let aside = folder.join("torn");
    let cut = || -> io::Result<()> {
        let bytes = fs::read(&torn.path)?;
        let name = torn.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let tail = bytes.get(torn.at as usize..).unwrap_or_default();
        fs::create_dir_all(&aside)?;
        fs::write(aside.join(format!("{name}-{}", torn.at)), tail)?;
        let log = File::options().write(true).open(&torn.path)?;
        log.set_len(torn.at)?;
        log.sync_all()?;
        let (log, bytes, aside) = (torn.path.display(), tail.len(), aside.display());
        tracing::warn!(%log, offset = torn.at, bytes, %aside, "half a record was cut off, nothing acknowledged was in it");
        Ok(())
    };
    cut().map_err(|e| unreadable(&torn.path, e))
}

/// RocksDB over a folder that may be changed from here on.
pub(super) fn open(store: &Path, create: bool) -> Result<DB> {
    let mut options = database_options();
    options.create_if_missing(create);
    options.create_missing_column_families(true);
    Ok(DB::open_cf_descriptors(&options, store, families())?)
}

/// An error of opening with the name of the table it is about. RocksDB blames the manifest for a table of which it cannot read
/// the description: so each is tried by itself, under a second name.
pub(super) fn named(folder: &Path, error: Error) -> Error {
    let Error::Damaged(what) = error else { return error };
    if what.contains(".sst") {
        return Error::Damaged(what);
    }
    let store = folder.join("store");
    let tables = Listing::read(&store).map(|listing| listing.tables).unwrap_or_default();
    let bad =
        tables.into_keys().map(|number| store.join(format!("{number:06}.sst"))).find(|path| !can_be_read(folder, path));
    Error::Damaged(match bad {
        Some(path) => format!("{}: {what}", path.display()),
        None => what,
    })
}

/// Whether RocksDB can read what a table says of itself.
fn can_be_read(folder: &Path, table: &Path) -> bool {
    let Ok(alone) = tempfile::tempdir_in(folder) else { return true };
    let name = alone.path().join(table.file_name().unwrap_or_default());
    // A table that cannot be read is moved aside.
    link(table, &name).is_err() || DB::repair(&database_options(), alone.path()).is_ok_and(|()| name.exists())
}

/// All families with their options.
pub(super) fn families() -> impl Iterator<Item = ColumnFamilyDescriptor> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE);
    Family::ALL.into_iter().map(move |family| ColumnFamilyDescriptor::new(family.name(), family.options(&cache)))
}

/// Begins the mark of a database that was just opened: what was in its logs is in tables now.
pub(super) fn begin(folder: &Path, db: &DB, before: Option<Acknowledged>) -> Result<HighWater> {
    let store = folder.join("store");
    let opened_at = db.latest_sequence_number();
    if let Some(before) = before.filter(|before| before.sequence > opened_at) {
        return Err(Error::Damaged(format!(
            "{}: it ends with write {opened_at}, though {} was acknowledged",
            store.display(),
            before.sequence
        )));
    }
    let manifest = check::current(&store).map_err(|damage| Error::Damaged(damage.to_string()))?;
    let said = Acknowledged {
        sequence: opened_at,
        log: before.map_or(0, |before| before.log),
        epoch: before.map_or(0, |before| before.epoch),
        manifest,
        manifest_bytes: 0,
        first_wal: Listing::read(&store)?.logs.into_keys().next_back().unwrap_or_default(),
        opened_at,
        families: Family::ALL.len() as u64 + 1,
    };
    let path = store.join(format!("MANIFEST-{manifest:06}"));
    let begun = File::open(&path).and_then(|manifest| HighWater::begin(folder, said, manifest));
    begun.map_err(|e| unreadable(&path, e))
}

pub(super) fn keep_private(folder: &Path) -> Result<()> {
    let keep = || -> io::Result<()> {
        let now = fs::metadata(folder)?.permissions().mode();
        if now & 0o077 != 0 {
            fs::set_permissions(folder, fs::Permissions::from_mode(PRIVATE))?;
        }
        Ok(())
    };
    keep().map_err(|e| unreadable(folder, e))
}

pub(super) fn database_options() -> Options {
    let mut options = Options::default();
    options.set_wal_recovery_mode(DBRecoveryMode::TolerateCorruptedTailRecords);
    options.set_max_total_wal_size(256 << 20);
    options.set_paranoid_checks(true);
    options.set_track_and_verify_wals_in_manifest(true);
    options.set_max_background_jobs(2);
    options.set_db_write_buffer_size(WRITE_BUFFERS);
    options.set_keep_log_file_num(2);
    options.set_max_open_files(512);
    options.set_enable_pipelined_write(true);
    options.set_bytes_per_sync(1 << 20);
    options.set_recycle_log_file_num(0);
    options
}

/// The lock on a data folder: one process only.
pub(super) struct Lock {
    /// The folder.
    pub(super) folder: PathBuf,
    // Dropping the file releases the lock with it.
    _file: fd_lock::RwLock<File>,
}

impl Lock {
    pub(super) fn take(folder: &Path) -> Result<Lock> {
        let path = folder.join("LOCK");
        let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
        let file = file.map_err(|e| unreadable(&path, e))?;
        let mut lock = fd_lock::RwLock::new(file);
        match lock.try_write() {
            // Forgetting the guard keeps the lock until the file is closed.
            Ok(guard) => std::mem::forget(guard),
            Err(_) => return Err(Error::Locked(folder.to_owned())),
        }
        Ok(Lock { folder: folder.to_owned(), _file: lock })
    }
}
