//! The real program as a process of its own: started with a fault, watched until it dies, and asked as clients ask it.

use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use syncline_tests::crm::DEFINITION;

/// The key of every program here.
pub const KEY: &str = "a-key-for-tests-of-32-characters-or-more";
/// Longest wait for anything; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

const SHOP: &str = r#"
source: shop
base_url: http://127.0.0.1:PORT
auth: {type: none}
limits: {retry: {backoff: 10ms..100ms}}
streams:
  - name: Thing
    key: .id
    schedule: {every: 12h, start: paused}
    list: {get: /things, items: .data, total: .total, paginate: {page: page, start: 1, last: .pages}}
    deletes: [{from_full_list: true}]
connections:
  acme: {}
"#;

/// Writes settings and definitions for a program whose outside listens on `port`. `more` is laid over the settings.
pub fn settle_in(folder: &Path, port: u16, more: Value) {
    std::fs::create_dir_all(folder.join("sources")).expect("a folder");
    let paused = DEFINITION.replace("every: 12h}", "every: 12h, start: paused}");
    std::fs::write(folder.join("sources/crm.yaml"), paused).expect("a definition");
    std::fs::write(folder.join("sources/shop.yaml"), SHOP.replace("PORT", &port.to_string())).expect("a definition");
    let endpoint = |name: &str| json!({"url": format!("http://127.0.0.1:{port}/{name}"), "secret": "env:OUT_SECRET", "schedule": ["0s", "1s", "1s"]});
    let mut settings = json!({
        "listen": "127.0.0.1:0", "data_dir": folder.join("data"), "sources": folder.join("sources"),
        "api_keys": [{"name": "tests", "key": "env:TEST_KEY", "role": "admin"}],
        "encryption": "off", "workers": 1, "egress": {"allow_http": true, "allow": ["127.0.0.0/8", "127.0.0.1:9"]},
        "endpoints": {"well": endpoint("well"), "late": endpoint("late"), "abort": endpoint("abort"), "gone": endpoint("gone")},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    std::fs::write(folder.join("syncline.yaml"), settings.to_string()).expect("settings");
}

/// A program that runs, or has died.
pub struct Program {
    child: Child,
    /// Where it listens, if it got so far.
    pub url: String,
    hook: String,
    client: Client,
    errors: PathBuf,
}

impl Program {
    /// Starts it with further variables and waits until it listens or has died.
    pub fn start(folder: &Path, env: &[(&str, &str)]) -> Program {
        Program::start_saying(folder, folder.join("stderr"), env)
    }

    /// The same with its standard error written to `errors`.
    pub fn start_saying(folder: &Path, errors: PathBuf, env: &[(&str, &str)]) -> Program {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&errors).expect("a file");
        let mut child =
            command(folder, &["serve"], env).stdout(Stdio::piped()).stderr(file).spawn().expect("the program starts");
        let (mut url, mut hook) = (String::new(), String::new());
        let mut lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        while hook.is_empty() {
            let Some(Ok(line)) = lines.next() else { break };
            if let Some((_, address)) = line.split_once("listening on ") {
                address.clone_into(&mut url);
            }
            if line.starts_with("webhook")
                && let Some(at) = line.find("/hooks/")
            {
                line[at..].clone_into(&mut hook);
            }
        }
        // Its further output must go somewhere, or it would stand still.
        std::thread::spawn(move || lines.for_each(drop));
        Program { child, url, hook, client: syncline_tests::serving::client(), errors }
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("the state of the child")
    }

    /// Whether it lives and its store is open.
    pub async fn well(&mut self) -> bool {
        matches!(self.get("/readyz", "crm").await, Some((200, _))) && self.ended().is_none()
    }

    /// Waits for its end.
    pub async fn end(&mut self, what: &str) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.ended() {
                return status;
            }
            assert!(began.elapsed() < PATIENCE, "{what}: it does not end\n{}", self.said());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGKILL, by its id.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, by its id.
    pub fn terminate(&self) {
        let _ = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status();
    }

    /// All that programs in this folder have said on their standard error.
    pub fn said(&self) -> String {
        std::fs::read_to_string(&self.errors).unwrap_or_default()
    }

    /// Posts events; the status, or `None` if nobody answered.
    pub async fn post(&self, numbers: &[u64]) -> Option<u16> {
        self.post_body(events(numbers)).await.map(|(status, _, _)| status)
    }

    /// The same with the whole answer: status, `Retry-After`, body.
    pub async fn post_body(&self, body: String) -> Option<(u16, Option<String>, String)> {
        let request = self.client.post(format!("{}{}", self.url, self.hook)).header("x-token", "s3cret").body(body);
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let retry = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
        Some((status, retry, answer.text().await.ok()?))
    }

    fn signed(&self, request: RequestBuilder, source: &str) -> RequestBuilder {
        request.bearer_auth(KEY).header("provider-config-key", source).header("connection-id", "acme")
    }

    /// The JSON of an answer, and its status; `None` if nobody answered.
    pub async fn get(&self, path: &str, source: &str) -> Option<(u16, Value)> {
        let answer = self.signed(self.client.get(format!("{}{path}", self.url)), source).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, serde_json::from_str(&answer.text().await.ok()?).ok()?))
    }

    /// The text of an answer.
    pub async fn text(&self, path: &str) -> String {
        let answer =
            self.signed(self.client.get(format!("{}{path}", self.url)), "crm").send().await.expect("an answer");
        answer.text().await.expect("text")
    }

    /// Begins a run that lists everything.
    pub async fn trigger(&self) -> Option<u16> {
        let body = json!({"syncs": ["Thing"], "provider_config_key": "shop", "connection_id": "acme", "opts": {"reset": false}});
        let request = self.client.post(format!("{}/sync/trigger", self.url)).json(&body);
        Some(self.signed(request, "shop").send().await.ok()?.status().as_u16())
    }

    /// Delivers again to an endpoint that said it is gone.
    pub async fn enable(&self, endpoint: &str) {
        let request = self.client.post(format!("{}/v1/endpoints/{endpoint}/enable", self.url));
        let _ = request.bearer_auth(KEY).send().await;
    }

    /// Reads a stream of changes to where it stands now.
    pub async fn stream(&self) -> Option<String> {
        let path = format!("{}/v1/changes?source=crm&connection=acme&stream=Contact", self.url);
        let request = self.client.get(path).header("accept", "application/x-ndjson");
        self.signed(request, "crm").send().await.ok()?.text().await.ok()
    }

    /// All rows of a model, page by page; `None` if it dies meanwhile.
    pub async fn records(&self, source: &str, model: &str) -> Option<Vec<Value>> {
        let (mut rows, mut cursor) = (Vec::new(), String::new());
        loop {
            let (_, page) = self.get(&format!("/records?model={model}&limit=1000{cursor}"), source).await?;
            rows.extend(page["records"].as_array()?.iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return Some(rows),
            }
        }
    }

    /// All changes of a stream, in order; `None` if it dies meanwhile.
    pub async fn changes(&self, source: &str, stream: &str) -> Option<Vec<Value>> {
        let (mut changes, mut cursor) = (Vec::new(), "earliest".to_owned());
        loop {
            let path = format!("/v1/changes?source={source}&connection=acme&stream={stream}&limit=500&cursor={cursor}");
            let (_, page) = self.get(&path, source).await?;
            let new = page["changes"].as_array()?.clone();
            if new.is_empty() {
                return Some(changes);
            }
            changes.extend(new);
            page["cursor"].as_str()?.clone_into(&mut cursor);
        }
    }
}

/// The program in the folder of its settings, with these arguments and further variables.
pub fn command(folder: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_program"));
    command
        .args(arguments)
        .current_dir(folder)
        .env("TEST_KEY", KEY)
        .env("SECRET", "s3cret")
        .env("OUT_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .envs(env.iter().copied());
    command
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A request with these events.
pub fn events(numbers: &[u64]) -> String {
    let event = |n: &u64| json!({"kind": "whole", "portal": 7, "eventId": format!("e{n}"), "record": {"id": format!("r{n}"), "n": n}});
    Value::from(numbers.iter().map(event).collect::<Vec<_>>()).to_string()
}
