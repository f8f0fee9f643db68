//! One request: limits, proof, durable append, answer.
//!
//! Nothing is parsed or written before the request is proven; nothing is answered well before it is on disk.

use super::{Entrance, Hooks, add};
use crate::connectors::rest::definition::{Scheme, Webhooks};
use crate::connectors::webhook_in::{self, Head, StoredWebhook, kept_headers};
use crate::control::metrics::told;
use crate::engine::log;
use crate::engine::time::Clock;
use bytes::Bytes;
use http::HeaderMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// Bodies in memory at once, in KiB.
pub const ROOM_KIB: usize = 128 * 1024;
/// Most header fields.
pub const FIELDS: usize = 100;
/// Most bytes of header names and values.
pub const HEAD_BYTES: usize = 32 * 1024;
/// Longest wait for the disk.
pub const ACK: Duration = Duration::from_secs(2);
/// When to come back after a 503.
const RETRY_SECONDS: &str = "5";

/// A request with its whole body.
#[derive(Clone, Debug, Default)]
pub struct Incoming {
    /// `POST`.
    pub method: String,
    /// Path as it came.
    pub path: String,
    /// Query without `?`.
    pub query: String,
    /// All headers.
    pub headers: HeaderMap,
    /// Raw body.
    pub body: Bytes,
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Status.
    pub status: u16,
    /// Body.
    pub body: String,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
}

impl Reply {
    /// A refusal: its body is the same whatever the reason was.
    pub fn refusal(status: u16) -> Self {
        let body = match status {
            401 => "unauthorized",
            404 => "not found",
            408 => "too slow",
            413 => "too large",
            415 => "content encoding not accepted",
            431 => "header too large",
            _ => "unavailable",
        };
        let headers = if status == 503 { vec![("retry-after", RETRY_SECONDS.to_owned())] } else { Vec::new() };
        Reply { status, body: body.to_owned(), headers }
    }
}

impl Hooks {
    /// What may be refused before the body is read: `Err` is the answer, `Ok` the most bytes the body may have.
    pub fn admit(&self, entrance: &Entrance, headers: &HeaderMap) -> Result<u64, Reply> {
        let webhooks = self.webhooks(entrance).ok_or_else(|| Reply::refusal(404))?;
        let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
        if headers.len() > FIELDS || bytes > HEAD_BYTES {
            return Err(Reply::refusal(431));
        }
        let encodings = headers.get_all("content-encoding").iter();
        if encodings.into_iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(Reply::refusal(415));
        }
        let declared = headers.get("content-length").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
        if declared.is_some_and(|length| length > webhooks.max_body) {
            return Err(Reply::refusal(413));
        }
        Ok(declared.unwrap_or(webhooks.max_body))
    }

    /// Room for a body of so many bytes; `None` while too much is in memory. Held until the answer is out.
    pub fn reserve(&self, bytes: u64) -> Option<OwnedSemaphorePermit> {
        let kib = u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX);
        self.inner.room.clone().try_acquire_many_owned(kib).ok()
    }

    /// Proves the request, stores it and answers.
    pub async fn receive(&self, entrance: &Entrance, request: Incoming) -> Reply {
        let came = self.clock().now();
        let answered = |outcome| told::webhook(&entrance.source, outcome, self.clock().now().since(came));
        let Some(webhooks) = self.webhooks(entrance) else { return Reply::refusal(404) };
        if let Err(reply) = self.admit(entrance, &request.headers) {
            return reply;
        }
        if request.body.len() as u64 > webhooks.max_body {
            return Reply::refusal(413);
        }
        if let Err(why) = self.prove(webhooks, entrance, &request) {
            self.inner.count_refusal(&entrance.source, why);
            tracing::debug!(source = %entrance.source, %why, "webhook refused");
            answered("bad_signature");
            return Reply::refusal(401);
        }
        match self.store(webhooks, entrance, request).await {
            Ok(_) => {
                add(&self.inner.tally.accepted, 1);
                answered("accepted");
                let (status, body) = webhooks.reply.clone();
                Reply { status, body, headers: Vec::new() }
            }
            Err(why) => {
                tracing::warn!(source = %entrance.source, %why, "webhook not stored");
                answered("not_stored");
                Reply::refusal(503)
            }
        }
    }

    fn webhooks(&self, entrance: &Entrance) -> Option<&Webhooks> {
        self.inner.definition(&entrance.source)?.webhooks.as_ref()
    }

    fn prove(&self, webhooks: &Webhooks, entrance: &Entrance, request: &Incoming) -> Result<(), webhook_in::Refusal> {
        let base = self.inner.parts.public_url.as_deref().unwrap_or_default().trim_end_matches('/');
        let mark = if request.query.is_empty() { "" } else { "?" };
        let url = format!("{base}{}{mark}{}", request.path, request.query);
        let parts = webhook_in::Parts {
            method: &request.method,
            url: &url,
            path: &request.path,
            query: &request.query,
            headers: &request.headers,
            body: &request.body,
        };
        let secrets = self.secrets(&webhooks.verify, entrance);
        let now = self.inner.parts.engine.clock().now();
        webhook_in::verify(&webhooks.verify.scheme, &secrets, &parts, now).map(drop)
    }

    async fn store(&self, webhooks: &Webhooks, entrance: &Entrance, request: Incoming) -> Result<u64, log::Error> {
        let clock = self.inner.parts.engine.clock();
        let secret_header = match &webhooks.verify.scheme {
            Scheme::SharedSecret { header } => Some(header.as_str()),
            _ => None,
        };
        let head = Head {
            environment: entrance.environment.clone(),
            source: entrance.source.clone(),
            connection: entrance.connection.clone(),
            received_at: clock.now().0,
            headers: kept_headers(&request.headers, secret_header),
            query: url::form_urlencoded::parse(request.query.as_bytes()).into_owned().collect(),
        };
        let entry = StoredWebhook { head, body: request.body.to_vec() }.encode();
        let log = self.inner.parts.engine.log();
        tokio::select! {
            stored = log.append(vec![entry]) => stored,
            () = clock.sleep(ACK) => Err(log::Error::Overloaded(0)),
        }
    }

    /// Where time comes from.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.inner.parts.engine.clock()
    }

    /// Position up to which the log was processed.
    pub fn processed(&self) -> u64 {
        self.inner.processed.load(Ordering::Acquire)
    }
}
