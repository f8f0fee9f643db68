//! What joins Kafka with the engine: tasks and places.
//!
//! | file | what |
//! |---|---|
//! | [`input`] | topics in: each message once |

pub mod input;
