//! One request whose body and whose answer are passed on as they come.
//!
//! Promises: no more of either is in memory than what is on its way; a body or an answer of which nothing comes for
//! [`StreamedRequest::silence`] has ended with an error; where it goes is judged as for every other request. No redirect is followed.
//! Does not: retry, wait, pace, log, bound the answer.

use super::Answer;
use super::client::{Client, broken, failure, shown};
use super::room::ReservedMemory;
use super::veil::Veil;
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::source::Failure;
use tokio::sync::Notify;

/// Bytes as they come.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// A body on its way out.
#[derive(Default)]
pub enum PassedBody {
    /// None.
    #[default]
    None,
    /// All of it, so that it can be sent again.
    Whole(Bytes),
    /// As it comes, once; how long it is, if that is known.
    Passing(ByteStream, Option<u64>),
}

impl PassedBody {
    /// The same once more; `None` if it can be sent only once.
    pub fn again(&self) -> Option<PassedBody> {
        match self {
            PassedBody::None => Some(PassedBody::None),
            PassedBody::Whole(bytes) => Some(PassedBody::Whole(bytes.clone())),
            PassedBody::Passing(..) => None,
        }
    }

    /// Lays it into a request; what tells when some of it has gone.
    pub(super) fn lay(self, builder: reqwest::RequestBuilder) -> (reqwest::RequestBuilder, Arc<Notify>) {
        let moved = Arc::new(Notify::new());
        let builder = match self {
            PassedBody::None => builder,
            PassedBody::Whole(bytes) => builder.body(bytes),
            PassedBody::Passing(bytes, length) => {
                let told = moved.clone();
                let builder = builder.body(reqwest::Body::wrap_stream(bytes.inspect(move |_| told.notify_one())));
                match length {
                    Some(length) => builder.header(CONTENT_LENGTH, HeaderValue::from(length)),
                    None => builder,
                }
            }
        };
        (builder, moved)
    }
}

/// A request of which the answer is passed on.
pub struct StreamedRequest {
    /// `GET`, `POST`…
    pub method: Method,
    /// Where to, query included.
    pub url: Url,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: PassedBody,
    /// Longest time without a byte in either direction.
    pub silence: Duration,
    /// A compressed answer is asked for, and decompressed.
    pub decode: bool,
    /// What of the request must not be shown.
    pub veil: Veil,
}

/// The head of an answer; its body is still to come.
pub struct StreamedAnswer {
    /// The answer without its body.
    pub head: Answer,
    response: reqwest::Response,
    silence: Duration,
}

/// Why there is no answer.
#[derive(Debug)]
pub struct Unanswered {
    /// In words.
    pub why: Failure,
    /// Whether the request may have arrived.
    pub sent: bool,
}

impl Client {
    /// Sends the request and reads the head of the answer. Any status is an answer.
    pub async fn stream(&self, request: StreamedRequest) -> Result<StreamedAnswer, Unanswered> {
        let StreamedRequest { method, url, headers, body, silence, decode, veil } = request;
        let unsent = |why| Unanswered { why, sent: false };
        self.permits(&url).map_err(unsent)?;
        let builder = self.pool(&url, decode).map_err(unsent)?.request(method, url.clone()).headers(headers);
        let (builder, moved) = body.lay(builder);
        let sent_at = self.clock().now();
        let mut response = match unless_silent(builder.send(), &moved, silence).await {
            Some(Ok(response)) => response,
            Some(Err(error)) => return Err(Unanswered { sent: !error.is_connect(), why: broken(&url, error) }),
            None => {
                let message = format!("{} did not answer within {silence:?}", shown(&url));
                return Err(Unanswered { why: failure("timeout", message, true), sent: true });
            }
        };
        let headers = std::mem::take(response.headers_mut());
        let (status, body, held) = (response.status().as_u16(), Bytes::new(), ReservedMemory::default());
        Ok(StreamedAnswer { head: Answer { status, headers, body, url, sent_at, veil, held }, response, silence })
    }
}

impl StreamedAnswer {
    /// The body as it comes.
    pub fn body(self) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        parts(self.response, self.silence)
    }
}

/// The body of an answer as it comes.
pub(super) fn parts(
    response: reqwest::Response,
    silence: Duration,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some(response), move |response| async move {
        let mut response = response?;
        match tokio::time::timeout(silence, response.chunk()).await {
            Ok(Ok(part)) => part.map(|part| (Ok(part), Some(response))),
            Ok(Err(error)) => Some((Err(io::Error::other(error.without_url())), None)),
            Err(_) => Some((Err(io::Error::new(io::ErrorKind::TimedOut, "the answer stopped coming")), None)),
        }
    })
}

/// What `sending` comes to, unless nothing of its body moves for too long.
pub(super) async fn unless_silent<T>(sending: impl Future<Output = T>, moved: &Notify, silence: Duration) -> Option<T> {
    let mut sending = std::pin::pin!(sending);
    loop {
        tokio::select! {
            sent = sending.as_mut() => return Some(sent),
            () = moved.notified() => {}
            () = tokio::time::sleep(silence) => return None,
        }
    }
}
