//! Webhooks in and out, through the doors the program uses: a request is proven, stored, answered, processed; a delivery is
//! owed, tried, tried again. Time is turned by hand.

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use syncline::admission::{Bounds, Ingress};
use syncline::api::hooks;
use syncline::config::{Endpoint, Settings};
use syncline::ingest::webhooks::{Hooks, HooksParts, Incoming, Reply};
use syncline::keyspaces;
use syncline::registry::connections::{AccountKey, Connections};
use syncline::registry::definitions::Definitions;
use syncline::registry::sources::Sources;
use syncline::server;
use syncline::sinks::deliveries::{Announcer, Outbox};
use syncline_connectors::definition::{Definition, parse};
use syncline_connectors::deliveries::{Post, ReceiverAnswer, Unsent};
use syncline_connectors::egress::Egress;
use syncline_connectors::http::{Client, ClientOptions};
use syncline_connectors::rest::RestSource;
use syncline_connectors::rest::notes::Forgetful;
use syncline_engine::Engine;
use syncline_engine::model::{Action, Cause, DatasetName, Timestamp, Via};
use syncline_engine::pipeline::{Batch, Dataset, Keyspace, Mark, Options};
use syncline_engine::source::{Ask, Body, Bookmark, Failure, Observation, Page, Quarantined, Retry, Source};
use syncline_engine::time::{Clock, ManualClock};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const START: i64 = 1_700_000_000;

const APP: &str = r#"
source: crm
base_url: https://crm.example
auth: {type: none}
streams:
  - name: Contact
    key: .id
    modified_at: .updatedAt
    list: {get: /contacts}
    fetch: {get: "/contacts/{{ key }}"}
    map: {id: .id, email: .properties.email, phone: .properties.phone, updatedAt: .updatedAt}
webhooks:
  verify: {scheme: shared_secret, header: X-Token, secret: "env:SECRET"}
  events: .[]
  route: .portal
  type: .kind
  dedupe: .eventId
  order_by: .at
  map:
    - {when: '$type == "changed"', stream: Contact, key: .objectId, at: .at,
       patch: {"properties.{{ .name }}": .value}}
    - {when: '$type == "gone"', stream: Contact, key: .objectId, at: .at, delete: true}
    - {when: '$type == "hint"', stream: Contact, key: .objectId, hydrate: {debounce: {quiet: 2s, max_wait: 5s}}}
    - {when: '$type == "whole"', stream: Contact, record: .record}
connections:
  acme: {metadata: {portal: 7}}
  other: {metadata: {portal: 8}}
"#;

fn definition(text: &str) -> Arc<Definition> {
    match parse("test.yaml", text, &|_| Ok("s3cret".to_owned())) {
        Ok((definition, _)) => Arc::new(definition),
        Err(complaints) => panic!("{complaints:?}"),
    }
}

/// A provider that answers `fetch` with what is in its table: a text there is a record that cannot be taken, null a refusal.
#[derive(Default)]
struct Provider {
    records: Mutex<BTreeMap<String, Value>>,
    asked: Mutex<Vec<Vec<String>>>,
    fails: AtomicU64,
    /// Asked in place of the table.
    outside: OnceLock<RestSource>,
}

#[async_trait]
impl Source for Provider {
    async fn poll(&self, _: &Ask, _: Option<&Bookmark>) -> Result<Page, Failure> {
        Ok(Page::default())
    }

    async fn fetch(&self, ask: &Ask, keys: &[String]) -> Result<Page, Failure> {
        self.asked.lock().expect("lock").push(keys.to_vec());
        if let Some(outside) = self.outside.get() {
            return outside.fetch(ask, keys).await;
        }
        if self.fails.load(Ordering::SeqCst) > 0 {
            self.fails.fetch_sub(1, Ordering::SeqCst);
            let message = "down".to_owned();
            return Err(Failure { code: "http_status", message, status: Some(500), retry: true, retry_after: None });
        }
        let records = self.records.lock().expect("lock");
        let mut page = Page::default();
        for (id, record) in keys.iter().filter_map(|key| Some((key.clone(), records.get(key)?))) {
            match record {
                Value::Null => {
                    let message = "no".to_owned();
                    return Err(Failure { code: "refused", message, status: None, retry: false, retry_after: None });
                }
                Value::String(text) => {
                    let (id, message, item) = (Some(id), text.clone(), String::new());
                    page.quarantined.push(Quarantined { code: "bad_record", message, id, item });
                }
                record => {
                    let (modified_at, observed_at) = (Some(ask.started_at), ask.started_at);
                    let body = Body::Whole(record.to_string());
                    page.observations.push(Observation { id, modified_at, observed_at, body });
                }
            }
        }
        Ok(page)
    }

    fn retry(&self) -> Retry {
        Retry { max: 3, from: Duration::from_secs(1), to: Duration::from_secs(10), jitter: false }
    }
}

struct Bench {
    dir: tempfile::TempDir,
    clock: Arc<ManualClock>,
    definition: Arc<Definition>,
    provider: Arc<Provider>,
    engine: Engine,
    connections: Arc<Connections>,
    hooks: Hooks,
    endpoints: BTreeMap<String, Endpoint>,
}

impl Bench {
    async fn new(text: &str, endpoints: &[&str]) -> Bench {
        let endpoint = |url: &str| Endpoint {
            environment: "default".into(),
            url: url.to_owned(),
            secrets: vec!["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw".to_owned()],
            sync_always: false,
            on_sync_error: true,
            schedule: Vec::new(),
            legacy_signature: false,
        };
        let endpoints =
            endpoints.iter().map(|name| (name.to_string(), endpoint(&format!("https://{name}.example/")))).collect();
        let dir = tempfile::tempdir().expect("folder");
        let clock = Arc::new(ManualClock::new(Timestamp::from_seconds(START)));
        Self::open(dir, clock, definition(text), Arc::default(), endpoints).await
    }

    async fn open(
        dir: tempfile::TempDir,
        clock: Arc<ManualClock>,
        definition: Arc<Definition>,
        provider: Arc<Provider>,
        endpoints: BTreeMap<String, Endpoint>,
    ) -> Bench {
        let definitions = Definitions::from_iter([(definition.source.clone(), definition.clone())]);
        let announcer = Arc::new(Announcer::new(&endpoints, &definitions));
        let options = Options {
            data_dir: Some(dir.path().to_owned()),
            workers: 1,
            clock: clock.clone(),
            announce: Some(announcer.clone()),
            ..Options::default()
        };
        let engine = Engine::open(options).expect("engine");
        let connections = Arc::new(Connections::open(engine.clone(), &definitions).await.expect("connections"));
        announcer.attach(engine.cursor_key(), connections.clone());
        let mut settings = Settings::default();
        settings.extensions.sources.insert(definition.source.clone(), provider.clone());
        let sources = Sources::open(&settings, &definitions, &engine, connections.clone()).expect("sources");
        let hooks = Hooks::open(HooksParts {
            bounds: Arc::new(Bounds::new(Ingress::default())),
            engine: engine.clone(),
            programs: Default::default(),
            sources,
            definitions,
            connections: connections.clone(),
            public_url: Some("https://hooks.example".to_owned()),
            environments: Vec::new(),
            other_shards: None,
        })
        .expect("hooks");
        Bench { dir, clock, definition, provider, engine, connections, hooks, endpoints }
    }

