//! Clocks: the system's, and one that tests and the demo turn by hand.

use crate::model::Timestamp;
use async_trait::async_trait;
use parking_lot::Mutex;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Where time comes from.
#[async_trait]
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Timestamp;

    /// Returns once `now()` has reached `at`.
    async fn sleep_until(&self, at: Timestamp);

    /// Returns after `span` of this clock.
    async fn sleep(&self, span: Duration) {
        self.sleep_until(self.now().plus(span)).await;
    }
}

/// The machine's clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        Timestamp(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }

    async fn sleep_until(&self, at: Timestamp) {
        // Read again after waking: the machine may have slept or been set meanwhile.
        while self.now() < at {
            tokio::time::sleep(at.since(self.now()).min(Duration::from_secs(60))).await;
        }
    }
}

/// A clock that stands still until it is turned.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<Timestamp>,
    turning: Mutex<()>,
}

impl ManualClock {
    /// A clock that shows `at`.
    pub fn new(at: Timestamp) -> Self {
        ManualClock { now: watch::Sender::new(at), turning: Mutex::new(()) }
    }

    /// Turns the clock forward and wakes who waited for that time.
    pub fn advance(&self, by: Duration) {
        let _one_at_a_time = self.turning.lock();
        self.now.send_modify(|t| *t = t.plus(by));
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.now.borrow()
    }

    async fn sleep_until(&self, at: Timestamp) {
        let mut seen = self.now.subscribe();
        // The sender lives as long as `self`, so this ends only when the time has come.
        let _ = seen.wait_for(|now| *now >= at).await;
    }
}
