//! One request, one answer.
//!
//! Promises: a whole answer takes at most its timeout and holds at most its bound after decompression; a redirect is
//! followed to the same origin only; proxies named in the environment are not used; `http:` needs to be allowed.
//! Failures never show a query string, where keys may stand.
//! Does not: retry, wait, pace, log.

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Method, Url};
use std::sync::Arc;
use std::time::Duration;
use syncline_engine::fault::hit;
use syncline_engine::model::Timestamp;
use syncline_engine::source::Failure;
use syncline_engine::time::Clock;

/// Redirects followed for one request.
const REDIRECTS_MAX: usize = 5;

/// Longest part of an answer that is quoted in a failure.
const QUOTE_CHARS_MAX: usize = 300;

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// `http:` may be used, not only `https:`.
    pub allow_http: bool,
    /// For the connection to stand, name look-up and TLS included.
    pub connect_timeout: Duration,
    /// `User-Agent` of requests that bring none.
    pub user_agent: String,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            allow_http: false,
            connect_timeout: Duration::from_secs(10),
            user_agent: concat!("syncline/", env!("CARGO_PKG_VERSION")).to_string(),
        }
    }
}

/// A request on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// `GET`, `POST`…
    pub method: Method,
    /// Where to, query included.
    pub url: Url,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Option<Bytes>,
    /// For the whole answer.
    pub timeout: Duration,
    /// Bytes of the answer after decompression.
    pub max_response: u64,
    /// Whether a redirect within the origin is followed (`GET` and `HEAD` only); otherwise its status is the answer.
    pub follow: bool,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status.
    pub status: u16,
    /// Headers.
    pub headers: HeaderMap,
    /// The whole body, decompressed.
    pub body: Bytes,
    /// The URL that answered.
    pub url: Url,
    /// The instant the request was sent, by our clock.
    pub sent_at: Timestamp,
}

impl Answer {
    /// A header as text, if it is there once or more and is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The provider's clock as its `Date` header shows it.
    pub fn date(&self) -> Option<Timestamp> {
        self.header("date").and_then(read_http_date)
    }

    /// The beginning of the body, for messages.
    pub fn quote(&self) -> String {
        let start = &self.body[..self.body.len().min(4 * QUOTE_CHARS_MAX)];
        String::from_utf8_lossy(start).chars().filter(|c| !c.is_control()).take(QUOTE_CHARS_MAX).collect()
    }
}

/// Reads `Sun, 06 Nov 1994 08:49:37 GMT` and its older forms.
pub(crate) fn read_http_date(text: &str) -> Option<Timestamp> {
    let since = httpdate::parse_http_date(text.trim()).ok()?.duration_since(std::time::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_secs()).ok().map(Timestamp::from_seconds)
}

