//! A log and a changelog in memory: for tests and for what need not outlive the process.

use super::{Changelog, Error, Log, Write};
use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;

/// Entries by position.
#[doc(hidden)]
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
        let mut held = self.entries.lock();
        let mut end = *self.end.borrow();
        for entry in entries {
            end += 1;
            held.insert(end, entry.into());
        }
        self.end.send_replace(end);
        Ok(end)
    }

    fn read(&self, after: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let held = self.entries.lock();
        Ok(held.range(after.saturating_add(1)..).take(limit).map(|(at, entry)| (*at, entry.clone())).collect())
    }

    fn trim(&self, through: u64) -> Result<(), Error> {
        let mut held = self.entries.lock();
        *held = held.split_off(&through.saturating_add(1));
        Ok(())
    }

    fn end(&self) -> watch::Receiver<u64> {
        self.end.subscribe()
    }
}

/// A changelog in memory. Each [`open`](MemoryChangelog::open) takes over from those before it, as a broker's would.
#[derive(Default)]
pub struct MemoryChangelog {
    shared: Arc<Mutex<Writes>>,
    turn: u64,
}

#[derive(Default)]
struct Writes {
    all: Vec<Write>,
    turn: u64,
}

impl MemoryChangelog {
    /// Another end of the same changelog; the ends before it can write no more.
    pub fn open(&self) -> MemoryChangelog {
        let mut writes = self.shared.lock();
        writes.turn += 1;
        MemoryChangelog { shared: self.shared.clone(), turn: writes.turn }
    }

    /// Forgets writes that were overwritten or deleted later, as compaction does. Places stay what they were.
    pub fn compact(&self) {
        let mut writes = self.shared.lock();
        let last: BTreeMap<Vec<u8>, usize> =
            writes.all.iter().enumerate().map(|(at, write)| (write.key.clone(), at)).collect();
        for (at, write) in writes.all.iter_mut().enumerate() {
            if last.get(&write.key) != Some(&at) {
                // An empty key is nobody's: a hole that keeps the places behind it.
                *write = Write { key: Vec::new(), value: None };
            }
        }
    }
}

impl Changelog for MemoryChangelog {
    fn commit(&self, writes: &[Write]) -> Result<u64, Error> {
        let mut held = self.shared.lock();
        if held.turn != self.turn {
            return Err(Error::Fenced("the changelog was opened again".to_owned()));
        }
        held.all.extend_from_slice(writes);
        Ok(held.all.len() as u64)
    }

    fn replay(&self, place: u64, each: &mut dyn FnMut(Vec<Write>, u64) -> Result<(), Error>) -> Result<u64, Error> {
        let held = self.shared.lock();
        let end = held.all.len() as u64;
        let news = usize::try_from(place).ok().and_then(|place| held.all.get(place..));
        let Some(news) = news else { return Err(Error::Gone(format!("place {place} is behind the end, {end}"))) };
        for (n, chunk) in news.chunks(7).enumerate() {
            let whole = chunk.iter().filter(|write| !write.key.is_empty()).cloned().collect();
            each(whole, (place + n as u64 * 7 + chunk.len() as u64).min(end))?;
        }
        Ok(end)
    }
}
