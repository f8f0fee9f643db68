//! Batches of writes, and the copy of every write that goes to a changelog before it takes effect here.
//!
//! Promises: with a changelog nothing is visible here that is not durable there; a store read back from it equals the store
//! that wrote it, however often it moved. Bulk writes, which nobody sees yet, travel with the commit of their own engine time
//! and not before: what is not committed is never in the changelog. Because the changelog is the truth, nothing is synced
//! here: what a crash takes from the local files is read again.

use super::{Error, Family, Result, Store};
use crate::fault::pass;
use crate::log::{self, Changelog, Write};
use crate::model::DatasetId;
use parking_lot::Mutex;
use rocksdb::{ErrorKind, WriteBatch, WriteOptions};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Place in the changelog up to which this store has it. Of this machine alone, never copied.
const PLACE: &[u8] = b"changelog_place";
/// Present while the changelog is being read: then everything here came from it. Of this machine alone, never copied.
const REPLAYING: &[u8] = b"changelog_replaying";

/// A batch of writes, all or nothing. Made by [`Store::batch`].
pub(crate) struct StoreBatch {
    rocks: WriteBatch,
    /// The same writes for the changelog; `None` where there is none.
    copy: Option<Vec<Write>>,
}

/// The changelog of a store and what waits to go there.
pub(super) struct Copy {
    to: Arc<dyn Changelog>,
    /// Bulk writes by engine time, until it is committed.
    pending: Mutex<BTreeMap<u64, Vec<Write>>>,
    /// One commit at a time, in the order in which they are visible here.
    turn: Mutex<()>,
}

impl Copy {
    /// The bulk writes of the engine times before `end`, in order.
    fn take(&self, end: u64) -> Vec<Write> {
        let mut pending = self.pending.lock();
        let later = pending.split_off(&end);
        std::mem::replace(&mut *pending, later).into_values().flatten().collect()
    }

    pub(super) fn new(to: Arc<dyn Changelog>) -> Copy {
        Copy { to, pending: Mutex::default(), turn: Mutex::default() }
    }
}

impl StoreBatch {
    pub(crate) fn is_empty(&self) -> bool {
        self.rocks.is_empty()
    }

    /// What it takes in the write-ahead log.
    pub(super) fn bytes(&self) -> u64 {
        self.rocks.size_in_bytes() as u64
    }
}

impl Store {
    /// An empty batch.
    pub(crate) fn batch(&self) -> StoreBatch {
        StoreBatch { rocks: WriteBatch::default(), copy: self.copy.as_ref().map(|_| Vec::new()) }
    }

    /// An empty batch of what concerns this machine alone: no changelog is told of it.
    pub(super) fn batch_of_here(&self) -> StoreBatch {
        StoreBatch { rocks: WriteBatch::default(), copy: None }
    }

    /// Writes what nobody depends on: not synced, nothing waits for it, and a failure closes nothing. False if the database is behind
    /// with its tables and would have made it wait; then nothing was written.
    pub(super) fn write_aside(&self, batch: StoreBatch) -> Result<bool> {
        self.check_poison()?;
        let mut options = WriteOptions::default();
        options.set_no_slowdown(true);
        match self.db.write_opt(batch.rocks, &options) {
            Err(error) if error.kind() == ErrorKind::Incomplete => Ok(false),
            written => Ok(written.map(|()| true)?),
        }
    }

    /// Puts a value.
    pub(crate) fn put(&self, batch: &mut StoreBatch, family: Family, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) {
        let (key, value) = (key.as_ref(), value.as_ref());
        if let Some(copy) = &mut batch.copy {
            copy.push(Write { key: named(family, key), value: Some(value.to_vec()) });
        }
        batch.rocks.put_cf(self.family(family), key, value);
    }

    /// Removes a value.
    pub(crate) fn delete(&self, batch: &mut StoreBatch, family: Family, key: impl AsRef<[u8]>) {
        let key = key.as_ref();
        if let Some(copy) = &mut batch.copy {
            copy.push(Write { key: named(family, key), value: None });
        }
        batch.rocks.delete_cf(self.family(family), key);
    }

    /// Removes what lies from `from` to before `to`. A changelog keeps no ranges, so there it is one delete per key.
    pub(crate) fn delete_range(&self, batch: &mut StoreBatch, family: Family, from: &[u8], to: &[u8]) -> Result<()> {
        if let Some(copy) = &mut batch.copy {
            // What this very batch puts there is not to be found on the disk yet.
            let (low, high) = (named(family, from), named(family, to));
            let put = |write: &&Write| write.value.is_some() && (&low..&high).contains(&&write.key);
            let puts: Vec<Vec<u8>> = copy.iter().filter(put).map(|write| write.key.clone()).collect();
            copy.extend(puts.into_iter().map(|key| Write { key, value: None }));
            self.scan_from(family, from).each(|key, _| {
                let is_within = key < to;
                if is_within {
                    copy.push(Write { key: named(family, key), value: None });
                }
                Ok(is_within)
            })?;
        }
        batch.rocks.delete_range_cf(self.family(family), from, to);
        Ok(())
    }

