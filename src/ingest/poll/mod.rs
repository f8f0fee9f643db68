//! Syncs: one stream of one connection on a schedule; their state, and what can be asked of them.
//!
//! Promises: one run of a sync at a time; what a sync remembers is durable before anyone is told of it; an interrupted run
//! is taken up again at its bookmark. Does not: decide *when* (see [`plan`] and
//! [`scheduler`]) or read pages (the run driver of the engine does).
//!
//! | file | what |
//! |---|---|
//! | [`plan`] | when a sync runs next: pure |
//! | [`scheduler`] | begins runs when their tick has come |
//! | `state` | what is kept between starts |
//! | `resolve` | names on the wire → syncs |
//! | `run` | one run from its start to its stored end |
//! | `work` | what a sync does: a stream, or a function |
//! | `function` | one run of a function |
//! | `by_hand` | what a person has a function do |
//! | `held` | deletes that wait for approval |

mod by_hand;
mod function;
mod held;
pub mod plan;
mod resolve;
mod run;
pub mod scheduler;
mod state;
mod work;

pub use crate::engine::source::program::RunKind;
pub use held::{HeldDeletes, HeldError};
pub use resolve::{SyncName, Unresolved};
pub use run::{RunError, RunOptions, Tell};
pub use state::{LastOutcome, LastRun};

use crate::connectors::definition::{Schedule, Tick};
use crate::engine::Engine;
use crate::engine::model::{Cause, Counts, DatasetName, Strategy, Timestamp};
use crate::engine::pipeline::run::{self as driver, Halt, Progress, RunRecord};
use crate::engine::pipeline::{Batch, Dataset, DatasetSpec, Error, Keyspace, Mark};
use crate::engine::time::Clock;
use crate::registry::connections::{Account, Connections};
use crate::registry::definitions::Definitions;
use crate::registry::functions::Programs;
use crate::registry::sources::Sources;
use parking_lot::{Mutex, MutexGuard};
use plan::{BadSchedule, Due, Past, SchedulePlan};
use run::REST;
use sha2::{Digest, Sha256};
use state::SyncState;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use work::Work;

/// Runs at the same time, over all syncs: each holds at most a page in memory. More wait their turn.
pub const RUNS_MAX: usize = 16;

/// Variants of one sync beside `base`.
pub const VARIANTS_MAX: usize = 100;

/// The variant every sync has.
pub const BASE: &str = "base";

/// Which sync.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncKey {
    /// Isolation scope.
    pub environment: String,
    /// Source.
    pub source: String,
    /// Connection.
    pub connection: String,
    /// Stream (model) name; of a function that is a sync, the function's.
    pub stream: String,
    /// Variant, `base` as a rule.
    pub variant: String,
}

/// What a trigger wants beside a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TriggerOptions {
    /// Forget bookmarks, windows and validators, and list everything again.
    pub reset: bool,
    /// With `reset`: also drop the records first.
    pub empty_cache: bool,
    /// The complete listing instead of what changed.
    pub full: bool,
}

impl TriggerOptions {
    /// Both of two triggers at once.
    fn and(self, other: TriggerOptions) -> TriggerOptions {
        TriggerOptions {
            reset: self.reset || other.reset,
            empty_cache: self.empty_cache || other.empty_cache,
            full: self.full || other.full,
        }
    }
}

/// How a sync stands, in the words of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// A run is in progress or waits for its turn.
    Running,
    /// No ticks until it is started.
    Paused,
    /// It has not run yet, or its last run was stopped.
    Stopped,
    /// Its last run ended well.
    Success,
    /// Its last run failed.
    Error,
}

impl Status {
    /// `RUNNING`, `PAUSED`, `STOPPED`, `SUCCESS`, `ERROR`.
    pub fn as_str(self) -> &'static str {
        match self {
            Status::Running => "RUNNING",
            Status::Paused => "PAUSED",
            Status::Stopped => "STOPPED",
            Status::Success => "SUCCESS",
            Status::Error => "ERROR",
        }
    }
}

