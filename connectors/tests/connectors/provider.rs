//! A provider on a free port that answers as a closure says, and a bench that reads it through a definition.
// Each test program uses its part of it.
#![allow(dead_code)]

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::IntoResponse;
use futures_util::FutureExt;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use syncline_connectors::definition::{Definition, parse};
use syncline_connectors::egress::Egress;
use syncline_connectors::http::limits::RequestPriority;
use syncline_connectors::http::{Client, ClientOptions};
use syncline_connectors::rest::{Credentials, RestSource, SourceState, notes::Forgetful};
use syncline_engine::model::{DatasetName, Timestamp};
use syncline_engine::source::{Ask, Bookmark, Connection, End, Failure, Page, Part, Source};
use syncline_engine::time::{Clock, ManualClock};

/// Pages read before a test is said to hang.
const PAGES_MAX: usize = 300;

pub fn at(text: &str) -> Timestamp {
    Timestamp::parse(text).expect("a time")
}

/// A request as the provider got it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub method: String,
    pub path: String,
    pub raw_query: String,
    pub query: BTreeMap<String, String>,
    pub headers: axum::http::HeaderMap,
    pub body: Value,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<String> {
        self.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_string)
    }
}

#[derive(Clone, Debug)]
pub struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    pub body: String,
    /// In place of the body, where that is no text.
    bytes: Option<Vec<u8>>,
}

pub fn reply(body: impl Into<Value>) -> Reply {
    Reply::text(200, &body.into().to_string())
}

impl Reply {
    pub fn text(status: u16, body: &str) -> Reply {
        Reply { status, headers: Vec::new(), body: body.to_string(), bytes: None }
    }

    pub fn bytes(kind: &str, bytes: impl Into<Vec<u8>>) -> Reply {
        Reply { bytes: Some(bytes.into()), ..Reply::text(200, "") }.with("content-type", kind)
    }

    pub fn status(self, status: u16) -> Reply {
        Reply { status, ..self }
    }

    pub fn with(mut self, name: &str, value: &str) -> Reply {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }
}

type Answer = dyn Fn(&Asked) -> Reply + Send + Sync;

#[derive(Clone)]
pub struct Provider {
    base: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    answer: Arc<Answer>,
}

