//! Functions by hand: an event that nobody posted, and a checkpoint that no run has left. For stores that are thrown away.

use super::{RunError, SyncKey, Syncs};
use crate::engine::model::Cause;
use crate::engine::pipeline::Dataset;
use crate::engine::pipeline::run::{self as driver, EventOrder, EventReport, Halt, ProgramOrder};
use crate::engine::source::Failure;
use crate::engine::source::program::{EventAsk, LogLine, Outlet, Program, ProgramAsk};
use crate::ingest::lines::logged;
use async_trait::async_trait;
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::watch;

impl Syncs {
    /// Lets the function of a sync take an event, which is JSON.
    pub async fn take_event(&self, key: &SyncKey, event: Bytes) -> Result<EventReport, RunError> {
        let program = self.inner.programs.get(&(key.source.clone(), key.stream.clone()));
        let program = program.ok_or_else(|| RunError::Unknown(key.clone()))?;
        self.event(key, &**program, event, &|line| logged(key, line)).await
    }

    /// The checkpoint of the events that the function of a sync has taken.
    pub fn event_checkpoint(&self, key: &SyncKey) -> Result<Option<Bytes>, RunError> {
        Ok(driver::event_checkpoint(&self.inner.engine, &key.dataset())?)
    }

    /// Stores the checkpoint at which the next run begins. An inner error is why it cannot be one.
    pub async fn begin_at(&self, key: &SyncKey, checkpoint: Bytes) -> Result<Result<(), String>, RunError> {
        let account = self.behind(key).ok_or_else(|| RunError::Unknown(key.clone()))?.0;
        let datasets = self.datasets(key).unwrap_or_default();
        let connection = (*account.connection).clone();
        let order = ProgramOrder { sync: key.dataset(), ..ProgramOrder::new(&key.stream, &datasets, connection) };
        let (_never, halt) = watch::channel(Halt::No);
        let report = driver::program(&self.inner.engine, Arc::new(Earlier(checkpoint)), order, halt, &|_| {}).await?;
        let refused = report.record.error.filter(|(code, _)| code != Earlier::CODE);
        Ok(refused.map_or(Ok(()), |(_, why)| Err(why)))
    }

    /// The same for the next event.
    pub async fn take_events_at(&self, key: &SyncKey, checkpoint: Bytes) -> Result<Result<(), String>, RunError> {
        let report = self.event(key, &Earlier(checkpoint), Bytes::from_static(b"null"), &|_| {}).await?;
        Ok(report.ended.map_err(|why| why.message))
    }

    async fn event(
        &self,
        key: &SyncKey,
        program: &dyn Program,
        event: Bytes,
        tell: &(dyn Fn(&LogLine) + Send + Sync),
    ) -> Result<EventReport, RunError> {
        let account = self.behind(key).ok_or_else(|| RunError::Unknown(key.clone()))?.0;
        let named = |dataset: Dataset| (dataset.name.model.to_string(), dataset);
        let order = EventOrder {
            sync: key.dataset(),
            datasets: self.datasets(key).unwrap_or_default().into_iter().map(named).collect(),
            connection: account.connection.clone(),
            event,
            cause: Cause::webhook(0),
            received_at: self.inner.clock.now(),
            timeout: driver::EVENT_WALL,
            done: Vec::new(),
        };
        Ok(driver::event(&self.inner.engine, program, order, tell).await?)
    }
}

/// What has come as far as this checkpoint, and no further: as a run it counts as none that came to its end.
struct Earlier(Bytes);

impl Earlier {
    const CODE: &str = "begins_by_hand";
}

#[async_trait]
impl Program for Earlier {
    async fn run(&self, _: &ProgramAsk, out: &mut Outlet) -> Result<(), Failure> {
        out.save_checkpoint(Some(self.0.clone())).await?;
        Err(Failure::lasting(Earlier::CODE, "the checkpoint is given by hand"))
    }

    async fn event(&self, _: &EventAsk, out: &mut Outlet) -> Result<(), Failure> {
        out.save_checkpoint(Some(self.0.clone())).await
    }
}
