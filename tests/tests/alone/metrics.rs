//! `/metrics` of a whole program: who may read it, and whether it says what a run, a webhook and a request really did.

use axum::Json;
use axum::routing::get;
use reqwest::StatusCode;
use serde_json::{Value, json};
use std::path::Path;
use std::time::Duration;
use syncline_tests::serving::{KEY, Serving, client};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(30);

/// A provider of three contacts, one of which is no record.
async fn provider() -> String {
    let contacts = || async { Json(json!([{"id": "1", "n": 1}, {"id": "2", "n": 2}, {"n": 3}])) };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("bound"));
    let router = axum::Router::new().route("/contacts", get(contacts));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

/// A folder with the source `name`; names keep the tests apart, which share one process and so one set of figures.
async fn folder(name: &str) -> TempDir {
    let dir = tempfile::tempdir().expect("a folder");
    let text = format!(
        r#"
source: {name}
base_url: {}
auth: {{type: none}}
streams:
  - name: Contact
    sync: contacts
    key: .id
    schedule: {{every: 1h}}
    list: {{get: /contacts, items: .}}
webhooks:
  scope: connection
  verify: {{scheme: shared_secret, header: X-Token, secret: "file:token"}}
  map:
    - {{stream: Contact, record: .}}
connections:
  acme: {{}}
"#,
        provider().await
    );
    std::fs::create_dir(dir.path().join("sources")).expect("a folder");
    std::fs::write(dir.path().join(format!("sources/{name}.yaml")), text).expect("written");
    std::fs::write(dir.path().join("sources/token"), "s3cret").expect("written");
    dir
}

async fn serving(dir: &Path, metrics: Value) -> Serving {
    Serving::start_with(dir, &dir.join("sources"), json!({"metrics": metrics})).await
}

async fn scrape(serving: &Serving) -> String {
    let request = client().get(format!("{}/metrics", serving.url)).bearer_auth(KEY);
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::OK);
    let kind = answer.headers()["content-type"].to_str().expect("text").to_owned();
    assert!(kind.starts_with("text/plain; version=0.0.4"), "{kind}");
    answer.text().await.expect("text")
}

