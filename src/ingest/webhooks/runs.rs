//! Streams to be asked for what has changed, because a webhook said that something has, and not what.
//!
//! Held in memory, one for each stream of a connection. A crash loses it: then the schedule of the stream asks, as it would have
//! without the webhook.

use parking_lot::Mutex;
use std::collections::BTreeSet;
use tokio::sync::Notify;

/// Environment, source, connection, stream.
pub type WantedRun = [String; 4];

/// The runs that are wanted and have not begun.
#[derive(Default)]
pub(super) struct WantedRuns {
    table: Mutex<BTreeSet<WantedRun>>,
    changed: Notify,
}

impl WantedRuns {
    /// One more; those of one stream are one.
    pub fn add(&self, runs: BTreeSet<WantedRun>) {
        if runs.is_empty() {
            return;
        }
        self.table.lock().extend(runs);
        self.changed.notify_one();
    }

    /// Waits for some and takes them.
    pub async fn take(&self) -> BTreeSet<WantedRun> {
        loop {
            let runs = std::mem::take(&mut *self.table.lock());
            if !runs.is_empty() {
                return runs;
            }
            self.changed.notified().await;
        }
    }
}
