//! A log in memory: for tests and for what need not outlive the process.

use super::{Error, Log};
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use tokio::sync::watch;

/// Entries by position.
pub struct MemoryLog {
    entries: Mutex<BTreeMap<u64, Bytes>>,
    end: watch::Sender<u64>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        MemoryLog { entries: Mutex::default(), end: watch::Sender::new(0) }
    }
}

#[async_trait]
impl Log for MemoryLog {
    async fn append(&self, entries: Vec<Vec<u8>>) -> Result<u64, Error> {
        let mut held = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut end = *self.end.borrow();
        for entry in entries {
            end += 1;
            held.insert(end, entry.into());
        }
        self.end.send_replace(end);
        Ok(end)
    }

    fn read(&self, after: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let held = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(held.range(after.saturating_add(1)..).take(limit).map(|(at, entry)| (*at, entry.clone())).collect())
    }

    fn trim(&self, through: u64) -> Result<(), Error> {
        let mut held = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        *held = held.split_off(&through.saturating_add(1));
        Ok(())
    }

    fn end(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }
}
