//! Payloads in the store: written, read one by one or in order, and taken out again.
//!
//! Those a worker's engine time has many of lie in blocks ([`super::block`]), under the position of the first: they are
//! compressed once, and neither the write-ahead log nor a flush nor a merge has to do with them as they were. Few are single
//! puts, which costs less to read, and so is whatever takes the place of a payload later. A single one goes before one in a
//! block; what is pruned leaves its block for good.

use super::block::{self, Block, Packer};
use super::{Batch, Error, Family, Result, Store, keys};
use crate::model::{DatasetId, Position};
use rocksdb::{DBRawIterator, ReadOptions, Snapshot};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Unpacked blocks a reader keeps at most. Each worker fills its own with what falls to it, so that in order of position
/// as many blocks are read by turns as there are workers; with more workers than this, blocks are unpacked more than once.
const OPEN: usize = 16;
/// Steps an iterator walks before it seeks instead.
const WALK: usize = 16;
/// Payloads of a dataset that are read one by one before they are scanned: a scan costs more than a few single reads, and
/// most readers come for a few changes.
const SINGLY: usize = 16;

impl Store {
    /// Puts payloads of one engine time, positions rising within a dataset.
    pub(super) fn put_payloads(&self, bulk: &mut Batch, mut payloads: Vec<(DatasetId, u64, &[u8])>) -> Result<()> {
        payloads.sort_by_key(|(dataset, ..)| *dataset);
        let (mut packer, mut block) = (Packer::default(), Vec::with_capacity(block::RECORDS));
        for of_dataset in payloads.chunk_by(|(one, ..), (other, ..)| one == other) {
            if of_dataset.len() < self.block_least {
                for (dataset, position, payload) in of_dataset {
                    self.put(bulk, Family::Pay, keys::record(*dataset, *position), payload);
                }
                continue;
            }
            let mut bytes = 0;
            for (dataset, position, payload) in of_dataset {
                // The first rows of a view may take the positions of several engine times: a block has those of one.
                let epoch = Position(*position).epoch();
                let is_next = block.first().is_some_and(|(first, _)| Position(*first).epoch() != epoch);
                if block.len() == block::RECORDS || bytes >= block::BYTES || is_next {
                    self.put_block(bulk, *dataset, &mut block, &mut packer)?;
                    bytes = 0;
                }
                bytes += payload.len();
                block.push((*position, *payload));
            }
            if let Some((dataset, ..)) = of_dataset.last() {
                self.put_block(bulk, *dataset, &mut block, &mut packer)?;
            }
        }
        Ok(())
    }

    fn put_block(
        &self,
        bulk: &mut Batch,
        dataset: DatasetId,
        block: &mut Vec<(u64, &[u8])>,
        packer: &mut Packer,
    ) -> Result<()> {
        let Some((first, _)) = block.first() else { return Ok(()) };
        self.put(bulk, Family::Blocks, keys::record(dataset, *first), packer.pack(block)?);
        block.clear();
        Ok(())
    }

    /// The payload at a place, of whatever engine time.
    pub(crate) fn payload(&self, dataset: DatasetId, place: u64) -> Result<Option<Vec<u8>>> {
        thread_local!(static BODY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
        if let Some(single) = self.db.get_cf(self.family(Family::Pay), keys::record(dataset, place))? {
            return Ok(Some(single));
        }
        let mut scan = self.iterator(Family::Blocks, None);
        if !seek_block(&mut scan, dataset, place)? {
            return Ok(None);
        }
        let block = Block::of(scan.value().unwrap_or_default())?;
        BODY.with_borrow_mut(|body| {
            block.unpack(body)?;
            let range = block.find(place).map(|n| block.range(n));
            Ok(range.and_then(|range| body.get(range)).map(<[u8]>::to_vec))
        })
    }

    /// Takes payloads out of their blocks, for good.
    pub(crate) fn forget(&self, batch: &mut Batch, places: &[(DatasetId, u64)]) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        let mut blocks: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        let mut scan = self.iterator(Family::Blocks, None);
        for (dataset, place) in places {
            if seek_block(&mut scan, *dataset, *place)? {
                blocks.entry(scan.key().unwrap_or_default().to_vec()).or_default().push(*place);
            }
        }
        let mut packer = Packer::default();
        for (key, places) in blocks {
            let Some(block) = self.db.get_pinned_cf(self.family(Family::Blocks), &key)? else { continue };
            match Block::of(&*block)?.without(&places, &mut packer)? {
                Some(left) => self.put(batch, Family::Blocks, key, left),
                None => self.delete(batch, Family::Blocks, key),
            }
        }
        Ok(())
    }

