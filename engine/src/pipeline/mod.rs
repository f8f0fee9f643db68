//! The pipeline: joins log, dataflow, store and sink. [`Engine`] is the handle everything else holds.
//!
//! ```text
//! commit() ──► sequencer ──epoch──► workers ──parts──► committer ──► watermark, answers, outbox
//!              (cuts epochs)        (timely)           (one fsync)
//! ```

mod batch;
mod committer;
mod engine;
mod entry;
mod feed;
mod follow;
mod keyspace;
mod messages;
mod quarantine;
mod replicate;
pub mod run;
mod sequencer;
mod views;
mod window;
mod worker;

pub use batch::{Batch, Mark, PageBuilder, Receipt, WindowOp};
pub use engine::{
    ChangeStream, DatasetFilter, Engine, FOLLOW_CHANGES, FollowedChange, PendingCommit, SyncBuilder, SyncRun,
    WriteBuilder,
};
pub use feed::{ChangePage, Fed, PAGE_BYTES};
pub use follow::{EntryProcessor, LogFollower};
pub use keyspace::Keyspace;
pub use quarantine::{
    DroppedEntries, QUARANTINE_AGE, QUARANTINE_ITEM_BYTES_MAX, QUARANTINE_MAX, Quarantine, QuarantineEntry,
    QuarantineRow, QuarantineWriter, expire_quarantine, quarantine_entry, quarantined, remove_from_quarantine,
};
pub use views::{RemovedView, ViewStatus};
pub use window::{CommitWindow, WindowBounds};

use crate::dataflow::views::Definition;
use crate::log::{self, Changelog, Log};
use crate::model::{DatasetId, DatasetName, Position, Strategy, Timestamp};
use crate::sink::Announce;
use crate::store;
use crate::store::journal::JournalBounds;
use crate::time::{Clock, SystemClock};
use std::path::PathBuf;
use std::sync::Arc;

/// How an engine is opened.
pub struct Options {
    /// The data folder; `None` keeps everything in a temporary folder that goes with the engine.
    pub data_dir: Option<PathBuf>,
    /// Timely workers; at least 1.
    pub workers: usize,
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Turns ended runs and webhook-made changes into owed deliveries.
    pub announce: Option<Arc<dyn Announce>>,
    /// What is derived from the records.
    pub views: Option<Definition>,
    /// Bytes that what the merge knows of each record, about 90 a record, may take in memory. Beyond, the largest datasets
    /// are spilled: what is known of their records stays in the store and is read where it is needed, which costs several
    /// times the CPU. Once spilled a dataset stays so until it is cleared.
    pub table_bytes: usize,
    /// From so many contents of a dataset in one commit and worker on they are compressed together and stored as one block:
    /// cheaper to write, dearer to read one by one.
    pub block_least: usize,
    /// Bytes of the disk to keep free: with less nothing new is taken (see [`Engine::refusing`]). `None` is 512 MiB, or a tenth
    /// of a smaller disk; 0 watches nothing.
    pub min_free: Option<u64>,
    /// How much is kept of what happened; see [`Engine::journal`].
    pub journal: JournalBounds,
}

/// Bytes of [`Options::table_bytes`] where nothing else is said: some 20 million records.
pub const TABLE_BYTES: usize = 2 << 30;
/// [`Options::block_least`] where nothing else is said.
pub const BLOCK_LEAST: usize = 16;

impl Default for Options {
    /// [`Options::temporary`].
    fn default() -> Self {
        Options::temporary()
    }
}

impl Options {
    /// A data folder, one worker, the system's clock; nothing announced, nothing derived.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Options {
        Options { data_dir: Some(folder.into()), min_free: None, ..Options::temporary() }
    }

    /// The same in a folder that goes with the engine, on a disk that nobody watches.
    pub fn temporary() -> Options {
        Options {
            data_dir: None,
            workers: 1,
            clock: Arc::new(SystemClock),
            announce: None,
            views: None,
            table_bytes: TABLE_BYTES,
            block_least: BLOCK_LEAST,
            min_free: Some(0),
            journal: JournalBounds::default(),
        }
    }
}

/// A log and a changelog outside this machine: the data folder is a copy that can be rebuilt from them.
pub struct Remote {
    /// Where webhooks, and the batches of runs, are kept before they take effect.
    pub log: Arc<dyn Log>,
    /// Where every write of the store goes before it takes effect.
    pub changelog: Arc<dyn Changelog>,
    /// The installation's secret, the same for every process of it.
    pub secret: [u8; 32],
    /// Which part of the installation this engine is: numbers of runs begin with it, so that no two parts give the same.
    pub part: u16,
}

