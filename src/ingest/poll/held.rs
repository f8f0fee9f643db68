//! Deletes that wait for approval: a full listing wanted to delete suspiciously many records.

use super::{SyncKey, Syncs};
use crate::engine::pipeline::run::{self as driver, Hold};
use crate::engine::pipeline::{Dataset, Error};

/// Deletes of one run that wait.
#[derive(Clone, Debug)]
pub struct HeldDeletes {
    /// Its sync.
    pub key: SyncKey,
    /// Where the records are.
    pub dataset: Dataset,
    /// The run, and how much it wants to delete.
    pub hold: Hold,
}

/// Why held deletes could not be decided.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HeldError {
    /// No deletes of this run wait: decided already, or lifted by a later complete run.
    #[error("no deletes of run `{0}` wait for approval")]
    Unknown(String),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl Syncs {
    /// Deletes that wait in an environment.
    pub fn held(&self, environment: &str) -> Result<Vec<HeldDeletes>, Error> {
        let mut all = Vec::new();
        for key in self.keys().into_iter().filter(|key| key.environment == environment) {
            for dataset in self.datasets(&key).unwrap_or_default() {
                let holds = driver::held(&self.inner.engine, &dataset.name)?;
                let of = |hold| HeldDeletes { key: key.clone(), dataset: dataset.clone(), hold };
                all.extend(holds.into_iter().map(of));
            }
        }
        Ok(all)
    }

    /// Applies the deletes of a run, of all its models. Gives the number of records deleted: those still missing now.
    pub async fn approve(&self, environment: &str, run: &str) -> Result<u64, HeldError> {
        let (mut deleted, mut any) = (0, false);
        for found in self.found(environment, run)? {
            let missing = self.inner.engine.missing(&found.dataset).await?.positions.len();
            if driver::approve(&self.inner.engine, &found.dataset, run).await? {
                (deleted, any) = (deleted + missing as u64, true);
            }
            self.look_again(&found.key)?;
        }
        if any { Ok(deleted) } else { Err(HeldError::Unknown(run.to_owned())) }
    }

    /// Keeps the records; the next full listing looks again.
    pub async fn reject(&self, environment: &str, run: &str) -> Result<(), HeldError> {
        let mut any = false;
        for found in self.found(environment, run)? {
            any |= driver::reject(&self.inner.engine, &found.dataset, run).await?;
            self.look_again(&found.key)?;
        }
        if any { Ok(()) } else { Err(HeldError::Unknown(run.to_owned())) }
    }

    fn found(&self, environment: &str, run: &str) -> Result<Vec<HeldDeletes>, HeldError> {
        let mut all = self.held(environment)?;
        all.retain(|held| held.hold.run == run);
        if all.is_empty() { Err(HeldError::Unknown(run.to_owned())) } else { Ok(all) }
    }

    /// Reads again what is stored of a sync's runs.
    fn look_again(&self, key: &SyncKey) -> Result<(), Error> {
        let (progress, record) = self.achieved(key)?;
        if let Some(entry) = self.table().get_mut(key).filter(|entry| entry.running.is_none()) {
            (entry.progress, entry.record) = (progress, record);
        }
        Ok(())
    }
}
