//! Accounts connected in a real browser, with the unchanged client library of the customer's page and on the connect page; and what is
//! entered on it is checked for people who use other means than a mouse.

use reqwest::Method;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use syncline_tests::oidc::Oidc;
use syncline_tests::serving::{KEY, Serving, client};
use syncline_tests::tools::{install_npm, node};

/// Longest wait for the whole of it.
const PATIENCE: Duration = Duration::from_secs(240);
/// Where browsers are, in the order in which they are taken.
const BROWSERS: [&str; 4] =
    ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome", "/opt/google/chrome/chrome"];
/// Attempts of the program: each has a session.
const SESSIONS: usize = 8;

/// The program in the browser; it ends with this value.
struct Driver(Child);

impl Drop for Driver {
    fn drop(&mut self) {
        // Already gone is as good; there is nobody to tell.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn browser() -> PathBuf {
    let found = BROWSERS.iter().map(PathBuf::from).find(|path| path.exists());
    found.unwrap_or_else(|| panic!("no browser: scripts/setup.sh test installs chromium, or get it from your system"))
}

/// A provider of each kind: by sign-in, by key, and by password.
fn definitions(folder: &Path, oidc: &Oidc, key_url: &str) -> PathBuf {
    let sources = folder.join("sources");
    std::fs::create_dir_all(&sources).expect("a folder");
    let all = [
        ("oidc", "With a sign-in", oidc.url.as_str(), oidc.auth().replace("env:APP_SECRET", "file:app.secret")),
        ("key", "With a key", key_url, "auth: {type: bearer, test: {get: /me}}\n".to_owned()),
        ("basic", "With a password", key_url, "auth: {type: basic, test: {get: /me}}\n".to_owned()),
    ];
    for (name, title, url, auth) in all {
        let text = format!(
            "source: {name}\ntitle: {title}\nbase_url: {url}\n{auth}\
             streams: [{{name: Item, key: .id, schedule: {{every: 12h}}, list: {{get: /api/items}}}}]\n"
        );
        std::fs::write(sources.join(format!("{name}.yaml")), text).expect("a definition");
    }
    std::fs::write(sources.join("app.secret"), "secret-of-the-app").expect("a secret");
    sources
}

async fn session(serving: &Serving) -> String {
    let body = json!({"end_user": {"id": "ann", "display_name": "Ann"}});
    let request =
        client().request(Method::POST, format!("{}/connect/sessions", serving.url)).bearer_auth(KEY).json(&body);
    let opened: Value = request.send().await.expect("an answer").json().await.expect("JSON");
    opened["data"]["token"].as_str().expect("a token").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_are_connected_in_a_browser() {
    let project = tokio::task::spawn_blocking(|| install_npm("interop/connect", "connect")).await.expect("it ran");
    let project = project.unwrap_or_else(|why| panic!("{why}"));
    let folder = tempfile::tempdir().expect("a folder");
    let oidc = tokio::task::spawn_blocking(|| Oidc::start(3_600)).await.expect("it starts");
    let key_url = super::connect::provider().await;
    let sources = definitions(folder.path(), &oidc, &key_url);

    let (node, _) = node().unwrap_or_else(|why| panic!("{why}"));
    let mut command = Command::new(node);
    command.current_dir(&project).arg("connect.mjs").stdin(Stdio::piped()).stdout(Stdio::piped());
    let child = command.stderr(Stdio::inherit()).spawn().unwrap_or_else(|why| panic!("node does not start: {why}"));
    let mut driver = Driver(child);
    let mut stdin = driver.0.stdin.take().expect("a way in");
    let mut lines = BufReader::new(driver.0.stdout.take().expect("a way out")).lines();
    let port = lines.find_map(|line| line.ok()?.strip_prefix("port ").map(str::to_owned)).expect("the app listens");

    let origins = json!({"origins": [format!("http://127.0.0.1:{port}")]});
    let serving = Serving::start_with(folder.path(), &sources, json!({"connect": origins})).await;
    oidc.allow(&serving.url).await;
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        sessions.push(session(&serving).await);
    }
    let told = json!({"url": serving.url, "browser": browser(), "sessions": sessions});
    writeln!(stdin, "{told}").expect("told");
    let steps = tokio::task::spawn_blocking(move || lines.map_while(Result::ok).collect::<Vec<String>>());
    let steps = tokio::time::timeout(PATIENCE, steps).await.expect("in time").expect("it ran");
    assert_eq!(steps.last().map(String::as_str), Some("done"), "{steps:#?}");
    serving.stop().await;
}