/// Everything `GET /sync/status` tells of a sync.
#[derive(Clone, Debug)]
pub struct SyncStatus {
    /// Which sync.
    pub key: SyncKey,
    /// Stable id, in the form of a UUID.
    pub id: String,
    /// Name of the sync on the wire (the stream's `sync`).
    pub sync: String,
    /// How it stands.
    pub status: Status,
    /// Kind of the run in progress, or of the last one; `INITIAL` before the first.
    pub kind: RunKind,
    /// `every 5m`, or the cron expression.
    pub frequency: String,
    /// Creation.
    pub created_at: Timestamp,
    /// The last run that ended.
    pub last: Option<LastRun>,
    /// The next tick; `None` while paused.
    pub next_at: Option<Timestamp>,
    /// Live records.
    pub live: u64,
    /// Where the next run begins, as a flat object.
    pub checkpoint: Option<serde_json::Value>,
}

impl SyncStatus {
    /// Counts of the last run; zeros before the first.
    pub fn counts(&self) -> Counts {
        self.last.as_ref().map(|l| l.counts).unwrap_or_default()
    }
}

/// Why a sync could not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SyncError {
    /// There is no such sync.
    #[error("unknown sync {0}")]
    Unknown(SyncKey),
    /// Not a frequency.
    #[error(transparent)]
    Schedule(#[from] BadSchedule),
    /// A variant that exists, is reserved, or is one too many.
    #[error("{0}")]
    Variant(String),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// All syncs. Cheap to clone.
#[derive(Clone)]
pub struct Syncs {
    inner: Arc<SyncsInner>,
}

struct SyncsInner {
    engine: Engine,
    clock: Arc<dyn Clock>,
    definitions: Definitions,
    sources: Sources,
    programs: Programs,
    connections: Arc<Connections>,
    table: Mutex<BTreeMap<SyncKey, SyncEntry>>,
    /// Held from reading a state to the commit of the new one.
    writing: tokio::sync::Mutex<()>,
    /// Rises with each change that may move a tick: the scheduler waits on it.
    changed: watch::Sender<u64>,
    places: Arc<Semaphore>,
    tasks: TaskTracker,
    /// No run begins after this.
    stopping: CancellationToken,
}

/// A sync in memory.
struct SyncEntry {
    state: SyncState,
    plan: SchedulePlan,
    schedule: Schedule,
    sync: String,
    /// Whether its source can be asked; if not it is fed, and never due.
    polled: bool,
    /// Where its records are: one of a stream, several of a function.
    datasets: Vec<Dataset>,
    /// What its runs achieved, as last stored by the run driver.
    progress: Progress,
    /// The latest run that ended.
    record: Option<RunRecord>,
    /// The run the program ended under.
    interrupted: Option<RunRecord>,
    running: Option<RunInProgress>,
    /// Asked for while a run was in progress.
    pending: Option<TriggerOptions>,
    /// After a run the engine refused: no tick before this.
    rests_until: Option<Timestamp>,
}

/// A run in progress.
struct RunInProgress {
    kind: RunKind,
    /// Tells it to end.
    halt: watch::Sender<Halt>,
}

impl RunInProgress {
    /// A run that begins, and where it hears that it is to end.
    fn new() -> (RunInProgress, watch::Receiver<Halt>) {
        let halt = watch::Sender::new(Halt::No);
        let heard = halt.subscribe();
        (RunInProgress { kind: RunKind::Incremental, halt }, heard)
    }
}

impl SyncKey {
    /// The parts of its key in [`Keyspace::SYNC`].
    pub fn parts(&self) -> [&str; 5] {
        [&self.environment, &self.source, &self.connection, &self.stream, &self.variant]
    }

    /// The name under which its runs are kept; of a stream, also that of its dataset.
    pub fn dataset(&self) -> DatasetName {
        DatasetName {
            environment: self.environment.as_str().into(),
            source: self.source.as_str().into(),
            connection: self.connection.as_str().into(),
            model: self.stream.as_str().into(),
            variant: self.variant.as_str().into(),
        }
    }

    fn from_parts(parts: &[String]) -> Option<Self> {
        let [environment, source, connection, stream, variant] = parts else { return None };
        Some(SyncKey {
            environment: environment.clone(),
            source: source.clone(),
            connection: connection.clone(),
            stream: stream.clone(),
            variant: variant.clone(),
        })
    }

    /// A number that belongs to this sync alone, the same on every machine.
    fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in self.parts() {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        hash.finalize().into()
    }

    fn seed(&self) -> u64 {
        self.digest().iter().take(8).fold(0, |n, b| n << 8 | u64::from(*b))
    }

    /// Stable id in the form of a UUID.
    pub fn id(&self) -> String {
        let text = hex::encode(self.digest());
        let cut = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
        format!("{}-{}-{}-{}-{}", cut(0, 8), cut(8, 12), cut(12, 16), cut(16, 20), cut(20, 32))
    }
}

impl std::fmt::Display for SyncKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.dataset())
    }
}

