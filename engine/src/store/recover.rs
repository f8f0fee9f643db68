//! After a start: what was written above the watermark goes, and each worker's tables are read back in one scan.

use super::codec::decode;
use super::touch::decode_touch;
use super::values::{Scan, scan_options};
use super::{Error, Family, Result, Store, StoreBatch, codec, keys};
use crate::fault;
use crate::model::{DatasetId, Position, Timestamp};
use crate::state::{DEAD, FieldClocks, PATCHED, RecordEntry, SpillReader, Tables};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rocksdb::ReadOptions;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Pieces a dataset is read in, where there are fewer datasets than this.
const PIECES: usize = 16;
/// Entries handed over at once.
const BATCH: usize = 8_192;
/// Batches that may wait for a builder.
const BATCHES: usize = 8;

/// From and to of a scan.
type Piece = (Vec<u8>, Vec<u8>);
/// An entry on its way to its table.
type LoadedEntry = (DatasetId, RecordEntry);

impl Store {
    /// Removes everything at or above the watermark, in these datasets. Nothing of it was ever visible.
    pub(crate) fn trim(&self, datasets: &[DatasetId]) -> Result<()> {
        let batch = self.uncommitted(datasets)?;
        if batch.is_empty() || fault::planted("recovery_leaves_what_was_not_committed") {
            Ok(())
        } else {
            self.write_synced(batch)
        }
    }

    /// What removes everything at or above the watermark.
    pub(super) fn uncommitted(&self, datasets: &[DatasetId]) -> Result<StoreBatch> {
        let epoch = self.committed()?;
        let spilled = self.spilled()?;
        let mut batch = self.batch();
        for dataset in datasets {
            // Written for a commit that never came.
            let [from, to] = keys::entries(*dataset);
            if !spilled.contains(dataset) && self.any(Family::Entries, &from, &to)? {
                self.delete_range(&mut batch, Family::Entries, &from, &to)?;
            }
            let next = DatasetId(dataset.0.saturating_add(1));
            let (from, to) = (keys::record(*dataset, Position::first_of(epoch).0), keys::record(next, 0));
            for family in Family::BY_POSITION {
                if self.any(family, &from, &to)? {
                    self.delete_range(&mut batch, family, &from, &to)?;
                }
            }
        }
        self.whole(Family::Touched).each(|key, _| {
            if keys::number(key, 6) >= epoch {
                self.delete(&mut batch, Family::Touched, key);
            }
            Ok(true)
        })?;
        Ok(batch)
    }

