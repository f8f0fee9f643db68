//! What is asked for the streams of each definition: code of the program's own, else requests as the definition says.
//!
//! Promises: all that ask a source share one [`Source`], and with it one budget for each connection; a source that comes while
//! the program runs is known to everyone who holds these.

use crate::config::Settings;
use crate::connectors::definition::Definition;
use crate::connectors::http::Client;
use crate::connectors::rest::{Credentials, RestSource};
use crate::engine::Engine;
use crate::engine::source::{Failure, Source};
use crate::engine::time::Clock;
use crate::registry::definitions::Definitions;
use crate::registry::source_state::Committed;
use parking_lot::RwLock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// What makes requests, by source name. Cheap to clone.
#[derive(Clone)]
pub struct Sources {
    shared: Arc<SharedSources>,
}

struct SharedSources {
    by_name: RwLock<BTreeMap<String, KnownSource>>,
    of_code: BTreeMap<String, Arc<dyn Source>>,
    client: Client,
    clock: Arc<dyn Clock>,
    notes: Arc<Committed>,
    credentials: Arc<dyn Credentials>,
}

#[derive(Clone)]
struct KnownSource {
    source: Arc<dyn Source>,
    /// The same, where it is asked by HTTP.
    rest: Option<Arc<RestSource>>,
}

impl Sources {
    /// Those of these definitions.
    pub fn open(
        settings: &Settings,
        definitions: &Definitions,
        engine: &Engine,
        credentials: Arc<dyn Credentials>,
    ) -> Result<Sources, Failure> {
        let clock = engine.clock();
        let client = Client::new(settings.client(), clock.clone())?;
        let shared = SharedSources {
            by_name: RwLock::default(),
            of_code: settings.extensions.sources.clone(),
            client,
            clock,
            notes: Arc::new(Committed::new(engine.clone())),
            credentials,
        };
        let sources = Sources { shared: Arc::new(shared) };
        definitions.all().values().try_for_each(|definition| sources.put(definition))?;
        Ok(sources)
    }

    /// What is asked for a source.
    pub fn get(&self, source: &str) -> Option<Arc<dyn Source>> {
        self.shared.by_name.read().get(source).map(|known| known.source.clone())
    }

    /// What makes requests by HTTP in the name of a source's connections: those of functions and programs beside its own.
    pub fn rest(&self, source: &str) -> Option<Arc<RestSource>> {
        self.shared.by_name.read().get(source)?.rest.clone()
    }

    /// Takes in what is asked for a definition, instead of what its source has.
    pub(super) fn put(&self, definition: &Arc<Definition>) -> Result<(), Failure> {
        let known = self.known(definition)?;
        self.shared.by_name.write().insert(definition.source.clone(), known);
        Ok(())
    }

    /// Forgets a source.
    pub(super) fn remove(&self, source: &str) {
        self.shared.by_name.write().remove(source);
    }

    fn known(&self, definition: &Arc<Definition>) -> Result<KnownSource, Failure> {
        let SharedSources { of_code, client, clock, notes, credentials, .. } = &*self.shared;
        if let Some(source) = of_code.get(&definition.source) {
            return Ok(KnownSource { source: source.clone(), rest: None });
        }
        let rest = RestSource::new(definition.clone(), client.clone(), clock.clone(), notes.clone())?;
        let rest = Arc::new(rest.with_credentials(credentials.clone()));
        Ok(KnownSource { source: rest.clone(), rest: Some(rest) })
    }
}
