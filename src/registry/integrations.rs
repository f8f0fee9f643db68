//! Integrations: what the app is known by at a provider. Each source is one. Most stand in definition files; others are made over
//! REST from a preset, and kept in the engine's marks.
//!
//! Promises: one that was answered is there after a crash, and defines its source from then on; a name is one integration's, and a
//! file's counts; a secret is kept and used, and shown only to who may see it.

use crate::config::Settings;
use crate::connectors::config_text::SourceSpan;
use crate::connectors::definition::{
    Complaint, Definition, IntegrationCredentials, PresetIntegration, presets, sign_in_of,
};
use crate::engine::Engine;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Error, Mark};
use crate::engine::source::Failure;
use crate::keyspaces;
use crate::registry::definitions::{Definitions, must_be_served, outward};
use crate::registry::sources::Sources;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Version of the stored form.
const FORMAT: u32 = 1;
/// Most integrations made over REST.
const MADE_MAX: usize = 1_000;

/// An integration that stands in no file.
#[derive(Clone, Serialize, Deserialize)]
pub struct MadeIntegration {
    /// Isolation scope.
    pub environment: String,
    /// The preset it is made from.
    pub provider: String,
    /// For people.
    #[serde(default)]
    pub display_name: Option<String>,
    /// The app's public name at the provider.
    #[serde(default)]
    pub client_id: Option<String>,
    /// What proves it.
    #[serde(default)]
    pub client_secret: Option<String>,
    /// What it asks of its users; the preset's where absent.
    #[serde(default)]
    pub scopes: Option<Vec<String>>,
    /// What the provider signs webhooks with.
    #[serde(default)]
    pub webhook_secret: Option<String>,
    /// Whether webhooks are handed on.
    #[serde(default)]
    pub forward_webhooks: bool,
    /// What clients keep with it.
    #[serde(default)]
    pub custom: Map<String, Value>,
}

impl MadeIntegration {
    /// One of which nothing more is said.
    pub fn new(environment: &str, provider: &str) -> MadeIntegration {
        MadeIntegration {
            environment: environment.to_owned(),
            provider: provider.to_owned(),
            display_name: None,
            client_id: None,
            client_secret: None,
            scopes: None,
            webhook_secret: None,
            forward_webhooks: false,
            custom: Map::new(),
        }
    }
}

/// What is kept of it.
#[derive(Clone, Serialize, Deserialize)]
struct StoredIntegration {
    format: u32,
    created_at: Timestamp,
    updated_at: Timestamp,
    made: MadeIntegration,
}

/// An integration as it stands.
#[derive(Clone)]
pub struct Integration {
    /// Its name, which is its source's.
    pub key: String,
    /// What its source does.
    pub definition: Arc<Definition>,
    /// What was said of it, where it stands in no file.
    pub made: Option<MadeIntegration>,
    /// When it was made; of one in a file, when the program started.
    pub created_at: Timestamp,
    /// When it last changed.
    pub updated_at: Timestamp,
}

impl Integration {
    /// Its preset, or its own name.
    pub fn provider(&self) -> &str {
        self.definition.preset.as_deref().unwrap_or(&self.key)
    }

    /// Its name for people.
    pub fn display_name(&self) -> &str {
        self.definition.title.as_deref().unwrap_or(&self.key)
    }
}

