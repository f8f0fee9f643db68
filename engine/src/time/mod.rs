//! The only room that reads clocks or randomness, so that a seed reproduces a run.

mod backoff;
mod chance;
mod clock;
mod limit;
mod stopwatch;

pub use backoff::Backoff;
pub use chance::Chance;
pub use clock::{Clock, ManualClock, SystemClock};
pub use limit::TokenBucket;
pub use stopwatch::Stopwatch;

/// 32 bytes nobody can guess, from the operating system.
pub fn entropy() -> [u8; 32] {
    rand::random()
}