impl Provider {
    pub async fn start(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Provider {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let base = format!("http://{}", listener.local_addr().expect("an address"));
        let provider = Provider { base, asked: Arc::default(), answer: Arc::new(answer) };
        let router = Router::new().fallback(handle).with_state(provider.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        provider
    }

    pub fn base(&self) -> &str {
        &self.base
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("lock").clone()
    }
}

async fn handle(State(provider): State<Provider>, request: Request) -> axum::response::Response {
    let (parts, body) = request.into_parts();
    let body: Bytes = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let raw_query = parts.uri.query().unwrap_or_default().to_string();
    let query = url::form_urlencoded::parse(raw_query.as_bytes()).into_owned().collect();
    let asked = Asked {
        method: parts.method.to_string(),
        path: parts.uri.path().to_string(),
        raw_query,
        query,
        headers: parts.headers,
        body: serde_json::from_slice(&body).unwrap_or(Value::Null),
    };
    let reply = (provider.answer)(&asked);
    provider.asked.lock().expect("lock").push(asked);
    let status = axum::http::StatusCode::from_u16(reply.status).expect("a status");
    let mut response = match reply.bytes {
        Some(bytes) => (status, bytes).into_response(),
        None => (status, reply.body).into_response(),
    };
    if reply.headers.iter().any(|(name, _)| name == "content-type") {
        response.headers_mut().remove("content-type");
    }
    for (name, value) in reply.headers {
        let name: axum::http::HeaderName = name.parse().expect("a name");
        // Not parsed from text: providers send other bytes than ASCII, too.
        let value = axum::http::HeaderValue::from_bytes(value.as_bytes()).expect("a value");
        response.headers_mut().append(name, value);
    }
    response
}

/// Notes in memory.
#[derive(Default)]
pub struct Book {
    notes: Mutex<HashMap<String, Vec<u8>>>,
    records: Mutex<HashMap<String, Vec<Value>>>,
}

impl Book {
    pub fn put_records(&self, stream: &str, records: Vec<Value>) {
        self.records.lock().expect("lock").insert(stream.to_string(), records);
    }

    /// How many notes begin so.
    pub fn kept(&self, prefix: &str) -> usize {
        self.notes.lock().expect("lock").keys().filter(|key| key.starts_with(prefix)).count()
    }

    fn take(&self, page: &Page) {
        let mut notes = self.notes.lock().expect("lock");
        for (key, value) in &page.notes {
            match value.is_empty() {
                true => _ = notes.remove(key),
                false => _ = notes.insert(key.clone(), value.clone()),
            }
        }
    }
}

impl SourceState for Book {
    fn note(&self, _: &DatasetName, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        Ok(self.notes.lock().expect("lock").get(key).cloned())
    }

    fn records(
        &self,
        dataset: &DatasetName,
        _: Option<Timestamp>,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), Failure> {
        let records = self.records.lock().expect("lock");
        for record in records.get(&*dataset.model).into_iter().flatten() {
            if !each(record.to_string().as_bytes()) {
                break;
            }
        }
        Ok(())
    }
}

/// A listing as it was read.
#[derive(Debug, Default)]
pub struct Read {
    pub pages: Vec<Page>,
    pub next: Option<Bookmark>,
    pub end: Option<End>,
    pub failed: Option<Failure>,
}

impl Read {
    pub fn ids(&self) -> Vec<String> {
        self.pages.iter().flat_map(|page| &page.observations).map(|seen| seen.id.clone()).collect()
    }

    pub fn failure(&self) -> &Failure {
        self.failed.as_ref().unwrap_or_else(|| panic!("it did not fail: {:?}", self.end))
    }

    pub fn failure_after_one(&self) -> &Failure {
        self.failure()
    }
}

#[derive(Clone)]
pub struct Bench {
    pub provider: Provider,
    pub clock: Arc<ManualClock>,
    pub notes: Arc<Book>,
    definition: Arc<Definition>,
    source: Arc<RestSource>,
    connection: Connection,
    client: Client,
}

impl Bench {
    pub async fn new(definition: &str, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Bench {
        Bench::over(definition, Provider::start(answer).await, true)
    }

    /// One that does not allow `http:`.
    pub async fn strict(definition: &str, answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Bench {
        Bench::over(definition, Provider::start(answer).await, false)
    }

    pub fn over(definition: &str, provider: Provider, allow_http: bool) -> Bench {
        let clock = Arc::new(ManualClock::new(at("2026-01-01T00:00:00Z")));
        let options = ClientOptions { allow_http, egress: Egress::loopback(), ..ClientOptions::default() };
        let client = Client::new(options, clock.clone()).expect("a client");
        let definition = define(definition);
        // Under /v1 where the definition has it, so that the base keeps its own path.
        let base = definition.base_url.text(&Default::default()).expect("a base");
        let path = if base.ends_with("/v1") { "/v1" } else { "" };
        let connection = Connection {
            environment: "default".into(),
            id: "me".into(),
            base_url: Some(format!("{}{path}", provider.base)),
            ..Connection::default()
        };
        let notes = Arc::new(Book::default());
        let source = source(&definition, &client, &clock, notes.clone());
        Bench { provider, clock, notes, definition, source, connection, client }
    }

    /// The same, asking for credentials at each request.
    pub fn signed_by(&self, credentials: Arc<dyn Credentials>) -> Bench {
        let source =
            RestSource::new(self.definition.clone(), self.client.clone(), self.clock.clone(), self.notes.clone());
        Bench { source: Arc::new(source.expect("a source").with_credentials(credentials)), ..self.clone() }
    }

    pub fn at(&self, base: &str) -> Bench {
        let connection = Connection { base_url: Some(base.to_string()), ..self.connection.clone() };
        Bench { connection, ..self.clone() }
    }

    /// With a token, of credentials that are called `id`.
    pub fn token(&self, token: &str, id: &str) -> Bench {
        let mut connection = Connection { credentials_id: id.to_owned(), ..self.connection.clone() };
        connection.credentials.insert("token".to_owned(), token.into());
        Bench { connection, ..self.clone() }
    }

    pub fn metadata(&self, metadata: Value) -> Bench {
        Bench { connection: Connection { metadata, ..self.connection.clone() }, ..self.clone() }
    }

    pub fn partitions(&self, partitions: BTreeMap<String, Vec<String>>) -> Bench {
        Bench { connection: Connection { partitions, ..self.connection.clone() }, ..self.clone() }
    }

    /// Another process over the same notes.
    pub fn restarted(&self) -> Bench {
        Bench { source: source(&self.definition, &self.client, &self.clock, self.notes.clone()), ..self.clone() }
    }

    /// Another process that finds no notes.
    pub fn forgetful(&self) -> Bench {
        Bench { source: source(&self.definition, &self.client, &self.clock, Arc::new(Forgetful)), ..self.clone() }
    }

    /// The same with another definition.
    pub fn redefined(&self, definition: &str) -> Bench {
        let definition = define(definition);
        Bench { source: source(&definition, &self.client, &self.clock, self.notes.clone()), definition, ..self.clone() }
    }

    pub fn ask(&self, part: Part) -> Ask {
        Ask {
            stream: "Thing".into(),
            connection: Arc::new(self.connection.clone()),
            variant: "base".into(),
            part,
            started_at: self.clock.now(),
        }
    }

    pub async fn poll(&self, ask: &Ask, after: Option<&Bookmark>) -> Result<Page, Failure> {
        self.source.poll(ask, after).await
    }

    pub async fn fetch(&self, part: Part, keys: &[&str]) -> Result<Page, Failure> {
        let keys: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
        self.source.fetch(&self.ask(part), &keys).await
    }

    /// Whether no request of the connection may leave now.
    pub fn is_held(&self) -> bool {
        self.source.budget(&self.connection).enter("GET", "/", RequestPriority::Fetch).now_or_never().is_none()
    }

    pub async fn check(&self) -> Result<Option<Value>, Failure> {
        Ok(self.source.check(&Arc::new(self.connection.clone())).await?.map(Value::Object))
    }

    pub async fn read(&self, part: Part) -> Read {
        self.read_pages(part, None, PAGES_MAX).await
    }

    pub async fn read_from(&self, part: Part, after: Option<Bookmark>) -> Read {
        self.read_pages(part, after, PAGES_MAX).await
    }

    /// Reads at most so many pages.
    pub async fn read_pages(&self, part: Part, after: Option<Bookmark>, most: usize) -> Read {
        let ask = self.ask(part);
        let mut read = Read { next: after, ..Read::default() };
        for _ in 0..most {
            let page = match self.poll(&ask, read.next.as_ref()).await {
                Ok(page) => page,
                Err(failure) => return Read { failed: Some(failure), ..read },
            };
            self.notes.take(&page);
            read.next = page.next.clone();
            read.end = page.end.clone();
            read.pages.push(page);
            if read.next.is_none() {
                assert!(read.end.is_some(), "the last page says so");
                return read;
            }
        }
        assert!(most < PAGES_MAX, "it goes on for ever");
        read
    }
}

fn source(
    definition: &Arc<Definition>,
    client: &Client,
    clock: &Arc<ManualClock>,
    notes: Arc<dyn SourceState>,
) -> Arc<RestSource> {
    let source = RestSource::new(definition.clone(), client.clone(), clock.clone(), notes);
    Arc::new(source.expect("a source"))
}

pub fn define(text: &str) -> Arc<Definition> {
    match parse("test.yaml", text, &|_| Ok("secret".to_string())) {
        Ok((definition, _)) => Arc::new(definition),
        Err(complaints) => panic!("{text}\n{}", complaints.iter().map(|c| format!("{c:?}\n")).collect::<String>()),
    }
}
