//! Reading: scans by position over a snapshot, never past the watermark that the snapshot itself holds.

use super::codec::{self, StoredChange, decode};
use super::payloads::Payloads;
use super::values::Scan;
use super::{Error, Family, Result, Store, keys};
use crate::fault;
use crate::model::content::Key;
use crate::model::{self, Action, Cursor, DatasetId, Position};
use crate::state::{DEAD, HIDDEN, Older, PRUNED, SeenRecord};
use bytes::Bytes;
use rocksdb::{ReadOptions, Snapshot};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::rc::Rc;

/// Changes of earlier epochs that a worker asked for in the epoch under way: most of them it supersedes in its end.
#[derive(Clone, Default)]
pub(crate) struct AskedChanges(Rc<RefCell<Changes>>, Rc<RefCell<Option<Error>>>);

type Changes = HashMap<(DatasetId, u64), StoredChange>;

impl AskedChanges {
    /// All of them; the next epoch begins with none. What could not be read fails the epoch: what was made of nothing in its
    /// place must not be committed.
    pub(super) fn take(&self) -> Result<Changes> {
        match self.1.take() {
            Some(error) => Err(error),
            None => Ok(self.0.take()),
        }
    }

    /// Something could not be read.
    pub(crate) fn failed(&self, error: Error) {
        self.1.borrow_mut().get_or_insert(error);
    }
}

impl Store {
    /// First position that is not committed.
    pub(crate) fn committed(&self) -> Result<u64> {
        Ok(self.system(b"committed")?.map_or(1, |bytes| keys::number(&bytes, 0)))
    }

    fn committed_in(&self, snapshot: &Snapshot<'_>) -> Result<u64> {
        let bytes = self.get_at(snapshot, Family::System, b"committed")?;
        Ok(bytes.map_or(1, |bytes| keys::number(&bytes, 0)))
    }

