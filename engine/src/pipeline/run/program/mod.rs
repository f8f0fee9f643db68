//! A run of a [`Program`]: code that is in control hands over steps, and each becomes one commit.
//!
//! ```text
//! Program ──► Outlet ──► Inlet ──► step: windows, records of all models, checkpoint, run record ──► one commit
//!                          └─────► call: await all that is on its way, then answer (window's end, reads, barrier)
//! ```
//!
//! Promises: steps are committed in the order they were handed over, several on their way at a time; a checkpoint is in the commit
//! of the step it ends; a run that was interrupted is executed again from there under its number; a window may last over several
//! executions, and what it deletes is one commit; nothing is deleted beyond the guard without approval.
//!
//! | file | what |
//! |---|---|
//! | `drive` | the execution: what comes from the program, what comes back from the engine |
//! | `state` | what is stored to go on from |
//! | `commit` | from a step to a batch |
//! | `windows` | what is absent is deleted, held or left |
//! | `reads` | what a program reads of its own records |
//! | `end` | how a run ends |
//! | `event` | an event instead of a run: one commit |

mod commit;
mod drive;
mod end;
mod event;
mod reads;
mod state;
mod windows;

pub use event::{EVENT_BYTES, EVENT_WALL, EventOrder, EventReport, event, event_checkpoint};

use super::{DeleteGuard, Halt, RunEndReport, RunRecord};
use crate::model::{DatasetName, Timestamp};
use crate::pipeline::{Dataset, Engine, Error};
use crate::source::Connection;
use crate::source::program::{LogLine, Program};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// What a run of a program is to do.
#[derive(Clone, Debug)]
pub struct ProgramOrder {
    /// Under which name its state and its runs are kept: the sync's name stands in the place of the model. Names of models begin
    /// with a capital; one that does not cannot be taken for a model's.
    pub sync: DatasetName,
    /// Where the records of each model go.
    pub datasets: BTreeMap<String, Dataset>,
    /// Hash of the code, for the record.
    pub definition: String,
    /// The account.
    pub connection: Arc<Connection>,
    /// When deletes are held; `None` never. In a window that is in doubt its least number of records counts as 0.
    pub guard: Option<DeleteGuard>,
    /// Every run that begins without a checkpoint is a complete listing of all models: at its end what it did not bring is deleted.
    pub track_deletes: bool,
    /// The run fails when an execution takes longer.
    pub timeout: Duration,
    /// Begin anew, without checkpoint and windows, even if an earlier run stopped on its way.
    pub fresh: bool,
}

impl ProgramOrder {
    /// A run for one account that writes these datasets. No guard, an hour's time.
    pub fn new(sync: &str, datasets: &[Dataset], connection: Connection) -> ProgramOrder {
        let name = DatasetName::base(&connection.environment, "", &connection.id, sync);
        let named =
            datasets.first().map_or(name, |dataset| DatasetName { model: sync.into(), ..(*dataset.name).clone() });
        ProgramOrder {
            sync: named,
            datasets: datasets.iter().map(|dataset| (dataset.name.model.to_string(), dataset.clone())).collect(),
            definition: String::new(),
            connection: Arc::new(connection),
            guard: None,
            track_deletes: false,
            timeout: Duration::from_secs(3_600),
            fresh: false,
        }
    }
}

/// What is told of a run on its way.
#[derive(Clone, Copy, Debug)]
pub enum Told<'a> {
    /// How it stands, after each commit.
    Record(&'a RunRecord),
    /// A line, once the step it was said in is committed.
    Line(&'a LogLine),
}

/// Executes `program` as a run, from the checkpoint of its sync. `tell` must be quick.
///
/// An error is a failure of the engine, not of the run: nothing more could be stored.
///
/// ```
/// use syncline_engine::{Engine, model::*, pipeline::{run::*, *}, source::{*, program::*}};
///
/// /// People and where they live, told together.
/// struct Register;
///
/// #[async_trait::async_trait]
/// impl Program for Register {
///     async fn run(&self, ask: &ProgramAsk, out: &mut Outlet) -> Result<(), Failure> {
///         out.window_start("Person").await?;
///         out.request(ask.started_at).await?;
///         out.save("Person", "1", br#"{"id":"1","name":"Ada"}"#).await?;
///         out.save("Place", "7", br#"{"id":"7","city":"London"}"#).await?;
///         out.window_end("Person").await.map(drop)
///     }
/// }
///
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// let engine = Engine::open(Options::temporary())?;
/// let spec = DatasetSpec::of(Strategy::Override);
/// let of = |model| engine.dataset(&DatasetName::base("default", "town", "ours", model), &spec);
/// let order = ProgramOrder::new("register", &[of("Person")?, of("Place")?], Connection::default());
/// let (_never, halt) = tokio::sync::watch::channel(Halt::No);
/// let report = program(&engine, std::sync::Arc::new(Register), order, halt, &|_| {}).await?;
/// assert_eq!((report.counts().added, report.record.status), (2, Outcome::Complete));
/// # Ok::<(), Error>(()) }).unwrap();
/// ```
pub async fn program(
    engine: &Engine,
    program: Arc<dyn Program>,
    order: ProgramOrder,
    halt: watch::Receiver<Halt>,
    tell: &(dyn Fn(Told<'_>) + Send + Sync),
) -> Result<RunEndReport, Error> {
    drive::ProgramDriver::begin(engine, order, halt, tell).await?.finish(&*program).await
}

/// The checkpoint that is stored for a sync, and the time of its last run's begin.
pub fn checkpoint(engine: &Engine, sync: &DatasetName) -> Result<Option<(Bytes, Timestamp)>, Error> {
    let stored = state::ProgramState::load(engine, sync)?;
    Ok(stored.and_then(|state| Some((state.checkpoint()?, state.record.started_at))))
}

/// The run of this sync that the end of the process interrupted, if there is one.
pub(super) fn interrupted(engine: &Engine, sync: &DatasetName) -> Result<Option<RunRecord>, Error> {
    let stored = state::ProgramState::load(engine, sync)?;
    Ok(stored.map(|state| state.record).filter(|record| record.status == super::Outcome::Running))
}
