//! The definition files the settings name, read and checked: all complaints of all files at once.

use super::config::Settings;
use crate::connectors::rest::definition::Definition;
use crate::engine::source::Source;
use crate::engine::time::Clock;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Complaints about definition files, one a line: `file:line:col code message`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Complaints(pub Vec<String>);

/// Reads all definitions.
pub fn load(settings: &Settings) -> Result<BTreeMap<String, Arc<Definition>>, Complaints> {
    let _ = settings;
    Ok(BTreeMap::new())
}

/// What makes requests, for each definition.
pub fn sources(
    settings: &Settings,
    definitions: &BTreeMap<String, Arc<Definition>>,
    clock: Arc<dyn Clock>,
) -> BTreeMap<String, Arc<dyn Source>> {
    let _ = (settings, definitions, clock);
    BTreeMap::new()
}