    /// Stops the engine and opens everything again on the same folder.
    async fn again(self) -> Bench {
        let Bench { dir, clock, definition, provider, engine, connections, hooks, endpoints } = self;
        engine.stop().await.expect("stops");
        drop((engine, connections, hooks));
        Self::open(dir, clock, definition, provider, endpoints).await
    }

    /// Posts with the right secret.
    async fn post(&self, body: &Value) -> Reply {
        self.post_as("s3cret", body).await
    }

    async fn post_as(&self, secret: &str, body: &Value) -> Reply {
        self.send(secret, "", &body.to_string()).await
    }

    /// Posts bytes of some type with the right secret.
    async fn deliver(&self, kind: &str, body: Vec<u8>) -> Reply {
        let url = self.hooks.urls(&self.definition.source).remove(0);
        let path = url.strip_prefix("https://hooks.example").expect("public URL").to_owned();
        let entrance = self.hooks.find(&path).expect("path");
        let headers = [("x-token", "s3cret"), ("content-type", kind)];
        let headers = headers.iter().map(|(k, v)| (k.parse().expect("name"), v.parse().expect("value"))).collect();
        let request = Incoming { method: "POST".into(), path, headers, body: body.into(), ..Incoming::default() };
        self.hooks.receive(&entrance, request).await
    }

    async fn send(&self, secret: &str, query: &str, body: &str) -> Reply {
        let url = self.hooks.urls(&self.definition.source).remove(0);
        let path = url.strip_prefix("https://hooks.example").expect("public URL").to_owned();
        let entrance = self.hooks.find(&path).expect("path");
        let headers = [("x-token", secret), ("content-type", "application/json"), ("authorization", "Bearer no")];
        let headers = headers.iter().map(|(k, v)| (k.parse().expect("name"), v.parse().expect("value"))).collect();
        let (query, body) = (query.to_owned(), body.to_owned().into());
        self.hooks.receive(&entrance, Incoming { method: "POST".into(), path, query, headers, body, from: None }).await
    }

    /// Posts and processes.
    async fn take(&self, body: &Value) {
        assert_eq!(self.post(body).await.status, 200);
        self.hooks.catch_up().await.expect("processes");
    }

    /// Reads again what hints were about, until none is left. The clock stands meanwhile: requests have their time by it.
    async fn hydrate(&self) {
        self.clock.advance(Duration::from_secs(10));
        let stop = CancellationToken::new();
        let running = tokio::spawn({
            let (hooks, stop) = (self.hooks.clone(), stop.clone());
            async move { hooks.run(stop).await }
        });
        until("no hints left", || async { self.engine.marks(keyspaces::REFETCH, &[]).expect("reads").is_empty() })
            .await;
        stop.cancel();
        running.await.expect("ends").expect("well");
    }

    fn dataset(&self, connection: &str) -> Dataset {
        self.engine.find(&DatasetName::base("default", "crm", connection, "Contact")).expect("dataset")
    }

    async fn record(&self, connection: &str, id: &str) -> Option<(Action, Value, Cause)> {
        let record = self.engine.record(&self.dataset(connection), id).await.expect("reads")?;
        Some((record.meta.action, serde_json::from_slice(&record.payload).expect("json"), record.meta.cause))
    }

    /// A polled page with one record.
    async fn polled(&self, run: u64, record: &Value, modified: i64) {
        let dataset = self.dataset("acme");
        let mut page = self.engine.page(&dataset);
        let at = Timestamp::from_seconds(modified);
        page.save(record["id"].as_str().expect("id"), Some(at), self.clock.now(), record.to_string().as_bytes());
        let batch = Batch { cause: Some(Cause::run(run)), pages: vec![page], ..Batch::default() };
        self.engine.commit(batch).await.expect("commits");
    }

    /// Codes and record ids of what was kept aside.
    fn kept(&self) -> Vec<(String, Option<String>)> {
        let kept = self.engine.marks(Keyspace::QUARANTINE, &[]).expect("reads").into_iter();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        kept.map(|(_, value)| {
            let kept: Value = serde_json::from_slice(&value).expect("json");
            (text(&kept["code"]).expect("a code"), text(&kept["id"]))
        })
        .collect()
    }

    fn log_end(&self) -> u64 {
        *self.engine.log().end().borrow()
    }
}

fn whole(event: &str, id: &str, email: &str, at: i64) -> Value {
    let record = json!({"id": id, "updatedAt": at, "properties": {"email": email, "phone": "1"}});
    json!({"portal": 7, "kind": "whole", "eventId": event, "at": at, "record": record})
}

fn changed(event: &str, id: &str, name: &str, value: &str, at: i64) -> Value {
    json!({"portal": 7, "kind": "changed", "eventId": event, "objectId": id, "name": name, "value": value, "at": at})
}

fn gone(event: &str, id: &str, at: i64) -> Value {
    json!({"portal": 7, "kind": "gone", "eventId": event, "objectId": id, "at": at})
}

fn hint(event: &str, id: &str) -> Value {
    json!({"portal": 7, "kind": "hint", "eventId": event, "objectId": id})
}

