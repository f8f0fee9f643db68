//! Who calls: the key of the `Authorization` header, its environment and role.
//!
//! A key is compared by its SHA-256 with every configured key, in constant time and always to the end, so that the answer's
//! timing tells nothing. Keys in the query are not looked at.

use super::HttpContext;
use super::error::Refusal;
use crate::admission::Holder;
use crate::config::{ApiKey, Role};
use crate::engine::fault;
use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::sync::Arc;
use subtle::{Choice, ConditionallySelectable, ConstantTimeEq};

/// Shortest key that is taken.
const MIN_CHARS: usize = 32;

/// Longest key that is looked at.
const MAX_CHARS: usize = 1_024;

/// The caller, put into the request's extensions.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Isolation scope of everything the caller can name.
    pub environment: Arc<str>,
    /// What it may do.
    pub role: Role,
    /// The key, as one for whom things are counted.
    pub key: Holder,
}

impl Caller {
    /// The two for whom its answers are counted: its environment and its key.
    pub(crate) fn holders(&self) -> [Holder; 2] {
        [Holder::of("environment", &*self.environment), self.key]
    }

    /// Refuses callers below `role`.
    pub(crate) fn must_be(&self, role: Role) -> Result<(), Refusal> {
        if self.role >= role {
            return Ok(());
        }
        let message = format!("this key has the role {}; {} is needed", word(self.role), word(role));
        Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", message))
    }
}

fn word(role: Role) -> &'static str {
    match role {
        Role::Reader => "reader",
        Role::Writer => "writer",
        Role::Admin => "admin",
    }
}

impl HttpContext {
    /// Who sends these headers, or code and message of the refusal.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Result<Caller, (&'static str, &'static str)> {
        find(headers, &self.keys)
    }
}

/// Lets only callers with a key pass.
pub(crate) async fn demand(State(http): State<HttpContext>, mut request: Request, next: Next) -> Response {
    // Found already where budgets were looked at.
    if request.extensions().get::<Caller>().is_some() {
        return next.run(request).await;
    }
    match http.caller(request.headers()) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            next.run(request).await
        }
        Err((code, message)) => {
            let mut response = Refusal::new(StatusCode::UNAUTHORIZED, code, message).into_response();
            response.headers_mut().insert("www-authenticate", HeaderValue::from_static("Bearer"));
            response
        }
    }
}

fn find(headers: &HeaderMap, keys: &[ApiKey]) -> Result<Caller, (&'static str, &'static str)> {
    let header = headers.get(AUTHORIZATION);
    let text = header.and_then(|v| v.to_str().ok()).unwrap_or_default();
    let key = bearer(text).unwrap_or_default();
    // The search runs also for what cannot be a key.
    let found = if fault::planted("any_key_is_as_good") { keys.first() } else { search(key, keys) };
    if header.is_none() {
        return Err(("missing_auth_header", "the header Authorization is missing: send `Authorization: Bearer KEY`"));
    }
    if bearer(text).is_none() {
        return Err(("malformed_auth_header", "the header Authorization must read `Bearer KEY`"));
    }
    if !(MIN_CHARS..=MAX_CHARS).contains(&key.len()) || !key.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(("invalid_secret_key_format", "this cannot be a key: 32 to 1024 printable characters are wanted"));
    }
    found
        .map(|key| Caller {
            environment: key.environment.as_str().into(),
            role: key.role,
            key: Holder::of("key", key.hash),
        })
        .ok_or(("unknown_account", "no such key; the server's setting api_keys lists those it takes"))
}

/// What tokens of connect sessions begin with: no key does.
pub(crate) const SESSION: &str = "nango_connect_session_";

/// Whether the header holds the token of a connect session instead of a key.
pub(crate) fn is_token(headers: &HeaderMap) -> bool {
    let text = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    bearer(text).is_some_and(|token| token.starts_with(SESSION))
}

fn bearer(text: &str) -> Option<&str> {
    let (scheme, rest) = text.split_once(' ')?;
    let key = rest.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !key.is_empty()).then_some(key)
}

fn search<'k>(presented: &str, keys: &'k [ApiKey]) -> Option<&'k ApiKey> {
    let cut = presented.as_bytes().get(..MAX_CHARS).unwrap_or(presented.as_bytes());
    let hash: [u8; 32] = Sha256::digest(cut).into();
    let mut found = u64::MAX;
    for (at, key) in keys.iter().enumerate() {
        let equal: Choice = key.hash.ct_eq(&hash);
        found.conditional_assign(&(at as u64), equal);
    }
    usize::try_from(found).ok().and_then(|at| keys.get(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn ask(header: Option<&str>) -> Result<String, &'static str> {
        let keys = [
            ApiKey { name: "other".into(), hash: [7; 32], environment: "other".into(), role: Role::Admin },
            ApiKey {
                name: "ours".into(),
                hash: Sha256::digest(KEY).into(),
                environment: "prod".into(),
                role: Role::Reader,
            },
        ];
        let mut headers = HeaderMap::new();
        if let Some(text) = header {
            headers.insert(AUTHORIZATION, HeaderValue::from_str(text).expect("header"));
        }
        find(&headers, &keys).map(|c| c.environment.to_string()).map_err(|(code, _)| code)
    }

    #[test]
    fn the_key_names_the_environment() {
        assert_eq!(ask(Some(&format!("Bearer {KEY}"))), Ok("prod".into()));
        assert_eq!(ask(Some(&format!("bearer  {KEY}"))), Ok("prod".into()));
    }

    #[test]
    fn refusals_name_what_is_wrong() {
        assert_eq!(ask(None), Err("missing_auth_header"));
        assert_eq!(ask(Some(KEY)), Err("malformed_auth_header"));
        assert_eq!(ask(Some(&format!("Basic {KEY}"))), Err("malformed_auth_header"));
        assert_eq!(ask(Some("Bearer ")), Err("malformed_auth_header"));
        assert_eq!(ask(Some("Bearer short")), Err("invalid_secret_key_format"));
        assert_eq!(ask(Some(&format!("Bearer {}", "x".repeat(32)))), Err("unknown_account"));
    }

    #[test]
    fn a_higher_role_includes_the_lower() {
        let caller = |role| Caller { environment: "e".into(), role, key: Holder::of("key", "k") };
        assert!(caller(Role::Admin).must_be(Role::Writer).is_ok());
        assert!(caller(Role::Reader).must_be(Role::Writer).is_err());
    }
}
