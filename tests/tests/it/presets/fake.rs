//! A provider that is none: items of its streams in memory, answered by what a [`Provider`] says of their form.

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Request, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::Sha256;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::net::TcpListener;

/// Items a page, whatever is asked for: providers may give fewer.
const PAGE: usize = 4;
/// Longest body of a request.
const BODY_MAX: usize = 1 << 20;

/// Something of a stream.
#[derive(Clone, Debug)]
pub struct Item {
    pub id: String,
    pub text: String,
    /// When it was changed last, in seconds.
    pub at: i64,
    pub gone: bool,
}

impl Item {
    /// Its time as most write it.
    pub fn iso(&self) -> String {
        iso(self.at)
    }
}

/// What the provider has.
#[derive(Default)]
pub struct World {
    pub url: String,
    streams: BTreeMap<&'static str, BTreeMap<String, Item>>,
    handed: usize,
}

impl World {
    /// Adds or changes an item.
    pub fn put(&mut self, stream: &'static str, id: &str, text: &str, at: i64) -> Item {
        let item = Item { id: id.to_owned(), text: text.to_owned(), at, gone: false };
        self.streams.entry(stream).or_default().insert(id.to_owned(), item.clone());
        item
    }

    /// Takes an item away; where the provider tells of deleted ones, it can.
    pub fn remove(&mut self, stream: &'static str, id: &str, at: i64) -> Item {
        let item = self.streams.get_mut(stream).and_then(|items| items.get_mut(id)).expect("an item");
        (item.gone, item.at) = (true, at);
        item.clone()
    }

    /// Items that are there, changed since, the oldest change first.
    pub fn live(&self, stream: &str, since: Option<i64>) -> Vec<Item> {
        self.all(stream, since).into_iter().filter(|item| !item.gone).collect()
    }

    /// Those that are gone.
    pub fn gone(&self, stream: &str, since: Option<i64>) -> Vec<Item> {
        self.all(stream, since).into_iter().filter(|item| item.gone).collect()
    }

    /// All that were ever there.
    pub fn all(&self, stream: &str, since: Option<i64>) -> Vec<Item> {
        let items = self.streams.get(stream).into_iter().flat_map(BTreeMap::values);
        let mut items: Vec<Item> = items.filter(|item| since.is_none_or(|since| item.at >= since)).cloned().collect();
        items.sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
        items
    }

    pub fn get(&self, stream: &str, id: &str) -> Option<&Item> {
        self.streams.get(stream)?.get(id).filter(|item| !item.gone)
    }

    /// A page of `items` from a place on, and the next place if there is one.
    pub fn page(&mut self, items: &[Item], from: usize) -> (Vec<Item>, Option<usize>) {
        let page: Vec<Item> = items.iter().skip(from).take(PAGE).cloned().collect();
        self.handed += page.len();
        let next = from + PAGE;
        (page, (next < items.len()).then_some(next))
    }

    /// Items handed out in pages since the last question.
    pub fn handed(&mut self) -> usize {
        std::mem::take(&mut self.handed)
    }
}

/// A request.
pub struct Call {
    pub method: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Call {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    pub fn param(&self, name: &str) -> &str {
        self.query.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A place that was handed out as a token.
    pub fn place(&self, token: &str) -> usize {
        token.trim_start_matches("place-").parse().unwrap_or_default()
    }

    /// A header has to be this.
    pub fn demand(&self, name: &str, wanted: &str) -> Result<(), String> {
        let found = self.header(name);
        (found == wanted).then_some(()).ok_or_else(|| format!("{} {}: {name}: {found}", self.method, self.path))
    }
}

/// A place as a token.
pub fn token(place: Option<usize>) -> Value {
    place.map_or(Value::Null, |place| format!("place-{place}").into())
}

/// An answer.
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: Value,
}

impl Reply {
    pub fn ok(body: Value) -> Reply {
        Reply::of(200, body)
    }

    pub fn of(status: u16, body: Value) -> Reply {
        Reply { status, headers: Vec::new(), body }
    }

    pub fn with(mut self, name: &'static str, value: impl ToString) -> Reply {
        self.headers.push((name, value.to_string()));
        self
    }
}

/// A webhook as the provider would send it.
pub struct Hook {
    pub stream: &'static str,
    pub item: Item,
    pub number: usize,
}

/// How a delete reaches us without a webhook.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// With the usual run.
    Run,
    /// With a complete list.
    List,
    /// Not at all.
    Never,
}

