//! [`Engine`]: the handle everything else holds. Commits, runs' numbers, marks, the outbox, the end.
//!
//! | file | what |
//! |---|---|
//! | `catalog` | which datasets there are |
//! | `journal` | what happened, for people |
//! | `open` | from a data folder to an engine that runs |
//! | `write` | records by hand |
//! | `sync` | a source, asked once |
//! | `read` | records, changes, one record |
//! | `follow` | changes as they come |

mod catalog;
mod follow;
mod journal;
mod open;
mod read;
mod sync;
mod write;

pub(super) use catalog::Catalog;
pub use follow::{ChangeStream, DatasetFilter, FOLLOW_CHANGES, FollowedChange};
pub use sync::{SyncBuilder, SyncRun};
pub use write::WriteBuilder;

use super::Keyspace;
use super::batch::{BATCH_BYTES, BATCH_RECORDS, Batch, Mark, PageBuilder, Receipt};
use super::committer::{Last, Live, Names};
use super::messages::{BatchReply, ReplyReceiver, SequencerMessage, Submission};
use super::replicate::{LogEntry, ReplicatedLog};
use super::sequencer::Windows;
use super::{Dataset, Error};
use crate::dataflow::views::Registry;
use crate::log::Log;
use crate::model::content::KeySeed;
use crate::model::{CursorKey, Position, Via};
use crate::sink::Delivery;
use crate::state::EpochWork;
use crate::store::Store;
use crate::store::catalog::RUN_NUMBER;
use crate::store::journal::JournalThread;
use crate::time::Clock;
use crossbeam_channel::Sender;
use parking_lot::{Mutex, RwLock};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// KiB that may be on their way through the engine before callers wait.
const ROOM_KIB: u32 = 64 << 10;
/// Run numbers are reserved in blocks, so that most cost no write.
const RUN_BLOCK: u64 = 1_000;
/// Between two looks at a disk that was too full.
const LOOK: Duration = Duration::from_millis(250);
/// Bits of a run's number that count within its part.
const PART_BITS: u32 = 40;

/// The engine. Cheap to clone; the last clone to go stops the workers after what was accepted is committed.
///
/// ```
/// use serde_json::json;
/// use syncline_engine::{Engine, model::*, pipeline::*};
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::open(Options::default()).unwrap();
/// let spec = DatasetSpec::of(Strategy::Latest);
/// let contacts = engine.dataset(&DatasetName::base("default", "crm", "acme", "Contact"), &spec).unwrap();
/// let receipt = engine.write(&contacts).upsert(json!({"id": "1", "name": "Ada"})).commit().await.unwrap();
/// assert_eq!(receipt.counts_of(&contacts).added, 1);
/// assert_eq!(engine.record(&contacts, "1").await.unwrap().unwrap().meta.action, Action::Added);
/// # });
/// ```
#[derive(Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<Store>,
    log: Arc<dyn Log>,
    /// Set where batches of runs go through the log.
    replicated: Option<Arc<ReplicatedLog>>,
    part: u16,
    clock: Arc<dyn Clock>,
    workers: usize,
    seed: KeySeed,
    secret: [u8; 32],
    catalog: RwLock<Catalog>,
    names: Names,
    windows: Windows,
    live: Live,
    last: Last,
    watermark: watch::Receiver<Position>,
    outbox: watch::Receiver<u64>,
    room: Arc<Semaphore>,
    inbox: Sender<SequencerMessage>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    journal: JournalThread,
    run_number: AtomicU64,
    run_reserved: Mutex<u64>,
    /// Which datasets views read and write, if there are any.
    views: Option<Arc<Registry>>,
    /// Declared last: goes after the store that lives in it is closed.
    _folder: Option<tempfile::TempDir>,
}

impl Engine {
    /// A builder for records of `dataset` that come in bulk; see [`PageBuilder`], and [`write`](Engine::write) for a few.
    pub fn page(&self, dataset: &Dataset) -> PageBuilder {
        PageBuilder::new(dataset.id, self.inner.workers, self.inner.seed.clone())
    }

    /// Commits a batch: one engine time, atomic. Returns when it is durable and visible.
    /// Waits (back-pressure) while too much is on its way.
    pub async fn commit(&self, batch: Batch) -> Result<Receipt, Error> {
        check(&batch)?;
        self.submit_and_wait(batch, Vec::new(), false).await
    }

