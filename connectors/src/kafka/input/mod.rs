//! Topics in: what others write to topics, read once and in order per partition.
//!
//! | file | what it is |
//! |---|---|
//! | [`glance`] | whose such a message is, without reading it; pure |
//! | [`message`] | the JSON message of an input topic → a checked value; pure |
//! | [`reader`] | a topic's partitions → chunks of messages, or a named reason why not |
//! | [`chunk`] | many messages in one piece of memory |
//! | `raw` | pieces of JSON text, read without a tree |
//! | [`dead`] | messages that cannot be taken, written to the dead letters |
//!
//! Promises: nothing is skipped silently (a gap stops the input with a name); aborted transactions are never seen; what waits
//! in memory is bounded in messages and bytes. Where reading begins is the caller's to say and to store.

pub mod chunk;
pub mod dead;
pub mod glance;
pub mod message;
mod raw;
pub mod reader;
#[cfg(test)]
mod schema;

pub use chunk::{Chunk, Message};
pub use message::{Bad, ListPage, MessageKey, MessageRecord, Op, ParsedMessage};
pub use reader::{StartOffset, TopicReader};

/// The JSON Schema of input messages, as it is served at `/v1/schemas/input`.
pub const SCHEMA: &str = include_str!("schema.json");
