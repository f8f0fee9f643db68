//! One run of a sync: what it asks for, its turn among the others, and how it is told to end. The way from page to page is
//! the run driver's ([`engine::pipeline::run`](crate::engine::pipeline::run)).
//!
//! Promises: a sync never has two runs; whatever happens inside the driver, the sync is free again afterwards, and a sync
//! whose run could not even be stored rests before the next try.

use super::RunKind;
use super::state::shape;
use super::work::Work;
use super::{RunInProgress, SyncError, SyncKey, Syncs, TriggerOptions, past_of};
use crate::connectors::definition::Stream;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::run::{self as driver, DeleteGuard, Halt, Order, Progress, RunEndReport, RunRecord};
use crate::engine::pipeline::{Batch, Error, WindowOp};
use crate::engine::source::Part;
use crate::registry::connections::Account;
use crate::telemetry::record::{MetricLabels, RunMeter};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Rest after a run that the engine refused: long enough not to fill the log, short enough to notice a repair.
pub(super) const REST: Duration = Duration::from_secs(60);

/// Hears of every page: the run so far, and how many items it will have in all, where the provider says so.
pub type Tell<'a> = &'a (dyn Fn(&RunRecord, Option<u64>) + Send + Sync);

/// What a run in the foreground is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// As for a trigger.
    pub trigger: TriggerOptions,
    /// Lower end of an incremental run, instead of where the last one stood.
    pub since: Option<Timestamp>,
}

/// Why a run did not take place.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RunError {
    /// There is no such sync, or its stream or connection is gone.
    #[error("unknown sync {0}")]
    Unknown(SyncKey),
    /// One run of a sync at a time.
    #[error("sync {0} has a run in progress; wait for its end or cancel it")]
    Busy(SyncKey),
    /// Its stream has nothing to ask for.
    #[error("sync {0} is fed by topics or webhooks: there is nothing to run")]
    Fed(SyncKey),
    /// It was told to stop before its turn had come.
    #[error("stopped before the run began")]
    Stopping,
    /// A window for a stream that cannot be asked for one.
    #[error("stream {0} has no `incremental`, so it cannot be read since a time")]
    NoWindow(String),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// The right to run a sync; gives it back when dropped, even by a task that died.
struct RunTurn {
    syncs: Syncs,
    key: SyncKey,
    halt: watch::Receiver<Halt>,
    /// It was given back already: the sync may have another run by now.
    over: bool,
}

impl Drop for RunTurn {
    fn drop(&mut self) {
        if let Some(entry) = self.syncs.table().get_mut(&self.key).filter(|_| !self.over) {
            entry.running = None;
        }
        self.syncs.wake();
    }
}

impl Syncs {
    /// Begins a run in the background. When one is in progress this is enough, except for a full listing, which follows it,
    /// and a reset, which also cancels it.
    pub fn trigger(&self, key: &SyncKey, options: TriggerOptions) -> Result<(), SyncError> {
        loop {
            match self.take_turn(key) {
                Ok(turn) => self.begin(turn, options),
                Err(RunError::Unknown(key)) => return Err(SyncError::Unknown(key)),
                // It has ended since.
                Err(RunError::Busy(_)) if !self.leave(key, options) => continue,
                Err(_) => {}
            }
            return Ok(());
        }
    }

    /// Leaves to the run in progress what is to follow it; false if there is none.
    fn leave(&self, key: &SyncKey, options: TriggerOptions) -> bool {
        let mut table = self.table();
        let Some(entry) = table.get_mut(key) else { return false };
        let Some(running) = &entry.running else { return false };
        if options.reset || options.full {
            entry.pending = Some(entry.pending.unwrap_or_default().and(options));
        }
        if options.reset {
            running.halt.send_replace(Halt::Cancel);
        }
        true
    }

