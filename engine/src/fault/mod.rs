//! Faults that tests ask for: failpoints and planted bugs. Only with the feature `faults`, which no release has.
//!
//! A *failpoint* is a named edge at which a test may kill the process, make the step fail, or hold it up: [`hit`]. A *planted
//! bug* is a mistake that the tests must notice, else they prove nothing: [`planted`]. Both are chosen by the environment of
//! the process, so that a test can ask them of the real program:
//!
//! ```text
//! SYNCLINE_FAULTS="store.sync_after=kill@3,log.write_before=error@1,ack.before=delay:200@2"
//! SYNCLINE_PLANT="ack_before_sync"
//! ```
//!
//! Promises: without the feature both are constants, and their names are not part of the program.

/// A step that failed because a test asked for it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the failpoint {0} was asked to fail")]
pub struct Injected(pub &'static str);

impl From<Injected> for std::io::Error {
    fn from(injected: Injected) -> Self {
        Self::other(injected)
    }
}

/// Passes an edge at which nothing can fail: a test may kill or hold up the process there.
#[inline(always)]
pub fn pass(name: &'static str) {
    let _ = hit(name);
}

#[cfg(feature = "faults")]
mod plan;
#[cfg(feature = "faults")]
pub mod points;

#[cfg(feature = "faults")]
pub use plan::{hit, planted};

/// Nothing: this program was built without failpoints.
///
/// # Errors
///
/// Never.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn hit(_name: &'static str) -> Result<(), Injected> {
    Ok(())
}

/// `false`: this program was built without planted bugs.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub const fn planted(_name: &'static str) -> bool {
    false
}
