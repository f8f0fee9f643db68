//! Requests: placeholders filled in, ready for paging parameters and sign-in.

use crate::definition::{Param, Request, Tree};
use crate::expr::{EvalError, Scope, Template};
use crate::http::paginate::Draft;
use crate::http::{HeaderMap, HeaderName, HeaderValue, Outgoing, Url, Veil, fits_a_host};
use crate::mapping::connection_value;
use bytes::Bytes;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::time::Duration;
use syncline_engine::model::Timestamp;
use syncline_engine::source::{Connection, Failure};

/// Values for the placeholders of a request.
#[derive(Clone, Debug)]
pub(super) struct Filling {
    open: Scope,
    /// With the credentials: for headers only.
    secret: Scope,
    /// What a parameter or a field of a body is left out for, if it is nothing but a placeholder below this that has no value.
    optional: Option<&'static str>,
}

impl Filling {
    /// What every request may name.
    pub(super) fn new(connection: &Connection, variant: &str) -> Filling {
        let mut open = Map::new();
        open.insert("connection".into(), connection_value(connection));
        open.insert("variant".into(), variant.into());
        let mut secret = open.clone();
        if let Some(Value::Object(known)) = secret.get_mut("connection") {
            known.insert("credentials".into(), Value::Object(connection.credentials.clone()));
        }
        Filling { open: Scope(open), secret: Scope(secret), optional: None }
    }

    /// Adds a value.
    pub(super) fn with(mut self, name: &str, value: Value) -> Filling {
        self.open.0.insert(name.to_string(), value.clone());
        self.secret.0.insert(name.to_string(), value);
        self
    }

    /// Parameters and fields that are nothing but an absent value of `root` are left out.
    pub(super) fn leaving_out(self, root: &'static str) -> Filling {
        Filling { optional: Some(root), ..self }
    }

    fn leaves_out(&self, template: &Template) -> bool {
        self.optional.is_some_and(|root| template.is_absent(root, &self.open))
    }

    /// Adds the ends of a time window.
    pub(super) fn with_window(self, window: Option<(Timestamp, Timestamp)>) -> Filling {
        match window {
            Some((since, until)) => {
                self.with("since", since.to_string().into()).with("until", until.to_string().into())
            }
            None => self,
        }
    }
}

/// Where relative paths of a connection resolve. Its sign-in goes there, so no value may end the host before the file does.
pub(super) fn base(template: &Template, connection: &Connection, filling: &Filling) -> Result<Url, Failure> {
    let text = match &connection.base_url {
        Some(own) => own.clone(),
        None => {
            fits_a_host(template, &filling.open, "base_url")?;
            template.text(&filling.open).map_err(|error| unfilled("base_url", &error))?
        }
    };
    Url::parse(&text).map_err(|error| refused("bad_url", format!("base_url «{text}» is no URL: {error}")))
}

/// The request with its placeholders filled in.
pub(super) fn draft(request: &Request, base: &Url, filling: &Filling) -> Result<Draft, Failure> {
    let path = request.path.url_path(&filling.open).map_err(|error| unfilled("the path", &error))?;
    let mut url = resolve(base, &path)?;
    let mut query: Vec<(String, String)> =
        url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect();
    url.set_query(None);
    query.extend(pairs(&request.params, filling)?);
    let headers = header_values(request.headers.iter().map(|(name, value)| (name, value)), filling)?;
    let body = request.body.as_ref().map(|tree| fill(tree, filling)).transpose()?;
    let form = request.form.as_ref().map(|form| pairs(form, filling)).transpose()?;
    Ok(Draft { method: request.method.clone(), url, query, headers, body, form })
}

/// Headers with their placeholders filled in; credentials may stand in them.
pub(super) fn header_values<'a>(
    headers: impl Iterator<Item = (&'a String, &'a Template)>,
    filling: &Filling,
) -> Result<Vec<(String, String)>, Failure> {
    let fill = |(name, template): (&String, &Template)| {
        let value = template.text(&filling.secret).map_err(|error| unfilled(&format!("header {name}"), &error))?;
        Ok((name.clone(), value))
    };
    headers.map(fill).collect()
}

fn resolve(base: &Url, path: &str) -> Result<Url, Failure> {
    let bad = |error| refused("bad_url", format!("«{path}» is neither path nor URL: {error}"));
    if path.starts_with("https://") || path.starts_with("http://") {
        let url = Url::parse(path).map_err(bad)?;
        if url.origin() == base.origin() {
            return Ok(url);
        }
        let (wanted, asked) = (base.origin().ascii_serialization(), url.origin().ascii_serialization());
        return Err(refused("other_origin", format!("{asked} is not the origin of base_url, {wanted}")));
    }
    // Joined as text: a base with a path of its own keeps it.
    let joined = format!("{}/{}", base.as_str().trim_end_matches('/'), path.trim_start_matches('/'));
    Url::parse(&joined).map_err(bad)
}