    /// Bulk puts of an engine time, above the watermark: in the write-ahead log, not yet synced.
    pub(crate) fn write_unsynced(&self, mut batch: StoreBatch, epoch: u64) -> Result<()> {
        if let (Some(copy), Some(writes)) = (&self.copy, batch.copy.take()) {
            copy.pending.lock().entry(epoch).or_default().extend(writes);
        }
        self.write(batch.rocks, false)
    }

    /// A small write of its own: durable when this returns.
    pub(crate) fn write_synced(&self, batch: StoreBatch) -> Result<()> {
        self.commit(batch, 0)
    }

    /// Commits the engine times before `end`, their bulk writes included: durable when this returns.
    pub(crate) fn commit(&self, mut batch: StoreBatch, end: u64) -> Result<()> {
        self.synced.reach(end);
        let Some(copy) = &self.copy else { return self.write(batch.rocks, true) };
        let _turn = copy.turn.lock();
        self.check_poison()?;
        let mut writes = copy.take(end);
        writes.append(batch.copy.get_or_insert_default());
        let place = copy.to.commit(&writes).map_err(|error| {
            // Whether it is there is unknown now: nothing more is written until the changelog was read again.
            self.poisoned(error.to_string())
        })?;
        batch.rocks.put_cf(self.family(Family::System), PLACE, place.to_be_bytes());
        pass("k.local_commit_before");
        self.write(batch.rocks, false)?;
        // Which files there are is kept track of all the same.
        Ok(self.synced.acknowledge(0, 0)?)
    }

    /// Brings a store to where its changelog is. What an earlier owner had written here and not committed goes first: what
    /// others have written at the same places since must not mix with it. Reading that was cut off in the middle of a commit
    /// goes on there, so what it had brought stays.
    pub(super) fn catch_up(&self, from: &dyn Changelog) -> Result<()> {
        if self.system(REPLAYING)?.is_none() {
            let mut begin = self.uncommitted(&self.known_datasets()?)?.rocks;
            begin.put_cf(self.family(Family::System), REPLAYING, b"");
            self.write(begin, false)?;
        }
        let place = self.system(PLACE)?.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        let mut failed = None;
        let replayed = from.replay(place, &mut |writes, place| {
            self.apply(&writes, place).map_err(|error| {
                let text = error.to_string();
                failed = Some(error);
                log::Error::Poisoned(text)
            })
        });
        match (replayed, failed) {
            (_, Some(error)) => Err(error),
            (Err(log::Error::Gone(text)), None) => Err(Error::Gone(text)),
            (Err(error), None) => Err(Error::Changelog(error.to_string())),
            (Ok(_), None) => {
                let mut end = WriteBatch::default();
                end.delete_cf(self.family(Family::System), REPLAYING);
                self.write(end, false)
            }
        }
    }

    /// Applies writes of the changelog as they are.
    fn apply(&self, writes: &[Write], place: u64) -> Result<()> {
        let mut rocks = WriteBatch::default();
        for write in writes {
            let Some((number, key)) = write.key.split_first() else { continue };
            let Some(family) = Family::numbered(*number) else {
                return Err(Error::Disk(format!(
                    "the changelog holds writes of a family {number} that this program does not know; use a newer program"
                )));
            };
            match &write.value {
                Some(value) => rocks.put_cf(self.family(family), key, value),
                None => rocks.delete_cf(self.family(family), key),
            }
        }
        rocks.put_cf(self.family(Family::System), PLACE, place.to_be_bytes());
        self.write(rocks, false)
    }

    pub(super) fn known_datasets(&self) -> Result<Vec<DatasetId>> {
        let known = self.named::<serde::de::IgnoredAny>(super::keys::DATASET)?;
        Ok(std::iter::once(0).chain(known.into_iter().map(|(id, _)| id as u32)).map(DatasetId).collect())
    }
}

/// The key of a write: the family's number in front.
fn named(family: Family, key: &[u8]) -> Vec<u8> {
    let mut named = Vec::with_capacity(key.len() + 1);
    named.push(family as u8);
    named.extend_from_slice(key);
    named
}

#[cfg(test)]
mod tests {
    use super::super::catalog::DatasetEntry;
    use super::super::keys;
    use super::*;
    use crate::log::MemoryChangelog;
    use crate::model::{DatasetName, Position, Strategy};

    fn put(store: &Store, key: &str) -> StoreBatch {
        let mut batch = store.batch();
        store.put(&mut batch, Family::System, key, b"written");
        batch
    }

    fn is_there(store: &Store, key: &str) -> bool {
        store.system(key.as_bytes()).expect("read").is_some()
    }

