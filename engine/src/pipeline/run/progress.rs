//! Progress: what a sync knows of its runs, and so what the next one has to ask for.
//!
//! Written by the run driver in the commit that ends a run, under `Keyspace::SYNC` with one key part more than the sync's own
//! state: (environment, source, connection, model, variant, `progress`). Whoever schedules reads it and never writes it,
//! except to [`forget`](Progress::forget) it all.
//!
//! The lower end of the next window is never the greatest time met in a run still going: pages come unsorted. It is the
//! earlier of the start of the last completed run, by the provider's clock, and the greatest modified time of completed
//! runs. After a run that found nothing new it stays where it is, so that the request stays the same and can be answered
//! with «not modified».

use super::RunState;
use super::record::run_key;
use crate::model::{Cause, DatasetName, Timestamp};
use crate::pipeline::{Engine, Error, Keyspace, Mark};
use crate::source::Part;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// Least look-back when the provider does not tell its time: our clocks may differ.
pub const LOOKBACK_WITHOUT_DATE: Duration = Duration::from_secs(5 * 60);

/// Look-back of listings of deleted records.
pub const LOOKBACK_DELETES: Duration = Duration::from_secs(5 * 60);

/// Records of runs kept for one dataset; older ones are removed as new ones begin.
pub const RUNS_KEPT: usize = 100;

/// Last key part of the mark.
const NAME: &str = "progress";
/// Last key part of the checkpoint of events.
const EVENTS: &str = "events";

/// What is known of a sync's completed runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Progress {
    /// Lower end of the next window, before the look-back is taken off.
    pub since_base: Option<Timestamp>,
    /// Greatest modified time of completed runs.
    pub greatest_modified: Option<Timestamp>,
    /// The last completed run's start was read from our clock, for want of the provider's.
    pub local_clock: bool,
    /// Start (our clock) of the last full listing that was read to its end.
    pub last_full_at: Option<Timestamp>,
    /// Start (our clock) of the last full listing that was proven complete, so that it could find deletes.
    pub last_proven_at: Option<Timestamp>,
    /// Start (our clock) of the last run that was read to its end, full or not.
    pub last_completed_at: Option<Timestamp>,
    /// End (our clock) of the last run, however it ended.
    pub last_ended_at: Option<Timestamp>,
    /// How the last run ended: `complete`, `incomplete`, `failed`, `held`, `cancelled`.
    pub last_outcome: Option<super::Outcome>,
    /// Runs that failed one after the other.
    pub failures: u32,
    /// For each listing of deleted records: start (provider's clock) of its last completed reading.
    pub deletes: BTreeMap<usize, Timestamp>,
    /// The provider asked not to come back earlier (our clock).
    pub not_before: Option<Timestamp>,
    /// Numbers of the runs whose records are kept, oldest first.
    pub runs: Vec<u64>,
}