fn pairs(params: &[(String, Param)], filling: &Filling) -> Result<Vec<(String, String)>, Failure> {
    let mut pairs = Vec::with_capacity(params.len());
    for (name, param) in params {
        let texts = param.texts(&filling.open, &|template| filling.leaves_out(template));
        let texts = texts.map_err(|error| unfilled(name, &error))?;
        pairs.extend(texts.into_iter().map(|text| (name.clone(), text)));
    }
    Ok(pairs)
}

fn fill(tree: &Tree, filling: &Filling) -> Result<Value, Failure> {
    let filled = tree.fill(&filling.open, &|template| filling.leaves_out(template));
    filled.map_err(|error| unfilled("the body", &error))
}

/// The request as it goes out, short of its sign-in.
pub(super) fn seal(draft: &Draft, timeout: Duration, max_response: u64) -> Result<Outgoing, Failure> {
    let method = draft.method.parse().map_err(|_| refused("bad_method", format!("«{}» is no method", draft.method)))?;
    let mut url = draft.url.clone();
    if !draft.query.is_empty() {
        url.query_pairs_mut().extend_pairs(&draft.query);
    }
    let mut headers = HeaderMap::new();
    headers.insert("accept", HeaderValue::from_static("application/json"));
    let mut body = None;
    if let Some(json) = &draft.body {
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        body = Some(Bytes::from(json.to_string()));
    } else if let Some(form) = &draft.form {
        headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        let text = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        body = Some(Bytes::from(text));
    }
    for (name, value) in &draft.headers {
        let bad = || refused("bad_header", format!("header «{name}» or its value holds what no header may hold"));
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        headers.insert(name, HeaderValue::from_str(value).map_err(|_| bad())?);
    }
    Ok(Outgoing { method, url, headers, body, timeout, max_response, follow: true, veil: Veil::default() })
}

/// A short text that is equal for equal requests.
pub(super) fn fingerprint(draft: &Draft, stamp: &str) -> String {
    let body = draft.body.as_ref().map(Value::to_string);
    let whole = format!(
        "{stamp}\n{} {}\n{:?}\n{:?}\n{body:?}\n{:?}",
        draft.method, draft.url, draft.query, draft.headers, draft.form
    );
    // Credentials are in the stamp, so the text must not be one they could be guessed from.
    hex::encode(Sha256::digest(whole.as_bytes()).get(..16).unwrap_or_default())
}

fn unfilled(place: &str, error: &EvalError) -> Failure {
    refused("missing_value", format!("{place}: {error}"))
}

/// A failure that another attempt would not help.
pub(super) fn refused(code: &'static str, message: String) -> Failure {
    Failure::lasting(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn based(template: &str, metadata: Value) -> Result<String, &'static str> {
        let connection = Connection { metadata, ..Connection::default() };
        let filling = Filling::new(&connection, "base");
        let template = Template::compile(template).expect("compiles");
        base(&template, &connection, &filling).map(Into::into).map_err(|failure| failure.code)
    }

    #[test]
    fn a_value_in_the_host_of_base_url_stays_in_it() {
        let whole = "https://{{ connection.metadata.host }}/api";
        let part = "https://{{ connection.metadata.host }}.shop.example/api";
        assert_eq!(based(whole, json!({"host": "eu-1.shop.example"})), Ok("https://eu-1.shop.example/api".into()));
        assert_eq!(based(part, json!({"host": 7})), Ok("https://7.shop.example/api".into()));
        let outside =
            ["evil.example/", "evil.example#", "evil.example?", "a@evil.example", "evil.example:1", "e\\", "é", ""];
        for host in outside {
            for template in [whole, part] {
                assert_eq!(based(template, json!({"host": host})), Err("bad_host"), "{host:?} in {template}");
            }
        }
        assert_eq!(based(part, json!({})), Err("missing_value"));
    }

    #[test]
    fn a_value_behind_the_host_of_base_url_is_free() {
        let behind = "https://shop.example/{{ connection.metadata.tenant }}";
        let tenant = json!({"tenant": "a/b@c"});
        assert_eq!(based(behind, tenant), Ok("https://shop.example/a/b@c".into()));
    }
}
