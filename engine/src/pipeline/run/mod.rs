//! A run: one execution of a sync, from the first page to the deletes.
//!
//! ```text
//! listing ──► (again, if missing records are confirmed by a second look) ──► listings of deleted records ──► settle
//!    each page: poll with retries ──► quarantine ──► one commit of records, bookmark, notes, run record
//!    settle: missing? ──► confirm ──► guard ──► sweep, announce, end      (one commit)
//! ```
//!
//! Promises: a bookmark is committed with the page before it; a run interrupted anywhere goes on there with the same
//! number and window; only a listing proven complete deletes, in one commit; nothing is deleted beyond the guard without
//! approval. Everything the next run has to know ([`Progress`]) is in the commit that ends this one.
//! Does not: decide when a run is due, or what it asks for (see [`Progress::next_part`]).

mod drive;
mod held;
pub mod program;
mod progress;
mod record;
mod settle;

pub use held::{Hold, held};
pub use program::{
    EVENT_BYTES, EVENT_WALL, EventOrder, EventReport, ProgramOrder, Told, event, event_checkpoint, program,
};
pub use progress::{LOOKBACK_DELETES, LOOKBACK_WITHOUT_DATE, Progress, RUNS_KEPT};
pub use record::{Outcome, RunRecord, RunState};
pub use settle::{approve, reject};

use super::{Dataset, Engine, Error, Keyspace};
use crate::model::{Counts, DatasetName};
use crate::source::{Connection, Part, Source};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// Holds suspicious deletes for approval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeleteGuard {
    /// More than this share …
    pub max_fraction: f64,
    /// … of a dataset of at least so many live records.
    pub min_count: u64,
}

impl DeleteGuard {
    /// Whether so many deletes are too many to go without approval.
    pub fn holds(&self, live: u64, missing: u64) -> bool {
        live >= self.min_count && missing as f64 > self.max_fraction * live as f64
    }
}

/// What a run is to do.
#[derive(Clone, Debug)]
pub struct Order {
    /// Where records go.
    pub dataset: Dataset,
    /// Name of the sync, for notices.
    pub sync: String,
    /// Hash of the definition, for the record.
    pub definition: String,
    /// The account.
    pub connection: Arc<Connection>,
    /// What to ask for, unless an earlier run stopped on its way: then this one goes on there, with that one's window.
    pub part: Part,
    /// Listings of deleted records that are due, by index.
    pub deletes: Vec<usize>,
    /// When deletes are held; `None` never.
    pub guard: Option<DeleteGuard>,
    /// The run fails when it takes longer.
    pub timeout: Duration,
    /// Begin anew even if an earlier run stopped on its way.
    pub fresh: bool,
    /// Seed of the jitter of waits.
    pub seed: u64,
}

impl Order {
    /// A complete listing of one account: what it does not name is deleted. No guard, an hour's time.
    pub fn full(dataset: &Dataset, connection: Connection) -> Order {
        Order {
            dataset: dataset.clone(),
            sync: dataset.name.model.to_string(),
            definition: String::new(),
            connection: Arc::new(connection),
            part: Part::Full,
            deletes: Vec::new(),
            guard: None,
            timeout: Duration::from_secs(3_600),
            fresh: false,
            seed: 0,
        }
    }
}

/// What a running run is told from outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Halt {
    /// Go on.
    #[default]
    No,
    /// The process stops: leave everything as it is; the run goes on after the next start.
    Stop,
    /// End the run as cancelled. What it read stays.
    Cancel,
}

/// How a run went.
#[derive(Clone, Debug)]
pub struct RunEndReport {
    /// Its number; the id on the wire is `Cause::run(run)`.
    pub run: u64,
    /// What was stored of it. `status` is [`Outcome::Running`] if the process was told to stop.
    pub record: RunRecord,
    /// Whether it went on where an earlier one had stopped.
    pub resumed: bool,
    /// What the sync knows now.
    pub progress: Progress,
}

impl RunEndReport {
    /// What the run did, record by record.
    pub fn counts(&self) -> Counts {
        self.record.counts
    }
}

/// The run of this dataset, or of a program's sync by its name, that the end of the process interrupted, if there is one: it goes
/// on when the sync runs next.
pub fn interrupted(engine: &Engine, dataset: &DatasetName) -> Result<Option<RunRecord>, Error> {
    let stored = engine.mark(Keyspace::BOOKMARK, &progress::scope(dataset))?;
    match stored.and_then(|bytes| RunState::decode(&bytes)) {
        Some(journey) => Ok(Some(journey.record).filter(|record| record.status == Outcome::Running)),
        None => program::interrupted(engine, dataset),
    }
}

/// Runs `order`. `tell` hears of every page; it must be quick.
///
/// An error is a failure of the engine, not of the run: nothing more could be stored.
pub async fn run(
    engine: &Engine,
    source: Arc<dyn Source>,
    order: Order,
    halt: watch::Receiver<Halt>,
    tell: &(dyn Fn(&RunRecord, Option<u64>) + Send + Sync),
) -> Result<RunEndReport, Error> {
    drive::RunDriver::begin(engine, source, order, halt, tell)?.finish().await
}
