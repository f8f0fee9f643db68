//! A delivery that is owed: what the store keeps and an attempt hands on.

use super::Timestamp;

/// A delivery in the outbox.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Delivery {
    /// `msg_…`, derived from endpoint, engine time and place: the same after a crash. Contains no dot.
    pub id: String,
    /// Name of the endpoint.
    pub endpoint: String,
    /// Ordered queue it stands in.
    pub lane: String,
    /// The exact bytes to be signed and sent, as text (bodies are JSON).
    pub body: String,
    /// When it became owed.
    pub created_at: Timestamp,
    /// Attempts made.
    pub tries: u32,
    /// Not before this time.
    pub next_at: Timestamp,
    /// What the last attempt said.
    pub last_error: Option<String>,
}