    /// Something has changed at the provider: begins a run in the background. One in progress may have passed the change, so another
    /// follows it. A sync that is paused stays so.
    pub(crate) fn has_news(&self, key: &SyncKey) {
        if let Some(entry) = self.table().get_mut(key) {
            if entry.state.paused || !entry.polled {
                return;
            }
            if entry.running.is_some() {
                entry.pending = Some(entry.pending.unwrap_or_default());
                return;
            }
        }
        self.launch(key, TriggerOptions::default());
    }

    /// Begins a run in the background, unless there is one.
    pub(crate) fn launch(&self, key: &SyncKey, options: TriggerOptions) {
        if let Ok(turn) = self.take_turn(key) {
            self.begin(turn, options);
        }
    }

    fn begin(&self, mut turn: RunTurn, options: TriggerOptions) {
        let syncs = self.clone();
        self.inner.tasks.spawn(async move { syncs.work(&mut turn, options).await });
    }

    /// A run in the foreground, to its end. `cancel` interrupts it: the next run goes on where it stood.
    pub async fn run(
        &self,
        key: &SyncKey,
        options: RunOptions,
        cancel: CancellationToken,
        tell: Tell<'_>,
    ) -> Result<RunEndReport, RunError> {
        let mut turn = self.take_turn(key)?;
        let report = {
            let mut work = std::pin::pin!(self.execute(&mut turn, options, tell));
            tokio::select! {
                report = work.as_mut() => report,
                () = cancel.cancelled() => {
                    self.halt(key, Halt::Stop);
                    work.await
                }
            }
        };
        if let Some(next) = self.next(&mut turn) {
            self.begin(turn, next);
        }
        report
    }

    /// Tells the run of a sync to end; false if there is none.
    pub(super) fn halt(&self, key: &SyncKey, how: Halt) -> bool {
        let table = self.table();
        let running = table.get(key).and_then(|entry| entry.running.as_ref());
        running.inspect(|running| _ = running.halt.send_replace(how)).is_some()
    }

    /// A run, and what was asked for meanwhile.
    async fn work(&self, turn: &mut RunTurn, mut options: TriggerOptions) {
        loop {
            let mut left = TriggerOptions::default();
            match self.execute(turn, RunOptions { trigger: options, since: None }, &|_, _| {}).await {
                Ok(report) => told(&turn.key, &report),
                // It had not begun: what follows it does its part as well.
                Err(RunError::Stopping) => left = options,
                Err(error) => {
                    tracing::error!(sync = %turn.key, %error, "the run did not take place");
                    self.rest(&turn.key);
                }
            }
            match self.next(turn) {
                Some(next) => options = next.and(left),
                None => return,
            }
        }
    }

    /// What was asked for during a run. If nothing was, the turn is given back in the same moment: nobody can leave anything to
    /// a run that does not look any more.
    fn next(&self, turn: &mut RunTurn) -> Option<TriggerOptions> {
        let mut table = self.table();
        let entry = table.get_mut(&turn.key)?;
        let next = entry.pending.take().filter(|_| !self.inner.stopping.is_cancelled());
        let (running, halt) = RunInProgress::new();
        turn.over = next.is_none();
        turn.halt = halt;
        entry.running = next.map(|_| running);
        next
    }

    fn take_turn(&self, key: &SyncKey) -> Result<RunTurn, RunError> {
        if self.inner.stopping.is_cancelled() {
            return Err(RunError::Stopping);
        }
        let mut table = self.table();
        let entry = table.get_mut(key).ok_or_else(|| RunError::Unknown(key.clone()))?;
        if !entry.polled {
            return Err(RunError::Fed(key.clone()));
        }
        if entry.running.is_some() {
            return Err(RunError::Busy(key.clone()));
        }
        let (running, halt) = RunInProgress::new();
        entry.running = Some(running);
        drop(table);
        // A stop that came in between has not met this run.
        if self.inner.stopping.is_cancelled() {
            self.halt(key, Halt::Stop);
        }
        Ok(RunTurn { syncs: self.clone(), key: key.clone(), halt, over: false })
    }

    fn rest(&self, key: &SyncKey) {
        if let Some(entry) = self.table().get_mut(key) {
            entry.rests_until = Some(self.inner.clock.now().plus(REST));
        }
    }

