//! Entries of spilled datasets: what the merge knows of each record, by key instead of by position.
//!
//! Promises: what stands in the family `entries` for a dataset that is marked as spilled is exactly what the last commit
//! left; for any other dataset it means nothing and is removed at the next opening. So a dataset is spilled in one go before
//! the commit that marks it, and a crash in between undoes it.

use super::catalog::SPILLED;
use super::values::scan_options;
use super::{Error, Family, Result, Store, keys};
use crate::model::content::Key;
use crate::model::{DatasetId, Timestamp};
use crate::state::{Entries, RecordEntry};
use std::collections::BTreeSet;

const FORMAT: u8 = 1;
/// Bytes of a stored entry, its key aside.
const LEN: usize = 57;
/// Entries written at once when a dataset is spilled.
const BATCH: usize = 1 << 14;

impl Store {
    /// Datasets whose entries are here.
    pub(crate) fn spilled(&self) -> Result<BTreeSet<DatasetId>> {
        Ok(self.named::<bool>(SPILLED)?.into_iter().map(|(id, _)| DatasetId(id as u32)).collect())
    }

    /// Writes all entries of one worker: for a dataset that the commit of `epoch` marks as spilled.
    pub(crate) fn spill<'e>(
        &self,
        dataset: DatasetId,
        epoch: u64,
        entries: impl Iterator<Item = &'e RecordEntry>,
    ) -> Result<()> {
        let mut batch = self.batch();
        for (n, entry) in entries.enumerate() {
            self.put(&mut batch, Family::Entries, keys::entry(dataset, &entry.key), encode(entry));
            if n % BATCH == BATCH - 1 {
                self.write_unsynced(std::mem::replace(&mut batch, self.batch()), epoch)?;
            }
        }
        self.write_unsynced(batch, epoch)
    }
}

impl Entries for Store {
    fn entry(&self, dataset: DatasetId, key: &Key) -> std::result::Result<Option<RecordEntry>, String> {
        let stored = self.get(Family::Entries, keys::entry(dataset, key)).map_err(|e| e.to_string())?;
        stored.map(|bytes| decode(*key, &bytes)).transpose().map_err(|e| e.to_string())
    }

    fn each_entry(
        &self,
        dataset: DatasetId,
        (worker, workers): (usize, usize),
        each: &mut dyn FnMut(&RecordEntry),
    ) -> std::result::Result<(), String> {
        let [from, to] = keys::entries(dataset);
        let mut options = scan_options();
        options.set_iterate_upper_bound(to.to_vec());
        let mut scan = self.scan(Family::Entries, options);
        scan.seek(from);
        while let (Some(key), Some(value)) = (scan.key(), scan.value()) {
            let key = keys::key_of(key);
            if key[1] % workers.max(1) as u64 == worker as u64 {
                each(&decode(key, value).map_err(|e| e.to_string())?);
            }
            scan.next();
        }
        scan.status().map_err(|e| e.to_string())
    }

    fn uncommitted(&self) -> std::result::Result<u64, String> {
        self.committed().map_err(|e| e.to_string())
    }
}

/// An entry as stored.
pub(super) fn encode(entry: &RecordEntry) -> [u8; LEN] {
    let mut bytes = [FORMAT; LEN];
    let numbers = [
        entry.modified_at.0 as u64,
        entry.observed_at.0 as u64,
        entry.changed_at.0 as u64,
        entry.hash,
        entry.raw,
        entry.position,
        u64::from(entry.generation) << 32 | u64::from(entry.writer_flags()),
    ];
    for (place, number) in bytes[1..].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_le_bytes());
    }
    bytes
}

fn decode(key: Key, bytes: &[u8]) -> Result<RecordEntry> {
    let damaged = || Error::Damaged(format!("an entry of {} bytes; restore a backup", bytes.len()));
    if bytes.len() != LEN || bytes.first() != Some(&FORMAT) {
        return Err(damaged());
    }
    let mut numbers = [0; 7];
    for (number, place) in numbers.iter_mut().zip(bytes.get(1..).unwrap_or_default().chunks_exact(8)) {
        *number = u64::from_le_bytes(place.try_into().map_err(|_| damaged())?);
    }
    let [modified_at, observed_at, changed_at, hash, raw, position, rest] = numbers;
    let time = |number: u64| Timestamp(number as i64);
    let mut entry = RecordEntry::new(key);
    (entry.modified_at, entry.observed_at, entry.changed_at) = (time(modified_at), time(observed_at), time(changed_at));
    (entry.hash, entry.raw, entry.position, entry.generation) = (hash, raw, position, (rest >> 32) as u32);
    entry.set_writer_flags(rest as u32);
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Cause;

    #[test]
    fn round_trip_and_refusal() {
        let mut entry = RecordEntry::new([1, u64::MAX]);
        (entry.modified_at, entry.observed_at, entry.changed_at) = (Timestamp::NONE, Timestamp(2), Timestamp(-3));
        (entry.hash, entry.raw, entry.position, entry.generation) = (4, 5, 6, u32::MAX);
        entry.set_writer(Cause::webhook(7));
        entry.set_flags(9);
        let bytes = encode(&entry);
        let back = decode(entry.key, &bytes).expect("whole");
        assert_eq!(format!("{back:?}"), format!("{entry:?}"));
        assert!(decode(entry.key, &bytes[..LEN - 1]).is_err());
        assert!(decode(entry.key, &[0; LEN]).is_err());
    }
}
