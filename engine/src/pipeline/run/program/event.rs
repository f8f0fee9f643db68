//! An event that a program takes: what it writes about it, its checkpoint and the marks that say it is done are one commit.
//!
//! Promises: killed anywhere, an event is done or it is not, and what is executed again has its effect once. A program that fails
//! leaves nothing behind. Two cases end the batch early, and a repetition then finds its own records unchanged: a read of what was
//! just written, and more than [`EVENT_BYTES`].

use super::commit::{ObservedTimes, pages};
use super::drive::refused;
use crate::fault::hit;
use crate::model::{Cause, DatasetName, Failure, Timestamp};
use crate::pipeline::run::drive::{RunStop, failure};
use crate::pipeline::run::progress::event_scope;
use crate::pipeline::{Batch, Dataset, Engine, Error, Keyspace, Mark, Receipt};
use crate::source::Connection;
use crate::source::program::{Call, EventAsk, Handed, Inlet, LogLine, Program, Step, channel};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of records that are one commit; more are several.
pub const EVENT_BYTES: usize = 16 << 20;

/// Longest execution for an event, as a rule.
pub const EVENT_WALL: Duration = Duration::from_secs(3_600);

/// What a program is to do about an event.
#[derive(Clone, Debug)]
pub struct EventOrder {
    /// The sync: the checkpoint of its events is kept under this name, beside that of its runs.
    pub sync: DatasetName,
    /// Where the records of each model go.
    pub datasets: BTreeMap<String, Dataset>,
    /// The account.
    pub connection: Arc<Connection>,
    /// The event, as the program reads it.
    pub event: Bytes,
    /// What is behind the changes that follow.
    pub cause: Cause,
    /// When it came, by our clock.
    pub received_at: Timestamp,
    /// It fails when it takes longer.
    pub timeout: Duration,
    /// Stored in the commit that ends it.
    pub done: Vec<Mark>,
}

/// How it went.
#[derive(Debug)]
pub struct EventReport {
    /// What was committed: one as a rule, none if the program failed.
    pub receipts: Vec<Receipt>,
    /// Whether the program came to its end.
    pub ended: Result<(), Failure>,
}

/// Lets `program` take an event. `tell` is told its lines at once, and must be quick.
///
/// An error is a failure of the engine, not of the program: whether the event is done is known after the next start.
///
/// ```
/// use syncline_engine::{Engine, model::*, pipeline::{run::*, *}, source::{*, program::*}};
///
/// /// Notes who called.
/// struct Calls;
///
/// #[async_trait::async_trait]
/// impl Program for Calls {
///     async fn run(&self, _: &ProgramAsk, _: &mut Outlet) -> Result<(), Failure> {
///         Ok(())
///     }
///
///     async fn event(&self, ask: &EventAsk, out: &mut Outlet) -> Result<(), Failure> {
///         out.save("Call", "1", &ask.event).await
///     }
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::open(Options::temporary())?;
/// let calls = engine.dataset(&DatasetName::base("default", "phone", "ours", "Call"), &DatasetSpec::of(Strategy::Override))?;
/// let order = EventOrder {
///     sync: DatasetName::base("default", "phone", "ours", "calls"),
///     datasets: [("Call".to_owned(), calls.clone())].into(),
///     connection: Connection::default().into(),
///     event: r#"{"id":"1","from":"Ada"}"#.into(),
///     cause: Cause::webhook(7),
///     received_at: Timestamp::from_seconds(10),
///     timeout: std::time::Duration::from_secs(60),
///     done: vec![Mark::delete(Keyspace::new(64), &["7"])],
/// };
/// let report = event(&engine, &Calls, order, &|_| {}).await?;
/// assert_eq!((report.ended, report.receipts[0].counts_of(&calls).added), (Ok(()), 1));
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
pub async fn event(
    engine: &Engine,
    program: &dyn Program,
    order: EventOrder,
    tell: &(dyn Fn(&LogLine) + Send + Sync),
) -> Result<EventReport, Error> {
    let checkpoint = event_checkpoint(engine, &order.sync)?;
    let observed = ObservedTimes::from(order.received_at);
    let driver = EventDriver {
        engine,
        order,
        tell,
        batch: Batch::default(),
        bytes: 0,
        checkpoint: None,
        observed,
        receipts: Vec::new(),
    };
    driver.finish(program, checkpoint).await
}

/// The checkpoint of the events of a sync.
pub fn event_checkpoint(engine: &Engine, sync: &DatasetName) -> Result<Option<Bytes>, Error> {
    Ok(engine.mark(Keyspace::BOOKMARK, &event_scope(sync))?.map(Bytes::from))
}

struct EventDriver<'a> {
    engine: &'a Engine,
    order: EventOrder,
    tell: &'a (dyn Fn(&LogLine) + Send + Sync),
    /// What is not committed yet.
    batch: Batch,
    bytes: usize,
    /// A checkpoint that is not committed yet.
    checkpoint: Option<Option<Bytes>>,
    observed: ObservedTimes,
    receipts: Vec<Receipt>,
}

