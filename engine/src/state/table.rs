//! The state of the merge: one entry of 72 bytes per record.

use super::entry::{DEAD, RecordEntry};
use super::fields::FieldClocks;
use super::spill::{Spill, SpillReader};
use super::split::Split;
use crate::model::content::{Ignore, Key};
use crate::model::{DatasetId, Strategy, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// How a dataset is treated.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Who wins.
    pub strategy: Strategy,
    /// What does not count as content.
    pub ignore: Arc<Ignore>,
}

impl Default for Spec {
    fn default() -> Self {
        Spec { strategy: Strategy::Override, ignore: Arc::new(Ignore::default()) }
    }
}

/// All records of one dataset on one worker.
#[derive(Default)]
pub struct RecordTable {
    /// How it is treated.
    pub spec: Spec,
    /// The current generation; entries of an older one were not seen in the open window.
    pub generation: u32,
    /// The open window's clock.
    pub window: Option<Timestamp>,
    /// Field clocks of records that have some.
    pub fields: HashMap<Key, FieldClocks>,
    /// Live records here.
    pub live: i64,
    /// Position of the last change there was at the start.
    pub last: u64,
    /// Touches stored since they were last folded.
    pub touched: usize,
    /// All entries; of a spilled dataset those in use.
    split: Split,
    /// Set where the store has the entries.
    spill: Option<Spill>,
}

impl RecordTable {
    /// The entry of `key`.
    #[inline]
    pub fn get(&mut self, key: &Key) -> Option<&mut RecordEntry> {
        if self.spill.is_some() {
            self.fetch(key);
        }
        self.split.get(key)
    }

    /// Brings the entries of these keys near, if they are in memory.
    pub fn fetch_all<'k>(&self, keys: impl Iterator<Item = &'k Key>) {
        if self.spill.is_none() {
            self.split.fetch_all(keys);
        }
    }

    #[cold]
    fn fetch(&mut self, key: &Key) {
        let Some(spill) = &mut self.spill else { return };
        if let Some(entry) = spill.fetch(key, self.split.has(key)) {
            self.split.insert(entry);
        }
    }

    /// Puts the entry in, in place of one with its key.
    pub fn put(&mut self, entry: RecordEntry) {
        if let Some(spill) = &mut self.spill {
            spill.replace(&entry.key);
        }
        self.split.put(entry);
    }

    /// Adds an entry whose key is not there yet.
    pub fn insert(&mut self, entry: RecordEntry) {
        if let Some(spill) = &mut self.spill {
            spill.replace(&entry.key);
        }
        self.split.insert(entry);
    }

    /// Entries in memory, in no order: all of them, unless the dataset is spilled.
    pub fn iter(&self) -> impl Iterator<Item = &RecordEntry> {
        self.split.iter()
    }

    /// Entries in memory, in no order: all of them, unless the dataset is spilled.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut RecordEntry> {
        self.split.iter_mut()
    }

    /// Hands over every entry, wherever it is, in no order.
    pub fn each(&mut self, each: &mut dyn FnMut(&RecordEntry)) {
        self.split.iter().for_each(&mut *each);
        if let Some(spill) = &mut self.spill {
            spill.each(&self.split, each);
        }
    }

    /// The entry in memory whose key begins with this half.
    pub fn half(&mut self, half: u64) -> Option<&mut RecordEntry> {
        self.split.half(half)
    }

    /// Entries in memory.
    pub fn len(&self) -> usize {
        self.split.len()
    }

    /// Bytes its entries take up in memory.
    pub fn bytes(&self) -> usize {
        self.split.bytes()
    }

    /// Live records not seen in the open window, in order of position.
    pub fn unseen(&mut self) -> Vec<RecordEntry> {
        let mut unseen = Vec::new();
        self.each_unseen(&mut |entry| unseen.push(*entry));
        unseen.sort_unstable_by_key(|entry| entry.position);
        unseen
    }

    /// Their positions alone, in order: there may be as many as there are records.
    pub fn missing(&mut self) -> Vec<u64> {
        let mut positions = Vec::new();
        self.each_unseen(&mut |entry| positions.push(entry.position));
        positions.sort_unstable();
        positions
    }

    fn each_unseen(&mut self, each: &mut dyn FnMut(&RecordEntry)) {
        let generation = self.generation;
        self.each(&mut |entry| {
            if entry.generation < generation && !entry.is(DEAD) {
                each(entry);
            }
        });
    }

    /// Whether the store has the entries.
    pub fn is_spilled(&self) -> bool {
        self.spill.is_some()
    }

    /// From now on the store has the entries: all that are here, as they are.
    pub fn spill(&mut self, dataset: DatasetId, shelf: SpillReader) {
        (self.split, self.spill) = (Split::default(), Some(Spill::new(dataset, shelf)));
    }

    /// Entries of a spilled dataset that were used since the last call: what the store has to be told.
    pub fn used(&mut self) -> Result<Vec<RecordEntry>, String> {
        let Some(spill) = &mut self.spill else { return Ok(Vec::new()) };
        let used = spill.used()?;
        Ok(used.iter().filter_map(|key| self.split.get(key).copied()).collect())
    }

    /// Lets go of entries of a spilled dataset that were not used lately; epochs from `next` on have used none so far.
    pub fn rotate(&mut self, next: u64) -> Result<(), String> {
        let Some(spill) = &mut self.spill else { return Ok(()) };
        spill.rotate(next, &mut self.split)
    }
}

/// The tables of one worker.
#[derive(Default)]
pub struct Tables {
    /// By dataset.
    pub all: BTreeMap<DatasetId, RecordTable>,
    /// Those of spilled datasets.
    spilled: BTreeSet<DatasetId>,
    /// Entries of spilled datasets used since the last rotation.
    used: usize,
    /// How many may be used until the next.
    kept: usize,
}

impl Tables {
    /// The table of `dataset`.
    pub fn table(&mut self, dataset: DatasetId) -> &mut RecordTable {
        self.all.entry(dataset).or_default()
    }

    /// Bytes in memory by dataset, those of spilled ones aside.
    pub fn bytes(&self) -> impl Iterator<Item = (DatasetId, usize)> {
        self.all.iter().filter(|(_, table)| !table.is_spilled()).map(|(dataset, table)| (*dataset, table.bytes()))
    }

    /// From now on the store has the entries of `dataset`.
    pub fn spill(&mut self, dataset: DatasetId, shelf: SpillReader) {
        self.kept = shelf.kept;
        self.table(dataset).spill(dataset, shelf);
        self.spilled.insert(dataset);
    }

    /// Begins anew with a dataset that is forgotten; its treatment and generation stay.
    pub fn clear(&mut self, dataset: DatasetId) {
        let old = self.table(dataset);
        let (spec, generation) = (old.spec.clone(), old.generation);
        self.all.insert(dataset, RecordTable { spec, generation, ..RecordTable::default() });
        self.spilled.remove(&dataset);
    }

    /// What an epoch has used of spilled datasets, for the store; `next` is the epoch after it. Entries that were not used
    /// lately are let go.
    pub fn used(&mut self, next: u64) -> Result<Vec<(DatasetId, RecordEntry)>, String> {
        let mut used = Vec::new();
        for dataset in &self.spilled {
            let Some(table) = self.all.get_mut(dataset) else { continue };
            used.extend(table.used()?.into_iter().map(|entry| (*dataset, entry)));
        }
        self.used += used.len();
        if self.used > self.kept {
            self.used = 0;
            for dataset in &self.spilled {
                self.all.get_mut(dataset).map_or(Ok(()), |table| table.rotate(next))?;
            }
        }
        Ok(used)
    }
}
