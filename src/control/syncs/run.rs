//! One run from its start to its stored end: which kind it is, its turn, its time limit, what is kept afterwards.
//!
//! Promises: a sync never has two runs; a run that was interrupted by a stop is found as such at the next start; whatever
//! happens inside the driver, the sync is free again afterwards.

use super::state::{Begun, LastRun, Outcome, RunKind, SyncState};
use super::{Running, SyncError, SyncKey, Syncs, TriggerOptions, past_of};
use crate::engine::model::{Counts, Timestamp};
use crate::engine::pipeline::{Batch, Dataset, Error, Mark, Table, WindowOp};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

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
    /// The program stops.
    #[error("the program is stopping")]
    Stopping,
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl From<SyncError> for RunError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Unknown(key) => RunError::Unknown(key),
            SyncError::Engine(error) => RunError::Engine(error),
            other => RunError::Engine(Error::BadBatch(other.to_string())),
        }
    }
}

/// Frees the sync when a run is over, even when its task dies.
struct Turn {
    syncs: Syncs,
    key: SyncKey,
    cancel: CancellationToken,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(entry) = self.syncs.table().get_mut(&self.key) {
            entry.running = None;
        }
        self.syncs.wake();
    }
}

/// How the driver left a run.
struct Ended {
    run: String,
    outcome: Outcome,
    counts: Counts,
    error: Option<String>,
    progress: super::state::Progress,
    poll_hint: Option<Duration>,
}

impl Syncs {
    /// Begins a run in the background. When one is in progress this is enough, except for a reset: then the one in progress
    /// is cancelled and the reset follows.
    pub fn trigger(&self, key: &SyncKey, options: TriggerOptions) -> Result<(), SyncError> {
        {
            let mut table = self.table();
            let entry = table.get_mut(key).ok_or_else(|| SyncError::Unknown(key.clone()))?;
            if let Some(running) = &entry.running {
                if options.reset || options.full {
                    entry.pending = Some(options);
                }
                if options.reset {
                    running.cancel.cancel();
                }
                return Ok(());
            }
        }
        self.launch(key, options);
        Ok(())
    }

    /// Begins a run in the background, unless there is one.
    pub(crate) fn launch(&self, key: &SyncKey, options: TriggerOptions) {
        let Ok(turn) = self.take_turn(key, None) else { return };
        let syncs = self.clone();
        let options = RunOptions { trigger: options, since: None };
        self.inner.tasks.spawn(async move { syncs.work(turn, options).await });
    }

    /// A run in the foreground, to its end.
    pub async fn run(&self, key: &SyncKey, options: RunOptions, cancel: CancellationToken) -> Result<LastRun, RunError> {
        let turn = self.take_turn(key, Some(cancel))?;
        self.execute(&turn, options).await
    }

    async fn work(self, turn: Turn, mut options: RunOptions) {
        loop {
            if let Err(error) = self.execute(&turn, options).await {
                tracing::error!(sync = %turn.key, %error, "the run did not take place");
            }
            // What was asked for meanwhile follows at once, in the same turn.
            let pending = self.table().get_mut(&turn.key).and_then(|entry| entry.pending.take());
            match pending {
                Some(trigger) if !self.inner.stopping.is_cancelled() => options = RunOptions { trigger, since: None },
                _ => return,
            }
        }
    }

    fn take_turn(&self, key: &SyncKey, cancel: Option<CancellationToken>) -> Result<Turn, RunError> {
        if self.inner.stopping.is_cancelled() {
            return Err(RunError::Stopping);
        }
        let mut table = self.table();
        let entry = table.get_mut(key).ok_or_else(|| RunError::Unknown(key.clone()))?;
        if entry.running.is_some() {
            return Err(RunError::Busy(key.clone()));
        }
        let cancel = cancel.unwrap_or_else(|| self.inner.stopping.child_token());
        entry.running = Some(Running { kind: RunKind::Initial, cancel: cancel.clone() });
        Ok(Turn { syncs: self.clone(), key: key.clone(), cancel })
    }