/// What a stream of a preset has to do.
pub struct StreamCase {
    pub stream: &'static str,
    /// Field of the record that holds the text of the item.
    pub field: &'static str,
    /// The provider's id of the n-th item.
    pub id: fn(usize) -> String,
    /// The usual run asks only for what changed.
    pub incremental: bool,
    pub deletes: Seen,
    /// Whether a webhook tells of changes, and of deletes.
    pub hooks: [bool; 2],
}

/// The form of a provider.
pub trait Provider: Send + Sync + 'static {
    fn preset(&self) -> &'static str;
    /// Credentials of a connection, as they stand in its definition; `file:token` is a secret.
    fn credentials(&self) -> &'static str;
    fn streams(&self) -> Vec<StreamCase>;
    /// What every request has to carry.
    fn demand(&self, call: &Call) -> Result<(), String>;
    fn answer(&self, call: &Call, world: &mut World) -> Reply;
    /// The answer to one request too many, by which the next one is let in after a second or two.
    fn limited(&self) -> Reply;
    /// Body and headers of a webhook, unsigned.
    fn hook(&self, hook: &Hook) -> (String, Vec<(&'static str, String)>);
    /// The headers that prove one.
    fn sign(&self, url: &str, body: &str, secret: &str) -> Vec<(&'static str, String)>;
    /// The record's id where it is another than the item's.
    fn key(&self, _stream: &str, id: &str) -> String {
        id.to_owned()
    }
    /// More of the definition.
    fn more(&self) -> &'static str {
        ""
    }
    /// Items of another stream that divide this one, and are listed at each run.
    fn partitions(&self, _stream: &str) -> usize {
        0
    }
}

/// A request that was answered.
#[derive(Clone)]
pub struct Asked {
    pub what: String,
    pub at: Instant,
    pub limited: bool,
}

/// The running server.
pub struct Fake {
    pub provider: Box<dyn Provider>,
    pub world: Mutex<World>,
    pub asked: Mutex<Vec<Asked>>,
    /// The next page is refused for a limit.
    pub limits: Mutex<bool>,
    /// Requests that did not carry what they have to, or that nobody knows.
    pub faults: Mutex<Vec<String>>,
}

impl Fake {
    pub async fn start(provider: Box<dyn Provider>) -> Arc<Fake> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let fake = Arc::new(Fake {
            provider,
            world: Mutex::new(World { url, ..World::default() }),
            asked: Mutex::default(),
            limits: Mutex::default(),
            faults: Mutex::default(),
        });
        let router = Router::new().fallback(answer).with_state(fake.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        fake
    }

    fn reply(&self, call: &Call) -> Reply {
        if let Err(why) = self.provider.demand(call) {
            self.faults.lock().push(why);
            return Reply::of(401, json!({"error": "who are you?"}));
        }
        let mut world = self.world.lock();
        let before = world.handed;
        let reply = self.provider.answer(call, &mut world);
        let limited = world.handed > before && std::mem::take(&mut *self.limits.lock());
        let what = format!("{} {:?} {}", call.path, call.query, call.body);
        self.asked.lock().push(Asked { what: what.clone(), at: Instant::now(), limited });
        if limited {
            world.handed = before;
            return self.provider.limited();
        }
        if reply.status == 400 || reply.status == 501 {
            self.faults.lock().push(format!("{} {what}: {}", call.method, reply.body));
        }
        reply
    }
}

/// The answer of a fake to what it does not know.
pub fn unknown() -> Reply {
    Reply::of(501, json!({"error": "the fake does not know this"}))
}

async fn answer(State(fake): State<Arc<Fake>>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let bytes = to_bytes(body, BODY_MAX).await.expect("a body");
    let query = url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes());
    let call = Call {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        query: query.map(|(name, value)| (name.into_owned(), value.into_owned())).collect(),
        headers: parts.headers,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
    };
    let reply = fake.reply(&call);
    let status = StatusCode::from_u16(reply.status).expect("a status");
    let mut response = (status, axum::Json(reply.body)).into_response();
    for (name, value) in reply.headers {
        response.headers_mut().append(name, value.parse().expect("a header"));
    }
    response
}

/// Seconds since 1970.
pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() as i64
}

/// The time in RFC 3339.
pub fn iso(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).expect("in range").strftime("%Y-%m-%dT%H:%M:%S.000Z").to_string()
}

/// Seconds of such a time.
pub fn seconds(iso: &str) -> i64 {
    iso.parse::<jiff::Timestamp>().unwrap_or_else(|why| panic!("{iso}: {why}")).as_second()
}

fn hmac(secret: &str, text: &str) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("a key");
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

pub fn hmac_hex(secret: &str, text: &str) -> String {
    hmac(secret, text).iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn hmac_base64(secret: &str, text: &str) -> String {
    STANDARD.encode(hmac(secret, text))
}
