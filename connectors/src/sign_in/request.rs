//! A request for tokens as it goes out: form or JSON, with the proof of who the app is.

use super::answer::TokenError;
use super::app::AppCredentials;
use super::{ANSWER_MAX, ANSWER_TIME, assertion};
use crate::definition::{ClientAuth, Login, TokenAuth};
use crate::expr::{EvalError, Scope, Template};
use crate::http::{HeaderMap, HeaderName, HeaderValue, Method, Outgoing, Url, Veil, address, auth};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde_json::{Map, Value, json};
use syncline_engine::model::Timestamp;
use syncline_engine::source::Failure;

/// What proves an app by a signed statement (RFC 7523).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What the texts of `auth` may name of a connection.
pub(super) fn account_scope(fields: &Map<String, Value>, credentials: &Map<String, Value>) -> Scope {
    let connection = json!({"fields": fields, "credentials": credentials});
    Scope([("connection".to_owned(), connection)].into_iter().collect())
}

/// A body in the making.
pub(super) struct TokenForm<'a> {
    pub(super) auth: &'a TokenAuth,
    pub(super) app: &'a AppCredentials,
    pub(super) scope: &'a Scope,
    pub(super) now: Timestamp,
    /// The key a connection brings for assertions.
    pub(super) key: Option<&'a str>,
}

impl TokenForm<'_> {
    /// The request with `pairs`, those of the definition, and the app's proof.
    pub(super) fn request(
        &self,
        url: &Url,
        pairs: Vec<(&str, String)>,
        params: &[(String, Template)],
    ) -> Result<Outgoing, TokenError> {
        let mut body = self.body(pairs, params)?;
        let mut headers = HeaderMap::new();
        self.prove(url, &mut body, &mut headers)?;
        Ok(self.sealed(url, body, headers))
    }

    /// The same without the proof: what is in `pairs` is one.
    pub(super) fn unproven(
        &self,
        url: &Url,
        pairs: Vec<(&str, String)>,
        params: &[(String, Template)],
    ) -> Result<Outgoing, TokenError> {
        Ok(self.sealed(url, self.body(pairs, params)?, HeaderMap::new()))
    }

    fn body(
        &self,
        pairs: Vec<(&str, String)>,
        params: &[(String, Template)],
    ) -> Result<Vec<(String, String)>, TokenError> {
        let mut body: Vec<(String, String)> = pairs.into_iter().map(|(n, v)| (n.to_owned(), v)).collect();
        for (name, template) in params {
            let value = template.text(self.scope).map_err(|error| unfilled(name, &error))?;
            put(&mut body, name, value);
        }
        Ok(body)
    }

    fn sealed(&self, url: &Url, body: Vec<(String, String)>, mut headers: HeaderMap) -> Outgoing {
        let bytes = if self.auth.json_body {
            headers.insert("content-type", HeaderValue::from_static("application/json"));
            let map: Map<String, Value> = body.iter().map(|(n, v)| (n.clone(), Value::from(v.as_str()))).collect();
            Value::Object(map).to_string()
        } else {
            headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
            url::form_urlencoded::Serializer::new(String::new()).extend_pairs(&body).finish()
        };
        let mut veil = Veil::default();
        let telling = |name: &str| !matches!(name, "grant_type" | "scope" | "redirect_uri" | "client_id");
        body.iter().filter(|(name, _)| telling(name)).for_each(|(_, value)| veil.add(value));
        self.app.client_secret.iter().for_each(|secret| veil.add(secret));
        outgoing(Method::POST, url.clone(), headers, Some(bytes.into()), veil)
    }

    fn prove(&self, url: &Url, body: &mut Vec<(String, String)>, headers: &mut HeaderMap) -> Result<(), TokenError> {
        let id = || {
            self.app.client_id.clone().ok_or_else(|| {
                let message = "the app has no `client_id`: add it to `auth`, to the integration or to the connection";
                TokenError::Unusable(Failure::lasting("missing_client", message))
            })
        };
        let secret = self.app.client_secret.clone();
        match self.auth.client_auth {
            ClientAuth::Body => {
                put(body, "client_id", id()?);
                secret.into_iter().for_each(|secret| put(body, "client_secret", secret));
            }
            ClientAuth::None => put(body, "client_id", id()?),
            ClientAuth::Basic => {
                let pair = format!("{}:{}", form(&id()?), form(&secret.unwrap_or_default()));
                let value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)));
                let mut value = value.map_err(|_| unusable("bad_credential", "the app cannot be named in a header"))?;
                value.set_sensitive(true);
                headers.insert("authorization", value);
            }
            ClientAuth::PrivateKey => {
                let id = id()?;
                let said =
                    self.auth.assertion.as_ref().ok_or_else(|| unusable("missing_key", "`auth` has no `assertion`"))?;
                let own = json!({"iss": id, "sub": id, "aud": url.as_str()});
                let signed = assertion::sign(said, own, self.scope, self.key, self.now)?;
                put(body, "client_id", id);
                put(body, "client_assertion_type", ASSERTION_TYPE.to_owned());
                put(body, "client_assertion", signed);
            }
        }
        Ok(())
    }
}

