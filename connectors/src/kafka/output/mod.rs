//! Changes → topics: what each change looks like there, and a producer whose effects appear once.
//!
//! | file | what it is |
//! |---|---|
//! | [`envelope`] | a change → messages: pure |
//! | `json` | pieces of JSON text |
//! | [`large`] | what does not fit into a message: pure |
//! | [`outlet`] | a dataset → its topics, keys and partitions: pure |
//! | [`places`] | how far each producer has written |
//! | [`targets`] | the topics, made or refused, and what they take |
//! | [`writer`] | messages and the place behind them, in one transaction |

pub mod envelope;
mod json;
pub mod large;
pub mod outlet;
pub mod places;
pub mod targets;
pub mod writer;

/// What is written to topics, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    /// One message per change, kept for the topic's time.
    pub changes: bool,
    /// The latest content per record, compacted; a delete is a null.
    pub state: bool,
    /// How a change looks.
    pub format: ChangeFormat,
    /// How a key looks.
    pub key: TopicKeyForm,
    /// What decides the partition.
    pub by: By,
    /// A topic for each connection instead of one for all.
    pub per_connection: bool,
    /// What does not fit into a message is told as a reference instead of going to the dead letters.
    pub claim_check: bool,
    /// What stands in headers.
    pub headers: HeaderForm,
}

impl Default for Shape {
    fn default() -> Self {
        Shape {
            changes: true,
            state: false,
            format: ChangeFormat::Debezium,
            key: TopicKeyForm::Json,
            by: By::Record,
            per_connection: false,
            claim_check: false,
            headers: HeaderForm::All,
        }
    }
}

/// How a change looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeFormat {
    /// Before, after, source and transaction.
    Debezium,
    /// A structured CloudEvent.
    CloudEvents,
    /// The content with `__op`, `__deleted`, `__ts_ms`.
    Flat,
}

/// What stands in headers beside the content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderForm {
    /// CloudEvents in binary mode, and all of our own.
    All,
    /// What happened, and the producer's number, by which a repeat is known.
    Few,
}

/// How a key looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicKeyForm {
    /// `["conn_1","123"]`.
    Json,
    /// `conn_1/123`.
    Plain,
}

/// What decides the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The whole key.
    Record,
    /// The connection alone.
    Connection,
}
