//! A served app on a free port, with a small CRM definition that nobody polls: tests put records in themselves.

use crate::wire::{self, Answer};
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use syncline::app::App;
use syncline::config::{self, Origin};
use syncline::server;
use syncline_engine::model::{Cause, DatasetName, Strategy, Timestamp};
use syncline_engine::pipeline::{Batch, Dataset, DatasetSpec, Receipt};
use syncline_engine::time::ManualClock;
use syncline_engine::views::Definition;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// Keys of three roles in the environment `default`, and one of another environment.
pub const ADMIN: &str = "admin-0123456789abcdef0123456789";
/// See [`ADMIN`].
pub const WRITER: &str = "writer-0123456789abcdef012345678";
/// See [`ADMIN`].
pub const READER: &str = "reader-0123456789abcdef012345678";
/// See [`ADMIN`].
pub const OTHER: &str = "other-0123456789abcdef0123456789";

/// Of no environment: it sees the figures of all.
pub const FIGURES: &str = "figures-0123456789abcdef01234567";

const SETTINGS: &str = r#"
listen: 127.0.0.1:0
egress: {allow_http: true, allow: [127.0.0.0/8, "127.0.0.1:9"]}
workers: 1
api_keys:
  - {name: admin, key: env:ADMIN, role: admin}
  - {name: writer, key: env:WRITER, role: writer}
  - {name: reader, key: env:READER, role: reader}
  - {name: other, key: env:OTHER, role: admin, environment: other}
  - {name: figures, key: env:FIGURES, role: reader, environment: "*"}
"#;

const DEFINITION: &str = r#"
source: crm
base_url: http://127.0.0.1:9
auth: {type: bearer}
streams:
  - name: Contact
    sync: contacts
    key: .id
    schedule: {every: 1h}
    list: {get: /contacts}
  - name: Deal
    sync: deals
    key: .id
    schedule: {every: 2h}
    list: {get: /deals}
connections:
  acme:
    credentials: {token: "file:acme.token"}
    metadata: {plan: pro, region: eu}
    tags: [team=red]
  zenith:
    credentials: {token: "file:acme.token"}
  hidden:
    environment: other
    credentials: {token: "file:acme.token"}
"#;

/// The app and its server.
pub struct Served {
    /// The app; nothing of it is started, so nothing polls.
    pub app: Arc<App>,
    /// Its clock stands still until a test turns it.
    pub clock: Arc<ManualClock>,
    address: SocketAddr,
    stop: tokio_util::sync::CancellationToken,
    task: JoinHandle<()>,
}

/// A folder for settings, definitions and data.
pub fn folder() -> TempDir {
    let dir = tempfile::tempdir().expect("a temporary folder");
    std::fs::create_dir(dir.path().join("sources")).expect("folder");
    std::fs::write(dir.path().join("syncline.yaml"), SETTINGS).expect("settings");
    std::fs::write(dir.path().join("sources/crm.yaml"), DEFINITION).expect("definition");
    std::fs::write(dir.path().join("sources/acme.token"), "t0ken\n").expect("token");
    dir
}

impl Served {
    /// Opens and serves what lies in `dir`.
    pub async fn open(dir: &Path) -> Served {
        Served::open_with(dir, None).await
    }

    /// The same, with views.
    pub async fn open_with(dir: &Path, views: Option<Definition>) -> Served {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let path = |name: &str| dir.join(name).display().to_string();
        let origin = Origin {
            flags: vec![pair("data_dir", &path("data")), pair("sources", &path("sources"))],
            env: vec![
                pair("ADMIN", ADMIN),
                pair("WRITER", WRITER),
                pair("READER", READER),
                pair("OTHER", OTHER),
                pair("FIGURES", FIGURES),
            ],
            files: vec![dir.join("syncline.yaml")],
        };
        let mut settings = config::load(&origin).expect("good settings").settings;
        settings.extensions.views = views;
        let start = Timestamp::parse("2026-04-14T18:46:03.097459Z").expect("a time");
        let clock = Arc::new(ManualClock::new(start));
        let app = App::open(settings, clock.clone()).await.expect("an app");
        let listener = server::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let stop = tokio_util::sync::CancellationToken::new();
        let router = syncline::api::router_until(app.clone(), stop.clone());
        let task = tokio::spawn(server::serve(listener, router, stop.clone()));
        Served { app, clock, address, stop, task }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops the server and closes the store.
    pub async fn close(self) {
        self.stop.cancel();
        let _ = self.task.await;
        self.app.stop().await.expect("a clean stop");
    }

    /// One request, exactly as said.
    pub async fn raw(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        wire::send(self.address, method, path, headers, body).await.expect("an answer")
    }

    /// A request with a key, and a JSON body if there is one.
    pub async fn ask(&self, key: &str, method: &str, path: &str, body: Option<Value>) -> Answer {
        let bearer = format!("Bearer {key}");
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        self.raw(method, path, &[("authorization", &bearer), ("content-type", "application/json")], body.as_bytes())
            .await
    }

    /// `GET /records` of the connection `acme`.
    pub async fn records(&self, query: &str) -> Answer {
        self.records_of(READER, "acme", query).await
    }

    /// `GET /records` of a connection.
    pub async fn records_of(&self, key: &str, connection: &str, query: &str) -> Answer {
        let bearer = format!("Bearer {key}");
        let headers =
            [("authorization", bearer.as_str()), ("provider-config-key", "crm"), ("connection-id", connection)];
        self.raw("GET", &format!("/records?{query}"), &headers, b"").await
    }

    /// The dataset of a model of a connection in the environment `default`.
    pub fn dataset(&self, connection: &str, model: &str) -> Dataset {
        self.dataset_in("default", connection, model)
    }

    /// The dataset of a model.
    pub fn dataset_in(&self, environment: &str, connection: &str, model: &str) -> Dataset {
        let name = DatasetName::base(environment, "crm", connection, model);
        let spec = DatasetSpec { strategy: Strategy::Override, ignore_in_diff: Vec::new() };
        self.app.engine.find(&name).unwrap_or_else(|| self.app.engine.dataset(&name, &spec).expect("a dataset"))
    }

    /// Commits records: (id, value of the field `v`), or `None` for a delete. The clock moves a second.
    pub async fn put(&self, dataset: &Dataset, records: &[(&str, Option<i64>)]) -> Receipt {
        use syncline_engine::time::Clock;
        self.clock.advance(Duration::from_secs(1));
        let now = self.clock.now();
        let mut page = self.app.engine.page(dataset);
        for (id, value) in records {
            match value {
                Some(v) => {
                    let payload = serde_json::json!({"id": id, "v": v}).to_string();
                    page.save(id, None, now, payload.as_bytes());
                }
                None => page.delete(id, None, now, None),
            }
        }
        let run = self.app.engine.next_run().expect("a number");
        let batch = Batch { cause: Some(Cause::run(run)), pages: vec![page], ..Batch::default() };
        self.app.engine.commit(batch).await.expect("a commit")
    }
}
