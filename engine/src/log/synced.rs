//! One sync for two: log and store share a write-ahead log, and whoever syncs it syncs what the other has written before.
//!
//! Promises: who is told that a place is synced may answer for it; who is not syncs by itself, after a short wait at most.
//! Before anybody is told, the high-water mark has it. A write or sync that has failed closes both: what the disk has is unknown
//! then, and a second sync that succeeds would not tell.

use super::HighWater;
use std::fmt::Display;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// How far a write-ahead log is synced, in its sequence numbers, and whether writing to it has failed.
pub struct Synced {
    state: Mutex<State>,
    moved: Condvar,
    /// What a later start is told of; none where nothing is to last.
    mark: Option<Mutex<HighWater>>,
    /// Engine times before this one may become known with the next sync.
    epoch: AtomicU64,
    poison: watch::Sender<Option<String>>,
}

impl Default for Synced {
    fn default() -> Self {
        let poison = watch::Sender::new(None);
        Synced { state: Mutex::default(), moved: Condvar::new(), mark: None, epoch: AtomicU64::new(0), poison }
    }
}

#[derive(Default)]
struct State {
    /// A sync of everything up to here is under way, or through.
    begun: u64,
    /// … and through.
    done: u64,
    /// A write or sync has failed: nothing is known of the disk any more.
    failed: bool,
}

impl Synced {
    /// With a mark beside the database.
    pub fn marked(mark: HighWater) -> Synced {
        Synced { mark: Some(Mutex::new(mark)), ..Synced::default() }
    }

    /// Runs `sync`, which brings everything to disk that was written up to `through`, and `more` writes of its own. Its failure
    /// is for good.
    pub fn sync<T, E: From<io::Error> + Display>(
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
        match &synced {
            Ok(_) => self.change(|state| state.done = state.done.max(through)),
            Err(error) => self.poison(&error.to_string()),
        }
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

    /// Nothing more is written until a restart has read again what is there. The first reason stays.
    pub fn poison(&self, reason: &str) {
        self.poison.send_if_modified(|poison| {
            let first = poison.is_none();
            poison.get_or_insert_with(|| reason.to_owned());
            first
        });
        self.change(|state| state.failed = true);
    }

    /// Why nothing more is written, if that is so.
    pub fn poisoned(&self) -> Option<String> {
        self.poison.borrow().clone()
    }

    /// The same, for who waits for it.
    pub fn watch_poison(&self) -> watch::Receiver<Option<String>> {
        self.poison.subscribe()
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
        assert_eq!(synced.poisoned().as_deref(), Some("no"));
        assert!(!synced.covers(9, LONG) && !synced.covers(10, LONG));
        assert!(synced.covers(5, LONG), "what was synced before is on disk");
    }

    #[test]
    fn the_first_reason_stays_and_leaves_nobody_waiting() {
        let synced = Synced::default();
        assert_eq!(synced.poisoned(), None);
        synced.poison("first");
        synced.poison("second");
        assert!(!synced.covers(1, LONG));
        assert_eq!(synced.watch_poison().borrow().as_deref(), Some("first"));
    }
}