/// The one way out. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct Client {
    inner: reqwest::Client,
    options: Arc<ClientOptions>,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// A client with its own pool of connections. TLS is rustls with ring, roots are the system's.
    pub fn new(options: ClientOptions, clock: Arc<dyn Clock>) -> Result<Client, Failure> {
        // An error means that a provider is installed already, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let inner = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(options.connect_timeout)
            .user_agent(options.user_agent.as_str())
            .gzip(true)
            .build()
            .map_err(|error| failure("client", format!("the HTTP client cannot be made: {error}"), false))?;
        Ok(Client { inner, options: Arc::new(options), clock })
    }

    /// The clock of this client.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Whether this client would send to `url` at all.
    pub fn permits(&self, url: &Url) -> Result<(), Failure> {
        match url.scheme() {
            "https" => Ok(()),
            "http" if self.options.allow_http => Ok(()),
            "http" => Err(failure(
                "insecure_url",
                format!("{} is not https; use https or allow http in the settings", shown(url)),
                false,
            )),
            other => Err(failure("bad_url", format!("{other}: is not a scheme to send to; use https"), false)),
        }
    }

    /// Sends the request and reads the whole answer. Any status is an answer.
    pub async fn send(&self, request: Outgoing) -> Result<Answer, Failure> {
        let whole = request.timeout;
        let place = shown(&request.url);
        match tokio::time::timeout(whole, self.exchange(request)).await {
            Ok(answer) => answer,
            Err(_) => Err(failure("timeout", format!("{place} did not answer within {whole:?}"), true)),
        }
    }

    /// Sends the request, follows nothing and reads the answer only up to `max_response`, whatever comes after it: for
    /// receivers whose answer hardly matters. Any status is an answer.
    pub async fn send_and_cut(&self, request: Outgoing) -> Result<Answer, Failure> {
        let (whole, place) = (request.timeout, shown(&request.url));
        match tokio::time::timeout(whole, self.once(&request, true)).await {
            Ok(answer) => answer,
            Err(_) => Err(failure("timeout", format!("{place} did not answer within {whole:?}"), true)),
        }
    }

    async fn exchange(&self, mut request: Outgoing) -> Result<Answer, Failure> {
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.once(&request, false).await?;
            match redirect(&request, &answer)? {
                Some(url) => request.url = url,
                None => return Ok(answer),
            }
        }
        let place = shown(&request.url);
        Err(failure("redirects", format!("{place} redirected more than {REDIRECTS_MAX} times"), false))
    }

    async fn once(&self, request: &Outgoing, cut: bool) -> Result<Answer, Failure> {
        self.permits(&request.url)?;
        let mut builder =
            self.inner.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let sent_at = self.clock.now();
        // Deliveries alone cut the answer short.
        let [before, after] = if cut { ["out.connect", "out.sent"] } else { ["poll.connect", "poll.request_sent"] };
        injected(before)?;
        let mut response = builder.send().await.map_err(|error| broken(&request.url, error))?;
        injected(after)?;
        let mut body = BytesMut::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(&request.url, error))? {
            if (body.len() + chunk.len()) as u64 > request.max_response {
                if cut {
                    body.extend_from_slice(&chunk);
                    body.truncate(usize::try_from(request.max_response).unwrap_or(usize::MAX));
                    break;
                }
                return Err(too_large(request));
            }
            body.extend_from_slice(&chunk);
            if !cut {
                injected("poll.response_half")?;
            }
        }
        Ok(Answer {
            status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body: body.freeze(),
            url: request.url.clone(),
            sent_at,
        })
    }
}

/// Where a redirect leads that is to be followed.
fn redirect(request: &Outgoing, answer: &Answer) -> Result<Option<Url>, Failure> {
    let moved = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
    let harmless = request.method == Method::GET || request.method == Method::HEAD;
    if !(request.follow && moved && harmless) {
        return Ok(None);
    }
    let Some(target) = answer.headers.get(LOCATION).and_then(|value| value.to_str().ok()) else {
        return Ok(None);
    };
    let url = answer.url.join(target).map_err(|error| {
        failure("bad_url", format!("{} redirected to something that is no URL: {error}", shown(&answer.url)), false)
    })?;
    if url.origin() == request.url.origin() {
        return Ok(Some(url));
    }
    let (from, to) = (shown(&request.url), url.origin().ascii_serialization());
    Err(failure("other_origin", format!("{from} redirected to {to}; sign-in is not taken to another origin"), false))
}

/// A URL without query, fragment and sign-in: fit to be shown.
pub(crate) fn shown(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

pub(crate) fn failure(code: &'static str, message: String, retry: bool) -> Failure {
    Failure { code, message, status: None, retry, retry_after: None }
}

/// What a test asked for looks like a connection that broke.
fn injected(edge: &'static str) -> Result<(), Failure> {
    hit(edge).map_err(|error| failure("network", error.to_string(), true))
}

fn too_large(request: &Outgoing) -> Failure {
    let (place, bound) = (shown(&request.url), request.max_response);
    let advice = "ask for smaller pages or raise limits.max_response";
    failure("response_too_large", format!("{place} answered with more than {bound} bytes; {advice}"), false)
}

fn broken(url: &Url, error: reqwest::Error) -> Failure {
    let place = shown(url);
    let code = if error.is_timeout() { "timeout" } else { "network" };
    let error = error.without_url();
    // The cause that helps ("connection refused", "certificate expired") stands at the end of the chain.
    let mut deepest: &dyn std::error::Error = &error;
    while let Some(cause) = deepest.source() {
        deepest = cause;
    }
    failure(code, format!("{place}: {error}: {deepest}"), true)
}
