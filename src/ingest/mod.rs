//! The ways in: each turns what came from outside into batches of the engine, and knows none of the others.
//!
//! | folder | what |
//! |---|---|
//! | [`poll`] | syncs: streams that are polled on a schedule |
//! | [`webhooks`] | webhooks: verified, logged, answered, then processed |
//! | [`topics`] | Kafka topics |
//!
//! `dedup` remembers ids of events for both of the last.

pub(crate) mod dedup;
pub mod poll;
pub mod topics;
pub mod webhooks;
