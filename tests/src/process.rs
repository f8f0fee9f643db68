//! The real program as a process of its own: started, perhaps with a fault, watched until it dies, killed, and asked as clients
//! ask it.

use crate::serving::{KEY, client};
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Longest wait for anything; only a failing test waits so long.
pub const PATIENCE: Duration = Duration::from_secs(40);
/// What proves webhooks, as `env:SECRET`.
pub const SECRET: &str = "s3cret";
/// Between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// A program that runs, or has died.
pub struct Program {
    child: Child,
    door: Door,
    errors: PathBuf,
}

/// Where clients and providers reach a program. Nobody answers at that of one that has died.
#[derive(Clone)]
pub struct Door {
    /// Where it listens; empty if it did not get so far.
    pub url: String,
    /// Of whom is asked.
    connection: Arc<str>,
    /// Where the provider of the first source with webhooks posts to; empty if there is none.
    hook: Arc<OnceLock<String>>,
    client: Client,
}

impl Program {
    /// Starts it with further variables and waits until it listens or has died.
    pub fn start(folder: &Path, env: &[(&str, &str)]) -> Program {
        Program::start_saying(folder, folder.join("stderr"), env)
    }

    /// The same with its standard error written to `errors`.
    pub fn start_saying(folder: &Path, errors: PathBuf, env: &[(&str, &str)]) -> Program {
        let (child, mut lines) = spawn(folder, &errors, env);
        let url = lines.by_ref().find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
        let hook = Arc::new(OnceLock::new());
        // Its further output must go somewhere, or it would stand still.
        std::thread::spawn({
            let hook = hook.clone();
            move || {
                for line in lines.filter(|line| line.starts_with("webhook")) {
                    line.find("/hooks/").map(|at| hook.set(line[at..].to_owned()));
                }
                hook.get_or_init(String::new);
            }
        });
        let door = Door { url: url.unwrap_or_default(), connection: "acme".into(), hook, client: client() };
        Program { child, door, errors }
    }

    /// Starts it and kills it after so long, wherever it is then.
    pub fn killed_after(folder: &Path, life: Duration) {
        let (mut child, _lines) = spawn(folder, &folder.join("stderr"), &[]);
        std::thread::sleep(life);
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Its door, for somebody who goes on asking when it is killed.
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// Its number.
    pub fn id(&self) -> u32 {
        self.child.id()
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
}

impl Deref for Program {
    type Target = Door;

    fn deref(&self) -> &Door {
        &self.door
    }
}

impl Door {
    /// The same, asked about another connection than `acme`.
    pub fn of(&self, connection: &str) -> Door {
        Door { connection: connection.into(), ..self.clone() }
    }

    /// Where the provider posts to.
    pub async fn hook(&self) -> String {
        let began = Instant::now();
        loop {
            if let Some(hook) = self.hook.get() {
                return format!("{}{hook}", self.url);
            }
            assert!(began.elapsed() < PATIENCE, "it says no address of a webhook");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Posts a webhook; status, `Retry-After` and body, or `None` if nobody answered.
    pub async fn post_body(&self, body: String) -> Option<(u16, Option<String>, String)> {
        let request = self.client.post(self.hook().await).header("x-token", SECRET).body(body);
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        let retry = answer.headers().get("retry-after").and_then(|v| v.to_str().ok()).map(str::to_owned);
        Some((status, retry, answer.text().await.ok()?))
    }

    fn signed(&self, request: RequestBuilder, source: &str) -> RequestBuilder {
        request.bearer_auth(KEY).header("provider-config-key", source).header("connection-id", &*self.connection)
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

    /// Begins a run of a sync.
    pub async fn trigger(&self, source: &str, sync: &str) -> Option<u16> {
        let connection = &*self.connection;
        let body = json!({"syncs": [sync], "provider_config_key": source, "connection_id": connection, "opts": {"reset": false}});
        let request = self.client.post(format!("{}/sync/trigger", self.url)).json(&body);
        Some(self.signed(request, source).send().await.ok()?.status().as_u16())
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
            let at = format!("source={source}&connection={}&stream={stream}", self.connection);
            let path = format!("/v1/changes?{at}&limit=500&cursor={cursor}");
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

/// Writes the settings of a program with sources and functions; `more` is laid over them.
pub fn settle(folder: &Path, more: Value) {
    let mut settings = json!({
        "listen": "127.0.0.1:0", "data_dir": folder.join("data"), "sources": folder.join("sources"),
        "functions": {"path": folder.join("functions")},
        "api_keys": [{"name": "tests", "key": "env:TEST_KEY", "role": "admin"}],
        "encryption": "off", "workers": 2, "egress": {"allow_http": true, "allow": ["127.0.0.0/8"]},
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        settings[key] = value.clone();
    }
    std::fs::write(folder.join("syncline.yaml"), settings.to_string()).expect("settings");
}

/// The program in the folder of its settings, with these arguments and further variables.
pub fn command(folder: &Path, arguments: &[&str], env: &[(&str, &str)]) -> Command {
    // A test's own program lies in <target>/<profile>/deps.
    let test = std::env::current_exe().expect("a path");
    let mut command = Command::new(test.ancestors().nth(2).expect("a folder").join("program"));
    command
        .args(arguments)
        .current_dir(folder)
        .env("TEST_KEY", KEY)
        .env("SECRET", SECRET)
        .env("OUT_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
        .envs(env.iter().copied());
    command
}

type Lines = Box<dyn Iterator<Item = String> + Send>;

/// Starts it; gives what it says on its standard output as well.
fn spawn(folder: &Path, errors: &Path, env: &[(&str, &str)]) -> (Child, Lines) {
    let file = std::fs::OpenOptions::new().create(true).append(true).open(errors).expect("a file");
    let mut command = command(folder, &["serve"], env);
    let mut child = command.stdout(Stdio::piped()).stderr(file).spawn().expect("the program starts");
    let lines = BufReader::new(child.stdout.take().expect("piped")).lines().map_while(Result::ok);
    (child, Box::new(lines))
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
    }
}
