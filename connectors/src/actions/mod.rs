//! Actions: what is done at a provider when it is called. Those that a definition describes run here; those in TypeScript in
//! `functions`, with the same words for how they end.
//!
//! | file | what |
//! |---|---|
//! | `described` | one call of an action of a definition |
//! | `failure` | why there is no output |
//! | `chain` | what an execution is part of, and whether it has begun something that cannot be taken back |

mod chain;
mod described;
mod failure;

pub use chain::{Chain, Effects, NESTING_MAX, Witness};
pub use described::{DescribedAction, DescribedAsk, DescribedEnd};
pub use failure::ActionFailure;
#[cfg(feature = "functions")]
pub(crate) use failure::known;