/// Why a change was refused.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IntegrationRefused {
    /// There is none.
    #[error("there is no integration `{0}`; GET /integrations lists them")]
    Unknown(String),
    /// There is one of this name.
    #[error("there is an integration `{0}` already: choose another unique_key, or PATCH it")]
    Exists(String),
    /// It stands in a definition file.
    #[error("the integration `{0}` stands in a definition file: change it there")]
    InFile(String),
    /// No preset has the name.
    #[error("there is no preset `{0}`; there are {1}. Other providers are described in a definition file")]
    UnknownProvider(String, String),
    /// It has connections.
    #[error("the integration `{0}` has {1} connections: delete them first")]
    InUse(String, usize),
    /// What it says is wrong: every complaint.
    #[error("the integration cannot be used")]
    Wrong(Vec<Complaint>),
    /// There are too many.
    #[error("there are {MADE_MAX} integrations, which is the most")]
    TooMany,
    /// Its syncs cannot follow.
    #[error("the syncs of the integration could not follow: {0}")]
    Syncs(String),
    /// Its source cannot be made.
    #[error(transparent)]
    Source(#[from] Failure),
    /// The store failed.
    #[error(transparent)]
    Engine(#[from] Error),
}

/// All integrations. Cheap to clone.
#[derive(Clone)]
pub struct Integrations {
    inner: Arc<IntegrationsInner>,
}

struct IntegrationsInner {
    engine: Engine,
    settings: Settings,
    definitions: Definitions,
    opened_at: Timestamp,
    made: RwLock<BTreeMap<String, StoredIntegration>>,
    /// Held from reading the old value to the commit of the new one.
    writing: tokio::sync::Mutex<()>,
}

impl Integrations {
    /// Reads what is kept, and puts its definitions beside those of files.
    pub fn open(engine: &Engine, settings: &Settings, definitions: &Definitions) -> Result<Integrations, Error> {
        let mut made = BTreeMap::new();
        for (key, value) in engine.marks(keyspaces::INTEGRATION, &[])? {
            let [key] = key.as_slice() else { continue };
            let stored: StoredIntegration = serde_json::from_slice(&value)
                .map_err(|e| Error::Storage(format!("integration {key} cannot be read: {e}")))?;
            if stored.format > FORMAT {
                return Err(Error::NewerFormat { found: stored.format, known: FORMAT });
            }
            made.insert(key.clone(), stored);
        }
        let inner = IntegrationsInner {
            engine: engine.clone(),
            settings: settings.clone(),
            definitions: definitions.clone(),
            opened_at: engine.clock().now(),
            made: RwLock::default(),
            writing: tokio::sync::Mutex::new(()),
        };
        let integrations = Integrations { inner: Arc::new(inner) };
        for (key, stored) in made {
            integrations.take_in(key, stored);
        }
        Ok(integrations)
    }

    /// One that was kept. A file of its name counts, and what does not fit a new release is left aside, and told.
    fn take_in(&self, key: String, stored: StoredIntegration) {
        if self.inner.definitions.get(&key).is_some() {
            tracing::warn!(
                integration = key,
                "a definition file has the name of an integration made over REST, and counts"
            );
            return;
        }
        match self.definition(&key, &stored.made) {
            Ok(definition) => {
                self.inner.definitions.put(Arc::new(definition));
                self.inner.made.write().insert(key, stored);
            }
            Err(complaints) => {
                let why = complaints.iter().map(Complaint::to_string).collect::<Vec<_>>().join("; ");
                tracing::error!(integration = key, why, "an integration does not fit its preset any more");
            }
        }
    }

    /// One of them, as an environment sees it.
    pub fn get(&self, environment: &str, key: &str) -> Option<Integration> {
        let definition = self.inner.definitions.get(key)?;
        self.seen_by(environment, key, definition)
    }

    /// All that an environment sees, by name.
    pub fn list(&self, environment: &str) -> Vec<Integration> {
        let all = self.inner.definitions.all();
        all.iter().filter_map(|(key, definition)| self.seen_by(environment, key, definition.clone())).collect()
    }

    fn seen_by(&self, environment: &str, key: &str, definition: Arc<Definition>) -> Option<Integration> {
        let stored = self.inner.made.read().get(key).cloned();
        if stored.as_ref().is_some_and(|stored| stored.made.environment != environment) {
            return None;
        }
        let opened_at = self.inner.opened_at;
        Some(Integration {
            key: key.to_owned(),
            definition,
            created_at: stored.as_ref().map_or(opened_at, |stored| stored.created_at),
            updated_at: stored.as_ref().map_or(opened_at, |stored| stored.updated_at),
            made: stored.map(|stored| stored.made),
        })
    }

    /// Makes one: its source is there from now on.
    pub async fn create(&self, sources: &Sources, key: &str, made: MadeIntegration) -> Result<(), IntegrationRefused> {
        let _one_at_a_time = self.inner.writing.lock().await;
        if !presets().any(|known| known == made.provider) {
            let known: Vec<&str> = presets().collect();
            return Err(IntegrationRefused::UnknownProvider(made.provider, known.join(", ")));
        }
        if self.inner.definitions.get(key).is_some() {
            return Err(IntegrationRefused::Exists(key.to_owned()));
        }
        if self.inner.made.read().len() >= MADE_MAX {
            return Err(IntegrationRefused::TooMany);
        }
        let now = self.inner.engine.clock().now();
        self.put(sources, key, StoredIntegration { format: FORMAT, created_at: now, updated_at: now, made }).await
    }

    /// Changes one that stands in no file.
    pub async fn update(
        &self,
        sources: &Sources,
        environment: &str,
        key: &str,
        change: impl FnOnce(&mut MadeIntegration),
    ) -> Result<(), IntegrationRefused> {
        let _one_at_a_time = self.inner.writing.lock().await;
        let mut stored = self.changeable(environment, key)?;
        change(&mut stored.made);
        stored.updated_at = self.inner.engine.clock().now();
        self.put(sources, key, stored).await
    }

    /// Deletes one that stands in no file and has no connections, `connections` being how many it has.
    pub async fn delete(
        &self,
        sources: &Sources,
        environment: &str,
        key: &str,
        connections: impl FnOnce() -> usize,
    ) -> Result<(), IntegrationRefused> {
        let _one_at_a_time = self.inner.writing.lock().await;
        self.changeable(environment, key)?;
        match connections() {
            0 => {}
            some => return Err(IntegrationRefused::InUse(key.to_owned(), some)),
        }
        self.inner.engine.put_marks(vec![Mark::delete(keyspaces::INTEGRATION, &[key])]).await?;
        self.inner.made.write().remove(key);
        self.inner.definitions.remove(key);
        sources.remove(key);
        Ok(())
    }

    fn changeable(&self, environment: &str, key: &str) -> Result<StoredIntegration, IntegrationRefused> {
        let stored = self.inner.made.read().get(key).cloned();
        match stored {
            Some(stored) if stored.made.environment == environment => Ok(stored),
            None if self.inner.definitions.get(key).is_some() => Err(IntegrationRefused::InFile(key.to_owned())),
            _ => Err(IntegrationRefused::Unknown(key.to_owned())),
        }
    }

    /// Stores it, and lets everybody know of its source.
    async fn put(&self, sources: &Sources, key: &str, stored: StoredIntegration) -> Result<(), IntegrationRefused> {
        let definition = Arc::new(self.definition(key, &stored.made).map_err(IntegrationRefused::Wrong)?);
        let text = serde_json::to_vec(&stored).map_err(|e| Error::Storage(format!("integration {key}: {e}")))?;
        self.inner.engine.put_marks(vec![Mark::put(keyspaces::INTEGRATION, &[key], text)]).await?;
        sources.put(&definition)?;
        self.inner.definitions.put(definition);
        self.inner.made.write().insert(key.to_owned(), stored);
        Ok(())
    }

    fn definition(&self, key: &str, made: &MadeIntegration) -> Result<Definition, Vec<Complaint>> {
        let credentials = IntegrationCredentials {
            client_id: made.client_id.clone(),
            client_secret: made.client_secret.clone(),
            scopes: made.scopes.clone(),
            webhook_secret: made.webhook_secret.clone(),
        };
        let integration = PresetIntegration {
            source: key,
            preset: &made.provider,
            title: made.display_name.as_deref(),
            credentials: &credentials,
            way: sign_in_of(&made.provider, &credentials),
        };
        // Nobody knows it, so nothing can be signed with it.
        let no_secret = hex::encode(self.inner.engine.secret("integrations without a webhook secret"));
        let (definition, warnings) = integration.definition(&no_secret)?;
        must_be_served(&definition).map_err(|why| {
            let spot = SourceSpan::start(&format!("integration {key}"));
            vec![spot.complain("not_in_this_release", why)]
        })?;
        let wrong: Vec<Complaint> =
            outward(warnings, &self.inner.settings).into_iter().filter(|complaint| !complaint.warning).collect();
        if wrong.is_empty() { Ok(definition) } else { Err(wrong) }
    }
}
