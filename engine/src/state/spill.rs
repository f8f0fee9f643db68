//! Datasets too large for memory: the store has their entries, a table keeps those in use.
//!
//! Promises: an entry used by an epoch that is not committed stays in memory, because the store does not have it yet; of all
//! others at most twice [`SpillReader::kept`] stay. An entry that cannot be read is an error of the epoch, never an unknown record.

use super::entry::RecordEntry;
use super::split::Split;
use crate::model::DatasetId;
use crate::model::content::Key;
use std::sync::Arc;

/// Most entries a worker uses before it lets go of those it had used before: 72 bytes each.
const KEPT_MAX: usize = 1 << 17;

/// Where entries of spilled datasets are. Errors are texts: whoever meets one can only stop.
pub trait Entries: Send + Sync {
    /// The entry of a record, as of the last commit.
    fn entry(&self, dataset: DatasetId, key: &Key) -> Result<Option<RecordEntry>, String>;

    /// All entries of one worker of so many.
    fn each_entry(
        &self,
        dataset: DatasetId,
        share: (usize, usize),
        each: &mut dyn FnMut(&RecordEntry),
    ) -> Result<(), String>;

    /// The first epoch that is not committed.
    fn uncommitted(&self) -> Result<u64, String>;
}

/// One worker's way to them.
#[derive(Clone)]
pub struct SpillReader {
    /// Where they are.
    pub entries: Arc<dyn Entries>,
    /// Which worker this is, and of how many.
    pub share: (usize, usize),
    /// Entries it uses before it lets go of those it had used before.
    pub kept: usize,
}

impl SpillReader {
    /// For a worker whose tables may take so many bytes: an eighth of them is for entries of spilled ones.
    pub fn new(entries: Arc<dyn Entries>, share: (usize, usize), table_bytes: usize) -> Self {
        SpillReader { entries, share, kept: (table_bytes / 8 / size_of::<RecordEntry>()).min(KEPT_MAX) }
    }
}

/// What a spilled table knows beside the entries in use.
pub struct Spill {
    dataset: DatasetId,
    shelf: SpillReader,
    /// Keys used in the current epoch, some of them several times.
    used: Vec<Key>,
    /// Entries that were used before the last rotation and not since.
    before: Split,
    /// No epoch from this one on has used what is in `before`.
    until: u64,
    /// Why the current epoch must not be committed.
    failed: Option<String>,
}

impl Spill {
    /// Of a dataset whose entries are all in the store.
    pub fn new(dataset: DatasetId, shelf: SpillReader) -> Self {
        Spill { dataset, shelf, used: Vec::new(), before: Split::default(), until: 0, failed: None }
    }

    /// Notes that a key is used. The entry it has, unless that is in use already.
    pub fn fetch(&mut self, key: &Key, in_use: bool) -> Option<RecordEntry> {
        self.used.push(*key);
        if in_use {
            return None;
        }
        self.before.take(key).or_else(|| {
            self.shelf.entries.entry(self.dataset, key).unwrap_or_else(|why| {
                self.failed.get_or_insert(why);
                None
            })
        })
    }

    /// Notes that a key is given another entry.
    pub fn replace(&mut self, key: &Key) {
        self.used.push(*key);
        self.before.take(key);
    }

    /// Every entry that is not in use.
    pub fn each(&mut self, in_use: &Split, each: &mut dyn FnMut(&RecordEntry)) {
        self.before.iter().for_each(&mut *each);
        let before = &self.before;
        let read = self.shelf.entries.each_entry(self.dataset, self.shelf.share, &mut |entry| {
            if !in_use.has(&entry.key) && !before.has(&entry.key) {
                each(entry);
            }
        });
        if let Err(why) = read {
            self.failed.get_or_insert(why);
        }
    }

    /// The keys used since the last call, each once, in order; or why no entry can be relied on.
    pub fn used(&mut self) -> Result<Vec<Key>, String> {
        if let Some(why) = self.failed.take() {
            return Err(why);
        }
        let mut used = std::mem::take(&mut self.used);
        used.sort_unstable();
        used.dedup();
        Ok(used)
    }

    /// Lets go of what was not used since the last rotation, unless the store does not have all of it yet. Epochs from
    /// `next` on have used nothing so far.
    pub fn rotate(&mut self, next: u64, in_use: &mut Split) -> Result<(), String> {
        if self.shelf.entries.uncommitted()? >= self.until {
            (self.before, self.until) = (std::mem::take(in_use), next);
        }
        Ok(())
    }
}
