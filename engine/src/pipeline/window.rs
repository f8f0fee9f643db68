//! Commits on their way: submitted one after the other, completed in that order, never more than the bounds say.

use super::engine::{Engine, PendingCommit};
use super::{Batch, Error, Receipt};
use std::collections::VecDeque;

/// How much may be on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowBounds {
    /// Commits.
    pub commits: usize,
    /// Bytes of what their batches were made of.
    pub bytes: usize,
}

/// Commits on their way, each with its origin: what is to be known of it when it is completed.
pub struct CommitWindow<T> {
    bounds: WindowBounds,
    queue: VecDeque<Submitted<T>>,
    bytes: usize,
}

struct Submitted<T> {
    commit: PendingCommit,
    bytes: usize,
    origin: T,
}

impl<T> CommitWindow<T> {
    /// An empty one.
    pub fn new(bounds: WindowBounds) -> CommitWindow<T> {
        CommitWindow { bounds, queue: VecDeque::new(), bytes: 0 }
    }

    /// Whether the oldest has to be completed before another is submitted.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= self.bounds.commits || self.bytes >= self.bounds.bytes
    }

    /// Submits a batch that was made of so many bytes. `Some` says why the engine refuses it as such, and gives the origin back:
    /// nothing of it is on its way.
    pub async fn submit(
        &mut self,
        engine: &Engine,
        batch: Batch,
        bytes: usize,
        origin: T,
    ) -> Result<Option<(String, T)>, Error> {
        self.push(engine.submit(batch).await, bytes, origin)
    }

    /// Waits for the oldest; `None` if there is none. Dropping the future loses nothing.
    pub async fn oldest(&mut self) -> Option<(T, Result<Receipt, Error>)> {
        let result = (&mut self.queue.front_mut()?.commit).await;
        let Submitted { bytes, origin, .. } = self.queue.pop_front()?;
        self.bytes = self.bytes.saturating_sub(bytes);
        Some((origin, result))
    }

    pub(super) fn push(
        &mut self,
        submitted: Result<PendingCommit, Error>,
        bytes: usize,
        origin: T,
    ) -> Result<Option<(String, T)>, Error> {
        match submitted {
            Ok(commit) => {
                self.bytes += bytes;
                self.queue.push_back(Submitted { commit, bytes, origin });
                Ok(None)
            }
            Err(Error::BadBatch(why)) => Ok(Some((why, origin))),
            Err(error) => Err(error),
        }
    }
}
