//! The state of the merge: one entry of 72 bytes per record, in split hash tables so that a resize never doubles the whole.

use super::fields::Fields;
use crate::model::content::{Ignore, Key};
use crate::model::{Cause, DatasetId, Strategy, Timestamp, Via};
use hashbrown::HashTable;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// The record is deleted; the entry is its tombstone.
pub const DEAD: u8 = 1;
/// Readers never see it: a delete or a patch of an id nobody knew.
pub const HIDDEN: u8 = 2;
/// It has field clocks ([`Fields`]).
pub const PATCHED: u8 = 4;
/// Its payload was pruned.
pub const PRUNED: u8 = 8;

/// What the merge knows of a record.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Hash of the id.
    pub key: Key,
    /// Version: the source's modified time …
    pub modified_at: Timestamp,
    /// … and when it was observed.
    pub observed_at: Timestamp,
    /// Commit time of its last change.
    pub changed_at: Timestamp,
    /// Canonical hash of the content.
    pub hash: u64,
    /// Hash of the bytes it was last seen with; 0 when those are not its content.
    pub raw: u64,
    /// Where its last change is.
    pub position: u64,
    /// Generation of the window it was last seen in.
    pub generation: u32,
    /// Writer of its last change, see [`writer`]; the lowest byte holds the flags.
    writer_flags: u32,
}

impl Entry {
    /// A fresh entry without flags; everything else is for the caller to set.
    pub fn new(key: Key) -> Self {
        Entry {
            key,
            modified_at: Timestamp::NONE,
            observed_at: Timestamp::NONE,
            changed_at: Timestamp::NONE,
            hash: 0,
            raw: 0,
            position: 0,
            generation: 0,
            writer_flags: 0,
        }
    }

    /// The flags.
    pub fn flags(&self) -> u8 {
        self.writer_flags as u8
    }

    /// Whether any of `flags` is set.
    #[inline]
    pub fn is(&self, flags: u8) -> bool {
        self.flags() & flags != 0
    }

    /// Sets the flags to exactly these.
    pub fn set_flags(&mut self, flags: u8) {
        self.writer_flags = (self.writer_flags & !0xff) | u32::from(flags);
    }

    /// Who wrote the last change.
    pub fn writer(&self) -> u32 {
        self.writer_flags >> 8
    }

    /// Notes who wrote the last change.
    pub fn set_writer(&mut self, cause: Cause) {
        self.writer_flags = (writer(cause) << 8) | u32::from(self.flags());
    }

    /// The version as one comparable value; a tombstone's content counts as less than any other.
    pub fn version(&self) -> (Timestamp, Timestamp, u64) {
        (self.modified_at, self.observed_at, if self.is(DEAD) { 0 } else { self.hash })
    }
}

/// A cause in 24 bits: enough to tell a run from every other writer that can be active beside it.
pub fn writer(cause: Cause) -> u32 {
    let kind = match cause.via {
        Via::Poll => 0,
        Via::Webhook => 1,
        Via::Push => 2,
        Via::View => 3,
    };
    ((cause.number as u32) & 0x003f_ffff) << 2 | kind
}

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

/// Sub-tables of a dataset: the largest resize moves a 64th of it.
const SPLIT: usize = 64;
/// Bits of the key that choose the sub-table.
const CHOICE_BITS: u32 = 12;

/// Which sub-table a key belongs to. Shares grow from one to two, evenly on a logarithmic scale, so that sub-tables double
/// one after the other and not all at once: memory per record stays near its mean instead of swinging by half.
static CHOICE: [u8; 1 << CHOICE_BITS] = shares();

const fn shares() -> [u8; 1 << CHOICE_BITS] {
    // The 64th root of two in 1/2^32: each share is so much greater than the one before.
    const ROOT: u64 = 4_341_736_424;
    let mut choice = [(SPLIT - 1) as u8; 1 << CHOICE_BITS];
    // The first share in 1/2^32: 4096 / (1 + root + root² + … 64 terms).
    let (mut share, mut end, mut shard, mut at) = (191_617_000_000_u64, 0_u64, 0_u8, 0_usize);
    while (shard as usize) < SPLIT {
        end += share;
        while at < choice.len() && (at as u64) < end >> 32 {
            choice[at] = shard;
            at += 1;
        }
        share = ((share as u128 * ROOT as u128) >> 32) as u64;
        shard += 1;
    }
    choice
}