impl EventDriver<'_> {
    async fn finish(mut self, program: &dyn Program, checkpoint: Option<Bytes>) -> Result<EventReport, Error> {
        let ended = match self.execute(program, checkpoint).await {
            Ok(()) => {
                self.batch.marks.append(&mut self.order.done);
                self.commit().await
            }
            Err(stop) => Err(stop),
        };
        let ended = match ended {
            Ok(()) => Ok(()),
            Err(RunStop::Engine(error)) => return Err(error),
            Err(RunStop::Failed(why)) => Err(why),
            Err(RunStop::Halted | RunStop::Cancelled) => return Err(Error::Stopped),
        };
        Ok(EventReport { receipts: self.receipts, ended })
    }

    async fn execute(&mut self, program: &dyn Program, checkpoint: Option<Bytes>) -> Result<(), RunStop> {
        let clock = self.engine.clock();
        let ask = self.ask(checkpoint.clone());
        let (mut outlet, mut inlet) = channel(clock.clone(), self.order.datasets.keys().cloned(), checkpoint);
        let deadline = clock.now().plus(self.order.timeout);
        // The outlet goes with it: then nothing more will come.
        let work = async move { program.event(&ask, &mut outlet).await };
        let attended = async {
            self.attend(work, &mut inlet).await?;
            while let Some(handed) = inlet.next().await {
                self.act(handed).await?;
            }
            Ok(())
        };
        tokio::select! {
            biased;
            ended = attended => ended,
            () = clock.sleep_until(deadline) => {
                let why = format!("the event was not done after {:?}", self.order.timeout);
                Err(RunStop::Failed(failure("timeout", why)))
            }
        }
    }

    async fn attend(
        &mut self,
        work: impl Future<Output = Result<(), Failure>>,
        inlet: &mut Inlet,
    ) -> Result<(), RunStop> {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                biased;
                Some(handed) = inlet.next() => self.act(handed).await?,
                ended = &mut work => return ended.map_err(RunStop::Failed),
            }
        }
    }

    async fn act(&mut self, handed: Handed) -> Result<(), RunStop> {
        let call = match handed {
            Handed::Step(step) => return self.take(step.step).await,
            Handed::Call(call) => call,
        };
        if !matches!(call, Call::WindowEnd { .. }) {
            self.commit().await?;
        }
        // Who asked may be gone; the answer is not needed then.
        let datasets = &self.order.datasets;
        match call {
            Call::Barrier { answer } => drop(answer.send(Ok(()))),
            Call::WindowEnd { answer, .. } => drop(answer.send(Err(no_listing()))),
            Call::Records { model, ids, answer } => {
                drop(answer.send(Ok(super::reads::records(self.engine, datasets, &model, &ids).await?)));
            }
            Call::List { model, after, answer } => {
                drop(answer.send(Ok(super::reads::list(self.engine, datasets, &model, after).await?)));
            }
        }
        Ok(())
    }

    async fn take(&mut self, mut step: Step) -> Result<(), RunStop> {
        if step.models().any(|(_, model)| model.window_start) {
            return Err(RunStop::Failed(no_listing()));
        }
        let bytes = step.bytes();
        if self.bytes > 0 && self.bytes + bytes > EVENT_BYTES {
            self.commit().await?;
        }
        self.bytes += bytes;
        self.batch.pages.extend(pages(self.engine, &self.order.datasets, &mut self.observed, &step)?);
        step.take_lines().iter().for_each(|line| (self.tell)(line));
        if step.checkpoint.is_some() {
            self.checkpoint = step.checkpoint;
        }
        Ok(())
    }

    /// Commits what there is; nothing if there is nothing.
    async fn commit(&mut self) -> Result<(), RunStop> {
        let mut batch = std::mem::take(&mut self.batch);
        self.bytes = 0;
        if let Some(checkpoint) = self.checkpoint.take() {
            let key = event_scope(&self.order.sync);
            batch.marks.push(match checkpoint {
                Some(bytes) => Mark::put(Keyspace::BOOKMARK, &key, bytes.to_vec()),
                None => Mark::delete(Keyspace::BOOKMARK, &key),
            });
        }
        if batch.pages.is_empty() && batch.marks.is_empty() {
            return Ok(());
        }
        batch.cause = (!batch.pages.is_empty()).then_some(self.order.cause);
        hit("poll.append_before")?;
        self.receipts.push(self.engine.commit(batch).await.map_err(refused)?);
        Ok(())
    }

    fn ask(&self, checkpoint: Option<Bytes>) -> EventAsk {
        EventAsk {
            sync: self.order.sync.model.to_string(),
            models: self.order.datasets.keys().cloned().collect(),
            connection: Arc::clone(&self.order.connection),
            variant: self.order.sync.variant.to_string(),
            event: self.order.event.clone(),
            number: self.order.cause.number,
            received_at: self.order.received_at,
            checkpoint,
        }
    }
}

fn no_listing() -> Failure {
    Failure::lasting(
        "no_window",
        "an event is no listing: what it does not name is not gone, so it has no window of deletes",
    )
}
