//! Deduplication: ids of events that were processed already.
//!
//! The authority is the mark committed together with the effect. Ids of batches that are on their way are held here, because
//! their marks cannot be read yet. Beside each entry's ids stands a list by the minute they expire, so that forgetting them
//! reads only what has expired.

use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Error, Mark};
use crate::engine::{Engine, fault};
use crate::keyspaces;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

/// First key part of the lists; no environment has this name.
pub(crate) const BY_MINUTE: &str = "#";

/// Longest way of a batch to its commit: so long after `now` no list is written into a minute that was forgotten already.
const UNDERWAY: Duration = Duration::from_secs(10 * 60);

/// Environment, source, connection (empty: nobody's yet), delivery id.
pub(crate) type EventKey = [String; 4];

/// Ids of batches on their way, with their expiry. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Dedup(Arc<Mutex<HashMap<EventKey, Timestamp>>>);

/// The ids that one batch takes, to be released once it is committed or refused: from then on counts what is stored. Where
/// nobody learns which, because its intake was interrupted, they stay taken.
pub(crate) struct ReservedIds {
    dedup: Dedup,
    ids: Vec<(EventKey, Timestamp)>,
}

impl Dedup {
    /// The ids of a new batch: none yet.
    pub fn batch(&self) -> ReservedIds {
        ReservedIds { dedup: self.clone(), ids: Vec::new() }
    }

    /// Takes an id if nobody holds it.
    fn take(&self, engine: &Engine, key: &EventKey, expiry: Timestamp, at: Timestamp) -> Result<bool, Error> {
        let parts = key.each_ref().map(String::as_str);
        if fault::planted("dedupe_reads_then_writes") {
            let stored = engine.mark(keyspaces::DEDUPE, &parts)?;
            return Ok(stored.as_deref().and_then(read_time).is_none_or(|expiry| expiry <= at));
        }
        match self.on_their_way().entry(key.clone()) {
            // What is on its way is newer than what is stored.
            Entry::Occupied(mut held) => {
                let fresh = *held.get() <= at;
                if fresh {
                    held.insert(expiry);
                }
                return Ok(fresh);
            }
            Entry::Vacant(free) => _ = free.insert(expiry),
        }
        let stored = engine.mark(keyspaces::DEDUPE, &parts);
        let fresh = match &stored {
            Ok(value) => value.as_deref().and_then(read_time).is_none_or(|expiry| expiry <= at),
            Err(_) => false,
        };
        if !fresh {
            self.on_their_way().remove(key);
        }
        stored.map(|_| fresh)
    }

    fn on_their_way(&self) -> MutexGuard<'_, HashMap<EventKey, Timestamp>> {
        self.0.lock()
    }
}

impl ReservedIds {
    /// Takes an id until `expiry` if nobody holds it at the time `at`, the receipt of what bears it: however late it is
    /// processed, its neighbours in time are the same. The batch has to commit [`marks`](ReservedIds::marks).
    pub fn reserve(&mut self, engine: &Engine, key: EventKey, expiry: Timestamp, at: Timestamp) -> Result<bool, Error> {
        let fresh = self.dedup.take(engine, &key, expiry, at)?;
        if fresh {
            self.ids.push((key, expiry));
        }
        Ok(fresh)
    }

    /// The marks that remember the ids until their expiry. `entry` names the log entry within the list of its minute; what
    /// expired before it was processed is listed a little after `now`.
    pub fn marks(&self, entry: &str, now: Timestamp) -> Vec<Mark> {
        let mut marks = Vec::with_capacity(self.ids.len() * 2);
        for (n, (key, expiry)) in self.ids.iter().enumerate() {
            let parts = key.each_ref().map(String::as_str);
            marks.push(Mark::put(keyspaces::DEDUPE, &parts, expiry.0.to_string()));
            let minute = minute((*expiry).max(now.plus(UNDERWAY)));
            let listed = serde_json::json!(key).to_string();
            marks.push(Mark::put(keyspaces::DEDUPE, &[BY_MINUTE, &minute, entry, &n.to_string()], listed));
        }
        marks
    }

    /// Gives the ids back. One that was taken again meanwhile stays.
    pub fn release(&self) {
        let mut on_their_way = self.dedup.on_their_way();
        for (key, expiry) in &self.ids {
            if on_their_way.get(key) == Some(expiry) {
                on_their_way.remove(key);
            }
        }
    }
}

/// Marks that forget everything that is listed in the minute of `at`.
pub(crate) fn forget(engine: &Engine, at: Timestamp) -> Result<Vec<Mark>, Error> {
    let minute = minute(at);
    let mut marks = Vec::new();
    for (rest, value) in engine.marks(keyspaces::DEDUPE, &[BY_MINUTE, &minute])? {
        let mut listed = vec![BY_MINUTE, minute.as_str()];
        listed.extend(rest.iter().map(String::as_str));
        marks.push(Mark::delete(keyspaces::DEDUPE, &listed));
        let Ok(key) = serde_json::from_slice::<EventKey>(&value) else { continue };
        let key = key.each_ref().map(String::as_str);
        // An id that was met again after its expiry has a later one now and stays.
        let expiry = engine.mark(keyspaces::DEDUPE, &key)?.as_deref().and_then(read_time);
        if expiry.is_none_or(|expiry| expiry <= at) {
            marks.push(Mark::delete(keyspaces::DEDUPE, &key));
        }
    }
    Ok(marks)
}

/// Minutes sort as text.
fn minute(at: Timestamp) -> String {
    format!("{:012}", at.seconds().div_euclid(60).max(0))
}

fn read_time(value: &[u8]) -> Option<Timestamp> {
    std::str::from_utf8(value).ok()?.parse().ok().map(Timestamp)
}
