//! One run of a function: what it is told, and where what it writes goes.

use super::{RunError, RunOptions, SyncKey, Syncs, Tell};
use crate::connectors::definition::FunctionSync;
use crate::engine::pipeline::run::{self as driver, DeleteGuard, Halt, ProgramOrder, RunEndReport, Told};
use crate::ingest::lines::logged;
use crate::registry::connections::Account;
use std::sync::Arc;
use tokio::sync::watch;

impl Syncs {
    pub(super) async fn run_function(
        &self,
        key: &SyncKey,
        account: &Account,
        function: &FunctionSync,
        options: &RunOptions,
        halt: watch::Receiver<Halt>,
        tell: Tell<'_>,
    ) -> Result<RunEndReport, RunError> {
        if options.since.is_some() {
            return Err(RunError::NoWindow(function.name.clone()));
        }
        let unknown = || RunError::Unknown(key.clone());
        let program = self.inner.programs.get(&(key.source.clone(), key.stream.clone())).ok_or_else(unknown)?;
        let datasets = self.datasets(key).ok_or_else(unknown)?;
        let definition = self.inner.definitions.get(&key.source).ok_or_else(unknown)?;
        let rules = &definition.functions;
        let order = ProgramOrder {
            sync: key.dataset(),
            datasets: datasets.into_iter().map(|dataset| (dataset.name.model.to_string(), dataset)).collect(),
            definition: program.version(),
            connection: Arc::clone(&account.connection),
            guard: rules.guard.map(|g| DeleteGuard { max_fraction: g.max_fraction, min_count: g.min_count }),
            track_deletes: function.track_deletes,
            timeout: rules.limits.wall.unwrap_or(function.schedule.timeout),
            fresh: options.trigger.reset || options.trigger.full,
        };
        let told = |told: Told<'_>| match told {
            Told::Record(record) => tell(record, None),
            Told::Line(line) => logged(key, line),
        };
        Ok(driver::program(&self.inner.engine, program.clone(), order, halt, &told).await?)
    }
}
