//! Commits on their way: bounded, completed in order.

use crate::engine::Engine;
use crate::engine::model::{DatasetId, DatasetName, Timestamp};
use crate::engine::pipeline::{Error, Mark, PendingCommit, Quarantine, QuarantineEntry, QuarantineWriter, Receipt};
use crate::engine::source::Quarantined;
use crate::ingest::dedup::{Dedup, Reserved};
use crate::telemetry::record;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Commits on their way at a time.
const IN_FLIGHT_MAX: usize = 64;
/// Bytes of messages whose commits are on their way.
const IN_FLIGHT_BYTES: usize = 32 << 20;

/// A commit on its way.
pub(super) struct InFlightCommit {
    commit: BoxFuture<'static, Result<Receipt, Error>>,
    bytes: usize,
    reserved: Vec<Reserved>,
    /// What it is called in complaints: topic, partition, offsets.
    what: String,
    cause: String,
    datasets: Vec<(DatasetId, Arc<DatasetName>)>,
}

impl InFlightCommit {
    pub fn new(
        commit: PendingCommit,
        bytes: usize,
        reserved: Vec<Reserved>,
        (cause, what): (String, String),
        datasets: Vec<(DatasetId, Arc<DatasetName>)>,
    ) -> InFlightCommit {
        InFlightCommit { commit: commit.receipt().boxed(), bytes, reserved, what, cause, datasets }
    }
}

/// All that are on their way.
#[derive(Default)]
pub(super) struct InFlight {
    queue: VecDeque<InFlightCommit>,
    bytes: usize,
}

impl InFlight {
    pub fn push(&mut self, dispatched: InFlightCommit) {
        self.bytes += dispatched.bytes;
        self.queue.push_back(dispatched);
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Waits until there is room for one more.
    pub async fn make_room(&mut self, engine: &Engine, dedup: &Dedup) -> Result<(), Error> {
        while self.queue.len() >= IN_FLIGHT_MAX || self.bytes >= IN_FLIGHT_BYTES {
            self.complete(engine, dedup).await?;
        }
        Ok(())
    }

    /// Waits for the oldest. Dropping the future loses nothing.
    pub async fn complete(&mut self, engine: &Engine, dedup: &Dedup) -> Result<(), Error> {
        let Some(oldest) = self.queue.front_mut() else { return Ok(()) };
        let result = (&mut oldest.commit).await;
        let Some(completed) = self.queue.pop_front() else { return Ok(()) };
        self.bytes = self.bytes.saturating_sub(completed.bytes);
        dedup.release(&completed.reserved);
        let receipt = result?;
        record::committed(engine, &receipt);
        let marks = rejected(engine, &completed, &receipt)?;
        if marks.is_empty() { Ok(()) } else { engine.put_marks(marks).await }
    }

    pub async fn complete_all(&mut self, engine: &Engine, dedup: &Dedup) -> Result<(), Error> {
        while !self.queue.is_empty() {
            self.complete(engine, dedup).await?;
        }
        Ok(())
    }
}

/// Keeps what the engine found to be no record: text that is JSON for us and not for it, such as a field written twice.
fn rejected(engine: &Engine, completed: &InFlightCommit, receipt: &Receipt) -> Result<Vec<Mark>, Error> {
    let now: Timestamp = engine.clock().now();
    let mut marks = Vec::new();
    // One for all of the commit: each has to count those before it.
    let mut loaded: BTreeMap<DatasetId, Quarantine> = BTreeMap::new();
    for (n, (dataset, why)) in receipt.rejected.iter().enumerate() {
        let Some((_, name)) = completed.datasets.iter().find(|(id, _)| id == dataset) else { continue };
        tracing::warn!(dataset = %name, why, place = completed.what, "a record was refused by the engine");
        let message = format!("{why} (in {})", completed.what);
        let what = Quarantined { code: "bad_record", message, id: None, item: String::new() };
        let quarantine = match loaded.entry(*dataset) {
            Entry::Occupied(loaded) => loaded.into_mut(),
            Entry::Vacant(new) => {
                let place: [&str; 4] = [&name.environment, &name.source, &name.connection, &name.model];
                new.insert(Quarantine::load(engine, place, QuarantineWriter::Topic)?)
            }
        };
        let entry = QuarantineEntry::new(&what, &*completed.cause, now);
        marks.push(quarantine.keep(engine, &format!("{}.{n}", completed.cause), &entry)?.0);
    }
    if !marks.is_empty() {
        metrics::counter!("syncline_kafka_records_total", "outcome" => "quarantined").increment(marks.len() as u64);
    }
    Ok(marks)
}
