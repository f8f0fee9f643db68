//! The whole program in this process, on a free port, with a data folder of its own: what interop tests talk to by HTTP.

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline::api;
use syncline::app::{App, OpenError, Running, ShardContext};
use syncline::cluster::spread::Spread;
use syncline::config::{self, Origin, Settings};
use syncline::engine::Engine;
use syncline::engine::pipeline::Options;
use syncline::engine::time::{Clock, SystemClock};
use syncline::registry::definitions;
use syncline::server;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The key of every server here.
pub const KEY: &str = "a-key-for-tests-of-32-characters-or-more";
/// Rows asked for at once.
const PAGE: usize = 1_000;
/// Between two looks at something nobody announces.
const LOOK_AGAIN: Duration = Duration::from_millis(25);

/// A server that stops with this value.
pub struct Serving {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    running: Running,
    listening: JoinHandle<()>,
    client: Client,
}

impl Serving {
    /// Opens the definitions in `sources` with a data folder in `folder`, starts everything and listens.
    pub async fn start(folder: &Path, sources: &Path) -> Serving {
        Self::start_with(folder, sources, json!({})).await
    }

    /// The same with more settings; references to files are relative to `folder`.
    pub async fn start_with(folder: &Path, sources: &Path, more: Value) -> Serving {
        Self::start_part(folder, sources, more, None).await
    }

