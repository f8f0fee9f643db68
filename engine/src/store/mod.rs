//! The store: RocksDB. Records, change history and marks; one synced batch makes an epoch visible.
//!
//! Log-structured: every change is put once, in order, under (dataset, position); a change of a record moves its entry from
//! `cur` to `history` and leaves the payload where it is. So cursor reads and restarts are sequential scans.
//!
//! | family | key | value |
//! |---|---|---|
//! | `cur` | dataset, position | the last change of each record ([`codec::StoredChange`]) |
//! | `pay` | dataset, position | payloads, JSON, where there were few at a time |
//! | `blocks` | dataset, position of the first | payloads, many at a time ([`block`]) |
//! | `history` | dataset, position | superseded changes |
//! | `touched` | dataset, epoch, worker, generation | what was seen unchanged |
//! | `fields` | dataset, key | field clocks |
//! | `entries` | dataset, key | what the merge knows of each record, of datasets too large for memory |
//! | `marks` | table, parts | small values of the program |
//! | `outbox` | epoch, number | owed deliveries |
//! | `log` | position | the durable log (see `log::rocks`) |
//! | `journal` | time | what happened, for people ([`journal`]) |
//! | `system` | name | format, secret, catalog, windows, `committed` |
//!
//! Bulk puts of an epoch are written by the workers above the committed watermark, where no reader looks; the committer's
//! one small synced batch moves the watermark. A crash in between leaves what recovery trims.

mod backup;
mod block;
pub(crate) mod catalog;
mod check;
pub(crate) mod codec;
mod copy;
mod files;
pub mod journal;
pub(crate) mod keys;
mod marker;
pub(crate) mod marks;
mod open;
pub(crate) mod outbox;
mod payloads;
pub(crate) mod read;
pub(crate) mod recover;
mod repair;
mod restored;
mod spill;
mod touch;
mod values;
pub(crate) mod write;

use crate::fault::{Injected, hit, pass};
use crate::log::{Full, Space, Synced};
use rocksdb::{
    BlockBasedOptions, Cache, DB, DBCompactionStyle, DBCompressionType, Options, UniversalCompactOptions, WriteBatch,
    WriteOptions,
};
use std::path::PathBuf;
use std::sync::Arc;

/// Format of everything in the data folder.
pub const FORMAT: u32 = 1;

/// Tables of the journal that may wait to be moved to their level.
const JOURNAL_TABLES: i32 = 1 << 20;

/// Why the store failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// In use by another process.
    #[error("the data folder {0} is in use by another process")]
    Locked(PathBuf),
    /// Written by a newer program.
    #[error("the data folder has format {0}")]
    NewerFormat(u32),
    /// The disk or the data on it.
    #[error("{0}")]
    Disk(String),
    /// The operating system or RocksDB refused.
    #[error("{what}")]
    Io {
        /// What was attempted where, and what was said.
        what: String,
        /// The error as it was.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// A write failed earlier.
    #[error("{0}")]
    Poisoned(String),
    /// The disk is too full; nothing was written.
    #[error("{0}")]
    Full(String),
    /// The changelog cannot be read.
    #[error("the changelog cannot be read: {0}")]
    Changelog(String),
    /// The changelog is not the one this store was a copy of.
    #[error("{0}")]
    Gone(String),
    /// Files are missing or damaged.
    #[error("{0}")]
    Damaged(String),
}

impl From<rocksdb::Error> for Error {
    fn from(error: rocksdb::Error) -> Self {
        let (kind, source) = (error.kind(), Arc::new(error.clone()));
        let text = error.into_string();
        match kind {
            rocksdb::ErrorKind::Corruption => {
                // Of a table whose description is damaged RocksDB does not say which it is.
                let named = [".sst", ".log", "MANIFEST-", "CURRENT"].iter().any(|name| text.contains(name));
                let more = if named { "" } else { "; `syncline repair --dry-run` names the table" };
                Error::Damaged(text + more)
            }
            // RocksDB's own words, which are the system's.
            _ if text.contains("No space left on device") => Error::Full(format!("disk_full: {text}")),
            _ => Error::Io { what: text, source },
        }
    }
}

impl Error {
    /// The same with the folder it is about, where it names no place: of a folder that cannot be synced RocksDB says no more than
    /// that it is one.
    pub fn at(self, folder: &std::path::Path) -> Error {
        let placed = |what: String| match what.replace("Input/output", "").contains('/') {
            true => what,
            false => format!("{}: {what}", folder.display()),
        };
        match self {
            Error::Disk(what) => Error::Disk(placed(what)),
            Error::Io { what, source } => Error::Io { what: placed(what), source },
            Error::Full(what) => Error::Full(placed(what)),
            other => other,
        }
    }
}

