//! The embedded log: a column family of the store's RocksDB, so that log and store share one write-ahead log and one fsync.
//!
//! One thread takes what waits, writes it as one batch, waits for a sync and answers all (group commit). Readers see entries as
//! soon as they are written: what is committed of them lies behind them in the same write-ahead log, so that the sync of that
//! commit is theirs as well, and nothing of them shows without them. Where no commit syncs soon, the log does
//! (engine/decisions/0019).

use super::{Error, Log, Space, Synced};
use crate::fault::{hit, pass};
use async_trait::async_trait;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use rocksdb::{DB, Direction, IteratorMode, WriteBatch};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// Most entries of one synced write.
const GROUP_ENTRIES: usize = 512;
/// Most bytes of one synced write.
const GROUP_BYTES: usize = 1 << 20;
/// Most bytes that may wait for the disk.
pub const WAITING_BYTES: usize = 64 << 20;
/// Most appends that may wait for the disk.
const WAITING_APPENDS: usize = 16_384;

/// How long a commit is waited for that brings entries to disk along with its own. It takes an engine that has nothing else
/// to do about half as long to get that far with a webhook.
const PATIENCE: Duration = Duration::from_micros(500);

const FAMILY: &str = "log";
const SYSTEM: &str = "system";
const TRIMMED: &[u8] = b"log_trimmed";

struct Append {
    entries: Vec<Vec<u8>>,
    answer: oneshot::Sender<Result<u64, Error>>,
}

/// The log; its thread ends when it goes.
pub struct RocksLog {
    db: Arc<DB>,
    synced: Arc<Synced>,
    appends: Option<Sender<Append>>,
    waiting: Arc<AtomicUsize>,
    end: watch::Receiver<u64>,
    /// Everything up to here is forgotten.
    trimmed: Mutex<u64>,
    writer: Option<std::thread::JoinHandle<()>>,
}

impl RocksLog {
    /// The log inside an open database that has the families `log` and `system`. `synced` is told by whoever else syncs the
    /// database's write-ahead log, `space` watches its disk.
    pub fn open(db: Arc<DB>, synced: Arc<Synced>, space: Arc<Space>) -> Result<Self, Error> {
        let poisoned = |e: rocksdb::Error| Error::Poisoned(e.into_string());
        let trimmed = db.get_cf(family(&db, SYSTEM)?, TRIMMED).map_err(poisoned)?.map_or(0, |bytes| position(&bytes));
        let mut end = trimmed;
        if let Some(last) = db.iterator_cf(family(&db, FAMILY)?, IteratorMode::End).next() {
            end = end.max(position(&last.map_err(poisoned)?.0));
        }
        let (sender, receiver) = watch::channel(end);
        let (appends, inbox) = bounded(WAITING_APPENDS);
        let waiting = Arc::new(AtomicUsize::new(0));
        let (log, bytes) = (synced.clone(), waiting.clone());
        let writer = LogWriter { db: db.clone(), synced, space, waiting: bytes, end: sender };
        let writer = std::thread::Builder::new()
            .name("syncline-log".to_owned())
            .spawn(move || writer.run(&inbox))
            .map_err(|e| Error::Poisoned(e.to_string()))?;
        Ok(RocksLog {
            db,
            synced: log,
            appends: Some(appends),
            waiting,
            end: receiver,
            trimmed: Mutex::new(trimmed),
            writer: Some(writer),
        })
    }
}

impl Drop for RocksLog {
    fn drop(&mut self) {
        self.appends = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn family<'a>(db: &'a DB, name: &str) -> Result<&'a rocksdb::ColumnFamily, Error> {
    db.cf_handle(name).ok_or_else(|| Error::Poisoned(format!("the family {name} is missing")))
}

fn position(key: &[u8]) -> u64 {
    key.try_into().map_or(0, u64::from_be_bytes)
}

#[async_trait]
impl Log for RocksLog {
    async fn append(&self, entries: Vec<Vec<u8>>) -> Result<u64, Error> {
        let bytes: usize = entries.iter().map(Vec::len).sum();
        let waiting = self.waiting.fetch_add(bytes, Ordering::Relaxed) + bytes;
        let (answer, answered) = oneshot::channel();
        let refused = match &self.appends {
            _ if waiting > WAITING_BYTES => Some(Error::Overloaded(waiting)),
            Some(appends) => appends.try_send(Append { entries, answer }).err().map(|_| Error::Overloaded(waiting)),
            None => Some(Error::Poisoned("the log has stopped".to_owned())),
        };
        if let Some(refused) = refused {
            self.waiting.fetch_sub(bytes, Ordering::Relaxed);
            return Err(refused);
        }
        answered.await.unwrap_or_else(|_| Err(Error::Poisoned("the log has stopped".to_owned())))
    }