    async fn execute(&self, turn: &mut RunTurn, options: RunOptions, tell: Tell<'_>) -> Result<RunEndReport, RunError> {
        let mut halt = turn.halt.clone();
        let _place = tokio::select! {
            place = self.inner.places.acquire() => place.map_err(|_| RunError::Stopping)?,
            () = halted(&mut halt) => return Err(RunError::Stopping),
        };
        let key = &turn.key;
        if options.trigger.reset {
            self.reset(key, options.trigger.empty_cache).await?;
        }
        let (account, work) = self.behind(key).ok_or_else(|| RunError::Unknown(key.clone()))?;
        let listed_before = self.table().get(key).and_then(|entry| entry.progress.last_full_at);
        let earlier = self.table().get(key).and_then(|entry| entry.interrupted.clone());
        let meter = RunMeter::new(MetricLabels::of(&key.dataset()), earlier);
        let heard = |record: &RunRecord, expected: Option<u64>| {
            meter.upto(record);
            if let Some(running) = self.table().get_mut(key).and_then(|entry| entry.running.as_mut()) {
                running.kind = record.kind.parse().unwrap_or(RunKind::Incremental);
            }
            tell(record, expected);
        };
        let report = match &work {
            Work::Stream(stream) => {
                let order = self.order(key, &account, stream, &options)?;
                let source = self.inner.sources.get(&key.source).ok_or_else(|| RunError::Unknown(key.clone()))?;
                driver::run(&self.inner.engine, source, order, turn.halt.clone(), &heard).await?
            }
            Work::Function(function) => {
                self.run_function(key, &account, function, &options, turn.halt.clone(), &heard).await?
            }
        };
        meter.ended(&report.record);
        if let Some(entry) = self.table().get_mut(key) {
            entry.progress = report.progress.clone();
            let record = Some(report.record.clone());
            match report.record.status {
                driver::Outcome::Running => entry.interrupted = record,
                _ => (entry.record, entry.interrupted) = (record, None),
            }
            entry.rests_until = None;
        }
        if let Work::Stream(stream) = &work {
            self.note_shape(key, stream, listed_before, &report.progress).await?;
        }
        Ok(report)
    }

    /// After a listing of everything: all records are now as the definition makes them.
    async fn note_shape(
        &self,
        key: &SyncKey,
        stream: &Stream,
        before: Option<Timestamp>,
        progress: &Progress,
    ) -> Result<(), RunError> {
        if progress.last_full_at == before {
            return Ok(());
        }
        let current = shape(stream);
        let known = self.table().get(key).is_some_and(|entry| entry.state.shape.as_ref() == Some(&current));
        if !known {
            self.edit(key, |state| state.shape = Some(current)).await.map_err(|error| match error {
                SyncError::Unknown(key) => RunError::Unknown(key),
                SyncError::Engine(error) => RunError::Engine(error),
                other => RunError::Engine(Error::Storage(other.to_string())),
            })?;
        }
        Ok(())
    }

    /// What the next run is to do.
    fn order(
        &self,
        key: &SyncKey,
        account: &Account,
        stream: &Stream,
        options: &RunOptions,
    ) -> Result<Order, RunError> {
        let unknown = || RunError::Unknown(key.clone());
        let definition = self.inner.definitions.get(&key.source).ok_or_else(unknown)?;
        let now = self.inner.clock.now();
        let mut table = self.table();
        let entry = table.get_mut(key).ok_or_else(unknown)?;
        let reshaped = entry.state.shape.as_ref().is_some_and(|known| *known != shape(stream));
        let full = options.trigger.full || reshaped || entry.plan.full_due(&past_of(entry), now);
        let part = match options.since {
            Some(_) if stream.incremental.is_none() => return Err(RunError::NoWindow(stream.name.clone())),
            Some(since) => Part::Incremental { since: since.min(now), until: now },
            None => next_part(stream, &entry.progress, full, now),
        };
        let kind = kind_of(&entry.progress, part);
        entry.running.iter_mut().for_each(|running| running.kind = kind);
        Ok(Order {
            dataset: entry.datasets.first().cloned().ok_or_else(unknown)?,
            sync: stream.sync.clone(),
            definition: definition.hash.clone(),
            connection: Arc::clone(&account.connection),
            part,
            deletes: deletes_due(stream, &entry.progress, now),
            guard: stream.deletes.guard.map(|g| DeleteGuard { max_fraction: g.max_fraction, min_count: g.min_count }),
            timeout: entry.schedule.timeout,
            fresh: options.trigger.reset || options.trigger.full || reshaped || options.since.is_some(),
            seed: key.seed(),
        })
    }

