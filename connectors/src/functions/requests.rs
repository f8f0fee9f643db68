//! Requests of code: sent by the source, tried again as the code and the source ask for.

use super::secrets::Handles;
use crate::actions::Chain;
use crate::http::Answer as Received;
use crate::http::limits::RequestPriority;
use crate::rest::{ProxyRequest, RestSource};
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::source::{Connection, Failure, Retry};
use syncline_engine::time::{Backoff, Chance, Clock};
use syncline_runtime::wire::{Answer, Request};

/// Most further attempts a function may ask for.
const RETRIES_MAX: u32 = 20;

/// What sends the requests of one execution. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sender {
    pub(super) source: Arc<RestSource>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) handles: Arc<Handles>,
    pub(super) priority: RequestPriority,
    pub(super) chain: Chain,
}

impl Sender {
    /// Sends a request until it is answered for good.
    pub(super) async fn send(&self, connection: Arc<Connection>, request: Request, seed: u64) -> Answer {
        let (most, mut backoff) = self.attempts(&request, seed);
        let retry_on = request.retry_on.clone();
        // Without query: what stands there is data.
        let path = request.endpoint.split(['?', '#']).next().unwrap_or_default().to_owned();
        let changes = !matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS");
        if changes && let Err(why) = self.chain.begins_effect().await {
            return Answer::failed(why.code, why.message);
        }
        let request = self.revealed(request);
        loop {
            let received = self.source.proxy(&connection, &request, self.priority).await;
            if changes {
                self.log(&connection, &request.method, &path, &received);
            }
            let wait = match &received {
                Err(why) if why.retry => Some(why.retry_after),
                Ok(answer) if self.repeats(answer.status, &retry_on) => Some(None),
                _ => None,
            };
            match wait {
                Some(wish) if backoff.tries() < most => {
                    let wait = backoff.next_wait().max(wish.unwrap_or(Duration::ZERO));
                    self.clock.sleep(wait).await;
                }
                _ => return told(received),
            }
        }
    }

    /// An action's request that changes something at the provider, so that a change that is met later can be traced to it.
    fn log(&self, connection: &Connection, method: &str, path: &str, received: &Result<Received, Failure>) {
        let Some(action) = self.chain.action.as_deref() else { return };
        let (source, environment) = (&self.source.definition().source, &connection.environment);
        let (connection, path) = (&connection.id, self.source.veiled(connection, path));
        match received {
            Ok(answer) => {
                let status = answer.status;
                tracing::info!(source, environment, connection, action, method, path, status, "an action wrote");
            }
            Err(why) => {
                let error = why.code;
                tracing::warn!(
                    source,
                    environment,
                    connection,
                    action,
                    method,
                    path,
                    error,
                    "an action's write failed"
                );
            }
        }
    }

    /// The code's number is the least for what changes nothing, beside the source's own rule, and the exact one for writes.
    fn attempts(&self, request: &Request, seed: u64) -> (u32, Backoff) {
        let Retry { max, from, to, jitter } = self.source.definition().limits.retry;
        let asked = request.retries.map(|retries| retries.min(RETRIES_MAX));
        let most = match request.method.as_str() {
            _ if request.bare => asked.unwrap_or(0),
            "GET" | "HEAD" => asked.unwrap_or(0).max(max),
            _ => asked.unwrap_or(0),
        };
        (most, Backoff::new(from, to, jitter, Chance::from_seed(seed)))
    }

    fn repeats(&self, status: u16, retry_on: &[u16]) -> bool {
        self.source.definition().limits.retry_status.has(status) || retry_on.contains(&status)
    }

    fn revealed(&self, request: Request) -> ProxyRequest {
        // What is not signed in takes no secrets along.
        let reveal = |text: String| if request.bare { text } else { self.handles.reveal(text) };
        let pairs =
            |pairs: Vec<(String, String)>| pairs.into_iter().map(|(name, value)| (name, reveal(value))).collect();
        let body = request.body.map(|body| if request.bare { body } else { self.handles.reveal_bytes(body) });
        ProxyRequest {
            method: request.method,
            endpoint: request.endpoint,
            params: pairs(request.params),
            headers: pairs(request.headers),
            body: body.map(Into::into),
            base: request.base,
            bare: request.bare,
        }
    }
}

/// Whether an answer to a request says that something is wrong.
pub(super) fn is_failure(answer: &Answer) -> bool {
    !matches!(answer, Answer::Response { status: 200..=299, .. })
}

fn told(received: Result<Received, Failure>) -> Answer {
    match received {
        Ok(answer) => {
            let text = |value: &crate::http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            let headers = answer.headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect();
            Answer::Response { status: answer.status, headers, body: answer.body.to_vec() }
        }
        Err(why) => Answer::failed(why.code, why.message),
    }
}
