//! Which datasets views read and write: the one thing workers and the pipeline share about views.
//!
//! Promises: a dataset is known here before its first record reaches a worker, and so is every dataset its views write to;
//! numbers of scopes are of this process alone.

use super::health::PanicGuard;
use super::packed::TenantNumber;
use crate::model::{DatasetId, DatasetName};
use parking_lot::{RwLock, RwLockReadGuard};
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Connection of the datasets of views over all connections.
pub const ALL_CONNECTIONS: &str = "*";

/// A model that views read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Model {
    pub source: String,
    pub name: String,
}

/// A view that is published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct View {
    pub name: String,
    /// Source of its datasets.
    pub source: String,
    /// One dataset for all connections of an environment.
    pub across: bool,
    /// The models it reads, by number.
    pub reads: BTreeSet<usize>,
}

/// What a definition reads and publishes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ViewPlan {
    pub models: Vec<Model>,
    pub views: Vec<View>,
}

/// Datasets and scopes as they become known.
pub(crate) struct Registry {
    pub plan: ViewPlan,
    pub ward: Arc<PanicGuard>,
    version: AtomicU64,
    known: RwLock<KnownDataset>,
}

/// Environment and connection; no connection stands for all.
type TenantKey = (Arc<str>, Option<Arc<str>>);

#[derive(Default)]
pub(crate) struct KnownDataset {
    scopes: HashMap<TenantKey, TenantNumber>,
    /// By scope: that of its whole environment.
    whole: Vec<TenantNumber>,
    /// By scope: its environment.
    environments: Vec<Arc<str>>,
    /// By scope: its connection; empty for a whole environment.
    connections: Vec<Arc<str>>,
    models: HashMap<DatasetId, (usize, TenantNumber)>,
    outputs: HashMap<(usize, TenantNumber), DatasetId>,
}

impl KnownDataset {
    fn scope(&mut self, environment: &Arc<str>, connection: Option<&Arc<str>>) -> TenantNumber {
        let tenant = (environment.clone(), connection.cloned());
        if let Some(scope) = self.scopes.get(&tenant) {
            return *scope;
        }
        let whole = connection.map(|_| self.scope(environment, None));
        let scope = self.whole.len() as TenantNumber;
        self.whole.push(whole.unwrap_or(scope));
        self.environments.push(environment.clone());
        self.connections.push(connection.cloned().unwrap_or_default());
        self.scopes.insert(tenant, scope);
        scope
    }

    /// The model and scope of a dataset that views read.
    pub fn model(&self, dataset: DatasetId) -> Option<(usize, TenantNumber)> {
        self.models.get(&dataset).copied()
    }

    /// The dataset of a view in a scope.
    pub fn output(&self, view: usize, scope: TenantNumber) -> Option<DatasetId> {
        self.outputs.get(&(view, scope)).copied()
    }

    /// The scope of the whole environment, and the connection's id.
    pub fn whole(&self, scope: TenantNumber) -> Option<(TenantNumber, Arc<str>)> {
        let at = scope as usize;
        Some((*self.whole.get(at)?, self.connections.get(at)?.clone()))
    }

    /// The environment of a scope, and its connection: [`ALL_CONNECTIONS`] for a whole environment.
    pub fn whose(&self, scope: TenantNumber) -> Option<(Arc<str>, Arc<str>)> {
        let at = scope as usize;
        let connection = self.connections.get(at)?;
        let connection = if connection.is_empty() { ALL_CONNECTIONS.into() } else { connection.clone() };
        Some((self.environments.get(at)?.clone(), connection))
    }

    /// All datasets of views, each with the number of its view.
    pub fn outputs(&self) -> impl Iterator<Item = (usize, DatasetId)> + '_ {
        self.outputs.iter().map(|((view, _), dataset)| (*view, *dataset))
    }
}

impl Registry {
    pub fn new(plan: ViewPlan) -> Registry {
        Registry { plan, ward: Arc::default(), version: AtomicU64::new(1), known: RwLock::default() }
    }

    /// Rises whenever a dataset was added.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    pub fn known(&self) -> RwLockReadGuard<'_, KnownDataset> {
        self.known.read()
    }

    /// The datasets that views read.
    pub fn watched(&self) -> BTreeSet<DatasetId> {
        self.known().models.keys().copied().collect()
    }

    fn model_of(&self, name: &DatasetName) -> Option<usize> {
        let reads = |m: &Model| *m.source == *name.source && *m.name == *name.model && &*name.variant == "base";
        self.plan.models.iter().position(reads)
    }

    /// The datasets that have to be there for a dataset's views, each with the number of its view.
    pub fn outputs_for(&self, name: &DatasetName) -> Vec<(usize, DatasetName)> {
        let Some(model) = self.model_of(name) else { return Vec::new() };
        let reading = self.plan.views.iter().enumerate().filter(|(_, view)| view.reads.contains(&model));
        let named = |view: &View| {
            let connection = if view.across { ALL_CONNECTIONS } else { &name.connection };
            DatasetName::base(&name.environment, &view.source, connection, &view.name)
        };
        reading.map(|(number, view)| (number, named(view))).collect()
    }

    /// Whether a dataset's name is that of a view.
    pub fn publishes(&self, name: &DatasetName) -> bool {
        self.plan.views.iter().any(|view| *view.source == *name.source && *view.name == *name.model)
    }

    /// A dataset of a view is there.
    pub fn writes(&self, view: usize, name: &DatasetName, dataset: DatasetId) {
        let mut known = self.known.write();
        let across = self.plan.views.get(view).is_some_and(|view| view.across);
        let scope = known.scope(&name.environment, (!across).then_some(&name.connection));
        known.outputs.insert((view, scope), dataset);
    }

    /// A dataset is there; from the next engine time on its records reach the views that read it.
    pub fn reads(&self, name: &DatasetName, dataset: DatasetId) {
        let Some(model) = self.model_of(name) else { return };
        let mut known = self.known.write();
        let scope = known.scope(&name.environment, Some(&name.connection));
        if known.models.insert(dataset, (model, scope)).is_none() {
            self.version.fetch_add(1, Ordering::Release);
        }
    }
}