    /// Two engine times in one commit, of which the second empties a dataset: what the first puts there goes too, or the next
    /// owner has it back.
    #[test]
    fn a_range_that_goes_takes_along_what_the_same_commit_puts_there() {
        let changelog = MemoryChangelog::default();
        let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().expect("a folder")).collect();
        let open =
            |n: usize| Store::open(folders[n].path(), Some(Arc::new(changelog.open())), Some(0)).expect("opened");
        let store = open(0);
        let mut batch = store.batch();
        for key in ["in 1", "in 2", "out"] {
            store.put(&mut batch, Family::System, key, b"written");
        }
        store.delete_range(&mut batch, Family::System, b"in", b"in 9").expect("read");
        store.put(&mut batch, Family::System, "in 2", b"again");
        store.write_synced(batch).expect("durable");
        let next = open(1);
        for store in [&store, &next] {
            let there = ["in 1", "in 2", "out"].map(|key| is_there(store, key));
            assert_eq!(there, [false, true, true]);
        }
    }

    /// A mark is stored while the next engine time is being written, and the owner dies before that one is committed: with
    /// what it had written for it in the changelog, the next owner had content that no change told of.
    #[test]
    fn a_small_write_takes_nothing_along_of_an_engine_time_that_is_not_committed() {
        let changelog = MemoryChangelog::default();
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("a folder")).collect();
        let open =
            |n: usize| Store::open(folders[n].path(), Some(Arc::new(changelog.open())), Some(0)).expect("opened");

        let store = open(0);
        store.write_unsynced(put(&store, "bulk of 7"), 7).expect("written");
        store.write_unsynced(put(&store, "bulk of 8"), 8).expect("written");
        store.write_synced(put(&store, "mark")).expect("durable");
        store.commit(put(&store, "commit of 7"), 8).expect("durable");
        let next = open(1);
        assert!(is_there(&next, "mark") && is_there(&next, "bulk of 7") && is_there(&next, "commit of 7"));
        assert!(!is_there(&next, "bulk of 8"), "engine time 8 was never committed");

        next.write_unsynced(put(&next, "other bulk of 8"), 8).expect("written");
        next.commit(put(&next, "commit of 8"), 9).expect("durable");
        let last = open(2);
        assert!(is_there(&last, "other bulk of 8") && !is_there(&last, "bulk of 8"));
    }

    #[test]
    fn a_damaged_copy_is_refused_and_rebuilt_from_its_changelog() {
        let changelog = MemoryChangelog::default();
        let folder = tempfile::tempdir().expect("a folder");
        let open = || Store::open(folder.path(), Some(Arc::new(changelog.open())), Some(0));
        let store = open().expect("opened");
        store.write_synced(put(&store, "kept")).expect("durable");
        drop(store);
        let logs = std::fs::read_dir(folder.path().join("store")).expect("a folder");
        let logs = logs
            .map(|entry| entry.expect("an entry").path())
            .filter(|path| path.extension().is_some_and(|is| is == "log"));
        logs.for_each(|log| std::fs::remove_file(log).expect("removed"));
        assert!(matches!(open(), Err(Error::Damaged(what)) if what.contains(".log")));
        std::fs::remove_dir_all(folder.path()).expect("dropped");
        assert!(is_there(&open().expect("rebuilt"), "kept"));
    }

    /// A changelog that breaks off after some pieces.
    struct Breaking(MemoryChangelog, usize);

    impl Changelog for Breaking {
        fn commit(&self, writes: &[Write]) -> std::result::Result<u64, log::Error> {
            self.0.commit(writes)
        }

        fn replay(
            &self,
            place: u64,
            each: &mut dyn FnMut(Vec<Write>, u64) -> std::result::Result<(), log::Error>,
        ) -> std::result::Result<u64, log::Error> {
            let mut left = self.1;
            self.0.replay(place, &mut |writes, place| {
                left = left.checked_sub(1).ok_or_else(|| log::Error::Unreachable("broken off".to_owned()))?;
                each(writes, place)
            })
        }
    }

    /// A new owner dies while it reads the changelog, in the middle of a commit, and becomes the owner again.
    #[test]
    fn reading_that_broke_off_within_a_commit_goes_on_there() {
        let changelog = MemoryChangelog::default();
        let folders: Vec<_> = (0..2).map(|_| tempfile::tempdir().expect("a folder")).collect();
        let store = Store::open(folders[0].path(), Some(Arc::new(changelog.open())), Some(0)).expect("opened");
        let (dataset, name) = (DatasetId(1), DatasetName::base("e", "s", "c", "m"));
        store.put_dataset(dataset, &DatasetEntry::new(&name, Strategy::Latest, Vec::new())).expect("known");
        let records: Vec<_> = (0..40).map(|n| keys::record(dataset, Position::first_of(7).0 + n)).collect();
        let mut bulk = store.batch();
        records.iter().for_each(|key| store.put(&mut bulk, Family::Pay, key, b"content"));
        store.write_unsynced(bulk, 7).expect("written");
        store.commit(put(&store, "commit of 7"), 8).expect("durable");
        drop(store);

        for pieces in 1..4 {
            let breaking = Breaking(changelog.open(), pieces);
            assert!(Store::open(folders[1].path(), Some(Arc::new(breaking)), Some(0)).is_err(), "it broke off");
        }
        let next = Store::open(folders[1].path(), Some(Arc::new(changelog.open())), Some(0)).expect("opened");
        let lost =
            records.iter().filter(|key| next.db.get_cf(next.family(Family::Pay), key).is_ok_and(|v| v.is_none()));
        assert_eq!(lost.count(), 0, "what was read before is there");
    }
}
