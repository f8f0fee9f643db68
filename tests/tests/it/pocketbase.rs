//! A real server as the source: PocketBase, polled and heard through its signed hooks.
//!
//! Thousands of records are created, changed and deleted through PocketBase's own API; the webhooks of some get lost. Then
//! what Syncline serves over HTTP equals PocketBase's own listing, and the history tells each change exactly once. The same of the
//! repository's example in TypeScript, with fewer.

use reqwest::{Client, Method, RequestBuilder};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};
use syncline_tests::serving::{Serving, answer, client};
use syncline_tests::tools::{Running, build_go, run, source};

/// Records made in all. Every tenth is called `lost`: PocketBase's hooks stay silent about it.
const RECORDS: usize = 3_000;
/// Requests in one batch; PocketBase is told to take so many.
const BATCH: usize = 250;
/// Longest wait for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(120);
const SECRET: &str = "what PocketBase signs with and we check";
const IDENTITY: (&str, &str) = ("root@example.com", "a long enough password");
/// The fields the definition maps.
const FIELDS: [&str; 7] = ["id", "title", "rank", "done", "tags", "created", "updated"];
/// Source, connection, stream.
const AT: [&str; 3] = ["pocketbase", "local", "Task"];

#[tokio::test(flavor = "multi_thread")]
async fn pocketbase_and_syncline_agree() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pocketbase = PocketBase::start(folder.path()).await;
    let syncline = Serving::start(folder.path(), &definition(folder.path(), &pocketbase)).await;
    settled(&syncline).await;
    pocketbase.tell(&syncline.hook_url(AT[0]));

    // Runs go on while records are made and changed: pages shift under them.
    let (ids, ()) = tokio::join!(pocketbase.create(), poll(&syncline));
    expect_changes(&syncline, RECORDS, "created").await;

    let updated: Vec<_> = ids.iter().enumerate().filter(|(n, _)| n % 2 == 0).map(|(_, id)| id.clone()).collect();
    tokio::join!(pocketbase.update(&updated), poll(&syncline));
    expect_changes(&syncline, RECORDS + updated.len(), "updated").await;

    let deleted: Vec<_> = ids.iter().enumerate().filter(|(n, _)| n % 5 == 0).map(|(_, id)| id.clone()).collect();
    tokio::join!(pocketbase.delete(&deleted), poll(&syncline));
    syncline.trigger(AT[0], AT[1], AT[2], true).await;
    settled(&syncline).await;
    expect_changes(&syncline, RECORDS + updated.len() + deleted.len(), "deleted").await;

    let listing = pocketbase.listing().await;
    assert_eq!(listing.len(), RECORDS - deleted.len());
    let rows = syncline.records(AT[0], AT[1], AT[2]).await;
    same_records(&rows, &listing, &deleted);
    let changes = syncline.changes(AT[0], AT[1], AT[2]).await;
    each_change_once(&changes, [RECORDS, updated.len(), deleted.len()]);
    syncline.stop().await;
}

