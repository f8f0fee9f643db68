//! How long something took on this machine, whatever its clock is set to: for pacing work, never for what is stored.

use std::time::{Duration, Instant};

/// Runs from the moment it is made.
#[derive(Clone, Copy, Debug)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts one.
    pub fn start() -> Self {
        Stopwatch(Instant::now())
    }

    /// The time since.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}
