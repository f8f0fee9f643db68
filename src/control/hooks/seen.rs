//! Delivery ids that were met.
//!
//! The authority is the mark committed together with the effect. Ids of batches that are on their way are held here, because
//! their marks cannot be read yet. Beside each entry's ids stands a list by the minute they expire, so that forgetting them
//! reads only what has expired.

use crate::engine::Engine;
use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Error, Mark, Table};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// First key part of the lists; no environment has this name.
pub(in crate::control) const BY_MINUTE: &str = "#";

/// Environment, source, connection (empty: nobody's yet), delivery id.
pub(in crate::control) type SeenKey = [String; 4];

/// Ids of batches on their way.
#[derive(Default)]
pub(in crate::control) struct Seen(Mutex<HashSet<SeenKey>>);

impl Seen {
    /// Takes an id if nobody did before. Whoever takes it commits [`marks`] or gives it back with [`release`](Seen::release).
    pub fn claim(&self, engine: &Engine, key: &SeenKey, now: Timestamp) -> Result<bool, Error> {
        {
            let mut on_their_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if !on_their_way.insert(key.clone()) {
                return Ok(false);
            }
        }
        let stored = engine.mark(Table::Dedupe, &key.each_ref().map(String::as_str));
        let fresh = match &stored {
            Ok(value) => value.as_deref().and_then(read_time).is_none_or(|expiry| expiry <= now),
            Err(_) => false,
        };
        if !fresh {
            self.release(std::slice::from_ref(key));
        }
        stored.map(|_| fresh)
    }

    /// The batch with these ids has been committed or given up.
    pub fn release(&self, keys: &[SeenKey]) {
        let mut on_their_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for key in keys {
            on_their_way.remove(key);
        }
    }
}

/// The marks that remember ids until their expiry. `entry` names the log entry within the list of its minute.
pub(in crate::control) fn marks(entry: &str, claimed: &[(SeenKey, Timestamp)]) -> Vec<Mark> {
    let mut marks = Vec::with_capacity(claimed.len() * 2);
    for (n, (key, expiry)) in claimed.iter().enumerate() {
        let parts = key.each_ref().map(String::as_str);
        marks.push(Mark::put(Table::Dedupe, &parts, expiry.0.to_string()));
        let listed = serde_json::json!(key).to_string();
        marks.push(Mark::put(Table::Dedupe, &[BY_MINUTE, &minute(*expiry), entry, &n.to_string()], listed));
    }
    marks
}

/// Marks that forget everything that expires in the minute of `at`.
pub(in crate::control) fn forget(engine: &Engine, at: Timestamp) -> Result<Vec<Mark>, Error> {
    let minute = minute(at);
    let mut marks = Vec::new();
    for (rest, value) in engine.marks(Table::Dedupe, &[BY_MINUTE, &minute])? {
        let mut listed = vec![BY_MINUTE, minute.as_str()];
        listed.extend(rest.iter().map(String::as_str));
        marks.push(Mark::delete(Table::Dedupe, &listed));
        let Ok(key) = serde_json::from_slice::<SeenKey>(&value) else { continue };
        let key = key.each_ref().map(String::as_str);
        // An id that was met again after its expiry has a later one now and stays.
        let expiry = engine.mark(Table::Dedupe, &key)?.as_deref().and_then(read_time);
        if expiry.is_none_or(|expiry| expiry <= at) {
            marks.push(Mark::delete(Table::Dedupe, &key));
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
