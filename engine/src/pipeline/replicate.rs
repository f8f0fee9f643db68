//! Batches of runs through a log elsewhere: appended before they are applied, applied in the order of the log, by the one
//! process whose term it is.
//!
//! Several processes may believe that a partition is theirs: one was paused and does not know yet. So the log itself decides.
//! A new owner appends a *claim* with the next number; from that place on only batches of its term count, and what the old
//! one still appends is passed over. The log's order is the same for every reader, so all agree.

use super::Keyspace;
use super::batch::{Batch, Mark, Receipt};
use super::messages::ReplyReceiver;
use super::{Error, entry};
use crate::log::{self, Log};
use crate::model::content::KeySeed;
use crate::model::{DatasetId, DatasetName};
use crate::store::Store;
use crate::store::catalog::DatasetEntry;
use crate::store::keys::DATASET;
use crate::time::entropy;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::oneshot;

/// First byte of entries of the engine's own. Others' entries begin otherwise.
const BATCH: u8 = 0xb1;
/// First byte of claims.
const CLAIM: u8 = 0xc1;
/// Kind, term, who (8 bytes) and number of the entry.
const LEAD: usize = 1 + 8 + 8 + 8;
/// Claims made before an owner gives up: so many others cannot be there by accident.
const TERMS_MAX: u32 = 8;
/// Where the number of the term is kept.
const TERM: [&str; 1] = ["reign"];

/// Whether an entry of the log is the engine's own.
pub(super) fn is_own(entry: &[u8]) -> bool {
    matches!(entry.first(), Some(&(BATCH | CLAIM)))
}

/// What an entry turned out to be.
pub(super) enum LogEntry {
    /// A batch that counts, and who waits for it here.
    Batch(Batch, Option<oneshot::Sender<Result<Receipt, Error>>>),
    /// Nothing to apply but these marks.
    Marks(Vec<Mark>),
}

/// One process's end of the log.
pub(super) struct ReplicatedLog {
    store: Arc<Store>,
    /// This engine among all that ever appended; by chance.
    who: u64,
    next: AtomicU64,
    /// The term as of the last entry.
    term: AtomicU64,
    /// Our own term; 0 before our claim was entered.
    ours: AtomicU64,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Result<Receipt, Error>>>>,
    claims: Mutex<HashMap<u64, oneshot::Sender<Result<u64, Error>>>>,
}

