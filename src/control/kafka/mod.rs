//! What joins Kafka with the engine: tasks, and the places they have come to.
//!
//! | file | what |
//! |---|---|
//! | [`input`] | topics in: each message once |
//! | [`output`] | changes → topics: follows an engine's change stream |
//! | [`schemas`] | JSON Schemas of streams by their hash |

pub mod input;
pub mod output;
pub mod schemas;
