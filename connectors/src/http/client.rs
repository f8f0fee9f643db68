//! One request, one answer.
//!
//! Promises: a whole answer takes at most its timeout and holds at most its bound after decompression; a redirect is
//! followed to the same origin only; proxies named in the environment are not used; `http:` needs to be allowed; nothing is
//! sent where [`Egress`] does not let it go, judged by the URL before it is dialled and by each address of its name.
//! Failures never show a query string, where keys may stand.
//! Does not: retry, wait, pace, log.

use super::dial::{Lookup, SystemLookup};
use super::pools::Pools;
use super::room::{BufferedAnswer, NoRoom, ReservedMemory, Room};
use super::veil::Veil;
use crate::egress::{Blocked, Egress};
use bytes::Bytes;
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::{Method, Url};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use syncline_engine::fault::{self, hit};
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
    /// Where requests may go beside the public internet.
    pub egress: Egress,
    /// Memory for answers, shared with whoever has the same.
    pub room: Room,
    /// For the connection to stand, name look-up and TLS included.
    pub connect_timeout: Duration,
    /// `User-Agent` of requests that bring none.
    pub user_agent: String,
}

impl Default for ClientOptions {
    fn default() -> Self {
        ClientOptions {
            allow_http: false,
            egress: Egress::default(),
            room: Room::default(),
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
    /// What of the request must not be shown, should the answer repeat it.
    pub veil: Veil,
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
    /// What of the request must not be shown.
    pub veil: Veil,
    /// The body's place in memory.
    pub held: ReservedMemory,
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

    /// The beginning of the body, for messages: without our secrets, on one line.
    pub fn quote(&self) -> String {
        self.veil.beginning(&self.body, QUOTE_CHARS_MAX)
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
    decoding: Arc<Pools>,
    /// For answers that are passed on as they were sent; made when the first of them is asked for.
    raw: Arc<OnceLock<Pools>>,
    lookup: Arc<dyn Lookup>,
    egress: Arc<Egress>,
    options: Arc<ClientOptions>,
    clock: Arc<dyn Clock>,
}

impl Client {
    /// A client with its own pool of connections. TLS is rustls with ring, roots are the system's.
    pub fn new(options: ClientOptions, clock: Arc<dyn Clock>) -> Result<Client, Failure> {
        Client::with_lookup(options, clock, Arc::new(SystemLookup))
    }

    /// The same with another way from names to addresses than the machine's.
    pub fn with_lookup(
        options: ClientOptions,
        clock: Arc<dyn Clock>,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Client, Failure> {
        let egress = Arc::new(options.egress.clone());
        let decoding = Arc::new(Pools::new(&options, &egress, &lookup, true)?);
        Ok(Client { decoding, raw: Arc::default(), lookup, egress, options: Arc::new(options), clock })
    }

    /// What sends to `url`; answers are decompressed if `decode`.
    pub(super) fn pool(&self, url: &Url, decode: bool) -> Result<&reqwest::Client, Failure> {
        if decode {
            return Ok(self.decoding.of(url));
        }
        if let Some(raw) = self.raw.get() {
            return Ok(raw.of(url));
        }
        let raw = Pools::new(&self.options, &self.egress, &self.lookup, false)?;
        Ok(self.raw.get_or_init(|| raw).of(url))
    }

    /// The clock of this client.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Whether this client would send to `url` at all.
    pub fn permits(&self, url: &Url) -> Result<(), Failure> {
        if url.scheme() == "http" && !self.options.allow_http {
            let message = format!("{} is not https; use https or allow http in the settings", shown(url));
            return Err(failure("insecure_url", message, false));
        }
        self.egress.judge(url).map_err(|why| blocked(url, &why))
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
        let client = self.pool(&request.url, true)?;
        let mut builder = client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        if let Some(body) = &request.body {
            builder = builder.body(body.clone());
        }
        let sent_at = self.clock.now();
        // Deliveries alone cut the answer short.
        let [before, after] = if cut { ["out.connect", "out.sent"] } else { ["poll.connect", "poll.request_sent"] };
        injected(before)?;
        let mut response = builder.send().await.map_err(|error| broken(&request.url, error))?;
        injected(after)?;
        let room = &self.options.room;
        let bound = request.max_response.min(room.most());
        // Of a compressed answer nothing is announced: what it comes to shows as it is read.
        let announced = response.content_length();
        if !cut && announced.is_some_and(|bytes| bytes > bound) {
            return Err(too_large(request, room));
        }
        let mut body = BufferedAnswer::new(room, announced.unwrap_or(bound).min(bound));
        while let Some(chunk) = response.chunk().await.map_err(|error| broken(&request.url, error))? {
            let beyond = (body.len() + chunk.len()) as u64 > bound;
            if beyond && !cut {
                return Err(too_large(request, room));
            }
            body.add(&chunk).await.map_err(|NoRoom| no_room(request, room))?;
            if beyond {
                break;
            }
            if !cut {
                injected("poll.response_half")?;
            }
        }
        let (body, held) = body.done(bound);
        Ok(Answer {
            status: response.status().as_u16(),
            headers: std::mem::take(response.headers_mut()),
            body,
            url: request.url.clone(),
            sent_at,
            veil: request.veil.clone(),
            held,
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
    if url.origin() == request.url.origin() || fault::planted("redirect_followed") {
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

fn too_large(request: &Outgoing, room: &Room) -> Failure {
    let (place, most) = (shown(&request.url), room.most());
    let (bound, raise) = match request.max_response <= most {
        true => (request.max_response, "limits.max_response in the definition"),
        false => (most, "egress.answers_mb in the settings: one answer takes at most half of it"),
    };
    let message = format!("{place} answered with more than {bound} bytes; ask for smaller pages or raise {raise}");
    failure("response_too_large", message, false)
}

fn no_room(request: &Outgoing, room: &Room) -> Failure {
    let (place, bytes) = (shown(&request.url), room.bytes());
    let advice = "ask for smaller pages, less at once, or raise egress.answers_mb in the settings";
    let message = format!("{place}: the {bytes} bytes that all answers share are taken; {advice}");
    failure("no_room_for_answer", message, true)
}

fn blocked(url: &Url, why: &Blocked) -> Failure {
    match why {
        Blocked::Scheme(_) | Blocked::UserInfo | Blocked::NoHost => failure("bad_url", why.to_string(), false),
        Blocked::Address { .. } | Blocked::Port { .. } => {
            failure("egress_blocked", format!("{}: {why}", shown(url)), false)
        }
    }
}

pub(super) fn broken(url: &Url, error: reqwest::Error) -> Failure {
    let place = shown(url);
    let code = if error.is_timeout() { "timeout" } else { "network" };
    let error = error.without_url();
    // The cause that helps ("connection refused", "certificate expired") stands at the end of the chain.
    let mut deepest: &dyn std::error::Error = &error;
    while let Some(cause) = deepest.source() {
        if let Some(why) = cause.downcast_ref::<Blocked>() {
            return blocked(url, why);
        }
        deepest = cause;
    }
    failure(code, format!("{place}: {error}: {deepest}"), true)
}
