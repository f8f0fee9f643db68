//! One signed attempt to tell a user's endpoint. When to try again is not decided here.

mod attempt;
mod sign;

pub use attempt::{Answer, Attempt, Failed, Post, Stop, Target, Unsent, attempt};
pub use sign::sign;
