//! From a step to a batch: windows it begins, the records of all its models, the checkpoint, the run's record.

use super::drive::{OnItsWay, ProgramDriver, refused};
use super::state::{Doubt, ProgramState};
use crate::fault::{hit, pass};
use crate::model::Timestamp;
use crate::pipeline::run::drive::{RunStop, failure};
use crate::pipeline::run::held::clear_held;
use crate::pipeline::{Batch, Dataset, Engine, PageBuilder, WindowOp};
use crate::source::program::{HandedStep, Step, StepBody};
use std::collections::BTreeMap;

impl ProgramDriver<'_> {
    /// Hands a step to the engine behind all before it. Until it has its place it has not happened: what is stored at the end must
    /// not be ahead of it, also when this is given up on the way.
    pub(super) async fn commit(&mut self, handed: HandedStep) -> Result<(), RunStop> {
        let HandedStep { mut step, room, placed } = handed;
        self.torn = true;
        let mut state = self.state.clone();
        let mut batch = self.batch();
        self.open_windows(&step, &mut state, &mut batch)?;
        state.note(&step);
        batch.pages = pages(self.engine, &self.order.datasets, &mut self.observed, &step)?;
        batch.marks.extend(state.marks(&self.order.sync));
        hit("poll.append_before")?;
        let (bytes, lines) = (step.bytes(), step.take_lines());
        let submitted = self.on_their_way.submit(self.engine, batch, bytes, OnItsWay { _room: room, lines }).await;
        if let Some((why, _)) = submitted.map_err(refused)? {
            return Err(RunStop::Failed(failure("step_too_large", why)));
        }
        (self.state, self.torn) = (state, false);
        pass("poll.append_after");
        if let Some(placed) = placed {
            // Who waits may be gone.
            let _ = placed.send(());
        }
        Ok(())
    }

    fn open_windows(&self, step: &Step, state: &mut ProgramState, batch: &mut Batch) -> Result<(), RunStop> {
        for (model, _) in step.models().filter(|(_, of)| of.window_start) {
            if state.windows.contains_key(model) {
                continue;
            }
            if self.swept_before.contains(model) {
                // What is listed now is the rest behind the checkpoint; the listing itself has had its end.
                state.windows.insert(model.to_owned(), Doubt::Ended);
                continue;
            }
            self.open_window(model, state, batch)?;
        }
        Ok(())
    }

    /// Begins a window afresh. What an earlier one found missing is no longer the question.
    pub(super) fn open_window(&self, model: &str, state: &mut ProgramState, batch: &mut Batch) -> Result<(), RunStop> {
        let dataset = dataset(&self.order.datasets, model)?;
        batch.marks.extend(clear_held(self.engine, &dataset.name)?);
        batch.open.push(WindowOp::Restart(dataset));
        state.windows.insert(model.to_owned(), Doubt::Nothing);
        Ok(())
    }
}

/// The records of a step, a page for each model.
pub(super) fn pages(
    engine: &Engine,
    datasets: &BTreeMap<String, Dataset>,
    observed: &mut ObservedTimes,
    step: &Step,
) -> Result<Vec<PageBuilder>, RunStop> {
    observed.requested(step.requests.earliest);
    let mut pages = Vec::new();
    for (model, of) in step.models() {
        let mut page = engine.page(&dataset(datasets, model)?);
        of.strategy.into_iter().for_each(|strategy| page.strategy(strategy));
        let seen = if of.records > 0 { observed.take(model) } else { Timestamp::NONE };
        pages.push((page, seen));
    }
    for record in step.records() {
        let Some((page, seen)) = pages.get_mut(record.model) else { continue };
        match record.body {
            StepBody::Whole(json) => page.save(record.id, None, *seen, json),
            StepBody::Patch(json) => page.patch(record.id, None, *seen, json),
            StepBody::Gone(at) => page.delete(record.id, None, *seen, at),
        }
    }
    Ok(pages.into_iter().map(|(page, _)| page).filter(|page| !page.is_empty()).collect())
}

/// Where the records of a model go.
pub(super) fn dataset(datasets: &BTreeMap<String, Dataset>, model: &str) -> Result<Dataset, RunStop> {
    let none = || failure("unknown_model", format!("`{model}` is no model of this sync; declare it"));
    datasets.get(model).cloned().ok_or_else(|| RunStop::Failed(none()))
}

impl ProgramState {
    /// What a step says of the run besides its records.
    fn note(&mut self, step: &Step) {
        self.record.pages += 1;
        self.record.requests += u64::from(step.requests.sent);
        if step.requests.failed > 0 {
            self.doubt_all(Doubt::Caught);
        }
        step.models().filter(|(_, of)| of.refused > 0).for_each(|(model, _)| self.doubt(model, Doubt::Caught));
        step.lines().iter().for_each(|line| self.remember(line));
        if let Some(checkpoint) = &step.checkpoint {
            self.set_checkpoint(checkpoint.as_ref());
        }
    }
}

/// When the records of a model were true at the latest: the earliest sending of a request since the step before with this model.
/// Without a request the time of that step stands, so that what is saved in many steps is protected no less in the last.
pub(super) struct ObservedTimes {
    /// Before any request.
    began: Timestamp,
    /// The earliest of all, for models that have not come up yet.
    first: Option<Timestamp>,
    models: BTreeMap<String, ObservedModel>,
}

#[derive(Default)]
struct ObservedModel {
    last: Option<Timestamp>,
    since: Option<Timestamp>,
}

impl ObservedTimes {
    pub(super) fn from(began: Timestamp) -> ObservedTimes {
        ObservedTimes { began, first: None, models: BTreeMap::new() }
    }

    fn requested(&mut self, earliest: Option<Timestamp>) {
        let Some(at) = earliest else { return };
        let earlier = |known: &mut Option<Timestamp>| *known = Some(known.map_or(at, |known| known.min(at)));
        earlier(&mut self.first);
        self.models.values_mut().for_each(|model| earlier(&mut model.since));
    }

    fn take(&mut self, model: &str) -> Timestamp {
        let times =
            self.models.entry(model.to_owned()).or_insert_with(|| ObservedModel { last: None, since: self.first });
        let at = times.since.take().or(times.last).unwrap_or(self.began);
        times.last = Some(at);
        at
    }
}