    fn iterator<'a>(&'a self, family: Family, snapshot: Option<&Snapshot<'a>>) -> DBRawIterator<'a> {
        let mut options = ReadOptions::default();
        if let Some(snapshot) = snapshot {
            options.set_snapshot(snapshot);
        }
        self.db.raw_iterator_cf_opt(self.family(family), options)
    }
}

/// Reads payloads, best in order of position within a dataset.
pub(super) struct Payloads<'a> {
    store: &'a Store,
    snapshot: &'a Snapshot<'a>,
    /// How many were asked for in order, by dataset.
    read: HashMap<DatasetId, usize>,
    in_order: HashMap<DatasetId, InOrder<'a>>,
    anywhere: Unpacked<'a>,
    /// The single one read last.
    held: Vec<u8>,
}

/// A dataset that is read in order.
struct InOrder<'a> {
    singles: DBRawIterator<'a>,
    blocks: Unpacked<'a>,
}

impl<'a> Payloads<'a> {
    pub(super) fn new(store: &'a Store, snapshot: &'a Snapshot<'a>) -> Self {
        let (read, in_order) = (HashMap::new(), HashMap::new());
        Payloads { store, snapshot, read, in_order, anywhere: Unpacked::default(), held: Vec::new() }
    }

    /// A payload behind those of its dataset that were asked for before.
    pub(super) fn next(&mut self, dataset: DatasetId, position: u64) -> Result<&[u8]> {
        let read = self.read.entry(dataset).or_default();
        *read += 1;
        if *read <= SINGLY {
            return self.at(dataset, position);
        }
        let (key, store, snapshot) = (keys::record(dataset, position), self.store, self.snapshot);
        let InOrder { singles, blocks } = self.in_order.entry(dataset).or_insert_with(|| {
            let mut singles = store.iterator(Family::Pay, Some(snapshot));
            singles.seek(key);
            InOrder { singles, blocks: Unpacked { in_order: true, ..Unpacked::default() } }
        });
        if walk_to(singles, &key)? {
            return Ok(singles.value().unwrap_or_default());
        }
        let found = blocks.find(|| store.iterator(Family::Blocks, Some(snapshot)), dataset, position)?;
        found.ok_or_else(|| missing(position))
    }

    /// The payload at a place.
    pub(super) fn at(&mut self, dataset: DatasetId, place: u64) -> Result<&[u8]> {
        let single = self.snapshot.get_cf(self.store.family(Family::Pay), keys::record(dataset, place))?;
        if let Some(single) = single {
            self.held = single;
            return Ok(&self.held);
        }
        let (store, snapshot) = (self.store, self.snapshot);
        let found = self.anywhere.find(|| store.iterator(Family::Blocks, Some(snapshot)), dataset, place)?;
        found.ok_or_else(|| missing(place))
    }
}

/// Blocks that were read lately, and where the next are looked for.
#[derive(Default)]
struct Unpacked<'a> {
    scan: Option<DBRawIterator<'a>>,
    open: VecDeque<Open>,
    /// The body of one that was closed.
    spare: Option<Vec<u8>>,
    /// Whether payloads are asked for in order of position.
    in_order: bool,
}

/// An unpacked block.
struct Open {
    dataset: DatasetId,
    epoch: u64,
    index: Block<Vec<u8>>,
    body: Vec<u8>,
}