/// RFC 6749 2.3.1: both are encoded as forms are, before they are joined.
fn form(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

fn put(body: &mut Vec<(String, String)>, name: &str, value: String) {
    body.retain(|(known, _)| known != name);
    body.push((name.to_owned(), value));
}

/// The request of a login.
pub(super) fn login(login: &Login, scope: &Scope, secrets: &Map<String, Value>) -> Result<Outgoing, TokenError> {
    let mut url = address(&login.url, scope, "the URL of `login`").map_err(TokenError::Unusable)?;
    for (name, template) in &login.params {
        let value = template.text(scope).map_err(|error| unfilled(name, &error))?;
        url.query_pairs_mut().append_pair(name, &value);
    }
    let mut headers = HeaderMap::new();
    let mut body = None;
    if let Some(tree) = &login.body {
        headers.insert("content-type", HeaderValue::from_static("application/json"));
        body = Some(tree.fill(scope, &|_| false).map_err(|error| unfilled("body", &error))?.to_string().into());
    } else if let Some(form) = &login.form {
        headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        let mut text = url::form_urlencoded::Serializer::new(String::new());
        for (name, param) in form {
            let values = param.texts(scope, &|_| false).map_err(|error| unfilled(name, &error))?;
            for value in &values {
                text.append_pair(name, value);
            }
        }
        body = Some(text.finish().into());
    }
    for (name, template) in &login.headers {
        let value = template.text(scope).map_err(|error| unfilled(name, &error))?;
        let name =
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable("bad_header", "no name of a header"))?;
        let value = HeaderValue::from_str(&value);
        let mut value = value.map_err(|_| unusable("bad_header", "a value of `login` cannot stand in a header"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let method = login.method.parse().map_err(|_| unusable("bad_method", "no method"))?;
    let mut outgoing = outgoing(method, url, headers, body, Veil::default());
    let mut veil = Veil::default();
    secrets.values().for_each(|secret| veil.add_all(secret));
    auth::veil_request(&mut veil, &outgoing);
    outgoing.veil = veil;
    Ok(outgoing)
}

fn outgoing(method: Method, url: Url, mut headers: HeaderMap, body: Option<Bytes>, veil: Veil) -> Outgoing {
    if !headers.contains_key("accept") {
        headers.insert("accept", HeaderValue::from_static("application/json"));
    }
    Outgoing { method, url, headers, body, timeout: ANSWER_TIME, max_response: ANSWER_MAX, follow: false, veil }
}

fn unfilled(name: &str, error: &EvalError) -> TokenError {
    TokenError::Unusable(Failure::lasting("missing_value", format!("{name}: {error}")))
}

fn unusable(code: &'static str, message: &str) -> TokenError {
    TokenError::Unusable(Failure::lasting(code, message))
}
