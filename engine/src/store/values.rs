//! The one way to the values: [`Store::get`] and [`Store::scan`] read them, as [`Store::put`] is how they are put.
//!
//! Promises: nothing else in the store asks the database for a value, so a family whose values are not to lie open on the disk can be
//! sealed in `put` and opened here, and nowhere else. A value stays where the database has it, pinned: nothing is copied.
//! Does not: checks, repairs and backups, which read whole files as they are; and the log, whose family is its own.

use super::{Family, Result, Store};
use rocksdb::{DBPinnableSlice, DBRawIterator, ReadOptions, Snapshot};

impl Store {
    /// The value at a key.
    pub(super) fn get(&self, family: Family, key: impl AsRef<[u8]>) -> Result<Option<Pinned<'_>>> {
        Ok(self.db.get_pinned_cf(self.family(family), key)?.map(Pinned))
    }

    /// The value that a key had at a snapshot.
    pub(super) fn get_at<'a>(
        &self,
        snapshot: &'a Snapshot<'_>,
        family: Family,
        key: impl AsRef<[u8]>,
    ) -> Result<Option<Pinned<'a>>> {
        Ok(snapshot.get_pinned_cf(self.family(family), key)?.map(Pinned))
    }

    /// A scan of a family that stands nowhere yet; its options say of which snapshot, and up to which key.
    pub(super) fn scan<'a>(&'a self, family: Family, options: ReadOptions) -> Scan<'a> {
        Scan(self.db.raw_iterator_cf_opt(self.family(family), options))
    }

    /// A scan that stands at the first key from `start` on.
    pub(super) fn scan_from(&self, family: Family, start: impl AsRef<[u8]>) -> Scan<'_> {
        let mut scan = self.scan(family, ReadOptions::default());
        scan.seek(start);
        scan
    }
}

/// A value where the database has it.
pub(super) struct Pinned<'a>(DBPinnableSlice<'a>);

impl std::ops::Deref for Pinned<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Pinned<'_> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// A walk over the keys of a family, in their order. Where it stands at nothing, [`status`](Scan::status) tells the end from a
/// failure.
pub(super) struct Scan<'a>(DBRawIterator<'a>);

impl Scan<'_> {
    pub(super) fn seek(&mut self, key: impl AsRef<[u8]>) {
        self.0.seek(key);
    }

    /// To the last key up to this one.
    pub(super) fn seek_for_prev(&mut self, key: impl AsRef<[u8]>) {
        self.0.seek_for_prev(key);
    }

    pub(super) fn seek_to_first(&mut self) {
        self.0.seek_to_first();
    }

    pub(super) fn seek_to_last(&mut self) {
        self.0.seek_to_last();
    }

    #[inline]
    pub(super) fn next(&mut self) {
        self.0.next();
    }

    #[inline]
    pub(super) fn prev(&mut self) {
        self.0.prev();
    }

    #[inline]
    pub(super) fn key(&self) -> Option<&[u8]> {
        self.0.key()
    }

    #[inline]
    pub(super) fn value(&self) -> Option<&[u8]> {
        self.0.value()
    }

    /// Why it stands at nothing, if it is not for the end.
    pub(super) fn status(&self) -> Result<()> {
        Ok(self.0.status()?)
    }

    /// Hands on each key and value from here on, until `each` wants no more.
    pub(super) fn each(mut self, mut each: impl FnMut(&[u8], &[u8]) -> Result<bool>) -> Result<()> {
        while let (Some(key), Some(value)) = (self.key(), self.value()) {
            if !each(key, value)? {
                return Ok(());
            }
            self.next();
        }
        self.status()
    }
}

/// For reading a family once, in order.
pub(super) fn scan_options() -> ReadOptions {
    let mut options = ReadOptions::default();
    options.set_readahead_size(2 << 20);
    options.fill_cache(false);
    options
}