/// All records of one dataset on one worker.
pub struct Table {
    /// How it is treated.
    pub spec: Spec,
    /// The current generation; entries of an older one were not seen in the open window.
    pub generation: u32,
    /// The open window's clock.
    pub window: Option<Timestamp>,
    /// Field clocks of records that have some.
    pub fields: HashMap<Key, Fields>,
    /// Live records here.
    pub live: i64,
    /// Touches stored since they were last folded.
    pub touched: usize,
    split: Vec<HashTable<Entry>>,
}

impl Default for Table {
    fn default() -> Self {
        Table {
            spec: Spec::default(),
            generation: 0,
            window: None,
            fields: HashMap::new(),
            live: 0,
            touched: 0,
            split: (0..SPLIT).map(|_| HashTable::new()).collect(),
        }
    }
}

impl Table {
    #[inline]
    fn shard(&mut self, half: u64) -> &mut HashTable<Entry> {
        // Bits the hash tables themselves do not use. The mask keeps the index inside the choices, which name sub-tables.
        &mut self.split[CHOICE[(half >> 40) as usize & ((1 << CHOICE_BITS) - 1)] as usize]
    }

    /// The entry of `key`.
    #[inline]
    pub fn get(&mut self, key: &Key) -> Option<&mut Entry> {
        let key = *key;
        self.shard(key[0]).find_mut(key[0], |entry| entry.key == key)
    }

    /// Puts the entry in, in place of one with its key.
    pub fn put(&mut self, entry: Entry) {
        let key = entry.key;
        match self.shard(key[0]).entry(key[0], |e| e.key == key, |e| e.key[0]) {
            hashbrown::hash_table::Entry::Occupied(mut there) => *there.get_mut() = entry,
            hashbrown::hash_table::Entry::Vacant(free) => {
                free.insert(entry);
            }
        }
    }

    /// Adds an entry whose key is not there yet.
    pub fn insert(&mut self, entry: Entry) {
        self.shard(entry.key[0]).insert_unique(entry.key[0], entry, |e| e.key[0]);
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.split.iter().flat_map(HashTable::iter)
    }

    /// All entries, in no order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Entry> {
        self.split.iter_mut().flat_map(HashTable::iter_mut)
    }

    /// The entry whose key begins with this half (the first, should there be two by an accident of hashing).
    pub fn half(&mut self, half: u64) -> Option<&mut Entry> {
        self.shard(half).find_mut(half, |entry| entry.key[0] == half)
    }

    /// Entries in all.
    pub fn len(&self) -> usize {
        self.split.iter().map(HashTable::len).sum()
    }

    /// Positions of live records not seen in the open window, in order.
    pub fn missing(&self) -> Vec<u64> {
        let unseen = |e: &&Entry| e.generation < self.generation && !e.is(DEAD);
        let mut positions: Vec<u64> = self.iter().filter(unseen).map(|e| e.position).collect();
        positions.sort_unstable();
        positions
    }
}

/// The tables of one worker.
#[derive(Default)]
pub struct Tables(pub BTreeMap<DatasetId, Table>);

impl Tables {
    /// The table of `dataset`.
    pub fn table(&mut self, dataset: DatasetId) -> &mut Table {
        self.0.entry(dataset).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_72_bytes() {
        assert_eq!(std::mem::size_of::<Entry>(), 72);
    }

    #[test]
    fn shares_grow_from_one_to_two() {
        let shares: Vec<usize> = (0..SPLIT).map(|n| CHOICE.iter().filter(|c| usize::from(**c) == n).count()).collect();
        assert_eq!(shares.iter().sum::<usize>(), CHOICE.len());
        assert!(shares[0] >= 43 && shares[0] <= 46, "{shares:?}");
        assert!(shares[SPLIT - 1] >= 84 && shares[SPLIT - 1] <= 92, "{shares:?}");
    }

    #[test]
    fn flags_and_writer_do_not_disturb_each_other() {
        let mut entry = Entry::new([1, 2]);
        entry.set_flags(DEAD | PRUNED);
        entry.set_writer(Cause::run(7));
        assert!(entry.is(DEAD) && entry.is(PRUNED) && !entry.is(HIDDEN));
        assert_eq!(entry.writer(), writer(Cause::run(7)));
        assert_ne!(writer(Cause::run(7)), writer(Cause::webhook(7)));
        entry.set_flags(0);
        assert_eq!(entry.writer(), writer(Cause::run(7)));
    }
}