impl Syncs {
    /// Reads what is kept and makes a sync for each stream of each connection; syncs whose stream or connection is gone
    /// keep their state and do not run.
    pub async fn open(
        engine: Engine,
        definitions: &Definitions,
        sources: &Sources,
        programs: Programs,
        connections: Arc<Connections>,
    ) -> Result<Syncs, SyncError> {
        let clock = engine.clock();
        let inner = SyncsInner {
            clock,
            engine,
            definitions: definitions.clone(),
            sources: sources.clone(),
            programs,
            connections,
            table: Mutex::default(),
            writing: tokio::sync::Mutex::new(()),
            changed: watch::Sender::new(0),
            places: Arc::new(Semaphore::new(RUNS_MAX)),
            tasks: TaskTracker::new(),
            stopping: CancellationToken::new(),
        };
        let syncs = Syncs { inner: Arc::new(inner) };
        syncs.refresh().await?;
        Ok(syncs)
    }

    /// Makes syncs for streams and connections that have none yet; called again when connections were added.
    pub async fn refresh(&self) -> Result<(), SyncError> {
        let _one_at_a_time = self.inner.writing.lock().await;
        let mut stored = self.stored()?;
        let now = self.inner.clock.now();
        let mut marks = Vec::new();
        let mut entries = Vec::new();
        for (key, added) in self.wanted(&stored) {
            if self.table().contains_key(&key) {
                continue;
            }
            let Some((account, work)) = self.behind(&key) else { continue };
            let schedule = work.schedule(&account);
            let state = match stored.remove(&key) {
                Some(state) => state,
                None => {
                    let new = SyncState::new(now, schedule.paused, added);
                    marks.push(new.mark(&key)?);
                    new
                }
            };
            let entry = self.entry(&key, state, schedule, &work)?;
            entries.push((key, entry));
        }
        if !marks.is_empty() {
            self.inner.engine.commit(Batch { marks, ..Batch::default() }).await?;
        }
        self.table().extend(entries);
        self.wake();
        Ok(())
    }

    /// Forgets the syncs of a connection that is gone: their runs are cancelled, their state is dropped.
    pub async fn forget_connection(&self, environment: &str, source: &str, id: &str) -> Result<(), SyncError> {
        let keys: Vec<SyncKey> = self
            .keys()
            .into_iter()
            .filter(|k| k.environment == environment && k.source == source && k.connection == id)
            .collect();
        for key in keys {
            self.forget(&key).await?;
        }
        Ok(())
    }

    /// All syncs, in order.
    pub fn keys(&self) -> Vec<SyncKey> {
        self.table().keys().cloned().collect()
    }

    /// How these syncs stand; unknown ones are left out.
    pub fn status(&self, keys: &[SyncKey]) -> Vec<SyncStatus> {
        let table = self.table();
        keys.iter().filter_map(|key| table.get(key).map(|entry| self.describe(key, entry))).collect()
    }

    /// Where the records of a sync are: one place of a stream, several of a function.
    pub fn datasets(&self, key: &SyncKey) -> Option<Vec<Dataset>> {
        self.table().get(key).map(|entry| entry.datasets.clone())
    }

