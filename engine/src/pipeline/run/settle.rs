//! Settle: what a proven listing did not bring is deleted, unless somebody should look first.

use super::drive::{RunDriver, RunStop, SourceCall, add_doubt};
use super::held::held;
use super::progress::forget_notes;
use super::record::{RunRecord, run_key};
use super::{Outcome, Progress};
use crate::fault;
use crate::model::{Cause, Position, id_of};
use crate::pipeline::{Batch, Dataset, Engine, Error, Keyspace, Mark, Missing, WindowOp};
use crate::sink::RunEnd;
use crate::source::{Ask, Body, Confirm, Page, Part};
use std::borrow::Cow;
use std::collections::HashSet;

/// Records confirmed one by one; if more are missing, a second listing is cheaper and takes its place.
const FETCHED_MAX: usize = 10_000;

/// Records confirmed by one call of the source.
const FETCH_KEYS: usize = 100;

impl RunDriver<'_> {
    /// What happens to the window, now that everything is read; `None` if a second listing is needed after all.
    pub(super) async fn settle(&mut self) -> Result<Option<Vec<WindowOp>>, RunStop> {
        let dataset = self.order.dataset.clone();
        let proven = self.journey.proven || fault::planted("deletes_after_a_doubtful_listing");
        if self.journey.part != Part::Full || !proven {
            // An unproven listing leaves its window open; the next full one begins it afresh.
            return Ok(Some(Vec::new()));
        }
        if self.journey.confirm == Confirm::Never {
            return Ok(Some(vec![WindowOp::Abort(dataset)]));
        }
        let mut missing = self.engine.missing(&dataset).await?;
        if self.journey.confirm == Confirm::Fetch && !missing.positions.is_empty() {
            if missing.positions.len() > FETCHED_MAX {
                self.journey.confirm = Confirm::Twice;
                self.look_again();
                return Ok(None);
            }
            // What was fetched may have been refused, and so is neither there nor gone.
            if !(self.confirm_by_fetch(&missing).await? && self.journey.proven) {
                return Ok(Some(Vec::new()));
            }
            missing = self.engine.missing(&dataset).await?;
        }
        let count = missing.positions.len() as u64;
        if count > 0 && self.order.guard.is_some_and(|guard| guard.holds(missing.live, count)) {
            self.journey.record.held = Some((missing.live, count));
            return Ok(Some(Vec::new()));
        }
        Ok(Some(vec![WindowOp::Sweep(dataset)]))
    }

    /// Asks for each missing record. Those that are still there are stored, and so seen; false if for some there was no
    /// clear answer.
    async fn confirm_by_fetch(&mut self, missing: &Missing) -> Result<bool, RunStop> {
        let ask = self.ask(Part::Full);
        let mut unclear = 0;
        for positions in missing.positions.chunks(FETCH_KEYS) {
            let keys = self.ids(positions)?;
            unclear += self.confirm(&ask, &keys).await?;
        }
        if unclear > 0 {
            let text = format!("unconfirmed: for {unclear} missing records fetch gave no clear answer");
            add_doubt(&mut self.journey.record, &text);
        }
        Ok(unclear == 0)
    }

    /// How many of `keys` remain unclear.
    async fn confirm(&mut self, ask: &Ask, keys: &[String]) -> Result<usize, RunStop> {
        let page = self.attempt(SourceCall::Fetch(ask, keys)).await?;
        let mut unclear: HashSet<&str> = keys.iter().map(String::as_str).collect();
        page.observations.iter().for_each(|seen| _ = unclear.remove(seen.id.as_str()));
        let unclear = unclear.len();
        // The deletes themselves wait for the sweep, so that they appear as one.
        let there = page.observations.iter().filter(|seen| !matches!(seen.body, Body::Gone { .. })).cloned().collect();
        self.commit_page(Page { observations: there, next: None, end: None, ..page }).await?;
        Ok(unclear)
    }

    /// Ids of the records at these positions.
    fn ids(&self, positions: &[Position]) -> Result<Vec<String>, RunStop> {
        let mut ids = Vec::with_capacity(positions.len());
        for position in positions {
            let record = self.engine.record_at(&self.order.dataset, *position)?;
            ids.extend(record.and_then(|record| id_of(&record.payload).map(Cow::into_owned)));
        }
        Ok(ids)
    }
}

/// Lets held deletes happen: what is still missing is deleted, in the name of the run that found it. False if that run
/// holds nothing (any more).
pub async fn approve(engine: &Engine, dataset: &Dataset, run: &str) -> Result<bool, Error> {
    decide(engine, dataset, run, Outcome::Complete).await
}

/// Drops held deletes: the records stay. False if that run holds nothing (any more). Validators go as well, so that the
/// next full listing looks at everything anew.
pub async fn reject(engine: &Engine, dataset: &Dataset, run: &str) -> Result<bool, Error> {
    decide(engine, dataset, run, Outcome::Incomplete).await
}

async fn decide(engine: &Engine, dataset: &Dataset, run: &str, status: Outcome) -> Result<bool, Error> {
    let hold = held(engine, &dataset.name)?.into_iter().find(|hold| hold.run == run);
    let (Some(cause), Some(hold)) = (Cause::parse(run), hold) else { return Ok(false) };
    // A listing may have begun by now, and be about to lift the hold: its window is not the one that was looked at.
    let Some(window) = hold.window.or(engine.window_opened(dataset)) else { return Ok(false) };
    let close = match status {
        Outcome::Complete => WindowOp::SweepOf(dataset.clone(), window),
        _ => WindowOp::AbortOf(dataset.clone(), window),
    };
    let name = hold.kept_under(&dataset.name);
    let key = run_key(&name, run);
    let mut marks = vec![Mark::delete(Keyspace::HELD, &run_key(&dataset.name, run))];
    if status == Outcome::Incomplete {
        marks.extend(forget_notes(engine, &dataset.name)?);
    }
    let stored = engine.mark(Keyspace::RUN, &key)?;
    let (mut end_run, mut line) = (Vec::new(), None);
    if let Some(mut record) = stored.and_then(|bytes| serde_json::from_slice::<RunRecord>(&bytes).ok()) {
        // A run of several models may hold deletes of others.
        let others =
            |(live, missing): (u64, u64)| (live.saturating_sub(hold.live), missing.saturating_sub(hold.missing));
        record.held = record.held.map(others).filter(|(_, missing)| *missing > 0);
        record.status = if record.held.is_some() { Outcome::Held } else { status };
        let started_at = Some(record.started_at);
        let end = RunEnd { sync: record.sync.clone(), kind: record.kind.clone(), started_at, error: None };
        end_run.extend(Some((dataset.clone(), end)).filter(|_| status == Outcome::Complete));
        marks.push(Mark::put(Keyspace::RUN, &key, serde_json::to_vec(&record).unwrap_or_default()));
        line = Some(record.line(&name));
    }
    if status == Outcome::Complete {
        let mut progress = Progress::load(engine, &name)?;
        progress.last_outcome = Some(status);
        marks.push(progress.mark(&name));
    }
    let batch = Batch { cause: Some(cause), close: vec![close], marks, end_run, ..Batch::default() };
    match engine.commit(batch).await {
        Ok(_) => {
            line.into_iter().for_each(|line| engine.journal().write(line));
            Ok(true)
        }
        Err(Error::NoWindow(_)) => Ok(false),
        Err(error) => Err(error),
    }
}
