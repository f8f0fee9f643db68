//! What routes declare, and that two processes of a cluster answer each declared route alike.

use super::forwarder::OwnerAnswer;
use super::target::{ConnectionsKnown, Destination, RequestNames};
use super::*;
use crate::app::{App, ShardContext};
use crate::cluster::ShardPlace;
use crate::cluster::spread::Spread;
use crate::config::{self, Origin, Settings};
use crate::engine::Engine;
use crate::engine::model::{Cause, Counts, Timestamp};
use crate::engine::pipeline::run::{Outcome, RunRecord};
use crate::engine::pipeline::{Keyspace, Mark, Options};
use crate::engine::time::ManualClock;
use crate::registry::definitions;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::request::Builder;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;
use tokio::sync::watch;
use tower::ServiceExt;

const KEY: &str = "a-key-for-tests-of-32-characters-or-more";
/// Partitions of the cluster.
const PARTITIONS: i32 = 4;
const SOURCE: &str = r#"
source: crm
base_url: http://127.0.0.1:9
auth: {type: none}
streams:
  - name: Contact
    sync: contacts
    key: .id
    schedule: {every: 12h}
    list: {get: /contacts}
connections: {acme: {}, zenith: {}, a: {}, b: {}, c: {}, d: {}}
"#;

/// What an owner answered.
pub(in crate::api) fn owner_answer(status: u16, body: Value) -> OwnerAnswer {
    let (mut head, ()) = Response::new(()).into_parts();
    head.status = StatusCode::from_u16(status).expect("a status");
    OwnerAnswer { head, body: body.to_string().into() }
}

/// Whom requests of the environment `default` concern, in six partitions, where the only source is `crm`; by what their
/// routes declare.
fn destinations(settings: &Settings) -> Router {
    routes(settings).iter().fold(Router::new(), |router, route| {
        let target = route.target.clone();
        let tell = move |parameters: RawPathParams, request: Request| async move {
            let parameters: Vec<_> = parameters.iter().map(|(n, v)| (n.to_owned(), v.to_owned())).collect();
            let (head, body) = request.into_parts();
            let body = body.collect().await.expect("a body").to_bytes();
            let names = RequestNames { head: &head, parameters: &parameters, body: &body, environment: "default" };
            let only_source = |_: &str| Some("crm".to_owned());
            let known = ConnectionsKnown { spread: Spread { count: 6 }, only_source: &only_source };
            match target.resolve(&names, &known) {
                Destination::Local => "local".to_owned(),
                Destination::Owner(partition) => format!("owner {partition}"),
                Destination::All(_) => "all".to_owned(),
                Destination::Refused(advice) | Destination::Alone(advice) => format!("refused: {advice}"),
            }
        };
        let method = route.method.clone().and_then(|method| MethodFilter::try_from(method).ok());
        both(router, &route.path, method.map_or_else(|| any(tell.clone()), |method| on(method, tell.clone())))
    })
}

