//! The differential operators behind tables, over packed rows: whatever a program's types are, these are compiled once.

use super::meter::{Meter, size};
use super::packed::Bytes;
use differential_dataflow::VecCollection;
use differential_dataflow::operators::CountTotal;

/// Packed rows by packed key.
pub type PackedRows<'s> = VecCollection<'s, u64, (Bytes, Bytes), isize>;

/// What becomes of one row.
type Each = Box<dyn Fn(&[u8], &[u8]) -> Option<(Bytes, Bytes)>>;
/// What becomes of a key and a row of either side.
type Both = Box<dyn Fn(&[u8], &[u8], &[u8]) -> Option<(Bytes, Bytes)>>;
/// Which of a group's rows are kept.
type Best = Box<dyn Fn(&[&Bytes]) -> Vec<Bytes>>;
/// What a group's key and rows become.
type List = Box<dyn Fn(&[u8], &[&Bytes]) -> Vec<(Bytes, Bytes)>>;

/// Bits of a row's hash that choose its bucket, from the narrowest to the group itself. A change is worked off in one bucket
/// of each, so that its cost does not grow with the group.
const BUCKETS: [u32; 4] = [18, 12, 6, 0];

pub fn each<'s>(
    rows: &PackedRows<'s>,
    code: impl Fn(&[u8], &[u8]) -> Option<(Bytes, Bytes)> + 'static,
) -> PackedRows<'s> {
    fn erased<'s>(rows: PackedRows<'s>, code: Each) -> PackedRows<'s> {
        rows.flat_map(move |(key, row)| code(&key, &row))
    }
    erased(rows.clone(), Box::new(code))
}

pub fn union<'s>(left: PackedRows<'s>, right: PackedRows<'s>) -> PackedRows<'s> {
    left.concat(right)
}

/// Pairs of rows with the same key.
pub fn join<'s>(
    left: PackedRows<'s>,
    right: PackedRows<'s>,
    meter: &Meter,
    code: impl Fn(&[u8], &[u8], &[u8]) -> Option<(Bytes, Bytes)> + 'static,
) -> PackedRows<'s> {
    fn erased<'s>(left: PackedRows<'s>, right: PackedRows<'s>, code: Both) -> PackedRows<'s> {
        let (left, right) = (left.arrange_by_key(), right.arrange_by_key());
        left.join_core(right, move |key, left, right| code(key, left, right))
    }
    erased(meter.keyed(left), meter.keyed(right), Box::new(code))
}

/// Pairs of rows with the same key, and rows of the left side for which the right one has none.
pub fn join_or_alone<'s>(
    left: PackedRows<'s>,
    right: PackedRows<'s>,
    meter: &Meter,
    code: impl Fn(&[u8], &[u8], &[u8]) -> Option<(Bytes, Bytes)> + 'static,
) -> (PackedRows<'s>, PackedRows<'s>) {
    fn erased<'s>(left: PackedRows<'s>, right: PackedRows<'s>, code: Both) -> (PackedRows<'s>, PackedRows<'s>) {
        let (all, right) = (left.clone(), right.arrange_by_key());
        let left = left.arrange_by_key();
        let pairs = left.clone().join_core(right.clone(), move |key, left, right| code(key, left, right));
        let paired = left.join_core(right, |key, left, _| Some((key.clone(), left.clone())));
        (pairs, all.concat(paired.negate()))
    }
    erased(meter.keyed(left), meter.keyed(right), Box::new(code))
}

/// Sums over the rows of a key: first how many there are, then what `weigh` says of each, which is a whole number each time.
/// A change costs the same however many rows there are; what is held is a sum for each key.
pub fn totals<'s>(
    rows: PackedRows<'s>,
    meter: &Meter,
    weigh: impl Fn(&[u8]) -> Option<Vec<i128>> + 'static,
) -> VecCollection<'s, u64, (Bytes, Vec<i128>), isize> {
    fn erased<'s>(
        rows: PackedRows<'s>,
        weigh: Box<dyn Fn(&[u8]) -> Option<Vec<i128>>>,
    ) -> VecCollection<'s, u64, (Bytes, Vec<i128>), isize> {
        use differential_dataflow::AsCollection;
        use timely::dataflow::operators::vec::Map;
        let weighed = rows.inner.flat_map(move |((key, row), time, diff)| {
            let mut sums = vec![diff as i128];
            sums.extend(weigh(&row)?.into_iter().map(|sum| sum.saturating_mul(diff as i128)));
            Some((key, time, sums))
        });
        weighed.as_collection().count_total()
    }
    let sums = erased(rows, Box::new(weigh));
    meter.held(sums, |(key, sums)| key.outside() as i64 + size_of_val(sums.as_slice()) as i64)
}

/// The rows of a group that are there.
fn present<'a>(rows: &[(&'a Bytes, isize)]) -> Vec<&'a Bytes> {
    rows.iter().filter(|(_, n)| *n > 0).map(|(row, _)| *row).collect()
}

/// The rows that `best` keeps of each key. It is asked for parts of a group first, then for what was kept of those.
pub fn tournament<'s>(
    rows: PackedRows<'s>,
    meter: &Meter,
    best: impl Fn(&[&Bytes]) -> Vec<Bytes> + 'static,
) -> PackedRows<'s> {
    fn erased<'s>(mut rows: PackedRows<'s>, meter: &Meter, best: Best) -> PackedRows<'s> {
        let held = |rows| meter.held(rows, |(key, row): &(Bytes, Bytes)| size(key, row));
        let best = std::rc::Rc::new(best);
        rows = meter.keyed(rows);
        for bits in BUCKETS {
            let best = best.clone();
            let bucketed = rows.map(move |(key, row)| {
                let bucket = twox_hash::XxHash3_64::oneshot(&row) & ((1 << bits) - 1);
                ((key, bucket), row)
            });
            let kept = bucketed.reduce(move |_, rows, kept| {
                kept.extend(best(&present(rows)).into_iter().map(|row| (row, 1isize)));
            });
            rows = held(kept.map(|((key, _), row)| (key, row)));
            if bits > 0 {
                // What one round keeps is what the next one holds as well.
                rows = held(rows);
            }
        }
        rows
    }
    erased(rows, meter, Box::new(best))
}

/// All rows of a key at once, as rows under other keys.
pub fn listed<'s>(
    rows: PackedRows<'s>,
    meter: &Meter,
    code: impl Fn(&[u8], &[&Bytes]) -> Vec<(Bytes, Bytes)> + 'static,
) -> PackedRows<'s> {
    fn erased<'s>(rows: PackedRows<'s>, code: List) -> PackedRows<'s> {
        let listed = rows.reduce(move |key, rows, out| {
            out.extend(code(key, &present(rows)).into_iter().map(|row| (row, 1isize)));
        });
        listed.map(|(_, row)| row)
    }
    let held = |rows| meter.held(rows, |(key, row): &(Bytes, Bytes)| size(key, row));
    held(erased(held(rows), Box::new(code)))
}