/// Posts of the example; every tenth is lost.
const POSTS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn the_example_in_typescript_hears_of_each_change_and_lists_what_was_lost() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pocketbase = PocketBase::start(folder.path()).await;
    let sources = example(folder.path(), &pocketbase);
    let functions = json!({"functions": {"path": folder.path().join("functions"), "in_process": true}});
    let syncline = Serving::start_with(folder.path(), &sources, functions).await;
    let at = ["pocketbase", "mine", "Post"];
    let settled = async || {
        let sync = syncline.settled(at[0], at[1], "posts", PATIENCE).await;
        assert_eq!(sync["status"], "SUCCESS", "{sync}");
    };
    settled().await;
    pocketbase.tell(&syncline.hook_url(at[0]));

    let path = "/api/collections/posts/records";
    let all = || 0..POSTS;
    let create = |n: usize| {
        let title = format!("{}post {n}", if n.is_multiple_of(10) { "lost " } else { "" });
        let body = json!({"title": title, "text": "<p>ü</p>", "published": n.is_multiple_of(2)});
        json!({"method": "POST", "url": path, "body": body})
    };
    let created = pocketbase.batches(&all().map(create).collect::<Vec<_>>()).await;
    let ids: Vec<String> = created.iter().map(|one| text(&one["body"]["id"])).collect();
    let update = |n: usize| json!({"method": "PATCH", "url": format!("{path}/{}", ids[n]), "body": {"text": "new"}});
    pocketbase.batches(&all().filter(|n| n % 2 == 0).map(update).collect::<Vec<_>>()).await;
    let delete = |n: usize| json!({"method": "DELETE", "url": format!("{path}/{}", ids[n])});
    pocketbase.batches(&all().filter(|n| n % 3 == 0).map(delete).collect::<Vec<_>>()).await;

    // Webhooks alone: 54 of 60 are told of, 24 of 30 updates, 18 of 20 deletes.
    let told = 54 + 24 + 18;
    let heard = syncline.changes_of(at, told, PATIENCE).await;
    assert_eq!(heard.len(), told, "{:?}", tally(&heard));
    assert!(heard.iter().all(|change| change["via"] == "webhook"), "{:?}", tally(&heard));
    syncline.trigger(at[0], at[1], "posts", false).await;
    settled().await;
    let changes = syncline.changes_of(at, told + 4, PATIENCE).await;
    let by = tally(&changes[told..]);
    assert_eq!(
        by,
        BTreeMap::from([("ADDED by poll".to_owned(), 4)]),
        "of the lost ones 4 were left, and nothing came twice"
    );

    let listed = answer(
        pocketbase
            .client
            .get(pocketbase.url(&format!("{path}?perPage=500")))
            .header("authorization", &pocketbase.token),
    )
    .await;
    let post = |row: &Value| ["id", "title", "text", "published", "created", "updated"].map(|name| row[name].clone());
    let mut wanted: Vec<_> = listed["items"].as_array().expect("items").iter().map(post).collect();
    let rows = syncline.records(at[0], at[1], at[2]).await;
    let live = rows.iter().filter(|row| row["_nango_metadata"]["last_action"] != "DELETED");
    let mut live: Vec<_> = live.map(post).collect();
    wanted.sort_by_key(|row| text(&row[0]));
    live.sort_by_key(|row| text(&row[0]));
    assert_eq!((live.len(), live), (40, wanted));
    syncline.stop().await;
}

/// Lays out the repository's example as a user would: its function, and its source with this PocketBase in it.
fn example(folder: &Path, pocketbase: &PocketBase) -> PathBuf {
    let (from, sources) = (source("../functions/pocketbase"), folder.join("sources"));
    let syncs = folder.join("functions/pocketbase/syncs");
    fs::create_dir_all(&syncs).expect("a folder for functions");
    fs::create_dir_all(&sources).expect("a folder for definitions");
    fs::copy(from.join("syncs/posts.ts"), syncs.join("posts.ts")).expect("copied");
    let mut written = fs::read_to_string(from.join("pocketbase.yaml")).expect("the definition");
    let here = format!("http://{}", pocketbase.address);
    let places = [
        ("https://pocketbase.example", here.as_str()),
        ("env:POCKETBASE_TOKEN", "\"file:token\""),
        ("env:POCKETBASE_WEBHOOK_SECRET", "\"file:webhook_secret\""),
    ];
    for (example, ours) in places {
        assert!(written.contains(example), "{example}: {written}");
        written = written.replace(example, ours);
    }
    fs::write(sources.join("pocketbase.yaml"), written).expect("written");
    fs::write(sources.join("token"), &pocketbase.token).expect("written");
    fs::write(sources.join("webhook_secret"), SECRET).expect("written");
    sources
}

/// One run of what changed, to its end.
async fn poll(syncline: &Serving) {
    syncline.trigger(AT[0], AT[1], AT[2], false).await;
    settled(syncline).await;
}

async fn settled(syncline: &Serving) {
    let sync = syncline.settled(AT[0], AT[1], AT[2], PATIENCE).await;
    assert_eq!(sync["status"], "SUCCESS", "{sync}");
}

/// Webhooks told most of it, a last poll the rest.
async fn expect_changes(syncline: &Serving, count: usize, what: &str) {
    poll(syncline).await;
    let changes = syncline.changes_of(AT, count, PATIENCE).await;
    assert_eq!(changes.len(), count, "changes once all records were {what}: {:?}", tally(&changes));
}

