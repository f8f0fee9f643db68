//! The task that begins runs when their tick has come.
//!
//! Promises: sleeps until the earliest tick or until one may have moved, never longer and never busily; begins a run once.
//! When ticks are is decided in [`plan`](super::plan); how many runs there are at once, in [`Syncs`].

use super::{Syncs, TriggerOptions};
use crate::engine::time::Clock;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Begins runs until `stop` is cancelled.
pub async fn schedule(syncs: Syncs, clock: Arc<dyn Clock>, stop: CancellationToken) {
    let mut changes = syncs.changes();
    loop {
        // Marked as seen before looking: a change made while looking wakes the wait below.
        changes.borrow_and_update();
        for key in syncs.due(clock.now()) {
            syncs.launch(&key, TriggerOptions::default());
        }
        let tick = async {
            match syncs.next_due() {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = tick => {}
            changed = changes.changed() => if changed.is_err() { return },
            () = stop.cancelled() => return,
        }
    }
}
