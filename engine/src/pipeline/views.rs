//! Views and the catalog: every dataset that views read brings the datasets that they write.

use super::engine::Catalog;
use super::{DatasetSpec, Error};
use crate::dataflow::Derived;
use crate::dataflow::views::{Definition, Health, Registry};
use crate::model::{DatasetId, DatasetName, Strategy};
use crate::store::Store;
use std::sync::Arc;

/// A view and how it is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewStatus {
    /// Its name: the model its records are of.
    pub name: String,
    /// The source its records are of.
    pub source: String,
    /// Whether it reaches over all connections; its records then are those of connection
    /// [`ALL_CONNECTIONS`](crate::views::ALL_CONNECTIONS).
    pub across_connections: bool,
    /// How it is doing.
    pub health: Health,
}

/// What a definition makes of an engine that begins at epoch `first`.
pub(super) fn derived(definition: Option<Definition>, first: u64) -> Result<Option<Derived>, Error> {
    let Some(definition) = definition else { return Ok(None) };
    let plan = definition.plan().map_err(Error::BadViews)?;
    Ok(Some(Derived { definition, registry: Arc::new(Registry::new(plan)), first }))
}

/// How a dataset of a view is treated: what comes later counts.
fn spec() -> DatasetSpec {
    DatasetSpec { strategy: Strategy::Override, ignore_in_diff: Vec::new() }
}

/// Makes the datasets that views write for a dataset they read, where they are missing, and lets the views see it. Returns
/// what is new.
pub(super) fn enroll(
    registry: &Registry,
    catalog: &mut Catalog,
    store: &Store,
    name: &DatasetName,
    dataset: DatasetId,
) -> Result<Vec<(DatasetId, Arc<DatasetName>)>, Error> {
    let mut new = Vec::new();
    for (view, output) in registry.outputs_for(name) {
        let id = match catalog.by_name.get(&output) {
            Some((known, _)) => known.id,
            None => {
                let made = catalog.add(store, &output, &spec())?;
                new.push((made.id, made.name.clone()));
                made.id
            }
        };
        registry.writes(view, &output, id);
    }
    registry.reads(name, dataset);
    Ok(new)
}

/// All views in the order they were published in.
pub(super) fn statuses(registry: &Registry) -> Vec<ViewStatus> {
    let status = |view: &crate::dataflow::views::View| ViewStatus {
        name: view.name.clone(),
        source: view.source.clone(),
        across_connections: view.across,
        health: registry.ward.of(&view.name),
    };
    registry.plan.views.iter().map(status).collect()
}