impl From<Injected> for Error {
    fn from(injected: Injected) -> Self {
        Error::Disk(injected.to_string())
    }
}

impl From<Full> for Error {
    fn from(full: Full) -> Self {
        Error::Full(full.to_string())
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        Error::Io { what: error.to_string(), source: Arc::new(error) }
    }
}

pub use backup::{BackedUp, Restoration, back_up, checkpoint, restore};
pub(crate) use copy::StoreBatch;
pub use files::CHECKPOINT;
pub use repair::{Repaired, repair};
pub(crate) use write::WORKERS_MAX;

pub(crate) type Result<T> = std::result::Result<T, Error>;

/// The open store.
pub struct Store {
    db: Arc<DB>,
    /// How far its write-ahead log is on disk and whether that failed, for the log that shares it.
    synced: Arc<Synced>,
    space: Arc<Space>,
    restored: restored::Restored,
    /// From so many payloads on they lie in blocks.
    pub(crate) block_least: usize,
    /// Since this engine time the records are spread over workers as they are now, see [`Store::split`].
    split_since: u64,
    /// Where every write goes as well, if the store is a copy of a changelog.
    copy: Option<copy::Copy>,
    /// Held until the store goes.
    lock: open::Lock,
}

/// The families, in the order they were introduced: their numbers stand in changelogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Family {
    Cur,
    Pay,
    History,
    Touched,
    Fields,
    Marks,
    Outbox,
    Log,
    System,
    Entries,
    Blocks,
    Journal,
}

impl Family {
    const ALL: [Family; 12] = [
        Family::Cur,
        Family::Pay,
        Family::History,
        Family::Touched,
        Family::Fields,
        Family::Marks,
        Family::Outbox,
        Family::Log,
        Family::System,
        Family::Entries,
        Family::Blocks,
        Family::Journal,
    ];

    /// Those whose keys are (dataset, position).
    pub(crate) const BY_POSITION: [Family; 4] = [Family::Cur, Family::Pay, Family::Blocks, Family::History];

    fn numbered(number: u8) -> Option<Family> {
        Family::ALL.into_iter().find(|family| *family as u8 == number)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Family::Cur => "cur",
            Family::Pay => "pay",
            Family::History => "history",
            Family::Touched => "touched",
            Family::Fields => "fields",
            Family::Marks => "marks",
            Family::Outbox => "outbox",
            Family::Log => "log",
            Family::System => "system",
            Family::Entries => "entries",
            Family::Blocks => "blocks",
            Family::Journal => "journal",
        }
    }

    /// Memtable size: the payloads are nearly all that is written.
    fn write_buffer(self) -> usize {
        match self {
            Family::Pay | Family::Blocks => 64 << 20,
            Family::Cur | Family::Entries => 32 << 20,
            _ => 8 << 20,
        }
    }

    /// Sorted runs from which on some are merged: a single read asks the filter of each, a scan goes through all of them.
    /// Blocks of payloads are asked for by their keys and not scanned.
    fn runs(self) -> i32 {
        if self == Family::Blocks { 48 } else { 24 }
    }

    /// Bytes compressed together: payloads are read in order more often than one by one, entries the other way round.
    fn block(self) -> usize {
        match self {
            Family::Pay | Family::Blocks => 32 << 10,
            Family::Cur | Family::Entries => 4 << 10,
            _ => 16 << 10,
        }
    }

    fn options(self, cache: &Cache) -> Options {
        let mut table = BlockBasedOptions::default();
        table.set_block_cache(cache);
        table.set_block_size(self.block());
        table.set_format_version(6);
        table.set_bloom_filter(10.0, false);
        let mut options = Options::default();
        options.set_block_based_table_factory(&table);
        options.set_write_buffer_size(self.write_buffer());
        options.set_max_write_buffer_number(4);
        options.set_target_file_size_base(64 << 20);
        options.set_max_bytes_for_level_base(512 << 20);
        options.set_level_compaction_dynamic_level_bytes(true);
        if let Family::Cur | Family::Pay | Family::Blocks | Family::History = self {
            // Put in order and seldom changed: few, large merges. With levels each would rewrite all there is, since what is
            // new lies behind the rest of every dataset (engine/decisions/0017).
            options.set_compaction_style(DBCompactionStyle::Universal);
            let runs = self.runs();
            options.set_level_zero_file_num_compaction_trigger(runs);
            options.set_level_zero_slowdown_writes_trigger(runs * 4);
            options.set_level_zero_stop_writes_trigger(runs * 6);
            let mut merges = UniversalCompactOptions::default();
            merges.set_size_ratio(10);
            merges.set_min_merge_width(runs / 2 + 2);
            merges.set_max_merge_width(runs * 2);
            options.set_universal_compaction_options(&merges);
        }
        if self == Family::Journal {
            // Written in order of its keys, so that nothing of it has to be merged; and whatever it is behind with must not slow down
            // the writes of the others.
            options.set_level_zero_slowdown_writes_trigger(JOURNAL_TABLES);
            options.set_level_zero_stop_writes_trigger(JOURNAL_TABLES);
            options.set_soft_pending_compaction_bytes_limit(0);
            options.set_hard_pending_compaction_bytes_limit(0);
        }
        // One compression for all levels: a denser one for the last costs more than it saves (engine/decisions/0013).
        options.set_compression_type(match self {
            // Compressed already, and hashes of keys.
            Family::Blocks | Family::Touched => DBCompressionType::None,
            _ => DBCompressionType::Lz4,
        });
        options
    }
}

