//! Follows the log: every entry once and in order, several commits on their way at a time.
//!
//! Entries that the engine itself had put there, batches of runs and claims, are applied here. Those of others are made into
//! batches by an [`EntryProcessor`].
//!
//! Promises: the place behind an entry is part of the commit of its batch, so an entry has its effects exactly once, crash or
//! not; a batch that the engine refuses does not stand in the way of the next.

use super::Error;
use super::Keyspace;
use super::batch::{Batch, Mark, Receipt};
use super::engine::Engine;
use super::replicate::is_own;
use super::window::{CommitWindow, WindowBounds};
use crate::fault::pass;
use async_trait::async_trait;
use bytes::Bytes;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};

/// Entries read at a time.
const PAGE: usize = 32;
/// Commits on their way, and bytes of their entries.
const IN_FLIGHT: WindowBounds = WindowBounds { commits: 256, bytes: 64 << 20 };

/// Makes batches of the entries that others than the engine have put into the log.
#[async_trait]
pub trait EntryProcessor: Sync {
    /// What is to be known of an entry once its batch is committed.
    type Origin: Send;

    /// The batch of an entry. The place behind it is added to it.
    async fn batch(&self, position: u64, entry: &Bytes) -> Result<(Batch, Self::Origin), Error>;

    /// The batch that says in its place why the engine refused the batch of an entry, which may be one of the engine's own.
    async fn refused(&self, position: u64, origin: Option<Self::Origin>, why: &str) -> Result<Batch, Error>;

    /// The batch of an entry is committed, of the engine's own (`None`) as well.
    async fn committed(&self, position: u64, origin: Option<Self::Origin>, receipt: Receipt) -> Result<(), Error>;
}

/// Follows the log of an engine for one processor, whose place has a name.
pub struct LogFollower {
    engine: Engine,
    name: &'static str,
    /// Held by whoever reads on: order needs a single one.
    turn: tokio::sync::Mutex<()>,
    processed: AtomicU64,
}

/// Commits with the position of their entry.
type EntryWindow<P> = CommitWindow<(u64, Option<<P as EntryProcessor>::Origin>)>;

impl LogFollower {
    /// Goes on where the place of this name says. Nothing is read yet.
    pub fn open(engine: Engine, name: &'static str) -> Result<LogFollower, Error> {
        let processed = AtomicU64::new(LogFollower::place(&engine, name)?);
        Ok(LogFollower { engine, name, turn: tokio::sync::Mutex::new(()), processed })
    }

    /// Up to where the log was processed, as stored.
    pub fn place(engine: &Engine, name: &str) -> Result<u64, Error> {
        let stored = engine.mark(Keyspace::PLACE, &[name])?;
        match stored.map(|value| String::from_utf8_lossy(&value).parse::<u64>()) {
            None => Ok(0),
            Some(Ok(position)) => Ok(position),
            Some(Err(_)) => Err(Error::Storage(format!("the stored place `{name}` in the log is not a number"))),
        }
    }

    /// Position up to which the log was processed.
    pub fn processed(&self) -> u64 {
        self.processed.load(Ordering::Acquire)
    }

    /// Waits until no entry is being processed; none is before the answer is dropped.
    pub async fn hold(&self) -> impl Sized + '_ {
        self.turn.lock().await
    }

    /// Processes entries as they come until `stop` is over, the engine stops, or the store fails.
    pub async fn run<P: EntryProcessor>(&self, processor: &P, stop: impl Future<Output = ()>) -> Result<(), Error> {
        let mut stop = pin!(stop);
        let mut end = self.engine.log().end();
        loop {
            // Marked as seen before reading: an entry appended while reading wakes the wait below.
            end.borrow_and_update();
            tokio::select! {
                done = self.catch_up(processor) => match done {
                    Err(Error::Stopped) => return Ok(()),
                    done => done?,
                },
                () = &mut stop => return Ok(()),
            }
            tokio::select! {
                changed = end.changed() => if changed.is_err() { return Ok(()) },
                () = &mut stop => return Ok(()),
            }
        }
    }

    /// Processes what is in the log now.
    pub async fn catch_up<P: EntryProcessor>(&self, processor: &P) -> Result<(), Error> {
        let _turn = self.turn.lock().await;
        let mut window = EntryWindow::<P>::new(IN_FLIGHT);
        let log = self.engine.log();
        let mut after = self.processed();
        loop {
            let entries = log.read(after, PAGE)?;
            if entries.is_empty() {
                while self.complete(processor, &mut window).await? {}
                return Ok(());
            }
            pass("proc.batch_read");
            for (position, entry) in entries {
                while window.is_full() {
                    self.complete(processor, &mut window).await?;
                }
                self.submit(processor, &mut window, position, &entry).await?;
                after = position;
            }
        }
    }

    async fn submit<P: EntryProcessor>(
        &self,
        processor: &P,
        window: &mut EntryWindow<P>,
        position: u64,
        entry: &Bytes,
    ) -> Result<(), Error> {
        let place = self.mark(position);
        let refused = if is_own(entry) {
            let applied = self.engine.apply_logged(entry, vec![place]).await;
            window.push(applied, entry.len(), (position, None))?
        } else {
            let (mut batch, origin) = processor.batch(position, entry).await?;
            batch.marks.push(place);
            window.submit(&self.engine, batch, entry.len(), (position, Some(origin))).await?
        };
        let Some((why, (_, origin))) = refused else { return Ok(()) };
        tracing::error!(position, why, "an entry of the log could not be committed");
        let mut batch = processor.refused(position, origin, &why).await?;
        batch.marks.push(self.mark(position));
        self.engine.commit(batch).await.map(drop)
    }

    /// Completes the oldest; false if there is none.
    async fn complete<P: EntryProcessor>(&self, processor: &P, window: &mut EntryWindow<P>) -> Result<bool, Error> {
        let Some(((position, origin), result)) = window.oldest().await else { return Ok(false) };
        match result {
            Ok(receipt) => processor.committed(position, origin, receipt).await?,
            // The sender of the batch hears it too; here it only must not stand in the way.
            Err(Error::NoWindow(_)) => self.engine.put_marks(vec![self.mark(position)]).await?,
            Err(error) => return Err(error),
        }
        pass("proc.position_commit");
        self.processed.store(position, Ordering::Release);
        Ok(true)
    }

    /// The mark of having processed everything up to `position`.
    fn mark(&self, position: u64) -> Mark {
        Mark::put(Keyspace::PLACE, &[self.name], position.to_string())
    }
}