    async fn execute(&self, turn: &Turn, options: RunOptions) -> Result<LastRun, RunError> {
        let _place = tokio::select! {
            place = self.inner.places.acquire() => place.map_err(|_| RunError::Stopping)?,
            () = turn.cancel.cancelled() => return Err(RunError::Stopping),
        };
        let key = &turn.key;
        if options.trigger.reset {
            self.reset(key, options.trigger.empty_cache).await?;
        }
        let started_at = self.inner.clock.now();
        let kind = self.kind_of(key, &options, started_at)?;
        self.edit(key, |state| state.running = Some(Begun { at: started_at, kind })).await?;
        if let Some(running) = self.table().get_mut(key).and_then(|entry| entry.running.as_mut()) {
            running.kind = kind;
        }
        let ended = self.drive(turn, kind, &options, started_at).await?;
        self.finish(turn, kind, started_at, ended).await
    }

    /// Which kind the next run is.
    fn kind_of(&self, key: &SyncKey, options: &RunOptions, now: Timestamp) -> Result<RunKind, RunError> {
        let unknown = || RunError::Unknown(key.clone());
        let (_, stream) = self.behind(key).ok_or_else(unknown)?;
        let table = self.table();
        let entry = table.get(key).ok_or_else(unknown)?;
        let interrupted = entry.state.running.as_ref().map(|begun| begun.kind);
        Ok(match (entry.state.full_at, interrupted) {
            (None, _) => RunKind::Initial,
            _ if options.trigger.full || stream.incremental.is_none() => RunKind::Full,
            (Some(_), Some(kind)) => kind,
            _ if entry.plan.full_due(&past_of(&entry.state), now) && stream.list.is_some() => RunKind::Full,
            _ => RunKind::Incremental,
        })
    }

    /// Forgets where the sync stood, and its records when asked to.
    async fn reset(&self, key: &SyncKey, empty: bool) -> Result<(), RunError> {
        let dataset = self.dataset(key).ok_or_else(|| RunError::Unknown(key.clone()))?;
        let engine = &self.inner.engine;
        let mut marks = vec![Mark::delete(Table::Bookmark, &key.parts())];
        for (rest, _) in engine.marks(Table::Note, &key.parts())? {
            let mut parts = key.parts().to_vec();
            parts.extend(rest.iter().map(String::as_str));
            marks.push(Mark::delete(Table::Note, &parts));
        }
        engine.commit(Batch { close: window_closed(engine, &dataset), marks, ..Batch::default() }).await?;
        if empty {
            engine.clear(&dataset).await?;
        }
        self.edit(key, |state| {
            state.progress = Default::default();
            state.full_at = None;
            state.running = None;
        })
        .await?;
        Ok(())
    }

    async fn drive(
        &self,
        turn: &Turn,
        kind: RunKind,
        options: &RunOptions,
        started_at: Timestamp,
    ) -> Result<Ended, RunError> {
        let _ = (turn, kind, options, started_at);
        Err(RunError::Stopping)
    }

    async fn finish(&self, turn: &Turn, kind: RunKind, started_at: Timestamp, ended: Ended) -> Result<LastRun, RunError> {
        let now = self.inner.clock.now();
        let last = LastRun {
            run: ended.run,
            kind,
            started_at,
            finished_at: now,
            outcome: ended.outcome,
            counts: ended.counts,
            error: ended.error,
        };
        // A stop of the program is not the end of the run: it goes on at the next start.
        let interrupted = last.outcome == Outcome::Cancelled && self.inner.stopping.is_cancelled();
        let kept = last.clone();
        self.edit(&turn.key, move |state: &mut SyncState| {
            state.not_before = ended.poll_hint.map(|hint| now.plus(hint));
            state.progress = ended.progress;
            if !interrupted {
                state.running = None;
                if kind != RunKind::Incremental && matches!(kept.outcome, Outcome::Complete | Outcome::Held) {
                    state.full_at = Some(started_at);
                }
                state.last = Some(kept);
            }
        })
        .await?;
        Ok(last)
    }
}

fn window_closed(engine: &crate::engine::Engine, dataset: &Dataset) -> Vec<WindowOp> {
    if engine.window_open(dataset) { vec![WindowOp::Abort(dataset.clone())] } else { Vec::new() }
}
