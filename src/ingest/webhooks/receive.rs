//! One request: limits, proof, durable append, answer.
//!
//! What is cheap to refuse is refused before the body is read, in the order of what it costs: budgets, sizes, proof that no
//! body could give any more. Memory is taken as the body arrives. Nothing is parsed or written before the request is proven;
//! nothing is answered well before it is on disk.

use super::{Entrance, Hooks, add};
use crate::admission::{Address, Exhausted, Holder, Share};
use crate::connectors::definition::{Definition, Scheme, Webhooks};
use crate::connectors::webhooks::{self, Head, StoredWebhook, kept_headers, kept_query};
use crate::engine::fault::pass;
use crate::engine::log;
use crate::engine::model::Timestamp;
use crate::engine::time::Clock;
use crate::telemetry::record;
use bytes::Bytes;
use http::HeaderMap;
use std::sync::Arc;
use std::time::Duration;

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
    /// Who sends it, where that is known.
    pub from: Option<Address>,
}

/// A request whose body may be read.
#[derive(Debug)]
pub struct Admitted {
    /// Most bytes of it.
    pub most: u64,
    /// The memory it takes, none so far: counted for its path and its sender.
    pub memory: Share,
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
            400 => "cut off",
            401 => "unauthorized",
            404 => "not found",
            408 => "too slow",
            413 => "too large",
            415 => "content encoding not accepted",
            429 => "too many requests",
            431 => "header too large",
            _ => "unavailable",
        };
        let headers = if status == 503 { vec![("retry-after", RETRY_SECONDS.to_owned())] } else { Vec::new() };
        Reply { status, body: body.to_owned(), headers }
    }
}

impl Reply {
    /// A refusal of what is proven: its sender may know what is the matter, if no more than that.
    fn unstored(why: &log::Error) -> Self {
        let reason = match why {
            log::Error::Full(_) => "disk full",
            log::Error::Poisoned(_) => "store failed",
            _ => "overloaded",
        };
        let refusal = Reply::refusal(503);
        Reply { body: format!("{}: {reason}", refusal.body), ..refusal }
    }
}

impl Hooks {
    /// What may be refused before the body is read: `Err` is the answer. Of `head` the body is not looked at.
    pub fn admit(&self, entrance: &Entrance, head: &Incoming) -> Result<Admitted, Reply> {
        let definition = self.inner.definition(&entrance.source);
        let webhooks = described(&definition).ok_or_else(|| Reply::refusal(404))?;
        let admitted = self.within_bounds(webhooks, entrance, head)?;
        self.prove(webhooks, entrance, head, webhooks::verify_head)?;
        Ok(admitted)
    }

    /// The same for a request of a connection that is not known here, without its proof, which the owner of the connection
    /// asks for. What refusals are counted for comes with it.
    pub fn admit_for_owner(&self, head: &Incoming) -> Result<(Entrance, Admitted), Reply> {
        let source = head.path.strip_prefix("/hooks/").and_then(|path| path.split('/').next()).unwrap_or_default();
        // Whose it is is not known yet: the path stands for it.
        let connection = Some(head.path.clone());
        let entrance = Entrance { environment: "unknown".to_owned(), source: source.to_owned(), connection };
        let definition = self.inner.definition(&entrance.source);
        let webhooks = described(&definition).ok_or_else(|| Reply::refusal(404))?;
        let admitted = self.within_bounds(webhooks, &entrance, head)?;
        Ok((entrance, admitted))
    }

    fn within_bounds(&self, webhooks: &Webhooks, entrance: &Entrance, head: &Incoming) -> Result<Admitted, Reply> {
        let bounds = self.bounds();
        let from = head.from.unwrap_or(Address::UNKNOWN);
        bounds.webhook(entrance, from, self.clock().now()).map_err(|why| self.too_many(entrance, why))?;
        let most = declared(webhooks, &head.headers).map_err(|status| self.turned_away(entrance, status))?;
        let memory = bounds.bodies.share([Holder::of("path", entrance), from.holder()]);
        Ok(Admitted { most, memory })
    }

    /// The answer to a request whose body was not read to its end, or not at all.
    pub fn turned_away(&self, entrance: &Entrance, status: u16) -> Reply {
        let reason = match status {
            408 => "too_slow",
            413 => "too_large",
            429 => "too_many",
            503 => "no_memory",
            _ => "malformed",
        };
        record::webhook_refused(&entrance.environment, &entrance.source, reason);
        Reply::refusal(status)
    }

    fn too_many(&self, entrance: &Entrance, why: Exhausted) -> Reply {
        record::over_budget(why.budget);
        let headers = vec![("retry-after", why.seconds().to_string())];
        Reply { headers, ..self.turned_away(entrance, 429) }
    }

