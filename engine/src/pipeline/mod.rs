//! THE WAY THROUGH: joins log, dataflow, store and sink. [`Engine`] is the handle everything else holds.

mod batch;
pub mod run;

pub use batch::{Batch, Mark, PageBuilder, Receipt, Table, WindowOp};

use crate::log::Log;
use crate::model::{Change, Counts, CursorKey, DatasetId, DatasetName, Position, Record, Strategy, Timestamp};
use crate::sink::{Announce, Delivery};
use crate::time::Clock;
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
}

/// How the records of a dataset are treated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatasetSpec {
    /// Who wins.
    pub strategy: Strategy,
    /// Dotted paths of fields that alone make no change.
    pub ignore_in_diff: Vec<String>,
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
    #[error("newer_data_format: the data folder has format {found}, this program reads up to {known}; use a newer program")]
    NewerFormat {
        /// Format found.
        found: u32,
        /// Newest format known.
        known: u32,
    },
    /// The disk failed or holds damaged data.
    #[error("storage: {0}")]
    Storage(String),
    /// A write failed earlier; nothing more is written until a restart.
    #[error("the store is closed after a failed write ({0}); free the disk or repair it, then restart")]
    Poisoned(String),
    /// `end` of a window that was never started.
    #[error("No track deletes starting point found for model '{0}'.")]
    NoWindow(String),
    /// The dataset is not known.
    #[error("unknown dataset {0}")]
    UnknownDataset(String),
    /// A batch breaks a bound or names nothing.
    #[error("bad batch: {0}")]
    BadBatch(String),
    /// The engine is shutting down.
    #[error("the engine has stopped")]
    Stopped,
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

/// The engine. Cheap to clone; the last clone to go stops the workers after what was accepted is committed.
#[derive(Clone)]
pub struct Engine {
    _inner: Arc<()>,
}

#[allow(clippy::todo, unused_variables, missing_docs)]
impl Engine {
    /// Opens the data folder, recovers, starts the workers.
    pub fn open(options: Options) -> Result<Engine, Error> {
        todo!()
    }

    /// Registers a dataset, or changes how it is treated.
    pub fn dataset(&self, name: &DatasetName, spec: &DatasetSpec) -> Result<Dataset, Error> {
        todo!()
    }
    /// A registered dataset.
    pub fn find(&self, name: &DatasetName) -> Option<Dataset> {
        todo!()
    }
    /// All datasets of an environment.
    pub fn datasets(&self, environment: &str) -> Vec<Dataset> {
        todo!()
    }

    /// A builder for records of `dataset`; see [`PageBuilder`].
    pub fn page(&self, dataset: &Dataset) -> PageBuilder {
        todo!()
    }

    /// Commits a batch: one engine time, atomic. Returns when it is durable and visible.
    /// Waits (back-pressure) while too many epochs are in flight.
    pub async fn commit(&self, batch: Batch) -> Result<Receipt, Error> {
        todo!()
    }

    /// What an open window has not seen.
    pub async fn missing(&self, dataset: &Dataset) -> Result<Missing, Error> {
        todo!()
    }
    /// Whether a delete-tracking window is open.
    pub fn window_open(&self, dataset: &Dataset) -> bool {
        todo!()
    }

    /// Live records of a dataset, as the internal counting view maintains them.
    pub fn live(&self, dataset: &Dataset) -> u64 {
        todo!()
    }

    /// A number for a new run; rising, unique in this store.
    pub fn next_run(&self) -> Result<u64, Error> {
        todo!()
    }

    /// The durable log for what cannot be read again.
    pub fn log(&self) -> Arc<dyn Log> {
        todo!()
    }

    /// Everything below this position is committed and visible; changes wake the watcher.
    pub fn watermark(&self) -> tokio::sync::watch::Receiver<Position> {
        todo!()
    }

    /// Records of a dataset after `after`, in order of their last change, handed to `each` until it returns false.
    /// Blocking; call from `spawn_blocking` for long reads. Consistent as of one engine time.
    pub fn records(
        &self,
        dataset: &Dataset,
        after: Position,
        filter: Filter,
        each: &mut dyn FnMut(&crate::model::Meta, &[u8]) -> bool,
    ) -> Result<(), Error> {
        todo!()
    }

    /// One record by id, deleted ones included.
    pub async fn record(&self, dataset: &Dataset, id: &str) -> Result<Option<Record>, Error> {
        todo!()
    }

    /// The record whose last change is at `position`.
    pub fn record_at(&self, dataset: &Dataset, position: Position) -> Result<Option<Record>, Error> {
        todo!()
    }

    /// Changes of several datasets merged in order of commit, after (position, dataset).
    pub fn changes(
        &self,
        datasets: &[Dataset],
        after: crate::model::Cursor,
        each: &mut dyn FnMut(&Dataset, Change) -> bool,
    ) -> Result<(), Error> {
        todo!()
    }

    /// Prunes payloads of records up to and including `until`, at most `limit`. Returns (pruned, position of the last pruned).
    pub async fn prune(&self, dataset: &Dataset, until: Position, limit: usize) -> Result<(u64, Option<Position>), Error> {
        todo!()
    }

    /// Drops all records, history and windows of a dataset. Positions handed out earlier stay valid and find nothing.
    pub async fn clear(&self, dataset: &Dataset) -> Result<(), Error> {
        todo!()
    }

    /// A stored mark.
    pub fn mark(&self, table: Table, key: &[&str]) -> Result<Option<Vec<u8>>, Error> {
        todo!()
    }
    /// Marks whose key begins with these parts, in key order: (remaining parts, value).
    pub fn marks(&self, table: Table, prefix: &[&str]) -> Result<Vec<(Vec<String>, Vec<u8>)>, Error> {
        todo!()
    }

    /// Owed deliveries, oldest first within a lane, at most `limit`.
    pub fn outbox(&self, limit: usize) -> Result<Vec<Delivery>, Error> {
        todo!()
    }
    /// Wakes when the outbox may have new entries.
    pub fn outbox_changed(&self) -> tokio::sync::watch::Receiver<u64> {
        todo!()
    }
    /// Records the outcome of an attempt: `None` = delivered (removed), `Some` = the entry with its new `tries`, `next_at`.
    pub async fn settle(&self, id: &str, after: Option<Delivery>) -> Result<(), Error> {
        todo!()
    }
    /// Makes notices of what webhooks changed since the last call; called about twice a second.
    pub async fn announce_webhooks(&self) -> Result<(), Error> {
        todo!()
    }

    /// The key that signs cursors of this installation.
    pub fn cursor_key(&self) -> CursorKey {
        todo!()
    }
    /// A secret of this installation for `purpose`, 32 bytes, stable.
    pub fn secret(&self, purpose: &str) -> [u8; 32] {
        todo!()
    }
    /// The clock the engine was opened with.
    pub fn clock(&self) -> Arc<dyn Clock> {
        todo!()
    }

    /// Refuses new batches, commits what was accepted, stops the workers, closes the store.
    pub async fn stop(&self) -> Result<(), Error> {
        todo!()
    }
}

/// Sums of a receipt.
pub type Tally = Counts;
