//! Reading on: changes page by page for a consumer that keeps its own place, and [`feed`], which hands them to a [`Sink`] and
//! keeps the place for it.
//!
//! Promises: nothing is passed over and nothing told twice by a consumer that goes on from its last cursor. A sink gets the
//! changes of a dataset in order, each engine time whole; its place is stored after it took them, so that a crash in between
//! repeats the last set: dataset and engine time tell which one it is.

use super::run::Halt;
use super::{Dataset, Engine, Error, Mark, Table};
use crate::fault;
use crate::model::{Change, Cursor, Position};
use crate::sink::{ChangeBatch, Sink};
use crate::source::{Failure, Retry};
use crate::time::{Backoff, Chance};
use tokio::sync::watch;

/// Some changes, and where to go on.
#[derive(Clone, Debug)]
pub struct ChangePage {
    /// In order of commit, each with its dataset.
    pub changes: Vec<(Dataset, Change)>,
    /// The place behind them: what the next page is asked for with.
    pub next: Cursor,
    /// Nothing more was committed when this was read.
    pub up_to_date: bool,
}

/// What is fed to a sink.
#[derive(Clone, Debug)]
pub struct Feed {
    /// Under this name its places are kept: a feed of the same name goes on where an earlier one stopped.
    pub name: String,
    /// The datasets, each with a place of its own.
    pub datasets: Vec<Dataset>,
    /// How often a failed delivery is tried again, and after which waits.
    pub retry: Retry,
}

/// Why a feed has ended.
#[derive(Clone, Debug)]
pub enum Fed {
    /// It was told to.
    Halted,
    /// The sink failed in a way that no further attempt may mend, or too often. What it did not take is not passed over: the
    /// next feed of this name begins with it.
    Refused(Failure),
}

impl Engine {
    /// At most `limit` changes after a place. Blocking; see [`Engine::changes`]. To sleep until there are more, wait for
    /// [`Engine::watermark`] to change.
    ///
    /// ```
    /// # use syncline_engine::{Engine, model::*, pipeline::*};
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let engine = Engine::open(Options::temporary()).unwrap();
    /// let spec = DatasetSpec::of(Strategy::Override);
    /// let notes = engine.dataset(&DatasetName::base("default", "desk", "me", "Note"), &spec).unwrap();
    /// for id in ["a", "b", "c"] {
    ///     let mut page = engine.page(&notes);
    ///     page.save(id, None, Timestamp::from_seconds(1), format!(r#"{{"id":"{id}"}}"#).as_bytes());
    ///     engine.commit(Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() }).await.unwrap();
    /// }
    /// let first = engine.changes_page(&[notes.clone()], Cursor::START, 2).unwrap();
    /// assert_eq!((first.changes.len(), first.up_to_date), (2, false));
    /// let rest = engine.changes_page(&[notes], first.next, 2).unwrap();
    /// assert_eq!((rest.changes.len(), rest.up_to_date), (1, true));
    /// # });
    /// ```
    pub fn changes_page(&self, datasets: &[Dataset], after: Cursor, limit: usize) -> Result<ChangePage, Error> {
        let mut page = ChangePage { changes: Vec::new(), next: after, up_to_date: true };
        self.changes(datasets, after, &mut |dataset, change| {
            page.up_to_date = page.changes.len() < limit;
            if page.up_to_date {
                page.next = Cursor { position: change.meta.position, dataset: dataset.id };
                page.changes.push((dataset.clone(), change));
            }
            page.up_to_date
        })?;
        Ok(page)
    }
}

/// Hands the changes of datasets to a sink, from where the last feed of this name stopped, until it is told to halt.
///
/// An error is one of the engine: nothing more can be read or stored.
pub async fn feed(engine: Engine, sink: impl Sink, feed: Feed, mut halt: watch::Receiver<Halt>) -> Result<Fed, Error> {
    let mut committed = engine.watermark();
    loop {
        committed.mark_unchanged();
        for dataset in &feed.datasets {
            while let Some((batch, to)) = next_set(&engine, &feed.name, dataset).await? {
                let place = Mark::put(Table::Place, &key(&feed.name, dataset), to.0.to_string());
                if fault::planted("sink_place_before_the_delivery") {
                    engine.put_marks(vec![place.clone()]).await?;
                }
                if let Some(end) = delivered(&engine, &sink, &batch, feed.retry, &mut halt).await {
                    return Ok(end);
                }
                engine.put_marks(vec![place]).await?;
            }
        }
        tokio::select! {
            moved = committed.changed() => moved.map_err(|_| Error::Stopped)?,
            () = halted(&mut halt) => return Ok(Fed::Halted),
        }
    }
}

/// Waits until it is told to halt; for ever if nobody can tell any more.
async fn halted(halt: &mut watch::Receiver<Halt>) {
    if halt.wait_for(|halt| *halt != Halt::No).await.is_err() {
        std::future::pending::<()>().await;
    }
}

fn key<'a>(feed: &'a str, dataset: &'a Dataset) -> [&'a str; 7] {
    let name = &*dataset.name;
    ["sink", feed, &name.environment, &name.source, &name.connection, &name.model, &name.variant]
}

/// What the next engine time changed in a dataset behind the stored place, and its last position.
async fn next_set(engine: &Engine, feed: &str, dataset: &Dataset) -> Result<Option<(ChangeBatch, Position)>, Error> {
    let stored = engine.mark(Table::Place, &key(feed, dataset))?;
    let place = stored.and_then(|text| String::from_utf8(text).ok()?.parse().ok()).map_or(Position::START, Position);
    let (engine, dataset) = (engine.clone(), dataset.clone());
    let read = move || {
        let mut batch = ChangeBatch { dataset: (*dataset.name).clone(), epoch: 0, changes: Vec::new() };
        let after = Cursor { position: place, dataset: dataset.id };
        engine.changes(std::slice::from_ref(&dataset), after, &mut |_, change| {
            let epoch = change.meta.position.epoch();
            if batch.changes.is_empty() {
                batch.epoch = epoch;
            }
            let same = epoch == batch.epoch;
            batch.changes.extend(same.then_some(change));
            same
        })?;
        let to = batch.changes.last().map(|change| change.meta.position);
        Ok(to.map(|to| (batch, to)))
    };
    tokio::task::spawn_blocking(read).await.map_err(|_| Error::Stopped)?
}

/// One set, tried until the sink takes it; why the feed ends, if it does.
async fn delivered(
    engine: &Engine,
    sink: &dyn Sink,
    batch: &ChangeBatch,
    retry: Retry,
    halt: &mut watch::Receiver<Halt>,
) -> Option<Fed> {
    let mut backoff = Backoff::new(retry.from, retry.to, retry.jitter, Chance::from_seed(batch.epoch));
    loop {
        if *halt.borrow() != Halt::No {
            return Some(Fed::Halted);
        }
        // An attempt under way is not cut off: a sink could not tell how far it came.
        let Err(failure) = sink.deliver(batch).await else { return None };
        if !failure.retry || backoff.tries() >= retry.max {
            return Some(Fed::Refused(failure));
        }
        let wait = backoff.next_wait().max(failure.retry_after.unwrap_or_default());
        tracing::warn!(dataset = %batch.dataset, time = batch.epoch, ?wait, why = failure.message, "a sink failed");
        let clock = engine.clock();
        tokio::select! {
            () = clock.sleep(wait) => {}
            () = halted(halt) => return Some(Fed::Halted),
        }
    }
}
