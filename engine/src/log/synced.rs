//! One sync for two: log and store share a write-ahead log, and whoever syncs it syncs what the other has written before.
//!
//! Promise: who is told that a place is synced may answer for it; who is not syncs by itself, after a short wait at most.
//! Before anybody is told, the high-water mark has it.

use super::HighWater;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How far a write-ahead log is synced, in its sequence numbers.
#[derive(Default)]
pub struct Synced {
    state: Mutex<State>,
    moved: Condvar,
    /// What a later start is told of; none where nothing is to last.
    mark: Option<Mutex<HighWater>>,
    /// Engine times before this one may become known with the next sync.
    epoch: AtomicU64,
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
    /// With a mark beside the database.
    pub fn marked(mark: HighWater) -> Synced {
        Synced { mark: Some(Mutex::new(mark)), ..Synced::default() }
    }

    /// Runs `sync`, which brings everything to disk that was written up to `through`, and `more` writes of its own.
    pub fn sync<T, E: From<io::Error>>(
        &self,
        through: u64,
        more: u64,
        sync: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.change(|state| state.begun = state.begun.max(through));
        let synced = sync().and_then(|synced| {
            self.acknowledge(through.saturating_add(more), 0)?;
            Ok(synced)
        });
        self.change(|state| match &synced {
            Ok(_) => state.done = state.done.max(through),
            Err(_) => state.failed = true,
        });
        synced
    }

    /// Engine times before `epoch` become known with the next sync.
    pub fn reach(&self, epoch: u64) {
        self.epoch.fetch_max(epoch, Ordering::Relaxed);
    }

    /// Raises the mark: everything up to `sequence`, and the log up to its entry `log`, is on disk.
    pub fn acknowledge(&self, sequence: u64, log: u64) -> io::Result<()> {
        let epoch = self.epoch.load(Ordering::Relaxed);
        self.mark(|mark| mark.raise(sequence, log, epoch))
    }

    /// Brings the mark itself to disk, for a stop.
    pub fn settle(&self) -> io::Result<()> {
        self.mark(HighWater::sync)
    }

    fn mark(&self, change: impl FnOnce(&mut HighWater) -> io::Result<()>) -> io::Result<()> {
        let Some(mark) = &self.mark else { return Ok(()) };
        let named = |e: io::Error| io::Error::new(e.kind(), format!("{}: {e}", super::HIGH_WATER));
        change(&mut mark.lock().unwrap_or_else(PoisonError::into_inner)).map_err(named)
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
        synced.sync(5, 0, || Ok::<_, io::Error>(())).expect("synced");
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
                synced.sync(7, 0, || {
                    began.send(()).expect("told");
                    gone.recv().map_err(io::Error::other)
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
        synced.sync(5, 0, || Ok::<_, io::Error>(())).expect("synced");
        synced.sync(9, 0, || Err::<(), _>(io::Error::other("no"))).expect_err("failed");
        assert!(!synced.covers(9, LONG) && !synced.covers(10, LONG));
        assert!(synced.covers(5, LONG), "what was synced before is on disk");
    }
}
