//! What is owed to the outside: notices written in the commit of the changes they tell of, and one attempt to deliver each.
//!
//! The seam for code of one's own is [`Sink`]; Kafka output follows the changes by itself.

pub use crate::model::Delivery;
use crate::model::{Cause, Change, Counts, DatasetName, Position, Timestamp};
pub use crate::model::{Failure, Retry};
use async_trait::async_trait;
use std::sync::Arc;

/// One attempt to hand on a consistent set of changes. Retrying and remembering the place is the pipeline's work.
#[async_trait]
pub trait Sink: Send + Sync + 'static {
    /// Hands on all changes of one engine time of one dataset.
    async fn deliver(&self, batch: &ChangeBatch) -> Result<(), Failure>;

    /// Whether the changes of this dataset are wanted; those of all if nothing is said. The answer for a name must not change.
    fn takes(&self, _dataset: &DatasetName) -> bool {
        true
    }

    /// How failed attempts of this sink are retried.
    fn retry(&self) -> Retry {
        Retry::default()
    }
}

/// A sink that is shared is a sink.
#[async_trait]
impl<S: Sink + ?Sized> Sink for Arc<S> {
    async fn deliver(&self, batch: &ChangeBatch) -> Result<(), Failure> {
        (**self).deliver(batch).await
    }

    fn takes(&self, dataset: &DatasetName) -> bool {
        (**self).takes(dataset)
    }

    fn retry(&self) -> Retry {
        (**self).retry()
    }
}

/// All changes one engine time made in one dataset.
#[derive(Clone, Debug)]
pub struct ChangeBatch {
    /// The dataset.
    pub dataset: DatasetName,
    /// The engine time.
    pub epoch: u64,
    /// The changes in order.
    pub changes: Vec<Change>,
}

/// What the committer tells an [`Announce`]: a run has ended, or webhooks have changed something.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The dataset.
    pub dataset: DatasetName,
    /// The run or (last) webhook.
    pub cause: Cause,
    /// Set when a run has ended.
    pub ended: Option<RunEnd>,
    /// All changes of the run, or of the webhooks since the last notice.
    pub counts: Counts,
    /// Last position before these changes.
    pub from: Position,
    /// Position of the last of these changes.
    pub to: Position,
    /// Commit time.
    pub at: Timestamp,
}

/// How a run ended, as its last batch says.
#[derive(Clone, Debug, Default)]
pub struct RunEnd {
    /// Name of the sync (for us the stream's `sync`).
    pub sync: String,
    /// `INITIAL`, `INCREMENTAL`, `FULL`.
    pub kind: String,
    /// When it began.
    pub started_at: Option<Timestamp>,
    /// Type and text of the error if it failed.
    pub error: Option<(String, String)>,
}

/// Turns notices into owed deliveries. Called by the committer, so it must be quick and pure.
pub trait Announce: Send + Sync + 'static {
    /// What is owed for `notice`; `sequence` hands out the next gapless number of a lane.
    fn announce(&self, notice: &Notice, sequence: &mut dyn FnMut(&str) -> u64) -> Vec<Owed>;
}

/// One owed delivery, before it has an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Name of the endpoint.
    pub endpoint: String,
    /// Ordered queue: (endpoint, environment, connection) as one text.
    pub lane: String,
    /// The exact bytes to be signed and sent.
    pub body: Vec<u8>,
}