/// The value of the line with this name and all of these labels; they may stand in any order.
fn value(text: &str, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
    text.lines().find_map(|line| {
        let (series, number) = line.rsplit_once(' ')?;
        let (found, rest) = series.split_once('{').unwrap_or((series, ""));
        let given: Vec<&str> = rest.trim_end_matches('}').split(',').collect();
        let all = found == name && wanted.iter().all(|label| given.contains(&label.as_str()));
        all.then(|| number.parse().expect("a number"))
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_a_webhook_and_a_request_are_counted() {
    let dir = folder("counted").await;
    let serving = serving(dir.path(), json!({})).await;
    serving.settled("counted", "acme", "contacts", PATIENCE).await;
    for token in ["s3cret", "wrong"] {
        let hook = client().post(serving.hook_url("counted")).header("x-token", token);
        hook.body(r#"{"id":"2","n":5}"#).send().await.expect("an answer");
    }
    assert_eq!(serving.changes_of(["counted", "acme", "Contact"], 3, PATIENCE).await.len(), 3);
    serving.trigger("counted", "acme", "contacts", true).await;
    serving.settled("counted", "acme", "contacts", PATIENCE).await;
    let text = scrape(&serving).await;
    let of = |name: &str, labels: &[(&str, &str)]| value(&text, name, labels);
    let stream = [("source", "counted"), ("stream", "Contact")];
    let changes = |op| of("syncline_changes_total", &[stream[0], stream[1], ("op", op)]);
    assert_eq!((changes("added"), changes("deleted")), (Some(2.0), None), "{text}");
    assert!(changes("updated") >= Some(1.0), "{text}");
    let outcome = [stream[0], stream[1], ("outcome", "incomplete")];
    assert_eq!(of("syncline_poll_runs_total", &outcome), Some(2.0), "an item was no record, twice: {text}");
    assert_eq!(of("syncline_poll_requests_total", &stream), Some(2.0), "{text}");
    assert_eq!(of("syncline_records_quarantined_total", &stream), Some(2.0), "{text}");
    assert_eq!(of("syncline_records_live", &stream), Some(2.0), "{text}");
    assert_eq!(of("syncline_poll_run_duration_seconds_count", &stream), Some(2.0), "{text}");
    for outcome in ["accepted", "bad_signature"] {
        let labels = [stream[0], ("outcome", outcome)];
        assert_eq!(of("syncline_webhooks_received_total", &labels), Some(1.0), "{outcome}: {text}");
    }
    assert_eq!(of("syncline_webhook_events_total", &[stream[0], ("outcome", "applied")]), Some(1.0), "{text}");
    assert_eq!(of("syncline_build_info", &[("version", env!("CARGO_PKG_VERSION"))]), Some(1.0));
    let route = [("http_route", "/sync/trigger"), ("http_request_method", "POST")];
    assert!(of("http_server_request_duration_seconds_count", &route) >= Some(1.0), "{text}");
    assert!(!text.contains("acme"), "connections are told apart only where the settings say so");
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_asked_for_unless_the_settings_open_it() {
    for (name, open, wanted) in [("closed", false, StatusCode::UNAUTHORIZED), ("open", true, StatusCode::OK)] {
        let dir = folder(name).await;
        let serving = serving(dir.path(), json!({"open": open})).await;
        let answer = client().get(format!("{}/metrics", serving.url)).send().await.expect("an answer");
        assert_eq!(answer.status(), wanted);
        scrape(&serving).await;
        serving.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn anything_may_be_asked_for_without_a_new_series() {
    let dir = folder("bounded").await;
    let serving = serving(dir.path(), json!({})).await;
    let odd = ["/nowhere/1", "/hooks/nobody/1", "/records?x=1", "/sync/unheard"];
    for path in odd {
        client().get(format!("{}{path}", serving.url)).bearer_auth(KEY).send().await.expect("an answer");
    }
    let strange = reqwest::Method::from_bytes(b"BREW").expect("a method");
    client().request(strange, format!("{}/records", serving.url)).bearer_auth(KEY).send().await.expect("an answer");
    let text = scrape(&serving).await;
    assert!(!text.contains("nowhere") && !text.contains("nobody") && !text.contains("BREW"), "{text}");
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_sees_the_figures_of_its_environment_and_one_that_belongs_to_none_those_of_all() {
    let dir = folder("shared").await;
    let file = dir.path().join("sources/shared.yaml");
    let text = std::fs::read_to_string(&file).expect("read");
    std::fs::write(&file, text.replace("  acme: {}", "  acme: {}\n  theirs: {environment: other}")).expect("written");
    const OTHER: &str = "a-key-of-another-environment-0123456789";
    const OF_ALL: &str = "a-key-of-no-environment-at-all-0123456789";
    std::fs::write(dir.path().join("other.key"), OTHER).expect("written");
    std::fs::write(dir.path().join("all.key"), OF_ALL).expect("written");
    let keys = json!([
        {"name": "tests", "key": "env:TEST_KEY", "role": "admin"},
        {"name": "other", "key": "file:other.key", "role": "admin", "environment": "other"},
        {"name": "prometheus", "key": "file:all.key", "role": "reader", "environment": "*"},
    ]);
    let more = json!({"api_keys": keys});
    let serving = Serving::start_with(dir.path(), &dir.path().join("sources"), more).await;
    serving.settled("shared", "acme", "contacts", PATIENCE).await;
    let read = async |key: &str| {
        let request = client().get(format!("{}/metrics", serving.url)).bearer_auth(key);
        request.send().await.expect("an answer").text().await.expect("text")
    };
    // The other environment's run is nobody's to wait for here but the figures themselves.
    let deadline = std::time::Instant::now() + PATIENCE;
    let of = |environment| [("environment", environment), ("source", "shared"), ("stream", "Contact")];
    while value(&read(OTHER).await, "syncline_poll_pages_total", &of("other")).is_none() {
        assert!(std::time::Instant::now() < deadline, "the other environment never ran: {}", read(OTHER).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let (ours, theirs, all) = (read(KEY).await, read(OTHER).await, read(OF_ALL).await);
    for (text, own, foreign) in [(&ours, "default", "other"), (&theirs, "other", "default")] {
        assert!(value(text, "syncline_records_live", &of(own)).is_some(), "{text}");
        assert!(!text.contains(&format!("environment=\"{foreign}\"")), "{text}");
        let lines = text.lines().filter(|line| !line.starts_with('#') && !line.contains("environment="));
        assert!(lines.into_iter().all(|line| line.starts_with("syncline_build_info")), "sums over all: {text}");
    }
    assert!(value(&all, "syncline_log_position", &[]).is_some(), "{all}");
    assert!(["default", "other"].iter().all(|name| value(&all, "syncline_records_live", &of(name)).is_some()), "{all}");
    // A key that belongs to no environment finds nothing of any.
    let path = format!("{}/records?model=Contact", serving.url);
    let request = client().get(path).bearer_auth(OF_ALL).header("provider-config-key", "shared");
    let answer = request.header("connection-id", "acme").send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    serving.stop().await;
}
