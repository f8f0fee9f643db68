//! What one worker's epoch changes, gathered for the pipeline to write.
//!
//! The operators fill a [`Stage`]; when the frontier has passed the epoch the pipeline takes the [`WorkerChanges`] out of it. The
//! only thing a stage is asked for is an older payload (for patches and views), which the pipeline answers from the store.

use super::entry::RecordEntry;
use super::rows::{ObservationRow, ObservationRows};
use crate::model::content::Key;
use crate::model::{Action, Cause, Counts, DatasetId, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Where the payload of a staged record is.
#[derive(Debug)]
pub enum StagedContent {
    /// Bytes of a page of this part: index into [`WorkerChanges::pages`], offset, length.
    Page(u32, u32, u32),
    /// Bytes of their own (merged by a patch, made by a view).
    Owned(Vec<u8>),
    /// The payload of the record before stays the payload.
    Kept,
    /// None: a hidden entry.
    Nothing,
}

/// A record at a new position.
#[derive(Debug)]
pub struct Staged {
    /// Its dataset.
    pub dataset: DatasetId,
    /// Its new position.
    pub position: u64,
    /// The position it leaves.
    pub old: Option<u64>,
    /// What happened.
    pub action: Action,
    /// What made it happen.
    pub cause: Cause,
    /// The entry as it now stands.
    pub entry: RecordEntry,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// Its payload.
    pub content: StagedContent,
}

/// Versions and generations that moved without a change: the fact that a record was seen.
#[derive(Debug, Default)]
pub struct Touch {
    /// Runs of rows with one observation time whose modified time did not move: (observed, number of keys).
    pub runs: Vec<(Timestamp, u32)>,
    /// First halves of their keys, run after run.
    pub keys: Vec<u64>,
    /// Entries whose modified time moved: (key, modified, observed).
    pub moved: Vec<(u64, Timestamp, Timestamp)>,
}

impl Touch {
    /// Notes an entry that was seen.
    pub fn add(&mut self, key: u64, observed_at: Timestamp) {
        match self.runs.last_mut() {
            Some((at, n)) if *at == observed_at => *n += 1,
            _ => self.runs.push((observed_at, 1)),
        }
        self.keys.push(key);
    }

    /// The same in pieces of about so many keys; a run is not cut up.
    pub fn pieces(self, most: usize) -> Vec<Touch> {
        if self.keys.len() + self.moved.len() <= most {
            return vec![self];
        }
        let moved = self.moved.chunks(most.max(1));
        let mut pieces: Vec<Touch> = moved.map(|moved| Touch { moved: moved.to_vec(), ..Touch::default() }).collect();
        let (mut keys, mut piece) = (self.keys.into_iter(), Touch::default());
        for (at, n) in self.runs {
            piece.runs.push((at, n));
            piece.keys.extend(keys.by_ref().take(n as usize));
            if piece.keys.len() >= most {
                pieces.push(std::mem::take(&mut piece));
            }
        }
        if !piece.keys.is_empty() {
            pieces.push(piece);
        }
        pieces
    }
}

/// Field clocks of a record that came or went: see [`super::FieldClocks`].
#[derive(Debug)]
pub struct KeptFields {
    /// The dataset.
    pub dataset: DatasetId,
    /// The record.
    pub key: Key,
    /// Its field clocks as stored; `None` removes them.
    pub fields: Option<Vec<u8>>,
}

/// What views change belongs to no batch: counts of it stand under this number.
pub const OF_VIEWS: u32 = u32::MAX;

/// All that one worker's epoch changes.
#[derive(Debug, Default)]
pub struct WorkerChanges {
    /// Pages the staged contents point into.
    pub pages: Vec<Arc<ObservationRows>>,
    /// Records at new positions, positions rising within a dataset.
    pub staged: Vec<Staged>,
    /// What was seen without a change, by dataset and generation.
    pub touched: BTreeMap<(DatasetId, u32), Touch>,
    /// Entries of spilled datasets that were used.
    pub used: Vec<(DatasetId, RecordEntry)>,
    /// Datasets that are spilled from now on.
    pub spilled: Vec<DatasetId>,
    /// Datasets whose touches above stand for all older ones.
    pub folded: Vec<DatasetId>,
    /// Field clocks that changed.
    pub kept: Vec<KeptFields>,
    /// Pruned payloads that came back: (dataset, position, payload).
    pub restored: Vec<(DatasetId, u64, Vec<u8>)>,
    /// Payloads to drop: (dataset, position, batch).
    pub pruned: Vec<(DatasetId, u64, u32)>,
    /// Datasets to forget.
    pub cleared: Vec<DatasetId>,
    /// Counts by (batch, dataset).
    pub counts: BTreeMap<(u32, DatasetId), Counts>,
    /// Rows that are no records, by batch: what is wrong with the first few.
    pub rejected: Vec<(u32, DatasetId, String)>,
    /// Live records by dataset, as the counting view gives them.
    pub live: Vec<(DatasetId, i64)>,
}

impl WorkerChanges {
    /// The bytes of a staged content; `None` for `Kept` and `Nothing`.
    pub fn bytes<'a>(&'a self, content: &'a StagedContent) -> Option<&'a [u8]> {
        match content {
            StagedContent::Page(page, from, len) => {
                let (from, len) = (*from as usize, *len as usize);
                self.pages.get(*page as usize).and_then(|rows| rows.bytes.get(from..from + len))
            }
            StagedContent::Owned(bytes) => Some(bytes),
            StagedContent::Kept | StagedContent::Nothing => None,
        }
    }

    /// Remembers the page so that contents can point into it.
    pub fn page(&mut self, rows: &Arc<ObservationRows>) -> u32 {
        if self.pages.last().is_none_or(|last| !Arc::ptr_eq(last, rows)) {
            self.pages.push(rows.clone());
        }
        (self.pages.len() - 1) as u32
    }

    /// The content of `row` in page number `page`.
    pub fn content(page: u32, row: &ObservationRow) -> StagedContent {
        StagedContent::Page(page, row.from, row.len)
    }

    /// Drops what was gathered for a dataset that is now to be forgotten.
    pub fn forget(&mut self, dataset: DatasetId) {
        self.staged.retain(|staged| staged.dataset != dataset);
        self.touched.retain(|(other, _), _| *other != dataset);
        self.kept.retain(|kept| kept.dataset != dataset);
        self.restored.retain(|(other, _, _)| *other != dataset);
        self.pruned.retain(|(other, _, _)| *other != dataset);
        self.used.retain(|(other, _)| *other != dataset);
        self.cleared.push(dataset);
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.staged.is_empty()
            && self.touched.is_empty()
            && self.kept.is_empty()
            && self.restored.is_empty()
            && self.pruned.is_empty()
            && self.used.is_empty()
            && self.spilled.is_empty()
            && self.cleared.is_empty()
    }
}

/// What a view sees of a record: as of its last change, like every reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenRecord {
    /// Its content.
    pub payload: Vec<u8>,
    /// The source's modified time; [`Timestamp::NONE`] if there is none.
    pub modified_at: Timestamp,
}