    /// Hands a batch over and returns once it has its place behind all handed over before it; its outcome is waited for
    /// with [`PendingCommit::receipt`]. So several commits can be on their way without losing their order, which polling
    /// several [`commit`](Engine::commit)s at once does not promise.
    pub async fn submit(&self, batch: Batch) -> Result<PendingCommit, Error> {
        check(&batch)?;
        self.begin(batch, Vec::new(), false).await
    }

    /// The same for a dataset that was made by a view; `None` if it has become somebody else's, whose records a batch of the
    /// view's has nothing to do with.
    pub(super) async fn hand_over_for_view(
        &self,
        dataset: &Dataset,
        batch: Batch,
    ) -> Result<Option<PendingCommit>, Error> {
        let room = self.room_for(&batch).await?;
        let (answer, answered) = BatchReply::new(None);
        // Held until the batch has its place: whoever takes the dataset over comes behind it.
        let catalog = self.inner.catalog.read();
        if !catalog.of_views.contains(&dataset.id) {
            return Ok(None);
        }
        self.enqueue(batch, Vec::new(), false, answer, Some(room))?;
        Ok(Some(PendingCommit(answered)))
    }

    /// Takes an entry of the log that the engine itself had put there: a batch of a run, or a claim. Entries are to be
    /// entered in the order of the log; `marks` (the place behind the entry) are stored in the same commit.
    ///
    /// A batch of an owner that was replaced before the entry is not applied; its marks are.
    pub async fn apply_logged(&self, entry: &[u8], marks: Vec<Mark>) -> Result<PendingCommit, Error> {
        let Some(replicated) = &self.inner.replicated else {
            return Err(Error::BadBatch("this engine keeps its own log; it has no entries of the engine's".to_owned()));
        };
        match replicated.open_entry(entry, self.inner.workers, &self.inner.seed)? {
            LogEntry::Batch(mut batch, waiter) => {
                batch.marks.extend(marks);
                let room = self.room_for(&batch).await?;
                let (answer, answered) = BatchReply::new(waiter);
                self.enqueue(batch, Vec::new(), false, answer, Some(room))?;
                Ok(PendingCommit(answered))
            }
            LogEntry::Marks(more) => {
                let marks = marks.into_iter().chain(more).collect();
                self.begin(Batch { marks, ..Batch::default() }, Vec::new(), false).await
            }
        }
    }

    /// Makes this engine the one whose batches count: appends a claim to the log and waits until it was read, and all before it
    /// is committed. Returns the number of the term; `Fenced` if another owner was quicker.
    pub async fn acquire_term(&self, owner: &str) -> Result<u64, Error> {
        match &self.inner.replicated {
            Some(replicated) => {
                let term = replicated.acquire_term(&*self.inner.log, owner).await?;
                // The claim was read behind all entries before it, whose batches may still be on their way to their commit.
                self.submit_and_wait(Batch::default(), Vec::new(), false).await?;
                Ok(term)
            }
            None => Ok(0),
        }
    }

    async fn submit_and_wait(&self, batch: Batch, extra: Vec<EpochWork>, announce: bool) -> Result<Receipt, Error> {
        self.begin(batch, extra, announce).await?.receipt().await
    }

    async fn begin(&self, batch: Batch, extra: Vec<EpochWork>, announce: bool) -> Result<PendingCommit, Error> {
        let room = self.room_for(&batch).await?;
        if let Some(replicated) = &self.inner.replicated
            && extra.is_empty()
            && batch.cause.is_some_and(|cause| cause.via == Via::Poll)
        {
            return replicated.append(&*self.inner.log, &batch).await.map(PendingCommit);
        }
        let (answer, answered) = BatchReply::new(None);
        self.enqueue(batch, extra, announce, answer, Some(room))?;
        Ok(PendingCommit(answered))
    }

    /// Waits for the room a batch takes while it is on its way, and records that are new here also for room on the disk: what
    /// webhooks bring lies on it already.
    async fn room_for(&self, batch: &Batch) -> Result<OwnedSemaphorePermit, Error> {
        if !batch.pages.is_empty() && batch.cause.is_some_and(|cause| cause.via != Via::Webhook) {
            self.until_taken().await?;
        }
        let bytes: usize = batch.pages.iter().map(PageBuilder::bytes).sum();
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(ROOM_KIB).min(ROOM_KIB);
        self.inner.room.clone().acquire_many_owned(kib).await.map_err(|_| Error::Stopped)
    }

