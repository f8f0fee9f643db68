//! Connections made, changed and deleted over REST while the server runs: their syncs, webhook URLs and records follow at once,
//! and everything is as it was after a restart.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use syncline::engine::time::SystemClock;
use syncline_provider::github::{GitHub, GitHubOptions};
use syncline_tests::serving::{KEY, Serving, client};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::Notify;

/// Longest wait for anything; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

const CRM: &str = r#"
source: crm
base_url: URL
auth: {type: bearer, test: {get: /me}, connection_fields: {team: .team}}
streams:
  - name: Contact
    key: .id
    schedule: {every: 12h}
    list: {get: /items}
webhooks:
  scope: connection
  verify: {scheme: shared_secret, header: X-Token, secret: "{{ webhook_secret }}"}
  map: [{stream: Contact, record: .}]
"#;

/// A provider that knows accounts by their tokens.
#[derive(Clone, Default)]
struct Provider {
    items: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
    /// The first of two pages was asked for.
    first_page: Arc<Notify>,
    /// The first page may be answered.
    second_page: Arc<Notify>,
}

impl Provider {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new()
            .route("/me", get(me))
            .route("/items", get(items))
            .route("/pages", get(pages))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn set(&self, token: &str, items: Value) {
        let items = items.as_array().cloned().expect("a list");
        self.items.lock().expect("items").insert(format!("Bearer {token}"), items);
    }

    async fn first_page_read(&self) {
        self.first_page.notified().await;
    }

    fn of(&self, headers: &HeaderMap) -> Option<Vec<Value>> {
        let token = headers.get("authorization")?.to_str().ok()?;
        self.items.lock().expect("items").get(token).cloned()
    }
}

async fn me(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    match provider.of(&headers) {
        Some(items) => Json(json!({"team": format!("team of {}", items.len())})).into_response(),
        None => (StatusCode::UNAUTHORIZED, "who are you?").into_response(),
    }
}

async fn items(State(provider): State<Provider>, headers: HeaderMap) -> Response {
    provider.of(&headers).map_or(StatusCode::UNAUTHORIZED.into_response(), |items| Json(items).into_response())
}

/// Two pages: the first is held back until the test has changed what is let in.
async fn pages(State(provider): State<Provider>, headers: HeaderMap, RawQuery(query): RawQuery) -> Response {
    if provider.of(&headers).is_none() {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    if query.is_some() {
        return Json(json!({"items": [{"id": "second"}], "next": null})).into_response();
    }
    provider.first_page.notify_one();
    provider.second_page.notified().await;
    Json(json!({"items": [{"id": "first"}], "next": "/pages?two"})).into_response()
}

async fn serve(folder: &TempDir, url: &str) -> Serving {
    let sources = folder.path().join("sources");
    std::fs::create_dir_all(&sources).expect("a folder");
    std::fs::write(sources.join("crm.yaml"), CRM.replace("URL", url)).expect("a definition");
    Serving::start(folder.path(), &sources).await
}

async fn call(serving: &Serving, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
    let mut request = client().request(method, format!("{}{path}", serving.url)).bearer_auth(KEY);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, serde_json::from_str(&answer.text().await.expect("text")).unwrap_or_default())
}

fn made(id: &str, token: &str) -> Option<Value> {
    let credentials = json!({"type": "API_KEY", "apiKey": token});
    Some(json!({"connection_id": id, "provider_config_key": "crm", "credentials": credentials, "metadata": {"a": 1}}))
}

