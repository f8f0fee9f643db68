//! Following: [`Engine::follow`] is a stream of changes that waits for new commits.
//!
//! Promises: each change after the cursor once and in order of commit; it sleeps until something is committed and never asks
//! in between; it reads ahead one [`ChangePage`](crate::pipeline::ChangePage) at most. Every change comes with the cursor
//! behind it: a reader that stores both in one step meets each change exactly once, over restarts too.

use super::Engine;
use crate::model::{Change, Cursor, DatasetName, Position};
use crate::pipeline::{Dataset, Error};
use futures_util::stream::{self, BoxStream, Stream, StreamExt};
use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::watch;

/// Most changes that are read ahead.
pub const FOLLOW_CHANGES: usize = 256;

/// Which datasets are read.
#[derive(Clone)]
pub enum DatasetFilter {
    /// These.
    These(Vec<Dataset>),
    /// Those whose name is taken, also when they are made later.
    Named(Arc<dyn Fn(&DatasetName) -> bool + Send + Sync>),
}

impl DatasetFilter {
    /// All datasets, those of views and those made later included.
    pub fn all() -> DatasetFilter {
        DatasetFilter::named(|_| true)
    }

    /// Datasets by name, also when they are made later.
    ///
    /// ```
    /// # use syncline_engine::pipeline::DatasetFilter;
    /// let contacts_of_all_accounts = DatasetFilter::named(|name| &*name.source == "crm" && &*name.model == "Contact");
    /// ```
    pub fn named(takes: impl Fn(&DatasetName) -> bool + Send + Sync + 'static) -> DatasetFilter {
        DatasetFilter::Named(Arc::new(takes))
    }

    fn of(&self, engine: &Engine) -> Vec<Dataset> {
        match self {
            DatasetFilter::These(datasets) => datasets.clone(),
            DatasetFilter::Named(takes) => engine.every_dataset().into_iter().filter(|d| takes(&d.name)).collect(),
        }
    }
}

impl From<&Dataset> for DatasetFilter {
    fn from(dataset: &Dataset) -> Self {
        DatasetFilter::These(vec![dataset.clone()])
    }
}

impl From<&[Dataset]> for DatasetFilter {
    fn from(datasets: &[Dataset]) -> Self {
        DatasetFilter::These(datasets.to_vec())
    }
}

/// A change as a follower meets it.
#[derive(Clone, Debug)]
pub struct FollowedChange {
    /// Whose record it is.
    pub dataset: Dataset,
    /// What changed.
    pub change: Change,
    /// The place behind it: [`follow`](Engine::follow) with it begins with the next change.
    pub next: Cursor,
}

/// Changes, one after the other, without an end; see [`Engine::follow`].
pub struct ChangeStream(BoxStream<'static, Result<FollowedChange, Error>>);

impl Stream for ChangeStream {
    type Item = Result<FollowedChange, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next_unpin(context)
    }
}

impl Engine {
    /// The changes of some datasets after a cursor, and those to come. Ends after an error, and when the engine stops; dropping
    /// it leaves nothing behind.
    ///
    /// ```
    /// use futures_util::TryStreamExt;
    /// # use syncline_engine::{Engine, model::*, pipeline::*};
    /// # use serde_json::json;
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// # let engine = Engine::open(Options::temporary())?;
    /// # let name = DatasetName::base("default", "desk", "me", "Note");
    /// # let notes = engine.dataset(&name, &DatasetSpec::of(Strategy::Override))?;
    /// let mut changes = engine.follow(&notes, Cursor::START);
    /// engine.write(&notes).upsert(json!({"id": "a"})).upsert(json!({"id": "b"})).commit().await?;
    /// let first = changes.try_next().await?.expect("it has no end");
    ///
    /// // Later, perhaps in another process: on from there.
    /// let mut changes = engine.follow(&notes, first.next);
    /// let second = changes.try_next().await?.expect("it has no end");
    /// assert_ne!(first.change.id(), second.change.id());
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    pub fn follow(&self, datasets: impl Into<DatasetFilter>, after: Cursor) -> ChangeStream {
        let follower = Follower {
            engine: self.clone(),
            datasets: datasets.into(),
            place: after,
            read: VecDeque::new(),
            committed: self.watermark(),
            ended: false,
        };
        ChangeStream(stream::unfold(follower, Follower::step).boxed())
    }
}

struct Follower {
    engine: Engine,
    datasets: DatasetFilter,
    place: Cursor,
    /// Read and not yet taken.
    read: VecDeque<FollowedChange>,
    committed: watch::Receiver<Position>,
    /// An error was told: nothing comes after it.
    ended: bool,
}

impl Follower {
    async fn step(mut self) -> Option<(Result<FollowedChange, Error>, Self)> {
        if self.ended {
            return None;
        }
        match self.next().await {
            Ok(change) => change.map(|change| (Ok(change), self)),
            Err(error) => {
                self.ended = true;
                Some((Err(error), self))
            }
        }
    }

    /// The next change; `None` once the engine has stopped.
    async fn next(&mut self) -> Result<Option<FollowedChange>, Error> {
        loop {
            if let Some(change) = self.read.pop_front() {
                return Ok(Some(change));
            }
            // Marked as seen before reading: a commit made while reading wakes the wait below.
            self.committed.mark_unchanged();
            if self.read_on().await? {
                continue;
            }
            // The watermark is told also when a commit has failed: then nothing more will come.
            if let Some(why) = self.engine.failed() {
                return Err(Error::Poisoned(why));
            }
            if self.committed.changed().await.is_err() {
                return Ok(None);
            }
        }
    }

    /// Reads the next page; whether there was anything on it.
    async fn read_on(&mut self) -> Result<bool, Error> {
        let (engine, datasets, place) = (self.engine.clone(), self.datasets.of(&self.engine), self.place);
        let read = move || {
            let page = engine.changes_page(&datasets, place, FOLLOW_CHANGES)?;
            // After reading, so that what was dropped meanwhile is noticed as well.
            for dataset in &datasets {
                if engine.emptied_since(dataset, place.position)? {
                    return Err(Error::Emptied(dataset.name.to_string()));
                }
            }
            Ok(page)
        };
        let page = tokio::task::spawn_blocking(read).await.map_err(|_| Error::Stopped)??;
        self.place = page.next;
        self.read.extend(page.changes.into_iter().map(|(dataset, change)| {
            let next = Cursor { position: change.meta.position, dataset: dataset.id };
            FollowedChange { dataset, change, next }
        }));
        Ok(!self.read.is_empty())
    }
}
