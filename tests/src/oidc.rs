//! A real authorization server, npm's `oidc-provider`, with a small API behind it; and somebody who signs in there, without a
//! browser.

use crate::tools::{install_npm, node};
use reqwest::header::{COOKIE, LOCATION, SET_COOKIE};
use reqwest::{Client, Response, Url, redirect};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};

/// Steps of one sign-in; only a failing test takes so many.
const STEPS_MAX: usize = 20;

/// The server; it ends with this value.
pub struct Oidc {
    child: Child,
    /// `http://127.0.0.1:PORT`, which is its issuer as well.
    pub url: String,
}

impl Drop for Oidc {
    fn drop(&mut self) {
        // Already gone is as good; there is nobody to tell.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Oidc {
    /// Starts it; its access tokens live for so many seconds.
    pub fn start(access_seconds: u64) -> Oidc {
        let project = install_npm("interop/oidc", "oidc").unwrap_or_else(|why| panic!("{why}"));
        let (node, _) = node().unwrap_or_else(|why| panic!("{why}"));
        let mut command = Command::new(node);
        command.current_dir(&project).arg("provider.mjs").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child =
            command.stderr(Stdio::null()).spawn().unwrap_or_else(|why| panic!("node does not start: {why}"));
        let mut stdin = child.stdin.take().expect("a way in");
        writeln!(stdin, "{}", json!({"accessSeconds": access_seconds})).expect("told");
        let mut lines = BufReader::new(child.stdout.take().expect("a way out")).lines();
        let port = lines.find_map(|line| line.ok()?.strip_prefix("port ")?.parse::<u16>().ok()).expect("it listens");
        // Nobody reads what it says from here on: its pipe must not fill up.
        std::thread::spawn(move || lines.for_each(drop));
        Oidc { child, url: format!("http://127.0.0.1:{port}") }
    }

    /// Lets ways back lead to a server.
    pub async fn allow(&self, server: &str) {
        let uri = format!("{server}/oauth/callback");
        let url = Url::parse_with_params(&format!("{}/control/allow", self.url), [("uri", uri)]).expect("a URL");
        crate::serving::client().post(url).send().await.expect("told");
    }

    /// What it was asked: `refreshes`, `reuses`, `codes`, `refused`.
    pub async fn state(&self) -> Value {
        let answer = crate::serving::client().get(format!("{}/control/state", self.url)).send().await;
        answer.expect("an answer").json().await.expect("JSON")
    }

    /// Takes back every grant, as somebody does at the provider who wants no more of it.
    pub async fn revoke_all(&self) {
        crate::serving::client().post(format!("{}/control/revoke", self.url)).send().await.expect("told");
    }

    /// `auth` of a definition whose people sign in here.
    pub fn auth(&self) -> String {
        format!(
            "auth:\n  type: oauth2\n  authorize_url: {url}/auth\n  token_url: {url}/token\n  revoke_url: {url}/token/revocation\n  \
             client_id: app\n  client_secret: env:APP_SECRET\n  scopes: [openid, offline_access, items]\n  \
             authorize_params: {{prompt: consent}}\n  issuer: {url}\n  rotation: strict\n  refresh_before: 0s\n  \
             test: {{get: /api/me}}\n  connection_fields: {{account: .account}}\n",
            url = self.url
        )
    }
}

/// Somebody with a browser of their own: its cookies, and no more.
pub struct Person {
    client: Client,
    cookies: BTreeMap<String, BTreeMap<String, String>>,
}

impl Default for Person {
    fn default() -> Self {
        let client = Client::builder().redirect(redirect::Policy::none()).build().expect("a client");
        Person { client, cookies: BTreeMap::new() }
    }
}

impl Person {
    /// Opens an address, as `account` where the server asks, and follows it until the address begins with `until`; that address.
    /// Without a way on, what is shown.
    pub async fn follow(&mut self, url: &str, account: Option<&str>, until: &str) -> Result<String, String> {
        let mut url = url.to_owned();
        for step in 0..STEPS_MAX {
            if step > 0 && url.starts_with(until) {
                return Ok(url);
            }
            let form = url.contains("/interaction/").then(|| match account {
                Some(account) => format!("login={account}&go=yes"),
                None => "go=no".to_owned(),
            });
            let answer = self.ask(&url, form).await;
            let Some(next) = answer.headers().get(LOCATION).and_then(|to| to.to_str().ok()).map(str::to_owned) else {
                return Err(format!("{}: {}", answer.status(), answer.text().await.unwrap_or_default()));
            };
            url = Url::parse(&url).and_then(|base| base.join(&next)).expect("an address").to_string();
        }
        Err(format!("it leads nowhere: {url}"))
    }

    /// One request with this browser's cookies.
    pub async fn ask(&mut self, url: &str, form: Option<String>) -> Response {
        let host = Url::parse(url).expect("an address").authority().to_owned();
        let own = self.cookies.entry(host.clone()).or_default();
        let cookies: Vec<String> = own.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = match form {
            Some(form) => self.client.post(url).header("content-type", "application/x-www-form-urlencoded").body(form),
            None => self.client.get(url),
        };
        let answer = request.header(COOKIE, cookies.join("; ")).send().await.expect("an answer");
        let own = self.cookies.entry(host).or_default();
        for cookie in answer.headers().get_all(SET_COOKIE) {
            let text = cookie.to_str().expect("text").split(';').next().unwrap_or_default();
            if let Some((name, value)) = text.split_once('=') {
                own.insert(name.to_owned(), value.to_owned());
            }
        }
        answer
    }

    /// Changes what the browser keeps of a server.
    pub fn cookies_of(&mut self, server: &str) -> &mut BTreeMap<String, String> {
        let host = Url::parse(server).expect("an address").authority().to_owned();
        self.cookies.entry(host).or_default()
    }
}