    /// Lets ticks come again, beginning with a run now if one is due. Nothing if it was not paused.
    pub async fn start(&self, key: &SyncKey) -> Result<(), SyncError> {
        self.edit(key, |state| state.paused = false).await?;
        self.wake();
        Ok(())
    }

    /// No more ticks; a run in progress is cancelled.
    pub async fn pause(&self, key: &SyncKey) -> Result<(), SyncError> {
        self.edit(key, |state| state.paused = true).await?;
        self.cancel(key);
        self.wake();
        Ok(())
    }

    /// Cancels the run in progress, if there is one; its bookmark stays.
    pub fn cancel(&self, key: &SyncKey) -> bool {
        self.table().get_mut(key).and_then(|entry| entry.pending.take());
        self.halt(key, Halt::Cancel)
    }

    /// Sets another frequency than the file's, or goes back to the file's. Returns the frequency now in force.
    pub async fn set_frequency(&self, key: &SyncKey, frequency: Option<&str>) -> Result<String, SyncError> {
        let every = frequency.map(plan::parse_frequency).transpose()?;
        self.edit(key, |state| state.every = every.map(|e| e.as_secs())).await?;
        let text = {
            let mut table = self.table();
            let entry = table.get_mut(key).ok_or_else(|| SyncError::Unknown(key.clone()))?;
            entry.plan = SchedulePlan::new(&entry.schedule, every, entry.state.created_at, key.seed())?;
            frequency_of(entry)
        };
        self.wake();
        Ok(text)
    }

    /// Makes another configuration of a sync.
    pub async fn add_variant(&self, base: &SyncKey, variant: &str) -> Result<SyncKey, SyncError> {
        let key = SyncKey { variant: variant.to_owned(), ..base.clone() };
        let (account, work) = self.behind(base).ok_or_else(|| SyncError::Unknown(base.clone()))?;
        if variant == BASE || variant.is_empty() {
            return Err(SyncError::Variant("the variant `base` is reserved; choose another name".into()));
        }
        let _one_at_a_time = self.inner.writing.lock().await;
        let siblings = self
            .keys()
            .iter()
            .filter(|k| k.variant != BASE && SyncKey { variant: BASE.into(), ..(*k).clone() } == *base)
            .count();
        if self.table().contains_key(&key) {
            return Err(SyncError::Variant(format!("the variant `{variant}` exists")));
        }
        if siblings >= VARIANTS_MAX {
            return Err(SyncError::Variant(format!("a sync has at most {VARIANTS_MAX} variants")));
        }
        let schedule = work.schedule(&account);
        let state = SyncState::new(self.inner.clock.now(), schedule.paused, true);
        let mark = state.mark(&key)?;
        self.inner.engine.commit(Batch { marks: vec![mark], ..Batch::default() }).await?;
        let entry = self.entry(&key, state, schedule, &work)?;
        self.table().insert(key.clone(), entry);
        self.wake();
        Ok(key)
    }

    /// Removes a variant with its state; its records stay until they are cleared.
    pub async fn remove_variant(&self, key: &SyncKey) -> Result<(), SyncError> {
        if key.variant == BASE {
            return Err(SyncError::Variant("the variant `base` cannot be removed".into()));
        }
        if !self.table().contains_key(key) {
            return Err(SyncError::Unknown(key.clone()));
        }
        self.forget(key).await
    }

    /// Whether a sync's source can be asked for records; others are fed by topics.
    pub fn polled(&self, key: &SyncKey) -> bool {
        self.table().get(key).is_some_and(|entry| entry.polled)
    }

