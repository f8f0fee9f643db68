//! What is handed to [`Engine::commit`](super::Engine::commit): pages of records, windows and marks that become visible as one.

use super::Dataset;
use crate::model::{Cause, Counts, DatasetId, Position, Timestamp};
use crate::sink::RunEnd;

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
    /// Ends the run for this dataset: its changes are announced in the same commit.
    pub end_run: Option<(Dataset, RunEnd)>,
}

/// What happens to a delete-tracking window.
#[derive(Clone, Debug)]
pub enum WindowOp {
    /// Begins a window; nothing if one is open.
    Start(Dataset),
    /// Begins a window afresh: what an open one had seen is forgotten.
    Restart(Dataset),
    /// Ends the window: every live record not seen since its start becomes DELETED.
    Sweep(Dataset),
    /// Ends the window without deletes.
    Abort(Dataset),
}

/// A small value stored with a batch.
#[derive(Clone, Debug)]
pub struct Mark {
    /// Which table.
    pub table: Table,
    /// Key parts.
    pub key: Vec<String>,
    /// `None` removes.
    pub value: Option<Vec<u8>>,
}

impl Mark {
    /// Sets a value.
    pub fn put(table: Table, key: &[&str], value: impl Into<Vec<u8>>) -> Self {
        Mark { table, key: key.iter().map(|p| p.to_string()).collect(), value: Some(value.into()) }
    }

    /// Removes a value.
    pub fn delete(table: Table, key: &[&str]) -> Self {
        Mark { table, key: key.iter().map(|p| p.to_string()).collect(), value: None }
    }
}

/// Tables of marks. The number is stored, so it never changes its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Table {
    /// Connections: (environment, source, connection).
    Connection = 1,
    /// State of a sync: (environment, source, connection, stream, variant).
    Sync = 2,
    /// Runs: (environment, source, stream, run id).
    Run = 3,
    /// Bookmarks of interrupted runs: as `Sync`.
    Bookmark = 4,
    /// Notes of sources, such as validators: as `Sync` plus the note's key.
    Note = 5,
    /// Delivery ids of webhooks: (environment, source, connection, id); value = expiry.
    Dedupe = 6,
    /// Positions in logs: (name).
    Place = 7,
    /// Quarantined items: (environment, source, connection, stream, id).
    Quarantine = 8,
    /// Webhooks no connection was found for: (environment, source, position).
    Parked = 9,
    /// Fetches that webhooks asked for and that are not done: (environment, source, connection, stream, key).
    Hydrate = 10,
    /// Settings made at run time, e.g. frequencies, pauses: free keys.
    Setting = 11,
    /// Deletes held for approval: as `Run`.
    Held = 12,
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
    /// First position after the batch: what a watermark must reach for it to be visible.
    pub end: Position,
}

/// Records of one dataset on their way in. Bytes are copied once, into one buffer; nothing is allocated per record.
pub struct PageBuilder {
    _todo: (),
}

#[allow(clippy::todo, unused_variables)]
impl PageBuilder {
    /// A whole record: `payload` is the JSON text of an object whose `id` equals `id`.
    pub fn save(&mut self, id: &str, modified_at: Option<Timestamp>, observed_at: Timestamp, payload: &[u8]) {
        todo!()
    }

    /// Some fields, merged deeply into what is there.
    pub fn patch(&mut self, id: &str, modified_at: Option<Timestamp>, observed_at: Timestamp, patch: &[u8]) {
        todo!()
    }

    /// The record is gone.
    pub fn delete(&mut self, id: &str, modified_at: Option<Timestamp>, observed_at: Timestamp, deleted_at: Option<Timestamp>) {
        todo!()
    }

    /// Records added so far.
    pub fn len(&self) -> usize {
        todo!()
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        todo!()
    }
}
