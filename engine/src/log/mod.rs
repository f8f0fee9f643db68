//! The durable log: keeps what cannot be read again, on disk before anyone is answered.

mod changelog;
mod high_water;
mod memory;
mod rocks;
mod space;
mod synced;

pub use changelog::{Changelog, Write};
pub use high_water::{Acknowledged, HIGH_WATER, HighWater};
pub use memory::{MemoryChangelog, MemoryLog};
pub use rocks::{RocksLog, WAITING_BYTES};
pub use space::{Disk, Full, Space};
pub use synced::Synced;

use async_trait::async_trait;
use bytes::Bytes;

/// A durable, ordered log. Positions rise by one; 0 is before the first entry.
#[async_trait]
pub trait Log: Send + Sync + 'static {
    /// Appends the entries in order and returns the position of the last one, once they are synced to disk.
    async fn append(&self, entries: Vec<Vec<u8>>) -> Result<u64, Error>;

    /// Up to `limit` entries after position `after`, in order. After the end there is nothing; a log that others may have
    /// emptied or replaced answers `Error::Gone` to a position it never had.
    fn read(&self, after: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, Error>;

    /// Forgets every entry up to and including `through`.
    fn trim(&self, through: u64) -> Result<(), Error>;

    /// Position of the last entry that can be read; changes wake the watcher. A log may show an entry while it is still being
    /// made durable, if whatever a reader makes of it through the same engine cannot become durable before it does.
    fn end(&self) -> tokio::sync::watch::Receiver<u64>;
}

/// Why the log failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// The disk refused; nothing more is accepted until a restart.
    #[error("the log is closed after a failed write ({0}); free the disk or repair it, then restart")]
    Poisoned(String),
    /// The disk is too full for anything new; nothing was written.
    #[error("{0}")]
    Full(Full),
    /// More waits for the disk than is allowed.
    #[error("the log is overloaded: {0} bytes wait for the disk; try again later")]
    Overloaded(usize),
    /// What lies elsewhere, on a broker, cannot be reached or does not answer in time.
    #[error("the log cannot be reached: {0}")]
    Unreachable(String),
    /// Another process has taken over; what this one still wanted to write is refused.
    #[error("fenced: another process has taken over ({0})")]
    Fenced(String),
    /// A place that is not there any more.
    #[error("{0}")]
    Gone(String),
    /// An entry larger than the log takes.
    #[error("an entry of {size} bytes is larger than the log takes ({most})")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The most.
        most: usize,
    },
}
