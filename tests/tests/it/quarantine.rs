//! What could not be taken or delivered, through the API: it is listed with its reason, tried again after a mend, or dropped; it
//! has bounds; and no writer removes what another has kept.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use syncline_tests::serving::{KEY, Serving, answer, client};
use tokio::net::TcpListener;

/// Longest wait for anything; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

/// What proves webhooks.
const HOOK: &str = "s3cret-of-the-hook";

/// A provider with a list, and a receiver of webhooks that refuses or takes them.
#[derive(Clone, Default)]
struct Outside {
    items: Arc<Mutex<Vec<Value>>>,
    received: Arc<Mutex<Vec<(u16, Value)>>>,
    refuses: Arc<Mutex<bool>>,
}

impl Outside {
    async fn start(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let list = async |State(outside): State<Outside>| Json(outside.items.lock().expect("items").clone());
        let take = async |State(outside): State<Outside>, Json(body): Json<Value>| {
            let status = if *outside.refuses.lock().expect("a flag") { StatusCode::NOT_FOUND } else { StatusCode::OK };
            outside.received.lock().expect("bodies").push((status.as_u16(), body));
            status
        };
        let router = Router::new().route("/items", get(list)).route("/receiver", post(take)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }
}

/// One stream that is listed and fed by webhooks; the email has to be a text, and an id is read by `key`.
fn define(sources: &Path, url: &str, key: &str) {
    let text = format!(
        r#"
source: crm
base_url: {url}
auth: {{type: none}}
streams:
  - name: Contact
    key: {key}
    schema: {{type: object, properties: {{email: {{type: string}}}}}}
    on_invalid: quarantine
    schedule: {{every: 12h, start: paused}}
    list: {{get: /items}}
    deletes: [{{from_full_list: true}}]
webhooks:
  scope: connection
  verify: {{scheme: shared_secret, header: X-Token, secret: "file:../hook"}}
  events: .events[]
  dedupe: .id
  map: [{{stream: Contact, record: .record}}]
connections:
  acme: {{}}
"#
    );
    std::fs::write(sources.join("crm.yaml"), text).expect("a definition");
}

struct Bench {
    folder: tempfile::TempDir,
    outside: Outside,
    url: String,
}

impl Bench {
    async fn new() -> Bench {
        let (folder, outside) = (tempfile::tempdir().expect("a folder"), Outside::default());
        std::fs::create_dir(folder.path().join("sources")).expect("a folder");
        let url = outside.start().await;
        Bench { folder, outside, url }
    }

