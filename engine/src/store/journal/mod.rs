//! What happened, for people: one line for each run that ended, each webhook, each attempt to deliver.
//!
//! Promises: nothing is decided from it, so losing it loses history and nothing else. Who writes a line never waits and never fails;
//! what finds no room is counted, and a line says how many are missing. It is kept by age and size ([`JournalBounds`]), holds no secrets
//! ([`redact`]), and neither delays a commit nor closes the store. A killed process loses the last tenth of a second of it, a
//! loss of power what the system had not written yet.
//! Does not: go to a changelog. Each process keeps what it did itself. A backup has it, as it has every file of the store.
//!
//! ```text
//! write() ──► queue (bounded) ──► one thread: batches, not synced ──► family `journal`: time → line ──► read(), the newest first
//! ```
//!
//! | file | what |
//! |---|---|
//! | `line` | a line, its kinds, how it is stored |
//! | `redact` | what is left out |
//! | `queue`, `writer` | from the caller to the disk |
//! | `read` | pages |
//! | `expire` | what is too old or too much |

mod expire;
mod line;
mod queue;
mod read;
mod redact;
#[cfg(test)]
mod tests;
mod writer;

pub use line::{DETAILS_BYTES, JournalKind, JournalLine, TEXT_BYTES};
pub use read::{JournalPage, JournalSelection, PAGE_LINES, PAGE_LOOKED_AT};

use super::{Error, Result, Store, keys};
use crate::model::Timestamp;
use crate::time::Clock;
use parking_lot::Mutex;
use queue::Queue;
use rocksdb::ReadOptions;
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use writer::Writer;

/// How much of the journal is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalBounds {
    /// Most bytes on the disk: the oldest lines go. 0 keeps none.
    pub bytes: u64,
    /// Lines older than this go.
    pub age: Duration,
}

impl Default for JournalBounds {
    /// 2 GiB and 30 days.
    fn default() -> Self {
        JournalBounds { bytes: 2 << 30, age: Duration::from_secs(30 * 24 * 3_600) }
    }
}

/// The journal of an engine. Cheap to clone. One that outlives its engine takes nothing and reads nothing.
///
/// ```
/// use syncline_engine::{Engine, pipeline::Options, store::journal::{JournalLine, JournalSelection}};
/// let engine = Engine::open(Options::temporary()).unwrap();
/// let journal = engine.journal();
/// journal.write(JournalLine::webhook("whk_1", "applied").environment("default").source("crm"));
/// journal.settle();
/// let page = journal.read(&JournalSelection { source: Some("crm".into()), ..Default::default() }, 10).unwrap();
/// assert_eq!(page.lines[0].id, "whk_1");
/// ```
#[derive(Clone)]
pub struct Journal(Arc<Shared>);

struct Shared {
    queue: Queue,
    bounds: JournalBounds,
    store: Weak<Store>,
}

impl Journal {
    /// Hands a line over. Never waits for the disk, never fails.
    pub fn write(&self, line: JournalLine) {
        if self.0.bounds.bytes > 0 {
            self.0.queue.push(line.encode());
        }
    }

    /// Lines that meet `selection`, the newest first, at most `limit` ([`PAGE_LINES`]) of at most [`PAGE_LOOKED_AT`] that are looked at.
    /// Blocks: it reads the disk.
    pub fn read(&self, selection: &JournalSelection, limit: usize) -> Result<JournalPage> {
        let closed = || Error::Disk("the journal is closed: the engine has stopped".to_owned());
        read::read(&*self.0.store.upgrade().ok_or_else(closed)?, &self.0, selection, limit)
    }

    /// Waits until all that was handed over before is written, or given up, and what is too old or too much is gone. Blocks.
    pub fn settle(&self) {
        self.0.queue.settle();
    }

    /// Lines that are lost since the engine was opened: they came too fast, or the disk did not take them.
    pub fn lost(&self) -> u64 {
        self.0.queue.lost()
    }

    /// Bytes it takes on the disk and in memory; 0 once the engine has stopped.
    pub fn bytes(&self) -> u64 {
        self.0.store.upgrade().and_then(|store| expire::size(&store).ok()).map_or(0, |size| size.iter().sum())
    }
}

/// The journal with its thread, as the engine holds it.
pub(crate) struct JournalThread {
    journal: Journal,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl JournalThread {
    /// Goes on behind the last line there is.
    pub(crate) fn start(store: &Arc<Store>, clock: Arc<dyn Clock>, bounds: JournalBounds) -> Result<JournalThread> {
        let mut scan = store.scan(super::Family::Journal, ReadOptions::default());
        scan.seek_to_last();
        scan.status()?;
        let last = scan.key().map_or(Timestamp(0), time_of);
        drop(scan);
        let shared = Arc::new(Shared { queue: Queue::new(clock, last), bounds, store: Arc::downgrade(store) });
        let writer = Writer::new(store.clone(), shared.clone());
        let thread = std::thread::Builder::new().name("syncline-journal".to_owned()).spawn(move || writer.run());
        let thread = Mutex::new(Some(thread.map_err(|e| Error::Disk(e.to_string()))?));
        Ok(JournalThread { journal: Journal(shared), thread })
    }

    pub(crate) fn journal(&self) -> Journal {
        self.journal.clone()
    }

    /// Takes nothing more, and returns once all that was taken is written.
    pub(crate) fn stop(&self) {
        self.journal.0.queue.close();
        if let Some(thread) = self.thread.lock().take() {
            let _ = thread.join();
        }
    }
}

impl Drop for JournalThread {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The key of a line: its time. There is none before the epoch.
fn key(at: Timestamp) -> [u8; 8] {
    at.0.max(0).cast_unsigned().to_be_bytes()
}

fn time_of(key: &[u8]) -> Timestamp {
    Timestamp(keys::number(key, 0).cast_signed())
}
