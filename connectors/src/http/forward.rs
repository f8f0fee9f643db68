//! A request handed on to another process of the same installation, and its answer as it comes.
//!
//! Promises: method, headers and body go as they are; the answer is not read before it is passed on, so long answers flow.
//! Does not: retry, follow, decompress. Where it goes is the caller's to decide: never a place a user or provider names.

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use reqwest::header::{CONNECTION, HOST, HeaderMap, TRANSFER_ENCODING};
use reqwest::{Method, StatusCode, Url};
use std::time::Duration;
use syncline_engine::model::Failure;

/// For the connection to stand: a process that is there answers at once.
const CONNECT: Duration = Duration::from_secs(2);
/// Without a byte of an answer for so long, the other process is taken for gone. Longer than any reader may wait for news.
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
            .read_timeout(SILENCE)
            .build()
            .map_err(|e| broken(&format!("the client for other processes cannot be made: {e}")))?;
        Ok(Forward(client))
    }

    /// Hands a request on.
    pub async fn send(&self, method: Method, url: Url, headers: &HeaderMap, body: Bytes) -> Result<Passed, Failure> {
        let mut kept = headers.clone();
        single_hop(&mut kept);
        kept.remove(HOST);
        let sent = self.0.request(method, url.clone()).headers(kept).body(body).send().await;
        let response = sent.map_err(|e| {
            let why = format!("{} does not answer: {e}", url.origin().ascii_serialization());
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
        self.response.bytes_stream().map(|part| part.map_err(std::io::Error::other))
    }

    /// The whole body.
    pub async fn bytes(self) -> Result<Bytes, Failure> {
        self.response.bytes().await.map_err(|e| broken(&format!("an answer broke off: {e}")))
    }
}

fn single_hop(headers: &mut HeaderMap) {
    headers.remove(CONNECTION);
    headers.remove(TRANSFER_ENCODING);
}

fn broken(message: &str) -> Failure {
    Failure::passing("process_silent", message)
}