    /// The same as one part of several, where a part is named: with the connections that are spread to it, and a store of
    /// its own.
    pub async fn start_part(folder: &Path, sources: &Path, more: Value, part: Option<(Spread, i32)>) -> Serving {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("a bound address"));
        let file = folder.join("syncline.yaml");
        let mut settings = json!({
            "listen": "127.0.0.1:0", "public_url": url, "data_dir": folder.join("data"), "sources": sources,
            "api_keys": [{"name": "tests", "key": "env:TEST_KEY", "role": "admin"}],
            "encryption": "off", "egress": {"allow_http": true, "allow": ["127.0.0.0/8", "127.0.0.1:9"]}, "workers": 1,
        });
        for (key, value) in more.as_object().into_iter().flatten() {
            settings[key] = value.clone();
        }
        std::fs::write(&file, settings.to_string()).expect("settings are written");
        let origin = Origin { flags: vec![], env: vec![("TEST_KEY".into(), KEY.into())], files: vec![file] };
        let loaded = config::load(&origin).unwrap_or_else(|why| panic!("settings: {why}"));
        let app = match part {
            None => App::open(loaded.settings, Arc::new(SystemClock)).await,
            Some(part) => open_part(loaded.settings, part).await,
        };
        let app = app.unwrap_or_else(|why| panic!("{why}"));
        let running = app.start();
        let ingress = app.settings.ingress.clone();
        let router = api::router_until(app, running.stopping());
        let listening = tokio::spawn(server::serve_within(listener, router, running.stopping(), ingress));
        Serving { url, running, listening, client: client() }
    }

    /// Its engine, to commit to directly.
    pub fn engine(&self) -> Engine {
        self.running.app().engine.clone()
    }

    /// The app behind it.
    pub fn app(&self) -> &Arc<App> {
        self.running.app()
    }

    /// Where the provider posts webhooks of a source that has one URL.
    pub fn hook_url(&self, source: &str) -> String {
        let urls = self.running.app().hooks.urls(source);
        assert_eq!(urls.len(), 1, "URLs of {source}: {urls:?}");
        urls.into_iter().next().unwrap_or_default()
    }

    /// A GET with key and the headers that name a connection.
    pub fn get(&self, path: &str, source: &str, connection: &str) -> RequestBuilder {
        self.signed(self.client.get(format!("{}{path}", self.url)), source, connection)
    }

    fn signed(&self, request: RequestBuilder, source: &str, connection: &str) -> RequestBuilder {
        request.bearer_auth(KEY).header("provider-config-key", source).header("connection-id", connection)
    }

    /// Starts a run; `full` lists everything again. Does nothing if one is going on.
    pub async fn trigger(&self, source: &str, connection: &str, sync: &str, full: bool) {
        let opts = json!({"reset": full});
        let body = json!({"syncs": [sync], "provider_config_key": source, "connection_id": connection, "opts": opts});
        let request = self.client.post(format!("{}/sync/trigger", self.url)).json(&body);
        answer(self.signed(request, source, connection)).await;
    }

    /// Waits until no run of this sync is going on, and answers how the last one ended.
    pub async fn settled(&self, source: &str, connection: &str, sync: &str, limit: Duration) -> Value {
        let path = format!("/sync/status?syncs={sync}&provider_config_key={source}&connection_id={connection}");
        let began = Instant::now();
        loop {
            let status = answer(self.get(&path, source, connection)).await;
            let first = status["syncs"][0].clone();
            if first["status"] != "RUNNING" && !first["finishedAt"].is_null() {
                return first;
            }
            assert!(began.elapsed() < limit, "{sync} still runs after {limit:?}: {status}");
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Every row of `GET /records`, page by page.
    pub async fn records(&self, source: &str, connection: &str, model: &str) -> Vec<Value> {
        let mut rows = Vec::new();
        let mut cursor = String::new();
        loop {
            let path = format!("/records?model={model}&limit={PAGE}{cursor}");
            let mut page = answer(self.get(&path, source, connection)).await;
            rows.extend(page["records"].as_array_mut().map(std::mem::take).unwrap_or_default());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return rows,
            }
        }
    }

    /// Every change of a stream so far, in order.
    pub async fn changes(&self, source: &str, connection: &str, stream: &str) -> Vec<Value> {
        let mut changes = Vec::new();
        let mut cursor = "earliest".to_owned();
        loop {
            let path = format!(
                "/v1/changes?source={source}&connection={connection}&stream={stream}&limit={PAGE}&cursor={cursor}"
            );
            let mut page = answer(self.get(&path, source, connection)).await;
            let new = page["changes"].as_array_mut().map(std::mem::take).unwrap_or_default();
            let done = new.is_empty() || page["up_to_date"] == true;
            changes.extend(new);
            if done {
                return changes;
            }
            cursor = page["cursor"].as_str().unwrap_or_default().to_owned();
        }
    }

    /// Waits until the stream has made `count` changes; what it has made by then, or when patience ends.
    pub async fn changes_of(&self, at: [&str; 3], count: usize, limit: Duration) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let changes = self.changes(at[0], at[1], at[2]).await;
            if changes.len() >= count || began.elapsed() > limit {
                return changes;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Stops as a server does: what was accepted is committed.
    pub async fn stop(self) {
        self.running.stopping().cancel();
        self.listening.await.unwrap_or_else(|why| panic!("{why}"));
        self.running.stop().await.unwrap_or_else(|why| panic!("{why}"));
    }
}

async fn open_part(settings: Settings, (spread, number): (Spread, i32)) -> Result<Arc<App>, OpenError> {
    let all = definitions::load(&settings)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = Options { data_dir: Some(settings.data_dir.clone()), workers: 1, clock, ..Options::default() };
    let other_shards = Some(spread.other_shards(&all, number));
    let mut part = ShardContext::default();
    (part.name, part.other_shards) = (number.to_string(), other_shards);
    App::of_part(Engine::open(options)?, settings, spread.definitions(&all, number), part).await
}

/// An HTTP client for tests.
pub fn client() -> Client {
    // Only the first call can install it; a later one finds it done.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().timeout(Duration::from_secs(60)).build().unwrap_or_else(|why| panic!("{why}"))
}

/// The JSON of a successful answer.
pub async fn answer(request: RequestBuilder) -> Value {
    let response = request.send().await.unwrap_or_else(|why| panic!("{why:?}"));
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await.unwrap_or_else(|why| panic!("{url}: {why}"));
    assert!(status.is_success(), "{url}: {status}: {text}");
    if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap_or_else(|why| panic!("{url}: {why}: {text}"))
    }
}
