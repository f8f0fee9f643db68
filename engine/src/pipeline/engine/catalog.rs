//! Which datasets there are: registered by name, kept in the store, those of views among them.

use super::Engine;
use super::open::COUNTS;
use crate::model::content::Ignore;
use crate::model::{DatasetId, DatasetName};
use crate::pipeline::messages::BatchReply;
use crate::pipeline::views::{self, ViewStatus};
use crate::pipeline::{Batch, Dataset, DatasetSpec, Error};
use crate::state::EpochWork;
use crate::store::Store;
use crate::store::catalog::DatasetEntry;
use crate::store::keys::DATASET;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// The datasets there are.
#[derive(Default)]
pub(in crate::pipeline) struct Catalog {
    pub by_name: BTreeMap<DatasetName, (Dataset, DatasetSpec)>,
    /// Those made by views, of this start or of an earlier one.
    pub of_views: BTreeSet<DatasetId>,
    /// The number of the next new one.
    next: u32,
}

impl Catalog {
    /// Stores a dataset nobody knew, or another way to treat one.
    pub fn add(&mut self, store: &Store, name: &DatasetName, spec: &DatasetSpec, view: bool) -> Result<Dataset, Error> {
        let dataset = match self.by_name.get(name) {
            Some((dataset, _)) => dataset.clone(),
            None => Dataset { id: DatasetId(self.next), name: Arc::new(name.clone()) },
        };
        let mut entry = DatasetEntry::new(name, spec.strategy, spec.ignore_in_diff.clone());
        entry.view = view;
        store.put_dataset(dataset.id, &entry)?;
        if view {
            self.of_views.insert(dataset.id)
        } else {
            self.of_views.remove(&dataset.id)
        };
        self.next = self.next.max(dataset.id.0 + 1);
        self.by_name.insert(name.clone(), (dataset.clone(), spec.clone()));
        Ok(dataset)
    }
}

impl Engine {
    /// Registers a dataset, or changes how it is treated from the next batch on.
    pub fn dataset(&self, name: &DatasetName, spec: &DatasetSpec) -> Result<Dataset, Error> {
        let mut catalog = self.inner.catalog.write();
        let views = self.inner.views.as_deref();
        let published = views.is_some_and(|views| views.publishes(name));
        // What a view left behind becomes whose name it is now.
        if let Some((dataset, known)) = catalog.by_name.get(name)
            && known == spec
            && (published || !catalog.of_views.contains(&dataset.id))
        {
            return Ok(dataset.clone());
        }
        if published {
            return Err(Error::BadViews(format!(
                "`{}` of source {} is a view: nothing else can be written to it; rename the view or the stream",
                name.model, name.source
            )));
        }
        let dataset = catalog.add(&self.inner.store, name, spec, false)?;
        let mut new = vec![(dataset.id, dataset.name.clone())];
        if let Some(views) = views {
            new.extend(views::enroll(views, &mut catalog, &self.inner.store, name, dataset.id)?);
        }
        self.inner.names.write().extend(new);
        // Not waited for: whatever is submitted after it is treated so. The catalog is held meanwhile, or another caller found
        // the dataset known and came first.
        let (answer, _) = BatchReply::new(None);
        self.enqueue(Batch::default(), vec![treat(dataset.id, spec)], false, answer, None)?;
        drop(catalog);
        Ok(dataset)
    }

    /// What is derived from the records, and how it is doing.
    pub fn views(&self) -> Vec<ViewStatus> {
        self.inner.views.as_deref().map(views::statuses).unwrap_or_default()
    }

    /// Datasets of an environment that were made by views which are not defined any more.
    pub(in crate::pipeline) fn left_by_views(&self, environment: &str) -> Vec<Dataset> {
        let published = |dataset: &Dataset| self.inner.views.as_deref().is_some_and(|v| v.publishes(&dataset.name));
        let catalog = self.inner.catalog.read();
        let of_views =
            catalog.by_name.values().map(|(dataset, _)| dataset).filter(|d| catalog.of_views.contains(&d.id));
        of_views.filter(|d| &*d.name.environment == environment && !published(d)).cloned().collect()
    }

    /// A registered dataset.
    pub fn find(&self, name: &DatasetName) -> Option<Dataset> {
        let catalog = self.inner.catalog.read();
        catalog.by_name.get(name).map(|(dataset, _)| dataset.clone())
    }

    /// The name of a registered dataset.
    pub fn name_of(&self, dataset: DatasetId) -> Option<Arc<DatasetName>> {
        self.inner.names.read().get(&dataset).cloned()
    }

    /// All datasets of an environment, by name.
    pub fn datasets(&self, environment: &str) -> Vec<Dataset> {
        let catalog = self.inner.catalog.read();
        let mine = catalog.by_name.iter().filter(|(name, _)| &*name.environment == environment);
        mine.map(|(_, (dataset, _))| dataset.clone()).collect()
    }

    /// All datasets of all environments, by name: for followers of the whole store.
    pub fn every_dataset(&self) -> Vec<Dataset> {
        let catalog = self.inner.catalog.read();
        catalog.by_name.values().map(|(dataset, _)| dataset.clone()).collect()
    }
}

/// The catalog that a store keeps, and the names by number.
pub(super) fn read_catalog(store: &Store) -> Result<(Catalog, HashMap<DatasetId, Arc<DatasetName>>), Error> {
    let mut catalog = Catalog { next: COUNTS.0 + 1, ..Catalog::default() };
    let mut names = HashMap::new();
    for (id, entry) in store.named::<DatasetEntry>(DATASET)? {
        let name = Arc::new(entry.name());
        let dataset = Dataset { id: DatasetId(id as u32), name: name.clone() };
        if entry.view {
            catalog.of_views.insert(dataset.id);
        }
        let spec = DatasetSpec { strategy: entry.strategy, ignore_in_diff: entry.ignore_in_diff };
        catalog.next = catalog.next.max(dataset.id.0 + 1);
        names.insert(dataset.id, name.clone());
        catalog.by_name.insert((*name).clone(), (dataset, spec));
    }
    Ok((catalog, names))
}

/// Tells the workers how a dataset is treated.
pub(super) fn treat(dataset: DatasetId, spec: &DatasetSpec) -> EpochWork {
    let ignore = Arc::new(Ignore::new(spec.ignore_in_diff.iter().map(String::as_str)));
    EpochWork::Treat { dataset, strategy: spec.strategy, ignore }
}
