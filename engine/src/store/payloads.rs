//! Payloads in the store: written, read one by one or in order, and taken out again.
//!
//! Those a worker's engine time has many of lie in blocks ([`super::block`]), under the position of the first: they are
//! compressed once, and neither the write-ahead log nor a flush nor a merge has to do with them as they were. Few are single
//! puts, which costs less to read, and so is whatever takes the place of a payload later, which has left its block by then. A
//! change says where the block of its payload begins; where it does not, the block is looked for.

use super::block::{self, Block, Packer};
use super::codec::PayloadRef;
use super::values::Scan;
use super::{Error, Family, Result, Store, StoreBatch, keys};
use crate::model::{DatasetId, Position};
use rocksdb::{ReadOptions, Snapshot};
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
    /// Puts payloads of one engine time, positions rising within a dataset. Says of each, as they were given, how far before its
    /// position the block begins that it is in.
    pub(super) fn put_payloads(
        &self,
        bulk: &mut StoreBatch,
        payloads: Vec<(DatasetId, u64, &[u8])>,
    ) -> Result<Vec<Option<u16>>> {
        let mut payloads: Vec<_> = payloads.into_iter().enumerate().collect();
        payloads.sort_by_key(|(_, (dataset, ..))| *dataset);
        let mut blocks = vec![None; payloads.len()];
        let (mut packer, mut block) = (Packer::default(), Vec::with_capacity(block::RECORDS));
        for of_dataset in payloads.chunk_by(|(_, (one, ..)), (_, (other, ..))| one == other) {
            if of_dataset.len() < self.block_least {
                for (_, (dataset, position, payload)) in of_dataset {
                    self.put(bulk, Family::Pay, keys::record(*dataset, *position), payload);
                }
                continue;
            }
            let mut bytes = 0;
            for (n, (dataset, position, payload)) in of_dataset {
                // The first rows of a view may take the positions of several engine times: a block has those of one.
                let epoch = Position(*position).epoch();
                let is_next = block.first().is_some_and(|(first, _)| Position(*first).epoch() != epoch);
                if block.len() == block::RECORDS || bytes >= block::BYTES || is_next {
                    self.put_block(bulk, *dataset, &mut block, &mut packer)?;
                    bytes = 0;
                }
                bytes += payload.len();
                block.push((*position, *payload));
                let first = block.first().map_or(*position, |(first, _)| *first);
                if let Some(block) = blocks.get_mut(*n) {
                    *block = position.checked_sub(first).and_then(|back| u16::try_from(back).ok());
                }
            }
            if let Some((_, (dataset, ..))) = of_dataset.last() {
                self.put_block(bulk, *dataset, &mut block, &mut packer)?;
            }
        }
        Ok(blocks)
    }

    fn put_block(
        &self,
        bulk: &mut StoreBatch,
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
    pub(crate) fn payload(&self, dataset: DatasetId, place: PayloadRef) -> Result<Option<Vec<u8>>> {
        // Where its block is known there is one place to look into, instead of one in each file.
        if let Some(first) = begin(place)
            && let Some(block) = self.get(Family::Blocks, keys::record(dataset, first))?
            && let Some(payload) = one_of(&block, place.at)?
        {
            return Ok(Some(payload));
        }
        if let Some(single) = self.get(Family::Pay, keys::record(dataset, place.at))? {
            return Ok(Some(single.to_vec()));
        }
        let mut scan = self.scan_in(Family::Blocks, None);
        match seek_block(&mut scan, dataset, place.at)? {
            true => one_of(scan.value().unwrap_or_default(), place.at),
            false => Ok(None),
        }
    }

    /// Takes payloads out of their blocks, for good.
    pub(crate) fn forget(&self, batch: &mut StoreBatch, places: &[(DatasetId, u64)]) -> Result<()> {
        if places.is_empty() {
            return Ok(());
        }
        let mut blocks: BTreeMap<Vec<u8>, Vec<u64>> = BTreeMap::new();
        let mut scan = self.scan_in(Family::Blocks, None);
        for (dataset, place) in places {
            if seek_block(&mut scan, *dataset, *place)? {
                blocks.entry(scan.key().unwrap_or_default().to_vec()).or_default().push(*place);
            }
        }
        let mut packer = Packer::default();
        for (key, places) in blocks {
            let Some(block) = self.get(Family::Blocks, &key)? else { continue };
            match Block::of(&*block)?.without(&places, &mut packer)? {
                Some(left) => self.put(batch, Family::Blocks, key, left),
                None => self.delete(batch, Family::Blocks, key),
            }
        }
        Ok(())
    }

    fn scan_in<'a>(&'a self, family: Family, snapshot: Option<&Snapshot<'a>>) -> Scan<'a> {
        let mut options = ReadOptions::default();
        if let Some(snapshot) = snapshot {
            options.set_snapshot(snapshot);
        }
        self.scan(family, options)
    }
}