    /// Forgets where the sync stood, and its records when asked to.
    async fn reset(&self, key: &SyncKey, empty: bool) -> Result<(), RunError> {
        let datasets = self.datasets(key).ok_or_else(|| RunError::Unknown(key.clone()))?;
        let engine = &self.inner.engine;
        let marks = Progress::forget(engine, &key.dataset())?;
        let open = datasets.iter().filter(|dataset| engine.window_open(dataset));
        let close = open.map(|dataset| WindowOp::Abort(dataset.clone())).collect();
        engine.commit(Batch { close, marks, ..Batch::default() }).await?;
        if empty {
            for dataset in &datasets {
                engine.clear(dataset).await?;
            }
        }
        if let Some(entry) = self.table().get_mut(key) {
            (entry.progress, entry.interrupted) = (Progress::default(), None);
        }
        Ok(())
    }
}

async fn halted(halt: &mut watch::Receiver<Halt>) {
    let _ = halt.wait_for(|halt| *halt != Halt::No).await;
}

fn next_part(stream: &Stream, progress: &Progress, full: bool, now: Timestamp) -> Part {
    let window = stream.incremental.as_ref();
    let start = window.and_then(|incremental| incremental.start);
    let lookback = window.map_or(Duration::ZERO, |incremental| incremental.lookback);
    progress.next_part(stream.lists(), window.is_some(), full, start, lookback, now)
}

fn kind_of(progress: &Progress, part: Part) -> RunKind {
    match part {
        _ if progress.last_completed_at.is_none() => RunKind::Initial,
        Part::Full => RunKind::Full,
        _ => RunKind::Incremental,
    }
}

/// Listings of deleted records whose time has come.
fn deletes_due(stream: &Stream, progress: &Progress, now: Timestamp) -> Vec<usize> {
    let due = |index: usize, every: Option<Duration>| match (every, progress.deletes_read_at(index)) {
        (Some(every), Some(last)) => now.since(last) >= every,
        _ => true,
    };
    stream.deletes.listings.iter().enumerate().filter(|(n, listing)| due(*n, listing.every)).map(|(n, _)| n).collect()
}

/// One line for each run.
fn told(key: &SyncKey, report: &RunEndReport) {
    let record = &report.record;
    let (source, stream, connection) = (key.source.as_str(), key.stream.as_str(), key.connection.as_str());
    let counts = record.counts;
    match (&record.error, record.status) {
        (Some((error, text)), driver::Outcome::Failed) => {
            tracing::warn!(
                source,
                stream,
                connection,
                run_id = record.id,
                code = error,
                error = text,
                "the run failed"
            );
        }
        (_, driver::Outcome::Held) => tracing::warn!(
            source,
            stream,
            connection,
            run_id = record.id,
            deletes = record.held.map(|(_, missing)| missing),
            "deletes are held: `syncline approve` or `syncline reject` decides"
        ),
        (_, driver::Outcome::Running) => {
            tracing::info!(
                source,
                stream,
                connection,
                run_id = record.id,
                "run interrupted; it goes on at the next start"
            );
        }
        _ => tracing::info!(
            source, stream, connection, run_id = record.id, kind = record.kind, outcome = ?record.status,
            added = counts.added, updated = counts.updated, deleted = counts.deleted, requests = record.requests,
            "run ended"
        ),
    }
}