async fn ids(serving: &Serving, connection: &str, count: usize) -> Vec<String> {
    let began = Instant::now();
    loop {
        let rows = serving.records("crm", connection, "Contact").await;
        let mut ids: Vec<String> = rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect();
        if ids.len() >= count || began.elapsed() > PATIENCE {
            ids.sort();
            return ids;
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

async fn post_hook(serving: &Serving, connection: &str, id: &str) -> u16 {
    let urls = serving.app().hooks.hook_urls(Some("crm"));
    let hook = urls.into_iter().find(|hook| hook.entrance.connection.as_deref() == Some(connection)).expect("a URL");
    let secret = hook.secret.expect("a secret of its own");
    let request = client().post(hook.url).header("x-token", secret).json(&json!({"id": id}));
    request.send().await.expect("an answer").status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_made_at_run_time_is_synced_at_once_and_survives_a_restart() {
    let (folder, provider) = (tempfile::tempdir().expect("a folder"), Provider::default());
    let url = provider.start().await;
    provider.set("token-of-acme", json!([{"id": "1"}, {"id": "2"}]));
    let serving = serve(&folder, &url).await;

    let (status, one) = call(&serving, Method::POST, "/connections", made("acme", "token-of-acme")).await;
    assert_eq!((status, &one["connection_id"], &one["provider"]), (201, &json!("acme"), &json!("crm")), "{one}");
    assert_eq!(one["credentials"], json!({"type": "API_KEY", "apiKey": "token-of-acme"}));
    assert_eq!((&one["metadata"], &one["connection_config"]), (&json!({"a": 1}), &json!({"team": "team of 2"})));
    assert_eq!(ids(&serving, "acme", 2).await, ["1", "2"], "its sync has run");
    assert_eq!(post_hook(&serving, "acme", "hooked").await, 200);
    assert_eq!(ids(&serving, "acme", 3).await.len(), 3);
    let (_, list) = call(&serving, Method::GET, "/v1/connections", None).await;
    assert_eq!(list["connections"][0]["connection_id"], "acme");
    serving.stop().await;

    let serving = serve(&folder, &url).await;
    assert_eq!(ids(&serving, "acme", 3).await.len(), 3);
    assert_eq!(post_hook(&serving, "acme", "again").await, 200);
    assert_eq!(ids(&serving, "acme", 4).await.len(), 4);
    let (_, shown) = call(&serving, Method::GET, "/connections/acme?provider_config_key=crm", None).await;
    assert_eq!((&shown["id"], &shown["created_at"]), (&one["id"], &one["created_at"]));
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_may_be_made_without_credentials_where_they_are_optional() {
    let (folder, options) = (tempfile::tempdir().expect("a folder"), GitHubOptions::new("octo/hello", 12));
    let hub = GitHub::start(options, Arc::new(SystemClock)).await.expect("a GitHub");
    let sources = folder.path().join("sources");
    std::fs::create_dir_all(&sources).expect("a folder");
    let text = format!("source: github\npreset: github\nbase_url: {}\nstreams: [Issue]\n", hub.url());
    std::fs::write(sources.join("github.yaml"), text).expect("a definition");
    let serving = Serving::start(folder.path(), &sources).await;
    let body = json!({"connection_id": "free", "provider_config_key": "github", "metadata": {"repo": ["octo/hello"]}});
    let (status, one) = call(&serving, Method::POST, "/connections", Some(body)).await;
    assert_eq!((status, &one["credentials"]), (201, &json!({"type": "NONE"})), "{one}");
    let changes = serving.changes_of(["github", "free", "Issue"], hub.issues(), PATIENCE).await;
    assert_eq!(changes.len(), hub.issues());
    assert!(hub.asked().iter().all(|(path, status, signed)| path != "/user" && *status == 200 && !signed));
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_a_connection_is_refused_and_nothing_is_kept() {
    let (folder, provider) = (tempfile::tempdir().expect("a folder"), Provider::default());
    let url = provider.start().await;
    provider.set("token-of-acme", json!([]));
    let serving = serve(&folder, &url).await;
    let wrong = |change: &dyn Fn(&mut Value)| {
        let mut body = made("acme", "token-of-acme").expect("a body");
        change(&mut body);
        Some(body)
    };
    let cases: [(&str, Option<Value>); 7] = [
        ("connection_test_failed", made("acme", "stolen")),
        ("unknown_provider_config", wrong(&|body| body["provider_config_key"] = json!("nope"))),
        ("invalid_body", wrong(&|body| body["credentials"] = json!({"password": "x"}))),
        ("invalid_body", wrong(&|body| body["credentials"] = json!({}))),
        ("invalid_body", wrong(&|body| body["streams"] = json!(["Nope"]))),
        ("invalid_body", wrong(&|body| body["connection_id"] = json!("not a name"))),
        ("invalid_body", wrong(&|body| body["colour"] = json!("red"))),
    ];
    for (code, body) in cases {
        let (status, answer) = call(&serving, Method::POST, "/connections", body).await;
        assert_eq!((status, answer["error"]["code"].as_str()), (400, Some(code)), "{answer}");
        assert!(!answer.to_string().contains("token-of-acme"), "{answer}");
    }
    assert_eq!(call(&serving, Method::GET, "/connections", None).await.1["connections"], json!([]));

    assert_eq!(call(&serving, Method::POST, "/connections", made("acme", "token-of-acme")).await.0, 201);
    let (status, answer) = call(&serving, Method::POST, "/connections", made("acme", "token-of-acme")).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (409, Some("connection_exists")));
    let (status, unnamed) = call(
        &serving,
        Method::POST,
        "/connections",
        wrong(&|body| {
            body.as_object_mut().expect("an object").remove("connection_id");
        }),
    )
    .await;
    assert_eq!((status, unnamed["connection_id"].as_str().map(str::len)), (201, Some(36)));
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_changed_and_deleted_while_the_server_runs() {
    let (folder, provider) = (tempfile::tempdir().expect("a folder"), Provider::default());
    let url = provider.start().await;
    provider.set("old", json!([{"id": "1"}]));
    provider.set("new", json!([{"id": "1"}, {"id": "2"}]));
    let serving = serve(&folder, &url).await;
    assert_eq!(call(&serving, Method::POST, "/connections", made("acme", "old")).await.0, 201);
    assert_eq!(call(&serving, Method::POST, "/connections", made("other", "old")).await.0, 201);
    assert_eq!(ids(&serving, "acme", 1).await, ["1"]);
    // A run that still ends would take no other after it.
    serving.settled("crm", "acme", "Contact", PATIENCE).await;

    let path = "/connections/acme?provider_config_key=crm";
    let change = json!({"credentials": {"type": "API_KEY", "apiKey": "new"}, "tags": {"plan": "pro"}});
    assert_eq!(call(&serving, Method::PATCH, path, Some(change)).await, (200, json!({"success": true})));
    let (_, shown) = call(&serving, Method::GET, path, None).await;
    assert_eq!((&shown["tags"], &shown["credentials"]["apiKey"]), (&json!({"plan": "pro"}), &json!("new")));
    assert_eq!(shown["metadata"], json!({"a": 1}), "what was not named stays");
    serving.trigger("crm", "acme", "Contact", false).await;
    assert_eq!(ids(&serving, "acme", 2).await, ["1", "2"], "asked for with the new credentials");
    let (status, answer) = call(&serving, Method::PATCH, path, Some(json!({"schedule": {"Contact": "soon"}}))).await;
    assert_eq!((status, answer["error"]["code"].as_str()), (400, Some("invalid_body")), "{answer}");

    assert_eq!(call(&serving, Method::DELETE, path, None).await, (200, json!({"success": true})));
    assert_eq!(call(&serving, Method::DELETE, path, None).await.0, 404);
    assert_eq!(call(&serving, Method::GET, path, None).await.0, 400);
    let hooks = serving.app().hooks.hook_urls(Some("crm"));
    assert_eq!(hooks.len(), 1, "its URL is gone: {hooks:?}");
    let (_, changes) = call(&serving, Method::GET, "/v1/changes?source=crm&connection=acme", None).await;
    assert_eq!(changes["changes"], json!([]), "and so are its records");
    assert_eq!(ids(&serving, "other", 1).await, ["1"], "the other stays");
    serving.stop().await;

    let serving = serve(&folder, &url).await;
    let (_, list) = call(&serving, Method::GET, "/connections", None).await;
    assert_eq!(list["connections"].as_array().map(Vec::len), Some(1), "{list}");
    // The same name again is a new connection with records of its own.
    assert_eq!(call(&serving, Method::POST, "/connections", made("acme", "old")).await.0, 201);
    assert_eq!(ids(&serving, "acme", 1).await, ["1"]);
    serving.stop().await;
}

/// The run begins with the old token, which the provider takes back before the second page.
#[tokio::test(flavor = "multi_thread")]
async fn a_run_under_way_goes_on_with_new_credentials() {
    let (folder, provider) = (tempfile::tempdir().expect("a folder"), Provider::default());
    let url = provider.start().await;
    provider.set("old", json!([{"id": "1"}]));
    provider.set("new", json!([{"id": "1"}, {"id": "2"}]));
    let sources = folder.path().join("sources");
    std::fs::create_dir_all(&sources).expect("a folder");
    let paged = CRM
        .replace("URL", &url)
        .replace("list: {get: /items}", "list: {get: /pages, items: .items, paginate: {link: .next}}");
    std::fs::write(sources.join("crm.yaml"), paged).expect("a definition");
    let serving = Serving::start(folder.path(), &sources).await;
    assert_eq!(call(&serving, Method::POST, "/connections", made("acme", "old")).await.0, 201);
    provider.first_page_read().await;
    provider.items.lock().expect("items").remove("Bearer old");
    let change = json!({"credentials": {"type": "API_KEY", "apiKey": "new"}});
    let path = "/connections/acme?provider_config_key=crm";
    assert_eq!(call(&serving, Method::PATCH, path, Some(change)).await.0, 200);
    provider.second_page.notify_one();
    let ended = serving.settled("crm", "acme", "Contact", PATIENCE).await;
    assert_eq!(ended["status"], "SUCCESS", "{ended}");
    assert_eq!(ids(&serving, "acme", 2).await, ["first", "second"]);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_of_a_file_is_changed_in_the_file() {
    let (folder, provider) = (tempfile::tempdir().expect("a folder"), Provider::default());
    let url = provider.start().await;
    let sources = folder.path().join("sources");
    std::fs::create_dir_all(&sources).expect("a folder");
    std::fs::write(folder.path().join("token"), "of-the-file").expect("a token");
    let text = format!("{}connections:\n  acme: {{token: \"file:../token\"}}\n", CRM.replace("URL", &url));
    std::fs::write(sources.join("crm.yaml"), text).expect("a definition");
    let serving = Serving::start(folder.path(), &sources).await;
    let path = "/v1/connections/acme?provider_config_key=crm";
    for (method, body) in [(Method::PATCH, Some(json!({"tags": {"a": "b"}}))), (Method::DELETE, None)] {
        let (status, answer) = call(&serving, method, path, body).await;
        assert_eq!((status, answer["error"]["code"].as_str()), (409, Some("defined_in_file")), "{answer}");
    }
    serving.stop().await;
}