/// Position of the first payload of a place's block, if that is known.
fn begin(place: PayloadRef) -> Option<u64> {
    place.at.checked_sub(u64::from(place.block?))
}

/// One payload of a block.
fn one_of(block: &[u8], position: u64) -> Result<Option<Vec<u8>>> {
    thread_local!(static BODY: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) });
    let block = Block::of(block)?;
    let Some(n) = block.find(position) else { return Ok(None) };
    BODY.with_borrow_mut(|body| {
        block.unpack(body)?;
        Ok(body.get(block.range(n)).map(<[u8]>::to_vec))
    })
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
    singles: Scan<'a>,
    blocks: Unpacked<'a>,
}

impl<'a> Payloads<'a> {
    pub(super) fn new(store: &'a Store, snapshot: &'a Snapshot<'a>) -> Self {
        let (read, in_order) = (HashMap::new(), HashMap::new());
        Payloads { store, snapshot, read, in_order, anywhere: Unpacked::default(), held: Vec::new() }
    }

    /// A payload behind those of its dataset that were asked for before.
    pub(super) fn next(&mut self, dataset: DatasetId, place: PayloadRef) -> Result<&[u8]> {
        // Where its block is known it is asked for once, whatever the number of files; a scan would look into each.
        if place.block.is_some() {
            return self.at(dataset, place);
        }
        let read = self.read.entry(dataset).or_default();
        *read += 1;
        if *read <= SINGLY {
            return self.at(dataset, place);
        }
        let position = place.at;
        let (key, store, snapshot) = (keys::record(dataset, position), self.store, self.snapshot);
        let InOrder { singles, blocks } = self.in_order.entry(dataset).or_insert_with(|| {
            let mut singles = store.scan_in(Family::Pay, Some(snapshot));
            singles.seek(key);
            InOrder { singles, blocks: Unpacked { in_order: true, ..Unpacked::default() } }
        });
        if walk_to(singles, &key)? {
            return Ok(singles.value().unwrap_or_default());
        }
        let found = blocks.find(|| store.scan_in(Family::Blocks, Some(snapshot)), dataset, position)?;
        found.ok_or_else(|| missing(position))
    }

    /// The payload at a place.
    pub(super) fn at(&mut self, dataset: DatasetId, place: PayloadRef) -> Result<&[u8]> {
        let lately = &mut self.anywhere.lately;
        if let Some(first) = begin(place)
            && lately.with(dataset, place.at).is_none()
            && let Some(block) = self.store.get_at(self.snapshot, Family::Blocks, keys::record(dataset, first))?
        {
            lately.open(&block, dataset, place.at)?;
        }
        if let Some(open) = lately.with(dataset, place.at) {
            return self.anywhere.lately.get(open, place.at).ok_or_else(|| missing(place.at));
        }
        let single = self.store.get_at(self.snapshot, Family::Pay, keys::record(dataset, place.at))?;
        if let Some(single) = single {
            self.held.clear();
            self.held.extend_from_slice(&single);
            return Ok(&self.held);
        }
        let (store, snapshot) = (self.store, self.snapshot);
        let found = self.anywhere.find(|| store.scan_in(Family::Blocks, Some(snapshot)), dataset, place.at)?;
        found.ok_or_else(|| missing(place.at))
    }
}

/// Blocks that were read lately, and where the next are looked for.
#[derive(Default)]
struct Unpacked<'a> {
    scan: Option<Scan<'a>>,
    lately: Lately,
    /// Whether payloads are asked for in order of position.
    in_order: bool,
}

impl<'a> Unpacked<'a> {
    /// A payload; the first asks for the scan.
    fn find(&mut self, scan: impl FnOnce() -> Scan<'a>, dataset: DatasetId, position: u64) -> Result<Option<&[u8]>> {
        if let Some(at) = self.lately.with(dataset, position) {
            return Ok(self.lately.get(at, position));
        }
        let scan = self.scan.get_or_insert_with(scan);
        let is_near = self.in_order && walk_to_block(scan, dataset, position)?;
        if !is_near && !seek_block(scan, dataset, position)? {
            return Ok(None);
        }
        if self.in_order {
            self.lately.close_before(position);
        }
        self.lately.open(scan.value().unwrap_or_default(), dataset, position)
    }
}

/// Blocks as they are unpacked, the youngest last.
#[derive(Default)]
struct Lately {
    open: VecDeque<Open>,
    /// The body of one that was closed.
    spare: Option<Vec<u8>>,
}

/// An unpacked block.
struct Open {
    dataset: DatasetId,
    epoch: u64,
    index: Block<Vec<u8>>,
    body: Vec<u8>,
}

