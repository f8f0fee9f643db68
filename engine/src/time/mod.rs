//! The only room that reads clocks or randomness, so that a seed reproduces a run.

mod clock;

pub use clock::{Clock, ManualClock, SystemClock};

/// 32 bytes nobody can guess, from the operating system.
pub fn entropy() -> [u8; 32] {
    rand::random()
}
