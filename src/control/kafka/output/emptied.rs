//! Notices datasets that were emptied behind the follower's back: between what it has written and what it writes next.
//!
//! What was dropped is told nowhere, so there is nothing to write for it: the topics keep what they were told, and it is
//! counted and logged. A dataset is told once per emptying for as long as the follower lives.

use crate::engine::Engine;
use crate::engine::model::{DatasetId, Position};
use crate::engine::pipeline::{Dataset, Error};
use std::collections::HashMap;

/// Datasets looked at in one round at most; the others have their turn in the next ones.
const LOOKS: usize = 64;

/// What was noticed.
#[derive(Default)]
pub(super) struct Emptied {
    /// How far each dataset had been written when it was looked at last.
    seen: HashMap<DatasetId, Position>,
    turn: usize,
}

impl Emptied {
    /// Looks at some datasets. `place` is what is written of all of them.
    pub fn look(&mut self, engine: &Engine, datasets: &[Dataset], place: Position) -> Result<(), Error> {
        for _ in 0..datasets.len().min(LOOKS) {
            let Some(dataset) = datasets.get(self.turn % datasets.len()) else { break };
            self.turn = self.turn.wrapping_add(1);
            let since = self.seen.insert(dataset.id, place).unwrap_or(place);
            if engine.emptied_since(dataset, since)? {
                metrics::counter!("syncline_kafka_output_emptied_total").increment(1);
                tracing::warn!(code = "output_emptied", dataset = %dataset.name,
                    "the records of this dataset were dropped; its topics keep what they were told until it is listed again");
            }
        }
        Ok(())
    }
}