/// A change of an earlier epoch: its payload, unless it is pruned, and its modified time.
pub type Older = (Option<Vec<u8>>, Timestamp);

/// What the operators gather into, and the one question they may ask.
pub struct Stage {
    /// The epoch being gathered.
    pub part: WorkerChanges,
    /// Its first position: what is before is stored.
    pub first: u64,
    older: Box<dyn Fn(DatasetId, u64) -> Older>,
}

impl Stage {
    /// A stage that asks `older` for changes of earlier epochs.
    pub fn new(older: impl Fn(DatasetId, u64) -> Older + 'static) -> Self {
        Stage { part: WorkerChanges::default(), first: 0, older: Box::new(older) }
    }

    /// The payload at `position`, staged in this epoch or stored earlier; `None` if it is pruned.
    pub fn payload(&self, dataset: DatasetId, position: u64) -> Option<Vec<u8>> {
        self.seen(dataset, position).map(|seen| seen.payload)
    }

    /// The same, with the modified time as of that change.
    pub fn seen(&self, dataset: DatasetId, position: u64) -> Option<SeenRecord> {
        let back = |at: u64| self.part.restored.iter().rev().find(move |(of, place, _)| *of == dataset && *place == at);
        let (mut wanted, mut dated) = (position, None);
        // Looked for here only if it can be here: most are of earlier epochs.
        let here = if position < self.first { &[][..] } else { &self.part.staged };
        for staged in here.iter().rev().filter(|s| s.dataset == dataset) {
            if staged.position != wanted {
                continue;
            }
            let modified_at = *dated.get_or_insert(staged.entry.modified_at);
            match (&staged.content, staged.old) {
                (StagedContent::Kept, Some(old)) => wanted = old,
                (content, _) => {
                    let payload = self.part.bytes(content)?.to_vec();
                    return Some(SeenRecord { payload, modified_at });
                }
            }
        }
        let (stored, stored_at) = (self.older)(dataset, wanted);
        // Pruned, and come back in this epoch.
        let payload = back(wanted).map(|(_, _, payload)| payload.clone()).or(stored)?;
        Some(SeenRecord { payload, modified_at: dated.unwrap_or(stored_at) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_touch_are_all_of_it_and_bounded() {
        let mut touch = Touch::default();
        for n in 0..50u64 {
            touch.add(n, Timestamp(n as i64 / 7));
            touch.moved.push((n + 100, Timestamp(1), Timestamp(2)));
        }
        let (runs, keys, moved) = (touch.runs.clone(), touch.keys.clone(), touch.moved.clone());
        let pieces = touch.pieces(10);
        assert!(pieces.iter().all(|piece| piece.keys.len() + piece.moved.len() < 10 + 7), "a run more at most");
        assert_eq!(pieces.iter().flat_map(|piece| piece.runs.clone()).collect::<Vec<_>>(), runs);
        assert_eq!(pieces.iter().flat_map(|piece| piece.keys.clone()).collect::<Vec<_>>(), keys);
        assert_eq!(pieces.iter().flat_map(|piece| piece.moved.clone()).collect::<Vec<_>>(), moved);
        let whole = |piece: &Touch| piece.runs.iter().map(|(_, n)| *n as usize).sum::<usize>() == piece.keys.len();
        assert!(pieces.iter().all(whole), "each says of its keys when they were seen");
    }
}
