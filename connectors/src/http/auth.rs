//! Sign-in: lays the credentials of a connection into a request.
//!
//! A field of the connection's credentials wins over the definition's default; with neither, the request is not sent, unless the
//! definition lets connections go without any.

use super::client::failure;
use super::{Outgoing, Veil, looks_secret};
use crate::definition::{Auth, AuthKind};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue};
use serde_json::Value;
use syncline_engine::source::{Connection, Failure};

/// Signs `request` in for `connection`.
pub fn sign_in(auth: &Auth, connection: &Connection, request: &mut Outgoing) -> Result<(), Failure> {
    if auth.goes_without(&connection.credentials).is_some() {
        return Ok(());
    }
    match &auth.kind {
        AuthKind::None => Ok(()),
        AuthKind::Bearer { token } => {
            let token = credential(connection, "token", token.as_deref())?;
            put(request, AUTHORIZATION, &format!("Bearer {token}"))
        }
        AuthKind::Basic { username, password } => {
            let username = credential(connection, "username", username.as_deref())?;
            let password = credential(connection, "password", password.as_deref().or(Some("")))?;
            put(request, AUTHORIZATION, &format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
        }
        AuthKind::Tokens(_) => {
            let token = credential(connection, "access_token", None)?;
            put(request, AUTHORIZATION, &format!("Bearer {token}"))
        }
        AuthKind::ApiKey { key, in_query, name, prefix } => {
            let key = credential(connection, "key", key.as_deref())?;
            let value = format!("{prefix}{key}");
            if *in_query {
                // A next link may carry the key already.
                let others = request.url.query_pairs().filter(|(known, _)| known != name);
                let others: Vec<(String, String)> = others.map(|(n, v)| (n.into_owned(), v.into_owned())).collect();
                request.url.query_pairs_mut().clear().extend_pairs(others).append_pair(name, &value);
                return Ok(());
            }
            let name = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| failure("bad_header", format!("auth.name «{name}» is no header name"), false))?;
            put(request, name, &value)
        }
    }
}

/// What nobody who is asked in the name of `connection` may make us show.
pub fn veil(kind: &AuthKind, connection: &Connection) -> Veil {
    let mut veil = Veil::default();
    let (default, user) = match kind {
        AuthKind::None => (None, None),
        AuthKind::Tokens(tokens) => (tokens.client_secret.as_deref(), None),
        AuthKind::Bearer { token: key } | AuthKind::ApiKey { key, .. } => (key.as_deref(), None),
        AuthKind::Basic { username, password } => (password.as_deref(), username.as_deref()),
    };
    // A user name without a password is a key; beside one it is a word that any text may hold.
    let password = default.is_some() || connection.credentials.contains_key("password");
    let secret = |name: &str| name != "username" || !password;
    connection.credentials.iter().filter(|(name, _)| secret(name)).for_each(|(_, value)| veil.add_all(value));
    default.into_iter().chain(user.filter(|_| !password)).for_each(|secret| veil.add(secret));
    veil
}

/// Adds what a signed request itself holds: `user:password` in base64, and parameters that are named like secrets.
pub fn veil_request(veil: &mut Veil, request: &Outgoing) {
    for (name, value) in &request.headers {
        let Ok(text) = value.to_str() else { continue };
        if value.is_sensitive() || looks_secret(name.as_str()) {
            veil.add(text);
            veil.add(text.split_once(' ').map_or(text, |(_, token)| token));
        }
    }
    for (_, value) in request.url.query_pairs().filter(|(name, _)| looks_secret(name)) {
        veil.add(&value);
    }
    let form = request.headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().ends_with(b"form-urlencoded"));
    let body = request.body.as_deref().filter(|_| form).unwrap_or_default();
    for (_, value) in url::form_urlencoded::parse(body).filter(|(name, _)| looks_secret(name)) {
        veil.add(&value);
    }
}

fn credential(connection: &Connection, field: &str, default: Option<&str>) -> Result<String, Failure> {
    match connection.credentials.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        _ => default.map(str::to_string).ok_or_else(|| {
            let id = &connection.id;
            let message = format!("connection «{id}» has no credential «{field}»; store it with the connection");
            failure("missing_credential", message, false)
        }),
    }
}

fn put(request: &mut Outgoing, name: HeaderName, value: &str) -> Result<(), Failure> {
    let mut value = HeaderValue::from_str(value).map_err(|_| {
        failure("bad_credential", "a credential holds characters that no header may hold".to_string(), false)
    })?;
    value.set_sensitive(true);
    request.headers.insert(name, value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::{Method, Url};
    use serde_json::json;
    use std::time::Duration;

    fn request() -> Outgoing {
        Outgoing {
            method: Method::GET,
            url: Url::parse("https://api.example/a?x=1").expect("a URL"),
            headers: Default::default(),
            body: None,
            timeout: Duration::from_secs(1),
            max_response: 1,
            follow: true,
            veil: Veil::default(),
        }
    }

    fn connection(credentials: Value) -> Connection {
        Connection { credentials: credentials.as_object().cloned().unwrap_or_default(), ..Connection::default() }
    }

    fn header(kind: AuthKind, credentials: Value) -> Result<String, &'static str> {
        signed(Auth { kind, ..Auth::default() }, credentials)
    }

    fn signed(auth: Auth, credentials: Value) -> Result<String, &'static str> {
        let mut request = request();
        sign_in(&auth, &connection(credentials), &mut request).map_err(|failure| failure.code)?;
        let header = request.headers.values().next().and_then(|value| value.to_str().ok()).unwrap_or_default();
        Ok(header.to_string())
    }

    #[test]
    fn the_connection_wins_over_the_default() {
        let kind = || AuthKind::Bearer { token: Some("default".into()) };
        assert_eq!(header(kind(), json!({"token": "own"})), Ok("Bearer own".into()));
        assert_eq!(header(kind(), json!({})), Ok("Bearer default".into()));
        assert_eq!(header(AuthKind::Bearer { token: None }, json!({})), Err("missing_credential"));
    }

    #[test]
    fn basic_may_go_without_password() {
        let kind = AuthKind::Basic { username: None, password: None };
        assert_eq!(header(kind, json!({"username": "me"})), Ok("Basic bWU6".into()));
    }

    #[test]
    fn where_signing_in_is_optional_only_none_at_all_goes_without() {
        let auth = |username: Option<&str>| {
            let kind = AuthKind::Basic { username: username.map(str::to_owned), password: None };
            Auth { kind, optional: true, ..Auth::default() }
        };
        assert_eq!(signed(auth(None), json!({})), Ok(String::new()));
        assert_eq!(signed(auth(None), json!({"webhook_secret": "s"})), Ok(String::new()));
        assert_eq!(signed(auth(None), json!({"password": "p"})), Err("missing_credential"));
        assert_eq!(signed(auth(None), json!({"username": "me"})), Ok("Basic bWU6".into()));
        assert_eq!(signed(auth(Some("me")), json!({})), Ok("Basic bWU6".into()));
    }

    #[test]
    fn a_key_goes_to_header_or_query() {
        let kind = |in_query| AuthKind::ApiKey { key: None, in_query, name: "X-Key".into(), prefix: "k ".into() };
        assert_eq!(header(kind(false), json!({"key": "s"})), Ok("k s".into()));
        assert_eq!(header(kind(false), json!({"key": "a\nb"})), Err("bad_credential"));
        let mut request = request();
        sign_in(&Auth { kind: kind(true), ..Auth::default() }, &connection(json!({"key": "a&b"})), &mut request)
            .expect("signed in");
        assert_eq!(request.url.query(), Some("x=1&X-Key=k+a%26b"));
    }
}