impl Lately {
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

    /// Which of the open blocks has a payload: the youngest are looked at first.
    fn with(&self, dataset: DatasetId, position: u64) -> Option<usize> {
        let epoch = Position(position).epoch();
        let has = |open: &Open| open.dataset == dataset && open.epoch == epoch && open.index.find(position).is_some();
        self.open.iter().rposition(has)
    }

    fn get(&self, at: usize, position: u64) -> Option<&[u8]> {
        let open = self.open.get(at)?;
        open.body.get(open.index.range(open.index.find(position)?))
    }

    /// Unpacks a block for a payload of it, unless it has none there.
    fn open(&mut self, packed: &[u8], dataset: DatasetId, position: u64) -> Result<Option<&[u8]>> {
        let block = Block::of(packed)?;
        if block.find(position).is_none() {
            return Ok(None);
        }
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
fn walk_to_block(scan: &mut Scan<'_>, dataset: DatasetId, position: u64) -> Result<bool> {
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
fn seek_block(scan: &mut Scan<'_>, dataset: DatasetId, position: u64) -> Result<bool> {
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
fn has(scan: &Scan<'_>, key: &[u8], dataset: DatasetId, position: u64) -> Result<bool> {
    let (Some(at), Some(value)) = (scan.key(), scan.value()) else { return Ok(false) };
    let near =
        at <= key && keys::dataset(at) == dataset && Position(keys::position(at)).epoch() == Position(position).epoch();
    Ok(near && Block::of(value)?.find(position).is_some())
}

/// Moves `scan` forward to `key`, walking when it is near; whether it is there.
fn walk_to(scan: &mut Scan<'_>, key: &[u8]) -> Result<bool> {
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
    Error::Damaged(format!("the payload at {place} is missing; restore a backup"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::seq::IndexedRandom;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    const DATASETS: u32 = 2;

    /// Payloads as several workers write them, some epochs with many, some with few; and what was said of their blocks.
    fn written(store: &Store, chance: &mut ChaCha8Rng) -> BTreeMap<(DatasetId, u64), (Vec<u8>, Option<u16>)> {
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
                parts[chance.random_range(0..workers)].push((dataset, position, payload));
            }
            for part in &parts {
                let mut bulk = store.batch();
                let payloads = part.iter().map(|(dataset, at, payload)| (*dataset, *at, &payload[..])).collect();
                let blocks = store.put_payloads(&mut bulk, payloads).expect("packed");
                store.write_unsynced(bulk, epoch).expect("written");
                let said = part.iter().zip(blocks);
                all.extend(said.map(|((dataset, at, payload), block)| ((*dataset, *at), (payload.clone(), block))));
            }
            if chance.random_bool(0.2) {
                store.flush().expect("flushed");
            }
        }
        all
    }

    /// A place as a change says it, or as one that was written before it did.
    fn place(at: u64, block: Option<u16>, chance: &mut ChaCha8Rng) -> PayloadRef {
        PayloadRef { at, block: block.filter(|_| chance.random_bool(0.8)) }
    }

    fn store(block_least: usize) -> (tempfile::TempDir, Store) {
        let folder = tempfile::tempdir().expect("a folder");
        let mut store = Store::open(folder.path(), None, Some(0)).expect("opened");
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
                for ((dataset, at), (payload, block)) in &all {
                    if !chance.random_bool(part) {
                        continue;
                    }
                    let place = place(*at, *block, &mut chance);
                    assert!(payloads.next(*dataset, place).expect("read") == payload, "{dataset:?} {at} in order");
                }
            }
            for _ in 0..200 {
                let (dataset, at) = (DatasetId(chance.random_range(1..=DATASETS + 1)), Position::first_of(21).0);
                let at = at + chance.random_range(0..900);
                let (payload, block) = all.get(&(dataset, at)).cloned().unzip();
                let place = place(at, block.flatten().or(Some(3)), &mut chance);
                assert!(store.payload(dataset, place).expect("read") == payload, "{dataset:?} {at}");
                if let Some(payload) = payload {
                    let mut payloads = Payloads::new(&store, &snapshot);
                    assert!(payloads.at(dataset, place).expect("read") == payload, "{dataset:?} {at} anywhere");
                }
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
        for ((dataset, at), (payload, block)) in &all {
            let left = (!gone.contains(&(*dataset, *at))).then_some(payload);
            let place = place(*at, *block, &mut chance);
            assert!(store.payload(*dataset, place).expect("read").as_ref() == left, "{dataset:?} {at}");
        }
        let mut scan = store.scan_in(Family::Blocks, None);
        scan.seek(keys::record(DatasetId(1), whole.start));
        assert!(scan.key().is_none_or(|key| !whole.contains(&keys::position(key))), "an empty block goes");
    }
}