async fn concerns(router: &Router, method: &str, path: &str, body: Value) -> String {
    let request = Request::builder().method(method).uri(path).body(Body::from(body.to_string())).expect("a request");
    let answer = router.clone().oneshot(request).await.expect("an answer");
    let body = answer.into_body().collect().await.expect("a body").to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

#[tokio::test]
async fn lists_of_connections_are_their_owners() {
    let router = destinations(&Settings::default());
    let metadata = async |ids: Value| {
        let body = json!({"connection_id": ids, "provider_config_key": "crm", "metadata": {}});
        concerns(&router, "POST", "/connections/metadata", body).await
    };
    // `zenith` and `b` are of partition 0, `acme` of 4.
    assert_eq!(metadata(json!("acme")).await, "owner 4");
    assert_eq!(metadata(json!(["acme"])).await, "owner 4", "a list of one is that one");
    assert_eq!(metadata(json!(["zenith", "b"])).await, "owner 0");
    assert!(metadata(json!(["zenith", "acme"])).await.contains("send a call for each connection"));
    assert_eq!(metadata(json!([])).await, "local", "any process refuses that");
}

#[tokio::test]
async fn what_only_owners_know_is_asked_of_all() {
    let router = destinations(&Settings::default());
    let concerns = async |method: &str, path: &str, body: Value| concerns(&router, method, path, body).await;
    assert_eq!(concerns("GET", "/connections?search=a", Value::Null).await, "all");
    assert_eq!(concerns("GET", "/connection/", Value::Null).await, "all");
    for path in ["/connections/acme", "/v1/connections/acme", "/connections/%61cme"] {
        assert_eq!(concerns("GET", path, Value::Null).await, "owner 4");
        let deletes = format!("{path}?provider_config_key=crm");
        assert_eq!(concerns("DELETE", &deletes, Value::Null).await, "owner 4");
    }
    let named = json!({"connection_id": "acme", "provider_config_key": "crm"});
    assert_eq!(concerns("POST", "/connections", named).await, "owner 4");
    let unnamed = json!({"provider_config_key": "crm"});
    assert!(concerns("POST", "/v1/connections", unnamed).await.contains("name `connection_id`"));
    assert_eq!(concerns("GET", "/v1/inputs", Value::Null).await, "all");
    assert_eq!(concerns("GET", "/v1/quarantine?source=crm&connection=acme", Value::Null).await, "all");
    assert_eq!(concerns("POST", "/v1/deliveries/retry", json!({"endpoint": "a"})).await, "all");
    let start = json!({"start": "earliest"});
    assert_eq!(concerns("POST", "/v1/inputs/orders/restart", start).await, "all");
    assert!(concerns("GET", "/v1/changes", Value::Null).await.contains("follow each"));
}

#[tokio::test]
async fn several_connections_are_followed_where_they_have_one_owner() {
    let router = destinations(&Settings::default());
    let changes = async |of: &str| concerns(&router, "GET", &format!("/v1/changes?{of}"), Value::Null).await;
    assert_eq!(changes("source=crm&connection=zenith&connection=b").await, "owner 0");
    assert!(changes("source=crm&connection=zenith&connection=acme").await.contains("follow each"));
    assert_eq!(changes("connection=acme").await, "owner 4", "the source is the only one that has it");
}

#[tokio::test]
async fn a_run_is_its_owners_and_one_that_nobody_began_is_unknown_anywhere() {
    let router = destinations(&Settings::default());
    let run = async |id: &str| concerns(&router, "GET", &format!("/v1/runs/{id}"), Value::Null).await;
    let of = |part: u64| format!("run_{:014x}", (part << 40) | 1);
    let owners: Vec<u16> = (0..2).map(|part| Engine::part_of((part << 40) | 1)).collect();
    for (part, owner) in owners.iter().enumerate() {
        assert_eq!(run(&of(part as u64)).await, format!("owner {owner}"));
    }
    assert_eq!(run("run_ffffffffffffff").await, "local");
    assert_eq!(run("nothing").await, "local");
}

#[cfg(feature = "functions")]
#[tokio::test]
async fn an_action_is_its_connections_and_its_result_is_where_it_ran() {
    let router = destinations(&Settings::default());
    let trigger = |connection: &str| {
        let request = Request::builder().method("POST").uri("/action/trigger").header("provider-config-key", "crm");
        request.header("connection-id", connection).body(Body::from(r#"{"action_name": "act"}"#)).expect("a request")
    };
    for (connection, owner) in [("acme", "owner 4"), ("zenith", "owner 0")] {
        let answer = router.clone().oneshot(trigger(connection)).await.expect("an answer");
        assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes(), owner);
    }
    let result = async |id: &str| concerns(&router, "GET", &format!("/action/{id}"), Value::Null).await;
    assert_eq!(result("act_00030123456789abcdef0123456789abcdef").await, "owner 3");
    for unknown in ["act_00070123456789abcdef0123456789abcdef", "act_0003", "nothing", "act_000301234567%C3%A9"] {
        assert_eq!(result(unknown).await, "local", "{unknown}");
    }
}

/// A process of a cluster in this one, which owns every second partition.
struct TestMember {
    front: Arc<App>,
    own: BTreeMap<i32, Arc<App>>,
    other: String,
    moved: watch::Sender<u64>,
}

impl ClusterMember for TestMember {
    fn front(&self) -> &Arc<App> {
        &self.front
    }

    fn spread(&self) -> Spread {
        Spread { count: PARTITIONS }
    }

    fn place(&self, partition: i32) -> ShardPlace {
        match self.own.get(&partition) {
            Some(app) => ShardPlace::Here(app.clone()),
            None => ShardPlace::There(self.other.clone()),
        }
    }

    fn moved(&self) -> watch::Receiver<u64> {
        self.moved.subscribe()
    }

    fn proof(&self) -> String {
        "a proof".to_owned()
    }

    fn is_own(&self, proof: &str) -> bool {
        proof == "a proof"
    }
}

fn settings(folder: &Path) -> Settings {
    std::fs::create_dir(folder.join("sources")).expect("a folder");
    std::fs::write(folder.join("sources/crm.yaml"), SOURCE).expect("a definition");
    let text = json!({
        "data_dir": folder.join("data"), "sources": folder.join("sources"), "workers": 1, "encryption": "off",
        "egress": {"allow_http": true, "allow": ["127.0.0.0/8", "127.0.0.1:9"]},
        "api_keys": [{"name": "tests", "key": "env:TEST_KEY", "role": "admin"}],
    });
    let file = folder.join("syncline.yaml");
    std::fs::write(&file, text.to_string()).expect("settings");
    let origin = Origin { flags: vec![], env: vec![("TEST_KEY".into(), KEY.into())], files: vec![file] };
    config::load(&origin).expect("good settings").settings
}

/// An app over a folder of its own: of one partition, or of all connections.
async fn app(folder: &Path, settings: &Settings, name: &str, partition: Option<i32>) -> Arc<App> {
    let all = definitions::load(settings).expect("good definitions");
    let spread = Spread { count: PARTITIONS };
    let clock = Arc::new(ManualClock::new(Timestamp::parse("2026-04-14T18:46:03Z").expect("a time")));
    let options = Options { data_dir: Some(folder.join(name)), workers: 1, clock, ..Options::default() };
    let other_shards = partition.map(|partition| spread.other_shards(&all, partition));
    let part = ShardContext { name: name.to_owned(), other_shards, ..ShardContext::default() };
    let own = partition.map_or(all.clone(), |partition| spread.definitions(&all, partition));
    let engine = Engine::open(options).expect("an engine");
    App::of_part(engine, settings.clone(), own, part).await.expect("an app")
}

/// One process with everything, and two that share it.
struct Processes {
    alone: Router,
    shared: [Router; 2],
    stop: CancellationToken,
}

impl Processes {
    async fn start(folder: &Path) -> Processes {
        Processes::of(folder, settings(folder)).await
    }

    async fn of(folder: &Path, settings: Settings) -> Processes {
        let front = app(folder, &settings, "front", None).await;
        let alone = app(folder, &settings, "alone", None).await;
        let mut apps = BTreeMap::new();
        for partition in 0..PARTITIONS {
            apps.insert(partition, app(folder, &settings, &partition.to_string(), Some(partition)).await);
        }
        // One after the other, and not in the order of their owners.
        for (minute, connection) in ["acme", "zenith", "a", "b"].into_iter().enumerate() {
            let minute = i64::try_from(minute).expect("a few");
            let owner = Spread { count: PARTITIONS }.of("default", "crm", connection);
            ran(&alone, connection, minute).await;
            ran(&apps[&owner], connection, minute).await;
        }
        let stop = CancellationToken::new();
        let mut listeners = Vec::new();
        for _ in 0..2 {
            listeners.push(tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port"));
        }
        let url = |n: usize| format!("http://{}", listeners[n].local_addr().expect("an address"));
        let shared = [0, 1].map(|n| {
            let own = apps.iter().filter(|(partition, _)| **partition as usize % 2 == n);
            let own = own.map(|(partition, app)| (*partition, app.clone())).collect();
            let member = TestMember { front: front.clone(), own, other: url(1 - n), moved: watch::Sender::new(0) };
            router(Arc::new(member), stop.clone()).expect("a router")
        });
        for (listener, router) in listeners.into_iter().zip(shared.clone()) {
            tokio::spawn(axum::serve(listener, router).into_future());
        }
        Processes { alone: crate::api::router(alone), shared, stop }
    }
}

/// An answer without what differs from request to request.
async fn ask(router: &Router, request: &dyn Fn() -> Builder, body: &str) -> (u16, Value, String) {
    let request = request().header("authorization", format!("Bearer {KEY}")).body(Body::from(body.to_owned()));
    let answer = router.clone().oneshot(request.expect("a request")).await.expect("an answer");
    let status = answer.status().as_u16();
    let text = answer.into_body().collect().await.expect("a body").to_bytes();
    let text = String::from_utf8_lossy(&text).into_owned();
    let mut json: Value = serde_json::from_str(&text).unwrap_or_default();
    if let Some(error) = json.get_mut("error").and_then(Value::as_object_mut) {
        error.remove("request_id");
    }
    (status, json, text)
}

/// The path of a route with something in the place of each parameter.
fn filled(path: &str) -> String {
    let part = |part: &str| match part {
        "{id}" | "{run}" if !path.contains("connection") => "run_00000000000001".to_owned(),
        "{id}" => "acme".to_owned(),
        "{*rest}" => "some/thing".to_owned(),
        _ if part.starts_with('{') => "some".to_owned(),
        _ => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

/// Queries under which lists have something to say, and bodies that change nothing.
const QUERIES: [&str; 6] = [
    "",
    "?provider_config_key=crm",
    "?source=crm&connection=zenith",
    "?provider_config_key=crm&syncs=*",
    "?model=Contact",
    "?limit=2",
];
const BODIES: [&str; 2] = ["{}", r#"{"provider_config_key": "crm", "connection_id": "acme"}"#];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_declared_route_is_answered_alike_by_every_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let processes = Processes::start(folder.path()).await;
    let mut lists = 0;
    for route in routes(&settings_of(&folder)).iter() {
        let method = route.method.clone().unwrap_or(Method::POST);
        let queries = if method == Method::GET { &QUERIES[..] } else { &QUERIES[..2] };
        let bodies = if method == Method::GET { &[""][..] } else { &BODIES[..] };
        for (query, body) in queries.iter().flat_map(|query| bodies.iter().map(move |body| (query, body))) {
            let path = format!("{}{query}", filled(&route.path));
            let what = format!("{method} {path} {body}");
            let request = || {
                let request = Request::builder().method(method.clone()).uri(&path);
                request.header("provider-config-key", "crm").header("connection-id", "zenith")
            };
            let (status, _, text) = ask(&processes.alone, &request, body).await;
            assert!(!text.contains("nothing is served at") && ![405, 500].contains(&status), "{what}: {status} {text}");
            let one = ask(&processes.shared[0], &request, body).await;
            let other = ask(&processes.shared[1], &request, body).await;
            assert!(![405, 500, 502, 503].contains(&one.0), "{what}: {one:?}");
            assert_eq!(one.0, other.0, "{what}: {one:?} {other:?}");
            if method == Method::GET {
                assert_eq!(one.1, other.1, "{what}");
                lists += usize::from(one.1.as_object().is_some_and(|list| list.values().any(Value::is_array)));
                let head = || request().method(Method::HEAD);
                let (head_status, _, text) = ask(&processes.shared[1], &head, "").await;
                assert_eq!((head_status, text.as_str()), (one.0, ""), "HEAD {path}");
            }
        }
    }
    assert!(lists > 15, "lists were compared: {lists}");
    processes.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_is_passed_on_streams_through_whoever_is_asked() {
    const BYTES: usize = 6 << 20;
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(folder.path());
    let provider = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", provider.local_addr().expect("an address"));
    let definition = SOURCE.replace("http://127.0.0.1:9", &url);
    std::fs::write(folder.path().join("sources/crm.yaml"), definition).expect("a definition");
    // What it is sent it sends back, as it comes.
    let echo = Router::new().fallback(|request: Request| async move { request.into_body() });
    tokio::spawn(axum::serve(provider, echo).into_future());
    let processes = Processes::of(folder.path(), settings).await;
    for (router, connection) in processes.shared.iter().flat_map(|router| [(router, "acme"), (router, "b")]) {
        let parts = (0..BYTES >> 16).map(|_| Ok::<_, std::io::Error>(bytes::Bytes::from(vec![7; 1 << 16])));
        let body = Body::from_stream(futures_util::stream::iter(parts));
        let request = Request::builder().method("POST").uri("/proxy/some/thing?x=1");
        let request = request.header("authorization", format!("Bearer {KEY}")).header("provider-config-key", "crm");
        let request = request.header("connection-id", connection).body(body).expect("a request");
        let answer = router.clone().oneshot(request).await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::OK, "{connection}");
        // More than a body that is forwarded as a whole may have.
        assert_eq!(answer.into_body().collect().await.expect("a body").to_bytes().len(), BYTES, "{connection}");
    }
    processes.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_of_all_owners_is_that_of_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let processes = Processes::start(folder.path()).await;
    for (path, list, field, count) in [
        ("/connections", "connections", "connection_id", 6),
        ("/sync/status?provider_config_key=crm&syncs=*", "syncs", "connection_id", 6),
        ("/v1/runs", "runs", "started_at", 4),
        ("/v1/runs?limit=3", "runs", "started_at", 3),
        ("/v1/runs?source=crm&connection=zenith", "runs", "started_at", 1),
        ("/v1/runs?connection=acme", "runs", "started_at", 1),
        ("/v1/quarantine", "entries", "connection", 4),
        ("/v1/quarantine?limit=3", "entries", "connection", 3),
    ] {
        let request = || Request::builder().uri(path);
        let told = async |router: &Router| {
            let (status, answer, text) = ask(router, &request, "").await;
            assert_eq!(status, 200, "{text}");
            let mut told: Vec<Value> =
                answer[list].as_array().expect("a list").iter().map(|one| one[field].clone()).collect();
            if field == "connection_id" {
                // Made at one time, they have no order of their own.
                told.sort_by_key(Value::to_string);
            }
            told
        };
        let alone = told(&processes.alone).await;
        assert_eq!(alone.len(), count, "{path}: {alone:?}");
        for shared in &processes.shared {
            assert_eq!(told(shared).await, alone, "{path}");
        }
    }
    processes.stop.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn syncs_of_all_connections_are_begun_where_most_shards_have_none() {
    let folder = tempfile::tempdir().expect("a folder");
    let settings = settings(folder.path());
    let (name, lone) = ("sources/lone.yaml", SOURCE.replace("source: crm", "source: lone"));
    let lone = lone.replace("{acme: {}, zenith: {}, a: {}, b: {}, c: {}, d: {}}", "{only: {}}");
    std::fs::write(folder.path().join(name), lone).expect("a definition");
    let processes = Processes::of(folder.path(), settings).await;
    for (path, sync, wanted) in [
        ("/sync/trigger", "contacts", 200),
        ("/sync/pause", "contacts", 200),
        ("/sync/start", "contacts", 200),
        ("/sync/start", "nothing", 400),
        ("/sync/start", "contacts::other", 400),
    ] {
        let body = json!({"provider_config_key": "lone", "syncs": [sync]}).to_string();
        let request = || Request::builder().method("POST").uri(path);
        for router in [&processes.alone, &processes.shared[0], &processes.shared[1]] {
            let (status, answer, _) = ask(router, &request, &body).await;
            assert_eq!(status, wanted, "{path} {sync}: {answer}");
        }
    }
    processes.stop.cancel();
}

#[cfg(feature = "functions")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_of_other_processes_alone_ask_a_shard_that_is_here() {
    let folder = tempfile::tempdir().expect("a folder");
    let processes = Processes::start(folder.path()).await;
    let shard = Spread { count: PARTITIONS }.of("default", "crm", "acme");
    let (here, elsewhere) = (shard as usize % 2, 1 - shard as usize % 2);
    let path = format!("/cluster/functions/{shard}");
    let about = async |process: usize, proof: &str, connection: &str| {
        let asked =
            json!({"environment": "default", "source": "crm", "connection": connection, "wanted": "description"});
        let request = || Request::builder().method("POST").uri(&path).header(PROOF, proof);
        ask(&processes.shared[process], &request, &asked.to_string()).await
    };
    let (status, known, _) = about(here, "a proof", "acme").await;
    let known: Value = serde_json::from_str(known["output"].as_str().expect("an output")).expect("JSON");
    assert_eq!((status, &known["connection_id"], &known["credentials"]), (200, &json!("acme"), &json!({})));
    assert_eq!(about(elsewhere, "a proof", "acme").await.1, json!("not_here"));
    let (_, unknown, _) = about(here, "a proof", "nobody").await;
    assert_eq!(unknown["failed"]["code"], "unknown_connection", "{unknown}");
    // Whoever has a key of the installation is no process of it.
    assert_eq!(about(here, "another proof", "acme").await.0, 404);
    let request = || Request::builder().method("POST").uri(&path).header(PROOF, "a proof");
    assert_eq!(ask(&processes.shared[here], &request, "{}").await.0, 400);
    processes.stop.cancel();
}

/// A run that has ended, the later the higher its minute, and what it could not take.
async fn ran(app: &App, connection: &str, minute: i64) {
    let started_at = Timestamp(minute * 60_000_000);
    let run = RunRecord {
        id: Cause::run(app.engine.next_run().expect("a number")).to_string(),
        connection: connection.to_owned(),
        variant: "base".to_owned(),
        sync: "contacts".to_owned(),
        kind: "FULL".to_owned(),
        status: Outcome::Complete,
        started_at,
        ended_at: Some(started_at),
        counts: Counts::default(),
        pages: 1,
        requests: 1,
        not_modified: 0,
        retries: 0,
        quarantined: 0,
        warnings: 0,
        samples: Vec::new(),
        doubts: Vec::new(),
        error: None,
        held: None,
        bookmark: false,
        definition: String::new(),
        models: Default::default(),
    };
    let entry =
        json!({"code": "bad_key", "message": "no key", "id": null, "item": "{}", "cause": run.id, "at": started_at});
    let marks = vec![
        Mark::put(Keyspace::RUN, &["default", "crm", "Contact", &run.id], json!(run).to_string()),
        Mark::put(Keyspace::QUARANTINE, &["default", "crm", connection, "Contact", "run/0"], entry.to_string()),
    ];
    app.engine.put_marks(marks).await.expect("a commit");
}

fn settings_of(folder: &tempfile::TempDir) -> Settings {
    let file = folder.path().join("syncline.yaml");
    let origin = Origin { flags: vec![], env: vec![("TEST_KEY".into(), KEY.into())], files: vec![file] };
    config::load(&origin).expect("good settings").settings
}
