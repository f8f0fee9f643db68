//! The ways out: each follows what the engine commits, at its own pace, and knows none of the others.
//!
//! | folder | what |
//! |---|---|
//! | [`deliveries`] | signed webhooks to endpoints |
//! | [`topics`] | Kafka topics |
//! | [`custom`] | code of the program |

pub mod custom;
pub mod deliveries;
#[cfg(feature = "kafka")]
pub mod topics;