fn tally(changes: &[Value]) -> BTreeMap<String, usize> {
    let mut tally = BTreeMap::new();
    for change in changes {
        *tally.entry(format!("{} by {}", text(&change["action"]), text(&change["via"]))).or_default() += 1;
    }
    tally
}

fn same_records(rows: &[Value], listing: &BTreeMap<String, Value>, deleted: &[String]) {
    let (gone, live): (Vec<_>, Vec<_>) =
        rows.iter().partition(|row| row["_nango_metadata"]["last_action"] == "DELETED");
    let live: BTreeMap<String, Value> = live.into_iter().map(|row| (text(&row["id"]), fields(row))).collect();
    for (id, theirs) in listing {
        assert_eq!(live.get(id), Some(theirs), "record {id}");
    }
    assert_eq!(live.len(), listing.len(), "records PocketBase does not have");
    let mut gone: Vec<String> = gone.iter().map(|row| text(&row["id"])).collect();
    let mut deleted = deleted.to_vec();
    gone.sort();
    deleted.sort();
    assert_eq!(gone, deleted, "deleted records");
}

fn each_change_once(changes: &[Value], [added, updated, deleted]: [usize; 3]) {
    let of = |action: &str| changes.iter().filter(|c| c["action"] == action).count();
    assert_eq!([of("ADDED"), of("UPDATED"), of("DELETED")], [added, updated, deleted], "{:?}", tally(changes));
    let mut by_key: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for change in changes {
        by_key.entry(text(&change["key"])).or_default().push(change);
    }
    for (key, changes) in by_key {
        assert_eq!(changes[0]["action"], "ADDED", "{key}");
        for pair in changes.windows(2) {
            assert_ne!(pair[1]["action"], "ADDED", "{key} was added twice");
            assert_ne!(pair[0]["action"], "DELETED", "{key} changed after it was gone");
            assert!(
                pair[1]["action"] == "DELETED" || pair[0]["after"] != pair[1]["after"],
                "{key}: told twice: {pair:?}"
            );
        }
    }
    let by = tally(changes);
    for way in ["ADDED by webhook", "ADDED by poll", "UPDATED by poll", "DELETED by webhook", "DELETED by poll"] {
        assert!(by.contains_key(way), "nothing was {way}: {by:?}");
    }
}

