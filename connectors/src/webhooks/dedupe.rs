//! Which delivery an event is, so that a repeated one changes nothing.
//!
//! The provider's own id where the definition names one; else a hash of the request: query, headers and body, for an event may
//! be told from others by any of them. A hash stands for an identical request, not for one delivery: an identical one may be
//! a new hint, so it is remembered for minutes instead of days.

use super::StoredWebhook;
use crate::expr::{Expr, Vars};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::time::Duration;

/// How long a provider's delivery id is remembered: longer than providers keep trying.
pub const GIVEN_FOR: Duration = Duration::from_secs(8 * 24 * 60 * 60);
/// How long the hash of a request stands in for an id.
pub const HASH_FOR: Duration = Duration::from_secs(10 * 60);
/// Longer ids are replaced by their hash.
const ID_CHARS: usize = 200;

/// Identity of one event of a request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventId {
    /// Unique within a connection.
    pub text: String,
    /// Whether the provider gave it; otherwise it is a hash of the request.
    pub given: bool,
}

impl EventId {
    /// How long to remember it, from its receipt.
    pub fn keep(&self) -> Duration {
        if self.given { GIVEN_FOR } else { HASH_FOR }
    }
}

/// Hands out ids for the events of one request, in their order of arrival.
pub(super) struct Ids<'a> {
    stored: &'a StoredWebhook,
    rules: &'a [Expr],
    /// How often an id came in this request: the n-th is an event of its own (a header names the request, not the event).
    met: HashMap<String, usize>,
    hash: Option<String>,
}

impl<'a> Ids<'a> {
    pub fn new(stored: &'a StoredWebhook, rules: &'a [Expr]) -> Self {
        Ids { stored, rules, met: HashMap::new(), hash: None }
    }

    pub fn next(&mut self, event: &Value, vars: &Vars) -> EventId {
        let given = self.rules.iter().find_map(|rule| id_text(&rule.first(event, vars).ok()?));
        let (base, given) = match given {
            Some(text) => (text, true),
            None => (self.hash.get_or_insert_with(|| request_hash(self.stored)).clone(), false),
        };
        let count = self.met.entry(base.clone()).or_insert(0);
        *count += 1;
        let text = if *count == 1 { base } else { format!("{base}#{count}") };
        EventId { text, given }
    }
}

/// Text of an id; null and an array of nulls are none.
fn id_text(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null | Value::Bool(_) => return None,
        Value::String(text) if text.is_empty() => return None,
        Value::Array(parts) if parts.iter().all(Value::is_null) => return None,
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    Some(if text.chars().count() > ID_CHARS { format!("sha256:{}", hex::encode(Sha256::digest(&text))) } else { text })
}

/// Headers that differ from one try of a delivery to the next: clocks, clients and the proxies between us. The list is short
/// on purpose. A header too many in the hash lets a repeat through, which changes nothing; one too few swallows an event.
/// So signatures and signed times stay in: where a retry is signed anew, it is a new request to us.
const OF_THE_TRY: [&str; 15] = [
    "b3",
    "cf-connecting-ip",
    "cf-ray",
    "content-length",
    "date",
    "sentry-trace",
    "traceparent",
    "tracestate",
    "user-agent",
    "via",
    "x-amzn-trace-id",
    "x-cloud-trace-context",
    "x-correlation-id",
    "x-real-ip",
    "x-request-id",
];

/// Whether a header tells of the try rather than of the event; `x-slack-retry-num` and its like count tries.
fn is_of_the_try(name: &str) -> bool {
    OF_THE_TRY.contains(&name) || name.split('-').any(|word| matches!(word, "retry" | "attempt"))
}

fn request_hash(stored: &StoredWebhook) -> String {
    let head = &stored.head;
    let headers: Vec<_> = head.headers.iter().filter(|(name, _)| !is_of_the_try(name)).collect();
    // As JSON, so that no two requests read the same; texts always serialise.
    let told = serde_json::to_vec(&(&head.connection, &head.query, headers)).unwrap_or_default();
    let hash = Sha256::new().chain_update(told).chain_update(&stored.body).finalize();
    format!("hash:{}", hex::encode(&hash[..16]))
}