impl Store {
    fn check_format(&self) -> Result<()> {
        match self.system(b"format")? {
            None => {
                let mut batch = self.batch();
                self.put(&mut batch, Family::System, b"format", FORMAT.to_be_bytes());
                self.write_synced(batch)
            }
            Some(bytes) => match <[u8; 4]>::try_from(&bytes[..]).map(u32::from_be_bytes) {
                Ok(found) if found <= FORMAT => Ok(()),
                Ok(found) => Err(Error::NewerFormat(found)),
                Err(_) => Err(Error::Damaged("the format entry is damaged; restore a backup".to_owned())),
            },
        }
    }

    /// The database, for the log that shares its write-ahead log, how far that is on disk, and what room there is.
    pub(crate) fn database(&self) -> (Arc<DB>, Arc<Synced>, Arc<Space>) {
        (self.db.clone(), self.synced.clone(), self.space.clone())
    }

    pub(crate) fn family(&self, family: Family) -> &rocksdb::ColumnFamily {
        // Every family is opened in `open`; a missing one would be a bug that no caller can mend.
        match self.db.cf_handle(family.name()) {
            Some(handle) => handle,
            None => unreachable!("family {} is opened with the store", family.name()),
        }
    }

    pub(crate) fn system(&self, key: &[u8]) -> Result<Option<Vec<u8>>> {
        Ok(self.get(Family::System, key)?.map(|value| value.to_vec()))
    }

    fn check_poison(&self) -> Result<()> {
        self.synced.poisoned().map_or(Ok(()), |reason| Err(Error::Poisoned(reason)))
    }

    /// Room on the disk, and whether writing to it has failed.
    pub(crate) fn disk(&self) -> (&Arc<Space>, &Arc<Synced>) {
        (&self.space, &self.synced)
    }

    /// The failure after which nothing more is written.
    pub(crate) fn poisoning(&self) -> Option<String> {
        self.synced.poisoned()
    }

    /// Nothing more is written until a restart has read again what is there.
    pub(crate) fn poisoned(&self, reason: String) -> Error {
        self.synced.poison(&reason);
        Error::Poisoned(reason)
    }

    fn write(&self, batch: WriteBatch, sync: bool) -> Result<()> {
        self.check_poison()?;
        // It is on its way: without room it is tried all the same, since who asked for it cannot wait.
        let _ = self.space.make_room(batch.size_in_bytes());
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        let writes = batch.len() as u64;
        let put = || -> Result<()> {
            hit("store.write_before")?;
            self.db.write_opt(batch, &options)?;
            Ok(hit(if sync { "store.sync_after" } else { "store.write_after" })?)
        };
        let written = match sync {
            true => self.synced.sync(self.db.latest_sequence_number(), writes, put),
            false => put(),
        };
        // After a failure it is unknown what the disk has.
        written.map_err(|error| self.poisoned(error.to_string()))
    }

    /// Writes what is in memory to its files, for a quick restart.
    pub(crate) fn flush(&self) -> Result<()> {
        self.check_poison()?;
        pass("flush.begin");
        for family in Family::ALL {
            self.db.flush_cf(self.family(family))?;
        }
        Ok(self.synced.settle()?)
    }
}