impl<'a> Unpacked<'a> {
    /// A payload; the first asks for the scan.
    fn find(
        &mut self,
        scan: impl FnOnce() -> DBRawIterator<'a>,
        dataset: DatasetId,
        position: u64,
    ) -> Result<Option<&[u8]>> {
        if let Some(at) = self.open_at(dataset, position) {
            return Ok(self.get(at, position));
        }
        let scan = self.scan.get_or_insert_with(scan);
        let is_near = self.in_order && walk_to_block(scan, dataset, position)?;
        if !is_near && !seek_block(scan, dataset, position)? {
            return Ok(None);
        }
        if self.in_order {
            self.close_before(position);
        }
        self.open(dataset, position)
    }

    /// What is before is not asked for again.
    fn close_before(&mut self, position: u64) {
        let (epoch, place) = (Position(position).epoch(), block::place(position));
        let spare = &mut self.spare;
        self.open.retain_mut(|open| {
            let is_wanted = open.epoch == epoch && open.index.last() > place;
            if !is_wanted {
                *spare = Some(std::mem::take(&mut open.body));
            }
            is_wanted
        });
    }

    /// Which of the open blocks has it: the youngest are looked at first.
    fn open_at(&self, dataset: DatasetId, position: u64) -> Option<usize> {
        let epoch = Position(position).epoch();
        let has = |open: &Open| open.dataset == dataset && open.epoch == epoch && open.index.find(position).is_some();
        self.open.iter().rposition(has)
    }

    fn get(&self, at: usize, position: u64) -> Option<&[u8]> {
        let open = self.open.get(at)?;
        open.body.get(open.index.range(open.index.find(position)?))
    }

    /// Unpacks the block the scan stands at.
    fn open(&mut self, dataset: DatasetId, position: u64) -> Result<Option<&[u8]>> {
        let value = self.scan.as_ref().and_then(|scan| scan.value()).unwrap_or_default();
        let block = Block::of(value)?;
        if self.open.len() >= OPEN {
            self.spare = self.open.pop_front().map(|open| open.body);
        }
        let mut body = self.spare.take().unwrap_or_default();
        block.unpack(&mut body)?;
        self.open.push_back(Open { dataset, epoch: Position(position).epoch(), index: block.index()?, body });
        Ok(self.get(self.open.len() - 1, position))
    }
}

