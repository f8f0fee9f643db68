//! What metrics read of an [`App`], and whose figures a key may see.

use super::App;
use crate::config::OF_ALL;
use crate::engine::pipeline::Keyspace;
use crate::telemetry::{Figures, Measured};
use std::collections::{BTreeMap, BTreeSet};

impl Measured for App {
    fn figures(&self) -> Figures {
        let environments = self.environments();
        let live = self.live(&environments).into_iter().collect();
        let waiting = |environment: String| {
            let held = self.engine.marks(Keyspace::HELD, &[&environment]).map_or(0, |held| held.len());
            (environment, held)
        };
        let views = self.engine.views().into_iter();
        Figures {
            log_end: *self.engine.log().end().borrow(),
            processed: self.hooks.processed(),
            memory: [self.bounds.bodies.used(), self.bounds.answers.used()],
            held: environments.into_iter().map(waiting).collect(),
            live,
            views: views.map(|view| (view.name, view.health.rows, view.health.bytes)).collect(),
            disk: self.engine.disk(),
            refusing: self.engine.refusing().is_some(),
        }
    }
}

impl App {
    /// The environment whose figures a key of `environment` sees; `None` if it sees all: it belongs to every environment, or
    /// everything of the installation belongs to its own.
    pub fn figures_of<'e>(&self, environment: &'e str) -> Option<&'e str> {
        let definitions = self.definitions.all();
        let fixed = definitions.values().flat_map(|definition| &definition.connections);
        let connections = fixed.map(|connection| connection.environment.as_str()).filter(|name| !name.is_empty());
        let endpoints = self.settings.endpoints.values().map(|endpoint| endpoint.environment.as_str());
        let mut all = self.settings.environments().chain(connections).chain(endpoints);
        (environment != OF_ALL && !all.all(|other| other == environment)).then_some(environment)
    }

    /// Environments that may have something to be counted.
    fn environments(&self) -> BTreeSet<String> {
        let mut all: BTreeSet<String> = self.settings.environments().map(str::to_owned).collect();
        all.extend(self.connections.all().iter().map(|account| account.key.environment.clone()));
        all.insert("default".to_owned());
        all
    }

    fn live(&self, environments: &BTreeSet<String>) -> BTreeMap<[String; 3], u64> {
        let mut live = BTreeMap::new();
        for dataset in environments.iter().flat_map(|environment| self.engine.datasets(environment)) {
            let name = &dataset.name;
            let of = [&name.environment, &name.source, &name.model].map(|part| part.to_string());
            *live.entry(of).or_default() += self.engine.live(&dataset);
        }
        live
    }
}
