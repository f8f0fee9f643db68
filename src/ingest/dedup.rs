//! Deduplication: ids of events that were processed already.
//!
//! The authority is the mark committed together with the effect. Ids of batches that are on their way are held here, because
//! their marks cannot be read yet. Beside each entry's ids stands a list by the minute they expire, so that forgetting them
//! reads only what has expired.

use crate::engine::model::Timestamp;
use crate::engine::pipeline::{Error, Mark, Table};
use crate::engine::{Engine, fault};
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Duration;

/// First key part of the lists; no environment has this name.
pub(crate) const BY_MINUTE: &str = "#";

/// Longest way of a batch to its commit: so long after `now` no list is written into a minute that was forgotten already.
const UNDERWAY: Duration = Duration::from_secs(10 * 60);

/// Environment, source, connection (empty: nobody's yet), delivery id.
pub(crate) type EventKey = [String; 4];

/// An id that was taken, and its expiry.
pub(crate) type Reserved = (EventKey, Timestamp);

/// Ids of batches on their way, with their expiry.
#[derive(Default)]
pub(crate) struct Dedup(Mutex<HashMap<EventKey, Timestamp>>);

impl Dedup {
    /// Takes an id if nobody holds it at the time `at`, the receipt of what bears it: however late it is processed, its
    /// neighbours in time are the same. Whoever reserves it commits [`marks`] or gives it back with [`release`](Dedup::release).
    pub fn reserve(&self, engine: &Engine, (key, expiry): &Reserved, at: Timestamp) -> Result<bool, Error> {
        if fault::planted("dedupe_reads_then_writes") {
            let stored = engine.mark(Table::Dedupe, &key.each_ref().map(String::as_str))?;
            return Ok(stored.as_deref().and_then(read_time).is_none_or(|expiry| expiry <= at));
        }
        match self.on_their_way().entry(key.clone()) {
            // What is on its way is newer than what is stored.
            Entry::Occupied(mut held) => {
                let fresh = *held.get() <= at;
                if fresh {
                    held.insert(*expiry);
                }
                return Ok(fresh);
            }
            Entry::Vacant(free) => _ = free.insert(*expiry),
        }
        let stored = engine.mark(Table::Dedupe, &key.each_ref().map(String::as_str));
        let fresh = match &stored {
            Ok(value) => value.as_deref().and_then(read_time).is_none_or(|expiry| expiry <= at),
            Err(_) => false,
        };
        if !fresh {
            self.on_their_way().remove(key);
        }
        stored.map(|_| fresh)
    }

    /// The batch with these ids has been committed or given up. An id that was taken again meanwhile stays.
    pub fn release(&self, reserved: &[Reserved]) {
        let mut on_their_way = self.on_their_way();
        for (key, expiry) in reserved {
            if on_their_way.get(key) == Some(expiry) {
                on_their_way.remove(key);
            }
        }
    }

    fn on_their_way(&self) -> MutexGuard<'_, HashMap<EventKey, Timestamp>> {
        self.0.lock()
    }
}

/// The marks that remember ids until their expiry. `entry` names the log entry within the list of its minute; what expired
/// before it was processed is listed a little after `now`.
pub(crate) fn marks(entry: &str, reserved: &[Reserved], now: Timestamp) -> Vec<Mark> {
    let mut marks = Vec::with_capacity(reserved.len() * 2);
    for (n, (key, expiry)) in reserved.iter().enumerate() {
        let parts = key.each_ref().map(String::as_str);
        marks.push(Mark::put(Table::Dedupe, &parts, expiry.0.to_string()));
        let minute = minute((*expiry).max(now.plus(UNDERWAY)));
        let listed = serde_json::json!(key).to_string();
        marks.push(Mark::put(Table::Dedupe, &[BY_MINUTE, &minute, entry, &n.to_string()], listed));
    }
    marks
}

/// Marks that forget everything that is listed in the minute of `at`.
pub(crate) fn forget(engine: &Engine, at: Timestamp) -> Result<Vec<Mark>, Error> {
    let minute = minute(at);
    let mut marks = Vec::new();
    for (rest, value) in engine.marks(Table::Dedupe, &[BY_MINUTE, &minute])? {
        let mut listed = vec![BY_MINUTE, minute.as_str()];
        listed.extend(rest.iter().map(String::as_str));
        marks.push(Mark::delete(Table::Dedupe, &listed));
        let Ok(key) = serde_json::from_slice::<EventKey>(&value) else { continue };
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
