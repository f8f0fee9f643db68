//! Locks that functions take: by environment, in the memory of this process.
//!
//! Promises: a lock has one holder; it is free once its time is over, and at the latest when its holder ends. Does not: last
//! beyond the process, or reach another one.

use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::model::Timestamp;
use syncline_engine::source::Failure;
use syncline_engine::time::Clock;

/// Most locks of an environment at one time.
const LOCKS_MAX: usize = 10_000;
/// Longest name.
const KEY_BYTES: usize = 255;
/// How long a lock is held if nothing is said, and at most: no function runs longer.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// The locks of all environments.
#[derive(Default)]
pub struct Locks {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    /// By environment and key: the holder, and until when.
    held: BTreeMap<(String, String), (u64, Timestamp)>,
    /// Number of the last holder.
    holders: u64,
}

/// One execution, which may hold locks. Dropping it frees them.
pub(super) struct Holder {
    locks: Arc<Locks>,
    clock: Arc<dyn Clock>,
    environment: String,
    number: u64,
}

impl Locks {
    /// A new holder in an environment.
    pub(super) fn holder(self: &Arc<Self>, environment: &str, clock: Arc<dyn Clock>) -> Holder {
        let mut table = self.table.lock();
        table.holders += 1;
        Holder { locks: self.clone(), clock, environment: environment.to_owned(), number: table.holders }
    }
}

impl Holder {
    /// Takes a lock, or keeps one of its own for longer; false if another holds it.
    pub(super) fn acquire(&self, key: &str, ttl: Option<Duration>) -> Result<bool, Failure> {
        if key.is_empty() || key.len() > KEY_BYTES {
            return Err(Failure::lasting("invalid_lock", format!("the key of a lock has 1 to {KEY_BYTES} bytes")));
        }
        let now = self.clock.now();
        let mut table = self.locks.table.lock();
        table.held.retain(|_, (_, until)| *until > now);
        let place = (self.environment.clone(), key.to_owned());
        if table.held.get(&place).is_some_and(|(holder, _)| *holder != self.number) {
            return Ok(false);
        }
        if table.held.keys().filter(|(environment, _)| *environment == self.environment).count() >= LOCKS_MAX {
            let message = format!("{LOCKS_MAX} locks of this environment are held, which is the most");
            return Err(Failure::lasting("too_many_locks", message));
        }
        let until = now.plus(ttl.unwrap_or(LONGEST).min(LONGEST));
        table.held.insert(place, (self.number, until));
        Ok(true)
    }

    /// Frees a lock; false if it is not this one's.
    pub(super) fn release(&self, key: &str) -> bool {
        let now = self.clock.now();
        let mut table = self.locks.table.lock();
        let place = (self.environment.clone(), key.to_owned());
        let own = table.held.get(&place).is_some_and(|(holder, until)| *holder == self.number && *until > now);
        if own {
            table.held.remove(&place);
        }
        own
    }

    /// Frees all of its own.
    pub(super) fn release_all(&self) {
        self.locks.table.lock().held.retain(|_, (holder, _)| *holder != self.number);
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.release_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use syncline_engine::time::ManualClock;

    #[test]
    fn a_lock_has_one_holder_until_its_time_or_its_holder_is_over() {
        let clock = Arc::new(ManualClock::new(Timestamp(0)));
        let locks = Arc::new(Locks::default());
        let holder = |environment: &str| locks.holder(environment, clock.clone());
        let (first, second, elsewhere) = (holder("dev"), holder("dev"), holder("prod"));
        let minute = Some(Duration::from_secs(60));
        assert!(first.acquire("a", minute).expect("taken"));
        assert!(!second.acquire("a", minute).expect("asked"));
        assert!(elsewhere.acquire("a", minute).expect("asked"), "another environment");
        assert!(!second.release("a") && first.release("a") && !first.release("a"));
        assert!(second.acquire("a", minute).expect("asked"));

        clock.advance(Duration::from_secs(61));
        assert!(first.acquire("a", None).expect("asked"), "its time is over");
        assert!(!second.release("a"));
        drop(first);
        assert!(second.acquire("a", minute).expect("asked"), "its holder is over");
        assert!(second.acquire("", minute).is_err());
    }
}
