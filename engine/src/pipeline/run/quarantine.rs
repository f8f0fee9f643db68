//! Quarantine: items that could not be taken, kept where people see them until they can be.
//!
//! Stored under `Table::Quarantine` (environment, source, connection, model, id), as JSON. Bounded for each dataset: what
//! does not fit is counted in the run's record all the same.

use crate::model::{DatasetName, Timestamp};
use crate::pipeline::{Engine, Error, Mark, Table};
use crate::source::{Observation, Quarantined};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Items kept for one dataset.
pub const QUARANTINE_MAX: usize = 500;

/// Longest part of an item that is kept, bytes.
pub const QUARANTINE_ITEM_BYTES_MAX: usize = 16 * 1024;

/// An item kept aside, as stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Stable word for the reason.
    pub code: String,
    /// For people.
    pub message: String,
    /// The record's id, if it could be read.
    pub id: Option<String>,
    /// The item as it came, cut.
    pub item: String,
    /// The run that met it last.
    pub run: String,
    /// When.
    pub at: Timestamp,
}

/// What is kept for one dataset, by key; true once this run has met it.
pub(super) struct Quarantine {
    scope: [String; 4],
    met: BTreeMap<String, bool>,
}

impl Quarantine {
    pub(super) fn load(engine: &Engine, dataset: &DatasetName) -> Result<Quarantine, Error> {
        let scope =
            [&dataset.environment, &dataset.source, &dataset.connection, &dataset.model].map(|part| part.to_string());
        let parts = scope.each_ref().map(String::as_str);
        let kept = engine.marks(Table::Quarantine, &parts)?;
        let met = kept.into_iter().filter_map(|(rest, _)| rest.into_iter().next()).map(|key| (key, false)).collect();
        Ok(Quarantine { scope, met })
    }

    /// Marks for items that could not be taken.
    pub(super) fn keep(&mut self, items: &[Quarantined], run: &str, at: Timestamp) -> Vec<Mark> {
        let mut marks = Vec::new();
        for item in items {
            let key = item.id.clone().unwrap_or_else(|| unnamed(&item.item));
            if !self.met.contains_key(&key) && self.met.len() >= QUARANTINE_MAX {
                continue;
            }
            let kept = Kept {
                code: item.code.to_string(),
                message: item.message.clone(),
                id: item.id.clone(),
                item: cut(&item.item),
                run: run.to_string(),
                at,
            };
            marks.push(Mark::put(Table::Quarantine, &self.key(&key), serde_json::to_vec(&kept).unwrap_or_default()));
            self.met.insert(key, true);
        }
        marks
    }

    /// Marks that let go what could be taken now.
    pub(super) fn release(&mut self, observations: &[Observation]) -> Vec<Mark> {
        if self.met.is_empty() {
            return Vec::new();
        }
        let taken = observations.iter().filter(|seen| self.met.remove(&seen.id).is_some());
        let taken: Vec<String> = taken.map(|seen| seen.id.clone()).collect();
        taken.iter().map(|id| Mark::delete(Table::Quarantine, &self.key(id))).collect()
    }

    /// Marks that let go what a whole listing did not bring again.
    pub(super) fn release_unmet(&self) -> Vec<Mark> {
        let unmet = self.met.iter().filter(|(_, met)| !**met);
        unmet.map(|(key, _)| Mark::delete(Table::Quarantine, &self.key(key))).collect()
    }

    fn key<'a>(&'a self, last: &'a str) -> [&'a str; 5] {
        let [environment, source, connection, model] = self.scope.each_ref().map(String::as_str);
        [environment, source, connection, model, last]
    }
}

/// A key for an item without id: the same item has the same.
fn unnamed(item: &str) -> String {
    format!("?{:016x}", twox_hash::XxHash3_64::oneshot(item.as_bytes()))
}

fn cut(text: &str) -> String {
    if text.len() <= QUARANTINE_ITEM_BYTES_MAX {
        return text.to_string();
    }
    let end = (0..=QUARANTINE_ITEM_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text.get(..end).unwrap_or_default().to_string()
}
