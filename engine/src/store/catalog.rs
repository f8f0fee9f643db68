//! Names and small state of the store itself: datasets, windows, the installation's secret, counters.

use super::StoreBatch;
use super::{Family, Result, Store, keys};
use crate::model::{Counts, DatasetId, DatasetName, Strategy, Timestamp, Via};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A dataset as the catalog keeps it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct DatasetEntry {
    name: [String; 5],
    pub strategy: Strategy,
    pub ignore_in_diff: Vec<String>,
    /// A view's: it was made by what a program derives.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub view: bool,
}

impl DatasetEntry {
    pub(crate) fn new(name: &DatasetName, strategy: Strategy, ignore_in_diff: Vec<String>) -> Self {
        let name = [&name.environment, &name.source, &name.connection, &name.model, &name.variant];
        DatasetEntry { name: name.map(|part| part.to_string()), strategy, ignore_in_diff, view: false }
    }

    pub(crate) fn name(&self) -> DatasetName {
        let [environment, source, connection, model, variant] = self.name.each_ref().map(|part| part.as_str().into());
        DatasetName { environment, source, connection, model, variant }
    }
}

/// The delete tracking of a dataset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct WindowState {
    /// The last generation handed out.
    pub generation: u32,
    /// The clock of the open window.
    pub open_since: Option<Timestamp>,
}

/// What a cause has changed in a dataset and was not announced yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Unannounced {
    pub counts: Counts,
    /// Last position before the first of these changes.
    pub from: u64,
    /// Position of the last one.
    pub to: u64,
    /// The cause's number (of the last webhook or push).
    pub cause: u64,
    /// How the last of these changes came, where it was not a run.
    #[serde(default)]
    pub via: Option<Via>,
}

pub(crate) const WINDOW: &str = "window";
pub(crate) const LANE: &str = "lane";
/// Unannounced changes of webhooks, by dataset.
pub(crate) const WEBHOOKS: &str = "webhooks";
/// Unannounced changes of runs: «runs/dataset/run».
pub(crate) const RUNS: &str = "runs";
/// Time of the last commit: a clock that was set back must not make later commits earlier.
pub(crate) const LAST_AT: &[u8] = b"last_at";
/// Position below which a dataset was emptied.
pub(crate) const EMPTIED: &str = "emptied";
/// Datasets whose entries are in the store.
pub(crate) const SPILLED: &str = "spilled";
pub(crate) const RUN_NUMBER: &[u8] = b"run_number";
/// Number of workers, and the engine time since when there are so many.
const SPLIT: &[u8] = b"split";

impl Store {
    /// Notes over how many workers the records are spread. What each worker has stored of records that were only seen is its
    /// own to replace; what was stored when there were more or fewer of them speaks of others' records as well, and stays.
    pub(crate) fn split(&mut self, workers: usize) -> Result<()> {
        let workers = (workers as u64).to_be_bytes();
        let known = self.system(SPLIT)?.filter(|known| known.starts_with(&workers) && known.len() == 16);
        self.split_since = match &known {
            Some(known) => keys::number(known, 8),
            None => self.committed()?,
        };
        if known.is_some() {
            return Ok(());
        }
        let mut batch = self.batch();
        self.put_system(&mut batch, SPLIT, &[workers, self.split_since.to_be_bytes()].concat());
        self.write_synced(batch)
    }

    /// All values named `prefix`/number.
    pub(crate) fn named<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(u64, T)>> {
        let mut found = Vec::new();
        let start = keys::named(prefix, 0);
        let head = &start[..prefix.len() + 1];
        self.scan_from(Family::System, &start).each(|key, value| {
            let is_named = key.starts_with(head);
            if is_named && let Ok(value) = serde_json::from_slice(value) {
                found.push((keys::number(key, prefix.len() + 1), value));
            }
            Ok(is_named)
        })?;
        Ok(found)
    }

    /// The value named `prefix`/`number`.
    pub(crate) fn named_one<T: DeserializeOwned>(&self, prefix: &str, number: u64) -> Result<Option<T>> {
        Ok(self.system(&keys::named(prefix, number))?.and_then(|bytes| serde_json::from_slice(&bytes).ok()))
    }

    /// Position below which everything of the dataset was dropped on request, if it ever was.
    pub(crate) fn emptied(&self, dataset: DatasetId) -> Result<Option<u64>> {
        Ok(self.system(&keys::named(EMPTIED, u64::from(dataset.0)))?.map(|bytes| keys::number(&bytes, 0)))
    }

    /// Puts a named value into a batch.
    pub(crate) fn put_named<T: Serialize>(&self, batch: &mut StoreBatch, prefix: &str, number: u64, value: &T) {
        // Values here are plain structs: they always serialise.
        if let Ok(bytes) = serde_json::to_vec(value) {
            self.put(batch, Family::System, keys::named(prefix, number), bytes);
        }
    }

    /// Removes a named value in a batch.
    pub(crate) fn delete_named(&self, batch: &mut StoreBatch, prefix: &str, number: u64) {
        self.delete(batch, Family::System, keys::named(prefix, number));
    }

    /// Time of the last commit.
    pub(crate) fn last_at(&self) -> Result<Timestamp> {
        let bytes = self.system(LAST_AT)?;
        Ok(Timestamp(bytes.and_then(|bytes| bytes.try_into().ok()).map_or(0, i64::from_be_bytes)))
    }

    /// Puts a system value into a batch.
    pub(crate) fn put_system(&self, batch: &mut StoreBatch, key: &[u8], value: &[u8]) {
        self.put(batch, Family::System, key, value);
    }

    /// The installation's secret, made by `fresh` on the first start.
    pub(crate) fn secret(&self, fresh: impl FnOnce() -> [u8; 32]) -> Result<[u8; 32]> {
        if let Some(known) = self.system(b"secret")?.and_then(|bytes| bytes.try_into().ok()) {
            return Ok(known);
        }
        let secret = fresh();
        let mut batch = self.batch();
        self.put_system(&mut batch, b"secret", &secret);
        self.write_synced(batch)?;
        Ok(secret)
    }

    /// Registers or changes a dataset, durably.
    pub(crate) fn put_dataset(&self, id: DatasetId, entry: &DatasetEntry) -> Result<()> {
        let mut batch = self.batch();
        self.put_named(&mut batch, keys::DATASET, u64::from(id.0), entry);
        self.write_synced(batch)
    }
}
