//! Backoff: how long to wait before the next attempt.
//!
//! Promises: waits double from the first to the longest; with jitter each is a uniformly random part of that ("full
//! jitter"), so that many clients of one provider do not come back at the same instant.

use super::Chance;
use std::time::Duration;

/// The waits between attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    from: Duration,
    to: Duration,
    jitter: bool,
    tries: u32,
    chance: Chance,
}

impl Backoff {
    /// Waits that double from `from` to `to`; random parts of them with `jitter`.
    pub fn new(from: Duration, to: Duration, jitter: bool, chance: Chance) -> Self {
        Backoff { from, to: to.max(from), jitter, tries: 0, chance }
    }

    /// The wait before the next attempt.
    pub fn next_wait(&mut self) -> Duration {
        let doubled = 1u32.checked_shl(self.tries).map_or(self.to, |factor| self.from.saturating_mul(factor));
        self.tries = self.tries.saturating_add(1);
        let longest = doubled.min(self.to);
        if self.jitter { self.chance.up_to(longest) } else { longest }
    }

    /// Waits handed out since the last success.
    pub fn tries(&self) -> u32 {
        self.tries
    }

    /// An attempt was successful: the next wait is a first one again.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn waits_double_up_to_the_longest_and_begin_again_after_a_success() {
        let mut backoff = Backoff::new(SECOND, 6 * SECOND, false, Chance::from_seed(1));
        let waits: Vec<u64> = (0..5).map(|_| backoff.next_wait().as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 6, 6]);
        backoff.reset();
        assert_eq!(backoff.next_wait(), SECOND);
    }

    #[test]
    fn a_hundred_tries_do_not_overflow() {
        let mut backoff = Backoff::new(SECOND, 600 * SECOND, false, Chance::from_seed(1));
        assert_eq!((0..100).map(|_| backoff.next_wait()).last(), Some(600 * SECOND));
    }

    #[test]
    fn jitter_takes_a_part_of_the_wait_that_follows_from_the_seed() {
        let waits = |seed| {
            let mut backoff = Backoff::new(SECOND, 8 * SECOND, true, Chance::from_seed(seed));
            (0..40).map(|_| backoff.next_wait()).collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
        assert!(waits(7).iter().all(|wait| *wait <= 8 * SECOND));
        assert!(waits(7).iter().any(|wait| *wait > 4 * SECOND), "jitter reaches into the upper half");
        assert!(waits(7).iter().skip(3).any(|wait| *wait < SECOND), "and into the lowest part");
    }
}
