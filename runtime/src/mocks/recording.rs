//! One recorded answer, and whether it is the answer to a request.
//!
//! A recording names its request by a hash, by what it lists (parameters, headers, body), or by its endpoint alone.

use super::clock;
use super::compare::{difference, shown};
use crate::wire::{Answer, Request};
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha1::{Digest, Sha1};
use std::collections::BTreeMap;
use std::time::UNIX_EPOCH;
use url::{Url, form_urlencoded};

/// Headers that say nothing of what is asked: the client or the connection adds them.
const NOT_ASKED: [&str; 9] = [
    "accept",
    "authorization",
    "user-agent",
    "accept-encoding",
    "host",
    "retries",
    "connection-id",
    "provider-config-key",
    "content-length",
];

/// Most characters (in UTF-16) of a body that is recorded as it is.
const WRITTEN_OUT: usize = 1_000;

/// An answer, and which request it is for.
#[derive(Clone, Debug)]
pub(super) struct Recording {
    asked: Asked,
    /// Whether more than method and endpoint is known of the request.
    detailed: bool,
    hash: Option<String>,
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// How well a recording fits a request; later is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    /// It says nothing but method and endpoint, and these are equal.
    Endpoint,
    /// All that it says is equal.
    Request,
    /// By its hash.
    Hash,
}

/// A request in the form in which two are compared: values of the query are text, names of headers have small letters.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    method: String,
    /// Without a leading slash and without a query.
    endpoint: String,
    params: BTreeMap<String, String>,
    headers: Vec<(String, String)>,
    data: Option<Value>,
    /// The body is a form: all its values are text.
    form: bool,
    /// The body as a recording may write it: as text, or as base64 of its bytes.
    written: Vec<String>,
}

/// An answer as it is written.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    response: Value,
    status: Option<Value>,
    #[serde(default)]
    headers: Map<String, Value>,
    hash: Option<String>,
    request: Option<WrittenRequest>,
}

#[derive(Deserialize)]
struct WrittenRequest {
    #[serde(default)]
    params: Value,
    #[serde(default)]
    headers: Map<String, Value>,
    #[serde(default)]
    data: Value,
}

impl Recording {
    /// Of one entry below `api.{method}.{endpoint}`.
    pub(super) fn read(method: &str, endpoint: &str, entry: Value) -> Result<Recording, String> {
        if !entry.as_object().is_some_and(|entry| entry.contains_key("response") || entry.contains_key("status")) {
            return Err("expected {response, status, headers, request}".into());
        }
        let written: Written = serde_json::from_value(entry).map_err(|error| error.to_string())?;
        let status = match written.status {
            None => 200,
            Some(status) => {
                let number = status.as_u64().and_then(|number| u16::try_from(number).ok());
                number.ok_or_else(|| format!("`status` is {status}; expected a number such as 200"))?
            }
        };
        let mut asked = Asked { method: method.to_ascii_uppercase(), ..Asked::default() };
        asked.at(endpoint);
        let detailed = written.request.is_some() || !asked.params.is_empty();
        if let Some(request) = written.request {
            asked.params.extend(params(&request.params));
            asked.headers = headers(&request.headers);
            asked.data = meaning(request.data);
        }
        Ok(Recording {
            asked,
            detailed,
            hash: written.hash,
            status,
            headers: headers(&written.headers),
            body: body(written.response),
        })
    }

    /// Whether it answers this request.
    pub(super) fn fits(&self, asked: &Asked, hashes: &[String]) -> Option<Fit> {
        if self.hash.as_ref().is_some_and(|hash| hashes.contains(hash)) {
            return Some(Fit::Hash);
        }
        match self.detailed {
            true => self.unlike(asked).is_empty().then_some(Fit::Request),
            false => self.asked.same_place(asked).then_some(Fit::Endpoint),
        }
    }