    fn any(&self, family: Family, from: &[u8], to: &[u8]) -> Result<bool> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to.to_vec());
        let mut scan = self.scan(family, options);
        scan.seek(from);
        scan.status()?;
        Ok(scan.key().is_some())
    }

    /// A family from its beginning, read once.
    fn whole(&self, family: Family) -> Scan<'_> {
        let mut scan = self.scan(family, scan_options());
        scan.seek_to_first();
        scan
    }

    /// The tables of all workers, with versions and generations as they were. `cur` is read once, in pieces that as many
    /// threads as there are workers take in turn. Entries of spilled datasets are counted only.
    pub(crate) fn load(
        self: &Arc<Self>,
        datasets: &[DatasetId],
        workers: usize,
        table_bytes: usize,
    ) -> Result<Vec<Tables>> {
        let (pieces, spilled) = (self.pieces(datasets)?, &self.spilled()?);
        std::thread::scope(|scope| {
            let (senders, builders): (Vec<_>, Vec<_>) = (0..workers)
                .map(|worker| {
                    let (sender, entries) = bounded(BATCHES);
                    (sender, scope.spawn(move || self.build((worker, workers), (spilled, table_bytes), &entries)))
                })
                .unzip();
            let scans: Vec<_> = (0..workers)
                .map(|_| (senders.clone(), pieces.clone()))
                .map(|(to, pieces)| scope.spawn(move || self.scan_pieces(&pieces, &to)))
                .collect();
            drop(senders);
            let failed = || Error::Disk("a thread that reads the tables has failed".to_owned());
            scans.into_iter().try_for_each(|scan| scan.join().unwrap_or_else(|_| Err(failed())))?;
            builders.into_iter().map(|builder| builder.join().unwrap_or_else(|_| Err(failed()))).collect()
        })
    }

    /// `cur` in pieces: few datasets are cut up, many are taken whole.
    fn pieces(&self, datasets: &[DatasetId]) -> Result<Receiver<Piece>> {
        let end = self.committed()?;
        let cuts = if datasets.len() < PIECES { PIECES as u64 } else { 1 };
        let (to, pieces) = unbounded();
        for dataset in datasets {
            for n in 0..cuts {
                let at = |n: u64| keys::record(*dataset, Position::first_of(end / cuts * n).0).to_vec();
                let last = keys::record(*dataset, Position::first_of(end).0).to_vec();
                // The receiver is held here, so this cannot fail.
                let _ = to.send((at(n), if n + 1 == cuts { last } else { at(n + 1) }));
            }
        }
        Ok(pieces)
    }

    fn scan_pieces(&self, pieces: &Receiver<Piece>, to: &[Sender<Vec<LoadedEntry>>]) -> Result<()> {
        let mut batches: Vec<Vec<LoadedEntry>> = to.iter().map(|_| Vec::with_capacity(BATCH)).collect();
        while let Ok((from, end)) = pieces.try_recv() {
            let mut options = scan_options();
            options.set_iterate_upper_bound(end);
            let mut scan = self.scan(Family::Cur, options);
            scan.seek(from);
            while let (Some(key), Some(value)) = (scan.key(), scan.value()) {
                let owner = (codec::route(value) % to.len().max(1) as u64) as usize;
                if let (Some(batch), Some(to)) = (batches.get_mut(owner), to.get(owner)) {
                    batch.push((keys::dataset(key), entry_of(key, value)?));
                    if batch.len() >= BATCH {
                        // A builder that is gone has failed and says so itself.
                        let _ = to.send(std::mem::replace(batch, Vec::with_capacity(BATCH)));
                    }
                }
                scan.next();
            }
            scan.status()?;
        }
        for (batch, to) in batches.into_iter().zip(to) {
            let _ = to.send(batch);
        }
        Ok(())
    }

    fn build(
        self: &Arc<Self>,
        share: (usize, usize),
        (spilled, table_bytes): (&BTreeSet<DatasetId>, usize),
        entries: &Receiver<Vec<LoadedEntry>>,
    ) -> Result<Tables> {
        let mut tables = Tables::default();
        for dataset in spilled {
            tables.spill(*dataset, SpillReader::new(self.clone(), share, table_bytes));
        }
        for batch in entries {
            for (dataset, entry) in batch {
                let table = tables.table(dataset);
                table.live += i64::from(!entry.is(DEAD));
                table.last = table.last.max(entry.position);
                if !table.is_spilled() {
                    table.insert(entry);
                }
            }
        }
        let (worker, workers) = share;
        self.load_touched(&mut tables)?;
        self.load_fields(&mut tables, worker as u64, workers as u64)?;
        Ok(tables)
    }

    fn load_touched(&self, tables: &mut Tables) -> Result<()> {
        self.whole(Family::Touched).each(|key, value| {
            let (dataset, epoch) = (keys::dataset(key), keys::number(key, 6));
            let generation = key.get(14..18).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
            let Some(table) = tables.all.get_mut(&dataset) else { return Ok(true) };
            let damaged = || Error::Damaged(format!("a touch of epoch {epoch}; restore a backup"));
            let touch = decode_touch(value).ok_or_else(damaged)?;
            table.touched += touch.keys.len() + touch.moved.len();
            let mut keys = touch.keys.iter();
            for (observed_at, n) in &touch.runs {
                for key in keys.by_ref().take(*n as usize) {
                    if let Some(entry) = table.half(*key) {
                        seen(entry, epoch, generation, None, *observed_at);
                    }
                }
            }
            for (key, modified_at, observed_at) in &touch.moved {
                if let Some(entry) = table.half(*key) {
                    seen(entry, epoch, generation, Some(*modified_at), *observed_at);
                }
            }
            Ok(true)
        })
    }

    fn load_fields(&self, tables: &mut Tables, worker: u64, workers: u64) -> Result<()> {
        self.scan_from(Family::Fields, []).each(|key, value| {
            let hash = keys::key_of(key);
            if hash[1] % workers != worker {
                return Ok(true);
            }
            let fields: FieldClocks = serde_json::from_slice(value)
                .map_err(|e| Error::Damaged(format!("field clocks, {e}; restore a backup")))?;
            let table = tables.table(keys::dataset(key));
            // Where the store has the entry, its flags tell already.
            if !table.is_spilled()
                && let Some(entry) = table.get(&hash)
            {
                entry.set_flags(entry.flags() | PATCHED);
                if entry.position != 0 && fields.base_stamp.is_some() {
                    entry.raw = 0;
                }
            }
            table.fields.insert(hash, fields);
            Ok(true)
        })?;
        // A record whose clocks are gone is no longer patched, whatever its last change said.
        for table in tables.all.values_mut() {
            let patched: std::collections::HashSet<_> = table.fields.keys().copied().collect();
            for entry in table.iter_mut().filter(|e| e.is(PATCHED) && !patched.contains(&e.key)) {
                entry.set_flags(entry.flags() & !PATCHED);
            }
        }
        Ok(())
    }
}

/// The entry of a stored change.
fn entry_of(key: &[u8], value: &[u8]) -> Result<RecordEntry> {
    let meta = decode(value)?;
    let mut entry = RecordEntry::new(meta.key);
    entry.set_flags(meta.flags);
    entry.set_writer(meta.cause);
    (entry.modified_at, entry.observed_at) = (meta.modified_at, meta.observed_at);
    (entry.changed_at, entry.hash, entry.raw) = (meta.changed_at, meta.hash, meta.raw);
    (entry.position, entry.generation) = (keys::position(key), meta.generation);
    Ok(entry)
}

/// Applies a touch to an entry. Versions only grow, so the order of touches does not matter.
fn seen(entry: &mut RecordEntry, epoch: u64, generation: u32, modified_at: Option<Timestamp>, observed_at: Timestamp) {
    let version = (modified_at.unwrap_or(entry.modified_at), observed_at);
    if version > (entry.modified_at, entry.observed_at) {
        (entry.modified_at, entry.observed_at) = version;
    }
    if epoch >= Position(entry.position).epoch() {
        entry.generation = entry.generation.max(generation);
    }
}
