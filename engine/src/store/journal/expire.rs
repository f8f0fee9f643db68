//! How old lines leave: by age, and by the room they take.
//!
//! Whole tables go first, which costs nothing. What is left of the range is removed where it lies, by one range delete that is merged
//! at once with the one table it begins in: it was written to a table of its own, so that the merge does not take in all that is kept.

use super::{JournalBounds, Shared, key, time_of};
use crate::model::Timestamp;
use crate::store::{Family, Result, Store};
use rocksdb::{CompactOptions, Range, properties};
use std::time::Duration;

/// Between two looks at the age of the oldest line.
pub(super) const LOOK: Duration = Duration::from_secs(3_600);
/// A look at the size each time so large a part of the room was written.
pub(super) const SIZE_LOOKS: u64 = 32;
/// What is too much is removed down to so many eighths of the room, so that it is not too much again at once.
const LEFT: u64 = 7;

/// Lines from this time on are kept.
pub(super) fn kept_since(shared: &Shared) -> Timestamp {
    // A clock of tests may stand at the beginning of time.
    shared.queue.now().minus(shared.bounds.age).max(Timestamp(0))
}

/// Removes what is too old or too much.
pub(super) fn expire(store: &Store, shared: &Shared) -> Result<()> {
    let Some(oldest) = oldest(store)? else { return Ok(()) };
    let mut until = kept_since(shared);
    if let Some(too_much) = too_much(store, &shared.bounds)? {
        until = until.max(behind(store, oldest, shared.queue.stamp(), too_much));
    }
    match oldest < until {
        true => remove(store, until),
        false => Ok(()),
    }
}

fn oldest(store: &Store) -> Result<Option<Timestamp>> {
    let scan = store.scan_from(Family::Journal, []);
    scan.status()?;
    Ok(scan.key().map(time_of))
}

/// Bytes of all that is kept: in tables, and in memory.
pub(super) fn size(store: &Store) -> Result<[u64; 2]> {
    let of = |property| store.db.property_int_value_cf(store.family(Family::Journal), property);
    let (tables, memory) = (of(properties::LIVE_SST_FILES_SIZE)?, of(properties::CUR_SIZE_ALL_MEM_TABLES)?);
    Ok([tables.unwrap_or_default(), memory.unwrap_or_default()])
}

/// Bytes that have to go, if there is more than there may be.
fn too_much(store: &Store, bounds: &JournalBounds) -> Result<Option<u64>> {
    if size(store)?.iter().sum::<u64>() <= bounds.bytes {
        return Ok(None);
    }
    // In tables it is a fraction, and only there it is known which lines take how much.
    store.db.flush_cf(store.family(Family::Journal))?;
    let [tables, _] = size(store)?;
    Ok((tables > bounds.bytes).then(|| tables - bounds.bytes / 8 * LEFT))
}

/// The time before which lines take about so many bytes: found by halving, as RocksDB estimates what lies between two keys.
fn behind(store: &Store, oldest: Timestamp, newest: Timestamp, bytes: u64) -> Timestamp {
    let start = key(oldest);
    let before = |end: i64| {
        let sizes = store
            .db
            .get_approximate_sizes_cf(store.family(Family::Journal), &[Range::new(&start, &key(Timestamp(end)))]);
        sizes.first().copied().unwrap_or_default()
    };
    let (mut from, mut to) = (oldest.0, newest.0);
    while from < to {
        let middle = from.midpoint(to);
        if before(middle) < bytes { from = middle.saturating_add(1) } else { to = middle }
    }
    Timestamp(from)
}

fn remove(store: &Store, until: Timestamp) -> Result<()> {
    let family = store.family(Family::Journal);
    let (from, to) = (key(Timestamp(0)), key(until));
    store.db.flush_cf(family)?;
    // The end of this range belongs to it, that of the other does not.
    store.db.delete_file_in_range_cf(family, from, key(Timestamp(until.0.saturating_sub(1))))?;
    let mut batch = store.batch_of_here();
    store.delete_range(&mut batch, Family::Journal, &from, &to)?;
    store.write_aside(batch)?;
    store.db.flush_cf(family)?;
    let mut options = CompactOptions::default();
    // Merges of the other families go on meanwhile.
    options.set_exclusive_manual_compaction(false);
    store.db.compact_range_cf_opt(family, Some(from), Some(to), &options);
    tracing::debug!(%until, "older lines of the journal are gone");
    Ok(())
}
