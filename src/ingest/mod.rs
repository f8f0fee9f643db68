//! The ways in: each turns what came from outside into batches of the engine, and knows none of the others.
//!
//! | folder | what |
//! |---|---|
//! | [`poll`] | syncs: streams that are polled on a schedule |
//! | [`webhooks`] | webhooks: verified, logged, answered, then processed |
//! | [`topics`] | Kafka topics |
//!
//! What polls and webhooks share: `lines` that programs log. What the last two share: `dedup` remembers ids of their events, `quarantine` keeps what they cannot take; their commits go
//! through a [`CommitWindow`](crate::engine::pipeline::CommitWindow) of the engine.

pub(crate) mod dedup;
mod lines;
pub mod poll;
pub(crate) mod quarantine;
#[cfg(feature = "kafka")]
pub mod topics;
pub mod webhooks;
