//! How often somebody may come: a token bucket for each holder.
//!
//! Promises: a bounded number of holders is remembered, and forgetting one changes nothing for it; when more come at once than
//! are remembered, the rest share one bucket, so that nobody escapes by being many.

use super::Holder;
use crate::engine::model::Timestamp;
use crate::engine::time::TokenBucket;
use parking_lot::{Mutex, MutexGuard};
use std::collections::HashMap;
use std::time::Duration;

/// Holders that are remembered: some 3 MB.
const HOLDERS_MAX: usize = 1 << 16;

/// Between two looks for those that may be forgotten.
const SWEEP: Duration = Duration::from_secs(1);

/// One budget, the same for every holder.
#[derive(Debug)]
pub struct Budgets {
    new: TokenBucket,
    most: usize,
    state: Mutex<Buckets>,
}

#[derive(Debug)]
struct Buckets {
    by: HashMap<Holder, TokenBucket>,
    /// Of all who are not remembered.
    rest: TokenBucket,
    swept: Timestamp,
}

impl Budgets {
    /// `a_second` for each, and as much as `burst` seconds bring at once.
    pub fn new(a_second: u32, burst: u32) -> Budgets {
        Self::of_at_most(HOLDERS_MAX, a_second, burst)
    }

    fn of_at_most(most: usize, a_second: u32, burst: u32) -> Budgets {
        let new = TokenBucket::new(a_second, Duration::from_secs(1), a_second.saturating_mul(burst));
        let state = Buckets { by: HashMap::new(), rest: new.clone(), swept: Timestamp(i64::MIN) };
        Budgets { new, most, state: Mutex::new(state) }
    }

    /// Takes one, or says how long to wait for it.
    pub fn take(&self, holder: Holder, now: Timestamp) -> Result<(), Duration> {
        let mut state = self.state();
        let bucket = state.of(holder, self.most, &self.new, now);
        if bucket.take(now) { Ok(()) } else { Err(bucket.ready_at(now).since(now)) }
    }

    /// Takes nothing: says how long to wait for one, if none is there.
    pub fn look(&self, holder: Holder, now: Timestamp) -> Result<(), Duration> {
        let mut state = self.state();
        // Who is not remembered has taken nothing, unless too many are there to be told apart.
        let full = state.by.len() >= self.most;
        let bucket = match state.by.get_mut(&holder) {
            Some(bucket) => bucket,
            None if full => &mut state.rest,
            None => return Ok(()),
        };
        let at = bucket.ready_at(now);
        if at <= now { Ok(()) } else { Err(at.since(now)) }
    }

    fn state(&self) -> MutexGuard<'_, Buckets> {
        self.state.lock()
    }
}

impl Buckets {
    fn of(&mut self, holder: Holder, most: usize, new: &TokenBucket, now: Timestamp) -> &mut TokenBucket {
        let known = self.by.contains_key(&holder);
        if !known && self.by.len() >= most && self.swept.plus(SWEEP) <= now {
            self.swept = now;
            self.by.retain(|_, bucket| !bucket.is_full(now));
        }
        if !known && self.by.len() >= most {
            return &mut self.rest;
        }
        self.by.entry(holder).or_insert_with(|| new.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holder(n: u64) -> Holder {
        Holder::of("test", n)
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn each_has_its_own_and_is_told_when_to_come_back() {
        let budgets = Budgets::new(10, 2);
        assert!((0..20).all(|_| budgets.take(holder(1), at(0)).is_ok()), "two seconds of it at once");
        assert_eq!(budgets.take(holder(1), at(0)), Err(Duration::from_millis(100)));
        assert_eq!(budgets.look(holder(1), at(40)), Err(Duration::from_millis(60)));
        assert_eq!((budgets.take(holder(2), at(0)), budgets.look(holder(3), at(0))), (Ok(()), Ok(())));
        assert_eq!(budgets.take(holder(1), at(100)), Ok(()));
    }

    #[test]
    fn many_holders_cost_bounded_memory_and_the_rest_share_one_bucket() {
        let budgets = Budgets::of_at_most(100, 1, 1);
        assert!((0..100).all(|n| budgets.take(holder(n), at(0)).is_ok()));
        let taken = (100..10_000).filter(|n| budgets.take(holder(*n), at(10)).is_ok()).count();
        assert_eq!(taken, 1, "they have one bucket together");
        assert!(budgets.look(holder(77_777), at(10)).is_err(), "and so has who has not come yet");
        assert_eq!(budgets.state().by.len(), 100);
        // Those who have rested are forgotten, and new ones have a bucket of their own again.
        let taken = (200..250).filter(|n| budgets.take(holder(*n), at(2_000)).is_ok()).count();
        assert_eq!(taken, 50);
        assert!(budgets.state().by.len() <= 100);
    }
}
