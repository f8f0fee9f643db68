//! Records and changes as readers meet them.

use super::{Cause, Position, Timestamp};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

/// What happened to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Action {
    /// It was not there, or was deleted, and now is.
    Added,
    /// Its content changed.
    Updated,
    /// It is gone; its last payload is kept.
    Deleted,
}

impl Action {
    /// `ADDED`, `UPDATED` or `DELETED`.
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Added => "ADDED",
            Action::Updated => "UPDATED",
            Action::Deleted => "DELETED",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// What is known of a record besides its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Place of its last change.
    pub position: Position,
    /// Its last change. A live record is `Added` until its first update since `first_seen_at`.
    pub action: Action,
    /// Commit time of the change that (last) added it.
    pub first_seen_at: Timestamp,
    /// Commit time of its last change.
    pub last_modified_at: Timestamp,
    /// When it was deleted.
    pub deleted_at: Option<Timestamp>,
    /// When its payload was pruned.
    pub pruned_at: Option<Timestamp>,
    /// The source's modified time; [`Timestamp::NONE`] if there is none.
    pub modified_at: Timestamp,
    /// What made the last change.
    pub cause: Cause,
}

/// A record as it stands: metadata and payload (a JSON object whose `id` is text).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Its metadata.
    pub meta: Meta,
    /// Its content; for a pruned record `{"id": …}` alone.
    pub payload: Bytes,
}

/// One entry of the change log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its metadata as of this change.
    pub meta: Meta,
    /// Content before; `None` for `Added` or when it was pruned.
    pub before: Option<Bytes>,
    /// Content after; for `Deleted` the last payload; `{"id": …}` alone when it was pruned.
    pub after: Option<Bytes>,
}

impl Change {
    /// The record's id, which every payload holds; empty if it cannot be read.
    pub fn id(&self) -> Cow<'_, str> {
        let payload = self.after.as_deref().or(self.before.as_deref()).unwrap_or_default();
        super::id_of(payload).unwrap_or_default()
    }

    /// The record after the change; of a deleted one the last that was known. Fails where it does not fit `T`: a record that was
    /// pruned has nothing but its `id`.
    pub fn record<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.after.as_deref().or(self.before.as_deref()).unwrap_or(b"null"))
    }

    /// Top-level fields that differ between before and after of an update, in alphabetical order; none for other changes.
    pub fn changed_fields(&self) -> Vec<String> {
        let (Action::Updated, Some(before), Some(after)) = (self.meta.action, &self.before, &self.after) else {
            return Vec::new();
        };
        let (before, after) = (fields(before), fields(after));
        let differs = |(name, old): &(&String, &&RawValue)| !after.get(*name).is_some_and(|new| same(old, new));
        let mut names: Vec<String> = before.iter().filter(differs).map(|(name, _)| name.clone()).collect();
        names.extend(after.keys().filter(|name| !before.contains_key(*name)).cloned());
        names.sort();
        names
    }
}

/// `ADDED {"id":"1","name":"Ada"}`: what happened, and the record after it.
impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let record = self.after.as_deref().or(self.before.as_deref()).unwrap_or_default();
        write!(f, "{} {}", self.meta.action, String::from_utf8_lossy(record))
    }
}

fn fields(payload: &[u8]) -> BTreeMap<String, &RawValue> {
    serde_json::from_slice(payload).unwrap_or_default()
}

fn same(old: &RawValue, new: &RawValue) -> bool {
    // Equal text is the usual case; unequal text may still differ in the order of fields only.
    let read = |raw: &RawValue| serde_json::from_str::<Value>(raw.get());
    old.get() == new.get() || matches!((read(old), read(new)), (Ok(old), Ok(new)) if old == new)
}

/// How a batch or a run fared, record by record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// New, or live again.
    pub added: u64,
    /// Content changed.
    pub updated: u64,
    /// Gone.
    pub deleted: u64,
    /// Seen with equal content.
    pub unchanged: u64,
    /// Lost against a newer version.
    pub skipped: u64,
    /// Patches and deletes of ids that are unknown or deleted.
    pub ignored: u64,
    /// Rows that are no records at all.
    #[serde(default)]
    pub rejected: u64,
}

impl Counts {
    /// Changes a reader will meet.
    pub fn changes(&self) -> u64 {
        self.added + self.updated + self.deleted
    }

    /// Adds `other` to this.
    pub fn add(&mut self, other: &Counts) {
        self.added += other.added;
        self.updated += other.updated;
        self.deleted += other.deleted;
        self.unchanged += other.unchanged;
        self.skipped += other.skipped;
        self.ignored += other.ignored;
        self.rejected += other.rejected;
    }
}
