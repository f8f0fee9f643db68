//! A webhook as it waits in the log: everything needed to process it later, nothing that is a secret.
//!
//! Format: one version byte, the length of the head (4 bytes, big-endian), the head as JSON, the body as it came. A newer
//! version is refused by name instead of being misread.

use crate::definition::{Definition, WebhookEffect};
use crate::expr::Expr;
use crate::http::looks_secret;
use http::HeaderMap;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use syncline_engine::model::Timestamp;

const VERSION: u8 = 1;
/// Version byte and length of the head.
const LEAD: usize = 1 + 4;

/// Headers that are never stored, whoever sends them.
const NEVER: [&str; 10] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
    "host",
    "connection",
    "x-api-key",
    "x-gitlab-token",
    "x-forwarded-for",
    "forwarded",
];

/// One accepted request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredWebhook {
    /// Everything but the body.
    pub head: Head,
    /// The body as it came.
    pub body: Vec<u8>,
}

/// Everything but the body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Isolation scope, as the path says.
    pub environment: String,
    /// Source, as the path says.
    pub source: String,
    /// Connection, where the path names one.
    pub connection: Option<String>,
    /// Microseconds since the epoch by our clock.
    pub received_at: i64,
    /// Headers, lower-case names, repeated values joined by `, `.
    pub headers: BTreeMap<String, String>,
    /// Query, in order.
    pub query: Vec<(String, String)>,
}

/// Why bytes are not a stored webhook.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadEntry {
    /// Written by a newer program.
    #[error("log entry of format {0}, this program reads 1; use a newer program")]
    Newer(u8),
    /// Cut short or altered.
    #[error("damaged log entry: {0}")]
    Damaged(String),
}

impl StoredWebhook {
    /// Our time of receipt.
    pub fn received_at(&self) -> Timestamp {
        Timestamp(self.head.received_at)
    }

    /// Bytes for the log.
    pub fn encode(&self) -> Vec<u8> {
        // A head of strings always serialises; an empty head would be refused when read, never misread.
        let head = serde_json::to_vec(&self.head).unwrap_or_default();
        let mut bytes = Vec::with_capacity(LEAD + head.len() + self.body.len());
        bytes.push(VERSION);
        bytes.extend_from_slice(&u32::try_from(head.len()).unwrap_or(u32::MAX).to_be_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(&self.body);
        bytes
    }

    /// Reads bytes from the log.
    pub fn decode(bytes: &[u8]) -> Result<Self, BadEntry> {
        let damaged = |what: &str| BadEntry::Damaged(what.to_owned());
        let (version, rest) = bytes.split_first().ok_or_else(|| damaged("empty"))?;
        if *version != VERSION {
            return Err(BadEntry::Newer(*version));
        }
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(|| damaged("no head"))?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| damaged("head too long"))?;
        let (head, body) = rest.split_at_checked(length).ok_or_else(|| damaged("head cut short"))?;
        let head = serde_json::from_slice(head).map_err(|e| BadEntry::Damaged(e.to_string()))?;
        Ok(StoredWebhook { head, body: body.to_vec() })
    }
}

/// The headers worth keeping: all but secrets and addresses. `secret_header` is that of a shared-secret scheme.
pub fn kept_headers(headers: &HeaderMap, secret_header: Option<&str>) -> BTreeMap<String, String> {
    let mut kept = BTreeMap::new();
    for name in headers.keys() {
        let name = name.as_str();
        if NEVER.contains(&name) || secret_header.is_some_and(|s| s.eq_ignore_ascii_case(name)) {
            continue;
        }
        let values: Vec<_> = headers.get_all(name).iter().map(|v| String::from_utf8_lossy(v.as_bytes())).collect();
        kept.insert(name.to_owned(), values.join(", "));
    }
    kept
}

/// The query worth keeping. What is named like a secret is kept only where an expression of the definition reads it: an event
/// is processed from what is stored, today and when it is run again.
pub fn kept_query(query: &str, definition: &Definition) -> Vec<(String, String)> {
    let pairs = url::form_urlencoded::parse(query.as_bytes()).into_owned();
    pairs.filter(|(name, _)| !looks_secret(name) || is_read(definition, name)).collect()
}

/// Whether an expression that sees a stored request names this parameter of its query.
fn is_read(definition: &Definition, name: &str) -> bool {
    let reads = |expression: &Expr| expression.text().contains("$q") && expression.text().contains(name);
    let Some(webhooks) = &definition.webhooks else { return false };
    let whole = webhooks.events.iter().chain(&webhooks.kind).chain(&webhooks.dedupe).chain(&webhooks.order_by);
    let mut whole = whole.chain(webhooks.route.iter().map(|route| &route.value));
    let of_events = webhooks.map.iter().any(|entry| {
        let effect: Vec<&Expr> = match &entry.effect {
            WebhookEffect::Record(item) => vec![item],
            WebhookEffect::Patch(values) => values.iter().map(|(_, value)| value).collect(),
            WebhookEffect::Nothing | WebhookEffect::Delete => Vec::new(),
        };
        let times = entry.at.iter().map(|at| &at.value).chain(entry.partition.iter().map(|(_, value)| value));
        entry.when.iter().chain(&entry.key).chain(effect).chain(times).any(reads)
    });
    // Whole items go through the stream's own expressions.
    let of_streams = definition.streams.iter().flat_map(|stream| stream.expressions()).any(reads);
    of_events || of_streams || whole.any(reads)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::definition::parse;
    use proptest::prelude::*;

    fn kept(query: &str, more: &str) -> String {
        let text = format!(
            "{{source: s, streams: [{{name: Thing, key: .id}}], webhooks: {{scope: connection, verify: {{scheme: none}}, \
             map: [{{stream: Thing, record: .}}]{more}}}}}"
        );
        let (definition, _) = parse("s.yaml", &text, &|_| Err("none".into())).expect("a definition");
        kept_query(query, &definition).into_iter().map(|(name, value)| format!("{name}={value} ")).collect()
    }

    #[test]
    fn secrets_of_the_query_are_not_kept_unless_an_expression_reads_them() {
        let query = "shop=7&api_key=X&token=Y&Signature=Z&page=2&password=&hub.token=V";
        assert_eq!(kept(query, ""), "shop=7 page=2 ");
        assert_eq!(kept(query, ", type: $q.shop"), "shop=7 page=2 ");
        assert_eq!(kept(query, ", type: '$q.token'"), "shop=7 token=Y page=2 ");
        assert_eq!(kept(query, ", dedupe: '$q[\"hub.token\"]'"), "shop=7 token=Y page=2 hub.token=V ");
    }

    #[test]
    fn secrets_are_not_kept() {
        let mut headers = HeaderMap::new();
        for name in ["authorization", "cookie", "x-token", "x-github-event"] {
            headers.insert(name, http::HeaderValue::from_static("v"));
        }
        let kept = kept_headers(&headers, Some("X-Token"));
        assert_eq!(kept.into_keys().collect::<Vec<_>>(), ["x-github-event"]);
    }

    proptest! {
        #[test]
        fn round_trip(body in proptest::collection::vec(any::<u8>(), 0..200), connection: Option<String>, at: i64) {
            let head = Head { environment: "e".into(), source: "s".into(), connection, received_at: at, ..Head::default() };
            let stored = StoredWebhook { head, body };
            prop_assert_eq!(StoredWebhook::decode(&stored.encode()), Ok(stored));
        }

        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = StoredWebhook::decode(&bytes);
        }
    }
}
