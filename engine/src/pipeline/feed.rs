//! Reading on: changes page by page for a consumer that keeps its own place, and [`Engine::feed`], which hands them to a
//! [`Sink`] and keeps the place for it.
//!
//! Promises: nothing is passed over and nothing told twice by a consumer that goes on from its last cursor. A sink gets the
//! changes of a dataset in order, each engine time whole; its place is stored after it took them, so that a crash in between
//! repeats the last set: dataset and engine time tell which one it is.

use super::{Dataset, Engine, Error, Keyspace, Mark};
use crate::fault;
use crate::model::{Change, Cursor, DatasetId, Failure, Position};
use crate::sink::{ChangeBatch, Sink};
use crate::time::{Backoff, Chance};
use futures_util::future::{Fuse, FutureExt};
use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};

/// Bytes of changes after which a page ends, however few they are.
pub const PAGE_BYTES: usize = 8 << 20;

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

/// Why a feed has ended.
#[derive(Clone, Debug)]
pub enum Fed {
    /// It was told to, or the engine has stopped.
    Halted,
    /// The sink failed in a way that no further attempt may mend, or too often. What it did not take is not passed over: the
    /// next feed of this name begins with it.
    Refused(Failure),
}

impl Engine {
    /// At most `limit` changes after a place, or [`PAGE_BYTES`] of them: what there is now, without waiting for more as
    /// [`follow`](Engine::follow) does. Blocking; see [`Engine::changes`].
    ///
    /// ```
    /// # use syncline_engine::{Engine, model::*, pipeline::*};
    /// # use serde_json::json;
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let engine = Engine::open(Options::temporary())?;
    /// # let spec = DatasetSpec::of(Strategy::Override);
    /// # let notes = engine.dataset(&DatasetName::base("default", "desk", "me", "Note"), &spec)?;
    /// for id in ["a", "b", "c"] {
    ///     engine.write(&notes).upsert(json!({"id": id})).commit().await?;
    /// }
    /// let first = engine.changes_page(&[notes.clone()], Cursor::START, 2)?;
    /// assert_eq!((first.changes.len(), first.up_to_date), (2, false));
    /// let rest = engine.changes_page(&[notes], first.next, 2)?;
    /// assert_eq!((rest.changes.len(), rest.up_to_date), (1, true));
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    pub fn changes_page(&self, datasets: &[Dataset], after: Cursor, limit: usize) -> Result<ChangePage, Error> {
        let mut page = ChangePage { changes: Vec::new(), next: after, up_to_date: true };
        let mut bytes = 0;
        self.changes(datasets, after, &mut |dataset, change| {
            page.up_to_date = page.changes.len() < limit && bytes < PAGE_BYTES;
            if page.up_to_date {
                bytes += [&change.before, &change.after].into_iter().flatten().map(|json| json.len()).sum::<usize>();
                page.next = Cursor { position: change.meta.position, dataset: dataset.id };
                page.changes.push((dataset.clone(), change));
            }
            page.up_to_date
        })?;
        Ok(page)
    }

    /// Hands the changes of the datasets that `sink` takes to it, those made later included, until `halt` is ready. `name` is
    /// what its places are stored under: a feed of the same name goes on where the last one stopped.
    ///
    /// An attempt under way is not cut off by `halt`. An error is one of the engine: nothing more can be read or stored.
    ///
    /// ```
    /// use syncline_engine::{Engine, model::*, pipeline::*, sink::*};
    ///
    /// struct Printer;
    ///
    /// #[async_trait::async_trait]
    /// impl Sink for Printer {
    ///     async fn deliver(&self, batch: &ChangeBatch) -> Result<(), Failure> {
    ///         batch.changes.iter().for_each(|change| println!("{} {}", change.meta.action.as_str(), change.id()));
    ///         Ok(())
    ///     }
    /// }
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let engine = Engine::open(Options::temporary())?;
    /// let feeding = tokio::spawn(engine.feed("printer", Printer, std::future::pending()));
    /// engine.stop().await?;
    /// assert!(matches!(feeding.await, Ok(Ok(Fed::Halted))));
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    pub fn feed(
        &self,
        name: &str,
        sink: impl Sink,
        halt: impl Future<Output = ()> + Send + 'static,
    ) -> impl Future<Output = Result<Fed, Error>> + Send + 'static {
        let feeder = Feeder { engine: self.clone(), name: name.to_owned(), sink, places: HashMap::new() };
        async move {
            match feeder.run(halt).await {
                // What was handed on and not noted comes again with the next feed.
                Err(Error::Stopped) => Ok(Fed::Halted),
                ended => ended,
            }
        }
    }
}