/// How the records of a dataset are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetSpec {
    /// Who wins.
    pub strategy: Strategy,
    /// Dotted paths of fields that alone make no change.
    pub ignore_in_diff: Vec<String>,
}

impl DatasetSpec {
    /// Whoever wins by this strategy; every field counts.
    pub fn of(strategy: Strategy) -> DatasetSpec {
        DatasetSpec { strategy, ignore_in_diff: Vec::new() }
    }
}

/// A registered dataset: cheap to clone.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Its number in this store.
    pub id: DatasetId,
    /// Its name.
    pub name: Arc<DatasetName>,
}

/// What went wrong in the engine.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The data folder is in use by another process.
    #[error("data_dir_locked: the data folder {0} is in use by another process; stop it or choose another folder")]
    Locked(PathBuf),
    /// The data folder was written by a newer version.
    #[error(
        "newer_data_format: the data folder has format {found}, this program reads up to {known}; use a newer program"
    )]
    NewerFormat {
        /// Format found.
        found: u32,
        /// Newest format known.
        known: u32,
    },
    /// The disk failed or holds damaged data.
    #[error("storage: {0}")]
    Storage(String),
    /// The operating system or RocksDB refused what was asked of the disk.
    #[error("storage: {what}")]
    Io {
        /// What was attempted where, and what was said.
        what: String,
        /// The error as it was.
        source: Arc<dyn std::error::Error + Send + Sync>,
    },
    /// The log failed.
    #[error("storage: {0}")]
    Log(#[from] log::Error),
    /// Files of the data folder are missing or damaged; nothing was changed.
    #[error("damaged_data: {0}")]
    Damaged(String),
    /// A write failed earlier; nothing more is written until a restart.
    #[error("the store is closed after a failed write ({0}); free the disk or repair it, then restart")]
    Poisoned(String),
    /// The disk is too full for it; nothing was written.
    #[error("{0}")]
    Full(String),
    /// `end` of a window that was never started.
    #[error("No track deletes starting point found for model '{0}'.")]
    NoWindow(String),
    /// The dataset is not known.
    #[error("unknown dataset {0}")]
    UnknownDataset(String),
    /// A batch breaks a bound or names nothing.
    #[error("bad batch: {0}")]
    BadBatch(String),
    /// The changelog or the log elsewhere cannot be used.
    #[error("{0}")]
    Remote(String),
    /// The data folder is a copy of another changelog.
    #[error("foreign_data_dir: {0}")]
    Foreign(String),
    /// Another process has taken over.
    #[error("fenced: {0}")]
    Fenced(String),
    /// A dataset was emptied after the cursor was handed out.
    #[error(
        "emptied: {0} was emptied after this cursor was handed out, so what was dropped is told nowhere; begin anew with `Cursor::START`"
    )]
    Emptied(String),
    /// What is to be derived cannot be.
    #[error("bad_views: {0}")]
    BadViews(String),
    /// The engine is shutting down.
    #[error("the engine has stopped")]
    Stopped,
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        match error {
            store::Error::Locked(folder) => Error::Locked(folder),
            store::Error::NewerFormat(found) => Error::NewerFormat { found, known: store::FORMAT },
            store::Error::Disk(text) => Error::Storage(text),
            store::Error::Io { what, source } => Error::Io { what, source },
            store::Error::Poisoned(text) => Error::Poisoned(text),
            store::Error::Full(text) => Error::Full(text),
            store::Error::Changelog(text) => Error::Remote(text),
            store::Error::Gone(text) => Error::Foreign(text),
            store::Error::Damaged(text) => Error::Damaged(text),
        }
    }
}

/// Live and missing records of an open window.
#[derive(Clone, Debug, Default)]
pub struct Missing {
    /// Live records of the dataset.
    pub live: u64,
    /// Positions of live records not seen since the window began, in order.
    pub positions: Vec<Position>,
}

/// Which records a reader wants.
#[derive(Clone, Copy, Debug)]
pub struct Filter {
    /// Last action is one of these.
    pub added: bool,
    /// See `added`.
    pub updated: bool,
    /// See `added`.
    pub deleted: bool,
    /// `last_modified_at`, cut to milliseconds, is not before this.
    pub modified_after: Option<Timestamp>,
}

impl Filter {
    /// Everything.
    pub const ALL: Filter = Filter { added: true, updated: true, deleted: true, modified_after: None };
}
