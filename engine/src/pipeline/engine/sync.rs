//! Asking a source once: [`Engine::sync`] joins a [`Source`] with the run driver.
//!
//! Promises: what [`run`](fn@crate::pipeline::run::run) does. Dropping the future interrupts the run: what it committed stays, and the
//! next run of the dataset goes on behind it.

use super::Engine;
use crate::pipeline::run::{self, DeleteGuard, Halt, Order, Progress, RunEndReport};
use crate::pipeline::{Dataset, Error};
use crate::source::{Connection, Source};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

impl Engine {
    /// Begins a run of `source`. An `Arc` of a source is a source too, so that one may be asked again and again.
    ///
    /// ```
    /// use syncline_engine::{Engine, model::*, pipeline::*, source::*};
    ///
    /// struct Planets;
    ///
    /// #[async_trait::async_trait]
    /// impl Source for Planets {
    ///     async fn poll(&self, ask: &Ask, _after: Option<&Bookmark>) -> Result<Page, Failure> {
    ///         let planets = ["Mars", "Venus"].map(|id| ask.seen(id, serde_json::json!({"id": id})));
    ///         Ok(Page::last(planets.into()))
    ///     }
    /// }
    ///
    /// # tokio::runtime::Runtime::new().unwrap().block_on(async {
    /// let engine = Engine::open(Options::temporary())?;
    /// let name = DatasetName::base("default", "sky", "ours", "Planet");
    /// let planets = engine.dataset(&name, &DatasetSpec::of(Strategy::IgnoreIfModifiedAfter))?;
    /// let report = engine.sync(Planets).full(&planets).run().await?;
    /// assert_eq!(report.counts().added, 2);
    /// # Ok::<(), Error>(()) }).unwrap();
    /// ```
    pub fn sync(&self, source: impl Source) -> SyncBuilder {
        SyncBuilder { engine: self.clone(), source: Arc::new(source) }
    }
}

/// A source that is to be asked. Made by [`Engine::sync`].
#[must_use = "say what to ask for: `full` or `changed`"]
pub struct SyncBuilder {
    engine: Engine,
    source: Arc<dyn Source>,
}

impl SyncBuilder {
    /// Everything: what a listing that is proven complete does not name is deleted.
    pub fn full(self, dataset: &Dataset) -> SyncRun {
        self.order(dataset, None)
    }

    /// What changed since the last completed run, and `lookback` before it; everything the first time.
    pub fn changed(self, dataset: &Dataset, lookback: Duration) -> SyncRun {
        self.order(dataset, Some(lookback))
    }

    fn order(self, dataset: &Dataset, lookback: Option<Duration>) -> SyncRun {
        let name = &dataset.name;
        let (environment, id) = (name.environment.to_string(), name.connection.to_string());
        let connection = Connection { environment, id, ..Connection::default() };
        SyncRun { engine: self.engine, source: self.source, order: Order::full(dataset, connection), lookback }
    }
}

/// A run that is described but has not begun. Made by [`SyncBuilder`].
#[must_use = "nothing is asked before `run`"]
pub struct SyncRun {
    engine: Engine,
    source: Arc<dyn Source>,
    order: Order,
    lookback: Option<Duration>,
}

impl SyncRun {
    /// The account the source is asked for: credentials, metadata. Left out, it has the dataset's connection id and nothing else.
    pub fn connection(mut self, connection: Connection) -> Self {
        self.order.connection = Arc::new(connection);
        self
    }

    /// Holds deletes beyond this for approval; see [`run::approve`].
    pub fn guard(mut self, guard: DeleteGuard) -> Self {
        self.order.guard = Some(guard);
        self
    }

    /// The run fails when it takes longer; an hour if nothing is said.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.order.timeout = timeout;
        self
    }

    /// Runs to the end. An error is one of the engine; how the run went, a source that failed included, is in the report.
    pub async fn run(mut self) -> Result<RunEndReport, Error> {
        if let Some(lookback) = self.lookback {
            let progress = Progress::load(&self.engine, &self.order.dataset.name)?;
            self.order.part = progress.next_part(true, true, false, None, lookback, self.engine.clock().now());
        }
        let (_never, halt) = watch::channel(Halt::No);
        run::run(&self.engine, self.source, self.order, halt, &|_, _| {}).await
    }
}