    /// A scan of what is visible behind a position.
    fn visible<'a>(
        &'a self,
        snapshot: &'a Snapshot<'_>,
        family: Family,
        dataset: DatasetId,
        after: u64,
    ) -> Result<Scan<'a>> {
        let end = Position::first_of(self.committed_in(snapshot)?).0;
        let mut options = ReadOptions::default();
        options.set_snapshot(snapshot);
        options.set_iterate_upper_bound(keys::record(dataset, end).to_vec());
        let mut scan = self.scan(family, options);
        scan.seek(keys::record(dataset, after.saturating_add(1)));
        Ok(scan)
    }

    /// Visible records after `after`, each handed to `each` until it returns false.
    pub(crate) fn records(
        &self,
        dataset: DatasetId,
        after: Position,
        wanted: &dyn Fn(&StoredChange) -> bool,
        each: &mut dyn FnMut(&model::Meta, &[u8]) -> bool,
    ) -> Result<()> {
        self.records_in(&self.db.snapshot(), dataset, after, wanted, each).map(drop)
    }

    /// The live records of several datasets in one snapshot, each handed to `each` with its dataset's place in the list;
    /// `begin` is told where the snapshot ends.
    pub(crate) fn live_records(
        &self,
        datasets: &[DatasetId],
        begin: &mut dyn FnMut(Position),
        each: &mut dyn FnMut(usize, &model::Meta, &[u8]) -> bool,
    ) -> Result<()> {
        let snapshot = self.db.snapshot();
        begin(Position::first_of(self.committed_in(&snapshot)?));
        let live = |meta: &StoredChange| meta.flags & DEAD == 0;
        for (at, dataset) in datasets.iter().enumerate() {
            let mut one = |meta: &model::Meta, payload: &[u8]| each(at, meta, payload);
            if !self.records_in(&snapshot, *dataset, Position::START, &live, &mut one)? {
                break;
            }
        }
        Ok(())
    }

    /// The same in a snapshot; whether `each` wants more.
    fn records_in(
        &self,
        snapshot: &Snapshot<'_>,
        dataset: DatasetId,
        after: Position,
        wanted: &dyn Fn(&StoredChange) -> bool,
        each: &mut dyn FnMut(&model::Meta, &[u8]) -> bool,
    ) -> Result<bool> {
        let mut cur = self.visible(snapshot, Family::Cur, dataset, after.0)?;
        let mut payloads = Payloads::new(self, snapshot);
        while let (Some(key), Some(value)) = (cur.key(), cur.value()) {
            let position = keys::position(key);
            let meta = decode(value)?;
            if meta.flags & HIDDEN == 0 && wanted(&meta) {
                let public = meta.public(position);
                let go_on = match meta.payload {
                    None => each(&public, payloads.next(dataset, meta.place(position))?),
                    Some(_) => each(&public, payloads.at(dataset, meta.place(position))?),
                };
                if !go_on {
                    return Ok(false);
                }
            }
            cur.next();
        }
        if !fault::planted("iterator_error_ignored") {
            cur.status()?;
        }
        Ok(true)
    }

    /// The contents of all live records of one worker, in order of position; pruned ones have none.
    pub(crate) fn contents(
        &self,
        dataset: DatasetId,
        (worker, workers): (usize, usize),
        each: &mut dyn FnMut(Key, SeenRecord),
    ) -> Result<()> {
        let snapshot = self.db.snapshot();
        let mut cur = self.visible(&snapshot, Family::Cur, dataset, 0)?;
        let mut payloads = Payloads::new(self, &snapshot);
        while let (Some(key), Some(value)) = (cur.key(), cur.value()) {
            if codec::route(value) % workers.max(1) as u64 == worker as u64 {
                let meta = decode(value)?;
                if meta.flags & (DEAD | HIDDEN | PRUNED) == 0 {
                    // Only what is deleted has its payload elsewhere.
                    let payload = payloads.next(dataset, meta.place(keys::position(key)))?.to_vec();
                    each(meta.key, SeenRecord { payload, modified_at: meta.modified_at });
                }
            }
            cur.next();
        }
        cur.status()
    }

    /// The visible record whose last change is at `position`.
    pub(crate) fn record_at(&self, dataset: DatasetId, position: Position) -> Result<Option<model::Record>> {
        if position.0 >= Position::first_of(self.committed()?).0 {
            return Ok(None);
        }
        let Some(meta) = self.meta(dataset, position.0)?.filter(|meta| meta.flags & HIDDEN == 0) else {
            return Ok(None);
        };
        // Without a snapshot: what has gone since the change was read is not there.
        let payload = self.payload(dataset, meta.place(position.0))?;
        Ok(payload.map(|payload| model::Record { meta: meta.public(position.0), payload: payload.into() }))
    }

    /// The change at a position, of whatever epoch: its payload, unless it is pruned, and its modified time.
    pub(crate) fn older(&self, dataset: DatasetId, position: u64, asked: &AskedChanges) -> Result<Older> {
        if let Some((meta, payload)) = self.restored(dataset, position) {
            return Ok((Some(payload), meta.modified_at));
        }
        let lost = || {
            let what = format!("the content of the change at {position} of dataset {} is missing", dataset.0);
            Error::Damaged(format!("{what}; restore a backup"))
        };
        let meta = self.meta(dataset, position)?.ok_or_else(lost)?;
        let payload = match meta.pruned_at {
            Some(_) => None,
            None => Some(self.payload(dataset, meta.place(position))?.ok_or_else(lost)?),
        };
        let modified_at = meta.modified_at;
        asked.0.borrow_mut().insert((dataset, position), meta);
        Ok((payload, modified_at))
    }

    /// Changes of several datasets in order of commit after `after`, each handed to `each` until it returns false.
    /// `news` says which datasets can have any: it must know of a commit before that is written.
    pub(crate) fn changes(
        &self,
        datasets: &[DatasetId],
        after: Cursor,
        news: &dyn Fn(DatasetId) -> bool,
        each: &mut dyn FnMut(DatasetId, model::Change) -> bool,
    ) -> Result<()> {
        let snapshot = self.db.snapshot();
        let mut payloads = Payloads::new(self, &snapshot);
        let mut scans = Vec::with_capacity(datasets.len() * 2);
        let mut next = BinaryHeap::new();
        // Asked only now: a commit that the snapshot holds has said beforehand which datasets it changes.
        for dataset in datasets.iter().filter(|dataset| news(**dataset)) {
            // At one position datasets come in order of their number; those up to the cursor's have been read.
            let from = if *dataset <= after.dataset { after.position.0 } else { after.position.0.saturating_sub(1) };
            for family in [Family::Cur, Family::History] {
                let scan = self.visible(&snapshot, family, *dataset, from)?;
                match scan.key() {
                    Some(key) => next.push(Reverse((keys::position(key), *dataset, scans.len()))),
                    None => scan.status()?,
                }
                scans.push(scan);
            }
        }
        while let Some(Reverse((position, dataset, n))) = next.pop() {
            let Some(scan) = scans.get_mut(n) else { break };
            let meta = decode(scan.value().unwrap_or_default())?;
            scan.next();
            match scan.key() {
                Some(key) => next.push(Reverse((keys::position(key), dataset, n))),
                None => scan.status()?,
            }
            if meta.flags & HIDDEN == 0
                && !each(dataset, self.change(&snapshot, &mut payloads, (dataset, position), &meta)?)
            {
                break;
            }
        }
        Ok(())
    }

    /// Hash of the id and position of visible records from the start up to `until`: candidates for pruning.
    pub(crate) fn prunable(&self, dataset: DatasetId, until: Position, limit: usize) -> Result<Vec<([u64; 2], u64)>> {
        let snapshot = self.db.snapshot();
        let mut cur = self.visible(&snapshot, Family::Cur, dataset, 0)?;
        let mut found = Vec::new();
        while let (Some(key), Some(value)) = (cur.key(), cur.value()) {
            let position = keys::position(key);
            if position > until.0 || found.len() >= limit {
                break;
            }
            let meta = decode(value)?;
            if meta.flags & HIDDEN == 0 && meta.pruned_at.is_none() {
                found.push((meta.key, position));
            }
            cur.next();
        }
        cur.status()?;
        Ok(found)
    }

    /// A change with its contents, read behind those before it.
    fn change(
        &self,
        snapshot: &Snapshot<'_>,
        payloads: &mut Payloads<'_>,
        (dataset, position): (DatasetId, u64),
        meta: &StoredChange,
    ) -> Result<model::Change> {
        let after = Bytes::copy_from_slice(match meta.payload {
            None => payloads.next(dataset, meta.place(position))?,
            Some(_) => payloads.at(dataset, meta.place(position))?,
        });
        let before = match (meta.action, meta.previous) {
            (Action::Deleted, _) => Some(after.clone()).filter(|_| meta.pruned_at.is_none()),
            (Action::Updated, Some(previous)) => self.unpruned(snapshot, payloads, dataset, previous)?,
            (Action::Updated, None) | (Action::Added, _) => None,
        };
        Ok(model::Change { meta: meta.public(position), before, after: Some(after) })
    }

    /// The content of an earlier change, unless it was pruned or is forgotten.
    fn unpruned(
        &self,
        snapshot: &Snapshot<'_>,
        payloads: &mut Payloads<'_>,
        dataset: DatasetId,
        position: u64,
    ) -> Result<Option<Bytes>> {
        let key = keys::record(dataset, position);
        let Some(bytes) = self.get_at(snapshot, Family::History, key)? else { return Ok(None) };
        let meta = decode(&bytes)?;
        match meta.pruned_at {
            Some(_) => Ok(None),
            None => payloads.at(dataset, meta.place(position)).map(Bytes::copy_from_slice).map(Some),
        }
    }
}
