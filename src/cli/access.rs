//! How reading verbs reach the data: the folder itself when nobody holds it, else the server that does.
//!
//! Both ways speak the same API, so that a verb prints the same either way. The key for the server is taken from
//! `SYNCLINE_API_KEY`, or from the file `syncline init` wrote; for the folder a key is made up for this one process.

use super::exit::{Fail, code};
use super::{CommonArgs, settings};
use crate::api::inside::Inside;
use crate::app::App;
use crate::config::{ApiKey, Role, Settings};
use crate::connectors::egress::Egress;
use crate::connectors::http::{Client, ClientOptions, HeaderName, HeaderValue, Outgoing, Url};
use crate::engine::time::{Clock, SystemClock};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::sync::Arc;
use std::time::Duration;

/// The key's variable.
pub(crate) const KEY_VARIABLE: &str = "SYNCLINE_API_KEY";

/// Where `init` puts the key.
pub(crate) const KEY_FILE: &str = "syncline.key";

/// For a whole answer of the server: more than the longest wait it may be asked for.
const TIMEOUT: Duration = Duration::from_secs(90);

/// Bytes of an answer.
const ANSWER_MAX: u64 = 64 << 20;

const PART: &AsciiSet = &CONTROLS.add(b' ').add(b'/').add(b'?').add(b'#').add(b'%').add(b'"').add(b'<').add(b'>');

/// A way to the data.
pub(crate) enum Access {
    /// The folder, opened by this process.
    Folder {
        /// What was opened.
        app: Arc<App>,
        /// Its API.
        inside: Inside,
    },
    /// The server that holds the folder.
    Server {
        /// One way out.
        client: Client,
        /// `http://…`
        base: Url,
        /// The key.
        key: HeaderValue,
    },
}

impl Access {
    /// The folder if it is free, else the server.
    pub async fn open(common: &CommonArgs) -> Result<Access, Fail> {
        let mut settings = settings::load(common, &[], true)?;
        let key = made_up_key();
        settings.api_keys.push(ApiKey {
            name: "command line".into(),
            hash: Sha256::digest(&key).into(),
            environment: common.environment.clone(),
            role: Role::Admin,
        });
        match settings::open(settings.clone()).await {
            Ok(app) => Ok(Access::Folder { inside: Inside::new(app.clone(), &key), app }),
            Err(locked) if locked.code == code::TEMPORARY => Self::server(&settings, locked),
            Err(other) => Err(other),
        }
    }

    /// The server that holds the folder.
    pub(super) fn server(settings: &Settings, locked: Fail) -> Result<Access, Fail> {
        let Some(key) = key_of_server() else {
            let advice = format!("a server may hold it: set {KEY_VARIABLE} to one of its keys to ask it, or stop it");
            return Err(locked.hint(advice));
        };
        let bad = |what: String| Fail::new(code::CONFIG, what);
        let base = Url::parse(&format!("http://{}", reachable(&settings.listen)))
            .map_err(|e| bad(format!("the server's address {} cannot be used: {e}", settings.listen)))?;
        let mut header = HeaderValue::from_str(&format!("Bearer {key}"))
            .map_err(|_| bad(format!("{KEY_VARIABLE} is no key: it holds characters a header cannot")))?;
        header.set_sensitive(true);
        // The server is where its own settings say, on whatever network.
        let own = base.host_str().and_then(|host| format!("{host}:{}", base.port_or_known_default()?).parse().ok());
        let egress = Egress::new(own.into_iter().collect());
        let options = ClientOptions { allow_http: true, egress, ..ClientOptions::default() };
        let client =
            Client::new(options, Arc::new(SystemClock)).map_err(|e| Fail::new(code::INTERNAL, e.to_string()))?;
        Ok(Access::Server { client, base, key: header })
    }

    /// GET, and the JSON of its answer.
    pub async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Value, Fail> {
        self.ask("GET", path, headers, None).await
    }

    /// POST, and the JSON of its answer.
    pub async fn post(&self, path: &str, body: Option<&Value>) -> Result<Value, Fail> {
        self.ask("POST", path, &[], body.map(Value::to_string)).await
    }

    async fn ask(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<String>,
    ) -> Result<Value, Fail> {
        let (status, body) = match self {
            Access::Folder { inside, .. } => inside.ask(method, path, headers, body).await,
            Access::Server { client, base, key } => over_http(client, base, key, method, path, headers, body).await?,
        };
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if (200..300).contains(&status) { Ok(answer) } else { Err(refused(status, &answer)) }
    }

