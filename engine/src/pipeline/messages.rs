//! What the threads of an engine send each other: a batch goes from its caller to the sequencer, an epoch of batches from there to
//! the workers and the committer, what the workers have written from them to the committer, and the outcome back to the caller.
//!
//! ```text
//! caller ─ SequencerMessage ─► sequencer ─ WorkerJob ─► workers
//!    ▲                            │                       │
//!    │                       CommitterMessage::Plan   CommitterMessage::Part
//!    └──── BatchReply ──── committer ◄────────────────────┘
//! ```

use super::batch::{Batch, Mark, Receipt};
use super::{Dataset, Error};
use crate::model::content::Key;
use crate::model::{Cause, DatasetId, Timestamp};
use crate::sink::RunEnd;
use crate::state::EpochWork;
use crate::store;
use crate::store::catalog::WindowState;
use crate::store::write::Sealed;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What reaches the sequencer.
pub(super) enum SequencerMessage {
    /// A batch to commit.
    Submit(Submission),
    /// A question to the workers, after everything submitted before it.
    Ask(WorkerQuery),
    /// This dataset takes too much memory.
    Spill(DatasetId),
    /// The committer has finished so many epochs.
    Done(usize),
    /// No more submissions.
    Stop,
}

/// A batch with the callers that wait for it.
pub(super) struct Submission {
    pub batch: Batch,
    /// Work of the engine itself: treatment, pruning, clearing.
    pub extra: Vec<EpochWork>,
    /// Webhook-made changes are announced.
    pub announce: bool,
    pub answer: BatchReply,
    /// Room taken until the commit.
    pub room: Option<OwnedSemaphorePermit>,
}

impl Submission {
    pub(super) fn prunes(&self) -> bool {
        self.extra.iter().any(|work| matches!(work, EpochWork::Prune { .. }))
    }
}

/// The callers that wait for a batch: the one that submitted it and, where it came through the log, the one that appended it.
pub(super) struct BatchReply {
    to: oneshot::Sender<Result<Receipt, Error>>,
    also: Option<oneshot::Sender<Result<Receipt, Error>>>,
}

impl BatchReply {
    /// An answer and the end where it arrives.
    pub(super) fn new(also: Option<oneshot::Sender<Result<Receipt, Error>>>) -> (BatchReply, ReplyReceiver) {
        let (to, outcome) = oneshot::channel();
        (BatchReply { to, also }, outcome)
    }

    /// Sends the outcome. Callers that have gone away no longer wait for it.
    pub(super) fn send(self, outcome: Result<Receipt, Error>) {
        if let Some(also) = self.also {
            let _ = also.send(outcome.clone());
        }
        let _ = self.to.send(outcome);
    }
}

/// Where an answer arrives.
pub(super) type ReplyReceiver = oneshot::Receiver<Result<Receipt, Error>>;

/// What reaches the committer.
pub(super) enum CommitterMessage {
    /// An epoch that was given to the workers.
    Plan(EpochPlan),
    /// One worker's part of an epoch.
    Part(u64, Result<Sealed, store::Error>),
}

/// An epoch: what was asked of it.
pub(super) struct EpochPlan {
    pub epoch: u64,
    pub next: u64,
    pub at: Timestamp,
    pub batches: Vec<PlannedBatch>,
}

/// A batch within an epoch.
pub(super) struct PlannedBatch {
    pub cause: Cause,
    pub marks: Vec<Mark>,
    pub windows: Vec<(DatasetId, WindowState)>,
    pub end_run: Vec<(Dataset, RunEnd)>,
    pub announce: bool,
    pub answer: BatchReply,
    pub _room: Option<OwnedSemaphorePermit>,
}

/// What a worker is given.
pub(super) enum WorkerJob {
    /// An epoch; with it the datasets that are to be spilled at its end.
    Epoch { epoch: u64, next: u64, at: Timestamp, work: Vec<EpochWork>, spill: Vec<DatasetId> },
    /// A question.
    Ask(WorkerQuery),
}

/// A question to all workers; each answers for its records.
#[derive(Clone)]
pub(super) enum WorkerQuery {
    /// Live records, and positions of those not seen in the open window.
    Missing(DatasetId, UnboundedSender<(u64, Vec<u64>)>),
    /// Where the record's last change is, unless it is hidden.
    Locate(DatasetId, Key, UnboundedSender<Option<u64>>),
}
