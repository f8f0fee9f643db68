//! What a source reads back: its own notes, and records of other streams that name its partitions.

use syncline_engine::model::{DatasetName, Timestamp};
use syncline_engine::source::Failure;

/// Read access to what was committed. The program implements it over the engine's marks and records.
/// Calls may block on the disk.
pub trait SourceState: Send + Sync + 'static {
    /// The note that a page of this dataset carried last under `key`.
    fn note(&self, dataset: &DatasetName, key: &str) -> Result<Option<Vec<u8>>, Failure>;

    /// The payloads of a dataset's live records, only those changed at or after `changed_since` if given, handed to `each`
    /// until it returns false. An unknown dataset has none.
    fn records(
        &self,
        dataset: &DatasetName,
        changed_since: Option<Timestamp>,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), Failure>;
}

/// Remembers nothing: every listing is read in full, none goes on after a restart.
#[derive(Clone, Copy, Debug, Default)]
#[doc(hidden)]
pub struct Forgetful;

impl SourceState for Forgetful {
    fn note(&self, _: &DatasetName, _: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(None)
    }

    fn records(&self, _: &DatasetName, _: Option<Timestamp>, _: &mut dyn FnMut(&[u8]) -> bool) -> Result<(), Failure> {
        Ok(())
    }
}
