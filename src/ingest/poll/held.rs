//! Deletes that wait for approval: a full listing wanted to delete suspiciously many records.

use super::{SyncKey, Syncs};
use crate::engine::pipeline::Error;
use crate::engine::pipeline::run::{self as driver, Hold};

/// Deletes of one run that wait.
#[derive(Clone, Debug)]
pub struct HeldDeletes {
    /// Its sync.
    pub key: SyncKey,
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
            let holds = driver::held(&self.inner.engine, &key.dataset())?;
            all.extend(holds.into_iter().map(|hold| HeldDeletes { key: key.clone(), hold }));
        }
        Ok(all)
    }

    /// Applies the deletes of a run. Gives the number of records deleted: those still missing now.
    pub async fn approve(&self, environment: &str, run: &str) -> Result<u64, HeldError> {
        let unknown = || HeldError::Unknown(run.to_owned());
        let found = self.found(environment, run)?;
        let dataset = self.dataset(&found.key).ok_or_else(unknown)?;
        let missing = self.inner.engine.missing(&dataset).await?.positions.len();
        let done = driver::approve(&self.inner.engine, &dataset, run).await?;
        self.look_again(&found.key)?;
        if done { Ok(missing as u64) } else { Err(unknown()) }
    }

    /// Keeps the records; the next full listing looks again.
    pub async fn reject(&self, environment: &str, run: &str) -> Result<(), HeldError> {
        let unknown = || HeldError::Unknown(run.to_owned());
        let found = self.found(environment, run)?;
        let dataset = self.dataset(&found.key).ok_or_else(unknown)?;
        let done = driver::reject(&self.inner.engine, &dataset, run).await?;
        self.look_again(&found.key)?;
        if done { Ok(()) } else { Err(unknown()) }
    }

    fn found(&self, environment: &str, run: &str) -> Result<HeldDeletes, HeldError> {
        let all = self.held(environment)?;
        all.into_iter().find(|held| held.hold.run == run).ok_or_else(|| HeldError::Unknown(run.to_owned()))
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