    /// Wakes when a tick may have moved.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// The earliest tick of a sync that neither runs nor is paused.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        let now = self.inner.clock.now();
        self.table().values().filter_map(|entry| due_of(entry, now)).map(|due| due.at).min()
    }

    /// Syncs whose tick has come by `now`.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<SyncKey> {
        let table = self.table();
        let come = |entry: &SyncEntry| due_of(entry, now).is_some_and(|due| due.at <= now);
        table.iter().filter(|(_, entry)| come(entry)).map(|(key, _)| key.clone()).collect()
    }

    /// Interrupts all runs, waits for their last commits and starts no more.
    pub async fn stop(&self) {
        self.inner.stopping.cancel();
        for key in self.keys() {
            self.halt(&key, Halt::Stop);
        }
        self.inner.tasks.close();
        self.inner.tasks.wait().await;
    }

    async fn forget(&self, key: &SyncKey) -> Result<(), SyncError> {
        self.cancel(key);
        let _one_at_a_time = self.inner.writing.lock().await;
        let mut marks = Progress::forget(&self.inner.engine, &key.dataset())?;
        marks.push(Mark::delete(Keyspace::SYNC, &key.parts()));
        self.inner.engine.commit(Batch { marks, ..Batch::default() }).await?;
        self.table().remove(key);
        Ok(())
    }

    /// Changes the state of a sync; readers see it once it is durable.
    async fn edit(&self, key: &SyncKey, change: impl FnOnce(&mut SyncState)) -> Result<(), SyncError> {
        let _one_at_a_time = self.inner.writing.lock().await;
        let unknown = || SyncError::Unknown(key.clone());
        let mut state = self.table().get(key).map(|e| e.state.clone()).ok_or_else(unknown)?;
        change(&mut state);
        let mark = state.mark(key)?;
        self.inner.engine.commit(Batch { marks: vec![mark], ..Batch::default() }).await?;
        self.table().get_mut(key).ok_or_else(unknown)?.state = state;
        Ok(())
    }

    fn stored(&self) -> Result<BTreeMap<SyncKey, SyncState>, Error> {
        let mut all = BTreeMap::new();
        for (parts, value) in self.inner.engine.marks(Keyspace::SYNC, &[])? {
            let Some(key) = SyncKey::from_parts(&parts) else { continue };
            let state = SyncState::read(&key, &value)?;
            all.insert(key, state);
        }
        Ok(all)
    }

    /// Syncs there should be: each stream of each connection, and variants made at run time.
    fn wanted(&self, stored: &BTreeMap<SyncKey, SyncState>) -> Vec<(SyncKey, bool)> {
        let mut keys = Vec::new();
        for account in self.inner.connections.all() {
            let Some(definition) = self.inner.definitions.get(&account.key.source) else { continue };
            for work in Work::all(&definition).filter(|work| work.is_taken(&account)) {
                let key = SyncKey {
                    environment: account.key.environment.clone(),
                    source: account.key.source.clone(),
                    connection: account.key.id.clone(),
                    stream: work.name().to_owned(),
                    variant: BASE.into(),
                };
                keys.push((key, false));
            }
        }
        keys.extend(stored.iter().filter(|(_, state)| state.added).map(|(key, _)| (key.clone(), true)));
        keys
    }

    /// Connection and work of a sync.
    fn behind(&self, key: &SyncKey) -> Option<(Arc<Account>, Work)> {
        let account = self.inner.connections.get(&key.environment, &key.source, &key.connection)?;
        let work = Work::find(&*self.inner.definitions.get(&key.source)?, &key.stream)?;
        work.is_taken(&account).then_some((account, work))
    }

    fn entry(&self, key: &SyncKey, state: SyncState, schedule: Schedule, work: &Work) -> Result<SyncEntry, SyncError> {
        let spec = match work {
            Work::Stream(stream) => {
                DatasetSpec { strategy: stream.merge, ignore_in_diff: stream.ignore_in_diff.clone() }
            }
            Work::Function(_) => DatasetSpec::of(Strategy::Override),
        };
        let of_model = |model: &str| {
            let name = DatasetName { model: model.into(), ..key.dataset() };
            self.inner.engine.dataset(&name, &spec)
        };
        let datasets = work.models().into_iter().map(of_model).collect::<Result<_, _>>()?;
        let every = state.every.map(Duration::from_secs);
        let plan = SchedulePlan::new(&schedule, every, state.created_at, key.seed())?;
        let (progress, record) = self.achieved(key)?;
        let interrupted = driver::interrupted(&self.inner.engine, &key.dataset())?;
        let sync = work.sync().to_owned();
        Ok(SyncEntry {
            state,
            plan,
            schedule,
            sync,
            polled: work.polled(),
            datasets,
            progress,
            record,
            interrupted,
            running: None,
            pending: None,
            rests_until: None,
        })
    }

    /// What the run driver has stored of a sync.
    fn achieved(&self, key: &SyncKey) -> Result<(Progress, Option<RunRecord>), Error> {
        let progress = Progress::load(&self.inner.engine, &key.dataset())?;
        let Some(number) = progress.runs.last() else { return Ok((progress, None)) };
        let id = Cause::run(*number).to_string();
        let stored = self.inner.engine.mark(Keyspace::RUN, &[&key.environment, &key.source, &key.stream, &id])?;
        Ok((progress, stored.and_then(|bytes| serde_json::from_slice(&bytes).ok())))
    }

    fn describe(&self, key: &SyncKey, entry: &SyncEntry) -> SyncStatus {
        let last = entry.record.as_ref().and_then(LastRun::of);
        SyncStatus {
            key: key.clone(),
            id: key.id(),
            sync: entry.sync.clone(),
            status: status_of(entry),
            kind: entry.running.as_ref().map(|r| r.kind).or(last.as_ref().map(|l| l.kind)).unwrap_or(RunKind::Initial),
            frequency: frequency_of(entry),
            created_at: entry.state.created_at,
            next_at: (!entry.state.paused && entry.polled)
                .then(|| entry.plan.next(&past_of(entry), self.inner.clock.now()))
                .flatten()
                .map(|d| d.at),
            live: entry.datasets.iter().map(|dataset| self.inner.engine.live(dataset)).sum(),
            checkpoint: self.checkpoint(key, entry),
            last,
        }
    }

    /// Where the next run begins.
    fn checkpoint(&self, key: &SyncKey, entry: &SyncEntry) -> Option<serde_json::Value> {
        if let Some(since) = entry.progress.since_base {
            return Some(serde_json::json!({ "since": since.to_string() }));
        }
        let stored = driver::program::checkpoint(&self.inner.engine, &key.dataset()).ok().flatten();
        stored.and_then(|(bytes, _)| serde_json::from_slice(&bytes).ok())
    }

    fn table(&self) -> MutexGuard<'_, BTreeMap<SyncKey, SyncEntry>> {
        self.inner.table.lock()
    }

    fn wake(&self) {
        self.inner.changed.send_modify(|n| *n = n.wrapping_add(1));
    }
}