/// Moves forward to the block with a payload, if it is near.
fn walk_to_block(scan: &mut DBRawIterator<'_>, dataset: DatasetId, position: u64) -> Result<bool> {
    let key = keys::record(dataset, position);
    for _ in 0..WALK {
        if scan.key().is_none_or(|at| at >= &key[..]) {
            break;
        }
        scan.next();
        if has(scan, &key, dataset, position)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Moves to the block with a payload. Blocks of one engine time overlap: the one that begins nearest need not be it.
fn seek_block(scan: &mut DBRawIterator<'_>, dataset: DatasetId, position: u64) -> Result<bool> {
    let key = keys::record(dataset, position);
    let begin = keys::record(dataset, Position::first_of(Position(position).epoch()).0);
    scan.seek_for_prev(key);
    while scan.key().is_some_and(|at| at >= &begin[..]) {
        if has(scan, &key, dataset, position)? {
            return Ok(true);
        }
        scan.prev();
    }
    scan.status()?;
    Ok(false)
}

/// Whether the block the scan stands at has it.
fn has(scan: &DBRawIterator<'_>, key: &[u8], dataset: DatasetId, position: u64) -> Result<bool> {
    let (Some(at), Some(value)) = (scan.key(), scan.value()) else { return Ok(false) };
    let near =
        at <= key && keys::dataset(at) == dataset && Position(keys::position(at)).epoch() == Position(position).epoch();
    Ok(near && Block::of(value)?.find(position).is_some())
}

/// Moves `scan` forward to `key`, walking when it is near; whether it is there.
fn walk_to(scan: &mut DBRawIterator<'_>, key: &[u8]) -> Result<bool> {
    for _ in 0..WALK {
        match scan.key() {
            Some(at) if at < key => scan.next(),
            Some(at) => return Ok(at == key),
            None => break,
        }
    }
    if scan.key().is_some_and(|at| at < key) {
        scan.seek(key);
    }
    scan.status()?;
    Ok(scan.key().is_some_and(|at| at == key))
}

pub(super) fn missing(place: u64) -> Error {
    Error::Disk(format!("the payload at {place} is missing; restore a backup"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const DATASETS: u32 = 2;

    /// Payloads as several workers write them: some epochs with many, some with few.
    fn written(store: &Store, chance: &mut ChaCha8Rng) -> BTreeMap<(DatasetId, u64), Vec<u8>> {
        let mut all = BTreeMap::new();
        for epoch in (1..80).step_by(2) {
            let workers = chance.random_range(1..=4usize);
            let mut parts = vec![Vec::new(); workers];
            let many = *[0, 3, 40, 300].choose(chance).expect("one of them");
            // Some take the positions of the next as well.
            let late = if chance.random_bool(0.3) { Position::first_of(epoch + 1).0 - 100 } else { 0 };
            let mut position = Position::first_of(epoch).0.max(late);
            for _ in 0..many {
                position += chance.random_range(1..4);
                let size = if chance.random_bool(0.02) { 40_000 } else { chance.random_range(0..200) };
                let payload = vec![chance.random_range(b'a'..=b'z'); size];
                let dataset = DatasetId(chance.random_range(1..=DATASETS));
                parts[chance.random_range(0..workers)].push((dataset, position, payload.clone()));
                all.insert((dataset, position), payload);
            }
            for part in &parts {
                let mut bulk = store.batch();
                let payloads = part.iter().map(|(dataset, at, payload)| (*dataset, *at, &payload[..])).collect();
                store.put_payloads(&mut bulk, payloads).expect("packed");
                store.write_unsynced(bulk, epoch).expect("written");
            }
            if chance.random_bool(0.2) {
                store.flush().expect("flushed");
            }
        }
        all
    }

    fn store(block_least: usize) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(folder.path(), None).expect("opened");
        store.block_least = block_least;
        (folder, store)
    }

    #[test]
    fn what_several_workers_wrote_is_read_in_order_and_anywhere() {
        for seed in 0..8 {
            println!("seed {seed}");
            let mut chance = ChaCha8Rng::seed_from_u64(seed);
            let (_folder, store) = store([1, 16][seed as usize % 2]);
            let all = written(&store, &mut chance);
            let snapshot = store.db.snapshot();
            // All of them, most of them, a few.
            for part in [1.0, 0.9, 0.01] {
                let mut payloads = Payloads::new(&store, &snapshot);
                for ((dataset, at), payload) in all.iter().filter(|_| chance.random_bool(part)) {
                    assert!(payloads.next(*dataset, *at).expect("read") == payload, "{dataset:?} {at} in order");
                }
            }
            for _ in 0..200 {
                let (dataset, at) = (DatasetId(chance.random_range(1..=DATASETS + 1)), Position::first_of(21).0);
                let at = at + chance.random_range(0..900);
                let found = store.payload(dataset, at).expect("read");
                assert!(found.as_ref() == all.get(&(dataset, at)), "{dataset:?} {at}");
            }
        }
    }

    #[test]
    fn what_is_forgotten_leaves_its_block_and_nothing_else_does() {
        let (mut chance, (_folder, store)) = (ChaCha8Rng::seed_from_u64(7), store(1));
        let all = written(&store, &mut chance);
        let gone: Vec<_> = all.keys().copied().filter(|_| chance.random_bool(0.5)).collect();
        let whole = Position::first_of(25).0..Position::first_of(31).0;
        let gone: Vec<_> = gone.into_iter().chain(all.keys().copied().filter(|(_, at)| whole.contains(at))).collect();
        let mut batch = store.batch();
        store.forget(&mut batch, &gone).expect("rewritten");
        store.write_synced(batch).expect("written");
        for (place, payload) in &all {
            let left = (!gone.contains(place)).then_some(payload);
            assert!(store.payload(place.0, place.1).expect("read").as_ref() == left, "{place:?}");
        }
        let mut scan = store.iterator(Family::Blocks, None);
        scan.seek(keys::record(DatasetId(1), whole.start));
        assert!(scan.key().is_none_or(|key| !whole.contains(&keys::position(key))), "an empty block goes");
    }
}
