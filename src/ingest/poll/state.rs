//! What is kept of a sync between starts: one JSON value in [`Keyspace::SYNC`].
//!
//! Promises: a value written by an older version is read; one by a newer version is refused, not guessed at.

use super::SyncKey;
use crate::connectors::definition::Stream;
use crate::engine::model::{Counts, Timestamp};
use crate::engine::pipeline::run::{self, RunRecord};
use crate::engine::pipeline::{Error, Keyspace, Mark};
use crate::engine::source::program::RunKind;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Version of the stored form.
const FORMAT: u32 = 1;

/// What was decided about one sync; what its runs achieved is the run driver's `Progress`, kept beside it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
    /// Hash of what made records of items ([`shape`]) when everything was last listed.
    #[serde(default)]
    pub shape: Option<String>,
}

/// What turns items into records, as a hash: when it changes, records made before have to be made again.
pub(crate) fn shape(stream: &Stream) -> String {
    let text = format!("{:?} {} {:?} {:?}", stream.key, stream.composite, stream.modified_at, stream.map);
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LastOutcome {
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
    pub outcome: LastOutcome,
    /// What it did.
    pub counts: Counts,
    /// Why it failed or is not complete.
    #[serde(default)]
    pub error: Option<String>,
}

impl LastRun {
    /// From the record of a run; `None` while it goes on.
    pub(crate) fn of(record: &RunRecord) -> Option<LastRun> {
        let outcome = match record.status {
            run::Outcome::Running => return None,
            run::Outcome::Complete => LastOutcome::Complete,
            run::Outcome::Incomplete => LastOutcome::Incomplete,
            run::Outcome::Failed => LastOutcome::Failed,
            run::Outcome::Held => LastOutcome::Held,
            run::Outcome::Cancelled => LastOutcome::Cancelled,
        };
        let failure = record.error.as_ref().map(|(code, text)| format!("{code}: {text}"));
        Some(LastRun {
            run: record.id.clone(),
            kind: record.kind.parse().unwrap_or(RunKind::Incremental),
            started_at: record.started_at,
            finished_at: record.ended_at.unwrap_or(record.started_at),
            outcome,
            counts: record.counts,
            error: failure.or_else(|| record.doubts.first().cloned()),
        })
    }
}

impl SyncState {
    /// A sync that has not run.
    pub fn new(now: Timestamp, paused: bool, added: bool) -> Self {
        SyncState { format: FORMAT, created_at: now, every: None, paused, added, shape: None }
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
        Ok(Mark::put(Keyspace::SYNC, &key.parts(), text))
    }
}