    fn enqueue(
        &self,
        batch: Batch,
        extra: Vec<EpochWork>,
        announce: bool,
        answer: BatchReply,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Error> {
        let submission = Submission { batch, extra, announce, answer, room };
        self.inner.inbox.send(SequencerMessage::Submit(submission)).map_err(|_| Error::Stopped)
    }

    /// A number for a new run; rising, unique in this store.
    pub fn next_run(&self) -> Result<u64, Error> {
        let mut reserved = self.inner.run_reserved.lock();
        let number = self.inner.run_number.fetch_add(1, Ordering::Relaxed) + 1;
        if number > *reserved {
            let mut batch = self.inner.store.batch();
            self.inner.store.put_system(&mut batch, RUN_NUMBER, &(number + RUN_BLOCK).to_be_bytes());
            self.inner.store.write_synced(batch)?;
            *reserved = number + RUN_BLOCK;
        }
        Ok(u64::from(self.inner.part) << PART_BITS | number)
    }

    /// The part of the installation that gave a number to a run; 0 where there is only one.
    pub fn part_of(run: u64) -> u16 {
        (run >> PART_BITS) as u16
    }

    /// Why nothing more is written, once a write has failed: the engine has to be opened again.
    pub fn failed(&self) -> Option<String> {
        self.inner.store.poisoning()
    }

    /// Waits for that.
    pub async fn until_failed(&self) -> String {
        let mut poison = self.inner.store.disk().1.watch_poison();
        match poison.wait_for(Option::is_some).await {
            Ok(why) => why.clone().unwrap_or_default(),
            // The store holds the sender, and this the store.
            Err(_) => std::future::pending().await,
        }
    }

    /// Why nothing new is taken, while too little of the disk is free; see [`Options::min_free`](super::Options::min_free).
    pub fn refusing(&self) -> Option<String> {
        self.inner.store.disk().0.look().map(|full| full.to_string())
    }

    /// Waits until what is new is taken.
    pub async fn until_taken(&self) -> Result<(), Error> {
        while self.refusing().is_some() {
            if self.inner.room.is_closed() {
                return Err(Error::Stopped);
            }
            tokio::time::sleep(LOOK).await;
        }
        Ok(())
    }

    /// Bytes of the disk that are kept free, and that are free; `None` if it is not watched.
    pub fn disk(&self) -> Option<(u64, u64)> {
        self.inner.store.disk().0.figures()
    }

    /// The durable log for what cannot be read again.
    pub fn log(&self) -> Arc<dyn Log> {
        self.inner.log.clone()
    }

    /// Everything below this position is committed and visible; changes wake the watcher.
    pub fn watermark(&self) -> watch::Receiver<Position> {
        self.inner.watermark.clone()
    }

    /// Prunes payloads of records up to and including `until`, at most `limit`. Returns how many, and the position of the
    /// last one looked at.
    pub async fn prune(
        &self,
        dataset: &Dataset,
        until: Position,
        limit: usize,
    ) -> Result<(u64, Option<Position>), Error> {
        let candidates = self.inner.store.prunable(dataset.id, until, limit)?;
        let last = candidates.last().map(|(_, position)| Position(*position));
        if candidates.is_empty() {
            return Ok((0, None));
        }
        let work = EpochWork::Prune { dataset: dataset.id, records: Arc::new(candidates), slot: 0 };
        let receipt = self.submit_and_wait(Batch::default(), vec![work], false).await?;
        Ok((receipt.pruned, last))
    }

    /// Drops all records, history and windows of a dataset. Positions handed out earlier find nothing of it; see
    /// [`emptied_since`](Engine::emptied_since).
    pub async fn clear(&self, dataset: &Dataset) -> Result<(), Error> {
        let batch = Batch { close: vec![super::WindowOp::Abort(dataset.clone())], ..Batch::default() };
        self.submit_and_wait(batch, vec![EpochWork::Clear { dataset: dataset.id }], false).await.map(drop)
    }

    /// A stored mark.
    pub fn mark(&self, keyspace: Keyspace, key: &[&str]) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.inner.store.mark(keyspace.number(), key)?)
    }

    /// Marks whose key begins with these parts, in order of (length, text) part by part: (remaining parts, value).
    pub fn marks(&self, keyspace: Keyspace, prefix: &[&str]) -> Result<Vec<(Vec<String>, Vec<u8>)>, Error> {
        Ok(self.inner.store.marks(keyspace.number(), prefix)?)
    }

    /// The same one by one, behind the mark with the remaining parts `after`, until `each` returns false: (remaining parts,
    /// value).
    pub fn marks_after(
        &self,
        keyspace: Keyspace,
        prefix: &[&str],
        after: &[&str],
        each: &mut dyn FnMut(Vec<String>, &[u8]) -> bool,
    ) -> Result<(), Error> {
        Ok(self.inner.store.marks_after(keyspace.number(), prefix, after, each)?)
    }

    /// Stores marks alone, durably.
    pub async fn put_marks(&self, marks: Vec<Mark>) -> Result<(), Error> {
        self.commit(Batch { marks, ..Batch::default() }).await.map(drop)
    }

    /// Owed deliveries, oldest first, at most `limit`.
    pub fn outbox(&self, limit: usize) -> Result<Vec<Delivery>, Error> {
        Ok(self.inner.store.outbox(limit)?)
    }

    /// Owed deliveries that became owed after the one with this id, oldest first, at most `limit`.
    pub fn outbox_after(&self, after: Option<&str>, limit: usize) -> Result<Vec<Delivery>, Error> {
        Ok(self.inner.store.outbox_after(after, limit)?)
    }

    /// One delivery, if it is still owed.
    pub fn delivery(&self, id: &str) -> Result<Option<Delivery>, Error> {
        Ok(self.inner.store.delivery(id)?)
    }

    /// Wakes when the outbox may have new entries.
    pub fn outbox_changed(&self) -> watch::Receiver<u64> {
        self.inner.outbox.clone()
    }

    /// Records the outcome of an attempt: `None` = delivered (removed), `Some` = the entry with its new `tries`, `next_at`.
    pub async fn settle(&self, id: &str, after: Option<Delivery>) -> Result<(), Error> {
        let (store, id) = (self.inner.store.clone(), id.to_owned());
        let written = tokio::task::spawn_blocking(move || store.settle(&id, after.as_ref())).await;
        Ok(written.map_err(|_| Error::Stopped)??)
    }

    /// Makes a checkpoint in the data folder, in the place of an earlier one: what a backup is made of.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        let store = self.inner.store.clone();
        Ok(tokio::task::spawn_blocking(move || store.checkpoint()).await.map_err(|_| Error::Stopped)??)
    }

    /// Makes notices of what webhooks changed since the last call; called about twice a second.
    pub async fn announce_webhooks(&self) -> Result<(), Error> {
        self.submit_and_wait(Batch::default(), Vec::new(), true).await.map(drop)
    }

    /// The key that signs cursors of this installation.
    pub fn cursor_key(&self) -> CursorKey {
        CursorKey::new(&self.secret("cursors"))
    }

    /// A secret of this installation for `purpose`, 32 bytes, stable.
    pub fn secret(&self, purpose: &str) -> [u8; 32] {
        derive(&self.inner.secret, purpose)
    }

    /// The clock the engine was opened with.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock.clone()
    }

    /// Refuses new batches, commits what was accepted, stops the workers.
    pub async fn stop(&self) -> Result<(), Error> {
        self.inner.room.close();
        if let Some(replicated) = &self.inner.replicated {
            replicated.give_up(&Error::Stopped);
        }
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || inner.join()).await.map_err(|_| Error::Stopped)
    }
}