    /// What this request would have to be to be answered by it; nothing if it is.
    pub(super) fn unlike(&self, asked: &Asked) -> Vec<String> {
        if !self.asked.same_place(asked) {
            return vec![format!("{} {}", self.asked.method, self.asked.endpoint)];
        }
        let mut unlike = Vec::new();
        let told = |value: Option<&String>| value.map_or("absent".to_owned(), |value| format!("`{value}`"));
        let mut say = |what: String, recorded: String| unlike.push(format!("{what} {recorded}"));
        let names: std::collections::BTreeSet<&String> = self.asked.params.keys().chain(asked.params.keys()).collect();
        for name in names {
            let recorded = self.asked.params.get(name);
            if recorded != asked.params.get(name) {
                say(format!("the parameter {name}"), told(recorded));
            }
        }
        for (name, value) in &self.asked.headers {
            let given = asked.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value);
            if !NOT_ASKED.contains(&name.as_str()) && given != Some(value) {
                say(format!("the header {name}"), told(Some(value)));
            }
        }
        if let Some((path, recorded, _)) = data_difference(self.asked.data.as_ref(), asked) {
            say(format!("the body{path}"), recorded.as_ref().map_or("absent".to_owned(), shown));
        }
        unlike
    }

    /// By how much its clock was ahead of that of this request, if they differ in nothing else.
    pub(super) fn ahead(&self, asked: &Asked) -> Option<i64> {
        let headers = self.asked.headers.iter().filter(|(name, _)| !NOT_ASKED.contains(&name.as_str()));
        let same_place =
            self.asked.same_place(asked) && headers.into_iter().all(|header| asked.headers.contains(header));
        let moments = |of: &Asked| json!([of.params, of.data]);
        clock::shift(&moments(&self.asked), &moments(asked)).filter(|_| same_place)
    }

    /// How far it is from a request, for telling the nearest ones.
    pub(super) fn distance(&self, asked: &Asked) -> usize {
        let (method, endpoint) = (self.asked.method == asked.method, self.asked.endpoint == asked.endpoint);
        let alike = self.asked.endpoint.split('/').zip(asked.endpoint.split('/')).take_while(|(a, b)| a == b).count();
        let place = if endpoint { 0 } else { 1000 - alike.min(100) };
        place + usize::from(!method) * 500 + self.unlike(asked).len()
    }

    /// The request it was recorded for, and how that differs.
    pub(super) fn told(&self, asked: &Asked) -> String {
        match self.asked.same_place(asked) {
            true => format!("{} with {}", self.asked, self.unlike(asked).join(", ")),
            false => self.asked.to_string(),
        }
    }

    /// The answer.
    pub(super) fn answer(&self) -> Answer {
        Answer::Response { status: self.status, headers: self.headers.clone(), body: self.body.clone() }
    }

    /// When it was answered, in milliseconds since 1970.
    pub(super) fn date(&self) -> Option<i64> {
        let (_, date) = self.headers.iter().find(|(name, _)| name == "date")?;
        let since = httpdate::parse_http_date(date).ok()?.duration_since(UNIX_EPOCH).ok()?;
        i64::try_from(since.as_millis()).ok()
    }
}

impl Asked {
    /// Of a request of a function.
    pub(super) fn of(request: &Request) -> Asked {
        let mut asked = Asked { method: request.method.clone(), ..Asked::default() };
        asked.at(&request.endpoint);
        asked.params.extend(joined(request.params.iter().cloned()));
        asked.headers = request.headers.clone();
        let of_form =
            |(name, value): &(String, String)| name == "content-type" && value.contains("x-www-form-urlencoded");
        asked.form = asked.headers.iter().any(of_form);
        let body = request.body.as_deref().filter(|body| !body.is_empty());
        let text = body.map(|body| String::from_utf8_lossy(body).into_owned());
        asked.written = text.iter().cloned().chain(body.map(|body| BASE64.encode(body))).map(hashed_if_long).collect();
        asked.data = text.map(Value::String).and_then(|body| if asked.form { as_form(&body) } else { meaning(body) });
        asked
    }

    /// Where it goes: the path of an address, and a query as parameters.
    fn at(&mut self, endpoint: &str) {
        let path =
            endpoint.split_once("://").map_or(endpoint, |(_, rest)| rest.split_once('/').map_or("", |(_, path)| path));
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let path = path.trim_start_matches('/');
        // As in an address: what may not stand there is encoded.
        let address = Url::parse(&format!("http://provider/{path}"));
        self.endpoint = address.map_or(path.to_owned(), |address| address.path().trim_start_matches('/').to_owned());
        self.params.extend(joined(form_urlencoded::parse(query.as_bytes()).into_owned()));
    }

    /// Method and endpoint, as a file names them.
    pub(super) fn place(&self) -> (String, String) {
        (self.method.to_ascii_lowercase(), format!("/{}", self.endpoint))
    }

    /// What a file tells of it beside these.
    pub(super) fn recorded(&self) -> Value {
        let said = |name: &str| !NOT_ASKED.contains(&name) && name != "cookie";
        let headers = self.headers.iter().filter(|(name, _)| said(name));
        let headers: Map<String, Value> = headers.map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        let is_text = |data: &Value| data.as_str().is_none_or(|text| !text.contains('\u{fffd}'));
        // Bytes that are no text are written in base64, as they come last.
        let data = match (&self.data, self.written.last()) {
            (Some(data), _) if is_text(data) => data.clone(),
            (_, written) => written.map_or(Value::Null, |written| written.as_str().into()),
        };
        json!({"params": self.params, "headers": headers, "data": data})
    }

    fn same_place(&self, other: &Asked) -> bool {
        (&self.method, &self.endpoint) == (&other.method, &other.endpoint)
    }
}

impl std::fmt::Display for Asked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} /{}", self.method, self.endpoint)?;
        for (at, (name, value)) in self.params.iter().enumerate() {
            write!(f, "{}{name}={value}", if at == 0 { '?' } else { '&' })?;
        }
        Ok(())
    }
}