/// A sink, and how far it has come.
struct Feeder<S> {
    engine: Engine,
    name: String,
    sink: S,
    /// By dataset; read from the store when a dataset is met first.
    places: HashMap<DatasetId, Position>,
}

/// Ready once, when the feed is to end.
type HaltSignal<'a> = Pin<&'a mut (dyn Future<Output = ()> + Send)>;

impl<S: Sink> Feeder<S> {
    async fn run(mut self, halt: impl Future<Output = ()> + Send) -> Result<Fed, Error> {
        let mut halt: Pin<&mut Fuse<_>> = pin!(halt.fuse());
        let mut committed = self.engine.watermark();
        loop {
            committed.mark_unchanged();
            for dataset in self.engine.every_dataset() {
                if self.sink.takes(&dataset.name)
                    && let Some(end) = self.catch_up(&dataset, halt.as_mut()).await?
                {
                    return Ok(end);
                }
            }
            tokio::select! {
                moved = committed.changed() => if moved.is_err() {
                    return Ok(Fed::Halted);
                },
                () = halt.as_mut() => return Ok(Fed::Halted),
            }
        }
    }

    /// Hands on what a dataset has behind its place; why the feed ends, if it does.
    async fn catch_up(&mut self, dataset: &Dataset, mut halt: HaltSignal<'_>) -> Result<Option<Fed>, Error> {
        let mut place = match self.places.get(&dataset.id) {
            Some(place) => *place,
            None => self.stored_place(dataset)?,
        };
        while let Some((batch, to)) = next_set(&self.engine, dataset, place).await? {
            let mark = Mark::put(Keyspace::PLACE, &key(&self.name, dataset), to.0.to_string());
            if fault::planted("sink_place_before_the_delivery") {
                self.engine.put_marks(vec![mark.clone()]).await?;
            }
            if let Some(end) = self.delivered(&batch, halt.as_mut()).await {
                return Ok(Some(end));
            }
            self.engine.put_marks(vec![mark]).await?;
            place = to;
        }
        self.places.insert(dataset.id, place);
        Ok(None)
    }

    fn stored_place(&self, dataset: &Dataset) -> Result<Position, Error> {
        let stored = self.engine.mark(Keyspace::PLACE, &key(&self.name, dataset))?;
        let place = stored.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        Ok(place.map_or(Position::START, Position))
    }

    /// One set, tried until the sink takes it; why the feed ends, if it does.
    async fn delivered(&self, batch: &ChangeBatch, mut halt: HaltSignal<'_>) -> Option<Fed> {
        let retry = self.sink.retry();
        let mut backoff = Backoff::new(retry.from, retry.to, retry.jitter, Chance::from_seed(batch.epoch));
        loop {
            if futures_util::poll!(halt.as_mut()).is_ready() {
                return Some(Fed::Halted);
            }
            // An attempt under way is not cut off: a sink could not tell how far it came.
            let Err(failure) = self.sink.deliver(batch).await else { return None };
            if !failure.retry || backoff.tries() >= retry.max {
                return Some(Fed::Refused(failure));
            }
            let wait = backoff.next_wait().max(failure.retry_after.unwrap_or_default());
            let (dataset, sink) = (&batch.dataset, &self.name);
            tracing::warn!(%dataset, sink, time = batch.epoch, ?wait, why = failure.message, "a sink failed");
            let clock = self.engine.clock();
            tokio::select! {
                () = clock.sleep(wait) => {}
                () = halt.as_mut() => return Some(Fed::Halted),
            }
        }
    }
}

fn key<'a>(feed: &'a str, dataset: &'a Dataset) -> [&'a str; 7] {
    let name = &*dataset.name;
    ["sink", feed, &name.environment, &name.source, &name.connection, &name.model, &name.variant]
}

/// What the next engine time changed in a dataset behind a place, and its last position.
async fn next_set(
    engine: &Engine,
    dataset: &Dataset,
    place: Position,
) -> Result<Option<(ChangeBatch, Position)>, Error> {
    // Most datasets have nothing new: no thread is asked for them.
    if !engine.has_news(dataset, place) {
        return Ok(None);
    }
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