    /// Proves the request, stores it and answers.
    pub async fn receive(&self, entrance: &Entrance, request: Incoming) -> Reply {
        let came = self.clock().now();
        let took = || self.clock().now().since(came);
        let answered = |outcome| record::webhook(&entrance.environment, &entrance.source, outcome, took());
        let definition = self.inner.definition(&entrance.source);
        let Some(webhooks) = described(&definition) else { return Reply::refusal(404) };
        if let Err(status) = declared(webhooks, &request.headers) {
            return self.turned_away(entrance, status);
        }
        if request.body.len() as u64 > webhooks.max_body {
            return self.turned_away(entrance, 413);
        }
        let proof = |scheme: &Scheme, secrets: &[String], parts: &webhooks::RawRequest<'_>, now| {
            webhooks::verify(scheme, secrets, parts, now).map(drop)
        };
        if let Err(reply) = self.prove(webhooks, entrance, &request, proof) {
            return reply;
        }
        let (status, reply) = &webhooks.reply;
        let kind = request.headers.get("content-type").and_then(|kind| kind.to_str().ok());
        let body = webhooks::reply(reply, kind, &request.body);
        pass("in.verified");
        match self.store(webhooks, entrance, request).await {
            Ok(_) => {
                add(&self.inner.tally.accepted, 1);
                answered("accepted");
                Reply { status: *status, body, headers: Vec::new() }
            }
            Err(why) => {
                tracing::warn!(source = %entrance.source, %why, "webhook not stored");
                answered("not_stored");
                Reply::unstored(&why)
            }
        }
    }

    /// Asks `proof` of a request; a failure is the same answer whatever the reason.
    fn prove(
        &self,
        webhooks: &Webhooks,
        entrance: &Entrance,
        request: &Incoming,
        proof: impl Fn(&Scheme, &[String], &webhooks::RawRequest<'_>, Timestamp) -> Result<(), webhooks::VerifyRefusal>,
    ) -> Result<(), Reply> {
        let base = self.inner.parts.public_url.as_deref().unwrap_or_default().trim_end_matches('/');
        let mark = if request.query.is_empty() { "" } else { "?" };
        let url = format!("{base}{}{mark}{}", request.path, request.query);
        let parts = webhooks::RawRequest {
            method: &request.method,
            url: &url,
            path: &request.path,
            query: &request.query,
            headers: &request.headers,
            body: &request.body,
        };
        let secrets = self.secrets(&webhooks.verify, entrance);
        let now = self.clock().now();
        let Err(why) = proof(&webhooks.verify.scheme, &secrets, &parts, now) else { return Ok(()) };
        self.inner.count_refusal(&entrance.source, why);
        tracing::debug!(source = %entrance.source, %why, "webhook refused");
        record::webhook(&entrance.environment, &entrance.source, "bad_signature", self.clock().now().since(now));
        if let Some(from) = request.from {
            self.bounds().wrong_signature(entrance, from, now);
        }
        Err(Reply::refusal(401))
    }

    async fn store(&self, webhooks: &Webhooks, entrance: &Entrance, request: Incoming) -> Result<u64, log::Error> {
        let clock = self.inner.parts.engine.clock();
        let secret_header = match &webhooks.verify.scheme {
            Scheme::SharedSecret { header } => Some(header.as_str()),
            _ => None,
        };
        let definition = self.inner.definition(&entrance.source);
        let head = Head {
            environment: entrance.environment.clone(),
            source: entrance.source.clone(),
            connection: entrance.connection.clone(),
            received_at: clock.now().0,
            headers: kept_headers(&request.headers, secret_header),
            query: definition.map(|definition| kept_query(&request.query, &definition)).unwrap_or_default(),
        };
        let entry = StoredWebhook { head, body: request.body.into() }.encode();
        let log = self.inner.parts.engine.log();
        pass("in.queued");
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
        self.inner.follower.processed()
    }
}

/// What the definition of a source says of its webhooks.
fn described(definition: &Option<Arc<Definition>>) -> Option<&Webhooks> {
    definition.as_ref()?.webhooks.as_ref()
}

/// How many bytes the body has at most, by what its head says; `Err` is the status of the refusal.
fn declared(webhooks: &Webhooks, headers: &HeaderMap) -> Result<u64, u16> {
    let bytes: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if headers.len() > FIELDS || bytes > HEAD_BYTES {
        return Err(431);
    }
    let encodings = headers.get_all("content-encoding").iter();
    if encodings.into_iter().any(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity")) {
        return Err(415);
    }
    let declared = headers.get("content-length").and_then(|v| v.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > webhooks.max_body) {
        return Err(413);
    }
    Ok(declared.unwrap_or(webhooks.max_body))
}
