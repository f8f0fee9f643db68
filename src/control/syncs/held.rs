//! Deletes that wait for approval: a full listing wanted to delete suspiciously many records.

use super::{SyncKey, Syncs};
use crate::engine::model::{Cause, Counts, Timestamp};
use crate::engine::pipeline::Error;

/// Deletes of one run that wait.
#[derive(Clone, Debug)]
pub struct HeldDeletes {
    /// The run that found them.
    pub run: Cause,
    /// Its sync.
    pub key: SyncKey,
    /// Records that would be deleted.
    pub missing: u64,
    /// Live records of the dataset then.
    pub live: u64,
    /// When it was held.
    pub at: Timestamp,
}

/// Why held deletes could not be decided.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HeldError {
    /// No deletes of this run wait: decided already, or lifted by a later complete run.
    #[error("no deletes of run {0} wait for approval; `syncline runs list` shows which do")]
    Unknown(String),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl Syncs {
    /// Deletes that wait in an environment.
    pub fn held(&self, environment: &str) -> Result<Vec<HeldDeletes>, HeldError> {
        let _ = environment;
        Ok(Vec::new())
    }

    /// Applies the deletes of a run.
    pub async fn approve(&self, environment: &str, run: &str) -> Result<Counts, HeldError> {
        let _ = environment;
        Err(HeldError::Unknown(run.to_owned()))
    }

    /// Keeps the records; the next full listing looks again.
    pub async fn reject(&self, environment: &str, run: &str) -> Result<(), HeldError> {
        let _ = environment;
        Err(HeldError::Unknown(run.to_owned()))
    }
}
