//! Commits on their way: bounded, landed in order.

use crate::control::hooks::seen::{Claim, Seen};
use crate::control::metrics::told;
use crate::engine::Engine;
use crate::engine::model::{DatasetId, DatasetName, Timestamp};
use crate::engine::pipeline::{Error, Mark, Quarantine, QuarantineEntry, QuarantineWriter, Receipt, Underway};
use crate::engine::source::Quarantined;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use std::collections::VecDeque;
use std::sync::Arc;

/// Commits on their way at a time.
const FLIGHT: usize = 64;
/// Bytes of messages whose commits are on their way.
const FLIGHT_BYTES: usize = 32 << 20;

/// A commit on its way.
pub(super) struct Flying {
    commit: BoxFuture<'static, Result<Receipt, Error>>,
    bytes: usize,
    claimed: Vec<Claim>,
    /// What it is called in complaints: topic, partition, offsets.
    what: String,
    cause: String,
    datasets: Vec<(DatasetId, Arc<DatasetName>)>,
}

impl Flying {
    pub fn new(
        commit: Underway,
        bytes: usize,
        claimed: Vec<Claim>,
        (cause, what): (String, String),
        datasets: Vec<(DatasetId, Arc<DatasetName>)>,
    ) -> Flying {
        Flying { commit: commit.receipt().boxed(), bytes, claimed, what, cause, datasets }
    }
}

/// All that are on their way.
#[derive(Default)]
pub(super) struct Flights {
    queue: VecDeque<Flying>,
    bytes: usize,
}

impl Flights {
    pub fn push(&mut self, flying: Flying) {
        self.bytes += flying.bytes;
        self.queue.push_back(flying);
    }

    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Waits until there is room for one more.
    pub async fn make_room(&mut self, engine: &Engine, seen: &Seen) -> Result<(), Error> {
        while self.queue.len() >= FLIGHT || self.bytes >= FLIGHT_BYTES {
            self.land(engine, seen).await?;
        }
        Ok(())
    }

    /// Waits for the oldest. Dropping the future loses nothing.
    pub async fn land(&mut self, engine: &Engine, seen: &Seen) -> Result<(), Error> {
        let Some(oldest) = self.queue.front_mut() else { return Ok(()) };
        let result = (&mut oldest.commit).await;
        let Some(landed) = self.queue.pop_front() else { return Ok(()) };
        self.bytes = self.bytes.saturating_sub(landed.bytes);
        seen.release(&landed.claimed);
        let receipt = result?;
        told::committed(engine, &receipt);
        let marks = rejected(engine, &landed, &receipt)?;
        if marks.is_empty() { Ok(()) } else { engine.put_marks(marks).await }
    }

    pub async fn land_all(&mut self, engine: &Engine, seen: &Seen) -> Result<(), Error> {
        while !self.queue.is_empty() {
            self.land(engine, seen).await?;
        }
        Ok(())
    }
}

/// Keeps what the engine found to be no record: text that is JSON for us and not for it, such as a field written twice.
fn rejected(engine: &Engine, landed: &Flying, receipt: &Receipt) -> Result<Vec<Mark>, Error> {
    let now: Timestamp = engine.clock().now();
    let mut marks = Vec::new();
    for (n, (dataset, why)) in receipt.rejected.iter().enumerate() {
        let Some((_, name)) = landed.datasets.iter().find(|(id, _)| id == dataset) else { continue };
        tracing::warn!(dataset = %name, why, place = landed.what, "a record was refused by the engine");
        let message = format!("{why} (in {})", landed.what);
        let what = Quarantined { code: "bad_record", message, id: None, item: String::new() };
        let place: [&str; 4] = [&name.environment, &name.source, &name.connection, &name.model];
        let mut quarantine = Quarantine::load(engine, place, QuarantineWriter::Topic)?;
        let entry = QuarantineEntry::new(&what, &*landed.cause, now);
        marks.push(quarantine.keep(engine, &format!("{}.{n}", landed.cause), &entry)?.0);
    }
    if !marks.is_empty() {
        metrics::counter!("syncline_kafka_records_total", "outcome" => "quarantined").increment(marks.len() as u64);
    }
    Ok(marks)
}
