//! Names on the wire → syncs. A sync is called by its `sync` name, which need not be the model's.

use super::{BASE, SyncKey, Syncs};
use crate::connectors::definition::Definition;

/// A sync as callers name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncName {
    /// The stream's `sync`.
    pub name: String,
    /// The variant; `base` if absent.
    pub variant: Option<String>,
}

impl SyncName {
    /// Reads `name` or `name::variant`.
    pub fn parse(text: &str) -> Self {
        match text.split_once("::") {
            Some((name, variant)) => SyncName { name: name.into(), variant: Some(variant.into()) },
            None => SyncName { name: text.into(), variant: None },
        }
    }
}

/// What could not be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unresolved {
    /// No such source in any definition.
    #[error("unknown source `{0}`")]
    Source(String),
    /// No such connection of that source in this environment.
    #[error("unknown connection `{0}`")]
    Connection(String),
    /// No such sync of that source, or not for that connection or variant.
    #[error("unknown sync `{0}`")]
    Sync(String),
}

impl Syncs {
    /// The syncs meant by `names` of one connection, or of all connections of the source. No names mean all syncs with
    /// all variants; a name without a variant means `base`.
    pub fn resolve(
        &self,
        environment: &str,
        source: &str,
        connection: Option<&str>,
        names: &[SyncName],
    ) -> Result<Vec<SyncKey>, Unresolved> {
        let Some(definition) = self.inner.definitions.get(source) else {
            return Err(Unresolved::Source(source.into()));
        };
        if let Some(id) = connection
            && self.inner.connections.get(environment, source, id).is_none()
        {
            return Err(Unresolved::Connection(id.into()));
        }
        let all = self.named(environment, source, connection);
        if names.is_empty() {
            return Ok(all.into_iter().map(|(key, _)| key).collect());
        }
        let mut found = Vec::new();
        for wanted in names {
            let before = found.len();
            let variant = wanted.variant.as_deref().unwrap_or(BASE);
            let matching = all.iter().filter(|(key, name)| *name == wanted.name && key.variant == variant);
            found.extend(matching.map(|(key, _)| key.clone()));
            // All connections may be none: each shard of a cluster has its own.
            let of_all = connection.is_none() && (variant == BASE || all.is_empty());
            if found.len() == before && !(of_all && has_sync(&definition, &wanted.name)) {
                return Err(Unresolved::Sync(wanted.name.clone()));
            }
        }
        found.sort();
        found.dedup();
        Ok(found)
    }

    fn named(&self, environment: &str, source: &str, connection: Option<&str>) -> Vec<(SyncKey, String)> {
        let wanted = |key: &SyncKey| {
            key.environment == environment && key.source == source && connection.is_none_or(|id| key.connection == id)
        };
        let table = self.table();
        table.iter().filter(|(key, _)| wanted(key)).map(|(key, entry)| (key.clone(), entry.sync.clone())).collect()
    }
}

/// Whether a source has a sync of this name, whoever has it.
fn has_sync(definition: &Definition, name: &str) -> bool {
    definition.function_sync(name).is_some() || definition.streams.iter().any(|stream| stream.sync == name)
}
