//! The seam for a copy of the store outside this machine, from which the store can be rebuilt wherever it is needed next.
//!
//! A changelog holds the store's own writes, key by key; the last write of a key is its value. So a compacted topic keeps
//! exactly the store, and reading it from the beginning gives the store back.

use super::Error;

/// One write to the store. The first byte of `key` is the family's number, the rest the key inside the family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Family and key.
    pub key: Vec<u8>,
    /// The new value; `None` deletes.
    pub value: Option<Vec<u8>>,
}

/// A copy of the store elsewhere. Told of every commit before it takes effect here.
pub trait Changelog: Send + Sync + 'static {
    /// Makes the writes durable in this order, all or none of them, and returns the place after them. Blocks. After an error
    /// nothing more is accepted: what is there is found out by opening the changelog again and reading on.
    fn commit(&self, writes: &[Write]) -> Result<u64, Error>;

    /// Hands the writes after `place` (0: from the beginning) to `each` in order, in chunks with the place after each, up
    /// to what is there now. Returns the place after the last one. Blocks.
    ///
    /// `Error::Gone` if `place` is not a place of this changelog any more: the copy here is to be dropped and read anew.
    fn replay(&self, place: u64, each: &mut dyn FnMut(Vec<Write>, u64) -> Result<(), Error>) -> Result<u64, Error>;
}
