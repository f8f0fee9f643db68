//! What the merge knows of one record: 72 bytes, whatever its size.

use crate::model::content::Key;
use crate::model::{Cause, Timestamp, Via};

/// The record is deleted; the entry is its tombstone.
pub const DEAD: u8 = 1;
/// Readers never see it: a delete or a patch of an id nobody knew.
pub const HIDDEN: u8 = 2;
/// It has field clocks ([`FieldClocks`](super::FieldClocks)).
pub const PATCHED: u8 = 4;
/// Its payload was pruned.
pub const PRUNED: u8 = 8;

/// What the merge knows of a record.
#[derive(Clone, Copy, Debug)]
pub struct RecordEntry {
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

impl RecordEntry {
    /// A fresh entry without flags; everything else is for the caller to set.
    #[inline]
    pub fn new(key: Key) -> Self {
        RecordEntry {
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
    #[inline]
    pub fn flags(&self) -> u8 {
        self.writer_flags as u8
    }

    /// Whether any of `flags` is set.
    #[inline]
    pub fn is(&self, flags: u8) -> bool {
        self.flags() & flags != 0
    }

    /// Sets the flags to exactly these.
    #[inline]
    pub fn set_flags(&mut self, flags: u8) {
        self.writer_flags = (self.writer_flags & !0xff) | u32::from(flags);
    }

    /// Flags and writer as they are stored together.
    #[inline]
    pub fn writer_flags(&self) -> u32 {
        self.writer_flags
    }

    /// Sets flags and writer to what [`writer_flags`](RecordEntry::writer_flags) said.
    #[inline]
    pub fn set_writer_flags(&mut self, both: u32) {
        self.writer_flags = both;
    }

    /// Who wrote the last change.
    #[inline]
    pub fn writer(&self) -> u32 {
        self.writer_flags >> 8
    }

    /// Notes who wrote the last change.
    #[inline]
    pub fn set_writer(&mut self, cause: Cause) {
        self.writer_flags = (writer(cause) << 8) | u32::from(self.flags());
    }

    /// The version as one comparable value; a tombstone's content counts as less than any other.
    #[inline]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_has_72_bytes() {
        assert_eq!(std::mem::size_of::<RecordEntry>(), 72);
    }

    #[test]
    fn flags_and_writer_do_not_disturb_each_other() {
        let mut entry = RecordEntry::new([1, 2]);
        entry.set_flags(DEAD | PRUNED);
        entry.set_writer(Cause::run(7));
        assert!(entry.is(DEAD) && entry.is(PRUNED) && !entry.is(HIDDEN));
        assert_eq!(entry.writer(), writer(Cause::run(7)));
        assert_ne!(writer(Cause::run(7)), writer(Cause::webhook(7)));
        entry.set_flags(0);
        assert_eq!(entry.writer(), writer(Cause::run(7)));
    }
}
