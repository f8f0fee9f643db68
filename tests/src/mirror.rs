//! A provider that answers what it was asked, or whatever the path says, and keeps what it got.

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use parking_lot::Mutex;
use serde_json::json;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Most bytes of a body that are kept.
const KEPT: usize = 64 << 10;
/// Bytes of a part of a long answer.
const PART: usize = 64 << 10;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET`, `POST`…
    pub method: String,
    /// Path and query, byte for byte.
    pub target: String,
    /// In order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The beginning of the body.
    pub body: Vec<u8>,
    /// All of its bytes.
    pub bytes: u64,
    /// When its head was there.
    pub at: Instant,
}

impl Asked {
    /// The first header of this name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// All that it says, to be searched.
    pub fn text(&self) -> String {
        format!("{} {}\n{:?}\n{}", self.method, self.target, self.headers, String::from_utf8_lossy(&self.body))
    }
}

/// The provider.
#[derive(Clone)]
pub struct Mirror {
    /// `http://127.0.0.1:PORT`.
    pub url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Mirror {
    /// One that listens.
    pub async fn start() -> Mirror {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let mirror = Mirror { url, asked: Arc::default() };
        let router = Router::new().fallback(answer).with_state(mirror.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        mirror
    }

    /// All it was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().clone()
    }

    /// Forgets it.
    pub fn forget(&self) {
        self.asked.lock().clear();
    }
}

/// Does what the last segment of the path names, with the query for its wishes; anything else is echoed.
///
/// | path | answer |
/// |---|---|
/// | `status` | `code`, with the headers named in `h` (`name:value`), as often as `h` stands there |
/// | `flaky` | `code` as often as `times` says, then 200 |
/// | `redirect` | `code` to `to` |
/// | `bytes` | so many as `count` says |
/// | `gzip` | `hello`, compressed |
/// | `hang` | after `ms` |
/// | `cut` | hangs up |
async fn answer(State(mirror): State<Mirror>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let asked = mirror.keep(&head, body).await;
    let query = wishes(&head);
    let wish = |name: &str| query.get(name).and_then(|all| all.first()).cloned().unwrap_or_default();
    let number = |name: &str| wish(name).parse::<u64>().unwrap_or_default();
    let code = StatusCode::from_u16(number("code") as u16).unwrap_or(StatusCode::OK);
    let name = head.uri.path().rsplit('/').next().unwrap_or_default();
    let mut answer = match name {
        "status" => code.into_response(),
        "flaky" => {
            let same = mirror.asked.lock().iter().filter(|other| other.target == asked.target).count() as u64;
            if same > number("times") { "at last".into_response() } else { code.into_response() }
        }
        "redirect" => (code, [("location", wish("to"))]).into_response(),
        "bytes" => long(number("count")),
        "gzip" => ([("content-encoding", "gzip"), ("content-type", "text/plain")], gzip(b"hello")).into_response(),
        "hang" => {
            tokio::time::sleep(Duration::from_millis(number("ms"))).await;
            "late".into_response()
        }
        "cut" => {
            let end = stream::once(async {
                // The head and the first part have left by then.
                tokio::time::sleep(Duration::from_millis(200)).await;
                Err(io::Error::other("hangs up"))
            });
            Body::from_stream(stream::iter([Ok(Bytes::from_static(b"so far"))]).chain(end)).into_response()
        }
        _ => axum::Json(json!({"method": asked.method, "target": asked.target, "bytes": asked.bytes})).into_response(),
    };
    for header in query.get("h").into_iter().flatten() {
        let (name, value) = header.split_once(':').unwrap_or((header, ""));
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        answer.headers_mut().append(name, HeaderValue::from_str(value).expect("a value"));
    }
    answer
}

impl Mirror {
    async fn keep(&self, head: &Parts, body: Body) -> Asked {
        let at = Instant::now();
        let (mut kept, mut bytes) = (Vec::new(), 0);
        if !body.is_end_stream() {
            let mut parts = body.into_data_stream();
            while let Some(Ok(part)) = parts.next().await {
                bytes += part.len() as u64;
                kept.extend_from_slice(&part[..part.len().min(KEPT - kept.len().min(KEPT))]);
            }
        }
        let target = head.uri.path_and_query().map_or_else(String::new, ToString::to_string);
        let headers = texts(&head.headers);
        let asked = Asked { method: head.method.to_string(), target, headers, body: kept, bytes, at };
        self.asked.lock().push(asked.clone());
        asked
    }
}

fn texts(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text(value))).collect()
}

fn wishes(head: &Parts) -> HashMap<String, Vec<String>> {
    let mut wishes: HashMap<String, Vec<String>> = HashMap::new();
    for pair in head.uri.query().unwrap_or_default().split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        wishes.entry(name.to_owned()).or_default().push(decoded(value));
    }
    wishes
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let hex: String = rest.by_ref().take(2).map(char::from).collect();
        bytes.push(u8::from_str_radix(&hex, 16).expect("two digits"));
    }
    String::from_utf8(bytes).expect("UTF-8")
}

/// An answer of many bytes, made as it is taken: the low byte of its place stands at each.
fn long(count: u64) -> Response {
    let part: Bytes = (0..PART).map(|n| n as u8).collect::<Vec<_>>().into();
    let parts = stream::unfold(count, move |left| {
        let part = part.clone();
        async move {
            let length = usize::try_from(left.min(PART as u64)).expect("a part");
            (left > 0).then(|| (Ok::<_, io::Error>(part.slice(..length)), left - length as u64))
        }
    });
    ([("content-type", "application/octet-stream")], Body::from_stream(parts)).into_response()
}

/// A gzip file that holds `text` as it is.
pub fn gzip(text: &[u8]) -> Vec<u8> {
    let length = u16::try_from(text.len()).expect("short");
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    file.extend(length.to_le_bytes());
    file.extend((!length).to_le_bytes());
    file.extend(text);
    file.extend(crc32(text).to_le_bytes());
    file.extend(u32::from(length).to_le_bytes());
    file
}

fn crc32(text: &[u8]) -> u32 {
    let mut crc = !0u32;
    for byte in text {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
        }
    }
    !crc
}

/// What of `asked` holds one of these words, by word.
pub fn holding<'a>(asked: &[Asked], words: &[&'a str]) -> BTreeMap<&'a str, usize> {
    let texts: Vec<String> = asked.iter().map(Asked::text).collect();
    let count = |word: &str| texts.iter().filter(|text| text.contains(word)).count();
    words.iter().map(|word| (*word, count(word))).filter(|(_, count)| *count > 0).collect()
}