fn past_of(entry: &SyncEntry) -> Past {
    let progress = &entry.progress;
    Past { ended_at: progress.last_ended_at, full_at: progress.last_full_at, not_before: progress.not_before }
}

fn due_of(entry: &SyncEntry, now: Timestamp) -> Option<Due> {
    if entry.state.paused || entry.running.is_some() || !entry.polled {
        return None;
    }
    let due = match &entry.interrupted {
        // Taken up at once.
        Some(record) => Due { at: record.started_at.min(now), full: record.kind != RunKind::Incremental.as_str() },
        None => entry.plan.next(&past_of(entry), now)?,
    };
    // A rest that is longer than any was begun by a clock that was ahead.
    let rest = entry.rests_until.filter(|until| *until <= now.plus(REST));
    Some(Due { at: rest.map_or(due.at, |until| until.max(due.at)), ..due })
}

fn status_of(entry: &SyncEntry) -> Status {
    if entry.running.is_some() {
        return Status::Running;
    }
    if entry.state.paused {
        return Status::Paused;
    }
    match entry.record.as_ref().map(|r| r.status) {
        None | Some(driver::Outcome::Cancelled | driver::Outcome::Running) => Status::Stopped,
        Some(driver::Outcome::Failed) => Status::Error,
        Some(driver::Outcome::Complete | driver::Outcome::Incomplete | driver::Outcome::Held) => Status::Success,
    }
}

fn frequency_of(entry: &SyncEntry) -> String {
    match (entry.state.every, &entry.schedule.tick) {
        (Some(seconds), _) => plan::frequency_text(Duration::from_secs(seconds)),
        (None, Tick::Every(every)) => plan::frequency_text(*every),
        (None, Tick::Cron(expression)) => expression.clone(),
    }
}