    /// The connection that is meant: the named one, or the only one of the source.
    pub async fn connection(&self, source: &str, named: Option<&str>) -> Result<String, Fail> {
        if let Some(id) = named {
            return Ok(id.to_owned());
        }
        let answer = self.get(&format!("/connections?{}", query(&[("integrationId", Some(source))])), &[]).await?;
        let all = answer.get("connections").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let ids: Vec<&str> = all.iter().filter_map(|one| one.get("connection_id")?.as_str()).collect();
        match ids.as_slice() {
            [one] => Ok(one.to_string()),
            [] => Err(Fail::new(code::FAILURE, format!("no connection of source `{source}`"))
                .hint("`syncline connections list` shows what there is")),
            several => Err(Fail::new(code::USAGE, format!("source `{source}` has several connections"))
                .hint(format!("name one with --connection: {}", several.join(", ")))),
        }
    }

    /// Closes the folder.
    pub async fn close(&self) -> Result<(), Fail> {
        match self {
            Access::Folder { app, .. } => app.stop().await.map_err(Fail::from),
            Access::Server { .. } => Ok(()),
        }
    }
}

async fn over_http(
    client: &Client,
    base: &Url,
    key: &HeaderValue,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<String>,
) -> Result<(u16, Vec<u8>), Fail> {
    let bad = |what: String| Fail::new(code::INTERNAL, what);
    let url = base.join(path).map_err(|e| bad(format!("{path}: {e}")))?;
    let mut outgoing = Outgoing {
        method: method.parse().map_err(|_| bad(format!("{method} is no method")))?,
        url,
        headers: Default::default(),
        body: body.map(Into::into),
        timeout: TIMEOUT,
        max_response: ANSWER_MAX,
        follow: false,
        veil: Default::default(),
    };
    outgoing.headers.insert("authorization", key.clone());
    outgoing.headers.insert("content-type", HeaderValue::from_static("application/json"));
    for (name, value) in headers {
        let name: HeaderName = name.parse().map_err(|_| bad(format!("{name} is no header")))?;
        outgoing.headers.insert(name, HeaderValue::from_str(value).map_err(|e| bad(e.to_string()))?);
    }
    let answer = client.send(outgoing).await.map_err(|failure| {
        Fail::new(code::TEMPORARY, format!("the data folder is in use, and the server does not answer: {failure}"))
            .hint("set `listen` to the server's address, or stop the process that holds the folder")
    })?;
    Ok((answer.status, answer.body.to_vec()))
}

/// What a refusal of the API means for a command.
fn refused(status: u16, answer: &Value) -> Fail {
    let said = answer.get("error").and_then(|e| e.get("message")).and_then(Value::as_str);
    let cause = said.map_or_else(|| format!("the server answered with status {status}"), str::to_owned);
    match status {
        401 | 403 => Fail::new(code::DENIED, cause).hint(format!("set {KEY_VARIABLE} to a key with the needed role")),
        503 => Fail::new(code::TEMPORARY, cause),
        500..=599 => Fail::new(code::INTERNAL, cause),
        _ => Fail::new(code::FAILURE, cause),
    }
}

/// A query string of the pairs that have a value.
pub(crate) fn query(pairs: &[(&str, Option<&str>)]) -> String {
    let given = pairs.iter().filter_map(|(name, value)| value.map(|v| (name, v)));
    let encoded = given.map(|(name, value)| format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
    encoded.collect::<Vec<_>>().join("&")
}

/// One part of a path.
pub(crate) fn part(text: &str) -> String {
    utf8_percent_encode(text, PART).to_string()
}

/// An address to connect to for one to listen on.
fn reachable(listen: &str) -> String {
    match listen.rsplit_once(':') {
        Some(("0.0.0.0" | "", port)) => format!("127.0.0.1:{port}"),
        Some(("[::]", port)) => format!("[::1]:{port}"),
        _ => listen.to_owned(),
    }
}

fn key_of_server() -> Option<String> {
    let given = std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty());
    given.or_else(|| std::fs::read_to_string(KEY_FILE).ok().map(|key| key.trim_end().to_owned()))
}

/// A key for this process alone; it never leaves it, so it need not be secret, only long enough.
fn made_up_key() -> String {
    format!("inside-{:020}-{:020}", std::process::id(), SystemClock.now().0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded_and_leave_out_what_is_absent() {
        assert_eq!(query(&[("a", Some("x y&z")), ("b", None), ("c", Some("ü"))]), "a=x%20y%26z&c=%C3%BC");
    }

    #[test]
    fn wildcard_addresses_are_reached_on_loopback() {
        assert_eq!(reachable("0.0.0.0:80"), "127.0.0.1:80");
        assert_eq!(reachable("[::]:80"), "[::1]:80");
        assert_eq!(reachable("10.0.0.1:80"), "10.0.0.1:80");
    }

    #[test]
    fn refusals_have_their_codes() {
        let said = serde_json::json!({"error": {"code": "x", "message": "no such thing"}});
        assert_eq!(refused(404, &said), Fail::new(1, "no such thing"));
        assert_eq!(refused(403, &said).code, 77);
        assert_eq!(refused(503, &said).code, 75);
        assert_eq!(refused(500, &Value::Null).cause, "the server answered with status 500");
    }
}
