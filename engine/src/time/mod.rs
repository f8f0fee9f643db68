//! The only room that reads clocks or randomness, so that a seed reproduces a run.

mod clock;

pub use clock::{Clock, ManualClock, SystemClock};