    async fn serve(&self, key: &str) -> Serving {
        let sources = self.folder.path().join("sources");
        define(&sources, &self.url, key);
        for (name, secret) in [("hook", HOOK), ("out", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")] {
            std::fs::write(self.folder.path().join(name), secret).expect("a secret");
        }
        let url = format!("{}/receiver", self.url);
        let endpoint = json!({"url": url, "secret": "file:out", "schedule": ["0s"]});
        Serving::start_with(self.folder.path(), &sources, json!({"endpoints": {"app": endpoint}})).await
    }
}

async fn hook(serving: &Serving, events: Value) {
    let request = client().post(serving.hook_url("crm")).header("x-token", HOOK);
    let answer = request.json(&json!({"events": events})).send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
}

async fn ask(serving: &Serving, path: &str) -> Value {
    answer(client().get(format!("{}{path}", serving.url)).bearer_auth(KEY)).await
}

async fn tell(serving: &Serving, path: &str, body: Value) -> Value {
    answer(client().post(format!("{}{path}", serving.url)).bearer_auth(KEY).json(&body)).await
}

/// Waits until a list has so many entries, and answers them.
async fn entries(serving: &Serving, path: &str, field: &str, count: usize) -> Vec<Value> {
    let began = Instant::now();
    loop {
        let list = ask(serving, path).await[field].as_array().cloned().expect("a list");
        if list.len() == count {
            return list;
        }
        assert!(began.elapsed() < PATIENCE, "{path}: {} instead of {count}: {list:?}", list.len());
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

fn texts<'a>(list: &'a [Value], name: &str) -> Vec<&'a str> {
    list.iter().map(|entry| entry[name].as_str().unwrap_or("?")).collect()
}

async fn ids(serving: &Serving) -> Vec<String> {
    let rows = serving.records("crm", "acme", "Contact").await;
    let mut ids: Vec<String> = rows.iter().map(|row| row["id"].as_str().expect("an id").to_owned()).collect();
    ids.sort();
    ids
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_in_quarantine_is_taken_once_the_definition_is_mended() {
    let bench = Bench::new().await;
    let serving = bench.serve(".uid").await;
    let event = |n: u32| json!({"id": format!("e{n}"), "record": {"number": n}});
    hook(&serving, json!([event(1), {"id": "e9", "record": {"uid": "u9", "number": 9}}, event(2)])).await;
    let list = entries(&serving, "/v1/quarantine", "entries", 2).await;
    assert_eq!(texts(&list, "code"), ["bad_key"; 2]);
    assert_eq!(texts(&list, "writer"), ["webhook"; 2]);
    assert_eq!((texts(&list, "connection"), texts(&list, "stream")), (vec!["acme"; 2], vec!["Contact"; 2]));
    assert!(list[0]["item"].as_str().expect("an item").contains("\"number\""), "{list:?}");
    assert_eq!(ids(&serving).await, ["u9"]);

    // Nothing is mended yet.
    let retried = tell(&serving, "/v1/quarantine/retry", json!({"source": "crm"})).await;
    assert_eq!((&retried["taken"], &retried["kept"]), (&json!(0), &json!(2)));
    entries(&serving, "/v1/quarantine?source=crm&code=bad_key", "entries", 2).await;
    entries(&serving, "/v1/quarantine?code=bad_value", "entries", 0).await;
    serving.stop().await;

    let serving = bench.serve("(.uid // .number | tostring)").await;
    let list = entries(&serving, "/v1/quarantine", "entries", 2).await;
    let first = tell(&serving, "/v1/quarantine/retry", json!({"ids": [list[0]["id"]]})).await;
    assert_eq!((&first["taken"], &first["kept"]), (&json!(1), &json!(0)), "{first}");
    let rest = tell(&serving, "/v1/quarantine/retry", json!({"source": "crm", "connection": "acme"})).await;
    assert_eq!(rest["taken"], 1);
    assert_eq!(ids(&serving).await, ["1", "2", "u9"]);
    entries(&serving, "/v1/quarantine", "entries", 0).await;
    // The other event of the request was there already: it has no second effect.
    assert_eq!(serving.changes("crm", "acme", "Contact").await.len(), 3);
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_releases_its_own_items_and_nobody_elses() {
    let bench = Bench::new().await;
    let serving = bench.serve(".uid").await;
    hook(&serving, json!([{"id": "e1", "record": {"uid": "h1", "email": 5}}])).await;
    entries(&serving, "/v1/quarantine?writer=webhook", "entries", 1).await;
    *bench.outside.items.lock().expect("items") =
        vec![json!({"uid": "a", "email": "a@x"}), json!({"uid": "b", "email": 1}), json!({"uid": "c", "email": 2})];
    let list = async || {
        serving.trigger("crm", "acme", "Contact", false).await;
        serving.settled("crm", "acme", "Contact", PATIENCE).await;
    };
    list().await;
    let kept = entries(&serving, "/v1/quarantine?writer=run", "entries", 2).await;
    assert_eq!((texts(&kept, "key"), texts(&kept, "code")), (vec!["b", "c"], vec!["bad_value"; 2]));
    assert!(kept[0]["cause"].as_str().expect("a run").starts_with("run_"));

    // One is mended, one is gone: to try it again is to list again.
    *bench.outside.items.lock().expect("items") =
        vec![json!({"uid": "a", "email": "a@x"}), json!({"uid": "b", "email": "b@x"})];
    let retried = tell(&serving, "/v1/quarantine/retry", json!({"ids": [kept[0]["id"]]})).await;
    assert_eq!(retried["listed"], json!([{"source": "crm", "connection": "acme", "stream": "Contact"}]));
    entries(&serving, "/v1/quarantine?writer=run", "entries", 0).await;
    assert_eq!(ids(&serving).await, ["a", "b"]);

    // What the webhook brought is still there, until somebody drops it.
    let kept = entries(&serving, "/v1/quarantine", "entries", 1).await;
    assert_eq!((texts(&kept, "writer"), texts(&kept, "key")), (vec!["webhook"], vec!["h1"]));
    assert_eq!(tell(&serving, "/v1/quarantine/drop", json!({"ids": [kept[0]["id"]]})).await["dropped"], 1);
    entries(&serving, "/v1/quarantine", "entries", 0).await;
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_quarantine_is_read_page_by_page_and_counts_what_found_no_room() {
    let bench = Bench::new().await;
    let serving = bench.serve(".uid").await;
    let events: Vec<Value> = (0..520).map(|n| json!({"id": format!("e{n}"), "record": {"number": n}})).collect();
    hook(&serving, json!(events)).await;
    let (mut seen, mut dropped, mut cursor) = (Vec::new(), Vec::new(), String::new());
    entries(&serving, "/v1/quarantine?limit=1000", "entries", 500).await;
    loop {
        let page = ask(&serving, &format!("/v1/quarantine?limit=77{cursor}")).await;
        seen.extend(texts(page["entries"].as_array().expect("a list"), "id").iter().map(|id| id.to_string()));
        dropped.extend(page["dropped"].as_array().cloned().expect("a list"));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!((seen.len(), dropped.len()), (500, 1), "each once");
    assert_eq!((&dropped[0]["count"], &dropped[0]["stream"]), (&json!(20), &json!("Contact")));
    let metrics = client().get(format!("{}/metrics", serving.url)).bearer_auth(KEY).send().await.expect("an answer");
    let metrics = metrics.text().await.expect("text");
    assert!(metrics.contains(r#"syncline_quarantine_dropped_total{reason="full"}"#), "{metrics}");

    // There is room again at once.
    assert_eq!(tell(&serving, "/v1/quarantine/drop", json!({"source": "crm"})).await["dropped"], 500);
    hook(&serving, json!([{"id": "later", "record": {"number": 1}}])).await;
    entries(&serving, "/v1/quarantine", "entries", 1).await;
    for (path, body) in [
        ("/v1/quarantine/drop", json!({})),
        ("/v1/quarantine/drop", json!({"ids": ["nonsense"]})),
        ("/v1/quarantine/retry", json!({"ids": [], "source": "crm"})),
    ] {
        let request = client().post(format!("{}{path}", serving.url)).bearer_auth(KEY).json(&body);
        assert_eq!(request.send().await.expect("an answer").status(), 400, "{body}");
    }
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_was_given_up_is_sent_again() {
    let bench = Bench::new().await;
    let serving = bench.serve(".uid").await;
    *bench.outside.refuses.lock().expect("a flag") = true;
    hook(&serving, json!([{"id": "e1", "record": {"uid": "1"}}])).await;
    let dead = entries(&serving, "/v1/deliveries?state=dead&endpoint=app", "deliveries", 1).await;
    assert_eq!((texts(&dead, "reason"), texts(&dead, "endpoint")), (vec!["rejected"], vec!["app"]));
    assert_eq!((&dead[0]["body"]["model"], &dead[0]["tries"]), (&json!("Contact"), &json!(1)));
    entries(&serving, "/v1/deliveries", "deliveries", 0).await;

    *bench.outside.refuses.lock().expect("a flag") = false;
    assert_eq!(tell(&serving, "/v1/deliveries/retry", json!({"ids": [dead[0]["id"]]})).await["retried"], 1);
    entries(&serving, "/v1/deliveries?state=dead", "deliveries", 0).await;
    let began = Instant::now();
    while bench.outside.received.lock().expect("bodies").len() < 2 {
        assert!(began.elapsed() < PATIENCE, "it is not sent");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    let received = bench.outside.received.lock().expect("bodies").clone();
    assert_eq!((received[0].0, received[1].0), (404, 200));
    assert_eq!(received[0].1, received[1].1, "the same body");

    *bench.outside.refuses.lock().expect("a flag") = true;
    hook(&serving, json!([{"id": "e2", "record": {"uid": "2"}}])).await;
    entries(&serving, "/v1/deliveries?state=dead", "deliveries", 1).await;
    assert_eq!(tell(&serving, "/v1/deliveries/drop", json!({"endpoint": "app"})).await["dropped"], 1);
    entries(&serving, "/v1/deliveries?state=dead", "deliveries", 0).await;
    serving.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_a_webhook_and_its_delivery_leave_a_line_each_in_the_journal() {
    let bench = Bench::new().await;
    let serving = bench.serve(".uid").await;
    *bench.outside.refuses.lock().expect("a flag") = true;
    for _ in 0..2 {
        hook(&serving, json!([{"id": "e1", "record": {"uid": "1"}}])).await;
    }
    let dead = entries(&serving, "/v1/journal?kind=delivery&outcome=dead&endpoint=app", "lines", 1).await;
    assert_eq!((&dead[0]["details"]["reason"], &dead[0]["details"]["tries"]), (&json!("rejected"), &json!(1)));
    let failed =
        entries(&serving, &format!("/v1/journal?id={}&outcome=failed", text(&dead[0]["id"])), "lines", 1).await;
    assert_eq!((&failed[0]["details"]["status"], &failed[0]["details"]["try"]), (&json!(404), &json!(1)));
    let webhooks = entries(&serving, "/v1/journal?kind=webhook&source=crm&connection=acme", "lines", 2).await;
    assert_eq!(texts(&webhooks, "outcome"), ["duplicate", "applied"], "the newest first");
    assert_eq!(
        webhooks[0]["details"],
        json!({"applied": 0, "duplicate": 1, "unrouted": 0, "rejected": 0, "unmapped": 0})
    );

    *bench.outside.items.lock().expect("items") = vec![json!({"uid": "1"})];
    serving.trigger("crm", "acme", "Contact", false).await;
    serving.settled("crm", "acme", "Contact", PATIENCE).await;
    let run = entries(&serving, "/v1/journal?kind=run&stream=Contact", "lines", 1).await;
    assert_eq!((&run[0]["connection"], &run[0]["outcome"]), (&json!("acme"), &json!("complete")), "{run:?}");

    // Page by page, each line once.
    let all = ask(&serving, "/v1/journal?limit=1000").await["lines"].as_array().cloned().expect("lines");
    let (mut met, mut cursor) = (Vec::new(), format!("&cursor={}", text(&all[1]["at"])));
    loop {
        let page = ask(&serving, &format!("/v1/journal?limit=1{cursor}")).await;
        met.extend(page["lines"].as_array().cloned().expect("lines"));
        match page["cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(met, all[2..], "behind the second line");
    let refused = client().get(format!("{}/v1/journal?kind=nothing", serving.url)).bearer_auth(KEY).send().await;
    assert_eq!(refused.expect("an answer").status(), 400);
    serving.stop().await;
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}
