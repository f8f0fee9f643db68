//! Requests that callers make in the name of a connection, passed on as they come, both ways.
//!
//! | file | what |
//! |---|---|
//! | `place` | where they may go |
//! | `headers` | which headers go on, there and back |
//! | `hops` | one attempt: sign-in, budget, redirects |
//!
//! Promises: sign-in and budget are those of every other request of the connection; nothing that signs in leaves for an origin the
//! definition does not name; what may have had an effect is not sent a second time, unless the caller says that it may be.

mod headers;
mod hops;
mod place;

pub use crate::http::limits::{OVERLOADED, SPENT};
pub use headers::{FORBIDDEN, ORIGIN};
pub use place::{BAD_BASE, BAD_PATH, NO_BASE, NOT_ALLOWED};

use super::RestSource;
use super::request::refused;
use crate::http::limits::Permit;
use crate::http::{Answer, ByteStream, HeaderMap, Method, PassedBody, StreamedAnswer, Unanswered, Url};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::source::{Connection, Failure};
use syncline_engine::time::{Backoff, Chance};

/// The provider gave no answer.
pub const UNREACHABLE: &str = "provider_unreachable";
/// Most further attempts a caller may ask for.
pub const RETRIES_MAX: u32 = 10;
/// Longest wait between attempts in all: a caller waits for the answer.
const WAITS_MAX: Duration = Duration::from_secs(60);
/// Methods that may be sent again without anything happening twice.
const REPEATABLE: [&str; 7] = ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "PROPFIND", "REPORT"];

/// A request of a caller.
#[derive(Default)]
pub struct RelayRequest {
    /// Of any kind.
    pub method: Method,
    /// As it came, from its first slash.
    pub path: String,
    /// As it came.
    pub query: Option<String>,
    /// Those the provider is to get.
    pub headers: HeaderMap,
    /// Instead of the connection's base.
    pub base: Option<String>,
    /// How often it may be sent again.
    pub retries: u32,
    /// Statuses beside the usual ones for which it is.
    pub retry_on: Vec<u16>,
    /// A compressed answer is decompressed.
    pub decompress: bool,
    /// Sign-in and headers go along to other origins that are allowed.
    pub forward: bool,
}

/// An answer that is passed on.
pub struct Relayed {
    /// Of any kind.
    pub status: u16,
    /// Those the caller gets.
    pub headers: HeaderMap,
    /// As it comes. The request is open, and its place taken, until the last of it.
    pub body: ByteStream,
    /// How often the request was sent.
    pub attempts: u32,
}

/// An answer whose body is still to come.
struct Received {
    answer: StreamedAnswer,
    permit: Permit,
    /// What the provider wants to be left alone for.
    wait: Option<Duration>,
}

/// One request on its way, as often as it takes.
struct RelayCall<'a> {
    source: &'a RestSource,
    connection: Arc<Connection>,
    /// Where it goes first, short of the query.
    start: Url,
    request: RelayRequest,
    /// Its body cannot be sent again.
    once: bool,
}

impl RestSource {
    /// Passes a request on. Any status is an answer.
    pub async fn relay(
        &self,
        connection: &Arc<Connection>,
        request: RelayRequest,
        body: PassedBody,
    ) -> Result<Relayed, Failure> {
        headers::checked(&request.headers, self.definition.proxy.allow_authorization)?;
        let connection = self.signed(connection).await?;
        let told = |why: Failure| self.told(&connection, why);
        let start = self.place(&connection, &request.path, request.base.as_deref()).map_err(told)?;
        let once = matches!(body, PassedBody::Passing(..));
        let call = RelayCall { source: self, connection: connection.clone(), start, request, once };
        call.answered(body).await.map_err(told)
    }
}

impl RelayCall<'_> {
    async fn answered(mut self, mut body: PassedBody) -> Result<Relayed, Failure> {
        let mut backoff = self.backoff();
        let (mut attempts, mut waited, mut renewed) = (0, Duration::ZERO, false);
        loop {
            let again = body.again().unwrap_or_default();
            let outcome = self.attempt(std::mem::replace(&mut body, again)).await;
            attempts += 1;
            if !renewed && self.renew(&outcome).await? {
                renewed = true;
                continue;
            }
            let again = self.repeats(&outcome).filter(|_| backoff.tries() < self.request.retries);
            let wait = again.map(|wish| backoff.next_wait().max(wish.unwrap_or_default()));
            match wait.filter(|wait| waited + *wait <= WAITS_MAX) {
                Some(wait) => {
                    // What is not wanted gives its place back before it is waited.
                    drop(outcome);
                    waited += wait;
                    self.source.client.clock().sleep(wait).await;
                }
                None => return outcome.map(|received| received.told(attempts)).map_err(|unanswered| unanswered.why),
            }
        }
    }

    fn backoff(&self) -> Backoff {
        let retry = self.source.definition.limits.retry;
        Backoff::new(retry.from, retry.to, retry.jitter, Chance::from_system())
    }

    /// Takes other credentials if the provider refuses those it was given, there are any, and all can be sent again.
    async fn renew(&mut self, outcome: &Result<Received, Unanswered>) -> Result<bool, Failure> {
        let refused = matches!(outcome, Ok(received) if received.answer.head.status == 401);
        if !refused || self.once || self.request.headers.contains_key("authorization") {
            return Ok(false);
        }
        let judged = Err::<(), _>(Failure { status: Some(401), ..refused_by_provider() });
        let others = self.source.signed_again(&self.connection, &judged).await?;
        Ok(others.map(|others| self.connection = others).is_some())
    }

    /// Whether it may be sent again, and what the provider says of when.
    fn repeats(&self, outcome: &Result<Received, Unanswered>) -> Option<Option<Duration>> {
        let request = &self.request;
        let free = REPEATABLE.contains(&request.method.as_str()) || request.headers.contains_key("idempotency-key");
        let (repeats, wish) = match outcome {
            Err(unanswered) => {
                let Unanswered { why, sent } = unanswered;
                (why.retry && ![SPENT, OVERLOADED].contains(&why.code) && (free || !sent), why.retry_after)
            }
            Ok(Received { answer, wait, .. }) => (self.repeats_for(&answer.head, free), *wait),
        };
        (repeats && !self.once).then_some(wish)
    }

    fn repeats_for(&self, answer: &Answer, free: bool) -> bool {
        let limits = &self.source.definition.limits;
        let status = answer.status;
        let says_when = || limits.headers.retry_after.as_deref().is_some_and(|name| answer.header(name).is_some());
        match status {
            429 => true,
            503 if says_when() => true,
            _ => free && (status >= 500 || self.request.retry_on.contains(&status) || limits.retry_status.has(status)),
        }
    }
}

impl Received {
    fn told(self, attempts: u32) -> Relayed {
        let Received { mut answer, permit, .. } = self;
        let status = answer.head.status;
        let headers = headers::answered(std::mem::take(&mut answer.head.headers));
        let body = answer.body().map(move |part| {
            let _open = &permit;
            part
        });
        Relayed { status, headers, body: body.boxed(), attempts }
    }
}

fn refused_by_provider() -> Failure {
    refused("http_status", String::new())
}
