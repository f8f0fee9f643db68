//! Reading: records, changes, one record, what an open window has not seen. Each as of one engine time.

use super::Engine;
use crate::model::{Action, Change, Counts, Cursor, DatasetId, Meta, Position, Record, Timestamp};
use crate::pipeline::committer::run_prefix;
use crate::pipeline::messages::{SequencerMessage, WorkerQuery};
use crate::pipeline::{Dataset, Error, Filter, Missing};
use crate::store::catalog::Unannounced;
use crate::store::codec;
use std::collections::HashMap;

use tokio::sync::mpsc;

/// Times a read by id follows a record that keeps moving.
const FOLLOW: usize = 64;

impl Engine {
    /// Records of a dataset after `after`, in order of their last change, handed to `each` until it returns false.
    /// Blocking; call from `spawn_blocking` for long reads. Consistent as of one engine time.
    pub fn records(
        &self,
        dataset: &Dataset,
        after: Position,
        filter: Filter,
        each: &mut dyn FnMut(&Meta, &[u8]) -> bool,
    ) -> Result<(), Error> {
        let wanted = |meta: &codec::StoredChange| {
            let action = match meta.action {
                Action::Added => filter.added,
                Action::Updated => filter.updated,
                Action::Deleted => filter.deleted,
            };
            action && filter.modified_after.is_none_or(|after| meta.changed_at.millis() >= after.millis())
        };
        Ok(self.inner.store.records(dataset.id, after, &wanted, each)?)
    }

    /// The live records of several datasets, all as of one engine time: `begin` is told the first position that is not among
    /// them, then each record is handed to `each` until it returns false. Blocking.
    ///
    /// `/v1/changes` and [`changes`](Engine::changes) go on exactly there.
    pub fn snapshot(
        &self,
        datasets: &[Dataset],
        begin: &mut dyn FnMut(Position),
        each: &mut dyn FnMut(&Dataset, &Meta, &[u8]) -> bool,
    ) -> Result<(), Error> {
        let ids: Vec<DatasetId> = datasets.iter().map(|dataset| dataset.id).collect();
        let mut named =
            |at: usize, meta: &Meta, payload: &[u8]| datasets.get(at).is_some_and(|d| each(d, meta, payload));
        Ok(self.inner.store.live_records(&ids, begin, &mut named)?)
    }

    /// One record by id, deleted ones included.
    pub async fn record(&self, dataset: &Dataset, id: &str) -> Result<Option<Record>, Error> {
        let key = self.inner.seed.key(id.as_bytes());
        for _ in 0..FOLLOW {
            let (to, mut answers) = mpsc::unbounded_channel();
            self.ask(WorkerQuery::Locate(dataset.id, key, to))?;
            let mut found = None;
            for _ in 0..self.inner.workers {
                found = answers.recv().await.ok_or(Error::Stopped)?.or(found);
            }
            let Some(position) = found.map(Position) else { return Ok(None) };
            self.visible(position).await?;
            if let Some(record) = self.record_at(dataset, position)? {
                return Ok(Some(record));
            }
        }
        Err(Error::Storage(format!("record {id} of {} changes faster than it can be read; try again", dataset.name)))
    }

    /// The record whose last change is at `position`.
    pub fn record_at(&self, dataset: &Dataset, position: Position) -> Result<Option<Record>, Error> {
        Ok(self.inner.store.record_at(dataset.id, position)?)
    }

    /// Changes of several datasets merged in order of commit, after the cursor's place, handed to `each` until it
    /// returns false. Blocking. Consistent as of one engine time.
    pub fn changes(
        &self,
        datasets: &[Dataset],
        after: Cursor,
        each: &mut dyn FnMut(&Dataset, Change) -> bool,
    ) -> Result<(), Error> {
        let by_id: HashMap<DatasetId, &Dataset> = datasets.iter().map(|d| (d.id, d)).collect();
        let ids: Vec<DatasetId> = by_id.keys().copied().collect();
        let mut named = |id: DatasetId, change: Change| by_id.get(&id).is_none_or(|dataset| each(dataset, change));
        // Datasets without a change at or after this place need no look at the disk.
        let news = |id: DatasetId| self.changed_from(id, after.position);
        Ok(self.inner.store.changes(&ids, after, &news, &mut named)?)
    }

    /// Whether a dataset has a change behind a place.
    pub(in crate::pipeline) fn has_news(&self, dataset: &Dataset, place: Position) -> bool {
        self.changed_from(dataset.id, Position(place.0.saturating_add(1)))
    }

    fn changed_from(&self, dataset: DatasetId, place: Position) -> bool {
        let last = self.inner.last.lock();
        last.get(&dataset).is_some_and(|last| *last >= place.0)
    }

    /// What an open window has not seen; nothing is missing where none is open.
    pub async fn missing(&self, dataset: &Dataset) -> Result<Missing, Error> {
        let (to, mut answers) = mpsc::unbounded_channel();
        self.ask(WorkerQuery::Missing(dataset.id, to))?;
        let mut missing = Missing::default();
        for _ in 0..self.inner.workers {
            let (live, positions) = answers.recv().await.ok_or(Error::Stopped)?;
            missing.live += live;
            missing.positions.extend(positions.into_iter().map(Position));
        }
        missing.positions.sort_unstable();
        // What was asked after must be readable: wait for what was in flight.
        if let Some(last) = missing.positions.last() {
            self.visible(*last).await?;
        }
        Ok(missing)
    }

    fn ask(&self, query: WorkerQuery) -> Result<(), Error> {
        self.inner.inbox.send(SequencerMessage::Ask(query)).map_err(|_| Error::Stopped)
    }

    async fn visible(&self, position: Position) -> Result<(), Error> {
        let mut watermark = self.watermark();
        // Wakes also when a commit has failed: then it will never be.
        while *watermark.borrow_and_update() <= position {
            if let Some(why) = self.failed() {
                return Err(Error::Poisoned(why));
            }
            watermark.changed().await.map_err(|_| Error::Stopped)?;
        }
        Ok(())
    }

    /// What a run that has not ended has done to a dataset, by all that it has committed: changes, and rows that were rejected.
    pub(in crate::pipeline) fn noted(&self, dataset: &Dataset, run: u64) -> Result<Counts, Error> {
        let noted = self.inner.store.named::<Unannounced>(&run_prefix(dataset.id))?;
        Ok(noted.into_iter().find(|(number, _)| *number == run).map(|(_, noted)| noted.counts).unwrap_or_default())
    }

    /// Whether a delete-tracking window is open.
    pub fn window_open(&self, dataset: &Dataset) -> bool {
        self.window_opened(dataset).is_some()
    }

    /// When the delete-tracking window that is open was opened.
    pub fn window_opened(&self, dataset: &Dataset) -> Option<Timestamp> {
        let windows = self.inner.windows.lock();
        windows.get(&dataset.id).and_then(|window| window.open_since)
    }

    /// Live records of a dataset, as the internal counting view maintains them.
    pub fn live(&self, dataset: &Dataset) -> u64 {
        let live = self.inner.live.lock();
        live.get(&dataset.id).and_then(|n| u64::try_from(*n).ok()).unwrap_or(0)
    }

    /// Whether the dataset was emptied after a reader at `place` had read from it: what was dropped is told nowhere, so the
    /// reader has to begin anew.
    pub fn emptied_since(&self, dataset: &Dataset, place: Position) -> Result<bool, Error> {
        let emptied = self.inner.store.emptied(dataset.id)?;
        Ok(place > Position::START && emptied.is_some_and(|emptied| place.0 < emptied))
    }
}
