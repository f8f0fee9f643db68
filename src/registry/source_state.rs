//! What sources read back, over the engine's marks and records.

use crate::connectors::rest::SourceState;
use crate::engine::Engine;
use crate::engine::model::{DatasetName, Position, Timestamp};
use crate::engine::pipeline::{Error, Filter, Keyspace};
use crate::engine::source::Failure;

/// Read access of sources to what was committed.
pub struct Committed {
    engine: Engine,
}

impl Committed {
    /// Over this engine.
    pub fn new(engine: Engine) -> Self {
        Committed { engine }
    }
}

impl SourceState for Committed {
    fn note(&self, dataset: &DatasetName, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        let DatasetName { environment, source, connection, model, variant } = dataset;
        self.engine.mark(Keyspace::NOTE, &[environment, source, connection, model, variant, key]).map_err(failed)
    }

    fn records(
        &self,
        dataset: &DatasetName,
        changed_since: Option<Timestamp>,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), Failure> {
        let Some(dataset) = self.engine.find(dataset) else { return Ok(()) };
        let live = Filter { deleted: false, modified_after: changed_since, ..Filter::ALL };
        self.engine.records(&dataset, Position::START, live, &mut |_, payload| each(payload)).map_err(failed)
    }
}

fn failed(error: Error) -> Failure {
    Failure::lasting("storage", error.to_string())
}