fn fields(record: &Value) -> Value {
    FIELDS.iter().map(|name| ((*name).to_owned(), record[*name].clone())).collect::<serde_json::Map<_, _>>().into()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// Writes the definition and its secrets; answers the folder.
fn definition(folder: &Path, pocketbase: &PocketBase) -> PathBuf {
    let sources = folder.join("sources");
    let written = fs::read_to_string(source("interop/pocketbase/tasks.yaml")).expect("the definition");
    fs::create_dir_all(&sources).expect("a folder for definitions");
    fs::write(sources.join("tasks.yaml"), written.replace("POCKETBASE", &pocketbase.address)).expect("written");
    fs::write(sources.join("token"), &pocketbase.token).expect("written");
    fs::write(sources.join("webhook_secret"), SECRET).expect("written");
    sources
}

/// A PocketBase of our own, in a temporary folder, on a free port.
struct PocketBase {
    address: String,
    token: String,
    hook_file: PathBuf,
    client: Client,
    _server: Running,
}

impl PocketBase {
    async fn start(folder: &Path) -> PocketBase {
        let program = build_go("interop/pocketbase", "pocketbase").unwrap_or_else(|why| panic!("{why}"));
        let home = folder.join("pocketbase");
        let hooks = home.join("pb_hooks");
        fs::create_dir_all(&hooks).expect("a folder for hooks");
        for entry in fs::read_dir(source("interop/pocketbase/pb_hooks")).expect("hooks").flatten() {
            fs::copy(entry.path(), hooks.join(entry.file_name())).expect("copied");
        }
        let data = home.join("pb_data");
        let superuser = ["superuser", "upsert", IDENTITY.0, IDENTITY.1, "--dir"];
        run(Command::new(&program).args(superuser).arg(&data), &home.join("superuser.log"), PATIENCE)
            .expect("a superuser");
        let address = free_address();
        let hook_file = folder.join("hook");
        let mut command = Command::new(&program);
        command.args(["serve", "--http", &address, "--dir"]).arg(&data);
        command.env("SYNCLINE_HOOK_FILE", &hook_file).env("SYNCLINE_HOOK_SECRET", SECRET);
        let server = Running::start(&mut command, &home.join("serve.log")).expect("PocketBase starts");
        let mut pocketbase = PocketBase { address, token: String::new(), hook_file, client: client(), _server: server };
        pocketbase.prepare().await;
        pocketbase
    }

    /// Signs in, makes the collections, allows batches.
    async fn prepare(&mut self) {
        let began = Instant::now();
        while self.client.get(self.url("/api/health")).send().await.is_err() {
            assert!(began.elapsed() < PATIENCE && !self._server.has_ended(), "no PocketBase: {}", self._server.said());
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        let identity = json!({"identity": IDENTITY.0, "password": IDENTITY.1});
        let path = "/api/collections/_superusers/auth-with-password";
        self.token = text(&answer(self.call(Method::POST, path, &identity)).await["token"]);
        for name in ["collection", "posts"] {
            let file = source(&format!("interop/pocketbase/{name}.json"));
            let collection = fs::read_to_string(file).expect("the collection");
            let collection = serde_json::from_str(&collection).expect("JSON");
            answer(self.call(Method::POST, "/api/collections", &collection)).await;
        }
        let batches = json!({"batch": {"enabled": true, "maxRequests": BATCH, "timeout": 60}});
        answer(self.call(Method::PATCH, "/api/settings", &batches)).await;
    }

    /// From now on its hooks post to `url`.
    fn tell(&self, url: &str) {
        fs::write(&self.hook_file, url).expect("written");
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    fn call(&self, method: Method, path: &str, body: &Value) -> RequestBuilder {
        self.client.request(method, self.url(path)).header("authorization", &self.token).json(body)
    }

    /// Makes all records; their ids in order.
    async fn create(&self) -> Vec<String> {
        let requests: Vec<Value> = (0..RECORDS)
            .map(|n| {
                let title = format!("{}task {n} <ü>", if n % 10 == 0 { "lost " } else { "" });
                let body = json!({"title": title, "rank": n as f64 / 4.0, "tags": ["a", {"n": n}]});
                json!({"method": "POST", "url": "/api/collections/tasks/records", "body": body})
            })
            .collect();
        self.batches(&requests).await.iter().map(|one| text(&one["body"]["id"])).collect()
    }

    async fn update(&self, ids: &[String]) {
        let change = |id| json!({"method": "PATCH", "url": self.one(id), "body": {"done": true, "rank+": 0.5}});
        self.batches(&ids.iter().map(change).collect::<Vec<_>>()).await;
    }

    async fn delete(&self, ids: &[String]) {
        let delete = |id| json!({"method": "DELETE", "url": self.one(id)});
        self.batches(&ids.iter().map(delete).collect::<Vec<_>>()).await;
    }

    fn one(&self, id: &String) -> String {
        format!("/api/collections/tasks/records/{id}")
    }

    /// Sends requests in batches, one after the other; the answers in order.
    async fn batches(&self, requests: &[Value]) -> Vec<Value> {
        let mut answers = Vec::new();
        for batch in requests.chunks(BATCH) {
            let answered = answer(self.call(Method::POST, "/api/batch", &json!({"requests": batch}))).await;
            answers.extend(answered.as_array().expect("one answer for each request").iter().cloned());
        }
        answers
    }

    /// What PocketBase says it has, by id.
    async fn listing(&self) -> BTreeMap<String, Value> {
        let mut found = BTreeMap::new();
        for page in 1.. {
            let path = format!("/api/collections/tasks/records?perPage=500&sort=id&page={page}");
            let listed = answer(self.client.get(self.url(&path)).header("authorization", &self.token)).await;
            let items = listed["items"].as_array().expect("items");
            if items.is_empty() {
                break;
            }
            found.extend(items.iter().map(|item| (text(&item["id"]), fields(item))));
        }
        found
    }
}

/// An address nobody listens at right now.
fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").to_string()
}
