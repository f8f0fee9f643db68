//! Notices datasets that were emptied behind the follower's back: what they had not told yet is lost to the
//! topics.
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
pub(super) struct Emptied {
    /// What had been written when the follower began.
    start: Position,
    /// The watermark when each dataset was looked at last.
    seen: HashMap<DatasetId, Position>,
    turn: usize,
}

impl Emptied {
    /// For a follower that begins at `start`.
    pub fn new(start: Position) -> Self {
        Emptied { start, seen: HashMap::new(), turn: 0 }
    }

    /// Looks at some datasets. `now` is the watermark.
    pub fn look(&mut self, engine: &Engine, datasets: &[Dataset], now: Position) -> Result<(), Error> {
        for _ in 0..datasets.len().min(LOOKS) {
            let Some(dataset) = datasets.get(self.turn % datasets.len()) else { break };
            self.turn = self.turn.wrapping_add(1);
            let since = self.seen.insert(dataset.id, now).unwrap_or(self.start);
            if engine.emptied_since(dataset, since)? {
                metrics::counter!("syncline_kafka_output_emptied_total").increment(1);
                tracing::warn!(code = "output_emptied", dataset = %dataset.name,
                    "the records of this dataset were dropped; its topics keep what was written until it is listed again");
            }
        }
        Ok(())
    }
}
