//! What waits to be written: bounded, so that whoever has something to tell never waits for a disk.
//!
//! Promises: a line gets its time and its place in one step, so that times rise in the order in which lines are written and no two
//! are the same. A line that finds no room is counted, and the count is handed on with the next lines.

use crate::model::Timestamp;
use crate::time::Clock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Most bytes that wait, those being written included.
pub(super) const QUEUE_BYTES: usize = 8 << 20;
/// Bytes that are written at once …
pub(super) const BATCH_BYTES: usize = 1 << 20;
/// … or what has come after so long, if that is less.
const BATCH_WAIT: Duration = Duration::from_millis(100);
/// What a line takes in memory beside its bytes.
const BESIDE: usize = 48;

/// A line with its time, as it is stored.
pub(super) type Waiting = (Timestamp, Vec<u8>);

pub(super) struct Queue {
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Something is there to be written, asked for, or at its end.
    filled: Condvar,
    /// What was asked for is done.
    done: Condvar,
    lost: AtomicU64,
}

#[derive(Default)]
struct State {
    lines: Vec<Waiting>,
    /// Those of `lines`, and of what was taken and is not written yet.
    bytes: usize,
    taken: usize,
    /// The last time that was given.
    last: i64,
    /// Lines that found no room since the last were taken.
    overflowed: u64,
    /// How often all that waits was asked to be written, and how often it was.
    asked: u64,
    done: u64,
    closed: bool,
}

/// All that waited.
#[derive(Default)]
pub(super) struct Taken {
    pub lines: Vec<Waiting>,
    /// Lines before the end of `lines` that found no room.
    pub overflowed: u64,
    /// To be handed to [`Queue::written`].
    pub asked: u64,
    /// Whether somebody waits for it.
    pub urgent: bool,
    pub closed: bool,
}

impl Queue {
    /// Times begin behind `last`.
    pub fn new(clock: Arc<dyn Clock>, last: Timestamp) -> Queue {
        let state = Mutex::new(State { last: last.0, ..State::default() });
        Queue { clock, state, filled: Condvar::new(), done: Condvar::new(), lost: AtomicU64::new(0) }
    }

    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Takes a line in, or counts it.
    pub fn push(&self, line: Vec<u8>) {
        let mut state = self.state();
        let bytes = line.len() + BESIDE;
        if state.closed || state.bytes + bytes > QUEUE_BYTES {
            state.overflowed += 1;
            drop(state);
            self.lose(1);
            return;
        }
        let at = state.stamp(self.clock.now());
        state.lines.push((at, line));
        state.bytes += bytes;
        let waiting = state.bytes - state.taken;
        drop(state);
        // With the first line, and with a full batch: waking costs more than all the rest.
        if waiting == bytes || waiting >= BATCH_BYTES && waiting - bytes < BATCH_BYTES {
            self.filled.notify_one();
        }
    }

    /// A time behind all that were given.
    pub fn stamp(&self) -> Timestamp {
        self.state().stamp(self.clock.now())
    }

    /// Waits `patience` for the first line, and then a little for those that come with it.
    pub fn take(&self, patience: Duration) -> Taken {
        let idle = |state: &mut State| state.lines.is_empty() && state.overflowed == 0 && !state.hurries();
        let waited = self.filled.wait_timeout_while(self.state(), patience, idle);
        let few = |state: &mut State| state.bytes < BATCH_BYTES && !state.hurries();
        let waited = self.filled.wait_timeout_while(waited.unwrap_or_else(PoisonError::into_inner).0, BATCH_WAIT, few);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner).0;
        state.taken = state.bytes;
        Taken {
            lines: std::mem::take(&mut state.lines),
            overflowed: std::mem::take(&mut state.overflowed),
            asked: state.asked,
            urgent: state.hurries(),
            closed: state.closed,
        }
    }

    /// What was taken is written, or given up: there is room again.
    pub fn written(&self, asked: u64) {
        let mut state = self.state();
        state.bytes -= std::mem::take(&mut state.taken);
        state.done = asked;
        drop(state);
        self.done.notify_all();
    }

    /// Waits for the time between two attempts, unless the end comes before; whether it has come.
    pub fn pause(&self, span: Duration) -> bool {
        let waited = self.filled.wait_timeout_while(self.state(), span, |state| !state.closed);
        waited.unwrap_or_else(PoisonError::into_inner).0.closed
    }

    /// Waits until all that waits now is written.
    pub fn settle(&self) {
        let mut state = self.state();
        if state.closed {
            return;
        }
        state.asked += 1;
        let mine = state.asked;
        self.filled.notify_one();
        drop(self.done.wait_while(state, |state| state.done < mine));
    }

    /// Takes nothing more.
    pub fn close(&self) {
        self.state().closed = true;
        self.filled.notify_all();
    }

    /// Nobody takes anything any more.
    pub fn end(&self) {
        let mut state = self.state();
        (state.closed, state.done) = (true, u64::MAX);
        drop(state);
        self.done.notify_all();
    }

    /// Counts lines that are nowhere.
    pub fn lose(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The clock's time, unless it stood still or was set back.
    fn stamp(&mut self, now: Timestamp) -> Timestamp {
        self.last = now.0.max(self.last.saturating_add(1));
        Timestamp(self.last)
    }

    fn hurries(&self) -> bool {
        self.closed || self.asked > self.done
    }
}
