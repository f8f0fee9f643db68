//! Many entries in hash tables of their own, so that a resize never doubles the whole.

use super::entry::RecordEntry;
use crate::model::content::Key;
use hashbrown::HashTable;

/// Sub-tables of a dataset: the largest resize moves a 64th of it.
const SPLIT: usize = 64;
/// Entries that are brought into the processor's cache together: with millions of records each is far away, and they are waited
/// for at once instead of one after the other.
pub const AHEAD: usize = 32;
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

/// Entries by key.
pub struct Split(Vec<HashTable<RecordEntry>>);

impl Default for Split {
    fn default() -> Self {
        Split((0..SPLIT).map(|_| HashTable::new()).collect())
    }
}

impl Split {
    #[inline]
    fn shard(&mut self, half: u64) -> &mut HashTable<RecordEntry> {
        // Bits the hash tables themselves do not use. The mask keeps the index inside the choices, which name sub-tables.
        &mut self.0[shard(half)]
    }

    /// The entry of `key`.
    #[inline]
    pub fn get(&mut self, key: &Key) -> Option<&mut RecordEntry> {
        let key = *key;
        self.shard(key[0]).find_mut(key[0], |entry| entry.key == key)
    }

    /// Reads the entries of these keys, [`AHEAD`] of them at most, for the processor's cache: first where each lies, then all of
    /// them. In neither round does one read depend on another, so it has as many under way as it can.
    pub fn fetch_all<'k>(&self, keys: impl Iterator<Item = &'k Key>) {
        let mut likely = [None; AHEAD];
        for (place, key) in likely.iter_mut().zip(keys) {
            // The first that may be it; nearly always it is.
            *place = self.0[shard(key[0])].iter_hash(key[0]).next();
        }
        // Both ends of an entry: it may lie on two lines of the cache.
        let ends = |entry: &RecordEntry| entry.key[0] ^ u64::from(entry.generation);
        std::hint::black_box(likely.iter().flatten().fold(0, |all, entry| all ^ ends(entry)));
    }

    /// Whether `key` has an entry.
    pub fn has(&self, key: &Key) -> bool {
        self.0[shard(key[0])].find(key[0], |entry| entry.key == *key).is_some()
    }

    /// Puts the entry in, in place of one with its key.
    pub fn put(&mut self, entry: RecordEntry) {
        let key = entry.key;
        match self.shard(key[0]).entry(key[0], |e| e.key == key, |e| e.key[0]) {
            hashbrown::hash_table::Entry::Occupied(mut there) => *there.get_mut() = entry,
            hashbrown::hash_table::Entry::Vacant(free) => {
                free.insert(entry);
            }
        }
    }

    /// Adds an entry whose key is not there yet.
    pub fn insert(&mut self, entry: RecordEntry) {
        self.shard(entry.key[0]).insert_unique(entry.key[0], entry, |e| e.key[0]);
    }

    /// Takes the entry of `key` out.
    pub fn take(&mut self, key: &Key) -> Option<RecordEntry> {
        let there = self.shard(key[0]).find_entry(key[0], |entry| entry.key == *key).ok()?;
        Some(there.remove().0)
    }

    /// The entry whose key begins with this half (the first, should there be two by an accident of hashing).
    pub fn half(&mut self, half: u64) -> Option<&mut RecordEntry> {
        self.shard(half).find_mut(half, |entry| entry.key[0] == half)
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &RecordEntry> {
        self.0.iter().flat_map(HashTable::iter)
    }

    /// All entries, in no order.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut RecordEntry> {
        self.0.iter_mut().flat_map(HashTable::iter_mut)
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.0.iter().map(HashTable::len).sum()
    }

    /// Bytes they take up.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(HashTable::allocation_size).sum()
    }
}

#[inline]
fn shard(half: u64) -> usize {
    CHOICE[(half >> 40) as usize & ((1 << CHOICE_BITS) - 1)] as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_grow_from_one_to_two() {
        let shares: Vec<usize> = (0..SPLIT).map(|n| CHOICE.iter().filter(|c| usize::from(**c) == n).count()).collect();
        assert_eq!(shares.iter().sum::<usize>(), CHOICE.len());
        assert!(shares[0] >= 43 && shares[0] <= 46, "{shares:?}");
        assert!(shares[SPLIT - 1] >= 84 && shares[SPLIT - 1] <= 92, "{shares:?}");
    }
}
