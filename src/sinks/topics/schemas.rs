//! JSON Schemas of streams, by the hash of their text: what the header `syncline-schema` names.

use crate::connectors::definition::Definition;
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Schemas of all streams that have one.
#[derive(Clone, Debug, Default)]
pub struct Schemas {
    by_hash: BTreeMap<Arc<str>, Arc<Value>>,
    by_stream: BTreeMap<(String, String), Arc<str>>,
}

impl Schemas {
    /// Of these definitions.
    pub fn of<'a>(definitions: impl IntoIterator<Item = (&'a String, &'a Arc<Definition>)>) -> Self {
        let mut all = Schemas::default();
        for (source, definition) in definitions {
            for stream in &definition.streams {
                let Some(schema) = &stream.schema else { continue };
                let hash = hash(schema);
                all.by_hash.insert(hash.clone(), Arc::new(schema.clone()));
                all.by_stream.insert((source.clone(), stream.name.clone()), hash);
            }
        }
        all
    }

    /// The hash of a stream's schema.
    pub fn hash_of(&self, source: &str, stream: &str) -> Option<Arc<str>> {
        self.by_stream.get(&(source.to_owned(), stream.to_owned())).cloned()
    }

    /// The schema with this hash.
    pub fn get(&self, hash: &str) -> Option<Arc<Value>> {
        self.by_hash.get(hash).cloned()
    }
}

/// SHA-256 of the schema's text, in hexadecimal.
fn hash(schema: &Value) -> Arc<str> {
    hex(&Sha256::digest(schema.to_string())).into()
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_of_the_text() {
        let (one, other) = (hash(&serde_json::json!({"type": "object"})), hash(&serde_json::json!({"type": "array"})));
        assert_eq!((one.len(), one == other), (64, false));
    }
}
