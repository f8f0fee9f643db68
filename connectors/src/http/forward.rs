//! A request handed on to another process of the same installation, and its answer as it comes.
//!
//! Promises: method, headers and body go as they are; neither body nor answer is read before it is passed on, so long ones flow.
//! Does not: retry, follow, decompress. Where it goes is the caller's to decide: never a place a user or provider names.

use super::streamed::{PassedBody, parts, unless_silent};
use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use reqwest::header::{CONNECTION, CONTENT_LENGTH, HOST, HeaderMap, TRANSFER_ENCODING};
use reqwest::{Method, StatusCode, Url};
use std::time::Duration;
use syncline_engine::model::Failure;

/// For the connection to stand: a process that is there answers at once.
const CONNECT: Duration = Duration::from_secs(2);
/// Without a byte of body or answer for so long, the other process is taken for gone. Longer than any reader may wait for news.
const SILENCE: Duration = Duration::from_secs(120);
/// The other process could not be reached, so it has not got the request.
pub const UNREACHABLE: &str = "process_unreachable";

/// The way to the other processes. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Forward(reqwest::Client);

/// An answer on its way.
pub struct Passed {
    /// Status.
    pub status: StatusCode,
    /// Headers, without those that belong to one connection.
    pub headers: HeaderMap,
    response: reqwest::Response,
}

impl Forward {
    /// A client with its own pool of connections.
    pub fn new() -> Result<Forward, Failure> {
        // An error means that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(CONNECT)
            .build()
            .map_err(|e| broken(&format!("the client for other processes cannot be made: {e}")))?;
        Ok(Forward(client))
    }

    /// Hands a request on.
    pub async fn send(
        &self,
        method: Method,
        url: Url,
        headers: &HeaderMap,
        body: PassedBody,
    ) -> Result<Passed, Failure> {
        let mut kept = headers.clone();
        single_hop(&mut kept);
        kept.remove(HOST);
        if matches!(body, PassedBody::Passing(..)) {
            // How long it is says the body itself.
            kept.remove(CONTENT_LENGTH);
        }
        let place = url.origin().ascii_serialization();
        let (request, moved) = body.lay(self.0.request(method, url).headers(kept));
        let sent = unless_silent(request.send(), &moved, SILENCE).await;
        let sent = sent.ok_or_else(|| broken(&format!("{place} is silent for {SILENCE:?}")))?;
        let response = sent.map_err(|e| {
            let why = format!("{place} does not answer: {e}");
            if e.is_connect() { Failure::passing(UNREACHABLE, why) } else { broken(&why) }
        })?;
        let mut headers = response.headers().clone();
        single_hop(&mut headers);
        Ok(Passed { status: response.status(), headers, response })
    }
}

impl Passed {
    /// The body as it comes.
    pub fn stream(self) -> impl Stream<Item = Result<Bytes, std::io::Error>> {
        parts(self.response, SILENCE)
    }

    /// The whole body.
    pub async fn bytes(self) -> Result<Bytes, Failure> {
        let whole = self.stream().try_fold(Vec::new(), |mut whole, part| async move {
            whole.extend_from_slice(&part);
            Ok(whole)
        });
        whole.await.map(Bytes::from).map_err(|e| broken(&format!("an answer broke off: {e}")))
    }
}

fn single_hop(headers: &mut HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
}

fn broken(message: &str) -> Failure {
    Failure::passing("process_silent", message)
}
