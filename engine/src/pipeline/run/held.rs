//! Deletes that wait for approval: stored with the run that found them.

use super::record::{RunRecord, run_key};
use crate::model::{DatasetName, Timestamp};
use crate::pipeline::{Engine, Error, Keyspace, Mark};
use serde::{Deserialize, Serialize};

/// Deletes that wait for approval, as stored under `Keyspace::HELD` (environment, source, model, run id).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hold {
    /// The run that found them.
    pub run: String,
    /// The connection.
    pub connection: String,
    /// `base` or another configuration.
    pub variant: String,
    /// Live records of the dataset.
    pub live: u64,
    /// Those that were missing.
    pub missing: u64,
    /// When the run began.
    pub at: Timestamp,
    /// When the window they were found in was opened: another one is none of theirs.
    #[serde(default)]
    pub window: Option<Timestamp>,
    /// The sync under whose name the run is kept, where that is not the model's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<String>,
}

impl Hold {
    /// The name under which the run of these deletes is kept.
    pub(super) fn kept_under(&self, dataset: &DatasetName) -> DatasetName {
        let model = self.sync.as_deref().map_or_else(|| dataset.model.clone(), Into::into);
        DatasetName { model, ..dataset.clone() }
    }
}

/// The mark of deletes that wait; `sync` is the name under which the run is kept, where that is not the dataset's.
pub(super) fn hold(
    dataset: &DatasetName,
    sync: Option<&DatasetName>,
    record: &RunRecord,
    (live, missing): (u64, u64),
    window: Option<Timestamp>,
) -> Mark {
    let hold = Hold {
        run: record.id.clone(),
        connection: record.connection.clone(),
        variant: record.variant.clone(),
        live,
        missing,
        at: record.started_at,
        window,
        sync: sync.map(|name| name.model.to_string()),
    };
    Mark::put(Keyspace::HELD, &run_key(dataset, &record.id), serde_json::to_vec(&hold).unwrap_or_default())
}

/// Deletes of a dataset that wait for approval.
pub fn held(engine: &Engine, dataset: &DatasetName) -> Result<Vec<Hold>, Error> {
    let marks = engine.marks(Keyspace::HELD, &[&dataset.environment, &dataset.source, &dataset.model])?;
    let holds = marks.iter().filter_map(|(_, value)| serde_json::from_slice::<Hold>(value).ok());
    Ok(holds.filter(|hold| *hold.connection == *dataset.connection && *hold.variant == *dataset.variant).collect())
}

/// Marks that lift all holds of a dataset: a new listing begins, and finds for itself what is missing.
pub(super) fn clear_held(engine: &Engine, dataset: &DatasetName) -> Result<Vec<Mark>, Error> {
    let holds = held(engine, dataset)?;
    Ok(holds.iter().map(|hold| Mark::delete(Keyspace::HELD, &run_key(dataset, &hold.run))).collect())
}
