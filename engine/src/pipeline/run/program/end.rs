//! How a run of a program ends: its record, what its sync knows now, the deletes it tracked and its announcement are one commit.

use super::drive::ProgramDriver;
use super::state::{Doubt, ProgramState};
use super::{ProgramOrder, Told};
use crate::fault::pass;
use crate::model::{Cause, Failure};
use crate::pipeline::run::drive::{RunStop, cancelled, run_end, run_mark};
use crate::pipeline::run::record::RunRecord;
use crate::pipeline::run::{Outcome, RunEndReport};
use crate::pipeline::{Batch, Dataset, Error};
use crate::sink::RunEnd;
use crate::source::program::RunKind;

impl ProgramDriver<'_> {
    /// Stores how the run ended.
    pub(super) async fn conclude(mut self, ended: Result<(), RunStop>) -> Result<RunEndReport, Error> {
        if let Err(RunStop::Engine(error)) = ended {
            return Err(error);
        }
        self.take_in_the_rest().await?;
        let mut batch = self.batch();
        let ended = match ended {
            Ok(()) => self.end_tracked(&mut batch).await,
            Err(stop) => Err(stop),
        };
        match ended {
            Ok(()) => self.ends(self.outcome(), None),
            Err(RunStop::Engine(error)) => return Err(error),
            Err(RunStop::Halted) => return self.halted().await,
            Err(RunStop::Cancelled) => self.ends(Outcome::Cancelled, Some(cancelled())),
            Err(RunStop::Failed(failure)) => self.ends(Outcome::Failed, Some(failure)),
        }
        pass("poll.run_end");
        self.commit_end(batch).await?;
        self.engine.journal().write(self.state.record.line(&self.order.sync));
        (self.tell)(Told::Record(&self.state.record));
        Ok(self.report())
    }

    /// What is on its way was handed over, and so has happened, however the run ended.
    async fn take_in_the_rest(&mut self) -> Result<(), Error> {
        while let Some((step, outcome)) = self.on_their_way.oldest().await {
            if let Err(RunStop::Engine(error)) = self.take_in(step, outcome) {
                return Err(error);
            }
        }
        Ok(())
    }

    fn ends(&mut self, outcome: Outcome, error: Option<Failure>) {
        let (state, progress) = (&mut self.state, &mut self.progress);
        let now = self.clock.now();
        if error.is_none() {
            state.swept.clear();
            state.windows.retain(|_, doubt| *doubt != Doubt::Ended);
            progress.last_completed_at = Some(state.record.started_at);
            if state.kind() != RunKind::Incremental {
                progress.last_full_at = progress.last_completed_at;
            }
        }
        (state.record.status, state.record.ended_at) = (outcome, Some(now));
        state.record.error = error.map(|failure| (failure.code.to_owned(), failure.message));
        progress.failures = if outcome == Outcome::Failed { progress.failures.saturating_add(1) } else { 0 };
        (progress.last_ended_at, progress.last_outcome) = (Some(now), Some(outcome));
    }

    async fn commit_end(&mut self, mut batch: Batch) -> Result<(), Error> {
        let sync = &self.order.sync;
        batch.marks.extend(self.progress.keep_run(sync, self.state.number));
        batch.marks.push(self.progress.mark(sync));
        batch.marks.extend(self.state.marks(sync));
        batch.end_run = self.order.ends(&self.state.record);
        let receipt = self.engine.commit(batch).await?;
        if receipt.counts.iter().any(|(_, counts)| counts.changes() > 0) {
            // The deletes of this very commit are known only now.
            self.count(&receipt);
            self.engine.put_marks(self.state.marks(&self.order.sync)).await?;
        }
        Ok(())
    }

    /// The state is stored with the last step, but what that step did was known only after it.
    async fn halted(self) -> Result<RunEndReport, Error> {
        if self.steps > 0 {
            self.engine.put_marks(self.state.marks(&self.order.sync)).await?;
        }
        Ok(self.report())
    }

    /// Ends a run that nobody goes on with: what it changed is announced, and its record says that it is over.
    pub(super) async fn end_superseded(&mut self, mut earlier: ProgramState) -> Result<(), Error> {
        let sync = &self.order.sync;
        let why = "it was interrupted, and the next run began from the beginning";
        (earlier.record.status, earlier.record.ended_at) = (Outcome::Failed, Some(self.clock.now()));
        earlier.record.error = Some(("superseded".to_owned(), why.to_owned()));
        let mut marks = vec![run_mark(sync, &earlier.record)];
        marks.extend(self.progress.keep_run(sync, earlier.number));
        marks.push(self.progress.mark(sync));
        let end_run = self.order.ends(&earlier.record);
        let cause = Some(Cause::run(earlier.number));
        self.engine.commit(Batch { cause, marks, end_run, ..Batch::default() }).await?;
        self.engine.journal().write(earlier.record.line(sync));
        Ok(())
    }
}

impl ProgramOrder {
    /// The end of a run, for each dataset.
    fn ends(&self, record: &RunRecord) -> Vec<(Dataset, RunEnd)> {
        self.datasets.values().map(|dataset| (dataset.clone(), run_end(record))).collect()
    }
}
