//! What is handed to [`Engine::commit`](super::Engine::commit): pages of records, windows and marks that become visible as one.

use super::{Dataset, Keyspace};
use crate::model::content::{KeySeed, raw_hash};
use crate::model::{Cause, Counts, DatasetId, Position, Strategy, Timestamp};
use crate::sink::RunEnd;
use crate::state::{ObservationRow, ObservationRows, RowKind};

/// Most records of one batch.
pub const BATCH_RECORDS: usize = 1 << 20;
/// Most bytes of one batch.
pub const BATCH_BYTES: usize = 256 << 20;

/// One atomic step. An empty batch is legal and commits its marks.
#[derive(Default)]
pub struct Batch {
    /// The run, webhook or push behind the pages; `None` only where there are no pages.
    pub cause: Option<Cause>,
    /// Windows to open before the pages are applied.
    pub open: Vec<WindowOp>,
    /// Records, in order. Each page is of one dataset.
    pub pages: Vec<PageBuilder>,
    /// Windows to end after the pages.
    pub close: Vec<WindowOp>,
    /// Small values stored in the same commit.
    pub marks: Vec<Mark>,
    /// Ends the run for these datasets: its changes are announced in the same commit, dataset by dataset.
    pub end_run: Vec<(Dataset, RunEnd)>,
}

/// What happens to a delete-tracking window.
#[derive(Clone, Debug)]
pub enum WindowOp {
    /// Begins a window; nothing if one is open. Commit it before the first request of the listing: what another writer
    /// brings between the two must not look missing.
    Start(Dataset),
    /// Begins a window afresh: what an open one had seen is forgotten.
    Restart(Dataset),
    /// Ends the window: every live record not seen since its start becomes DELETED.
    Sweep(Dataset),
    /// The same for the window that was opened then (see [`Engine::window_opened`](super::Engine::window_opened)); refused if
    /// that is not the one that is open.
    SweepOf(Dataset, Timestamp),
    /// Ends the window without deletes.
    Abort(Dataset),
    /// The same for the window that was opened then; refused if that is not the one that is open.
    AbortOf(Dataset, Timestamp),
}

/// A small value stored with a batch.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Which keyspace.
    pub keyspace: Keyspace,
    /// Key parts, each at most 65,535 bytes.
    pub key: Vec<String>,
    /// `None` removes.
    pub value: Option<Vec<u8>>,
}

impl Mark {
    /// Sets a value.
    pub fn put(keyspace: Keyspace, key: &[&str], value: impl Into<Vec<u8>>) -> Self {
        Mark { keyspace, key: key.iter().map(|p| p.to_string()).collect(), value: Some(value.into()) }
    }

    /// Removes a value.
    pub fn delete(keyspace: Keyspace, key: &[&str]) -> Self {
        Mark { keyspace, key: key.iter().map(|p| p.to_string()).collect(), value: None }
    }
}

/// What a committed batch did.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// The engine time of the batch.
    pub epoch: u64,
    /// Its commit time.
    pub at: Timestamp,
    /// Counts per dataset.
    pub counts: Vec<(DatasetId, Counts)>,
    /// Payloads dropped.
    pub pruned: u64,
    /// What is wrong with rows that are no records, the first few of them.
    pub rejected: Vec<(DatasetId, String)>,
    /// First position after the batch: a watermark at or above it shows all of it.
    pub end: Position,
}

impl Receipt {
    /// The counts of one dataset.
    pub fn counts_of(&self, dataset: &Dataset) -> Counts {
        self.counts.iter().find(|(id, _)| *id == dataset.id).map(|(_, counts)| *counts).unwrap_or_default()
    }
}

/// Records of one dataset on their way in. Bytes are copied once, into one buffer; nothing is allocated per record.
pub struct PageBuilder {
    pub(super) rows: ObservationRows,
    pub(super) overflow: bool,
    seed: KeySeed,
}

impl PageBuilder {
    pub(super) fn new(dataset: DatasetId, workers: usize, seed: KeySeed) -> Self {
        let parts = vec![Vec::new(); workers.max(1)];
        let rows = ObservationRows { dataset, bytes: Vec::new(), parts, len: 0, strategy: None };
        PageBuilder { rows, overflow: false, seed }
    }

    /// Who wins among the records of this page and what is there; the dataset's own strategy is not changed.
    pub fn strategy(&mut self, strategy: Strategy) {
        self.rows.strategy = Some(strategy);
    }

    /// A whole record: `payload` is the JSON text of an object whose `id` equals `id`.
    pub fn save(&mut self, id: &str, modified_at: Option<Timestamp>, observed_at: Timestamp, payload: &[u8]) {
        self.push(RowKind::Whole, id, modified_at, observed_at, payload);
    }

    /// Some fields (a JSON object), merged deeply into what is there.
    pub fn patch(&mut self, id: &str, modified_at: Option<Timestamp>, observed_at: Timestamp, patch: &[u8]) {
        self.push(RowKind::Patch, id, modified_at, observed_at, patch);
    }

    /// The record is gone.
    pub fn delete(
        &mut self,
        id: &str,
        modified_at: Option<Timestamp>,
        observed_at: Timestamp,
        deleted_at: Option<Timestamp>,
    ) {
        let stamp = deleted_at.map(|at| at.0.to_le_bytes());
        self.push(RowKind::Gone, id, modified_at, observed_at, stamp.as_ref().map_or(&[], |b| &b[..]));
    }

    /// Records added so far.
    pub fn len(&self) -> usize {
        self.rows.len as usize
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.rows.len == 0
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.rows.bytes.len()
    }

    #[inline]
    fn push(&mut self, kind: RowKind, id: &str, modified_at: Option<Timestamp>, observed_at: Timestamp, bytes: &[u8]) {
        let from = self.rows.bytes.len();
        if from + bytes.len() > BATCH_BYTES || self.len() >= BATCH_RECORDS {
            // Refused as a whole when the batch is committed: half a page must not look like a page.
            self.overflow = true;
            return;
        }
        let key = self.seed.key(id.as_bytes());
        self.rows.bytes.extend_from_slice(bytes);
        let row = ObservationRow {
            key,
            raw: raw_hash(bytes),
            modified_at: modified_at.unwrap_or(Timestamp::NONE),
            observed_at,
            from: from as u32,
            len: bytes.len() as u32,
            place: self.rows.len,
            kind,
        };
        self.rows.len += 1;
        let workers = self.rows.parts.len();
        if let Some(part) = self.rows.parts.get_mut(key[1] as usize % workers) {
            part.push(row);
        }
    }
}
