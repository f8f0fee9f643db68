//! Windows: what a program did not bring since a window's start is deleted in one commit, held for approval, or left.

use super::ProgramOrder;
use super::commit::dataset;
use super::drive::{ProgramDriver, refused};
use super::state::{Doubt, ProgramState};
use crate::model::{Action, Cause, Cursor, Failure, Position};
use crate::pipeline::run::DeleteGuard;
use crate::pipeline::run::drive::RunStop;
use crate::pipeline::run::held::hold;
use crate::pipeline::{Batch, Dataset, Error, Receipt, WindowOp};

/// What becomes of the records that a window has not seen.
enum Verdict {
    /// They are deleted.
    Sweep,
    /// They wait for approval: live records, missing ones.
    Held(u64, u64),
    /// They stay, and why.
    Left(&'static str),
}

impl ProgramDriver<'_> {
    /// Ends a window at the program's wish. The ids that were deleted, or why there is no window.
    pub(super) async fn window_end(&mut self, model: &str) -> Result<Result<Vec<String>, Failure>, RunStop> {
        let dataset = dataset(&self.order.datasets, model)?;
        if !self.state.windows.contains_key(model) {
            let why = Error::NoWindow(model.to_owned()).to_string();
            return Ok(Err(Failure::lasting("no_window", why)));
        }
        let mut batch = self.batch();
        let sweeps = self.end_window(model, &dataset, &mut batch).await?;
        batch.marks.extend(self.state.marks(&self.order.sync));
        let receipt = self.engine.commit(batch).await.map_err(refused)?;
        self.steps += 1;
        self.count(&receipt);
        (self.tell)(super::Told::Record(&self.state.record));
        Ok(Ok(if sweeps { self.swept(&dataset, &receipt).await? } else { Vec::new() }))
    }

    /// Ends a window in this batch; whether it deletes. The state is ahead of the batch if that is never committed: then a
    /// repetition deletes nothing.
    async fn end_window(&mut self, model: &str, dataset: &Dataset, batch: &mut Batch) -> Result<bool, RunStop> {
        let verdict = self.verdict(model, dataset).await?;
        let doubt = self.state.windows.remove(model).unwrap_or_default();
        match verdict {
            Verdict::Sweep => {
                batch.close.push(WindowOp::Sweep(dataset.clone()));
                if self.state.checkpoint().is_some() {
                    self.state.swept.insert(model.to_owned());
                }
                return Ok(true);
            }
            Verdict::Held(live, missing) => {
                let held = self.state.record.held.unwrap_or_default();
                self.state.record.held = Some((held.0 + live, held.1 + missing));
                let (sync, window) = (&self.order.sync, self.engine.window_opened(dataset));
                batch.marks.push(hold(&dataset.name, Some(sync), &self.state.record, (live, missing), window));
                self.warn(format!(
                    "{missing} of {live} records of {model} are absent: their deletes wait for approval"
                ));
            }
            Verdict::Left(why) => {
                if doubt != Doubt::Ended {
                    batch.close.push(WindowOp::Abort(dataset.clone()));
                }
                self.warn(format!("nothing of {model} is deleted: {why}"));
            }
        }
        Ok(false)
    }

    async fn verdict(&self, model: &str, dataset: &Dataset) -> Result<Verdict, RunStop> {
        let doubt = self.state.windows.get(model).copied().unwrap_or_default();
        match doubt {
            Doubt::Rejected => return Ok(Verdict::Left("records of it could not be taken since the window began")),
            Doubt::Ended => return Ok(Verdict::Left("an interrupted execution had ended this listing already")),
            Doubt::Nothing | Doubt::Caught => {}
        }
        let missing = self.engine.missing(dataset).await?;
        let count = missing.positions.len() as u64;
        let held = count > 0 && self.order.guard_in(doubt).is_some_and(|guard| guard.holds(missing.live, count));
        Ok(if held { Verdict::Held(missing.live, count) } else { Verdict::Sweep })
    }

    /// Ids of the records that a commit has swept.
    async fn swept(&self, dataset: &Dataset, receipt: &Receipt) -> Result<Vec<String>, RunStop> {
        let (engine, dataset, cause) = (self.engine.clone(), dataset.clone(), Cause::run(self.state.number));
        let (from, end) = (Position::first_of(receipt.epoch), receipt.end);
        let read = move || {
            let mut ids = Vec::new();
            // Others may have written in the same epoch.
            let after = Cursor { position: Position(from.0.saturating_sub(1)), dataset: dataset.id };
            engine.changes(std::slice::from_ref(&dataset), after, &mut |_, change| {
                if change.meta.position < end && change.meta.action == Action::Deleted && change.meta.cause == cause {
                    ids.push(change.id().into_owned());
                }
                change.meta.position < end
            })?;
            Ok(ids)
        };
        let ids = tokio::task::spawn_blocking(read).await.map_err(|_| Error::Stopped)?;
        ids.map_err(RunStop::Engine)
    }

    /// Begins windows on all models before anything is asked, where the order wants deletes tracked and the run begins anew.
    pub(super) async fn track(&mut self) -> Result<(), RunStop> {
        if !self.order.track_deletes || self.state.tracks || self.state.checkpoint().is_some() {
            return Ok(());
        }
        let (mut state, mut batch): (ProgramState, Batch) = (self.state.clone(), self.batch());
        for model in self.order.datasets.keys() {
            self.open_window(model, &mut state, &mut batch)?;
        }
        state.tracks = true;
        batch.marks.extend(state.marks(&self.order.sync));
        self.state = state;
        self.engine.commit(batch).await.map_err(refused)?;
        self.steps += 1;
        Ok(())
    }

    /// Ends the windows that [`track`](Self::track) began, in the batch that ends the run.
    pub(super) async fn end_tracked(&mut self, batch: &mut Batch) -> Result<(), RunStop> {
        if !self.order.track_deletes {
            return Ok(());
        }
        if !self.state.tracks {
            self.warn(
                "the run began at a checkpoint, so what it did not bring is not absent: nothing is deleted".to_owned(),
            );
            return Ok(());
        }
        let models: Vec<String> = self.state.windows.keys().cloned().collect();
        for model in models {
            let dataset = dataset(&self.order.datasets, &model)?;
            self.end_window(&model, &dataset, batch).await?;
        }
        Ok(())
    }
}

impl ProgramOrder {
    /// The guard of a window. In one that is in doubt small datasets are no exception.
    fn guard_in(&self, doubt: Doubt) -> Option<DeleteGuard> {
        let in_doubt = |guard: DeleteGuard| DeleteGuard { min_count: 0, ..guard };
        if doubt == Doubt::Nothing { self.guard } else { self.guard.map(in_doubt) }
    }
}
