//! After a start: what was written above the watermark goes, and each worker's tables are read back in one scan.

use super::write::{decode, decode_touch};
use super::{Error, Family, Result, Store, codec, keys};
use crate::model::{DatasetId, Position, Timestamp};
use crate::state::{Entry, Fields, PATCHED, Tables};
use rocksdb::{IteratorMode, ReadOptions, WriteBatch};

impl Store {
    /// Removes everything at or above the watermark, in these datasets. Nothing of it was ever visible.
    pub(crate) fn trim(&self, datasets: &[DatasetId]) -> Result<()> {
        let epoch = self.committed()?;
        let mut batch = WriteBatch::default();
        for dataset in datasets {
            let next = DatasetId(dataset.0.saturating_add(1));
            let (from, to) = (keys::record(*dataset, Position::first_of(epoch).0), keys::record(next, 0));
            for family in [Family::Cur, Family::Pay, Family::History] {
                if self.any(family, &from, &to)? {
                    batch.delete_range_cf(self.family(family), from, to);
                }
            }
        }
        for item in self.db.iterator_cf_opt(self.family(Family::Touched), scan_options(), IteratorMode::Start) {
            let (key, _) = item?;
            if keys::number(&key, 6) >= epoch {
                batch.delete_cf(self.family(Family::Touched), key);
            }
        }
        if batch.is_empty() { Ok(()) } else { self.write_synced(batch) }
    }

    fn any(&self, family: Family, from: &[u8], to: &[u8]) -> Result<bool> {
        let mut options = ReadOptions::default();
        options.set_iterate_upper_bound(to.to_vec());
        let mut scan = self.db.raw_iterator_cf_opt(self.family(family), options);
        scan.seek(from);
        scan.status()?;
        Ok(scan.valid())
    }

    /// The tables of worker `worker` of `workers`, with versions and generations as they were.
    pub(crate) fn load(&self, worker: u64, workers: u64) -> Result<Tables> {
        let mut tables = Tables::default();
        let mut scan = self.db.raw_iterator_cf_opt(self.family(Family::Cur), scan_options());
        scan.seek_to_first();
        while let (Some(key), Some(value)) = (scan.key(), scan.value()) {
            if codec::route(value) % workers == worker {
                let meta = decode(value)?;
                let mut entry = Entry::new(meta.key);
                entry.set_flags(meta.flags);
                entry.set_writer(meta.cause);
                (entry.modified_at, entry.observed_at) = (meta.modified_at, meta.observed_at);
                (entry.changed_at, entry.hash, entry.raw) = (meta.changed_at, meta.hash, meta.raw);
                (entry.position, entry.generation) = (keys::position(key), meta.generation);
                let table = tables.table(keys::dataset(key));
                table.live += i64::from(!entry.is(crate::state::DEAD));
                table.insert(entry);
            }
            scan.next();
        }
        scan.status()?;
        self.load_touched(&mut tables)?;
        self.load_fields(&mut tables, worker, workers)?;
        Ok(tables)
    }

    fn load_touched(&self, tables: &mut Tables) -> Result<()> {
        for item in self.db.iterator_cf_opt(self.family(Family::Touched), scan_options(), IteratorMode::Start) {
            let (key, value) = item?;
            let (dataset, epoch) = (keys::dataset(&key), keys::number(&key, 6));
            let generation = key.get(14..18).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
            let Some(table) = tables.0.get_mut(&dataset) else { continue };
            let damaged = || Error::Disk(format!("damaged data: a touch of epoch {epoch}; restore a backup"));
            let touch = decode_touch(&value).ok_or_else(damaged)?;
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
        }
        Ok(())
    }

    fn load_fields(&self, tables: &mut Tables, worker: u64, workers: u64) -> Result<()> {
        for item in self.db.iterator_cf(self.family(Family::Fields), IteratorMode::Start) {
            let (key, value) = item?;
            let hash = [keys::number(&key, 4), keys::number(&key, 12)];
            if hash[1] % workers != worker {
                continue;
            }
            let fields: Fields = serde_json::from_slice(&value)
                .map_err(|e| Error::Disk(format!("damaged data: field clocks, {e}; restore a backup")))?;
            let table = tables.table(keys::dataset(&key));
            if let Some(entry) = table.get(&hash) {
                entry.set_flags(entry.flags() | PATCHED);
                if entry.position != 0 && fields.base_stamp.is_some() {
                    entry.raw = 0;
                }
            }
            table.fields.insert(hash, fields);
        }
        // A record whose clocks are gone is no longer patched, whatever its last change said.
        for table in tables.0.values_mut() {
            let patched: std::collections::HashSet<_> = table.fields.keys().copied().collect();
            for entry in table.iter_mut().filter(|e| e.is(PATCHED) && !patched.contains(&e.key)) {
                entry.set_flags(entry.flags() & !PATCHED);
            }
        }
        Ok(())
    }
}

/// Applies a touch to an entry. Versions only grow, so the order of touches does not matter.
fn seen(entry: &mut Entry, epoch: u64, generation: u32, modified_at: Option<Timestamp>, observed_at: Timestamp) {
    let version = (modified_at.unwrap_or(entry.modified_at), observed_at);
    if version > (entry.modified_at, entry.observed_at) {
        (entry.modified_at, entry.observed_at) = version;
    }
    if epoch >= Position(entry.position).epoch() {
        entry.generation = entry.generation.max(generation);
    }
}

fn scan_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_readahead_size(2 << 20);
    options.fill_cache(false);
    options
}