impl Progress {
    /// What is stored; the default for a sync that never ran.
    pub fn load(engine: &Engine, dataset: &DatasetName) -> Result<Progress, Error> {
        let stored = engine.mark(Keyspace::SYNC, &key(dataset))?;
        Ok(stored.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// The lower end of the next window with the look-back taken off; `None` before the first completed run.
    pub fn since(&self, lookback: Duration) -> Option<Timestamp> {
        let lookback = if self.local_clock { lookback.max(LOOKBACK_WITHOUT_DATE) } else { lookback };
        self.since_base.map(|base| base.minus(lookback))
    }

    /// What the next run should ask for. `full`: a full listing is due or wanted. `start`: first lower end of a stream
    /// without a full listing. With neither a window to ask for nor a full listing this is [`Part::Full`].
    pub fn next_part(
        &self,
        has_full: bool,
        has_incremental: bool,
        full: bool,
        start: Option<Timestamp>,
        lookback: Duration,
        now: Timestamp,
    ) -> Part {
        let first = has_full && (full || self.last_full_at.is_none());
        match self.since(lookback).or(start.filter(|_| !has_full)) {
            Some(since) if has_incremental && !first => Part::Incremental { since: since.min(now), until: now },
            _ if has_incremental && !has_full => Part::Incremental { since: Timestamp(0), until: now },
            _ => Part::Full,
        }
    }

    /// When the `index`-th listing of deleted records was last read, by the provider's clock.
    pub fn deletes_read_at(&self, index: usize) -> Option<Timestamp> {
        self.deletes.get(&index).copied()
    }

    /// Marks that make a sync begin from nothing: progress, bookmarks and notes (validators) go. Records stay.
    pub fn forget(engine: &Engine, dataset: &DatasetName) -> Result<Vec<Mark>, Error> {
        let mut marks = vec![
            Mark::delete(Keyspace::SYNC, &key(dataset)),
            Mark::delete(Keyspace::BOOKMARK, &scope(dataset)),
            Mark::delete(Keyspace::BOOKMARK, &event_scope(dataset)),
        ];
        marks.extend(forget_notes(engine, dataset)?);
        Ok(marks)
    }

    /// Adds a run to those whose records are kept, and removes the record of the oldest if there are too many.
    pub(super) fn keep_run(&mut self, name: &DatasetName, number: u64) -> Vec<Mark> {
        if !self.runs.contains(&number) {
            self.runs.push(number);
        }
        let over = self.runs.len().saturating_sub(RUNS_KEPT);
        let old: Vec<String> = self.runs.drain(..over).map(|number| Cause::run(number).to_string()).collect();
        old.iter().map(|id| Mark::delete(Keyspace::RUN, &run_key(name, id))).collect()
    }

    pub(super) fn mark(&self, dataset: &DatasetName) -> Mark {
        Mark::put(Keyspace::SYNC, &key(dataset), serde_json::to_vec(self).unwrap_or_default())
    }

    /// Notes a run that was read to its end.
    pub(super) fn complete(&mut self, journey: &RunState) {
        let record = &journey.record;
        let provider_start = journey.provider_start.unwrap_or(journey.began);
        let start = match journey.part {
            Part::Incremental { until, .. } => provider_start.min(until),
            _ => provider_start,
        };
        self.local_clock = journey.provider_start.is_none();
        self.greatest_modified = self.greatest_modified.max(journey.greatest_modified);
        let base = self.greatest_modified.map_or(start, |greatest| greatest.min(start));
        if self.since_base.is_none() || record.counts.changes() > 0 {
            self.since_base = Some(base);
        }
        self.last_completed_at = Some(journey.began);
        self.deletes.extend(journey.deletes_done.iter().map(|index| (*index, provider_start)));
        if journey.part == Part::Full {
            self.last_full_at = Some(journey.began);
            if journey.proven {
                self.last_proven_at = Some(journey.began);
            }
        }
    }
}

/// Key parts of a sync.
pub(super) fn scope(dataset: &DatasetName) -> [&str; 5] {
    [&dataset.environment, &dataset.source, &dataset.connection, &dataset.model, &dataset.variant]
}

/// Where the checkpoint of a program's events is kept, under `Keyspace::BOOKMARK`.
pub(super) fn event_scope(dataset: &DatasetName) -> [&str; 6] {
    let [environment, source, connection, model, variant] = scope(dataset);
    [environment, source, connection, model, variant, EVENTS]
}

fn key(dataset: &DatasetName) -> [&str; 6] {
    let [environment, source, connection, model, variant] = scope(dataset);
    [environment, source, connection, model, variant, NAME]
}

/// Marks that remove all notes of a dataset.
pub(super) fn forget_notes(engine: &Engine, dataset: &DatasetName) -> Result<Vec<Mark>, Error> {
    let scope = scope(dataset);
    let notes = engine.marks(Keyspace::NOTE, &scope)?;
    let remove = |(rest, _): (Vec<String>, Vec<u8>)| {
        let key: Vec<&str> = scope.iter().copied().chain(rest.iter().map(String::as_str)).collect();
        Mark::delete(Keyspace::NOTE, &key)
    };
    Ok(notes.into_iter().map(remove).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_seconds(seconds)
    }

    #[test]
    fn the_first_run_is_full_then_windows_then_full_when_due() {
        let mut progress = Progress::default();
        let next = |progress: &Progress, full| progress.next_part(true, true, full, None, MINUTE, at(1_000));
        assert_eq!(next(&progress, false), Part::Full);
        (progress.since_base, progress.last_full_at) = (Some(at(500)), Some(at(500)));
        assert_eq!(next(&progress, false), Part::Incremental { since: at(440), until: at(1_000) });
        assert_eq!(next(&progress, true), Part::Full);
        assert_eq!(progress.next_part(true, false, false, None, MINUTE, at(1_000)), Part::Full);
    }

    #[test]
    fn a_stream_without_listing_begins_at_its_start() {
        let part = Progress::default().next_part(false, true, false, Some(at(7)), MINUTE, at(1_000));
        assert_eq!(part, Part::Incremental { since: at(7), until: at(1_000) });
    }

    #[test]
    fn without_the_providers_clock_the_lookback_is_at_least_five_minutes() {
        let mut progress = Progress { since_base: Some(at(1_000)), ..Progress::default() };
        assert_eq!(progress.since(MINUTE), Some(at(940)));
        progress.local_clock = true;
        assert_eq!(progress.since(MINUTE), Some(at(700)));
        assert_eq!(progress.since(10 * MINUTE), Some(at(400)));
    }
}