impl ReplicatedLog {
    pub(super) fn open(store: &Arc<Store>) -> Result<ReplicatedLog, Error> {
        let kept = store.mark(Keyspace::TERM.number(), &TERM)?;
        let term = kept.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes);
        let who = entropy().iter().take(8).fold(0, |n, byte| n << 8 | u64::from(*byte));
        Ok(ReplicatedLog {
            store: store.clone(),
            who,
            next: AtomicU64::new(0),
            term: AtomicU64::new(term),
            ours: AtomicU64::new(0),
            waiting: Mutex::default(),
            claims: Mutex::default(),
        })
    }

    /// Appends a batch; its outcome arrives once it was entered and committed.
    pub(super) async fn append(&self, log: &dyn Log, batch: &Batch) -> Result<ReplyReceiver, Error> {
        let term = self.ours.load(Ordering::Acquire);
        if term == 0 || term != self.term.load(Ordering::Acquire) {
            return Err(Error::Fenced("this process does not own the partition (any more)".to_owned()));
        }
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let mut bytes = lead(BATCH, term, self.who, ticket);
        entry::encode(batch, &mut bytes);
        let (to, outcome) = oneshot::channel();
        // First, and then the look at the store: whoever fails it afterwards tells all who wait.
        lock(&self.waiting).insert(ticket, to);
        if let Some(why) = self.store.poisoning() {
            lock(&self.waiting).remove(&ticket);
            return Err(Error::Poisoned(why));
        }
        if let Err(error) = log.append(vec![bytes]).await {
            // It may be there all the same; whoever reads the log finds out, and nobody here waits for it.
            lock(&self.waiting).remove(&ticket);
            return Err(from_log(error));
        }
        Ok(outcome)
    }

    /// Claims the next term. A number that was taken before our claim was read is an earlier owner's, as a rule: the next
    /// one is tried.
    pub(super) async fn acquire_term(&self, log: &dyn Log, owner: &str) -> Result<u64, Error> {
        let mut tries = 1;
        loop {
            match self.claim_next(log, owner).await {
                Err(Error::Fenced(_)) if tries < TERMS_MAX => tries += 1,
                claimed => return claimed,
            }
        }
    }

    /// Appends a claim and waits until it was entered.
    async fn claim_next(&self, log: &dyn Log, owner: &str) -> Result<u64, Error> {
        let term = self.term.load(Ordering::Acquire) + 1;
        let ticket = self.next.fetch_add(1, Ordering::Relaxed);
        let mut bytes = lead(CLAIM, term, self.who, ticket);
        bytes.extend_from_slice(owner.as_bytes());
        let (to, outcome) = oneshot::channel();
        lock(&self.claims).insert(ticket, to);
        if let Some(why) = self.store.poisoning() {
            lock(&self.claims).remove(&ticket);
            return Err(Error::Poisoned(why));
        }
        log.append(vec![bytes]).await.map_err(from_log)?;
        outcome.await.unwrap_or(Err(Error::Stopped))
    }

    /// Tells all who wait that nothing more will be entered here. What they appended may be entered by another owner.
    pub(super) fn give_up(&self, why: &Error) {
        for (_, waiter) in lock(&self.waiting).drain() {
            let _ = waiter.send(Err(why.clone()));
        }
        for (_, waiter) in lock(&self.claims).drain() {
            let _ = waiter.send(Err(why.clone()));
        }
    }

    /// Reads an entry in its turn.
    pub(super) fn open_entry(&self, bytes: &[u8], workers: usize, seed: &KeySeed) -> Result<LogEntry, Error> {
        let damaged = || Error::BadBatch("an entry of the log is cut short".to_owned());
        let (head, body) = bytes.split_at_checked(LEAD).ok_or_else(damaged)?;
        let number = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_le_bytes);
        let (kind, term, who, ticket) = (head[0], number(1), number(9), number(17));
        let mine = who == self.who;
        let known = self.term.load(Ordering::Acquire);
        match kind {
            CLAIM => Ok(LogEntry::Marks(self.take_claim(term, known, mine, ticket))),
            BATCH if term == known => {
                let waiter = if mine { lock(&self.waiting).remove(&ticket) } else { None };
                let find = |id: DatasetId| self.name_of(id);
                Ok(LogEntry::Batch(entry::decode(body, workers, seed, &find)?, waiter))
            }
            BATCH => {
                tracing::warn!(term, known, "a batch of an owner that was replaced is passed over");
                if let Some(waiter) = mine.then(|| lock(&self.waiting).remove(&ticket)).flatten() {
                    let _ = waiter.send(Err(Error::Fenced("the partition has another owner now".to_owned())));
                }
                Ok(LogEntry::Marks(Vec::new()))
            }
            _ => Err(Error::BadBatch(format!("an entry of the log is of an unknown kind {kind}"))),
        }
    }

    /// The first claim to a number has it.
    fn take_claim(&self, term: u64, known: u64, mine: bool, ticket: u64) -> Vec<Mark> {
        let accepted = term > known;
        if accepted {
            self.term.store(term, Ordering::Release);
            self.ours.store(if mine { term } else { 0 }, Ordering::Release);
        }
        if let Some(waiter) = mine.then(|| lock(&self.claims).remove(&ticket)).flatten() {
            let fenced = || Error::Fenced("another process has claimed the partition".to_owned());
            let _ = waiter.send(if accepted { Ok(term) } else { Err(fenced()) });
        }
        if accepted { vec![Mark::put(Keyspace::TERM, &TERM, term.to_be_bytes())] } else { Vec::new() }
    }

    fn name_of(&self, id: DatasetId) -> Option<Arc<DatasetName>> {
        let entry = self.store.named_one::<DatasetEntry>(DATASET, u64::from(id.0)).ok().flatten();
        entry.map(|entry| Arc::new(entry.name()))
    }
}

fn lead(kind: u8, term: u64, who: u64, ticket: u64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(LEAD + 256);
    bytes.push(kind);
    for n in [term, who, ticket] {
        bytes.extend_from_slice(&n.to_le_bytes());
    }
    bytes
}

fn lock<T>(mutex: &Mutex<T>) -> parking_lot::MutexGuard<'_, T> {
    mutex.lock()
}

fn from_log(error: log::Error) -> Error {
    match error {
        log::Error::Fenced(text) => Error::Fenced(text),
        log::Error::TooLarge { .. } => Error::BadBatch(error.to_string()),
        other => Error::Remote(other.to_string()),
    }
}