/// A batch that was handed over. It is committed whether or not somebody waits for it.
#[derive(Debug)]
pub struct PendingCommit(pub(super) ReplyReceiver);

impl PendingCommit {
    /// What the batch did, once it is durable and visible.
    pub async fn receipt(self) -> Result<Receipt, Error> {
        self.await
    }
}

impl Future for PendingCommit {
    type Output = Result<Receipt, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context).map(|receipt| receipt.unwrap_or(Err(Error::Stopped)))
    }
}

impl Inner {
    fn join(&self) {
        let _ = self.inbox.send(SequencerMessage::Stop);
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            let _ = thread.join();
        }
        self.journal.stop();
        // Files instead of a write-ahead log: the next start is quicker. A failure costs only that.
        let _ = self.store.flush();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.threads.lock().is_empty() {
            self.join();
        }
    }
}

fn derive(secret: &[u8; 32], purpose: &str) -> [u8; 32] {
    use sha2::{Digest, Sha256};
    let mut hasher = Sha256::new();
    hasher.update(secret);
    hasher.update(purpose.as_bytes());
    hasher.finalize().into()
}

fn check(batch: &Batch) -> Result<(), Error> {
    let rows: usize = batch.pages.iter().map(PageBuilder::len).sum();
    if batch.pages.iter().any(|page| page.overflow) || rows > BATCH_RECORDS {
        return Err(Error::BadBatch(format!(
            "more than {BATCH_RECORDS} records or {BATCH_BYTES} bytes; commit it in parts"
        )));
    }
    if rows > 0 && batch.cause.is_none() {
        return Err(Error::BadBatch("records without a cause; name the run, webhook or push".to_owned()));
    }
    Ok(())
}
