//! What enters a worker: rows of records, and what happens to windows around them.

use crate::model::content::Key;
use crate::model::{Cause, DatasetId, Strategy, Timestamp};
use std::sync::Arc;

/// What a row says of its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// The whole content.
    Whole,
    /// Some fields.
    Patch,
    /// It is gone; the bytes are empty or the eight bytes of `deleted_at`.
    Gone,
}

/// One observation, its bytes elsewhere: nothing is allocated for it.
#[derive(Clone, Copy, Debug)]
pub struct ObservationRow {
    /// Hash of the id.
    pub key: Key,
    /// Hash of the bytes.
    pub raw: u64,
    /// The source's modified time, or [`Timestamp::NONE`].
    pub modified_at: Timestamp,
    /// When this was true at the latest.
    pub observed_at: Timestamp,
    /// Where its bytes begin.
    pub from: u32,
    /// How many there are.
    pub len: u32,
    /// Its place among the rows of its page, over all workers.
    pub place: u32,
    /// What it says.
    pub kind: RowKind,
}

/// Rows of one dataset, split by worker, over one buffer.
#[derive(Debug)]
pub struct ObservationRows {
    /// Their dataset.
    pub dataset: DatasetId,
    /// All payloads, one after the other.
    pub bytes: Vec<u8>,
    /// Rows by worker, each in order.
    pub parts: Vec<Vec<ObservationRow>>,
    /// Rows in all.
    pub len: u32,
    /// Who wins among these rows and what is there, in place of the dataset's strategy.
    pub strategy: Option<Strategy>,
}

impl ObservationRows {
    /// The bytes of `row`; empty if the row is not of these rows.
    pub fn bytes_of(&self, row: &ObservationRow) -> &[u8] {
        let from = row.from as usize;
        self.bytes.get(from..from + row.len as usize).unwrap_or_default()
    }
}

/// What happens to a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// Begins with this generation; the clock of its deletes is `at`.
    Open {
        /// Records seen from now on carry it.
        generation: u32,
        /// When the listing began.
        at: Timestamp,
    },
    /// Ends: live records of an older generation are deleted.
    Sweep,
    /// Ends without deletes.
    Abort,
}

/// A piece of an epoch, in order. `slot` numbers the batch within the epoch.
#[derive(Clone, Debug)]
pub enum EpochWork {
    /// Rows to merge; `base` is the place of the first one.
    Rows {
        /// The rows of all workers.
        rows: Arc<ObservationRows>,
        /// What made them.
        cause: Cause,
        /// Commit time of the epoch.
        at: Timestamp,
        /// Place of the first row within the epoch.
        base: u64,
        /// The batch.
        slot: u32,
    },
    /// A window begins or ends; `base` is the first free place for its deletes.
    Window {
        /// The dataset.
        dataset: DatasetId,
        /// What happens.
        window: Window,
        /// What did it.
        cause: Cause,
        /// Commit time of the epoch.
        at: Timestamp,
        /// First place of its deletes.
        base: u64,
        /// The batch.
        slot: u32,
    },
    /// How a dataset is treated from now on.
    Treat {
        /// The dataset.
        dataset: DatasetId,
        /// Who wins.
        strategy: Strategy,
        /// What does not count.
        ignore: Arc<crate::model::content::Ignore>,
    },
    /// After a restart: the generation, and the window that was left open.
    Resume {
        /// The dataset.
        dataset: DatasetId,
        /// The last generation handed out.
        generation: u32,
        /// The clock of the open window.
        open_since: Option<Timestamp>,
    },
    /// Payloads to be dropped: (key, position) pairs that still stand there.
    Prune {
        /// The dataset.
        dataset: DatasetId,
        /// Candidates.
        records: Arc<Vec<(Key, u64)>>,
        /// The batch.
        slot: u32,
    },
    /// Everything of the dataset is forgotten.
    Clear {
        /// The dataset.
        dataset: DatasetId,
    },
}