/// Longest wait for other threads, which a busy machine may keep for a while.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets other tasks go on until `done` holds.
async fn until<F: Future<Output = bool>>(what: &str, mut done: impl FnMut() -> F) {
    let began = Instant::now();
    while !done().await {
        assert!(began.elapsed() < PATIENCE, "never: {what}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_becomes_a_record() {
    let bench = Bench::new(APP, &[]).await;
    bench.take(&json!([whole("e1", "1", "a@x", START - 5), whole("e2", "2", "b@x", START - 4)])).await;
    let (action, payload, cause) = bench.record("acme", "1").await.expect("there");
    assert_eq!((action, cause), (Action::Added, Cause::webhook(1)));
    assert_eq!(payload["email"], json!("a@x"));
    assert!(bench.record("acme", "2").await.is_some());
    assert!(bench.engine.find(&DatasetName::base("default", "crm", "other", "Contact")).is_none(), "nobody else's");
    let stored = bench.engine.log().read(0, 1).expect("reads");
    let text = String::from_utf8_lossy(&stored[0].1).into_owned();
    assert!(text.contains("content-type") && !text.contains("Bearer no"), "no secrets in the log");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_proof_leaves_nothing() {
    let bench = Bench::new(APP, &[]).await;
    let body = json!([whole("e1", "1", "a@x", START)]);
    let reply = bench.post_as("wrong", &body).await;
    assert_eq!((reply.status, reply.body.as_str()), (401, "unauthorized"));
    assert_eq!(bench.log_end(), 0);
    assert_eq!(bench.hooks.refused().len(), 1);
    let path = bench.hooks.urls("crm").remove(0).replace("https://hooks.example", "");
    assert!(bench.hooks.find(&path).is_some());
    for wrong in
        [format!("{path}x"), path[..path.len() - 1].to_owned(), path.replace("/crm/", "/other/"), "/hooks/crm".into()]
    {
        assert_eq!(bench.hooks.find(&wrong), None, "{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_come_before_everything() {
    let bench = Bench::new(APP, &[]).await;
    let path = bench.hooks.urls("crm").remove(0).replace("https://hooks.example", "");
    let entrance = bench.hooks.find(&path).expect("path");
    let post = |name: &'static str, value: String, size: usize| {
        let headers = [(name.parse().expect("name"), value.parse().expect("value"))].into_iter().collect();
        let body = vec![b' '; size].into();
        bench.hooks.receive(&entrance, Incoming { method: "POST".into(), headers, body, ..Incoming::default() })
    };
    assert_eq!(post("content-encoding", "gzip".into(), 1).await.status, 415);
    assert_eq!(post("content-length", "6000000".into(), 1).await.status, 413);
    assert_eq!(post("x-token", "s3cret".into(), (5 << 20) + 1).await.status, 413);
    assert_eq!(post("x-long", "x".repeat(40_000), 1).await.status, 431);
    assert_eq!(post("content-encoding", "identity".into(), 1).await.status, 401);
    assert_eq!(bench.log_end(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_delivery_changes_nothing() {
    let bench = Bench::new(APP, &[]).await;
    let body = json!([whole("e1", "1", "a@x", START)]);
    bench.take(&body).await;
    let before = bench.engine.record(&bench.dataset("acme"), "1").await.expect("reads").expect("there").meta;
    bench.take(&json!([whole("e1", "1", "changed without a new id", START + 1)])).await;
    let bench = bench.again().await;
    bench.take(&body).await;
    let after = bench.engine.record(&bench.dataset("acme"), "1").await.expect("reads").expect("there").meta;
    assert_eq!(before, after);
    assert_eq!(bench.hooks.tally().duplicates.load(Ordering::SeqCst), 1);
    // Two copies on their way at the same time are told apart as well.
    let twice = json!([whole("e2", "2", "a@x", START)]);
    assert_eq!((bench.post(&twice).await.status, bench.post(&twice).await.status), (200, 200));
    bench.hooks.catch_up().await.expect("processes");
    assert_eq!(bench.hooks.tally().duplicates.load(Ordering::SeqCst), 2);
    // After eight days an id may come again.
    bench.clock.advance(Duration::from_secs(9 * 24 * 3600));
    bench.take(&json!([whole("e1", "1", "late@x", START + 10)])).await;
    assert_eq!(bench.record("acme", "1").await.expect("there").1["email"], json!("late@x"));
}

/// An id is used up by the very commit of what it brought.
#[tokio::test(flavor = "multi_thread")]
async fn however_processing_is_cut_off_every_event_is_taken_once() {
    for turns in 0..8 {
        let bench = Bench::new(APP, &[]).await;
        for n in 0..3 {
            let event = whole(&format!("e{n}"), &n.to_string(), "a@x", START);
            assert_eq!(bench.post(&json!([event])).await.status, 200);
        }
        {
            let mut work = std::pin::pin!(bench.hooks.catch_up());
            for _ in 0..turns {
                if futures_util::poll!(&mut work).is_ready() {
                    break;
                }
                // What it waits for was handed over before this, and is through when this is.
                let marks = vec![Mark::put(keyspaces::SETTING, &["turn"], "")];
                bench.engine.commit(Batch { marks, ..Batch::default() }).await.expect("commits");
            }
        }
        let bench = bench.again().await;
        bench.hooks.catch_up().await.expect("processes");
        for n in 0..3 {
            let there = bench.record("acme", &n.to_string()).await;
            let there = there.unwrap_or_else(|| panic!("cut off after {turns} turns, event {n} of 3 is lost"));
            assert_eq!(there.0, Action::Added, "event {n} came twice");
        }
    }
}

/// A provider that says everything in the query and gives no id.
const PINGS: &str = r#"
source: crm
base_url: https://crm.example
auth: {type: none}
streams:
  - name: Contact
    key: .id
    list: {get: /contacts}
webhooks:
  verify: {scheme: shared_secret, header: X-Token, secret: "env:SECRET"}
  route: {value: $q.portal, field: portal}
  map:
    - {stream: Contact, record: "{id: $q.id}"}
connections:
  acme: {metadata: {portal: 7}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn without_ids_a_repeat_is_a_request_with_the_same_query() {
    let bench = Bench::new(PINGS, &[]).await;
    for query in ["portal=7&id=5", "portal=7&id=6", "portal=7&id=5"] {
        assert_eq!(bench.send("s3cret", query, "").await.status, 200);
    }
    bench.hooks.catch_up().await.expect("processes");
    assert!(bench.record("acme", "5").await.is_some());
    assert!(bench.record("acme", "6").await.is_some());
    assert_eq!(bench.hooks.tally().duplicates.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn how_long_a_hash_stands_in_counts_from_receipt() {
    let bench = Bench::new(PINGS, &[]).await;
    let half_an_hour = Duration::from_secs(30 * 60);
    for id in ["a", "b", "a"] {
        assert_eq!(bench.send("s3cret", &format!("portal=7&id={id}"), "").await.status, 200);
        bench.clock.advance(half_an_hour);
    }
    // Received a minute apart, processed as late as the others.
    for _ in 0..2 {
        bench.clock.advance(Duration::from_secs(60));
        assert_eq!(bench.send("s3cret", "portal=7&id=c", "").await.status, 200);
    }
    bench.clock.advance(half_an_hour);
    bench.hooks.catch_up().await.expect("processes");
    assert_eq!(bench.hooks.tally().duplicates.load(Ordering::SeqCst), 1, "of c alone");
    let minute = format!("{:012}", bench.clock.now().seconds() / 60);
    let lists = bench.engine.marks(keyspaces::DEDUPE, &["#"]).expect("reads");
    assert!(lists.len() == 4 && lists.iter().all(|(key, _)| key[0] > minute), "where the sweep is yet to come");
}

/// A provider whose objects have no modified time, only its events have one, as Stripe's.
const DATED: &str = r#"
source: crm
base_url: https://crm.example
auth: {type: none}
streams:
  - name: Contact
    key: .id
    list: {get: /contacts}
webhooks:
  verify: {scheme: shared_secret, header: X-Token, secret: "env:SECRET"}
  route: .account
  dedupe: .id
  map:
    - {when: '.type == "deleted"', stream: Contact, key: .object.id, at: .created, delete: true}
    - {when: '.type == "set"', stream: Contact, key: .object.id, at: .created, patch: {"{{ .field }}": .value}}
    - {stream: Contact, record: .object, at: .created}
connections:
  acme: {metadata: {account: 7}}
"#;

/// Events of one record, and what readers see of it.
struct Dated(Bench, u64);

impl Dated {
    async fn new() -> Dated {
        Dated(Bench::new(DATED, &[]).await, 0)
    }

    async fn event(&mut self, what: Value) {
        self.1 += 1;
        let mut event = json!({"account": 7, "id": format!("e{}", self.1)});
        event.as_object_mut().expect("an object").extend(what.as_object().expect("an object").clone());
        self.0.take(&event).await;
    }

    async fn record(&mut self, status: &str, at: i64) {
        self.event(json!({"created": START + at, "object": {"id": "1", "status": status}})).await;
    }

    async fn gone(&mut self, at: i64) {
        self.event(json!({"type": "deleted", "created": START + at, "object": {"id": "1"}})).await;
    }

    async fn set(&mut self, field: &str, value: &str, at: i64) {
        let object = json!({"id": "1"});
        let event = json!({"type": "set", "created": START + at, "object": object, "field": field, "value": value});
        self.event(event).await;
    }

    /// A page asked for `at` seconds after the start, by a run of its own.
    async fn page(&mut self, status: &str, at: i64) {
        self.1 += 1;
        let dataset = self.0.dataset("acme");
        let mut page = self.0.engine.page(&dataset);
        let text = json!({"id": "1", "status": status}).to_string();
        page.save("1", None, Timestamp::from_seconds(START + at), text.as_bytes());
        let batch = Batch { cause: Some(Cause::run(self.1)), pages: vec![page], ..Batch::default() };
        self.0.engine.commit(batch).await.expect("commits");
    }

    /// Its action and content without the id.
    async fn shown(&self) -> (Action, Value) {
        let (action, mut payload, _) = self.0.record("acme", "1").await.expect("there");
        payload.as_object_mut().expect("an object").shift_remove("id");
        (action, payload)
    }

    async fn again(self) -> Dated {
        Dated(self.0.again().await, self.1)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_event_after_a_newer_one_changes_nothing() {
    let mut it = Dated::new().await;
    it.record("active", 5).await;
    it.record("incomplete", 0).await;
    assert_eq!(it.shown().await, (Action::Added, json!({"status": "active"})));
    it.record("paused", 5).await;
    assert_eq!(it.shown().await, (Action::Updated, json!({"status": "paused"})), "of equal times the later arrival");
    // What it is by a later event of equal content is not undone by one in between.
    it.record("paused", 20).await;
    it = it.again().await;
    it.record("active", 10).await;
    it.gone(19).await;
    assert_eq!(it.shown().await, (Action::Updated, json!({"status": "paused"})));
    it.gone(20).await;
    assert_eq!(it.shown().await.0, Action::Deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_event_does_not_bring_a_deleted_record_back() {
    for known in [true, false] {
        let mut it = Dated::new().await;
        if known {
            it.record("incomplete", -10).await;
        }
        it.gone(5).await;
        it.record("incomplete", 0).await;
        it = it.again().await;
        it.record("incomplete", 4).await;
        let shown = it.0.record("acme", "1").await.map(|(action, ..)| action);
        assert_eq!(shown, known.then_some(Action::Deleted));
        it.gone(9).await;
        it.record("active", 8).await;
        assert_eq!(it.0.record("acme", "1").await.map(|(action, ..)| action), shown, "the later delete counts as well");
        it.record("active", 9).await;
        assert_eq!(it.shown().await, (Action::Added, json!({"status": "active"})));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn older_patches_lose_field_by_field() {
    let mut it = Dated::new().await;
    it.record("new", 0).await;
    it.set("name", "b", 5).await;
    it.set("name", "a", 3).await;
    it.set("mail", "m", 3).await;
    assert_eq!(
        it.shown().await.1,
        json!({"status": "new", "name": "b", "mail": "m"}),
        "another field is another matter"
    );
    it = it.again().await;
    it.set("mail", "l", 2).await;
    it.record("open", 4).await;
    assert_eq!(it.shown().await.1, json!({"status": "open", "name": "b"}), "newer than the mail, older than the name");
    it.set("name", "c", 5).await;
    it.gone(4).await;
    assert_eq!(it.shown().await.1, json!({"status": "open", "name": "c"}), "it was there at 5");
    it.gone(6).await;
    it.record("open", 5).await;
    assert_eq!(it.shown().await.0, Action::Deleted);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_from_well_before_a_page_was_asked_for_is_old() {
    let mut it = Dated::new().await;
    it.record("new", 0).await;
    it.0.clock.advance(Duration::from_secs(600));
    it.page("open", 600).await;
    it.record("draft", 100).await;
    it.gone(500).await;
    it.set("name", "a", 539).await;
    assert_eq!(it.shown().await, (Action::Updated, json!({"status": "open"})), "the page has seen all that");
    it.0.clock.advance(Duration::from_secs(600));
    it.page("open", 1_200).await;
    it = it.again().await;
    it.gone(1_100).await;
    assert_eq!(it.shown().await.0, Action::Updated, "as has a page on which nothing is new");
    // The provider's clock may be behind ours: within a minute the later arrival wins.
    it.record("closed", 1_150).await;
    assert_eq!(it.shown().await.1, json!({"status": "closed"}));
    // The page was asked for before the event came.
    it.page("open", 1_100).await;
    assert_eq!(it.shown().await.1, json!({"status": "closed"}));
}

#[tokio::test(flavor = "multi_thread")]
async fn forms_are_unpacked_whatever_encoding_comes_and_what_no_entry_fits_is_counted() {
    let bench = Bench::new(DATED, &[]).await;
    let event = |n: u32, status: &str| {
        let object = json!({"id": format!("{n}"), "status": status});
        json!({"account": 7, "id": format!("e{n}"), "created": START, "object": object}).to_string()
    };
    let form = |text: &str| {
        let mut url = reqwest::Url::parse("https://form.example").expect("a URL");
        url.query_pairs_mut().append_pair("payload", text);
        url.query().expect("a query").to_owned()
    };
    const FORM: &str = "application/x-www-form-urlencoded";
    let latin = event(5, "é").replace('é', "\u{1}").into_bytes().into_iter().map(|b| if b == 1 { 0xe9 } else { b });
    for (kind, body) in [
        (FORM, form(&event(1, "é")).into_bytes()),
        ("application/x-www-form-urlencoded; charset=utf-8", form(&format!("\u{feff}{}", event(2, "é"))).into_bytes()),
        ("application/json", [b"\xef\xbb\xbf", event(3, "é").as_bytes()].concat()),
        ("application/json; charset=utf-16le", event(4, "é").encode_utf16().flat_map(u16::to_le_bytes).collect()),
        ("application/json; charset=ISO-8859-1", latin.collect()),
    ] {
        assert_eq!(bench.deliver(kind, body).await.status, 200, "{kind}");
    }
    bench.hooks.catch_up().await.expect("processes");
    for id in ["1", "2", "3", "4", "5"] {
        let (_, payload, _) = bench.record("acme", id).await.unwrap_or_else(|| panic!("{id} is not there"));
        assert_eq!(payload["status"], json!("é"), "{id}");
    }
    // Unreadable is one event, and said so.
    assert_eq!(bench.deliver("application/json", b"{\"account\":7,\"id\":\"\xff\"}".to_vec()).await.status, 200);
    assert_eq!(bench.deliver("application/json", b"{\"account\":7,".to_vec()).await.status, 200);
    bench.hooks.catch_up().await.expect("processes");
    let mut codes: Vec<String> = bench.kept().into_iter().map(|(code, _)| code).collect();
    codes.sort();
    assert_eq!(codes, ["bad_body", "unreadable"]);
}

/// A form with fields of its own, and a map that knows only some events.
const FORMS: &str = r#"
source: crm
base_url: https://crm.example
auth: {type: none}
streams:
  - name: Contact
    key: .id
    list: {get: /contacts}
webhooks:
  verify: {scheme: shared_secret, header: X-Token, secret: "env:SECRET"}
  route: .team
  type: .command
  reply: {body: "{{ .challenge }}"}
  map:
    - {when: '$type == "/add"', stream: Contact, record: "{id: .user, tags: .tag, more: (.extra | fromjson)}"}
connections:
  acme: {metadata: {team: t7}}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn a_form_is_its_fields_and_an_event_that_no_entry_fits_is_told_of() {
    let bench = Bench::new(FORMS, &[]).await;
    let form = |body: &str| bench.deliver("application/x-www-form-urlencoded", body.as_bytes().to_vec());
    assert_eq!(form("team=t7&command=%2Fadd&user=u+1&tag=a&tag=b&extra=%7B%22x%22%3A1%7D").await.status, 200);
    for _ in 0..2 {
        assert_eq!(form("team=t7&command=%2Fother&user=u2").await.status, 200);
        bench.clock.advance(Duration::from_secs(3600));
    }
    bench.hooks.catch_up().await.expect("processes");
    let (_, payload, _) = bench.record("acme", "u 1").await.expect("there");
    assert_eq!(payload, json!({"id": "u 1", "tags": ["a", "b"], "more": {"x": 1}}));
    assert_eq!(bench.hooks.tally().unmapped.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_is_answered_with_what_the_request_says() {
    let bench = Bench::new(FORMS, &[]).await;
    let answer = |kind: &'static str, body: &str| bench.deliver(kind, body.as_bytes().to_vec());
    let reply = answer("application/json", r#"{"type":"url_verification","challenge":"3eZbrw1a"}"#).await;
    assert_eq!((reply.status, reply.body.as_str()), (200, "3eZbrw1a"));
    assert_eq!(answer("application/x-www-form-urlencoded", "challenge=a%20b").await.body, "a b");
    for other in [r#"{"team":"t7"}"#, r#"{"challenge":null}"#, r#"{"challenge":{}}"#, "[]", "{", ""] {
        let reply = answer("application/json", other).await;
        assert_eq!((reply.status, reply.body.as_str()), (200, ""), "{other}");
    }
    let long = format!("{{\"challenge\":\"{}\"}}", "x".repeat(100_000));
    assert_eq!(answer("application/json", &long).await.body, "", "no request decides how much is sent");
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_wait_for_a_restart_and_are_processed_once() {
    let bench = Bench::new(APP, &[]).await;
    bench.take(&json!([whole("e0", "0", "a@x", START - 400)])).await;
    for n in 1..=300 {
        assert_eq!(
            bench
                .post(&json!([whole(&format!("e{n}"), &format!("{}", n % 10), &format!("{n}@x"), START - 400 + n)]))
                .await
                .status,
            200
        );
    }
    let bench = bench.again().await;
    bench.hooks.catch_up().await.expect("processes");
    assert_eq!(bench.hooks.processed(), 301);
    for id in 0..10i64 {
        let last = if id == 0 { 300 } else { 290 + id };
        assert_eq!(bench.record("acme", &id.to_string()).await.expect("there").1["email"], json!(format!("{last}@x")));
    }
    assert_eq!(bench.hooks.tally().events.load(Ordering::SeqCst), 300);
    let place = |bench: &Bench| bench.engine.mark(Keyspace::PLACE, &["webhooks"]).expect("reads");
    assert_eq!(place(&bench), Some(b"301".to_vec()));
    let bench = bench.again().await;
    assert_eq!(place(&bench), Some(b"301".to_vec()), "after a restart");
    bench.hooks.catch_up().await.expect("processes");
    assert_eq!(bench.hooks.tally().events.load(Ordering::SeqCst), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_owns_waits_for_its_connection() {
    let bench = Bench::new(APP, &[]).await;
    let mut event = whole("e1", "1", "a@x", START);
    event["portal"] = json!(99);
    bench.take(&json!([event, whole("e2", "2", "b@x", START)])).await;
    assert_eq!(bench.hooks.unrouted("default", "crm").expect("reads"), 1);
    assert_eq!(bench.hooks.reprocess_unrouted("default", "crm").await.expect("runs"), 0);
    let bench = bench.again().await;
    let fields = Map::from_iter([("portal".to_owned(), json!("99"))]);
    bench.connections.set_fields(&AccountKey::new("default", "crm", "other"), &fields).await.expect("sets");
    assert_eq!(bench.hooks.reprocess_unrouted("default", "crm").await.expect("runs"), 1);
    assert_eq!(bench.record("other", "1").await.expect("there").1["email"], json!("a@x"));
    assert_eq!(bench.record("acme", "1").await, None);
    assert_eq!(bench.hooks.unrouted("default", "crm").expect("reads"), 0);
    assert_eq!(bench.hooks.reprocess_unrouted("default", "crm").await.expect("runs"), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_run_again_at_the_start() {
    let bench = Bench::new(APP, &[]).await;
    let mut event = whole("e1", "1", "a@x", START);
    event["portal"] = json!(99);
    bench.take(&json!([event])).await;
    let fields = Map::from_iter([("portal".to_owned(), json!(99))]);
    bench.connections.set_fields(&AccountKey::new("default", "crm", "other"), &fields).await.expect("sets");
    let bench = bench.again().await;
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (hooks, stop) = (bench.hooks.clone(), stop.clone());
        async move { hooks.run(stop).await }
    });
    until("nothing waits", || async { bench.hooks.unrouted("default", "crm").expect("reads") == 0 }).await;
    assert!(bench.record("other", "1").await.is_some());
    stop.cancel();
    running.await.expect("ends").expect("well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_moves_its_own_field_only() {
    let bench = Bench::new(APP, &[]).await;
    bench.take(&json!([whole("e1", "1", "old@x", START - 100)])).await;
    bench.take(&json!([changed("e2", "1", "email", "new@x", START - 10)])).await;
    // A page asked for before the patch, with everything else newer than before.
    bench.polled(1, &json!({"id": "1", "email": "stale@x", "phone": "2", "updatedAt": START - 50}), START - 50).await;
    let (_, payload, _) = bench.record("acme", "1").await.expect("there");
    assert_eq!((&payload["email"], &payload["phone"]), (&json!("new@x"), &json!("2")));
    bench.polled(2, &json!({"id": "1", "email": "newest@x", "phone": "2", "updatedAt": START - 5}), START - 5).await;
    assert_eq!(bench.record("acme", "1").await.expect("there").1["email"], json!("newest@x"));
}

#[tokio::test(flavor = "multi_thread")]
async fn order_inside_a_request_and_deletes() {
    let bench = Bench::new(APP, &[]).await;
    // The later event stands first in the request.
    bench.take(&json!([gone("e2", "1", START - 10), whole("e1", "1", "a@x", START - 20)])).await;
    let (action, payload, _) = bench.record("acme", "1").await.expect("kept");
    assert_eq!((action, &payload["email"]), (Action::Deleted, &json!("a@x")));
    bench.polled(1, &json!({"id": "1", "email": "stale@x", "updatedAt": START - 15}), START - 15).await;
    assert_eq!(bench.record("acme", "1").await.expect("kept").0, Action::Deleted, "a stale page brings nothing back");
    bench.take(&json!([gone("e3", "never-seen", START)])).await;
    assert_eq!(bench.record("acme", "never-seen").await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_taken_is_kept_with_its_reason() {
    let bench = Bench::new(APP, &[]).await;
    let url = bench.hooks.urls("crm").remove(0);
    let path = url.strip_prefix("https://hooks.example").expect("public URL").to_owned();
    let entrance = bench.hooks.find(&path).expect("path");
    for body in ["not json", "[[[", "\"text\"", "[{\"portal\":7,\"kind\":\"whole\",\"record\":{}}]"] {
        let headers = [("x-token".parse().expect("name"), "s3cret".parse().expect("value"))].into_iter().collect();
        let request =
            Incoming { method: "POST".into(), path: path.clone(), headers, body: body.into(), ..Incoming::default() };
        assert_eq!(bench.hooks.receive(&entrance, request).await.status, 200, "{body}");
    }
    bench.hooks.catch_up().await.expect("processes");
    let kept = bench.engine.marks(Keyspace::QUARANTINE, &["default", "crm"]).expect("reads");
    let code = |value: &[u8]| serde_json::from_slice::<Value>(value).expect("json")["code"].as_str().map(str::to_owned);
    let codes: Vec<_> = kept.iter().filter_map(|(_, value)| code(value)).collect();
    assert_eq!(codes.iter().filter(|c| *c == "bad_body").count(), 3, "{codes:?}");
    assert!(codes.iter().any(|c| c == "bad_key"), "{codes:?}");
    bench.take(&json!([whole("e1", "1", "a@x", START)])).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn json_in_a_text_that_nests_without_end_stops_nothing() {
    let bench = Bench::new(&APP.replace("events: .[]", "events: .payload | fromjson | .[]"), &[]).await;
    for endless in ["[".repeat(1_000_000), "{\"a\":".repeat(500_000)] {
        bench.take(&json!({"payload": endless})).await;
    }
    assert_eq!(bench.kept(), vec![("bad_body".to_owned(), None); 2]);
    bench.take(&json!({"payload": json!([whole("e1", "1", "a@x", START)]).to_string()})).await;
    assert!(bench.record("acme", "1").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn hints_coalesce_and_survive_a_crash() {
    let bench = Bench::new(APP, &[]).await;
    let email = |email: &str| json!({"id": "1", "email": email});
    bench.provider.records.lock().expect("lock").insert("1".into(), email("fetched@x"));
    for n in 0..3 {
        bench.take(&json!([hint(&format!("e{n}"), "1")])).await;
        bench.clock.advance(Duration::from_secs(1));
    }
    let bench = bench.again().await;
    assert!(bench.provider.asked.lock().expect("lock").is_empty(), "not yet quiet");
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (hooks, stop) = (bench.hooks.clone(), stop.clone());
        async move { hooks.run(stop).await }
    });
    bench.provider.fails.store(1, Ordering::SeqCst);
    bench.clock.advance(Duration::from_secs(2));
    let asked = || bench.provider.asked.lock().expect("lock").len();
    until("the first, failing fetch", || async { asked() == 1 }).await;
    // The wait after a failure is a second; turn the clock until it is over.
    until("the second fetch", || async {
        bench.clock.advance(Duration::from_millis(100));
        asked() == 2
    })
    .await;
    until("no hints left", || async { bench.engine.marks(keyspaces::REFETCH, &[]).expect("reads").is_empty() }).await;
    let (action, payload, cause) = bench.record("acme", "1").await.expect("there");
    assert_eq!((action, cause.via, &payload["email"]), (Action::Added, Via::Webhook, &json!("fetched@x")));
    // A later hint is a new fetch.
    bench.provider.records.lock().expect("lock").insert("1".into(), email("again@x"));
    assert_eq!(bench.post(&json!([hint("e9", "1")])).await.status, 200);
    until("the third fetch", || async {
        bench.clock.advance(Duration::from_millis(100));
        asked() == 3
    })
    .await;
    until("the new record", || async {
        bench.record("acme", "1").await.expect("there").1["email"] == json!("again@x")
    })
    .await;
    stop.cancel();
    running.await.expect("ends").expect("well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_that_is_not_found_again_stays_unless_that_is_a_delete() {
    let listener = server::bind("127.0.0.1:0").await.expect("binds");
    let nowhere = format!("http://{}", listener.local_addr().expect("address"));
    let stop = CancellationToken::new();
    let server = tokio::spawn(server::serve(listener, axum::Router::new(), stop.clone()));
    for (not_found, action) in
        [("", Action::Added), (", not_found: ignore", Action::Added), (", not_found: delete", Action::Deleted)]
    {
        let fetch = |not_found: &str| format!("fetch: {{get: \"/contacts/{{{{ key }}}}\"{not_found}}}");
        let text = APP.replace("https://crm.example", &nowhere).replace(&fetch(""), &fetch(not_found));
        let bench = Bench::new(&text, &[]).await;
        let client = Client::new(
            ClientOptions { allow_http: true, egress: Egress::loopback(), ..ClientOptions::default() },
            bench.clock.clone(),
        );
        let (client, notes) = (client.expect("client"), Arc::new(Forgetful));
        let outside = RestSource::new(bench.definition.clone(), client, bench.clock.clone(), notes).expect("source");
        assert!(bench.provider.outside.set(outside).is_ok());
        bench.take(&json!([whole("e1", "1", "a@x", START)])).await;
        bench.take(&json!([hint("e2", "1")])).await;
        bench.hydrate().await;
        assert_eq!(bench.record("acme", "1").await.expect("there").0, action, "{not_found}");
        assert_eq!((bench.provider.asked.lock().expect("lock").len(), bench.kept()), (1, Vec::new()));
    }
    stop.cancel();
    server.await.expect("ends");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_failed_readings_each_is_kept() {
    for (answer, code) in [(Value::Null, "hydrate_failed"), (json!("nonsense"), "bad_record")] {
        let bench = Bench::new(APP, &[]).await;
        let ids = ["1", "2", "3"];
        bench.provider.records.lock().expect("lock").extend(ids.map(|id| (id.to_owned(), answer.clone())));
        bench.take(&json!(ids.map(|id| hint(&format!("e{id}"), id)))).await;
        bench.hydrate().await;
        assert_eq!(bench.provider.asked.lock().expect("lock").len(), 3, "requests of their own");
        let mut kept = bench.kept();
        kept.sort();
        assert_eq!(kept, ids.map(|id| (code.to_owned(), Some(id.to_owned()))));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn old_ids_and_entries_are_forgotten() {
    let bench = Bench::new(APP, &[]).await;
    bench.take(&json!([whole("e1", "1", "a@x", START)])).await;
    assert_eq!(bench.engine.marks(keyspaces::DEDUPE, &[]).expect("reads").len(), 2);
    let stop = CancellationToken::new();
    let running = tokio::spawn({
        let (hooks, stop) = (bench.hooks.clone(), stop.clone());
        async move { hooks.run(stop).await }
    });
    until("the first sweep", || async {
        bench.engine.mark(Keyspace::PLACE, &["webhook ids"]).expect("reads").is_some()
    })
    .await;
    until("swept", || async {
        bench.clock.advance(Duration::from_secs(3600));
        let ids = bench.engine.marks(keyspaces::DEDUPE, &[]).expect("reads").len();
        ids == 0 && bench.engine.log().read(0, 1).expect("reads").is_empty()
    })
    .await;
    assert!(bench.clock.now() >= Timestamp::from_seconds(START + 8 * 24 * 3600), "not before its time");
    stop.cancel();
    running.await.expect("ends").expect("well");
}

#[tokio::test(flavor = "multi_thread")]
async fn one_url_and_secret_per_connection() {
    let text = APP.replace(
        "  verify: {scheme: shared_secret, header: X-Token, secret: \"env:SECRET\"}",
        "  scope: connection\n  verify: {scheme: shared_secret, header: X-Token, secret: \"{{ webhook_secret }}\"}",
    );
    let bench = Bench::new(&text, &[]).await;
    let urls = bench.hooks.hook_urls(Some("crm"));
    assert_eq!(urls.len(), 2);
    let [acme, other] = [&urls[0], &urls[1]];
    assert_eq!(
        (acme.entrance.connection.as_deref(), other.entrance.connection.as_deref()),
        (Some("acme"), Some("other"))
    );
    assert_ne!(acme.secret, other.secret);
    let post = async |url: &str, secret: &str, body: Value| {
        let path = url.replace("https://hooks.example", "");
        let entrance = bench.hooks.find(&path).expect("path");
        let headers = [("x-token".parse().expect("name"), secret.parse().expect("value"))].into_iter().collect();
        let body = body.to_string().into();
        bench
            .hooks
            .receive(&entrance, Incoming { method: "POST".into(), path, headers, body, ..Incoming::default() })
            .await
            .status
    };
    let [a, b] = [acme, other].map(|hook| hook.secret.clone().expect("secret"));
    assert_eq!(post(&acme.url, &b, json!([whole("e1", "1", "a@x", START)])).await, 401);
    assert_eq!(post(&acme.url, &a, json!([whole("e1", "1", "a@x", START)])).await, 200);
    // What says it is of another connection is refused where it says so.
    assert_eq!(post(&other.url, &b, json!([whole("e2", "2", "a@x", START)])).await, 200);
    bench.hooks.catch_up().await.expect("processes");
    assert!(bench.record("acme", "1").await.is_some());
    assert_eq!(bench.hooks.tally().rejected.load(Ordering::SeqCst), 1);
    let same = bench.hooks.hook_urls(None);
    let bench = bench.again().await;
    assert_eq!(bench.hooks.hook_urls(None), same, "stable over a restart");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http() {
    let bench = Bench::new(
        &APP.replace("  events: .[]", "  reply: {status: 202, body: taken}\n  max_body: 1KiB\n  events: .[]"),
        &[],
    )
    .await;
    let listener = server::bind("127.0.0.1:0").await.expect("binds");
    let base = format!("http://{}", listener.local_addr().expect("address"));
    let stop = CancellationToken::new();
    let server = tokio::spawn(server::serve(listener, hooks::router(bench.hooks.clone()), stop.clone()));
    let path = bench.hooks.urls("crm").remove(0).replace("https://hooks.example", "");
    let out = Client::new(
        ClientOptions { allow_http: true, egress: Egress::loopback(), ..ClientOptions::default() },
        bench.clock.clone(),
    )
    .expect("client");
    let client = reqwest::Client::builder().no_proxy().build().expect("client");
    let post = |path: &str, body: Vec<u8>| client.post(format!("{base}{path}")).header("x-token", "s3cret").body(body);
    let good = json!([whole("e1", "1", "a@x", START)]).to_string().into_bytes();
    let headers = vec![("x-token", "s3cret".to_owned())];
    let answer = out.post(&format!("{base}{path}"), headers, good.clone().into()).await.expect("answer");
    assert_eq!((answer.status, &answer.body[..]), (202, &b"taken"[..]));
    let status = async |request: reqwest::RequestBuilder| request.send().await.expect("answer").status().as_u16();
    assert_eq!(status(post("/hooks/crm/wrong", good.clone())).await, 404);
    assert_eq!(status(post(&path, good.clone()).header("content-encoding", "gzip")).await, 415);
    assert_eq!(status(post(&path, vec![b' '; 2_000])).await, 413);
    // Nor is it cut where nobody said how long it would be: its beginning would be an event as well.
    let long = bytes::Bytes::from([good.clone(), vec![b' '; 2_000]].concat());
    let chunks = futures_util::stream::iter([Ok::<_, std::io::Error>(long)]);
    let unsaid = client.post(format!("{base}{path}")).header("x-token", "s3cret");
    assert_eq!(status(unsaid.body(reqwest::Body::wrap_stream(chunks))).await, 413);
    assert_eq!(status(post(&path, good.clone()).header("x-token", "again")).await, 401, "a doubled header");
    assert_eq!(status(client.get(format!("{base}{path}"))).await, 405);
    assert_eq!(bench.log_end(), 1);
    bench.hooks.catch_up().await.expect("processes");
    assert!(bench.record("acme", "1").await.is_some());
    stop.cancel();
    server.await.expect("ends");
}

/// URL, headers, body.
type Sent = (String, Vec<(&'static str, String)>, Value);

/// A receiver that says what it got and answers with what it is told.
struct Receiver {
    got: mpsc::UnboundedSender<Sent>,
    answers: Mutex<Vec<u16>>,
}

#[async_trait]
impl Post for Receiver {
    async fn post(
        &self,
        url: &str,
        headers: Vec<(&'static str, String)>,
        body: bytes::Bytes,
    ) -> Result<ReceiverAnswer, Unsent> {
        let answer = self.answers.lock().expect("lock").pop().unwrap_or(200);
        let body = serde_json::from_slice(&body).expect("json");
        self.got.send((url.to_owned(), headers, body)).expect("the test listens");
        match answer {
            1 => std::future::pending().await,
            0 => Err(Unsent { message: "no answer".into(), timeout: false }),
            status => Ok(ReceiverAnswer { status, ..ReceiverAnswer::default() }),
        }
    }
}

type Got = mpsc::UnboundedReceiver<Sent>;

/// An outbox at work. `answers`: the last is given first; 0 is none, 1 is one that never comes.
fn outbox(bench: &Bench, answers: &[u16]) -> (Outbox, Got, CancellationToken) {
    let (got, inbox) = mpsc::unbounded_channel();
    let client = Arc::new(Receiver { got, answers: Mutex::new(answers.to_vec()) });
    let commits = bench.hooks.commits();
    let outbox =
        Outbox::open(bench.engine.clone(), bench.endpoints.clone(), bench.connections.clone(), client, commits);
    let (outbox, stop) = (outbox.expect("opens"), CancellationToken::new());
    tokio::spawn({
        let (outbox, stop) = (outbox.clone(), stop.clone());
        async move { outbox.run(stop).await }
    });
    // Commits stamp rising times even while the clock stands: what is owed now is due a moment later.
    bench.clock.advance(Duration::from_secs(1));
    (outbox, inbox, stop)
}

fn header(headers: &[(&'static str, String)], name: &str) -> String {
    headers.iter().find(|(n, _)| *n == name).map(|(_, v)| v.clone()).unwrap_or_default()
}

/// Waits until the oldest delivery has been tried so often, then turns the clock to its next try.
async fn turn(bench: &Bench, tries: u32) {
    until("the attempt is noted", || async {
        bench.engine.outbox(1).expect("reads").first().is_some_and(|delivery| delivery.tries == tries)
    })
    .await;
    let next = bench.engine.outbox(1).expect("reads").remove(0).next_at;
    bench.clock.advance(next.since(bench.clock.now()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_receiver_gets_the_same_id_until_it_works() {
    let bench = Bench::new(APP, &["a"]).await;
    bench.take(&json!([whole("e1", "1", "a@x", START)])).await;
    let (_, mut inbox, _stop) = outbox(&bench, &[0, 302, 500]);
    let (url, headers, body) = inbox.recv().await.expect("first try");
    assert_eq!((url.as_str(), &body["syncType"]), ("https://a.example/", &json!("WEBHOOK")));
    assert_eq!(body["responseResults"].to_string(), r#"{"added":1,"deleted":0,"updated":0}"#);
    assert!(body["cursor"].is_string());
    assert_eq!(body["sequence"].to_string(), "1");
    assert!(header(&headers, "webhook-signature").starts_with("v1,"));
    let id = header(&headers, "webhook-id");
    let mut stamps = vec![header(&headers, "webhook-timestamp")];
    for tries in 1..=3 {
        turn(&bench, tries).await;
        let (_, headers, again) = inbox.recv().await.expect("another try");
        assert_eq!((header(&headers, "webhook-id"), &again), (id.clone(), &body));
        stamps.push(header(&headers, "webhook-timestamp"));
    }
    until("delivered", || async { bench.engine.outbox(1).expect("reads").is_empty() }).await;
    stamps.dedup();
    assert_eq!(stamps.len(), 4, "each try is signed afresh");
}

/// Whoever is killed meanwhile finds it still owed.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_is_owed_until_its_receiver_has_answered() {
    let bench = Bench::new(APP, &["a"]).await;
    bench.take(&json!([whole("e1", "1", "a@x", START)])).await;
    let (_, mut inbox, _stop) = outbox(&bench, &[1]);
    let (_, headers, _) = inbox.recv().await.expect("a try");
    let owed = bench.engine.outbox(9).expect("reads");
    assert_eq!(owed.iter().map(|delivery| delivery.id.clone()).collect::<Vec<_>>(), [header(&headers, "webhook-id")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn lanes_keep_their_order_and_hold_up_nobody_else() {
    let bench = Bench::new(APP, &["a"]).await;
    let mut elsewhere = whole("o1", "1", "a@x", START);
    elsewhere["portal"] = json!(8);
    bench.take(&json!([whole("e1", "1", "a@x", START)])).await;
    bench.engine.announce_webhooks().await.expect("announces");
    bench.take(&json!([whole("e2", "2", "a@x", START)])).await;
    bench.engine.announce_webhooks().await.expect("announces");
    bench.take(&json!([elsewhere])).await;
    bench.engine.announce_webhooks().await.expect("announces");
    let (_, mut inbox, stop) = outbox(&bench, &[]);
    let mut got = Vec::new();
    for _ in 0..3 {
        let (_, _, body) = inbox.recv().await.expect("delivered");
        got.push((body["connectionId"].as_str().expect("text").to_owned(), body["sequence"].to_string()));
    }
    got.sort();
    assert_eq!(got, [("acme".into(), "1".into()), ("acme".into(), "2".into()), ("other".into(), "1".to_owned())]);
    until("all delivered", || async { bench.engine.outbox(1).expect("reads").is_empty() }).await;
    stop.cancel();

    // acme's receiver fails: its second delivery waits, the other lane does not.
    for n in [3, 4] {
        bench.take(&json!([whole(&format!("e{n}"), &n.to_string(), "a@x", START)])).await;
        bench.engine.announce_webhooks().await.expect("announces");
    }
    let (_, mut inbox, _stop) = outbox(&bench, &[500]);
    assert_eq!(inbox.recv().await.expect("tried").2["sequence"].to_string(), "3");
    turn(&bench, 1).await;
    for sequence in ["3", "4"] {
        assert_eq!(inbox.recv().await.expect("tried").2["sequence"].to_string(), sequence);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn given_up_and_disabled() {
    let mut bench = Bench::new(APP, &["a"]).await;
    if let Some(endpoint) = bench.endpoints.get_mut("a") {
        endpoint.schedule = vec![0, 5];
    }
    bench.take(&json!([whole("e1", "1", "a@x", START)])).await;
    let (outbox, mut inbox, _stop) = outbox(&bench, &[410, 404, 404]);
    inbox.recv().await.expect("first try");
    turn(&bench, 1).await;
    inbox.recv().await.expect("second try");
    until("given up", || async { bench.engine.outbox(1).expect("reads").is_empty() }).await;
    let (dead, _) = outbox.dead_letters("default", None, None, 10).expect("reads");
    assert_eq!((dead.len(), dead[0].reason.as_str(), dead[0].delivery.tries), (1, "rejected", 2));

    bench.take(&json!([whole("e2", "2", "a@x", START)])).await;
    // The task announces half a second after the commit.
    until("announced", || async {
        bench.clock.advance(Duration::from_millis(100));
        !bench.engine.outbox(1).expect("reads").is_empty()
    })
    .await;
    bench.clock.advance(Duration::from_secs(1));
    inbox.recv().await.expect("the try that says gone");
    until("disabled", || async { outbox.endpoints("default")[0].disabled_at.is_some() }).await;
    turn(&bench, 1).await;
    bench.clock.advance(Duration::from_secs(100 * 3600));
    assert!(inbox.try_recv().is_err(), "nothing while disabled");
    outbox.enable("a").await.expect("enables");
    assert_eq!(inbox.recv().await.expect("delivered").2["sequence"].to_string(), "2");
}
