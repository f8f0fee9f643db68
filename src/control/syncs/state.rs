//! What is kept of a sync between starts: one JSON value in [`Table::Sync`].
//!
//! Promises: a value written by an older version is read; one by a newer version is refused, not guessed at.

use super::SyncKey;
use crate::engine::model::{Counts, Timestamp};
use crate::engine::pipeline::{Error, Mark, Table};
use serde::{Deserialize, Serialize};

/// Version of the stored form.
const FORMAT: u32 = 1;

/// State of one sync.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct SyncState {
    /// Version of the stored form.
    pub format: u32,
    /// Creation: the anchor of its grid.
    pub created_at: Timestamp,
    /// Seconds between runs, set at run time instead of what the file says.
    #[serde(default)]
    pub every: Option<u64>,
    /// No ticks until it is started.
    #[serde(default)]
    pub paused: bool,
    /// Made at run time, beside `base`.
    #[serde(default)]
    pub added: bool,
    /// The run in progress; found set at a start it was interrupted.
    #[serde(default)]
    pub running: Option<Begun>,
    /// The last run that ended.
    #[serde(default)]
    pub last: Option<LastRun>,
    /// Start of the last full listing that ended well.
    #[serde(default)]
    pub full_at: Option<Timestamp>,
    /// The provider asked not to come back before this.
    #[serde(default)]
    pub not_before: Option<Timestamp>,
    /// Where the next run begins.
    #[serde(default)]
    pub progress: Progress,
}

/// A run that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Begun {
    /// When.
    pub at: Timestamp,
    /// Which kind.
    pub kind: RunKind,
}

/// The kind of a run as surfaces name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RunKind {
    /// The first listing.
    Initial,
    /// What changed.
    Incremental,
    /// The complete listing again.
    Full,
}

impl RunKind {
    /// `INITIAL`, `INCREMENTAL` or `FULL`.
    pub fn as_str(self) -> &'static str {
        match self {
            RunKind::Initial => "INITIAL",
            RunKind::Incremental => "INCREMENTAL",
            RunKind::Full => "FULL",
        }
    }
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Everything was read, and proven where proof was wanted.
    Complete,
    /// Something is missing: quarantined records, skipped pages, no proof.
    Incomplete,
    /// It stopped with an error.
    Failed,
    /// Deletes wait for approval.
    Held,
    /// It was told to stop.
    Cancelled,
}

/// The last run that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRun {
    /// `run_…`.
    pub run: String,
    /// Its kind.
    pub kind: RunKind,
    /// Its start.
    pub started_at: Timestamp,
    /// Its end.
    pub finished_at: Timestamp,
    /// How it ended.
    pub outcome: Outcome,
    /// What it did.
    pub counts: Counts,
    /// Why it failed or is not complete.
    #[serde(default)]
    pub error: Option<String>,
}

impl SyncState {
    /// A sync that has not run.
    pub fn new(now: Timestamp, paused: bool, added: bool) -> Self {
        SyncState {
            format: FORMAT,
            created_at: now,
            every: None,
            paused,
            added,
            running: None,
            last: None,
            full_at: None,
            not_before: None,
            progress: Progress::default(),
        }
    }

    /// Reads the stored form.
    pub fn read(key: &SyncKey, value: &[u8]) -> Result<Self, Error> {
        let state: SyncState = serde_json::from_slice(value)
            .map_err(|e| Error::Storage(format!("the state of sync {key} cannot be read: {e}")))?;
        if state.format > FORMAT {
            return Err(Error::NewerFormat { found: state.format, known: FORMAT });
        }
        Ok(state)
    }

    /// The stored form.
    pub fn mark(&self, key: &SyncKey) -> Result<Mark, Error> {
        let text = serde_json::to_vec(self)
            .map_err(|e| Error::Storage(format!("the state of sync {key} cannot be written: {e}")))?;
        Ok(Mark::put(Table::Sync, &key.parts(), text))
    }
}

/// Where the next run begins, as the run driver keeps it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Progress {}
