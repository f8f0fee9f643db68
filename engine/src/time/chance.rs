//! Chance: random numbers from a seed, so that a run can be repeated.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

/// A source of random numbers. The same seed gives the same numbers.
#[derive(Clone, Debug)]
pub struct Chance(ChaCha8Rng);

impl Chance {
    /// Numbers that follow from `seed`.
    pub fn from_seed(seed: u64) -> Self {
        Chance(ChaCha8Rng::seed_from_u64(seed))
    }

    /// Numbers nobody can foretell, from the operating system.
    pub fn from_system() -> Self {
        Chance(ChaCha8Rng::from_os_rng())
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0.random()
    }

    /// A span from zero to `most`, each microsecond equally likely.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let micros = u64::try_from(most.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.0.random_range(0..=micros))
    }
}
