//! What views hold in memory, and keys with so many rows that they cost: counted batch by batch on the way into an arrangement.
//!
//! Promises: rows and bytes are those held, whoever reads them, up to what differential dataflow needs on top; a key with
//! [`SKEW`] rows is told of once. Costs a few additions for each row, and some KiB for each arrangement.

use super::flow::PackedRows;
use super::health::ViewStep;
use super::packed::{Bytes, TenantNumber, scope_of};
use super::registry::Registry;
use differential_dataflow::{AsCollection, ExchangeData, VecCollection};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use timely::dataflow::operators::Inspect;

/// Rows under one key of a join or a group from which on it is told of: one change of the other side of the join makes so
/// many.
pub const SKEW: u64 = 100_000;
/// Bytes that a row costs in an arrangement: key and row, which hold what is short themselves, a time, a count.
const ROW_BYTES: i64 = 64;
/// Counters of a sketch in a line. A key is counted too high by the share of all rows that fall into the same counters, in
/// every line: it takes hundreds of millions of rows until an innocent key is told of.
const CELLS: usize = 1 << 11;
/// Lines of a sketch.
const LINES: usize = 3;
/// Keys told of by one sketch.
const TOLD: usize = 16;

/// Rows and bytes of one step on one worker.
#[derive(Default)]
pub(crate) struct Gauge {
    rows: AtomicI64,
    bytes: AtomicI64,
}

impl Gauge {
    /// What it stands at: rows, bytes.
    pub fn read(&self) -> (u64, u64) {
        let now = |of: &AtomicI64| of.load(Ordering::Relaxed).max(0) as u64;
        (now(&self.rows), now(&self.bytes))
    }

    fn add(&self, rows: i64, bytes: i64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
        self.bytes.fetch_add(bytes + rows * ROW_BYTES, Ordering::Relaxed);
    }
}

/// Counts what a step arranges.
#[derive(Clone)]
pub struct Meter {
    step: Rc<ViewStep>,
    registry: Arc<Registry>,
    gauge: Arc<Gauge>,
    /// A key as text.
    show: fn(&[u8]) -> String,
}

impl Meter {
    pub fn new(step: &Rc<ViewStep>, registry: &Arc<Registry>, show: fn(&[u8]) -> String) -> Meter {
        Meter { step: step.clone(), registry: registry.clone(), gauge: step.gauge(), show }
    }

    /// Rows on their way into an arrangement by their keys; none should have too many.
    pub fn keyed<'s>(&self, rows: PackedRows<'s>) -> PackedRows<'s> {
        let peers = rows.inner.scope().peers() as i64;
        // Each worker sees its share of a key's rows before they are brought together.
        let limit = (SKEW as i64 / peers.max(1)).max(1);
        let (meter, mut sketch) = (self.clone(), Sketch::default());
        let watched = rows.inner.inspect_batch(move |_, updates: &Vec<_>| {
            let (mut rows, mut bytes) = (0, 0);
            for ((key, row), _, diff) in updates {
                let diff = *diff as i64;
                rows += diff;
                bytes += diff * size(key, row);
                if sketch.add(key, diff, limit) {
                    meter.tell(key);
                }
            }
            meter.gauge.add(rows, bytes);
        });
        watched.as_collection()
    }

    /// Anything that is held.
    pub fn held<'s, D: ExchangeData>(
        &self,
        rows: VecCollection<'s, u64, D, isize>,
        size: impl Fn(&D) -> i64 + 'static,
    ) -> VecCollection<'s, u64, D, isize> {
        let gauge = self.gauge.clone();
        let watched = rows.inner.inspect_batch(move |_, updates: &Vec<_>| {
            let (mut rows, mut bytes) = (0, 0);
            for (data, _, diff) in updates {
                rows += *diff as i64;
                bytes += *diff as i64 * size(data);
            }
            gauge.add(rows, bytes);
        });
        watched.as_collection()
    }

    fn tell(&self, key: &[u8]) {
        let scope: TenantNumber = scope_of(key);
        if let Some((environment, connection)) = self.registry.known().whose(scope) {
            self.step.skewed(&environment, &connection, (self.show)(key));
        }
    }
}

/// Bytes that a key and a row hold elsewhere.
pub fn size(key: &Bytes, row: &Bytes) -> i64 {
    (key.outside() + row.outside()) as i64
}

/// About how many rows each key has: never too low.
struct Sketch {
    lines: Box<[[i64; CELLS]; LINES]>,
    told: Vec<u64>,
}

impl Default for Sketch {
    fn default() -> Sketch {
        Sketch { lines: Box::new([[0; CELLS]; LINES]), told: Vec::new() }
    }
}

impl Sketch {
    /// Counts a key; whether it now has to be told of.
    fn add(&mut self, key: &[u8], diff: i64, limit: i64) -> bool {
        let hash = twox_hash::XxHash3_64::oneshot(key);
        let mut least = i64::MAX;
        for (at, line) in self.lines.iter_mut().enumerate() {
            // 11 bits of the hash for each line.
            if let Some(cell) = line.get_mut((hash >> (at * 11)) as usize % CELLS) {
                *cell += diff;
                least = least.min(*cell);
            }
        }
        if least < limit || self.told.len() >= TOLD || self.told.contains(&hash) {
            return false;
        }
        self.told.push(hash);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_of_once_and_others_are_not() {
        let mut sketch = Sketch::default();
        let mut told = Vec::new();
        for n in 0..40_000u32 {
            for key in [n.to_be_bytes(), [9; 4]] {
                if sketch.add(&key, 1, 10_000) {
                    told.push((n, key));
                }
            }
        }
        // Counted a little too high, never too low.
        assert!(matches!(told.as_slice(), [(9_000..10_000, [9, 9, 9, 9])]), "{told:?}");
    }

    #[test]
    fn rows_that_go_are_taken_off() {
        let mut sketch = Sketch::default();
        for _ in 0..100 {
            assert!((0..9).all(|_| !sketch.add(b"k", 1, 10)));
            assert!((0..9).all(|_| !sketch.add(b"k", -1, 10)));
        }
    }
}
