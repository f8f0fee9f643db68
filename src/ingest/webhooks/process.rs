//! From the log to commits: every entry once and in order, several commits on their way at a time.

use super::prepare::{Prepared, prepare, refused};
use super::{HooksInner, add, refetch::RefetchRequest};
use crate::engine::fault::pass;
use crate::engine::model::Cause;
use crate::engine::pipeline::{Batch, Error, Mark, PendingCommit, Receipt, Table, is_own};
use crate::engine::source::Quarantined;
use crate::engine::store::journal::JournalLine;
use crate::engine::{Engine, fault};
use crate::ingest::dedup::Reserved;
use crate::telemetry::record;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tokio_util::sync::CancellationToken;

/// Entries read at a time.
const PAGE: usize = 32;
/// Commits on their way at a time.
const IN_FLIGHT_MAX: usize = 256;
/// Bytes of entries whose commits are on their way.
const IN_FLIGHT_BYTES: usize = 64 * 1024 * 1024;
/// Name of our place in the log.
const PLACE: &str = "webhooks";

/// The mark of having processed everything up to `position`.
pub(super) fn mark(position: u64) -> Mark {
    Mark::put(Table::Place, &[PLACE], position.to_string())
}

/// Up to where the log was processed.
pub(crate) fn place(engine: &Engine) -> Result<u64, Error> {
    let stored = engine.mark(Table::Place, &[PLACE])?;
    match stored.map(|value| String::from_utf8_lossy(&value).parse::<u64>()) {
        None => Ok(0),
        Some(Ok(position)) => Ok(position),
        Some(Err(_)) => Err(Error::Storage("the stored place in the webhook log is not a number".into())),
    }
}

/// A commit on its way.
struct PendingWebhook {
    position: u64,
    bytes: usize,
    commit: PendingCommit,
    reserved: Vec<Reserved>,
    refetches: Vec<RefetchRequest>,
    line: Option<JournalLine>,
}

/// Processes entries as they come until `stop` is cancelled or the store fails.
pub(super) async fn run(inner: Arc<HooksInner>, stop: CancellationToken) -> Result<(), Error> {
    let mut end = inner.parts.engine.log().end();
    loop {
        // Marked as seen before reading: an entry appended while reading wakes the wait below.
        end.borrow_and_update();
        tokio::select! {
            done = catch_up(&inner) => match done {
                Err(Error::Stopped) => return Ok(()),
                done => done?,
            },
            () = stop.cancelled() => return Ok(()),
        }
        tokio::select! {
            changed = end.changed() => if changed.is_err() { return Ok(()) },
            () = stop.cancelled() => return Ok(()),
        }
    }
}

/// Processes what is in the log now.
pub(super) async fn catch_up(inner: &HooksInner) -> Result<(), Error> {
    let _turn = inner.turn.lock().await;
    let mut pending = PendingWebhooks::default();
    let log = inner.parts.engine.log();
    let mut after = inner.processed.load(Ordering::Acquire);
    loop {
        let entries = log.read(after, PAGE)?;
        if entries.is_empty() {
            return pending.complete_all(inner).await;
        }
        pass("proc.batch_read");
        for (position, bytes) in entries {
            pending.make_room(inner).await?;
            pending.dispatch(inner, position, &bytes).await?;
            after = position;
        }
    }
}

#[derive(Default)]
struct PendingWebhooks {
    queue: VecDeque<PendingWebhook>,
    bytes: usize,
}

impl PendingWebhooks {
    async fn make_room(&mut self, inner: &HooksInner) -> Result<(), Error> {
        while self.queue.len() >= IN_FLIGHT_MAX || self.bytes >= IN_FLIGHT_BYTES {
            self.complete(inner).await?;
        }
        Ok(())
    }

