//! What webhooks and topics quarantine: the entries of each place are counted once, and then kept count of.
//!
//! Promises: what finds no room is counted as dropped and logged.

use crate::engine::Engine;
use crate::engine::model::DatasetName;
use crate::engine::pipeline::{Error, Mark, Quarantine, QuarantineEntry, QuarantineWriter, Receipt};
use crate::engine::source::Quarantined;
use crate::telemetry::record;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;

/// Places that are known at a time.
const PLACES_KNOWN: usize = 10_000;

/// The quarantine of one writer, by environment, source, connection and stream: the places met so far.
pub(crate) struct QuarantinePlaces {
    engine: Engine,
    writer: QuarantineWriter,
    known: Mutex<HashMap<[String; 4], Quarantine>>,
}

impl QuarantinePlaces {
    pub fn new(engine: Engine, writer: QuarantineWriter) -> QuarantinePlaces {
        QuarantinePlaces { engine, writer, known: Mutex::default() }
    }

    /// The mark that keeps what could not be taken under a key, with its reason.
    pub fn keep(&self, place: [&str; 4], key: &str, cause: String, what: &Quarantined) -> Result<Mark, Error> {
        let mut known = self.known.lock();
        if known.len() >= PLACES_KNOWN {
            known.clear();
        }
        let quarantine = match known.entry(place.map(str::to_owned)) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => entry.insert(Quarantine::load(&self.engine, place, self.writer)?),
        };
        let entry = QuarantineEntry::new(what, cause, self.engine.clock().now());
        let (mark, kept) = quarantine.keep(&self.engine, key, &entry)?;
        if !kept {
            let [_, source, connection, stream] = place;
            record::quarantine_dropped("full", 1);
            tracing::warn!(source, connection, stream, code = what.code, "the quarantine is full: an entry is dropped");
        }
        Ok(mark)
    }

    /// What is known of a place is read anew when it is needed.
    pub fn forget(&self, place: [&str; 4]) {
        self.known.lock().remove(&place.map(str::to_owned));
    }
}

/// Passes each record of a commit that the engine found to be none to `keep`, with its dataset and number: text that is JSON
/// for us and not for it, such as a field written twice. The marks that keep them.
pub(crate) fn rejected(
    engine: &Engine,
    receipt: &Receipt,
    mut keep: impl FnMut(&DatasetName, usize, Quarantined) -> Result<Mark, Error>,
) -> Result<Vec<Mark>, Error> {
    let mut marks = Vec::with_capacity(receipt.rejected.len());
    for (n, (dataset, why)) in receipt.rejected.iter().enumerate() {
        let Some(name) = engine.name_of(*dataset) else { continue };
        let what = Quarantined { code: "bad_record", message: why.clone(), id: None, item: String::new() };
        marks.push(keep(&name, n, what)?);
    }
    Ok(marks)
}
