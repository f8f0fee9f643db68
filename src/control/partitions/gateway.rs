//! Providers asked by another process: an engine that may not reach them asks a gateway, which makes one attempt and answers.
//!
//! A gateway keeps nothing: what a page brought is committed by the owner of the connection, who alone decides what is asked
//! next. All requests of a connection go to the same gateway as long as it is there, so that one process sees the provider's
//! budget. Validators of conditional requests lie with the owner and are not used on this way.

use super::owners::{GATEWAYS, Owner};
use super::wire;
use crate::connectors::http::{Forward, HeaderMap, HeaderValue, Method, Url};
use crate::connectors::kafka::board::Board;
use crate::control::App;
use crate::engine::source::{Ask, Bookmark, Connection, Failure, Page, Retry, Source};
use crate::engine::time::Clock;
use async_trait::async_trait;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// Where gateways are asked.
pub const PATH: &str = "/internal/ask";
/// Header with the proof that a request comes from this installation.
pub const PROOF: &str = "syncline-proof";
/// A gateway that did not answer is not asked for so long.
const SHUN: Duration = Duration::from_secs(10);

/// The gateways of an installation, as an engine sees them.
pub(in crate::control) struct Gateways {
    pub(super) board: Arc<Board>,
    pub(super) forward: Forward,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) proof: String,
    /// When one may be asked again that did not answer.
    pub(super) shunned: Mutex<BTreeMap<String, crate::engine::model::Timestamp>>,
}

impl Gateways {
    /// All gateways in the order in which a connection asks them.
    fn order(&self, connection: &str) -> Vec<Owner> {
        let now = self.clock.now();
        let shunned = self.shunned.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let notes = self.board.all();
        let all = notes.iter().filter(|(key, _)| key.starts_with(GATEWAYS));
        let mut all: Vec<Owner> = all.filter_map(|(_, note)| serde_json::from_str(note).ok()).collect();
        let weight = |gateway: &Owner| {
            crate::connectors::kafka::murmur2::murmur2(format!("{}/{connection}", gateway.process).as_bytes())
        };
        // Highest random weight: a gateway more or less moves only its own connections.
        all.sort_by_key(|gateway| {
            let away = shunned.get(&gateway.process).is_some_and(|until| *until > now);
            (away, std::cmp::Reverse(weight(gateway)))
        });
        all
    }

    async fn ask(&self, question: &wire::Question) -> Result<Page, Failure> {
        let body = Bytes::from(serde_json::to_vec(question).map_err(|e| unreadable(&e))?);
        let mut headers = HeaderMap::new();
        headers.insert(PROOF, HeaderValue::from_str(&self.proof).map_err(|e| unreadable(&e))?);
        let mut last = None;
        for gateway in self.order(&question.connection.id) {
            let url = Url::parse(&format!("{}{PATH}", gateway.url)).map_err(|e| unreadable(&e))?;
            match self.forward.send(Method::POST, url, &headers, body.clone()).await {
                Ok(passed) if passed.status.is_success() => {
                    let bytes = passed.bytes().await?;
                    let answer: wire::Answer = serde_json::from_slice(&bytes).map_err(|e| unreadable(&e))?;
                    return answer.page();
                }
                Ok(passed) => last = Some(format!("gateway {} answered {}", gateway.url, passed.status)),
                Err(failure) => last = Some(failure.message),
            }
            let until = self.clock.now().plus(SHUN);
            self.shunned.lock().unwrap_or_else(PoisonError::into_inner).insert(gateway.process, until);
        }
        let why = last.unwrap_or_else(|| "no process of the installation has the role gateway or all".to_owned());
        Err(Failure { code: "no_gateway", message: why, status: None, retry: true, retry_after: None })
    }
}

/// A source that is asked through gateways.
struct Through {
    source: String,
    /// Knows how failed attempts are retried; never asked for anything else.
    local: Arc<dyn Source>,
    gateways: Arc<Gateways>,
}

/// The source as an engine asks it that does not ask providers itself.
pub(in crate::control) fn through(name: &str, local: &Arc<dyn Source>, gateways: &Arc<Gateways>) -> Arc<dyn Source> {
    Arc::new(Through { source: name.to_owned(), local: local.clone(), gateways: gateways.clone() })
}

#[async_trait]
impl Source for Through {
    async fn poll(&self, ask: &Ask, after: Option<&Bookmark>) -> Result<Page, Failure> {
        self.gateways.ask(&wire::Question::poll(&self.source, ask, after)).await
    }

    async fn fetch(&self, ask: &Ask, keys: &[String]) -> Result<Page, Failure> {
        self.gateways.ask(&wire::Question::fetch(&self.source, ask, keys)).await
    }

    fn retry(&self) -> Retry {
        self.local.retry()
    }
}

/// Whether the proof that was given is the installation's, in constant time.
pub(super) fn is_own(proof: &str, given: &str) -> bool {
    proof.as_bytes().ct_eq(given.as_bytes()).into()
}

/// Answers a question of another process: one attempt.
pub(super) async fn answer(front: &App, body: &[u8]) -> Option<Vec<u8>> {
    let answer = match serde_json::from_slice::<wire::Question>(body) {
        Ok(question) => attempt(front, question).await,
        Err(why) => Err(unreadable(&why)),
    };
    serde_json::to_vec(&wire::Answer::of(answer)).ok()
}

async fn attempt(front: &App, question: wire::Question) -> Result<Page, Failure> {
    let source = front.sources.get(&question.source).ok_or_else(|| unknown(&question.source))?;
    let place = &question.connection;
    let account = front.connections.get(&place.environment, &question.source, &place.id);
    let account = account.ok_or_else(|| unknown(&place.id))?;
    // Credentials are this process's own; what changes at run time is the owner's.
    let connection =
        Connection { metadata: place.metadata.clone(), fields: place.fields.clone(), ..(*account.connection).clone() };
    let ask = question.ask(Arc::new(connection));
    match &question.keys {
        Some(keys) => source.fetch(&ask, keys).await,
        None => source.poll(&ask, question.bookmark().as_ref()).await,
    }
}

fn unknown(name: &str) -> Failure {
    let message = format!("the gateway does not know {name}: all processes need the same definitions");
    Failure { code: "unknown_at_gateway", message, status: None, retry: true, retry_after: None }
}

fn unreadable(why: &dyn std::fmt::Display) -> Failure {
    let message = format!("two processes do not understand each other: {why}; run the same version everywhere");
    Failure { code: "gateway_protocol", message, status: None, retry: false, retry_after: None }
}
