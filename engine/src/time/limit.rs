//! Token bucket: so many requests per span, with a burst.
//!
//! A state machine over time that is passed in: no clock, no lock, nothing waits here. Kept as one number, the instant at
//! which the bucket would be full again (the "generic cell rate algorithm").

use crate::model::Timestamp;
use std::time::Duration;

/// A bucket of `burst` tokens that gains `limit` of them per span.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    /// Microseconds for one token.
    interval: i64,
    /// Microseconds for a whole bucket.
    tolerance: i64,
    /// When the bucket is full again; full if that is past.
    full_at: i64,
}

impl TokenBucket {
    /// `limit` tokens per `per`, at most `burst` at once. A limit or burst of zero counts as one.
    pub fn new(limit: u32, per: Duration, burst: u32) -> Self {
        let per = i64::try_from(per.as_micros()).unwrap_or(i64::MAX);
        let interval = (per / i64::from(limit.max(1))).max(1);
        let tolerance = interval.saturating_mul(i64::from(burst.max(1)));
        TokenBucket { interval, tolerance, full_at: i64::MIN }
    }

    /// The earliest time at which a token can be had.
    pub fn ready_at(&self, now: Timestamp) -> Timestamp {
        let earliest = self.full_at.saturating_add(self.interval).saturating_sub(self.tolerance);
        Timestamp(earliest.max(now.0))
    }

    /// Takes a token if there is one.
    pub fn take(&mut self, now: Timestamp) -> bool {
        let free = self.ready_at(now) <= now;
        if free {
            self.full_at = self.full_at.max(now.0).saturating_add(self.interval);
        }
        free
    }

    /// Whether nothing was taken for so long that it is as good as new: it may be forgotten.
    pub fn is_full(&self, now: Timestamp) -> bool {
        self.full_at <= now.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(ms)
    }

    #[test]
    fn a_full_bucket_gives_its_burst_at_once_and_then_the_rate() {
        let mut bucket = TokenBucket::new(4, Duration::from_secs(1), 4);
        assert!((0..4).all(|_| bucket.take(at(0))));
        assert!(!bucket.take(at(0)));
        assert_eq!(bucket.ready_at(at(0)), at(250));
        assert!(!bucket.take(at(249)));
        assert!(bucket.take(at(250)));
        assert!(!bucket.take(at(250)));
    }

    #[test]
    fn never_more_than_the_limit_plus_a_burst_in_any_span() {
        let mut bucket = TokenBucket::new(10, Duration::from_secs(1), 3);
        let taken = (0..10_000).filter(|ms| bucket.take(at(*ms))).count();
        assert!((100..=103).contains(&taken), "{taken}");
    }

    #[test]
    fn a_bucket_is_full_again_once_its_tokens_are_back() {
        let mut bucket = TokenBucket::new(10, Duration::from_secs(1), 3);
        assert!(bucket.is_full(at(0)) && bucket.take(at(0)));
        assert!(!bucket.is_full(at(99)) && bucket.is_full(at(100)));
    }

    #[test]
    fn a_long_rest_does_not_save_up_more_than_the_burst() {
        let mut bucket = TokenBucket::new(1, Duration::from_secs(1), 2);
        assert!(bucket.take(at(0)));
        let taken = (0..10).filter(|_| bucket.take(at(1_000_000))).count();
        assert_eq!(taken, 2);
    }
}