    async fn dispatch(&mut self, inner: &HooksInner, position: u64, bytes: &Bytes) -> Result<(), Error> {
        if is_own(bytes) {
            return self.apply_logged(inner, position, bytes).await;
        }
        let Prepared { batch, reserved, refetches, line } = prepare(inner, position, bytes)?;
        if fault::planted("dedupe_key_outside_the_batch") {
            let keys = batch.marks.iter().filter(|mark| mark.table == Table::Dedupe).cloned().collect();
            inner.parts.engine.put_marks(keys).await?;
        }
        let commit = match inner.parts.engine.submit(batch).await {
            Ok(commit) => commit,
            Err(error) => {
                inner.dedup.release(&reserved);
                return match error {
                    Error::BadBatch(why) => give_up(inner, position, &why).await,
                    error => Err(error),
                };
            }
        };
        self.bytes += bytes.len();
        self.queue.push_back(PendingWebhook { position, bytes: bytes.len(), commit, reserved, refetches, line });
        Ok(())
    }

    /// An entry that the engine had put there itself: a batch of a run that goes through the log.
    async fn apply_logged(&mut self, inner: &HooksInner, position: u64, bytes: &Bytes) -> Result<(), Error> {
        match inner.parts.engine.apply_logged(bytes, vec![mark(position)]).await {
            Ok(commit) => {
                let bytes = bytes.len();
                self.bytes += bytes;
                self.queue.push_back(PendingWebhook {
                    position,
                    bytes,
                    commit,
                    reserved: Vec::new(),
                    refetches: Vec::new(),
                    line: None,
                });
                Ok(())
            }
            Err(Error::BadBatch(why)) => give_up(inner, position, &why).await,
            Err(error) => Err(error),
        }
    }

    async fn complete(&mut self, inner: &HooksInner) -> Result<(), Error> {
        let Some(oldest) = self.queue.pop_front() else { return Ok(()) };
        let result = oldest.commit.receipt().await;
        self.bytes = self.bytes.saturating_sub(oldest.bytes);
        inner.dedup.release(&oldest.reserved);
        match result {
            Ok(receipt) => {
                record::committed(&inner.parts.engine, &receipt);
                rejected(inner, &Cause::webhook(oldest.position).to_string(), &receipt).await?;
                inner.refetches.add(oldest.refetches);
                if let Some(line) = oldest.line {
                    inner.parts.engine.journal().write(line);
                }
                inner.committed();
            }
            // The sender of the batch hears it too; here it only must not stand in the way.
            Err(Error::NoWindow(_)) => inner.parts.engine.put_marks(vec![mark(oldest.position)]).await?,
            Err(error) => return Err(error),
        }
        pass("proc.position_commit");
        inner.processed.store(oldest.position, Ordering::Release);
        Ok(())
    }

    async fn complete_all(&mut self, inner: &HooksInner) -> Result<(), Error> {
        while !self.queue.is_empty() {
            self.complete(inner).await?;
        }
        Ok(())
    }
}

/// Says what of a committed batch was no record; `batch` names it among all of its request.
pub(super) async fn rejected(inner: &HooksInner, batch: &str, receipt: &Receipt) -> Result<(), Error> {
    if receipt.rejected.is_empty() {
        return Ok(());
    }
    let position = batch.split('.').next().and_then(Cause::parse).map_or(0, |cause| cause.number);
    let mut marks = Vec::with_capacity(receipt.rejected.len());
    for (n, (dataset, why)) in receipt.rejected.iter().enumerate() {
        add(&inner.tally.rejected, 1);
        let what = Quarantined { code: "bad_record", message: why.clone(), id: None, item: String::new() };
        let Some(name) = inner.parts.engine.name_of(*dataset) else { continue };
        let place = [&*name.environment, &*name.source, &*name.connection, &*name.model];
        marks.push(inner.quarantine(place, &format!("{batch}.record.{n}"), position, &what)?);
    }
    inner.parts.engine.commit(Batch { marks, ..Batch::default() }).await.map(drop)
}

/// The engine refused the batch as such: say so in its place, and go on behind it.
async fn give_up(inner: &HooksInner, position: u64, why: &str) -> Result<(), Error> {
    tracing::error!(webhook = %Cause::webhook(position), why, "webhook could not be committed");
    let prepared = refused(inner, position, mark(position), "bad_batch", why)?;
    inner.parts.engine.commit(prepared.batch).await.map(drop)
}
