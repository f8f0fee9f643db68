//! The reading loops of the README, `examples/read.py` and `examples/read.ts`, against the real server: killed again and again in
//! the middle of a page, they lose no change and take none twice. The README shows just these files.

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};
use syncline_engine::Engine;
use syncline_engine::model::{Cause, DatasetName, Strategy, Timestamp};
use syncline_engine::pipeline::{Batch, DatasetSpec};
use syncline_tests::serving::{KEY, Serving, client};
use syncline_tests::tools::{Running, node, run, source};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// Longest wait for anything that should happen.
const PATIENCE: Duration = Duration::from_secs(120);
/// How soon after a page a reader is killed: while it parses, writes, commits, or asks again.
const KILLED_AFTER: [u64; 14] = [0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 18, 22, 30];
/// Pages a reader gets before it is killed.
const PAGES: usize = 3;
/// Changes: far more than readers take before they are killed for the last time.
const CHANGES: usize = 20_000;

/// What a reader has stored: record and number of changes by key.
type Copied = BTreeMap<String, (Value, u64)>;

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_in_python_takes_each_change_once() {
    let state = |folder: &Path| {
        let mut command = Command::new("python3");
        let select = "import json, sqlite3; db = sqlite3.connect('issues.db'); \
                      print(json.dumps({k: {'record': json.loads(r), 'changes': n} for k, r, n in db.execute('SELECT * FROM issue')}))";
        command.current_dir(folder).args(["-c", select]);
        run(&mut command, &folder.join("state.log"), PATIENCE).unwrap_or_else(|why| panic!("{why}"))
    };
    let start = |folder: &Path| {
        let mut command = Command::new("python3");
        command.arg(source("../examples/read.py")).current_dir(folder);
        command
    };
    takes_each_change_once(&start, &|folder| copied(&serde_json::from_str(&state(folder)).expect("JSON"))).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_in_typescript_takes_each_change_once() {
    let (node, _) = node().unwrap_or_else(|why| panic!("{why}"));
    let start = |folder: &Path| {
        // It uses no types, so it is JavaScript as well; by this name node takes it as a module.
        fs::copy(source("../examples/read.ts"), folder.join("read.mjs")).expect("copied");
        let mut command = Command::new(&node);
        command.arg("read.mjs").current_dir(folder);
        command
    };
    let state = |folder: &Path| {
        let text = fs::read_to_string(folder.join("issues.json")).expect("a whole file");
        copied(&serde_json::from_str::<Value>(&text).expect("JSON")["issues"])
    };
    takes_each_change_once(&start, &state).await;
}

#[test]
fn the_readme_shows_the_loops_as_they_are() {
    let readme = fs::read_to_string(source("../README.md")).expect("a README");
    for (file, language) in [("read.py", "python"), ("read.ts", "ts")] {
        let text = fs::read_to_string(source(&format!("../examples/{file}"))).expect("an example");
        assert!(readme.contains(&format!("```{language}\n{text}```")), "README.md shows another examples/{file}");
    }
}

fn copied(issues: &Value) -> Copied {
    let of = |issue: &Value| (issue["record"].clone(), issue["changes"].as_u64().expect("a number"));
    issues.as_object().expect("an object").iter().map(|(key, issue)| (key.clone(), of(issue))).collect()
}

async fn takes_each_change_once(start: &dyn Fn(&Path) -> Command, state: &dyn Fn(&Path) -> Copied) {
    let folder = tempfile::tempdir().expect("a folder");
    let serving = serve(folder.path()).await;
    change(&serving.engine(), CHANGES).await;
    let (gate, mut pages) = gate(&serving.url).await;
    fs::write(folder.path().join("syncline.key"), format!("{KEY}\n")).expect("written");
    let begin = || {
        let mut command = start(folder.path());
        command.env("SYNCLINE_URL", &gate);
        Running::start(&mut command, &folder.path().join("reader.log")).unwrap_or_else(|why| panic!("{why}"))
    };
    for delay in KILLED_AFTER {
        let wanted = *pages.borrow() + PAGES;
        let reader = begin();
        // What it answers is a lock, which would stop the door.
        let read = tokio::time::timeout(PATIENCE, pages.wait_for(|pages| *pages >= wanted)).await.is_ok();
        assert!(read, "no page was asked for: {}", reader.said());
        tokio::time::sleep(Duration::from_millis(delay)).await;
        // Dropping kills it.
        drop(reader);
        let so_far: u64 = state(folder.path()).values().map(|(_, changes)| changes).sum();
        assert!(0 < so_far && so_far < CHANGES as u64, "killed in the middle: {so_far}");
    }
    let expected = of_server(&serving).await;
    let (reader, began) = (begin(), Instant::now());
    while state(folder.path()) != expected {
        assert!(began.elapsed() < PATIENCE, "it does not come to the server's state: {}", reader.said());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    drop(reader);
    serving.stop().await;
}

/// What the server's own changes come to.
async fn of_server(serving: &Serving) -> Copied {
    let changes = serving.changes("github", "me", "Issue").await;
    assert_eq!(changes.len(), CHANGES);
    let mut all = Copied::new();
    for change in changes {
        let one = all.entry(change["key"].as_str().expect("a key").to_owned()).or_default();
        *one = (change["after"].clone(), one.1 + 1);
    }
    all
}

async fn serve(folder: &Path) -> Serving {
    let sources = folder.join("sources");
    fs::create_dir_all(&sources).expect("a folder");
    // Nothing is polled: the test puts records in itself.
    let text = "source: github\npreset: github\nbase_url: http://127.0.0.1:9\nconnections:\n  me: {repo: [octo/hello]}\n\
                streams:\n  - {name: Issue, schedule: {every: 1h, start: paused}}\n";
    fs::write(sources.join("github.yaml"), text).expect("a definition");
    Serving::start(folder, &sources).await
}

/// Makes so many changes: issues that come, change and go.
async fn change(engine: &Engine, count: usize) {
    let spec = DatasetSpec { strategy: Strategy::Override, ignore_in_diff: vec![] };
    let name = DatasetName::base("default", "github", "me", "Issue");
    let dataset = engine.dataset(&name, &spec).expect("a dataset");
    for first in (0..count).step_by(250) {
        let mut page = engine.page(&dataset);
        for number in first..first + 250 {
            let (id, at) = ((number % 3_000).to_string(), Timestamp::from_seconds(number as i64 + 1));
            match number >= 3_000 && number % 7 == 0 {
                true => page.delete(&id, None, at, None),
                false => page.save(&id, None, at, format!(r#"{{"id": "{id}", "title": "{number}"}}"#).as_bytes()),
            };
        }
        let batch = Batch { cause: Some(Cause::run(1)), pages: vec![page], ..Batch::default() };
        engine.commit(batch).await.expect("committed");
    }
}

/// A door before the server that counts the pages it has handed on.
async fn gate(server: &str) -> (String, watch::Receiver<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (count, pages) = watch::channel(0);
    let state = Arc::new((server.to_owned(), client(), count));
    let router = Router::new().fallback(hand_on).with_state(state);
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, pages)
}

async fn hand_on(
    State(gate): State<Arc<(String, reqwest::Client, watch::Sender<usize>)>>,
    request: Request,
) -> Response {
    let (server, client, count) = &*gate;
    let key = request.headers().get(header::AUTHORIZATION).cloned();
    let asked = client.get(format!("{server}{}", request.uri()));
    let answer = asked.header(header::AUTHORIZATION, key.expect("a key")).send().await.expect("an answer");
    let (status, body) = (answer.status().as_u16(), answer.bytes().await.expect("a body"));
    count.send_modify(|pages| *pages += 1);
    (StatusCode::from_u16(status).expect("a status"), [(header::CONTENT_TYPE, "application/json")], body)
        .into_response()
}
