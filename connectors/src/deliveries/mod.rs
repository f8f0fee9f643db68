//! One signed attempt to tell a user's endpoint. When to try again is not decided here.

mod attempt;
mod sign;

pub use attempt::{Attempt, AttemptFailed, DeliveryTarget, Post, ReceiverAnswer, StopReason, Unsent, attempt};
pub use sign::sign;