/// The hashes by which a request may have been recorded: SHA-1 of its canonical form. A content type that the body implies may
/// be part of it or not, a query may stand in the endpoint or among the parameters, and several values of a parameter
/// may stand there joined or each.
pub(super) fn hashes(request: &Request, asked: &Asked) -> Vec<String> {
    let as_given = request.endpoint.trim_start_matches('/');
    let given = joined(request.params.iter().cloned());
    let query = request.endpoint.split_once('?').map_or("", |(_, query)| query);
    let mut each: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
    each.extend(request.params.iter().cloned());
    each.sort_by(|(a, _), (b, _)| a.cmp(b));
    let places = [
        (as_given, json!(given.iter().collect::<Vec<_>>())),
        (&asked.endpoint, json!(asked.params.iter().collect::<Vec<_>>())),
        (&asked.endpoint, json!(each)),
    ];
    let headers = [false, true].map(|implied| {
        let counts = |name: &str| !NOT_ASKED.contains(&name) && (implied || name != "content-type");
        let mut headers: Vec<_> = request.headers.iter().filter(|(name, _)| counts(name)).collect();
        headers.sort();
        json!(headers)
    });
    let bodies: Vec<Option<&String>> = match asked.written.as_slice() {
        [] => vec![None],
        written => written.iter().map(Some).collect(),
    };
    let mut hashes = Vec::new();
    for (endpoint, params) in &places {
        for headers in &headers {
            for body in &bodies {
                let mut canonical = json!({
                    "method": request.method.to_ascii_lowercase(),
                    "endpoint": endpoint,
                    "params": params,
                    "headers": headers,
                });
                if let (Some(canonical), Some(body)) = (canonical.as_object_mut(), body) {
                    canonical.insert("data".into(), body.as_str().into());
                }
                hashes.push(hex::encode(Sha1::digest(canonical.to_string())));
            }
        }
    }
    hashes
}

/// Where a body differs from the recorded one.
fn data_difference(recorded: Option<&Value>, asked: &Asked) -> Option<(String, Option<Value>, Option<Value>)> {
    if recorded.and_then(Value::as_str).is_some_and(|recorded| asked.written.iter().any(|written| written == recorded))
    {
        return None;
    }
    let form = recorded.filter(|_| asked.form).and_then(as_form);
    match (form.as_ref().or(recorded), asked.data.as_ref()) {
        (None, None) => None,
        (Some(recorded), Some(asked)) => difference(recorded, asked),
        (recorded, asked) => Some((String::new(), recorded.cloned(), asked.cloned())),
    }
}

/// A body of more than a thousand characters is recorded as its hash.
fn hashed_if_long(body: String) -> String {
    match body.encode_utf16().count() > WRITTEN_OUT {
        true => format!("sha1:{}", hex::encode(Sha1::digest(body))),
        false => body,
    }
}

/// A form, written as a query or as an object, as an object of texts.
fn as_form(data: &Value) -> Option<Value> {
    let fields = params(data);
    (!fields.is_empty()).then(|| fields.into_iter().collect())
}

/// A body as what it means: text that is JSON as that, no body and an empty one as none.
fn meaning(data: Value) -> Option<Value> {
    let data = match data {
        Value::String(text) => serde_json::from_str(&text).unwrap_or(Value::String(text)),
        data => data,
    };
    let is_empty = match &data {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(members) => members.is_empty(),
        _ => false,
    };
    (!is_empty).then_some(data)
}

/// Parameters of a recording: an object, or the text of a query.
fn params(params: &Value) -> BTreeMap<String, String> {
    match params {
        Value::Object(members) => members
            .iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(name, value)| (name.clone(), text(value)))
            .collect(),
        Value::String(query) => joined(form_urlencoded::parse(query.as_bytes()).into_owned()),
        _ => BTreeMap::new(),
    }
}

/// Names with their values; several of one name are joined by commas.
fn joined(pairs: impl Iterator<Item = (String, String)>) -> BTreeMap<String, String> {
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pairs {
        match all.get_mut(&name) {
            Some(values) => {
                values.push(',');
                values.push_str(&value);
            }
            None => {
                all.insert(name, value);
            }
        }
    }
    all
}

fn headers(headers: &Map<String, Value>) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.to_ascii_lowercase(), text(value))).collect()
}

/// A value as it stands in a query or a header.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Array(values) => values.iter().map(text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The bytes of a recorded body: text as it is, a buffer by its bytes, everything else as JSON.
fn body(response: Value) -> Vec<u8> {
    match response {
        Value::Null => Vec::new(),
        Value::String(text) => text.into_bytes(),
        Value::Object(members) if members.get("type").is_some_and(|kind| kind == "Buffer") => {
            let bytes = members.get("data").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            bytes.iter().filter_map(|byte| u8::try_from(byte.as_u64()?).ok()).collect()
        }
        other => other.to_string().into_bytes(),
    }
}