    fn read(&self, after: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        // Nothing beyond the written end is shown: a batch that failed is in memory perhaps.
        let end = *self.end.borrow();
        let from = after.saturating_add(1).to_be_bytes();
        let mut entries = Vec::new();
        for item in self.db.iterator_cf(family(&self.db, FAMILY)?, IteratorMode::From(&from, Direction::Forward)) {
            let (key, value) = item.map_err(|e| Error::Poisoned(e.into_string()))?;
            if entries.len() >= limit || position(&key) > end {
                break;
            }
            entries.push((position(&key), Bytes::from(value)));
        }
        Ok(entries)
    }

    fn trim(&self, through: u64) -> Result<(), Error> {
        let through = through.min(*self.end.borrow());
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(family(&self.db, FAMILY)?, 0u64.to_be_bytes(), (through + 1).to_be_bytes());
        // Never lower than before: of an emptied log it is all that keeps positions from being used twice.
        let mut trimmed = self.trimmed.lock();
        *trimmed = through.max(*trimmed);
        batch.put_cf(family(&self.db, SYSTEM)?, TRIMMED, trimmed.to_be_bytes());
        let begun = hit("log.trim").map_err(|e| e.to_string());
        let written = begun.and_then(|()| self.db.write(batch).map_err(rocksdb::Error::into_string));
        written.map_err(|why| poison(&self.synced, why))
    }

    fn end(&self) -> watch::Receiver<u64> {
        self.end.clone()
    }
}

struct LogWriter {
    db: Arc<DB>,
    synced: Arc<Synced>,
    space: Arc<Space>,
    waiting: Arc<AtomicUsize>,
    end: watch::Sender<u64>,
}

impl LogWriter {
    fn run(mut self, inbox: &Receiver<Append>) {
        while let Ok(first) = inbox.recv() {
            let mut group = vec![first];
            let (mut entries, mut bytes) = (0, 0);
            while entries < GROUP_ENTRIES && bytes < GROUP_BYTES {
                if let Some(last) = group.last() {
                    entries += last.entries.len();
                    bytes += last.entries.iter().map(Vec::len).sum::<usize>();
                }
                match inbox.try_recv() {
                    Ok(append) => group.push(append),
                    Err(_) => break,
                }
            }
            pass("log.batch_formed");
            self.write(group);
        }
    }

    fn write(&mut self, group: Vec<Append>) {
        let written = self.put(&group);
        for (n, append) in group.into_iter().enumerate() {
            self.waiting.fetch_sub(append.entries.iter().map(Vec::len).sum(), Ordering::Relaxed);
            let position = |ends: &Vec<u64>| ends.get(n).copied().unwrap_or_default();
            // A caller that has gone away no longer waits for the answer.
            let _ = append.answer.send(written.as_ref().map(position).map_err(Clone::clone));
        }
    }

    /// Writes a group and waits until it is on disk; the position of the last entry of each append.
    fn put(&mut self, group: &[Append]) -> Result<Vec<u64>, Error> {
        if let Some(why) = self.synced.poisoned() {
            return Err(Error::Poisoned(why));
        }
        let mut end = *self.end.borrow();
        let mut batch = WriteBatch::default();
        let mut ends = Vec::with_capacity(group.len());
        let handle = family(&self.db, FAMILY)?;
        for append in group {
            for entry in &append.entries {
                end += 1;
                batch.put_cf(handle, end.to_be_bytes(), entry);
            }
            ends.push(end);
        }
        self.space.admit(batch.size_in_bytes()).map_err(Error::Full)?;
        let written = self.to_disk(batch, end);
        written.map(|()| ends).map_err(|why| poison(&self.synced, why))
    }

    fn to_disk(&self, batch: WriteBatch, end: u64) -> Result<(), String> {
        let failed = rocksdb::Error::into_string;
        hit("log.write_before").map_err(|e| e.to_string())?;
        self.db.write(batch).map_err(failed)?;
        self.end.send_replace(end);
        // Whoever appended is answered after this.
        let through = self.db.latest_sequence_number();
        if !self.synced.covers(through, PATIENCE) {
            // After a sync that failed another that succeeds says nothing about what was to be synced by the first.
            self.unless_poisoned()?;
            self.db.flush_wal(true).map_err(failed)?;
            self.unless_poisoned()?;
        }
        self.synced.acknowledge(through, end).map_err(|e| e.to_string())?;
        hit("log.write_after").map_err(|e| e.to_string())
    }

    fn unless_poisoned(&self) -> Result<(), String> {
        self.synced.poisoned().map_or(Ok(()), Err)
    }
}

/// Closes log and store for good.
fn poison(synced: &Synced, why: String) -> Error {
    synced.poison(&why);
    Error::Poisoned(synced.poisoned().unwrap_or(why))
}
