//! One sync for two: log and store share a write-ahead log, and whoever syncs it syncs what the other has written before.
//!
//! Promise: who is told that a place is synced may answer for it; who is not syncs by itself, after a short wait at most.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How far a write-ahead log is synced, in its sequence numbers.
#[derive(Default)]
pub struct Synced {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Default)]
struct State {
    /// A sync of everything up to here is under way, or through.
    begun: u64,
    /// … and through.
    done: u64,
    /// A sync has failed: nothing is known of the disk any more.
    failed: bool,
}

impl Synced {
    /// Runs `sync`, which brings everything to disk that was written up to `through`.
    pub fn sync<T, E>(&self, through: u64, sync: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.change(|state| state.begun = state.begun.max(through));
        let synced = sync();
        self.change(|state| match &synced {
            Ok(_) => state.done = state.done.max(through),
            Err(_) => state.failed = true,
        });
        synced
    }

    /// Waits for a sync by somebody else that covers `through`; whether it came. Waits `patience` for one to begin.
    pub fn covers(&self, through: u64, patience: Duration) -> bool {
        let waiting = self.moved.wait_timeout_while(self.state(), patience, |s| !s.failed && s.begun < through);
        let (state, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        if state.begun < through {
            return false;
        }
        let ended = self.moved.wait_while(state, |s| !s.failed && s.done < through);
        ended.unwrap_or_else(PoisonError::into_inner).done >= through
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.moved.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: Duration = Duration::ZERO;
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn a_sync_covers_what_was_written_before_it_and_no_more() {
        let synced = Synced::default();
        assert!(!synced.covers(1, NONE));
        synced.sync(5, || Ok::<_, ()>(())).expect("synced");
        assert!(synced.covers(5, NONE) && !synced.covers(6, NONE));
    }

    #[test]
    fn a_sync_under_way_is_waited_for_until_it_ends() {
        let synced = Synced::default();
        let (began, begun) = std::sync::mpsc::channel();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        std::thread::scope(|scope| {
            let synced = &synced;
            let syncing = scope.spawn(move || {
                synced.sync(7, || {
                    began.send(()).expect("told");
                    gone.recv().map_err(drop)
                })
            });
            begun.recv().expect("begun");
            // It has begun: no patience is needed, and none limits the wait.
            let waiting = scope.spawn(|| synced.covers(7, NONE));
            go.send(()).expect("told");
            assert!(waiting.join().expect("ran") && syncing.join().expect("ran").is_ok());
        });
    }

    #[test]
    fn a_failed_sync_covers_nothing_and_leaves_nobody_waiting() {
        let synced = Synced::default();
        synced.sync(5, || Ok::<_, ()>(())).expect("synced");
        synced.sync(9, || Err::<(), _>(())).expect_err("failed");
        assert!(!synced.covers(9, LONG) && !synced.covers(10, LONG));
        assert!(synced.covers(5, LONG), "what was synced before is on disk");
    }
}
